"""Pods that a NoExecute taint of their node makes leave, as in Kubernetes: at once, or when `tolerationSeconds` end.

A node that is lost is not judged here (`evicting.py`). One that works hands its pods over: the successor first, where
one can be. A node whose engine does not answer is `not-ready`: korch moves nothing for that by itself, since what runs
there may run well, but a pod that says for how long it tolerates it is replaced then.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from korch.controllers.disruption import World, evict, keep, stops_first
from korch.errors import ConflictError, FencedError, KorchError, NotFoundError
from korch.master.failover import give_up, has_local_volume
from korch.objects.values import Clock
from korch.objects.view import View
from korch.resources.annotations import EVICT, EVICT_WHY
from korch.resources.leaving import successors
from korch.resources.node import Node, Taint
from korch.resources.pod import Pod
from korch.resources.podstate import controller_of, is_counted, unschedulable
from korch.resources.times import parse_time
from korch.resources.workload import Deployment, ReplicaSet
from korch.scheduler.taints import NOT_READY, UNREACHABLE, eviction_due_s, tolerates

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
HAND_OVER_S = 120.0  # for a successor to be available: then the pod goes without
WHY = "the taint "  # how the reason of such an eviction begins


def due_taint(pod: Pod, since: Mapping[Taint, float], now: float) -> Taint | None:
    """The taint that the pod must leave for now, or None. Pure. `since`: when each came, in any order.

    Of several one that a person has set, as for `not-ready` alone korch may have to leave the pod where it is.
    """
    for taint, at in sorted(since.items(), key=lambda one: (one[0].key == NOT_READY, words(one[0]))):
        if taint.effect != "NoExecute" or taint.key == UNREACHABLE:
            continue
        if taint.key == NOT_READY and not tolerates(pod.spec.tolerations, taint):
            continue  # Kubernetes gives each pod a toleration of 300 s; here it has one without end
        due_s = eviction_due_s(pod, (taint,), at, now)
        if due_s is not None and due_s <= 0:
            return taint
    return None


def words(taint: Taint) -> str:
    """The taint as kubectl writes it."""
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"


class TaintEvictions:
    """Looks at nodes with NoExecute taints. `is_down`: whether the engine of a node does not answer now."""

    def __init__(self, view: View, clock: Clock, *, is_down: Callable[[str], bool]) -> None:
        self._view, self._clock, self._is_down = view, clock, is_down
        self._seen: dict[tuple[str, Taint], float] = {}  # on the event loop's clock, as all here
        self._begun: dict[str, float] = {}  # by uid: pods that are handed over
        self._looked_at = float("-inf")
        self._marks_left = True  # by an earlier term, perhaps

    async def look(self, lost: frozenset[str]) -> None:
        """Evict what is due, and take back what is due no more."""
        at, now = asyncio.get_running_loop().time(), self._clock.now()
        if at - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = at
        nodes = {node.metadata.name: self._times(node, now) for node in self._view.all(Node)}
        tainted = {name: taints for name, taints in nodes.items() if taints and name not in lost}
        self._seen = {key: at for key, at in self._seen.items() if key[1] in nodes.get(key[0], {})}
        if not tainted and not self._marks_left:
            return
        self._marks_left = False
        pods: dict[str, list[Pod]] = defaultdict(list)
        for pod in self._view.all(Pod):
            if is_counted(pod) and (pod.spec.node_name in tainted or _is_ours(pod)):
                pods[pod.spec.node_name].append(pod)
        self._begun = {
            pod.metadata.uid: self._begun.get(pod.metadata.uid, at)
            for there in pods.values()
            for pod in there
            if _is_ours(pod)
        }
        for name, there in sorted(pods.items()):
            if name not in lost:
                await self._look_at(name, there, tainted.get(name, {}), now)

    def _times(self, node: Node, now: float) -> dict[Taint, float]:
        """Its NoExecute taints, and since when."""
        at, times = asyncio.get_running_loop().time(), {}
        for taint in node.spec.taints:
            if taint.effect != "NoExecute" or taint.key == UNREACHABLE:
                continue
            seen_s = at - self._seen.setdefault((node.metadata.name, taint), at)
            times[taint] = parse_time(taint.time_added) if taint.time_added else now - seen_s
        return times

    async def _look_at(self, node: str, pods: Sequence[Pod], since: Mapping[Taint, float], now: float) -> None:
        for pod in pods:
            try:
                await self._settle(pod, node, due_taint(pod, since, now), now)
            except FencedError:
                raise
            except (ConflictError, NotFoundError):
                continue  # it went, or another has its name: the next look tells
            except KorchError as error:
                log.info("%s: %s could not be evicted: %s", node, pod.metadata.name, error)

    async def _settle(self, pod: Pod, node: str, taint: Taint | None, now: float) -> None:
        owner = controller_of(pod)
        self._marks_left = self._marks_left or _is_ours(pod)
        if taint is None:
            if _is_ours(pod):
                await keep(self._view, pod, [pod.metadata.annotations[EVICT_WHY]])  # type: ignore[arg-type]
        elif taint.key == NOT_READY:
            if self._is_down(node) and not has_local_volume(pod):
                text = f"the container engine of {node} does not answer, and this is tolerated no longer"
                if await give_up(pod, text, self._view.objects, now):
                    log.warning("%s: %s is replaced elsewhere", node, pod.metadata.name)
        elif owner is not None and owner.kind == "DaemonSet":
            return  # its controller knows which nodes it may have
        elif EVICT not in pod.metadata.annotations:
            await self._evict(pod, f"{WHY}{words(taint)} of {node}")
        elif _is_ours(pod) and self._cannot_be_handed_over(pod):
            await self._view.delete(pod)

    async def _evict(self, pod: Pod, why: str) -> None:
        world = World((), tuple(self._view.all(ReplicaSet)), tuple(self._view.all(Deployment)))
        if stops_first(pod, world):
            await self._view.delete(pod)  # budgets do not count here, as in Kubernetes
        else:
            await evict(self._view, pod, why, stop_first=False)  # type: ignore[arg-type]
            self._marks_left = True
        log.info("%s leaves %s: %s", pod.metadata.name, pod.spec.node_name, why)
        await self._view.objects.record_event(
            pod, type="Normal", reason="TaintManagerEviction", message=f"leaves: {why}", component="taint-eviction"
        )

    def _cannot_be_handed_over(self, pod: Pod) -> bool:
        """Whether its successor has no place, or is not available after a long time."""
        taker = successors(self._view.all(Pod, pod.metadata.namespace)).get(pod.metadata.uid)
        now = asyncio.get_running_loop().time()
        late = now - self._begun.get(pod.metadata.uid, now) >= HAND_OVER_S
        return late or (taker is not None and bool(unschedulable(taker)))


def _is_ours(pod: Pod) -> bool:
    """Whether a taint marked it to leave."""
    return EVICT in pod.metadata.annotations and pod.metadata.annotations.get(EVICT_WHY, "").startswith(WHY)
