"""The keeper: one per node, in the master's process. It makes the node hold what the store says, and reports back.

It reads pods from a view, acts through `Machine`, writes pod status. It holds no truth of its own: after a restart it
looks at the node and goes on. Every act on the node carries the lead's epoch, and is refused there once a newer lead
has acted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer
from korch.errors import (
    CommandFailedError,
    EngineDownError,
    FencedError,
    HostRefusedError,
    InvalidError,
    KorchError,
    NotFoundError,
    TransientError,
)
from korch.nodes.machine import Machine, WorkloadRecord
from korch.nodes.plan import Strays, plan_pod, plan_strays, restart_delay_s
from korch.nodes.podstatus import Readiness, observed_status, waiting_status
from korch.nodes.readiness import run_probe
from korch.nodes.records import workload_record
from korch.nodes.wish import container_wish
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.blame import blame
from korch.resources.images import image_reference
from korch.resources.misc import Secret
from korch.resources.pod import Pod, PodStatus
from korch.resources.podstate import is_ready, main_status, workload_name
from korch.resources.templates import secret_names
from korch.resources.workload import ReplicaSet
from korch.workqueue import WorkQueue

log = logging.getLogger(__name__)

LOST_AFTER_S = 8.0  # of failing contact before pods that never ran are given to other nodes
LOG_LINES = 10  # kept when a container dies or fails its checks
Key = tuple[str, str]


@dataclass(slots=True)
class _Memory:
    """What the keeper remembers of one pod; losing it costs a look, nothing else."""

    readiness: Readiness = field(default_factory=Readiness)
    passes: int = 0
    failures: int = 0
    probing: asyncio.Task[None] | None = None
    restarts: list[float] = field(default_factory=list)


class Keeper:
    """Keeps one node. `mine` says which pods this run may touch; `epoch` is the lead's."""

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
        on_lost: Callable[[str, KorchError], None],
    ) -> None:
        self.node, self._machine, self._view, self._clock = node, machine, view, clock
        self._address, self._epoch, self._mine, self._on_lost = address, epoch, mine, on_lost
        self._seen: dict[str, ObservedContainer] = {}  # by pod uid
        self._images: set[str] = set()
        self._memory: dict[str, _Memory] = {}
        self.recorded: dict[str, WorkloadRecord] = {}  # wishes that the node got from here, by file
        self._queue: WorkQueue[Key] = WorkQueue(f"keeper-{node}", self._reconcile)
        self._tasks: asyncio.TaskGroup | None = None
        self._failing_since: float | None = None  # on the event loop's clock

    def adopt(self, containers: Sequence[ObservedContainer], images: frozenset[str]) -> None:
        """Take over what a look at the node brought: what runs there is known before anything is done."""
        cluster = self._machine.cluster.id
        self._seen = {
            found.identity.uid: found
            for found in containers
            if found.identity is not None and found.identity.cluster == cluster
        }
        self._images = set(images)

    def wake(self, pod: Pod) -> None:
        """A pod of this node changed."""
        self._queue.add((pod.metadata.namespace, pod.metadata.name))

    def known_uids(self) -> frozenset[str]:
        """Uids of the pods whose containers were seen here."""
        return frozenset(self._seen)

    async def take_stock(self) -> None:
        """Report the pods as they were found, before anybody judges by what an earlier run reported."""
        for pod in self._pods():
            await self._take_note(pod)

    async def run(self, *, look_every_s: float = 0.5) -> None:
        """Keep the node until cancelled. `FencedError` when another one leads."""
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            group.create_task(self._queue.run(workers=6), name=f"keeper-{self.node}")
            group.create_task(self._look_on(look_every_s), name=f"look-{self.node}")
            for pod in self._pods():
                self.wake(pod)

    def _pods(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self._view.all(Pod) if pod.spec.node_name == self.node and self._mine(pod))

    # Looking

    async def _look_on(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            if not self._queue.idle or not self._pods():
                continue  # an act is under way, and its answer says more than a look now
            try:
                await self.look()
            except FencedError:
                raise
            except (TransientError, EngineDownError) as error:
                await self._no_contact(error)
            except KorchError as error:
                log.info("%s: %s", self.node, error)

    async def look(self) -> None:
        """See which containers stand now, and report what changed."""
        self.adopt(await self._machine.containers(), frozenset(self._images))
        self._failing_since = None
        for pod in self._pods():
            await self._take_note(pod)
            self.wake(pod)

    async def _take_note(self, pod: Pod) -> None:
        """Write the pod's status as its container stands."""
        seen = self._seen.get(pod.metadata.uid)
        if pod.metadata.deletion_timestamp is not None or pod.status.phase in {"Succeeded", "Failed"}:
            return
        if seen is None:
            await self._note_missing(pod)
            return

        def status_with(last_log: str) -> PodStatus:
            return observed_status(
                pod,
                seen,
                now=self._clock.now(),
                host_ip=self._address,
                readiness=self._readiness(pod, seen),
                settle_s=self._settle_s(pod),
                last_log=last_log,
            )

        status = status_with("")
        if _got_worse(pod, status):
            await self._blame(pod)
            status = status_with(await self._last_log(seen))
        await self._report(pod, status)

    def _settle_s(self, pod: Pod) -> int:
        """How long its set wants the pod to have run well."""
        owner = next((ref.name for ref in pod.metadata.owner_references if ref.kind == "ReplicaSet"), "")
        found = self._view.find(ReplicaSet, owner, pod.metadata.namespace) if owner else None
        return found.spec.min_ready_seconds if found is not None else 0

    async def _note_missing(self, pod: Pod) -> None:
        """Somebody removed the container of a pod that ran: until it is made anew, the pod serves nobody."""
        status = main_status(pod)
        if status is None or not status.container_id or status.state.waiting is not None:
            return
        memory = self._memory.get(pod.metadata.uid)
        if memory is not None:
            memory.readiness, memory.passes, memory.failures = Readiness(), 0, 0
        await self._waiting(pod, "ContainerGone", f"its container is not on {self.node} any more")

    def _readiness(self, pod: Pod, seen: ObservedContainer) -> Readiness:
        if pod.spec.containers[0].readiness_probe is None:
            return Readiness(passing=True)
        memory = self._memory.get(pod.metadata.uid)
        if (
            memory is None
        ):  # met for the first time: what was true of this very container still is until a check says no
            memory = self._memory[pod.metadata.uid] = _Memory(readiness=Readiness(passing=_was_ready(pod, seen)))
        if seen.state != "running":
            memory.readiness, memory.passes, memory.failures = Readiness(), 0, 0
        return memory.readiness

    async def _last_log(self, seen: ObservedContainer) -> str:
        try:
            return await self._machine.last_logs(seen.name, LOG_LINES)
        except KorchError as error:
            return f"(the log could not be read: {error})"

    async def _report(self, pod: Pod, status: PodStatus) -> None:
        if status == pod.status:
            return
        uid = pod.metadata.uid

        def change(found: Pod) -> Pod | None:
            return replace(found, status=status) if found.metadata.uid == uid else None

        try:
            await self._view.modify(Pod, pod.metadata.name, pod.metadata.namespace, change, status=True)
        except NotFoundError:
            return

    # Acting

    async def _reconcile(self, key: Key) -> float | None:
        pod = self._view.find(Pod, key[1], key[0])
        if pod is None or pod.spec.node_name != self.node or not self._mine(pod):
            return None
        seen = self._seen.get(pod.metadata.uid)
        try:
            match plan_pod(pod, seen):
                case "start":
                    await self._start(pod)
                case "again":
                    return await self._start_again(pod, seen)
                case "remove":
                    await self._remove(pod, seen)
                case "watch":
                    self._probe_on(pod)
        except TransientError as error:
            await self._no_contact(error)
            raise
        except EngineDownError as error:
            await self._could_not(pod, error)
            await self._no_contact(error)
            raise
        except (CommandFailedError, HostRefusedError, InvalidError) as error:
            self._images.discard(image_reference(pod))  # it may have been removed there: look again before the next try
            await self._could_not(pod, error)
            raise
        self._failing_since = None
        return None

    async def _start(self, pod: Pod) -> None:
        image = image_reference(pod)
        secrets = await self._secrets(pod)
        if image not in self._images:
            await self._waiting(pod, "Pulling", f"pulling {image}")
            await self._machine.pull(image, auth=_pull_auth(pod, secrets), timeout_s=600.0)
            self._images.add(image)
        wish = container_wish(
            pod,
            cluster=self._machine.cluster,
            owner=workload_name(pod),
            node_address=self._address,
            node_name=self.node,
            secrets=secrets,
        )
        record = workload_record(self._view, pod)
        started = await self._machine.start(wish, epoch=self._epoch(), records=(record,))
        self.recorded[record.file] = record
        self._seen[pod.metadata.uid] = started
        fresh = self._view.find(Pod, pod.metadata.name, pod.metadata.namespace)
        if fresh is not None and fresh.metadata.uid == pod.metadata.uid:
            await self._take_note(fresh)
        await self._event(pod, "Normal", "Started", f"started on {self.node}")
        self._queue.add((pod.metadata.namespace, pod.metadata.name))

    async def _start_again(self, pod: Pod, seen: ObservedContainer | None) -> float | None:
        """Restarts that the engine does not make, with back-off."""
        memory = self._memory.setdefault(pod.metadata.uid, _Memory())
        now = self._clock.now()
        memory.restarts = [then for then in memory.restarts if now - then < 300]
        wait = restart_delay_s(len(memory.restarts)) - (now - memory.restarts[-1] if memory.restarts else 0.0)
        if wait > 0:
            await self._waiting(pod, "CrashLoopBackOff", f"it keeps ending; started again in {wait:.0f} s")
            return wait
        memory.restarts.append(now)
        await self._start(pod)
        return None

    async def _remove(self, pod: Pod, seen: ObservedContainer | None) -> None:
        memory = self._memory.pop(pod.metadata.uid, None)
        if memory is not None and memory.probing is not None:
            memory.probing.cancel()
        grace = pod.metadata.deletion_grace_period_seconds
        grace_s = grace if grace is not None else (pod.spec.termination_grace_period_seconds or 30)
        await self._machine.remove(self._identity(pod), grace_s=grace_s, epoch=self._epoch())
        self._seen.pop(pod.metadata.uid, None)
        await self._view.finish_delete(pod)

    def _identity(self, pod: Pod) -> Identity:
        return Identity(
            cluster=self._machine.cluster.id,
            namespace=pod.metadata.namespace,
            pod=pod.metadata.name,
            uid=pod.metadata.uid,
            container=pod.spec.containers[0].name,
            owner=workload_name(pod),
        )

    async def _secrets(self, pod: Pod) -> dict[str, Secret]:
        """The Secrets that the pod uses, by name; missing ones are the wish builder's to complain about."""
        found = {}
        for name in sorted(secret_names(pod.spec)):
            secret = await self._view.objects.find(Secret, name, pod.metadata.namespace)
            if secret is not None:
                found[name] = secret
        return found

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

    # Checks

    def _probe_on(self, pod: Pod) -> None:
        if pod.spec.containers[0].readiness_probe is None:
            return
        memory = self._memory.setdefault(pod.metadata.uid, _Memory())
        if self._tasks is not None and (memory.probing is None or memory.probing.done()):
            memory.probing = self._tasks.create_task(self._probe(pod, memory), name=f"probe-{pod.metadata.name}")

    async def _probe(self, pod: Pod, memory: _Memory) -> None:
        """Checks one pod until its container stops or changes."""
        probe = pod.spec.containers[0].readiness_probe
        assert probe is not None
        uid = pod.metadata.uid
        await asyncio.sleep(probe.initial_delay_seconds or 0)
        while (seen := self._seen.get(uid)) is not None and seen.state == "running":
            try:
                problem = await run_probe(self._machine, pod, seen, probe)
            except KorchError as error:
                log.info("%s: check of %s: %s", self.node, pod.metadata.name, error)
                problem = str(error)
            self._count(memory, problem, probe.success_threshold or 1, probe.failure_threshold or 3)
            current = self._view.find(Pod, pod.metadata.name, pod.metadata.namespace)
            if current is None or current.metadata.uid != uid:
                return
            await self._take_note_of_check(current)
            await asyncio.sleep(
                probe.period_seconds or 10 if memory.readiness.passing else min(probe.period_seconds or 10, 1)
            )

    async def _take_note_of_check(self, pod: Pod) -> None:
        """What cannot be written now is written after the next check."""
        try:
            await self._take_note(pod)
        except FencedError:
            raise
        except KorchError as error:
            log.info("%s: %s: %s", self.node, pod.metadata.name, error)

    def _count(self, memory: _Memory, problem: str, needed: int, allowed: int) -> None:
        memory.passes, memory.failures = (0, memory.failures + 1) if problem else (memory.passes + 1, 0)
        if not problem and memory.passes >= needed:
            memory.readiness = Readiness(passing=True)
        elif problem:
            passing = memory.readiness.passing and memory.failures < allowed
            memory.readiness = Readiness(passing, memory.failures >= allowed, problem)

    # Telling

    async def _waiting(self, pod: Pod, reason: str, message: str) -> None:
        fresh = self._view.find(Pod, pod.metadata.name, pod.metadata.namespace)
        if fresh is not None and fresh.metadata.uid == pod.metadata.uid:
            status = waiting_status(fresh, reason, message, now=self._clock.now(), host_ip=self._address)
            await self._report(fresh, status)

    async def _could_not(self, pod: Pod, error: KorchError) -> None:
        reason = getattr(error, "pod_reason", "") or error.reason
        text = f"{error}" + (f" ({error.hint})" if error.hint else "")
        await self._waiting(pod, reason, text)
        await self._event(pod, "Warning", reason, text)
        await self._blame(pod)

    async def _blame(self, pod: Pod) -> None:
        """Put on record that the pod's revision failed here, so that its next replica prefers another node."""
        owner = next((ref.name for ref in pod.metadata.owner_references if ref.kind == "ReplicaSet"), "")
        if not owner:
            return
        with contextlib.suppress(NotFoundError):
            now = self._clock.now()
            await self._view.modify(
                ReplicaSet, owner, pod.metadata.namespace, lambda found: blame(found, self.node, now)
            )

    async def _event(self, pod: Pod, type_: str, reason: str, message: str) -> None:
        await self._view.objects.record_event(
            pod, type="Warning" if type_ == "Warning" else "Normal", reason=reason, message=message, component="keeper"
        )

    async def _no_contact(self, error: KorchError) -> None:
        """Pods that never ran here go elsewhere; what ran stays as last seen: failing over is not decided here."""
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since < LOST_AFTER_S:
            return
        self._on_lost(self.node, error)
        for pod in self._pods():
            started = main_status(pod)
            if (started is not None and started.container_id) or pod.status.phase not in {"", "Pending"}:
                continue
            status = replace(pod.status, phase="Failed", reason="NodeUnreachable", message=f"{self.node}: {error}")
            await self._report(pod, status)
            await self._event(
                pod, "Warning", "NodeUnreachable", f"it never ran on {self.node}, which went away: {error}"
            )


def _was_ready(pod: Pod, seen: ObservedContainer) -> bool:
    status = main_status(pod)
    same = status is not None and status.container_id == seen.id and status.restart_count >= seen.restart_count
    return same and is_ready(pod)


def _got_worse(pod: Pod, status: PodStatus) -> bool:
    """The container died, is dying again and again, or its checks failed for good since the last report."""
    old, new = main_status(pod), status.container_statuses[0]
    if new.state.terminated is not None and (old is None or old.state.terminated is None):
        return True
    if new.restart_count > (old.restart_count if old else 0):
        return True
    reasons = {found.reason for found in status.conditions if found.type == "Ready"}
    before = {found.reason for found in pod.status.conditions if found.type == "Ready"}
    return "ProbeFailed" in reasons and "ProbeFailed" not in before


def _pull_auth(pod: Pod, secrets: dict[str, Secret]) -> bytes | None:
    """The registry credentials of the pod: an engine configuration (`.dockerconfigjson`), or None."""
    import base64

    for ref in pod.spec.image_pull_secrets:
        secret = secrets.get(ref.name)
        if secret is not None and ".dockerconfigjson" in secret.data:
            return base64.b64decode(secret.data[".dockerconfigjson"])
    return None
