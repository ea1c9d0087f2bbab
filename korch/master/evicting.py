"""What becomes of the pods of nodes that are lost: replaced when their tolerations end, pinned where their data is."""

import logging
from collections import defaultdict
from collections.abc import Sequence

from msgspec.structs import replace

from korch.errors import FencedError, KorchError, NotFoundError
from korch.master.failover import give_up, has_local_volume
from korch.master.fencing import FencingHook
from korch.master.marks import unreachable_taint
from korch.nodes.podstatus import unready_status
from korch.objects.values import Clock
from korch.objects.view import View
from korch.resources.annotations import FENCED, GONE
from korch.resources.node import Node, Taint
from korch.resources.pod import Pod
from korch.resources.podstate import is_counted, is_ready
from korch.resources.times import parse_time, rfc3339
from korch.scheduler.taints import eviction_due_s

log = logging.getLogger(__name__)


class Evictions:
    """Looks at the pods of lost nodes again and again; what cannot be written now is written in the next round."""

    def __init__(self, view: View, clock: Clock, *, hook: FencingHook | None = None) -> None:
        self._view, self._clock, self._hook = view, clock, hook
        self._lost: frozenset[str] = frozenset()
        self._fenced: set[str] = set()  # lost nodes that are off, says the hook
        self._told: set[str] = set()  # uids of pinned pods whose reason is on record

    def forget(self, name: str) -> None:
        """The node is back."""
        self._fenced.discard(name)
        if self._hook is not None:
            self._hook.forget(name)

    async def look(self, lost: frozenset[str]) -> None:
        """Replace what is due."""
        self._lost = lost
        if not lost:
            self._told.clear()
            return
        pods: dict[str, list[Pod]] = defaultdict(list)
        for pod in self._view.all(Pod):
            if pod.spec.node_name in lost:
                pods[pod.spec.node_name].append(pod)
        for name, there in sorted(pods.items()):
            try:
                await self._look_at(name, there)
            except FencedError:
                raise
            except KorchError as error:
                log.info("%s: its pods could not be looked at: %s", name, error)

    async def _look_at(self, name: str, pods: Sequence[Pod]) -> None:
        node = self._view.find(Node, name, "")
        taint = unreachable_taint(node)
        if node is None or taint is None:
            return
        if name in self._fenced and FENCED not in node.metadata.annotations:
            node = await self._view.modify(Node, name, "", self._as_fenced)  # other masters, the scheduler see it
        gone = bool(GONE & node.metadata.annotations.keys())
        pinned = [pod for pod in pods if is_counted(pod) and has_local_volume(pod)]
        if pinned and not gone and self._hook is not None:
            self._hook.start(name, self._is_off)
        for pod in pods:
            try:
                await self._settle(pod, name, taint, gone=gone)
            except FencedError:
                raise
            except KorchError as error:
                log.info("%s: %s could not be given up: %s", name, pod.metadata.name, error)

    def _is_off(self, name: str) -> None:
        if name in self._lost:  # else it came back while the hook was at it
            self._fenced.add(name)

    def _as_fenced(self, node: Node) -> Node:
        notes = {**node.metadata.annotations, FENCED: rfc3339(self._clock.now())}
        return replace(node, metadata=replace(node.metadata, annotations=notes))

    async def _settle(self, pod: Pod, name: str, taint: Taint, *, gone: bool) -> None:
        """What one pod of a lost node comes to."""
        now = self._clock.now()
        if pod.metadata.deletion_timestamp is not None:
            if gone:  # nobody will ever say that its container ended; should it come back, its tombstone tells
                await self._view.finish_delete(pod)
            return
        if not is_counted(pod):
            return
        since = parse_time(taint.time_added) if taint.time_added else now
        due_s = 0.0 if gone else eviction_due_s(pod, (taint,), since, now)
        if has_local_volume(pod) and not gone:
            await self._pin(pod, name)
        elif due_s is not None and due_s <= 0:
            await give_up(pod, f"{name} cannot be reached", self._view.objects, now)
            return
        if is_ready(pod):
            await self._mark_unready(pod, f"{name} cannot be reached")

    async def _pin(self, pod: Pod, name: str) -> None:
        if pod.metadata.uid in self._told:
            return
        self._told.add(pod.metadata.uid)
        text = (
            f"its data is on {name}, which cannot be reached: it waits for that node, or for `korch node lost {name}`"
        )
        log.warning("%s stays: %s", pod.metadata.name, text)
        await self._view.objects.record_event(
            pod, type="Warning", reason="Pinned", message=text, component="node-lifecycle"
        )

    async def _mark_unready(self, pod: Pod, message: str) -> None:
        """It serves nobody for now, whether it runs or not."""
        now = self._clock.now()

        def change(found: Pod) -> Pod | None:
            if found.metadata.uid != pod.metadata.uid or not is_ready(found):
                return None
            return replace(found, status=unready_status(found, "NodeUnreachable", message, now=now))

        try:
            await self._view.modify(Pod, pod.metadata.name, pod.metadata.namespace, change, status=True)
        except NotFoundError:
            return
