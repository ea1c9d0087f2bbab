"""Binds pending pods: the loop around the pure scheduler."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from korch.errors import ConflictError, FencedError, NotFoundError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.annotations import DECISION, MOVED_FROM, REPLACES, STOP_FIRST
from korch.resources.blame import distrust
from korch.resources.codec import with_meta
from korch.resources.leaving import is_leaving
from korch.resources.meta import Condition, Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import condition, controller_of, is_counted, named_volumes, unschedulable, with_condition
from korch.resources.templates import TEMPLATE_HASH_LABEL
from korch.resources.times import parse_time, rfc3339
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.scheduler.decision import Decision, to_json
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import Snapshot, snapshot
from korch.scheduler.taints import NOT_READY

AWAY_S = 15.0  # a node that is not back after so long is not waited for
RIVALS_TRIED = 20  # old pods of a deployment that are tried for room: each is a pass over all nodes


class SchedulingController:
    """Places pods that have no node. `allowed` names the nodes that this run may use; None = all.

    `away`: others that it could use in a moment, if they come back. Nothing is stopped for a pod that fits there.
    """

    def __init__(
        self,
        view: View,
        clock: Clock,
        *,
        allowed: Callable[[], frozenset[str] | None],
        mine: Callable[[Pod], bool],
        away: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._view, self._clock, self._allowed, self._mine, self._away = view, clock, allowed, mine, away
        self._waiting_since: dict[str, float] = {}  # by uid: pods that would fit on a node that is away

    async def reconcile(self, _: str) -> float | None:
        """One pass over all pending pods; looks again while some fit nowhere."""
        waiting = [pod for pod in self._view.all(Pod) if not pod.spec.node_name and is_counted(pod) and self._mine(pod)]
        pending = [pod for pod in waiting if self._is_wanted(pod)]
        uids = {pod.metadata.uid for pod in pending}
        self._waiting_since = {uid: since for uid, since in self._waiting_since.items() if uid in uids}
        if not pending:
            return 2.0 if waiting else None  # the view may know a pod before its owner
        unplaced = len(pending) < len(waiting)
        for closed, group in self._by_closed_node(pending).items():
            unplaced = await self._place(group, closed) or unplaced
        return 2.0 if unplaced else None

    def _by_closed_node(self, pending: Sequence[Pod]) -> dict[str, list[Pod]]:
        """Pods by the node that they must not get: a successor's is the one that its forerunner is to leave."""
        leaving = {pod.metadata.uid for pod in self._view.all(Pod) if is_leaving(pod)}
        groups: dict[str, list[Pod]] = {}
        for pod in pending:
            notes = pod.metadata.annotations
            closed = notes.get(MOVED_FROM, "") if notes.get(REPLACES) in leaving else ""
            groups.setdefault(closed, []).append(pod)
        return groups

    async def _place(self, pending: Sequence[Pod], closed: str) -> bool:
        """Whether some of them fit nowhere."""
        pods = tuple(self._view.all(Pod))
        unplaced = False
        victims: dict[str, str] = {}  # by set: its pods are all alike, and one that makes room is enough at a time
        by_uid = {pod.metadata.uid: pod for pod in pending}
        for decision in schedule(self._snapshot(pods, closed), pending, allowed_nodes=self._allowed()):
            pod = by_uid[decision.uid]
            if decision.node is None:
                unplaced = True
                owner = controller_of(pod)
                alike = owner.uid if owner is not None else pod.metadata.uid
                if alike not in victims:
                    helpless = owner is None or self._waits(pod, pods, closed)
                    victims[alike] = "" if helpless else room_maker(pod, pods, self._fits(pod, closed))
                await self._leave_pending(pod, decision, victims[alike])
            else:
                await self._bind(pod, decision)
        return unplaced

    def _is_wanted(self, pod: Pod) -> bool:
        """Whether those that it belongs to still stand: what lost them is about to be removed."""
        below: Object = pod
        for type_ in (ReplicaSet, DaemonSet, Deployment):
            owner = controller_of(below)
            if owner is None or owner.kind != type_.__name__:
                continue
            found = self._view.find(type_, owner.name, pod.metadata.namespace)
            if found is None or found.metadata.uid != owner.uid:
                return False
            below = found
        return True

    def _fits(self, pod: Pod, closed: str) -> Callable[[Sequence[Pod]], bool]:
        """Whether the pod would have a node if only these pods stood."""

        def fits(pods: Sequence[Pod]) -> bool:
            return schedule(self._snapshot(pods, closed), [pod], allowed_nodes=self._allowed())[0].node is not None

        return fits

    def _waits(self, pod: Pod, pods: Sequence[Pod], closed: str) -> bool:
        """Whether it would have a node if those that were here a moment ago came back: then nothing is stopped yet."""
        allowed, now = self._allowed(), self._clock.now()
        nodes = {node.metadata.name: node for node in self._view.all(Node)}
        away = frozenset(name for name in self._away() if name in nodes and was_here(nodes[name], now))
        if not away or allowed is None:
            return False
        snap = self._snapshot(pods, closed, back=away)
        if schedule(snap, [pod], allowed_nodes=allowed | away)[0].node is None:
            return False
        return now - self._waiting_since.setdefault(pod.metadata.uid, now) < AWAY_S

    def _snapshot(self, pods: Sequence[Pod], closed: str = "", back: frozenset[str] = frozenset()) -> Snapshot:
        """The cluster as the view has it, with one node closed to new pods, and as if some were back."""
        nodes = tuple(
            replace(node, spec=replace(node.spec, unschedulable=True)) if node.metadata.name == closed else node
            for node in (_as_back(node) if node.metadata.name in back else node for node in self._view.all(Node))
        )
        loads = {load.metadata.name: load for load in self._view.all(NodeLoad)}
        now = self._clock.now()
        failures = distrust(nodes, self._view.all(ReplicaSet), now)
        return snapshot(nodes, loads, pods, now=now, failures=failures)

    async def _bind(self, pod: Pod, decision: Decision) -> None:
        assert decision.node is not None
        try:
            await self._pin(pod, decision.node)
            await self._view.bind(pod, decision.node, to_json(decision))
        except FencedError:
            raise
        except (ConflictError, NotFoundError):
            return  # it went, or changed: the next pass sees it
        await self._view.objects.record_event(
            pod, type="Normal", reason="Scheduled", message=decision.message, component="scheduler"
        )

    async def _pin(self, pod: Pod, node: str) -> None:
        """The node is known to have the pod's named volumes before it has the pod: whatever becomes of that one, the
        next must find the data, and the next full look at the node may be minutes away."""
        volumes = frozenset(named_volumes(pod))
        if not volumes:
            return

        def add(found: Node) -> Node | None:
            missing = tuple(sorted(volumes - set(found.status.volumes_in_use)))
            known = (*found.status.volumes_in_use, *missing)
            return replace(found, status=replace(found.status, volumes_in_use=known)) if missing else None

        await self._view.modify(Node, node, "", add, status=True)

    async def _leave_pending(self, pod: Pod, decision: Decision, victim: str) -> None:
        """The reason goes on record: as condition, as event, and in full as annotation for `korch why`."""
        if unschedulable(pod) == decision.message and pod.metadata.annotations.get(STOP_FIRST, "") == victim:
            return
        now = rfc3339(self._clock.now())
        waiting = Condition(type="PodScheduled", status="False", reason="Unschedulable", message=decision.message)
        notes = {DECISION: to_json(decision)} | ({STOP_FIRST: victim} if victim else {})

        def annotate(found: Pod) -> Pod:
            kept = {key: text for key, text in found.metadata.annotations.items() if key != STOP_FIRST}
            return with_meta(found, annotations=kept | notes)

        def explain(found: Pod) -> Pod:
            conditions = with_condition(found.status.conditions, waiting, now)
            return replace(found, status=replace(found.status, phase="Pending", conditions=conditions))

        try:
            await self._view.modify(Pod, pod.metadata.name, pod.metadata.namespace, annotate)
            await self._view.modify(Pod, pod.metadata.name, pod.metadata.namespace, explain, status=True)
        except NotFoundError:
            return
        await self._view.objects.record_event(
            pod, type="Warning", reason="FailedScheduling", message=decision.message, component="scheduler"
        )


def was_here(node: Node, now: float) -> bool:
    """Whether it is Ready on record, or was so a moment ago. Pure."""
    ready = condition(node.status.conditions, "Ready")
    if ready is None:
        return False
    since = parse_time(ready.last_transition_time) if ready.last_transition_time else 0.0
    return ready.status == "True" or now - since < AWAY_S


def _as_back(node: Node) -> Node:
    ready = Condition(type="Ready", status="True", reason="Ready")
    others = tuple(found for found in node.status.conditions if found.type != "Ready")
    taints = tuple(taint for taint in node.spec.taints if taint.key != NOT_READY)
    status = replace(node.status, conditions=(*others, ready))
    return replace(node, status=status, spec=replace(node.spec, taints=taints))


def room_maker(pod: Pod, pods: Sequence[Pod], fits: Callable[[Sequence[Pod]], bool]) -> str:
    """The old pod of the same deployment without which this one `fits`, or "": does stop-first help? Pure."""
    app = _without_hash(pod)
    rivals = [
        other
        for other in pods
        if other.spec.node_name
        and is_counted(other)
        and other.metadata.namespace == pod.metadata.namespace
        and _without_hash(other) == app
        and other.metadata.labels != pod.metadata.labels
    ]
    for rival in sorted(rivals, key=lambda found: found.metadata.name)[:RIVALS_TRIED]:
        if fits([other for other in pods if other.metadata.uid != rival.metadata.uid]):
            return rival.metadata.name
    return ""


def _without_hash(pod: Pod) -> dict[str, str]:
    return {key: value for key, value in pod.metadata.labels.items() if key != TEMPLATE_HASH_LABEL}
