"""One-shot mode: the lead, the controllers, the scheduler and the keepers in this process, until a wish is true.

It acts only on the workloads named and on nodes reached in this run, and it never fails over. While another process
leads, it follows what that one does, and takes the lead when that one leaves.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from korch.api.owners import CONTROLLERS, owner
from korch.client.base import Outcome, Progress, Workload
from korch.errors import FencedError, HostUnreachableError, KorchError, at
from korch.master.background import background
from korch.master.cluster import Cluster
from korch.master.contacts import Contact
from korch.master.controlling import KINDS, Controllers, Scope
from korch.master.fleet import Fleet
from korch.master.judging import Judged, judge, next_change, outcomes
from korch.master.progress import Reporter
from korch.master.pruning import prune_after
from korch.master.steady import SteadyClock, follow_steps
from korch.master.wishes import keep_wishes
from korch.nodes.keeper import Keeper
from korch.nodes.register import well_again
from korch.objects.objects import Objects
from korch.objects.values import Change, Clock
from korch.objects.view import View
from korch.resources.meta import Object
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.store.lease import Lead

STUCK_S = 5.0  # without any change while a master leads: waiting longer will not help
REST_S = 2.0  # between looks at a node whose pods all run: each takes from what the other nodes have to do
ROLLBACK_S = 90.0  # beyond the deadline, for going back


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
        self._belated: set[str] = set()  # hosts that the run did not wait for, and that may still come
        self._changed = asyncio.Event()
        self._orphans = self._held_back = 0
        self._moved_at = 0.0  # when something of these workloads changed or was under way, on the event loop's clock
        self._clock: Clock = cluster.clock
        self._deadline = 0.0  # on the event loop's clock

    async def run(self, timeout_s: float) -> tuple[Outcome, ...]:
        """An outcome for each workload, in order; the lead is given back in any case."""
        try:
            self._deadline = asyncio.get_running_loop().time() + timeout_s
            async with asyncio.timeout(timeout_s + ROLLBACK_S) as end:
                while True:
                    if await self._lead.acquire(wait_s=0.0):
                        try:
                            return await self._leading()
                        except FencedError:
                            if self._lead.held and await self._leads_in_store():
                                raise  # a node has seen a newer master, and the store knows of none
                    if (ended := await self._following()) is not None:
                        return ended
                    await self._fleet.look_anew()  # another one was at work since the last look
        except _LateError:
            return await self._late(timeout_s)
        except TimeoutError:
            if not end.expired():
                raise
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
            return self._outcomes(self._judge(view), late_s=timeout_s)

    # Following another process that leads

    async def _following(self) -> tuple[Outcome, ...] | None:
        """The outcomes once the leading process made the wishes true; None when the lead is this process's now."""
        view = View(self._cluster.objects, KINDS)
        view.listen(self._note)
        self._moved_at = asyncio.get_running_loop().time()
        async with background() as group:
            await view.start(group)
            holder = await self._lead.holder()
            self._reporter.say(f"following {holder.identity}, which leads now" if holder else "")
            while not await self._lead.acquire(wait_s=0.0):  # also from one that is silent for a TTL
                judged = self._judge(view)
                if all(found.standing.state in {"done", "failed"} for found in judged):
                    return self._outcomes(judged)
                if await self._is_stuck_for_good(judged):
                    return self._outcomes(judged)
                self._check_time(judged)
                await next_change(self._changed, 1.0)
        return None

    async def _is_stuck_for_good(self, judged: Sequence[Judged]) -> bool:
        """Whether a master has had its say, and only a person could do more. Other commands have their own wishes."""
        if any(found.standing.state == "going" for found in judged):
            self._moved_at = asyncio.get_running_loop().time()
        if asyncio.get_running_loop().time() - self._moved_at < STUCK_S:
            return False
        holder = await self._lead.holder()
        return holder is not None and holder.note.get("doing") == "master"

    # Leading

    async def _leading(self) -> tuple[Outcome, ...]:
        contacts = await self._fleet.contacts(claim=True, hurried=True)
        await self._lead.raise_epoch(max((found.report.epoch for found in contacts.values()), default=0))
        clock = self._clock = SteadyClock(self._cluster.clock)
        track = owner(CONTROLLERS, clock.now)
        objects = Objects(self._cluster.store, clock=clock, fence=self._lead.fence, track=track)
        view = View(objects, KINDS)
        view.listen(self._note)
        self._dead, self._belated = self._fleet.problems, set(self._fleet.awaited)
        self._orphans = self._held_back = 0
        async with background() as group:
            await view.start(group)
            group.create_task(follow_steps(clock, view), name="clock")
            await self._note_return(view, contacts)
            self._keeping = keepers = self._keepers(view, contacts)
            self._count_absent(view, keepers)
            await asyncio.gather(*(keeper.take_stock() for keeper in keepers.values()))
            controllers = Controllers(view, clock, self._scope, allowed=self._allowed, away=self._away, wake=self._wake)
            controllers.start(group)
            await self._remove_surplus(view, keepers, objects)
            for keeper in keepers.values():
                group.create_task(keeper.run(rest_s=REST_S), name=f"keeper-{keeper.node}")
            group.create_task(self._take_in_late(group, view, objects, contacts), name="late hosts")
            outcomes = await self._until_settled(view, controllers)
            return await self._leave(outcomes, contacts, keepers)

    async def _take_in_late(
        self, group: asyncio.TaskGroup, view: View, objects: Objects, contacts: dict[str, Contact]
    ) -> None:
        """Hosts that the run did not wait for: each that answers in the end is kept like the others from then on."""
        async for name in self._fleet.late():
            found = (await self._fleet.contacts(claim=False, hurried=True)).get(name)
            if found is None:
                self._dead[name] = self._fleet.problems[name]
            else:
                await self._take_in(group, view, objects, name, found)
                contacts[name] = found
                self._dead.pop(name, None)
            self._belated.discard(name)
            self._changed.set()

    async def _take_in(self, group: asyncio.TaskGroup, view: View, objects: Objects, name: str, found: Contact) -> None:
        await self._lead.raise_epoch(found.report.epoch)
        await self._note_return(view, {name: found})
        keepers = self._keepers(view, {name: found})
        await keepers[name].take_stock()
        await self._remove_surplus(view, keepers, objects)
        self._keeping |= keepers
        group.create_task(keepers[name].run(rest_s=REST_S), name=f"keeper-{name}")

    def _awaits_late(self, view: View) -> bool:
        """Whether a host that may still come has pods of this run, and there is time."""
        if not self._belated or asyncio.get_running_loop().time() >= self._deadline:
            return False
        return any(pod.spec.node_name in self._belated and self._scope.has(pod) for pod in view.all(Pod))

    async def _leave(
        self, outcomes: tuple[Outcome, ...], contacts: dict[str, Contact], keepers: dict[str, Keeper]
    ) -> tuple[Outcome, ...]:
        """Before the lead goes back: every node that runs something holds its wish, and old images make room."""
        alive = {name: found for name, found in contacts.items() if name not in self._silent()}
        recorded = {name: keeper.recorded for name, keeper in keepers.items()}
        notes = await keep_wishes(self._cluster, alive, self._epoch(), self._workloads, recorded)
        await asyncio.gather(*(self._fleet.record_images(name, keeper.fetched) for name, keeper in keepers.items()))
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
                self._clock,
                address=contact.address,
                epoch=self._epoch,
                mine=self._scope.has,
                on_contact=self._contact,
            )
            keeper.adopt(contact.report.containers, contact.images)
            found[name] = keeper
        return found

    async def _note_return(self, view: View, contacts: dict[str, Contact]) -> None:
        """Nodes that a master left as lost, and that work: nobody else leads now to see that."""
        for name, contact in contacts.items():
            node = view.find(Node, name, "")
            if node is not None and contact.report.state == "Ready" and well_again(node) is not None:
                await view.modify(Node, name, "", well_again)

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

    def _wake(self, pod: Pod) -> None:
        keeper = self._keeping.get(pod.spec.node_name)
        if keeper is not None:
            keeper.wake(pod)

    def _allowed(self) -> frozenset[str]:
        return self._fleet.placeable & self._keeping.keys() - self._silent().keys()

    def _away(self) -> frozenset[str]:
        """Nodes that went away during this run: those that it never reached are not waited for."""
        return self._fleet.listed & (self._silent().keys() - self._dead.keys())

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
                for text in found.stuck:
                    self._reporter.say(f"{keeper.node}: {text}")
            except FencedError:
                raise
            except KorchError as error:
                self._reporter.say(f"{keeper.node}: {error}")

        await asyncio.gather(*(one(keeper) for keeper in keepers.values()))

    async def _until_settled(self, view: View, controllers: Controllers) -> tuple[Outcome, ...]:
        """Wait until only a person could do more."""
        while True:
            self._lead.fence()
            judged = self._judge(view)
            stuck = any(found.standing.state == "stuck" for found in judged)
            going = any(found.standing.state == "going" for found in judged)
            # A pod that fits nowhere is stuck when this run found it so: until then the reason is an earlier run's.
            if not going and (controllers.idle or not stuck) and not self._awaits_late(view):
                return self._outcomes(judged)
            self._check_time(judged)
            await next_change(self._changed, 0.5 if not stuck else 0.05)

    # Judging

    def _check_time(self, judged: Sequence[Judged]) -> None:
        """Ends the run when its time is over, unless a revision may be about to go back: that gets more time."""
        if asyncio.get_running_loop().time() < self._deadline:
            return
        if not any(found.standing.state == "going" and found.may_go_back for found in judged):
            raise _LateError

    def _note(self, change: Change[Object]) -> None:
        self._changed.set()
        if isinstance(change.object, Deployment | ReplicaSet | DaemonSet | Pod) and self._scope.has(change.object):
            self._moved_at = asyncio.get_running_loop().time()
        if isinstance(change.object, Pod) and self._scope.has(change.object):
            self._reporter.pod(change)

    def _judge(self, view: View) -> tuple[Judged, ...]:
        return judge(view, self._workloads, self._since, frozenset(self._silent()), self._clock.now())

    def _outcomes(self, judged: Sequence[Judged], *, late_s: float | None = None) -> tuple[Outcome, ...]:
        notes = [at(name, error) for name, error in sorted(self._silent().items())]
        if self._orphans:
            notes.append(f"{self._orphans} container(s) of this cluster are unknown to its state: see `korch adopt`")
        if self._held_back:
            notes.append(
                f"{self._held_back} more surplus container(s) stay for now: `korch sync` removes the next ones"
            )
        return outcomes(judged, self._reporter.changed, late_s=late_s, notes=tuple(notes))


class _LateError(Exception):
    """The time that the caller gave is over."""
