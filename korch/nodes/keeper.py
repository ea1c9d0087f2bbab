"""The keeper: one per node, in the master's process. It makes the node hold what the store says, and reports back.

It reads pods from a view, acts through `Machine`, writes pod status. It holds no truth of its own: after a restart it
looks at the node and goes on. Every act on the node carries the lead's epoch, and is refused there once a newer lead
has acted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from korch.engines.images import ImageInfo
from korch.engines.names import Identity, container_name
from korch.engines.observed import ObservedContainer
from korch.errors import (
    CommandFailedError,
    EngineDownError,
    FencedError,
    HostRefusedError,
    InvalidError,
    KorchError,
    TransientError,
)
from korch.nodes.acts import Acts
from korch.nodes.changes import is_under_way
from korch.nodes.checks import Checks
from korch.nodes.errors import pod_reason
from korch.nodes.files import has_files
from korch.nodes.machine import Machine
from korch.nodes.memory import Memory
from korch.nodes.notes import Notes
from korch.nodes.parcels import WorkloadRecord
from korch.nodes.plan import Act, Strays, plan_pod, plan_strays
from korch.nodes.podstatus import Readiness, Sight, got_worse, observed_status
from korch.nodes.slots import SlowLane
from korch.nodes.surplus import clear_away
from korch.nodes.ward import Ward
from korch.nodes.wish import restarted_by_engine
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.images import containers_of, has_sandbox, image_references
from korch.resources.pod import Pod, PodStatus
from korch.resources.podstate import has_begun, is_available
from korch.workqueue import WorkQueue

log = logging.getLogger(__name__)

LOST_AFTER_S = 8.0  # of failing contact before pods that never ran are given to other nodes
BUSY_LOOK_S = 2.0  # between looks while acts are under way: a long pull must not hide a crash next to it
AFTER_A_BUG_S = 10.0
LOG_LINES = 10  # kept when a container dies or fails its checks
Key = tuple[str, str]


class Keeper:
    """Keeps one node. `mine` says which pods this run may touch; `epoch` is the lead's.

    `on_contact` hears that the node is lost (an error, perhaps more than once), and that it is back (None). One that
    `stays`, as a master's does, ends what the engine starts again too often, and starts it later itself.
    """

    def __init__(
        self,
        node: str,
        machine: Machine,
        view: View,
        clock: Clock,
        *,
        address: str,
        epoch: Callable[[], int],
        mine: Callable[[Pod], bool],
        on_contact: Callable[[str, KorchError | None], None],
    ) -> None:
        self.node, self._machine, self._view = node, machine, view
        self.stays = False
        self.address, self._epoch, self._mine, self._on_contact = address, epoch, mine, on_contact
        self._notes = Notes(node, address, view, clock)
        self._ward = Ward(machine.cluster.id)
        self._queue: WorkQueue[Key] = WorkQueue(f"keeper-{node}", self._reconcile)
        self._lane = SlowLane(self._queue.aside)
        report = self._take_note_if_possible
        self._acts = Acts(machine, self._ward, view, self._notes, epoch=epoch, report=report, lane=self._lane)
        self._checks = Checks(
            machine,
            lambda: self._ward.seen,
            self._take_note_if_possible,
            sick=self.wake,
            trouble=lambda: self._failing_since is not None,
        )
        self.given_up: KorchError | None = None  # why the node is lost, once its pods are settled as far as they can be
        self._acting: set[str] = set()  # uids that acts are under way for
        self._touched: set[str] = set()  # uids that were acted on since the newest look began
        self._tasks: asyncio.TaskGroup | None = None
        self._failing_since: float | None = None  # on the event loop's clock
        self._news = asyncio.Event()  # something happened on the node: look now
        self._named: set[str] = set()  # to these containers (by pod uid), and to no others; empty: to any

    def adopt(self, containers: Sequence[ObservedContainer], images: frozenset[str]) -> None:
        """Take over what a look at the node brought: what runs there is known before anything is done."""
        self._ward.take(containers)
        self._ward.images = set(images)

    @property
    def recorded(self) -> dict[str, WorkloadRecord]:
        """Wishes that the node got from here, by file."""
        return self._ward.recorded

    @property
    def fetched(self) -> dict[str, ImageInfo]:
        """Images that are there since this keeper asked for them, by reference."""
        return self._ward.fetched

    async def look_anew(self, images: frozenset[str]) -> None:
        """The same for one that is at work: acts were perhaps under way during an earlier look, so there is another."""
        self._ward.images = set(images)
        await self.look()

    def wake(self, pod: Pod) -> None:
        """A pod of this node changed."""
        self._acts.heed(pod)
        self._queue.add((pod.metadata.namespace, pod.metadata.name))

    def known_uids(self) -> frozenset[str]:
        """Uids of the pods whose containers were seen here."""
        return frozenset(self._ward.seen)

    async def take_stock(self) -> None:
        """Report the pods as they were found, before anybody judges by what an earlier run reported."""
        for pod in self._pods():
            await self._take_note_if_possible(pod)

    def glance(self, uid: str = "", *, gone: str = "") -> None:
        """Something happened on the node, to the container of this pod if one is named: look now.

        `gone`: the id of a container that was removed. No look is needed to begin with the next one: ids never return.
        """
        if gone and uid not in self._acting and self._ward.drop_id(uid, gone):
            for pod in self._pods():
                if pod.metadata.uid == uid:
                    self.wake(pod)
        if self._news.is_set() and not self._named:
            return  # all of them are to be looked at anyway
        self._news.set()
        self._named = {*self._named, uid} if uid else set()

    def back(self) -> None:
        """The node was looked at anew, and `adopt` told of it: what waited for it goes on."""
        self._contact()
        for pod in self._pods():
            self.wake(pod)

    async def run(self, *, look_every_s: float = 0.5, rest_s: float = 0.5) -> None:
        """Keep the node until cancelled. `FencedError` when another one leads.

        It looks every `look_every_s` while a pod is not what it should be, else every `rest_s` or at a `glance`.
        """
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            group.create_task(self._queue.run(workers=6), name=f"keeper-{self.node}")
            group.create_task(self._look_on(look_every_s, rest_s), name=f"look-{self.node}")
            for pod in self._pods():
                self.wake(pod)

    def _pods(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self._view.all(Pod) if pod.spec.node_name == self.node and self._mine(pod))

    # Looking

    async def _look_on(self, every_s: float, rest_s: float) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            told = await self._wait_for_news(rest_s if self._is_settled() else every_s)
            pods = self._pods()
            for uid in self._ward.remembered() - {pod.metadata.uid for pod in pods}:
                self._ward.forget(uid)
            if not pods or (not told and not self._queue.idle and loop.time() - looked < BUSY_LOOK_S):
                continue  # an act is under way, and its answer says more than a look now
            named, self._named = self._named, set()
            try:
                await (self._look_at(named) if named and told else self.look())
            except FencedError:
                raise
            except (TransientError, EngineDownError) as error:
                await self._no_contact(error)
            except KorchError as error:
                log.info("%s: %s", self.node, error)
            except Exception:
                log.exception("%s: a look failed; this is a bug in korch", self.node)
                await asyncio.sleep(AFTER_A_BUG_S)
            looked = loop.time()

    def _is_settled(self) -> bool:
        """Whether only news from the node could change anything: all pods run, and have done so for long enough."""
        return self._failing_since is None and all(
            is_available(pod, self._notes.settle_s(pod), self._notes.now()) for pod in self._pods()
        )

    async def _wait_for_news(self, at_most_s: float) -> bool:
        """Whether there is news; False after a while without."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._news.wait()
        told = self._news.is_set()
        self._news.clear()
        return told

    async def look(self) -> None:
        """See which containers stand now, and report what changed. What is acted on meanwhile is the act's to tell."""
        self._touched = set(self._acting)
        found = await self._machine.containers()
        before = self._ward.seen
        self._ward.take(found)
        for uid in self._touched:
            self._ward.drop(uid)
            if uid in before:
                self._ward.seen[uid] = before[uid]
        self._contact()
        for pod in self._pods():
            await self._take_note(pod)
            self.wake(pod)

    async def _look_at(self, uids: set[str]) -> None:
        """See how single pods stand: cheaper than all of them, and sooner answered."""
        pods = [pod for pod in self._pods() if pod.metadata.uid in uids and pod.metadata.uid not in self._acting]
        if any(has_sandbox(pod.spec) for pod in pods):
            await self.look()  # in one call
            return
        for pod in pods:
            uid = pod.metadata.uid
            self._touched.discard(uid)
            found = await self._machine.container(self._container_name(pod))
            if uid in self._touched:
                continue  # acted on meanwhile: the act tells more
            self._ward.drop(uid)
            if found is not None and found.identity is not None and found.identity.uid == uid:
                self._ward.put(found)
            self._contact()
            await self._take_note(pod)
            self.wake(pod)

    def _container_name(self, pod: Pod) -> str:
        meta, cluster = pod.metadata, self._machine.cluster
        return container_name(cluster.name, meta.namespace, meta.name, pod.spec.containers[0].name, meta.uid)

    async def _take_note_if_possible(self, pod: Pod) -> None:
        """What cannot be written now is written after the next look or check."""
        current = self._notes.current(pod)
        try:
            if current is not None:
                await self._take_note(current)
        except FencedError:
            raise
        except KorchError as error:
            log.info("%s: %s: %s", self.node, pod.metadata.name, error)

    async def _take_note(self, pod: Pod) -> None:
        """Write the pod's status as its containers stand."""
        if pod.metadata.deletion_timestamp is not None or pod.status.phase in {"Succeeded", "Failed"}:
            return
        await self._note_missing(pod)
        pod, found = self._notes.current(pod) or pod, self._ward.of(pod)
        backing_off = {
            name
            for name, seen in found.items()
            if (seen.state != "running" and self._ward.recall(pod, name).backing_off) or is_under_way(pod, seen)
        }  # how they ended is on record, and so is that they are started again later
        if not found.keys() - backing_off:
            return

        def status_with(last_logs: dict[str, str]) -> PodStatus:
            return observed_status(
                pod,
                {
                    name: Sight(seen, self._readiness(pod, name, seen), last_logs.get(name, ""))
                    for name, seen in found.items()
                },
                now=self._notes.now(),
                host_ip=self.address,
                settle_s=self._notes.settle_s(pod),
                kept=backing_off,
            )

        status = status_with({})
        if worse := got_worse(pod, status):
            await self._notes.blame(pod)
            status = status_with({name: await self._last_log(found[name]) for name in worse if name in found})
        await self._notes.status(pod, status)

    async def _note_missing(self, pod: Pod) -> None:
        """Somebody removed a container of a pod that ran: until it is made anew, the pod serves nobody."""
        there = self._ward.of(pod)
        for status in pod.status.container_statuses:
            if status.name in there or not status.container_id or status.state.waiting is not None:
                continue
            self._ward.recall(pod, status.name).unready()
            text = f"container {status.name} is not on {self.node} any more: it is made anew"
            await self._notes.waiting(pod, status.name, "ContainerGone", text)

    def _readiness(self, pod: Pod, name: str, seen: ObservedContainer) -> Readiness:
        container = next((one for one in containers_of(pod.spec) if one.name == name), None)
        if container is None:
            return Readiness()
        memory = self._ward.recall(pod, name)
        memory.observe(pod, container, seen, asyncio.get_running_loop().time())
        return memory.health.readiness if memory.health is not None else Readiness()

    async def _last_log(self, seen: ObservedContainer) -> str:
        try:
            return await self._machine.last_logs(seen.name, LOG_LINES)
        except KorchError as error:
            return f"(the log could not be read: {error})"

    # Acting

    async def _reconcile(self, key: Key) -> float | None:
        pod = self._view.find(Pod, key[1], key[0])
        if pod is None or pod.spec.node_name != self.node or not self._mine(pod):
            return None
        acts = plan_pod(pod, self._ward.of(pod), sick=self._sick(pod), looping=self._looping(pod))
        watched = [act.container for act in acts if act.do == "watch"]
        for container in containers_of(pod.spec):
            if container.name in watched and self._tasks is not None:
                self._checks.watch(self._tasks, pod, container, self._ward.recall(pod, container.name))
        if watched and all(act.do in {"watch", "change"} for act in acts) and has_files(pod.spec):
            await self._acts.renew_files(pod)
        return await self._carry_out(pod, [act for act in acts if act.do != "watch"])

    async def _carry_out(self, pod: Pod, acts: Sequence[Act]) -> float | None:
        """Do what is due, each for itself: what one container waits for holds up no other. Then plan anew."""
        loop, waits, problems = asyncio.get_running_loop(), [], []
        for act in acts:
            removing = act.do == "remove"
            memory = self._memory_of(pod, act)
            wait_s = memory.wait_s(loop.time(), removing=removing)
            if wait_s > 0:
                waits.append(wait_s)
                continue
            try:
                with self._act(pod.metadata.uid):
                    again_s = await self._acts.carry_out(act, pod)
            except FencedError:
                raise
            except KorchError as error:
                memory.failed(error, loop.time(), removing=removing)
                await self._could_not(pod, act, error)
                problems.append(error)
                continue
            memory.succeeded()
            if again_s is not None:
                waits.append(again_s)
                continue
            self._contact()
            if not removing:
                self.wake(pod)
        if problems:
            raise problems[0]
        return min(waits, default=None)

    def _memory_of(self, pod: Pod, act: Act) -> Memory:
        """Where it is kept how an act went; a single container's is also that of its pod."""
        name = act.container
        if act.do == "change":
            name = f"{name} change"  # of its own: what it waits for keeps nobody from ending what fails its checks
        memory = self._ward.recall(pod, name if name or has_sandbox(pod.spec) else pod.spec.containers[0].name)
        memory.wants(next((one.image for one in containers_of(pod.spec) if one.name == act.container), memory.image))
        return memory

    def _sick(self, pod: Pod) -> tuple[str, ...]:
        """The containers of which the checks say that they are to be ended."""
        found = []
        for name, seen in self._ward.of(pod).items():
            memory = self._ward.recall(pod, name)
            if memory.is_about(seen) and memory.health is not None and memory.health.sick is not None:
                found.append(name)
        return tuple(found)

    def _looping(self, pod: Pod) -> tuple[str, ...]:
        """The containers that the engine starts again too often."""
        if not self.stays or not restarted_by_engine(pod.spec):
            return ()
        now, found = asyncio.get_running_loop().time(), self._ward.of(pod).items()
        return tuple([name for name, seen in found if self._ward.recall(pod, name).is_looping(seen, now)])

    @contextmanager
    def _act(self, uid: str) -> Iterator[None]:
        """While it lasts, a look says nothing about this pod: it may have been made before or after."""
        self._acting.add(uid)
        self._touched.add(uid)
        try:
            yield
        finally:
            self._acting.discard(uid)

    async def _could_not(self, pod: Pod, act: Act, error: KorchError) -> None:
        """Put a failed act on record; what a broken connection means is for all pods of the node."""
        if isinstance(error, EngineDownError | CommandFailedError | HostRefusedError | InvalidError):
            for image in image_references(pod.metadata.annotations, pod.spec).values():
                self._ward.images.discard(image)  # it may have been removed there: look again before the next try
            text = f"{error}" + (f" ({error.hint})" if error.hint else "")
            if act.do == "change" and self._acts.serves(pod, act.container):
                stays = f"container {act.container} goes on with the image that it has"
                await self._notes.event(pod, pod_reason(error), f"{text}; {stays}")
            else:
                await self._notes.waiting(pod, act.container, pod_reason(error), text)
                await self._notes.event(pod, pod_reason(error), text)
                await self._notes.blame(pod)
        if isinstance(error, EngineDownError | TransientError):
            await self._no_contact(error)

    async def remove_surplus(
        self, pods: dict[str, Pod], ended: frozenset[str], mine: Callable[[Identity], bool]
    ) -> Strays:
        """Remove what the store proves surplus; what was found."""
        seen = tuple(found for containers in self._ward.seen.values() for found in containers.values())
        strays = plan_strays(seen, self._machine.cluster.id, self.node, pods, ended, mine)
        return await clear_away(strays, self._machine, self._ward, lane=self._lane, epoch=self._epoch)

    # Contact

    def _contact(self) -> None:
        """The node answered."""
        if self._failing_since is not None:
            self._failing_since = None
            for memory in self._ward.memories():
                memory.online()
        if self.given_up is not None:
            self.given_up = None
            self._on_contact(self.node, None)

    async def _no_contact(self, error: KorchError) -> None:
        """Pods that never ran here go elsewhere; what ran stays as last seen: failing over is not decided here."""
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since < LOST_AFTER_S:
            return
        self._on_contact(self.node, error)
        for pod in self._pods():
            if has_begun(pod) or pod.status.phase not in {"", "Pending"}:
                continue
            status = replace(pod.status, phase="Failed", reason="NodeUnreachable", message=f"{self.node}: {error}")
            await self._notes.status(pod, status)
            text = f"it never ran on {self.node}, which went away: {error}"
            await self._notes.event(pod, "NodeUnreachable", text)
        self.given_up = error
