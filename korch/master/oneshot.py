"""One-shot mode: the lead, the controllers, the scheduler and the keepers in this process, until a wish is true.

It acts only on the workloads named and on nodes reached in this run, and it never fails over. While another process
leads, it follows what that one does, and takes the lead when that one leaves.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from korch.client.base import Outcome, Progress, Workload
from korch.controllers.deployment import DeploymentController
from korch.controllers.garbage import GarbageCollector
from korch.controllers.outcome import Standing, standing
from korch.controllers.replicaset import ReplicaSetController
from korch.controllers.scheduling import SchedulingController
from korch.engines.names import Identity
from korch.errors import FencedError, HostUnreachableError, KorchError, RolloutFailedError
from korch.master.background import background
from korch.master.cluster import Cluster
from korch.master.fleet import Contact, Fleet
from korch.master.progress import Reporter
from korch.master.pruning import prune_after
from korch.master.wishes import keep_wishes
from korch.nodes.keeper import Keeper
from korch.objects.objects import Change, Objects
from korch.objects.view import View
from korch.resources.meta import Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import workload_name
from korch.resources.workload import Deployment, ReplicaSet
from korch.store.lease import Lead
from korch.workqueue import WorkQueue

KINDS = (Deployment, ReplicaSet, Pod, Node, NodeLoad)
ROLLBACK_S = 90.0  # beyond the deadline, for going back


class Scope:
    """The workloads that one run may touch."""

    def __init__(self, workloads: Sequence[Workload]) -> None:
        self._names = {(found.namespace, found.name) for found in workloads}

    def has(self, obj: Object) -> bool:
        """Whether an object belongs to one of them."""
        return (obj.metadata.namespace, workload_name(obj)) in self._names

    def owns(self, identity: Identity) -> bool:
        """Whether a container does."""
        return (identity.namespace, identity.owner or identity.pod) in self._names


class OneShot:
    """One run. `since`: the generation of each workload from which a rollback counts as this run's."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        workloads: Sequence[Workload],
        *,
        since: Mapping[Workload, int],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._cluster, self._fleet, self._workloads, self._since = cluster, fleet, tuple(workloads), since
        self._scope = Scope(workloads)
        self._lead = Lead(
            cluster.store,
            lock_file=cluster.settings.cluster_dir / "lead.lock",
            note={"doing": ", ".join(map(str, workloads))},
        )
        self._reporter = Reporter(on_progress)
        self._keeping: dict[str, Keeper] = {}
        self._dead: dict[str, KorchError] = {}
        self._changed = asyncio.Event()
        self._orphans = self._held_back = 0
        self._queues: tuple[WorkQueue[Any], ...] = ()

    async def run(self, timeout_s: float) -> tuple[Outcome, ...]:
        """An outcome for each workload, in order; the lead is given back in any case."""
        try:
            async with asyncio.timeout(timeout_s + ROLLBACK_S):
                while True:
                    if await self._lead.acquire(wait_s=0.0):
                        try:
                            return await self._leading()
                        except FencedError:
                            if await self._leads_in_store():
                                raise  # a node has seen a newer master, and the store knows of none
                    if (ended := await self._following()) is not None:
                        return ended
                    await self._fleet.survey(quick=True)  # another one was at work since the last look
        except TimeoutError:
            return await self._late(timeout_s)
        finally:
            await self._lead.release()

    async def _leads_in_store(self) -> bool:
        holder = await self._lead.holder()
        return holder is not None and holder.identity == self._lead.identity

    def _epoch(self) -> int:
        """For acts on nodes: `FencedError` once the lead is lost, also when this process slept through it."""
        self._lead.fence()
        return self._lead.epoch

    async def _late(self, timeout_s: float) -> tuple[Outcome, ...]:
        view = View(self._cluster.objects, KINDS)
        async with background() as group:
            await view.start(group)
            return self._outcomes(view, self._standings(view), late_s=timeout_s)

    # Following another process that leads

    async def _following(self) -> tuple[Outcome, ...] | None:
        """The outcomes once the leading process made the wishes true; None when the lead is this process's now."""
        view = View(self._cluster.objects, KINDS)
        view.listen(self._note)
        async with background() as group:
            await view.start(group)
            holder = await self._lead.holder()
            self._reporter.say(f"following {holder.identity}, which leads now" if holder else "")
            while not await self._lead.acquire(wait_s=0.0):  # also from one that is silent for a TTL
                standings = self._standings(view)
                if all(found.state in {"done", "failed"} for found in standings):
                    return self._outcomes(view, standings)
                await self._wait_for_change(1.0)
        return None

    # Leading

    async def _leading(self) -> tuple[Outcome, ...]:
        contacts = await self._fleet.contacts(claim=True)
        await self._lead.raise_epoch(max((found.report.epoch for found in contacts.values()), default=0))
        objects = Objects(self._cluster.store, clock=self._cluster.clock, fence=self._lead.fence)
        view = View(objects, KINDS)
        view.listen(self._note)
        self._dead = self._fleet.problems
        self._orphans = self._held_back = 0
        async with background() as group:
            await view.start(group)
            self._keeping = keepers = self._keepers(view, contacts)
            self._count_absent(view, keepers)
            await asyncio.gather(*(keeper.take_stock() for keeper in keepers.values()))
            self._start_controllers(view, keepers, group)
            await self._remove_surplus(view, keepers, objects)
            for keeper in keepers.values():
                group.create_task(keeper.run(), name=f"keeper-{keeper.node}")
            outcomes = await self._until_settled(view)
            return await self._leave(outcomes, contacts, keepers)

    async def _leave(
        self, outcomes: tuple[Outcome, ...], contacts: dict[str, Contact], keepers: dict[str, Keeper]
    ) -> tuple[Outcome, ...]:
        """Before the lead goes back: every node that runs something holds its wish, and old images make room."""
        alive = {name: found for name, found in contacts.items() if name not in self._dead}
        recorded = {name: keeper.recorded for name, keeper in keepers.items()}
        notes = await keep_wishes(self._cluster, alive, self._epoch(), self._workloads, recorded)
        if any(outcome.changed for outcome in outcomes):
            await prune_after(self._cluster, self._fleet, alive, self._epoch())
        return tuple(replace(outcome, notes=(*outcome.notes, *notes)) for outcome in outcomes)

    def _keepers(self, view: View, contacts: dict[str, Contact]) -> dict[str, Keeper]:
        found = {}
        for name, contact in contacts.items():
            keeper = Keeper(
                name,
                contact.machine,
                view,
                self._cluster.clock,
                address=contact.address,
                epoch=self._epoch,
                mine=self._scope.has,
                on_contact=self._contact,
            )
            keeper.adopt(contact.report.containers, contact.images)
            found[name] = keeper
        return found

    def _count_absent(self, view: View, keepers: dict[str, Keeper]) -> None:
        """Nodes that hold pods of this run and that nobody keeps count as dead: nothing there is waited for."""
        for pod in view.all(Pod):
            node = pod.spec.node_name
            if node and node not in keepers and node not in self._dead and self._scope.has(pod):
                self._dead[node] = HostUnreachableError(f"{node} is not in the inventory any more", host=node)

    def _contact(self, node: str, error: KorchError | None) -> None:
        """A node went away, or is back."""
        if error is not None:
            self._fleet.mark_lost(node, error)
        else:
            self._fleet.mark_found(node)
        self._changed.set()

    def _silent(self) -> dict[str, KorchError]:
        """Nodes that cannot be worked with now, and why."""
        lost = {name: keeper.given_up for name, keeper in self._keeping.items() if keeper.given_up is not None}
        return self._dead | lost

    def _allowed(self) -> frozenset[str]:
        return self._fleet.placeable - self._silent().keys()

    def _start_controllers(self, view: View, keepers: dict[str, Keeper], group: asyncio.TaskGroup) -> None:
        clock = self._cluster.clock
        deployments: WorkQueue[tuple[str, str]] = WorkQueue("deployment", DeploymentController(view, clock).reconcile)
        sets: WorkQueue[tuple[str, str]] = WorkQueue("replicaset", ReplicaSetController(view, clock).reconcile)
        garbage: WorkQueue[tuple[type[Object], str, str]] = WorkQueue("garbage", GarbageCollector(view).reconcile)
        scheduler = SchedulingController(view, clock, allowed=self._allowed, mine=self._scope.has)
        placing: WorkQueue[str] = WorkQueue("scheduler", scheduler.reconcile)

        def route(change: Change[Object]) -> None:
            """Which reconcilers a change concerns."""
            obj = change.object
            meta = obj.metadata
            if isinstance(obj, Node | NodeLoad):
                placing.add("all")
                return
            if not self._scope.has(obj):
                return
            workload = (meta.namespace, workload_name(obj))
            deployments.add(workload)
            if isinstance(obj, ReplicaSet):
                sets.add((meta.namespace, meta.name))
            if isinstance(obj, Pod):
                owner = next((ref.name for ref in meta.owner_references if ref.kind == "ReplicaSet"), "")
                if owner:
                    sets.add((meta.namespace, owner))
                if not obj.spec.node_name:
                    placing.add("all")
                elif obj.spec.node_name in keepers:
                    keepers[obj.spec.node_name].wake(obj)
            if change.type == "DELETED" or isinstance(obj, ReplicaSet | Pod):
                self._collect(view, garbage, change)

        view.listen(route)
        for type_ in KINDS:
            for obj in view.all(type_):
                route(Change("ADDED", obj, None, 0))
        self._queues = (deployments, sets, garbage, placing)
        for queue in self._queues:
            group.create_task(queue.run(workers=1 if queue is placing else 4), name=queue.name)

    def _collect(self, view: View, garbage: WorkQueue[tuple[type[Object], str, str]], change: Change[Object]) -> None:
        """Objects whose owner may be gone: all of a deleted owner's, and each that appears."""
        meta = change.object.metadata
        if change.type != "DELETED":
            if change.type == "ADDED":
                garbage.add((type(change.object), meta.namespace, meta.name))
            return
        for type_ in (ReplicaSet, Pod):
            for obj in view.owned(type_, meta.uid, meta.namespace):
                garbage.add((type_, meta.namespace, obj.metadata.name))

    async def _remove_surplus(self, view: View, keepers: dict[str, Keeper], objects: Objects) -> None:
        """Before anything else: what the store proves surplus on the nodes goes."""
        pods = {pod.metadata.uid: pod for pod in view.all(Pod)}

        async def one(keeper: Keeper) -> None:
            unknown = keeper.known_uids() - pods.keys()
            ended = frozenset([uid for uid in unknown if await objects.tombstone(uid) is not None])
            try:
                found = await keeper.remove_surplus(pods, ended, self._scope.owns)
                self._orphans += len(found.orphans)
                self._held_back += found.held_back
            except FencedError:
                raise
            except KorchError as error:
                self._reporter.say(f"{keeper.node}: {error}")

        await asyncio.gather(*(one(keeper) for keeper in keepers.values()))

    async def _until_settled(self, view: View) -> tuple[Outcome, ...]:
        """Wait until only a person could do more."""
        while True:
            self._lead.fence()
            standings = self._standings(view)
            stuck = any(found.state == "stuck" for found in standings)
            if all(found.state != "going" for found in standings) and (self._all_have_looked() or not stuck):
                return self._outcomes(view, standings)
            await self._wait_for_change(0.5 if not stuck else 0.05)

    def _all_have_looked(self) -> bool:
        """Whether a pod that fits nowhere is one that this run found so: until then the reason is an earlier run's."""
        return all(queue.idle for queue in self._queues)

    # Judging

    def _note(self, change: Change[Object]) -> None:
        self._changed.set()
        if isinstance(change.object, Pod) and self._scope.has(change.object):
            self._reporter.pod(change)

    async def _wait_for_change(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()
        self._changed.clear()

    def _pods(self, view: View, workload: Workload) -> tuple[Pod, ...]:
        return tuple(pod for pod in view.all(Pod, workload.namespace) if workload_name(pod) == workload.name)

    def _standings(self, view: View) -> tuple[Standing, ...]:
        now, dead = self._cluster.clock.now(), frozenset(self._silent())
        return tuple(
            standing(
                view.find(Deployment, workload.name, workload.namespace),
                self._pods(view, workload),
                now,
                dead_nodes=dead,
                since=self._since.get(workload, 0),
                ownerless=self._ownerless(view, workload),
            )
            for workload in self._workloads
        )

    def _ownerless(self, view: View, workload: Workload) -> bool:
        """Whether something is left whose owner is gone; what stands on nodes that cannot be reached does not count."""
        silent = self._silent()
        there: set[str] = {obj.metadata.uid for type_ in (Deployment, ReplicaSet) for obj in view.all(type_)}
        sets = [found for found in view.all(ReplicaSet, workload.namespace) if workload_name(found) == workload.name]
        pods = [pod for pod in self._pods(view, workload) if pod.spec.node_name not in silent]
        owners = [ref.uid for obj in (*sets, *pods) for ref in obj.metadata.owner_references if ref.controller]
        return any(uid not in there for uid in owners)

    def _outcomes(
        self, view: View, standings: Sequence[Standing], *, late_s: float | None = None
    ) -> tuple[Outcome, ...]:
        notes = [_about(name, error) for name, error in sorted(self._silent().items())]
        if self._orphans:
            notes.append(f"{self._orphans} container(s) of this cluster are unknown to its state: see `korch adopt`")
        if self._held_back:
            notes.append(
                f"{self._held_back} more surplus container(s) stay for now: `korch sync` removes the next ones"
            )
        outcomes = []
        for workload, found in zip(self._workloads, standings, strict=True):
            pods = tuple(pod for pod in self._pods(view, workload) if pod.metadata.deletion_timestamp is None)
            error = None
            if found.state != "done":
                late = f"not finished after {late_s:.0f} s: " if late_s is not None else ""
                error = RolloutFailedError(f'"{workload}": {late}{found.message}', hint=_next_step(workload, found))
            outcomes.append(
                Outcome(workload, changed=self._reporter.changed(workload), pods=pods, error=error, notes=tuple(notes))
            )
        return tuple(outcomes)


def _about(node: str, error: KorchError) -> str:
    return str(error) if str(error).startswith(node) else f"{node}: {error}"


def _next_step(workload: Workload, found: Standing) -> str:
    if found.state == "failed":
        return f"Correct it and deploy again. More: korch events --for deployment/{workload.name}"
    if found.silent:
        return "Look at the node: korch node check. Once it is back: korch sync. To replace it: korch sync --failover."
    if found.state == "stuck":
        return f"More: korch why {workload.name}; the wish stays on record, `korch sync` tries again."
    return f"The wish stays on record: `korch sync` goes on with it. More: korch describe deployment {workload.name}"
