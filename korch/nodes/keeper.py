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
from korch.engines.wish import ContainerWish
from korch.errors import (
    CommandFailedError,
    EngineDownError,
    FencedError,
    HostRefusedError,
    InvalidError,
    KorchError,
    TransientError,
)
from korch.nodes.checks import Checks
from korch.nodes.errors import EngineCallError
from korch.nodes.farewell import out_of_endpoints
from korch.nodes.files import file_volumes, has_files, node_fields, versions
from korch.nodes.hooks import before_the_end, grace_of
from korch.nodes.machine import Machine
from korch.nodes.memory import Memory
from korch.nodes.notes import Notes
from korch.nodes.parcels import WorkloadRecord
from korch.nodes.plan import Step, Strays, plan_pod, plan_strays, restart_delay_s
from korch.nodes.podstatus import RESTARTING, Readiness, got_worse, observed_status
from korch.nodes.records import workload_record
from korch.nodes.secrets import pull_auth, values_of, values_seen
from korch.nodes.wish import container_wish, identity_for
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.images import image_reference, pull_policy_of
from korch.resources.pod import Pod, PodStatus
from korch.resources.podstate import is_available, main_status
from korch.workqueue import WorkQueue

log = logging.getLogger(__name__)

LOST_AFTER_S = 8.0  # of failing contact before pods that never ran are given to other nodes
BUSY_LOOK_S = 2.0  # between looks while acts are under way: a long pull must not hide a crash next to it
AFTER_A_BUG_S = 10.0
PULL_S = 600.0
LOG_LINES = 10  # kept when a container dies or fails its checks
Key = tuple[str, str]


class Keeper:
    """Keeps one node. `mine` says which pods this run may touch; `epoch` is the lead's.

    `on_contact` hears that the node is lost (an error, perhaps more than once), and that it is back (None).
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
        self.address, self._epoch, self._mine, self._on_contact = address, epoch, mine, on_contact
        self._notes = Notes(node, address, view, clock)
        self._checks = Checks(
            machine,
            lambda: self._seen,
            self._take_note_if_possible,
            sick=self.wake,
            trouble=lambda: self._failing_since is not None,
        )
        self.given_up: KorchError | None = None  # why the node is lost, once its pods are settled as far as they can be
        self.recorded: dict[str, WorkloadRecord] = {}  # wishes that the node got from here, by file
        self._seen: dict[str, ObservedContainer] = {}  # by pod uid
        self.fetched: dict[str, ImageInfo] = {}  # images that are there since this keeper asked for them, by reference
        self._images: set[str] = set()
        self._memory: dict[str, Memory] = {}  # by pod uid
        self._pulls: dict[str, asyncio.Task[ImageInfo]] = {}  # by pod uid
        self._acting: set[str] = set()  # uids that acts are under way for
        self._touched: set[str] = set()  # uids that were acted on since the newest look began
        self._queue: WorkQueue[Key] = WorkQueue(f"keeper-{node}", self._reconcile)
        self._tasks: asyncio.TaskGroup | None = None
        self._failing_since: float | None = None  # on the event loop's clock
        self._news = asyncio.Event()  # something happened on the node: look now
        self._named: set[str] = set()  # to these containers (by pod uid), and to no others; empty: to any

    def adopt(self, containers: Sequence[ObservedContainer], images: frozenset[str]) -> None:
        """Take over what a look at the node brought: what runs there is known before anything is done."""
        cluster = self._machine.cluster.id
        self._seen = {
            found.identity.uid: found
            for found in containers
            if found.identity is not None and found.identity.cluster == cluster
        }
        self._images = set(images)

    async def look_anew(self, images: frozenset[str]) -> None:
        """The same for one that is at work: acts were perhaps under way during an earlier look, so there is another."""
        self._images = set(images)
        await self.look()

    def wake(self, pod: Pod) -> None:
        """A pod of this node changed."""
        if pod.metadata.deletion_timestamp is not None and (pulling := self._pulls.get(pod.metadata.uid)):
            pulling.cancel()
        self._queue.add((pod.metadata.namespace, pod.metadata.name))

    def known_uids(self) -> frozenset[str]:
        """Uids of the pods whose containers were seen here."""
        return frozenset(self._seen)

    async def take_stock(self) -> None:
        """Report the pods as they were found, before anybody judges by what an earlier run reported."""
        for pod in self._pods():
            await self._take_note_if_possible(pod)

    def glance(self, uid: str = "", *, gone: str = "") -> None:
        """Something happened on the node, to the container of this pod if one is named: look now.

        `gone`: the id of a container that was removed. No look is needed to begin with the next one: ids never return.
        """
        seen = self._seen.get(uid)
        if seen is not None and seen.id == gone and uid not in self._acting:
            del self._seen[uid]
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

    def _recall(self, pod: Pod) -> Memory:
        return self._memory.setdefault(pod.metadata.uid, Memory())

    def _forget(self, uid: str) -> None:
        memory = self._memory.pop(uid, None)
        if memory is not None:
            memory.stop_checks()

    # Looking

    async def _look_on(self, every_s: float, rest_s: float) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            told = await self._wait_for_news(rest_s if self._is_settled() else every_s)
            pods = self._pods()
            for uid in self._memory.keys() - {pod.metadata.uid for pod in pods}:
                self._forget(uid)
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
        before = self._seen
        self.adopt(found, frozenset(self._images))
        for uid in self._touched:
            self._seen.pop(uid, None)
            if uid in before:
                self._seen[uid] = before[uid]
        self._contact()
        for pod in self._pods():
            await self._take_note(pod)
            self.wake(pod)

    async def _look_at(self, uids: set[str]) -> None:
        """See how single containers stand: cheaper than all of them, and sooner answered."""
        for pod in self._pods():
            uid = pod.metadata.uid
            if uid not in uids or uid in self._acting:
                continue
            self._touched.discard(uid)
            found = await self._machine.container(self._container_name(pod))
            if uid in self._touched:
                continue  # acted on meanwhile: the act tells more
            self._seen.pop(uid, None)
            if found is not None and found.identity is not None and found.identity.uid == uid:
                self._seen[uid] = found
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
        """Write the pod's status as its container stands."""
        seen = self._seen.get(pod.metadata.uid)
        if pod.metadata.deletion_timestamp is not None or pod.status.phase in {"Succeeded", "Failed"}:
            return
        if seen is None:
            await self._note_missing(pod)
            return
        memory = self._memory.get(pod.metadata.uid)
        if memory is not None and memory.backing_off and seen.state != "running":
            return  # how it ended is on record, and so is that it is started again later

        def status_with(last_log: str) -> PodStatus:
            return observed_status(
                pod,
                seen,
                now=self._notes.now(),
                host_ip=self.address,
                readiness=self._readiness(pod, seen),
                settle_s=self._notes.settle_s(pod),
                last_log=last_log,
            )

        status = status_with("")
        if got_worse(pod, status):
            await self._notes.blame(pod)
            status = status_with(await self._last_log(seen))
        await self._notes.status(pod, status)

    async def _note_missing(self, pod: Pod) -> None:
        """Somebody removed the container of a pod that ran: until it is made anew, the pod serves nobody."""
        status = main_status(pod)
        if status is None or not status.container_id or status.state.waiting is not None:
            return
        if memory := self._memory.get(pod.metadata.uid):
            memory.unready()
        await self._notes.waiting(pod, "ContainerGone", f"its container is not on {self.node} any more")

    def _readiness(self, pod: Pod, seen: ObservedContainer) -> Readiness:
        memory = self._recall(pod)
        memory.observe(pod, seen, asyncio.get_running_loop().time())
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
        step = plan_pod(pod, self._seen.get(pod.metadata.uid), sick=self._is_sick(pod))
        if step == "none":
            return None
        if step == "watch":
            if self._tasks is not None:
                self._checks.watch(self._tasks, pod, self._recall(pod))
            if has_files(pod.spec):
                await self._renew_files(pod)
            return None
        memory = self._recall(pod)
        loop, removing = asyncio.get_running_loop(), step == "remove"
        wait_s = memory.wait_s(loop.time(), removing=removing)
        if wait_s > 0:
            return wait_s
        try:
            with self._act(pod.metadata.uid):
                again_s = await self._carry_out(step, pod)
        except KorchError as error:
            if not isinstance(error, FencedError):
                memory.failed(error, loop.time(), removing=removing)
                await self._could_not(pod, error)
            raise
        memory.succeeded()
        return again_s

    async def _renew_files(self, pod: Pod) -> None:
        """Bring the files of a pod that runs up to date; what is missing now leaves those that are there."""
        memory, values = self._recall(pod), values_seen(self._view, pod)
        wanted = versions(pod, values)
        if memory.placed == wanted:
            return
        try:
            volumes = file_volumes(pod, values, node_fields(self.node, self.address))
        except InvalidError as error:
            memory.placed = wanted
            await self._notes.event(pod, "FailedMount", f"{error}")
            return
        await self._machine.place(pod.metadata.uid, volumes, epoch=self._epoch())
        memory.placed = wanted

    @contextmanager
    def _act(self, uid: str) -> Iterator[None]:
        """While it lasts, a look says nothing about this pod: it may have been made before or after."""
        self._acting.add(uid)
        self._touched.add(uid)
        try:
            yield
        finally:
            self._acting.discard(uid)

    async def _carry_out(self, step: Step, pod: Pod) -> float | None:
        if step == "remove":
            await self._remove(pod)
        elif step == "again":
            return await self._start_again(pod)
        elif step == "end":
            await self._end_sick(pod)
        else:
            await self._start(pod)
        self._contact()
        return None

    async def _could_not(self, pod: Pod, error: KorchError) -> None:
        """Put a failed act on record; what a broken connection means is for all pods of the node."""
        if isinstance(error, EngineDownError | CommandFailedError | HostRefusedError | InvalidError):
            self._images.discard(image_reference(pod))  # it may have been removed there: look again before the next try
            reason = getattr(error, "pod_reason", "") or error.reason
            text = f"{error}" + (f" ({error.hint})" if error.hint else "")
            await self._notes.waiting(pod, reason, text)
            await self._notes.event(pod, reason, text)
            await self._notes.blame(pod)
        if isinstance(error, EngineDownError | TransientError):
            await self._no_contact(error)

    async def _start(self, pod: Pod) -> None:
        image = image_reference(pod)
        values = await values_of(self._view.objects, pod)
        if image not in self._images or pull_policy_of(pod) == "Always":
            await self._pull(pod, image, pull_auth(pod, values.secrets))
        fresh = self._notes.current(pod)
        if fresh is None or fresh.metadata.deletion_timestamp is not None or fresh.status.phase == "Failed":
            return  # it was given up while its image came
        wish = container_wish(
            pod,
            cluster=self._machine.cluster,
            node_address=self.address,
            node_name=self.node,
            values=values,
        )
        record = workload_record(self._view, pod)
        seen = self._seen.get(pod.metadata.uid)
        existing = seen.id if seen is not None and _is_of(seen, wish) else ""
        try:
            records = () if record is None else (record,)
            started = await self._machine.start(wish, epoch=self._epoch(), records=records, existing=existing)
        except EngineCallError as error:
            if error.pod_reason != "ErrImageNeverPull" or image not in self._images:
                raise
            self._images.discard(image)  # it was removed there since the last look
            await self._start(pod)
            return
        self.recorded |= {record.file: record for record in records}
        self._seen[pod.metadata.uid] = started
        memory = self._recall(pod)
        memory.backing_off, memory.placed = False, versions(pod, values)
        fresh = self._notes.current(pod)
        if fresh is not None:
            await self._take_note(fresh)
        await self._notes.event(pod, "Started", f"started on {self.node}", warning=False)
        self.wake(pod)

    async def _pull(self, pod: Pod, image: str, auth: bytes | None) -> None:
        """Have the image there; returns without it when the pod is to go meanwhile."""
        problem = self._recall(pod).problem
        again = f" again, after: {problem}" if problem else ""
        await self._notes.waiting(pod, "Pulling", f"pulling {image}{again}")
        pull = self._machine.pull(image, auth=auth, policy=pull_policy_of(pod), timeout_s=PULL_S)
        pulling = asyncio.create_task(pull, name=f"pull {image}")
        self._pulls[pod.metadata.uid] = pulling
        try:
            await asyncio.wait({pulling})
        finally:
            del self._pulls[pod.metadata.uid]
            pulling.cancel()
        if not pulling.cancelled():
            self.fetched[image] = pulling.result()
            self._images.add(image)

    async def _start_again(self, pod: Pod) -> float | None:
        """Restarts that the engine does not make, with back-off."""
        memory, now = self._recall(pod), self._notes.now()
        restarts = memory.recent_restarts(now)
        delay = restart_delay_s(len(restarts))
        wait_s = delay - (now - restarts[-1]) if restarts else 0.0
        if wait_s > 0:
            await self._notes.waiting(pod, "CrashLoopBackOff", f"it keeps ending; started again after {delay:.0f} s")
            memory.backing_off = True
            return wait_s
        restarts.append(now)
        if pod.spec.restart_policy == "OnFailure":  # it may end before anybody looks: each run is to be counted
            await self._notes.waiting(pod, RESTARTING, "it has failed, and is started again")
        await self._start(pod)
        return None

    async def _remove(self, pod: Pod) -> None:
        self._recall(pod).stop_checks()
        await self._notes.unready(pod, "Terminating", "it is being removed")
        if not await out_of_endpoints(self._view, pod):
            log.info("%s: %s ends while endpoints lead to it still", self.node, pod.metadata.name)
        ending = await before_the_end(self._machine, pod, self._seen.get(pod.metadata.uid), grace_of(pod))
        identity = identity_for(pod, self._machine.cluster.id)
        ended = await self._machine.remove(identity, grace_s=ending.grace_s, epoch=self._epoch(), hook=ending.hook)
        await self._notes.hook(pod, ending.problem or ended.hook_problem)
        self._seen.pop(pod.metadata.uid, None)
        await self._view.finish_delete(self._notes.current(pod) or pod)  # as known now: the view shall forget that one
        self._forget(pod.metadata.uid)

    def _is_sick(self, pod: Pod) -> bool:
        memory = self._memory.get(pod.metadata.uid)
        running = memory is not None and memory.is_about(self._seen.get(pod.metadata.uid))
        return running and memory is not None and memory.health is not None and memory.health.sick is not None

    async def _end_sick(self, pod: Pod) -> None:
        """End a container that fails its checks; it is started again as one that ended by itself."""
        memory = self._recall(pod)
        if memory.health is None or (sick := memory.health.sick) is None:
            return
        memory.stop_checks()
        text = f"{sick[0].capitalize()} probe failed: {sick[1]}"
        await self._notes.unready(pod, "ProbeFailed", text)
        seen = self._seen.get(pod.metadata.uid)
        ending = await before_the_end(self._machine, pod, seen, grace_of(pod, sick[0]))
        identity = identity_for(pod, self._machine.cluster.id)
        ended = await self._machine.stop(identity, grace_s=ending.grace_s, epoch=self._epoch(), hook=ending.hook)
        await self._notes.event(pod, "Unhealthy", text)
        await self._notes.event(pod, "Killing", f"ended on {self.node}, as its {sick[0]} probe failed", warning=False)
        await self._notes.hook(pod, ending.problem or ended.hook_problem)
        memory.unready()
        self._seen.pop(pod.metadata.uid, None)
        if ended.container is not None:
            self._seen[pod.metadata.uid] = ended.container
        await self._take_note_if_possible(pod)
        self.wake(pod)

    async def remove_surplus(
        self, pods: dict[str, Pod], ended: frozenset[str], mine: Callable[[Identity], bool]
    ) -> Strays:
        """Remove what the store proves surplus; what was found."""
        seen = tuple(self._seen.values())
        strays = plan_strays(seen, self._machine.cluster.id, self.node, pods, ended, mine)
        for found in strays.surplus:
            assert found.identity is not None
            await self._machine.remove(found.identity, grace_s=30, epoch=self._epoch())
            self._seen.pop(found.identity.uid, None)
        return strays

    # Contact

    def _contact(self) -> None:
        """The node answered."""
        if self._failing_since is not None:
            self._failing_since = None
            for memory in self._memory.values():
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
            started = main_status(pod)
            if (started is not None and started.container_id) or pod.status.phase not in {"", "Pending"}:
                continue
            status = replace(pod.status, phase="Failed", reason="NodeUnreachable", message=f"{self.node}: {error}")
            await self._notes.status(pod, status)
            text = f"it never ran on {self.node}, which went away: {error}"
            await self._notes.event(pod, "NodeUnreachable", text)
        self.given_up = error


def _is_of(seen: ObservedContainer, wish: ContainerWish) -> bool:
    """Whether the container was made for this very wish."""
    have, want = seen.identity, wish.identity
    return have is not None and (have.cluster, have.uid, have.spec_hash) == (want.cluster, want.uid, want.spec_hash)
