"""How good each node would be for one more pod: 0 to 100, a weighted mean of the parts below.

A part that says the same of every node (no zones, no wishes, no failures) is left out: the score keeps its range.

    part       weight  100 means                                    0 means
    load       50      idle, no pressure, all memory available      saturated CPU and memory
    spread     50      no pod of this workload there                twice its even share there
    failures   15      none lately                                  three or more of this workload's failures lately
    image      7       all images present                           none present
    zones      5       no pod of this workload in that zone         twice its even share there
    requested  2       nothing promised                             all CPU and memory promised
    balance    1       CPU and memory promised alike                one full, the other empty
    wishes     20      all preferred rules fulfilled                none

Load is what was measured (CPU smoothed) plus what pods will bring that no sample shows yet, this pod among them: what
they ask for, or a default. Pressure (PSI) takes up to half of the load part away.
"""

from collections.abc import Sequence

from korch.resources.quantity import human_bytes
from korch.resources.selectors import selector_text
from korch.scheduler.decision import Part
from korch.scheduler.demand import Demand, Skew, Tally
from korch.scheduler.filters import PREFER_WEIGHT
from korch.scheduler.snapshot import ZONE

WEIGHTS = {
    "load": 50,
    "spread": 50,
    "failures": 15,
    "image": 7,
    "zones": 5,
    "requested": 2,
    "balance": 1,
    "wishes": 20,
}
CPU_SHARE_OF_LOAD = 0.7  # CPU is what pods fight for first; memory that runs out is the filter's business
FAILURES_TO_ZERO = 3


def level_score(level: float) -> float:
    """Points for a CPU or memory level: 100 when idle, 10 at full use, and still falling to 0 at three times that."""
    return 100 - 90 * level if level < 1 else max(0.0, 10 - 5 * (level - 1))


class _Soft:
    """One wish about other pods: `weight`, and how well a node fulfils it (0..1)."""

    __slots__ = ("floor", "near", "tally", "weight")

    def __init__(self, tally: Tally, weight: int, *, near: bool = False) -> None:
        self.tally, self.weight, self.near = tally, weight, near
        self.floor = tally.minimum if isinstance(tally, Skew) else 0

    def fulfilled(self, i: int) -> float:
        count = self.tally.at(i)
        if self.near:
            return 1.0 if count else 0.0
        if isinstance(self.tally, Skew):
            return 0.0 if self.tally.column[i] is None else 1 / (1 + max(0, count - self.floor) / self.tally.max_skew)
        return 1 / (1 + count)


class Scorer:
    """Scores of one shape: a node's own part (`own_scores`) plus what all nodes of its cell share (`cell_score`).

    A cell is a set of nodes that are in the same domain of every `cell_keys` label. When a pod is placed, own parts
    change on its node only; cell parts change for the cells of its domains.
    """

    def __init__(self, demand: Demand, candidates: Sequence[int], batch: int) -> None:
        self.demand, self.board, self.shape = demand, demand.board, demand.shape
        board, shape = self.board, self.shape
        self.replicas = board.replicas(shape)
        total = batch + sum(self.replicas.values())
        self.twice_even = 2 * max(1.0, total / max(1, len(candidates)))
        self.zone_of = board.snapshot.domains(ZONE)
        zones = {self.zone_of[i] for i in candidates}
        self.has_zones = len(zones) > 1
        self.twice_even_zone = 2 * max(1.0, total / max(1, len(zones)))
        self.zone_counts: dict[str | None, int] = {}
        for i, count in self.replicas.items():
            self.zone_counts[self.zone_of[i]] = self.zone_counts.get(self.zone_of[i], 0) + count
        self._collect_wishes()
        self._collect_failures()
        parts = ["load", "spread", "requested", "balance"]
        parts += [
            name
            for name, applies in (
                ("failures", self.failures),
                ("image", shape.images),
                ("zones", self.has_zones),
                ("wishes", self.wish_weight),
            )
            if applies
        ]
        unit = 1 / sum(WEIGHTS[name] for name in parts)
        self.weight = {name: WEIGHTS[name] * unit if name in parts else 0.0 for name in WEIGHTS}
        self.cell_keys = self._cell_keys()

    def _collect_wishes(self) -> None:
        demand = self.demand
        soft = [_Soft(Tally(self.board, self.shape, w.term), w.weight, near=w.near) for w in self.shape.wishes]
        soft += [_Soft(skew, PREFER_WEIGHT) for skew in demand.skews if not skew.hard]
        self.wish_weight = demand.standing.wish_weight + sum(s.weight for s in soft)
        self.soft = soft
        self.cell_soft = [s for s in soft if s.tally.own and not s.tally.unique]
        self.node_soft = [s for s in soft if not (s.tally.own and not s.tally.unique)]
        self.draws_in = any(s.near for s in self.cell_soft)  # a pod makes its domain better for the next one

    def _collect_failures(self) -> None:
        """Failures of this workload, and losses of the node, which count for every workload."""
        failures, workload = self.board.snapshot.failures, self.shape.workload
        self.failures: dict[int, int] = {}
        self.losses: dict[int, int] = {}
        if not failures:
            return
        for i, node in enumerate(self.board.snapshot.nodes):
            if lost := failures.get((node.name, ""), 0):
                self.losses[i] = lost
            if count := lost + (failures.get((node.name, workload), 0) if workload else 0):
                self.failures[i] = count

    def _cell_keys(self) -> list[tuple[str | None, ...]]:
        """The columns whose domains share a part of the score, or of the verdict."""
        keys = [ZONE] if self.has_zones else []
        keys += [s.tally.term.topology_key for s in self.cell_soft]
        keys += [t.term.topology_key for t in (*self.demand.apart, *self.demand.hard_skews) if t.own and not t.unique]
        return [self.board.snapshot.domains(key) for key in dict.fromkeys(keys)]

    def own_scores(self, nodes: Sequence[int]) -> list[float]:
        """The nodes' own parts for one more pod, in the same order. This loop is most of the scheduler's time."""
        board, shape, weight = self.board, self.shape, self.weight
        cpu, memory, cpus, memories = shape.cpu_millis, shape.memory_bytes, board.per_cpu_share, board.per_memory_share
        more_cpu, more_memory = shape.expected_cpu_millis, shape.expected_memory_bytes
        per_cpu, per_memory, calm = board.per_cpu, board.per_memory, board.calm
        cpu_load, memory_load = board.cpu_load, board.memory_load
        cpu_share, memory_share = board.cpu_share, board.memory_share
        by_cpu = weight["load"] * CPU_SHARE_OF_LOAD
        by_memory = weight["load"] - by_cpu
        half_requested, balance = weight["requested"] * 50, weight["balance"] * 100
        rest = 2 * half_requested + balance + 100 * (weight["spread"] + weight["failures"])
        scores = []
        for i in nodes:
            level = cpu_load[i] + more_cpu * per_cpu[i]
            level_memory = memory_load[i] + more_memory * per_memory[i]
            share, share_memory = cpu_share[i] + cpu * cpus[i], memory_share[i] + memory * memories[i]
            gap = share - share_memory
            scores.append(
                rest
                + calm[i]
                * (
                    by_cpu * (100 - 90 * level if level < 1 else level_score(level))
                    + by_memory * (100 - 90 * level_memory if level_memory < 1 else level_score(level_memory))
                )
                - half_requested * (share + share_memory)
                - balance * (gap if gap > 0 else -gap)
            )
        return self._adjusted(nodes, scores)

    def _adjusted(self, nodes: Sequence[int], scores: list[float]) -> list[float]:
        """Add what differs from the common case on some nodes only."""
        if not (self.replicas or self.failures or self.shape.images or self.wish_weight):
            return scores
        images = self._image_points(nodes)
        return [
            score
            - (self._crowding(i) if i in self.replicas else 0)
            - (self._blame(i) if i in self.failures else 0)
            + images.get(i, 0.0)
            + (
                self._wish_points(i, self.node_soft, self.demand.standing.fulfilled.get(i, 0))
                if self.wish_weight
                else 0
            )
            for i, score in zip(nodes, scores, strict=True)
        ]

    def _crowding(self, i: int) -> float:
        return self.weight["spread"] * 100 * min(1.0, self.replicas.get(i, 0) / self.twice_even)

    def _blame(self, i: int) -> float:
        return self.weight["failures"] * 100 * min(1.0, self.failures.get(i, 0) / FAILURES_TO_ZERO)

    def _image_points(self, nodes: Sequence[int]) -> dict[int, float]:
        points: dict[int, float] = {}
        each = self.weight["image"] * 100 / max(1, len(self.shape.images))
        for image in self.shape.images:
            holders = self.board.image_holders(image)
            for i in nodes if len(nodes) < len(holders) else holders:
                if i in holders:
                    points[i] = points.get(i, 0.0) + each
        return points

    def _wish_points(self, i: int, soft: Sequence[_Soft], fulfilled: int) -> float:
        if not self.wish_weight:
            return 0.0
        met = fulfilled + sum(s.weight * s.fulfilled(i) for s in soft)
        return self.weight["wishes"] * 100 * met / self.wish_weight

    def cell_score(self, i: int) -> float:
        """What node `i` shares with all nodes of its cell."""
        score = 0.0
        if self.has_zones:
            crowded = min(1.0, self.zone_counts.get(self.zone_of[i], 0) / self.twice_even_zone)
            score = self.weight["zones"] * 100 * (1 - crowded)
        return score + self._wish_points(i, self.cell_soft, 0) if self.cell_soft else score

    def placed(self, i: int) -> None:
        """Take note of a pod of this shape on node `i` (after `Board.place`)."""
        self.replicas[i] = self.replicas.get(i, 0) + 1
        zone = self.zone_of[i]
        self.zone_counts[zone] = self.zone_counts.get(zone, 0) + 1
        for wish in self.soft:
            if wish.tally.own and not isinstance(wish.tally, Skew):  # skews are kept up to date by the demand
                wish.tally.add(i)

    def parts(self, i: int) -> tuple[Part, ...]:
        """The parts of node `i`'s score, with the reasons; their points add up to the score."""
        names = [name for name in WEIGHTS if self.weight[name]]
        return tuple(getattr(self, f"_{name}_part")(i) for name in names)

    def _load_part(self, i: int) -> Part:
        board, shape, node = self.board, self.shape, self.board.snapshot.nodes[i]
        level = board.cpu_load[i] + shape.expected_cpu_millis * board.per_cpu[i]
        memory = board.memory_load[i] + shape.expected_memory_bytes * board.per_memory[i]
        score = CPU_SHARE_OF_LOAD * level_score(level) + (1 - CPU_SHARE_OF_LOAD) * level_score(memory)
        hidden = board.hidden_cpu[i] * board.per_cpu[i]
        detail = f"CPU {node.busy:.0%} busy"
        if hidden >= 0.005:
            detail += f" + {hidden:.0%} by pods just placed"
        if node.memory_total_bytes:
            available, total = human_bytes(node.memory_available_bytes or 0), human_bytes(node.memory_total_bytes)
            detail += f", {available} of {total} memory available"
        if node.pressure >= 0.005:
            detail += f", pressure {node.pressure:.0%}"
        return Part("load", self.weight["load"] * board.calm[i] * score, detail)

    def _spread_part(self, i: int) -> Part:
        count = self.replicas.get(i, 0)
        return Part("spread", self.weight["spread"] * 100 - self._crowding(i), _pods(count, "of this workload here"))

    def _failures_part(self, i: int) -> Part:
        lost = self.losses.get(i, 0)
        failed = self.failures.get(i, 0) - lost
        words = [f"{failed} lately"] * (failed > 0) + [f"lost {_times(lost)} in the last hour"] * (lost > 0)
        return Part("failures", self.weight["failures"] * 100 - self._blame(i), ", ".join(words) or "none lately")

    def _requested_part(self, i: int) -> Part:
        cpu, memory = self._shares(i)
        points = self.weight["requested"] * (100 - 50 * (cpu + memory))
        return Part("requested", points, f"{cpu:.0%} of CPU and {memory:.0%} of memory promised")

    def _balance_part(self, i: int) -> Part:
        cpu, memory = self._shares(i)
        return Part("balance", self.weight["balance"] * 100 * (1 - abs(cpu - memory)), f"{abs(cpu - memory):.0%} apart")

    def _shares(self, i: int) -> tuple[float, float]:
        board, shape = self.board, self.shape
        cpu = board.cpu_share[i] + shape.cpu_millis * board.per_cpu_share[i]
        return cpu, board.memory_share[i] + shape.memory_bytes * board.per_memory_share[i]

    def _image_part(self, i: int) -> Part:
        held = sum(i in self.board.image_holders(image) for image in self.shape.images)
        words = "present" if held == len(self.shape.images) else f"{held} of {len(self.shape.images)} present"
        return Part("image", self._image_points([i]).get(i, 0.0), words if held else "must be pulled")

    def _zones_part(self, i: int) -> Part:
        count = self.zone_counts.get(self.zone_of[i], 0)
        crowded = min(1.0, count / self.twice_even_zone)
        where = _pods(count, f"of this workload in zone {self.zone_of[i] or '(none)'}")
        return Part("zones", self.weight["zones"] * 100 * (1 - crowded), where)

    def _wishes_part(self, i: int) -> Part:
        fulfilled = self.demand.standing.fulfilled.get(i, 0)
        points = self._wish_points(i, self.soft, fulfilled)
        words = (
            [f"node rules {fulfilled}/{self.demand.standing.wish_weight}"] if self.demand.standing.wish_weight else []
        )
        for wish in self.soft:
            kind = "near" if wish.near else "spread" if isinstance(wish.tally, Skew) else "away from"
            words.append(f"{kind} {selector_text(wish.tally.term.selector)} {wish.fulfilled(i):.0%}")
        return Part("wishes", points, ", ".join(words))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _pods(count: int, where: str) -> str:
    return f"{count or 'no'} pod{'' if count == 1 else 's'} {where}"
