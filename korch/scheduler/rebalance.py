"""Which pods would be better off on another node: the scheduler's own scores, asked about pods that run.

Greedy: the move that gains most comes first, and the next one is looked for in the cluster as it will be then. A move
must gain `min_gain` points (hysteresis), so that a plan that was carried out is followed by an empty one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from korch.scheduler.decision import Part, Verdict
from korch.scheduler.scores import level_score
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import NodeView, PodView, Snapshot, assemble

MIN_GAIN = 5.0  # points of a score: a tenth of the CPU more or less is no reason to move
SOURCES = 8  # the most loaded nodes are looked at; those next in line have their turn in the next plan
PARTS_TOLD = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a pod really uses, when that was measured."""

    cpu_millis: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Shift:
    """A pod that would be better off elsewhere: scores of 0..100 as if it were placed on either node now."""

    namespace: str
    name: str
    uid: str
    source: str
    target: str
    before: float
    after: float
    why: str

    @property
    def gain(self) -> float:
        """Points won."""
        return self.after - self.before


def plan_shifts(
    snap: Snapshot,
    movable: Collection[str],
    *,
    usage: Mapping[str, Usage] | None = None,
    max_moves: int = 5,
    min_gain: float = MIN_GAIN,
    settling: Collection[str] = (),
) -> tuple[Shift, ...]:
    """At most `max_moves` moves of the `movable` pods (uids), the best first; nothing is done.

    Nodes that are `settling` give nothing away: what their samples show is not yet the result of the last moves.
    """
    world = _World(snap, usage or {})
    free = frozenset(movable)
    home: dict[str, tuple[str, float]] = {}
    made: dict[str, Shift] = {}
    for _ in range(4 * len(free)):  # a pod may move on when others follow it; scores of others are no ladder
        best = world.best(free, settling, min_gain)
        if best is None or (best.uid not in made and len(made) == max_moves):
            break
        source, before = home.setdefault(best.uid, (best.source, best.before))
        made.pop(best.uid, None)
        if source != best.target:
            made[best.uid] = replace(best, source=source, before=before)
        world.shift(best)
    return tuple(made.values())


class _World:
    """The cluster as it is after the moves so far."""

    def __init__(self, snap: Snapshot, usage: Mapping[str, Usage]) -> None:
        self._usage = usage
        self._snap = snap

    def best(self, movable: Collection[str], settling: Collection[str], min_gain: float) -> Shift | None:
        """The move that gains most, at least `min_gain`; ties by name."""
        found: list[Shift] = []
        loaded = sorted(self._snap.nodes, key=lambda node: (_calm(node), node.name))
        sources = [node.name for node in loaded if node.name not in settling][:SOURCES]
        asked: dict[tuple[int, str], PodView] = {}
        for pod in self._snap.placed:
            if pod.node in sources and pod.uid in movable and not pod.leaving:
                alike = (id(pod.shape), pod.node) if pod.uid not in self._usage else (id(pod), pod.node)
                first = asked.get(alike)
                if first is None or (pod.namespace, pod.name) < (first.namespace, first.name):
                    asked[alike] = pod
        for pod in asked.values():
            shift = self._weigh(pod)
            if shift is not None and shift.gain >= min_gain:
                found.append(shift)
        return min(found, key=lambda one: (-round(one.gain, 6), one.namespace, one.name), default=None)

    def _weigh(self, pod: PodView) -> Shift | None:
        """The best other node for a pod, as the scheduler sees it; None when its own one would not even take it."""
        without = self._without(pod)
        (decision,) = schedule(without, [self._as_new(pod)], record=len(without.nodes))
        verdicts = {found.node: found for found in decision.verdicts if found.refusal is None}
        here, there = verdicts.get(pod.node), verdicts.get(decision.node or "")
        if here is None or there is None or there.node == here.node:
            return None
        return Shift(
            *(pod.namespace, pod.name, pod.uid, pod.node, there.node, here.score, there.score),
            _why(here, there),
        )

    def shift(self, made: Shift) -> None:
        """Carry a move out."""
        pod = next(found for found in self._snap.placed if found.uid == made.uid)
        without = self._without(pod)
        moved = replace(self._as_new(pod), node=made.target)
        self._snap = _again(without, without.nodes, (*without.placed, moved))

    def _as_new(self, pod: PodView) -> PodView:
        """The pod as one to be placed, with the load that it really is."""
        real = self._usage.get(pod.uid)
        shape = pod.shape
        if real is not None and not pod.hidden:
            shape = replace(shape, expected_cpu_millis=real.cpu_millis, expected_memory_bytes=real.memory_bytes)
        return replace(pod, node="", hidden=True, shape=shape)

    def _without(self, pod: PodView) -> Snapshot:
        """The cluster when the pod is gone, and its load with it."""
        shape = self._as_new(pod).shape
        nodes = tuple(
            _relieved(node, pod, shape.expected_cpu_millis, shape.expected_memory_bytes)
            if node.name == pod.node
            else node
            for node in self._snap.nodes
        )
        return _again(self._snap, nodes, tuple(found for found in self._snap.placed if found.uid != pod.uid))


def _relieved(node: NodeView, pod: PodView, cpu_millis: int, memory_bytes: int) -> NodeView:
    """The node without the pod's load; it keeps the images, whatever its last full look has shown."""
    node = replace(node, images=node.images | frozenset(pod.shape.images))
    if pod.hidden:
        return node
    available = node.memory_available_bytes
    if available is not None:
        available = min(node.memory_total_bytes, available + memory_bytes)
    return replace(
        node,
        busy=max(0.0, node.busy - cpu_millis / node.capacity_cpu_millis),
        memory_available_bytes=available,
    )


def _calm(node: NodeView) -> float:
    """Points for little load; nodes are looked at from the most loaded one on."""
    total, available = node.memory_total_bytes, node.memory_available_bytes
    used = 1 - available / total if total and available is not None else 0.0
    return level_score(node.busy) + level_score(used)


def _why(here: Verdict, there: Verdict) -> str:
    """The parts of the score that gain most, with both nodes' words."""
    mine = {part.name: part for part in here.parts}
    gains = sorted(
        ((part.points - mine[part.name].points, part.name, part) for part in there.parts if part.name in mine),
        key=lambda found: (-found[0], found[1]),
    )
    told = [_told(mine[name], part, here.node, there.node) for gain, name, part in gains[:PARTS_TOLD] if gain >= 1]
    return "; ".join(told)


def _told(mine: Part, theirs: Part, here: str, there: str) -> str:
    return (
        f"{mine.name}: {mine.detail.removesuffix(' here')} on {here}, {theirs.detail.removesuffix(' here')} on {there}"
    )


def _again(snap: Snapshot, nodes: Sequence[NodeView], placed: tuple[PodView, ...]) -> Snapshot:
    return assemble(
        tuple(nodes),
        placed,
        snap.shapes,
        now=snap.now,
        failures=snap.failures,
        max_sample_age_s=snap.max_sample_age_s,
    )
