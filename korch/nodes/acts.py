"""What a keeper does on its node for one pod at a time: start, end, remove, bring files up to date.

Each act is complete in itself and may be repeated: whoever comes after a keeper that was killed looks, and goes on.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence

from korch.engines.names import SANDBOX
from korch.engines.observed import ObservedContainer
from korch.engines.wish import ContainerWish
from korch.errors import InvalidError
from korch.nodes.errors import EngineCallError
from korch.nodes.farewell import out_of_endpoints
from korch.nodes.files import Values, file_volumes, node_fields, versions
from korch.nodes.hooks import LEFT_S, after_the_start, before_the_end, grace_of
from korch.nodes.machine import Machine
from korch.nodes.notes import Notes
from korch.nodes.plan import Act, restart_delay_s
from korch.nodes.podstatus import RESTARTING
from korch.nodes.probing import ProbeKind
from korch.nodes.records import workload_record
from korch.nodes.secrets import pull_auth, values_of, values_seen
from korch.nodes.slots import Pulls, SlowLane
from korch.nodes.ward import Ward
from korch.nodes.wish import container_wish, identity_for, restarted_by_engine, sandbox_wish
from korch.objects.view import View
from korch.resources.images import containers_of, has_sandbox, image_reference, pull_policy_of, sidecars_of
from korch.resources.pod import Container, Pod

log = logging.getLogger(__name__)

PULL_S = 600.0
CALM_S = 5
HOOKS_AT_ONCE = 2  # of one pod: a connection carries few commands at once, and other pods need it too


class Acts:
    """Acts on one node. `report` hears of a pod whose containers changed, and puts it on record."""

    def __init__(
        self,
        machine: Machine,
        ward: Ward,
        view: View,
        notes: Notes,
        *,
        epoch: Callable[[], int],
        report: Callable[[Pod], Awaitable[None]],
        lane: SlowLane,
    ) -> None:
        self._machine, self._ward, self._view, self._notes = machine, ward, view, notes
        self._epoch, self._report, self._lane, self._pulls = epoch, report, lane, Pulls(lane)
        self._awaited: dict[str, tuple[str, str]] = {}  # by pod uid: a container and the image that it waits for

    def heed(self, pod: Pod) -> None:
        """A pod that is to go waits for no image any more, and none for one that it had before."""
        uid, pod = pod.metadata.uid, self._notes.current(pod) or pod
        container, image = self._awaited.get(uid, ("", ""))
        if pod.metadata.deletion_timestamp is not None or (
            container and image_reference(pod, _container(pod, container)) != image
        ):
            self._pulls.give_up(uid)

    async def carry_out(self, act: Act, pod: Pod) -> float | None:
        """Do it; seconds until it may be tried, when it is too early for it."""
        match act.do:
            case "remove":
                with self._lane.aside():
                    await self._remove(pod)
            case "halt":
                await self._halt(pod)
                await self._notes.event(pod, "SandboxChanged", "its network is gone: all of it is started again")
            case "rest":
                await self._halt(pod)
            case "clear":
                identity = identity_for(pod, self._machine.cluster.id, act.container)
                await self._machine.remove(identity, grace_s=0, epoch=self._epoch())
                self._ward.drop(pod.metadata.uid, act.container)
            case "end":
                await self._end_sick(pod, _container(pod, act.container))
            case "calm":
                await self._calm(pod, _container(pod, act.container))
            case "change":
                await self._change(pod, _container(pod, act.container))
            case "again":
                return await self._start_again(pod, _container(pod, act.container))
            case "start" if act.container == SANDBOX:
                return await self._start_sandbox(pod)
            case "start":
                await self._start(pod, _container(pod, act.container))
        return None

    # Starting

    async def _start_sandbox(self, pod: Pod) -> float | None:
        wait_s = self._too_early_s(pod, SANDBOX)
        if wait_s > 0:
            return wait_s
        wish = sandbox_wish(pod, cluster=self._machine.cluster, node_address=self._notes.address)
        await self._have_it_run(pod, wish)
        return None

    def _too_early_s(self, pod: Pod, name: str) -> float:
        """Seconds until a container may be started again; when there are none, that is on record as one more start."""
        seen = self._ward.of(pod).get(name)
        run = (seen.id, seen.started_at) if seen is not None else None
        return self._ward.recall(pod, name).too_early_s(run, asyncio.get_running_loop().time())

    async def _start(self, pod: Pod, container: Container) -> None:
        await self._make(pod, container, await self._prepare(pod, container))

    async def _prepare(self, pod: Pod, container: Container) -> Values:
        """What a container is made with; its image is there then, unless it is not wanted any more."""
        image = image_reference(pod, container)
        values = await values_of(self._view.objects, pod)
        if image not in self._ward.images or pull_policy_of(pod, container) == "Always":
            await self._pull(pod, container, image, await pull_auth(self._view.objects, pod, values.secrets))
        return values

    def _is_wanted(self, pod: Pod, container: Container) -> bool:
        """Whether the pod is still to run this container with this image: an image may take minutes to come."""
        fresh = self._notes.current(pod)
        if fresh is None or fresh.metadata.deletion_timestamp is not None or fresh.status.phase == "Failed":
            return False
        return image_reference(fresh, _container(fresh, container.name)) == image_reference(pod, container)

    async def _make(self, pod: Pod, container: Container, values: Values) -> None:
        if not self._is_wanted(pod, container):
            return
        wish = container_wish(
            pod,
            container,
            cluster=self._machine.cluster,
            node_address=self._notes.address,
            node_name=self._notes.node,
            values=values,
        )
        try:
            started = await self._have_it_run(pod, wish)
        except EngineCallError as error:
            if error.pod_reason != "ErrImageNeverPull" or wish.image not in self._ward.images:
                raise
            self._ward.images.discard(wish.image)  # it was removed there since the last look
            await self._start(pod, container)
            return
        await self._begun(pod, container, started, values)

    async def _have_it_run(self, pod: Pod, wish: ContainerWish) -> ObservedContainer:
        """The workload's wish goes along with the first container of the pod."""
        record = workload_record(self._view, pod) if not wish.sandbox else None
        records = () if record is None else (record,)
        seen = self._ward.of(pod).get(wish.identity.container)
        existing = seen.id if seen is not None and _is_of(seen, wish) else ""
        started = await self._machine.start(wish, epoch=self._epoch(), records=records, existing=existing)
        self._ward.recorded |= {record.file: record for record in records}
        self._ward.put(started)
        return started

    async def _begun(self, pod: Pod, container: Container, started: ObservedContainer, values: Values) -> None:
        """What follows a start: its hook, the report, the news."""
        memory = self._ward.recall(pod, container.name)
        memory.backing_off = False
        self._ward.recall(pod, "").placed = versions(pod, values)
        problem = ""
        if (
            started.state == "running"
            and container.lifecycle is not None
            and container.lifecycle.post_start is not None
        ):
            async with self._lane.turn():
                problem = await after_the_start(self._machine, container, started)
        if problem:
            await self._notes.event(
                pod, "FailedPostStartHook", f"postStart of {container.name}, which is ended: {problem}"
            )
            await self._end(pod, container, None)
        await self._report(pod)
        what = f"container {container.name} started" if has_sandbox(pod.spec) else "started"
        await self._notes.event(pod, "Started", f"{what} on {self._notes.node}", warning=False)

    async def _pull(self, pod: Pod, container: Container, image: str, auth: bytes | None) -> None:
        """Have the image there; returns without it when the pod is to go meanwhile, or wants another one."""
        problem = self._ward.recall(pod, container.name).problem
        again = f" again, after: {problem}" if problem else ""
        if not self.serves(pod, container.name):
            await self._notes.waiting(pod, container.name, "Pulling", f"pulling {image}{again}")
        await self._notes.event(pod, "Pulling", f"pulling {image}", warning=False)
        policy, began = pull_policy_of(pod, container), asyncio.get_running_loop().time()
        self._awaited[pod.metadata.uid] = (container.name, image)
        try:
            found = await self._pulls.have(
                pod.metadata.uid,
                (image, policy, auth),
                lambda: self._machine.pull(image, auth=auth, policy=policy, timeout_s=PULL_S),
            )
        finally:
            del self._awaited[pod.metadata.uid]
        if found is not None:
            took_s = asyncio.get_running_loop().time() - began
            await self._notes.event(pod, "Pulled", f"{image} is there after {took_s:.1f} s", warning=False)
            self._ward.fetched[image] = found
            self._ward.images.add(image)

    async def _start_again(self, pod: Pod, container: Container) -> float | None:
        """Restarts that the engine does not make, with back-off."""
        memory = self._ward.recall(pod, container.name)
        wait_s = self._too_early_s(pod, container.name)
        if wait_s > 0:
            delay_s = restart_delay_s(memory.restarts)
            text = f"it keeps ending; started again after {delay_s:.0f} s"
            await self._notes.waiting(pod, container.name, "CrashLoopBackOff", text)
            memory.backing_off = True
            return wait_s
        if pod.spec.restart_policy == "OnFailure" or not restarted_by_engine(pod.spec):
            # It may end before anybody looks: each run is to be counted, and until it begins the end before it once.
            await self._notes.waiting(pod, container.name, RESTARTING, "it has ended, and is started again")
            memory.backing_off = True
        await self._start(pod, container)
        return None

    # Another image

    async def _change(self, pod: Pod, container: Container) -> None:
        """Put a container with the image that the pod says now in the place of the one that is there.

        The image comes first, where Kubernetes ends the container and then pulls: a name that was mistyped costs no
        service. Then the old one has to go, as both have the same name. Where a keeper is killed in between, the next
        one finds it ended, or gone, and goes on from there.
        """
        values, seen = await self._prepare(pod, container), self._ward.of(pod).get(container.name)
        if not self._is_wanted(pod, container):
            return
        if seen is not None:
            await self._give_way(pod, container, seen)
        await self._make(pod, container, values)

    async def _give_way(self, pod: Pod, container: Container, seen: ObservedContainer) -> None:
        """End a container and remove it; on record before, as one that ended by itself may be final."""
        memory = self._ward.recall(pod, container.name)
        memory.stop_checks()
        memory.backing_off = True
        await self._notes.waiting(pod, container.name, RESTARTING, f"its image is now {container.image}")
        if seen.state in {"running", "restarting"}:
            what = "Init container" if container in pod.spec.init_containers else "Container"
            text = f"{what} {container.name} definition changed, will be restarted"
            await self._notes.event(pod, "Killing", text, warning=False)
            if not await out_of_endpoints(self._view, pod):
                log.info("%s: %s is changed while endpoints lead to it still", self._notes.node, pod.metadata.name)
            await self._notes.hook(pod, container.name, await self._end(pod, container, None, only=seen.id))
        identity = identity_for(pod, self._machine.cluster.id, container.name)
        stays = dataclasses.replace(identity, owner="")  # the wish of its workload
        await self._machine.remove(stays, grace_s=0, epoch=self._epoch(), only=seen.id)
        self._ward.drop(pod.metadata.uid, container.name)
        memory.begin_anew()

    def serves(self, pod: Pod, container: str) -> bool:
        """Whether the container runs."""
        seen = self._ward.of(pod).get(container)
        return seen is not None and seen.state == "running"

    # Ending

    async def _remove(self, pod: Pod) -> None:
        for memory in self._ward.memories(pod.metadata.uid):
            memory.stop_checks()
        await self._notes.unready(pod, "Terminating", "it is being removed")
        if self._ward.of(pod):
            await self._notes.event(pod, "Killing", "its containers are ended: the pod was deleted", warning=False)
        if not await out_of_endpoints(self._view, pod):
            log.info("%s: %s ends while endpoints lead to it still", self._notes.node, pod.metadata.name)
        if has_sandbox(pod.spec) or len(self._ward.of(pod)) > 1:
            began = asyncio.get_running_loop().time()
            await self._end_first(pod)
            took_s = int(asyncio.get_running_loop().time() - began)
            identity = identity_for(pod, self._machine.cluster.id, "")
            grace_s = min(grace_of(pod), max(LEFT_S, grace_of(pod) - took_s))
            async with self._lane.turn():
                await self._machine.remove(identity, grace_s=grace_s, epoch=self._epoch())
        else:
            (container,) = pod.spec.containers
            seen = self._ward.of(pod).get(container.name)
            identity = identity_for(pod, self._machine.cluster.id)
            async with self._lane.turn():
                ending = await before_the_end(self._machine, container, seen, grace_of(pod))
                ended = await self._machine.remove(
                    identity, grace_s=ending.grace_s, epoch=self._epoch(), hook=ending.hook
                )
            await self._notes.hook(pod, container.name, ending.problem or ended.hook_problem)
        self._ward.drop(pod.metadata.uid)
        await self._view.finish_delete(self._notes.current(pod) or pod)  # as known now: the view shall forget that one
        self._ward.forget(pod.metadata.uid)

    async def _end_first(self, pod: Pod) -> None:
        """End those that have a hook, each with it, and before sidecars all that they are beside of."""
        beside = sidecars_of(pod.spec)
        await self._end_together(pod, [one for one in pod.spec.containers if beside or _has_hook(one)])
        await self._end_together(pod, [one for one in beside if _has_hook(one)])

    async def _end_together(self, pod: Pod, containers: Sequence[Container]) -> None:
        there = self._ward.of(pod)
        running = [one for one in containers if one.name in there and there[one.name].state == "running"]
        slots = asyncio.Semaphore(HOOKS_AT_ONCE)

        async def end(container: Container) -> None:
            async with slots:
                await self._notes.hook(pod, container.name, await self._end(pod, container, None))

        for result in await asyncio.gather(*map(end, running), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _halt(self, pod: Pod) -> None:
        """End all of a pod, its sandbox last, and keep it."""
        identity = identity_for(pod, self._machine.cluster.id, "")
        async with self._lane.turn():
            ended = await self._machine.stop(identity, grace_s=grace_of(pod), epoch=self._epoch())
        self._ward.drop(pod.metadata.uid)
        for found in ended.containers:
            self._ward.put(found)
        await self._report(pod)

    async def _end_sick(self, pod: Pod, container: Container) -> None:
        """End a container that fails its checks; it is started again as one that ended by itself."""
        memory = self._ward.recall(pod, container.name)
        if memory.health is None or (sick := memory.health.sick) is None:
            return
        memory.stop_checks()
        text = f"{sick[0].capitalize()} probe failed: {sick[1]}"
        await self._notes.unready(pod, "ProbeFailed", text, container=container.name)
        problem = await self._end(pod, container, sick[0])
        await self._notes.event(pod, "Unhealthy", text)
        why = f"ended on {self._notes.node}, as its {sick[0]} probe failed"
        await self._notes.event(pod, "Killing", why, warning=False)
        await self._notes.hook(pod, container.name, problem)
        memory.unready()
        await self._report(pod)

    async def _calm(self, pod: Pod, container: Container) -> None:
        """End what its engine starts again and again; it is started later, with back-off.

        It has ended by itself just now, and the engine was only faster: no hook, and hardly any grace.
        """
        memory = self._ward.recall(pod, container.name)
        memory.stop_checks()
        identity = identity_for(pod, self._machine.cluster.id, container.name)
        async with self._lane.turn():
            ended = await self._machine.stop(identity, grace_s=min(CALM_S, grace_of(pod)), epoch=self._epoch())
        self._ward.drop(pod.metadata.uid, container.name)
        for found in ended.containers:
            self._ward.put(found)
        text = f"it keeps ending; started again after {memory.take_over(asyncio.get_running_loop().time()):.0f} s"
        await self._notes.waiting(pod, container.name, "CrashLoopBackOff", text)
        await self._notes.event(pod, "BackOff", f"container {container.name}: {text}")

    async def _end(self, pod: Pod, container: Container, failed: ProbeKind | None, only: str = "") -> str:
        """End a container (of this id) and keep it; what went wrong with its hook."""
        seen = self._ward.of(pod).get(container.name)
        identity = identity_for(pod, self._machine.cluster.id, container.name)
        async with self._lane.turn():
            ending = await before_the_end(self._machine, container, seen, grace_of(pod, container, failed))
            ended = await self._machine.stop(
                identity, grace_s=ending.grace_s, epoch=self._epoch(), hook=ending.hook, only=only
            )
        self._ward.drop(pod.metadata.uid, container.name)
        for found in ended.containers:
            self._ward.put(found)
        return ending.problem or ended.hook_problem

    # Files

    async def renew_files(self, pod: Pod) -> None:
        """Bring the files of a pod that runs up to date; what is missing now leaves those that are there."""
        memory, values = self._ward.recall(pod, ""), values_seen(self._view, pod)
        wanted = versions(pod, values)
        if memory.placed == wanted:
            return
        try:
            volumes = file_volumes(pod, values, node_fields(self._notes.node, self._notes.address))
        except InvalidError as error:
            memory.placed = wanted
            await self._notes.event(pod, "FailedMount", f"{error} ({error.hint})" if error.hint else f"{error}")
            return
        await self._machine.place(pod.metadata.uid, volumes, epoch=self._epoch())
        memory.placed = wanted


def _container(pod: Pod, name: str) -> Container:
    return next(container for container in containers_of(pod.spec) if container.name == name)


def _has_hook(container: Container) -> bool:
    return container.lifecycle is not None and container.lifecycle.pre_stop is not None


def _is_of(seen: ObservedContainer, wish: ContainerWish) -> bool:
    """Whether the container was made for this very wish."""
    have, want = seen.identity, wish.identity
    return have is not None and (have.cluster, have.uid, have.spec_hash) == (want.cluster, want.uid, want.spec_hash)
