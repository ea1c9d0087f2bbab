"""Scores as the table in `korch/scheduler/scores.py` tells them, computed the slow way, from objects."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.checker import Book, asked, requirement, selected, tolerated
from korch.resources.node import Node
from korch.resources.pod import NodeSelectorTerm, Pod

ZONE = "topology.kubernetes.io/zone"
WEIGHTS = {"load": 50, "spread": 50, "failures": 15, "image": 7, "zones": 5, "requested": 2, "balance": 1, "wishes": 20}


@dataclass(frozen=True)
class Placed:
    """A pod and its node. `seen`: its load shows in the sample."""

    pod: Pod
    node: str
    seen: bool


@dataclass(frozen=True)
class Start:
    """What is fixed for a group of like pods when its first one is placed."""

    candidates: tuple[str, ...]
    replicas: int  # old and new ones of the workload
    floors: Mapping[int, int]  # pods in the emptiest domain per spread constraint


def same_workload(one: Pod, other: Pod) -> bool:
    """The same controller; pods without one belong together when nothing but the name differs."""
    owners = one.metadata.owner_references, other.metadata.owner_references
    if owners[0] or owners[1]:
        return owners[0] == owners[1]
    specs = [
        (
            p.metadata.labels,
            p.metadata.annotations,
            p.spec.containers,
            p.spec.volumes,
            p.spec.affinity,
            p.spec.node_selector,
            p.spec.tolerations,
            p.spec.topology_spread_constraints,
        )
        for p in (one, other)
    ]
    return specs[0] == specs[1]


def level_points(level: float) -> float:
    """The bent line of the load part."""
    return 100 - 90 * level if level < 1 else max(0.0, 10 - 5 * (level - 1))


class Reference:
    """Scores one pod on one node, given what is placed so far."""

    def __init__(self, book: Book, placed: Sequence[Placed], pod: Pod, start: Start) -> None:
        self.book, self.placed, self.pod, self.start = book, placed, pod, start

    def score(self, name: str) -> float:
        """Weighted mean of the parts that apply."""
        parts = {name: value for name, value in self.parts(name).items() if value is not None}
        return sum(WEIGHTS[k] * v for k, v in parts.items()) / sum(WEIGHTS[k] for k in parts)

    def parts(self, name: str) -> dict[str, float | None]:
        """Each part 0..100, None where it says nothing."""
        node = self.book.nodes[name]
        cpu, memory = self.shares(node)
        return {
            "load": self.load(name),
            "spread": self.crowding([name], max(1, len(self.start.candidates))),
            "failures": None,
            "image": 100.0 * (self.pod.spec.containers[0].image in [n for i in node.status.images for n in i.names]),
            "zones": self.zones(name),
            "requested": 100 - 50 * (cpu + memory),
            "balance": 100 * (1 - abs(cpu - memory)),
            "wishes": self.wishes(name),
        }

    def load(self, name: str) -> float:
        """Measured, plus unseen, plus this pod."""
        sample = self.book.loads[name]
        unseen = [p.pod for p in self.placed if p.node == name and not p.seen] + [self.pod]
        cpu = sum(float(asked(p, "cpu")) or 0.1 for p in unseen) / sample.cpu_count
        memory = sum(float(asked(p, "memory")) or 64 * 2**20 for p in unseen) / sample.memory_total_bytes
        busy = sample.cpu_busy_smoothed or 0.0
        used = 1 - sample.memory_available_bytes / sample.memory_total_bytes
        points = 0.7 * level_points(busy + cpu) + 0.3 * level_points(used + memory)
        return points * (1 - (sample.pressure_cpu or 0) / 2)

    def shares(self, node: Node) -> tuple[float, float]:
        """Promised shares, with this pod."""
        here = [p.pod for p in self.placed if p.node == node.metadata.name] + [self.pod]
        cpu = float(sum(asked(p, "cpu") for p in here)) / int(node.status.allocatable["cpu"])
        memory = float(sum(asked(p, "memory") for p in here))
        return cpu, memory / (int(node.status.allocatable["memory"].removesuffix("Gi")) * 2**30)

    def crowding(self, names: Sequence[str], places: int) -> float:
        """Falls to 0 at twice the even share."""
        here = sum(
            p.node in names and same_workload(p.pod, self.pod) and p.pod.metadata.deletion_timestamp is None
            for p in self.placed
        )
        return 100 * (1 - min(1.0, here / (2 * max(1.0, self.start.replicas / places))))

    def zone(self, name: str) -> str | None:
        return self.book.labels[name].get(ZONE)

    def zones(self, name: str) -> float | None:
        """Only with more than one zone among the candidates."""
        zones = {self.zone(n) for n in self.start.candidates}
        same = [n for n in self.book.nodes if self.zone(n) == self.zone(name)]
        return self.crowding(same, len(zones)) if len(zones) > 1 else None

    def wishes(self, name: str) -> float | None:
        """Fulfilled weight of all weight."""
        wanted = [*self.node_wishes(name), *self.pod_wishes(name), *self.spread_wishes(name)]
        total = sum(weight for weight, _ in wanted)
        return 100 * sum(weight * met for weight, met in wanted) / total if total else None

    def node_wishes(self, name: str) -> list[tuple[int, float]]:
        """Preferred node affinity, and taints to avoid when any open node has one."""
        found: list[tuple[int, float]] = []
        affinity = self.pod.spec.affinity and self.pod.spec.affinity.node_affinity
        for preferred in affinity.preferred_during_scheduling_ignored_during_execution if affinity else ():
            found.append((preferred.weight, float(self.term_holds(preferred.preference, name))))
        if any(self.shunned(n) for n in self.book.nodes if not self.book.standing(self.pod, n, None)):
            found.append((50, float(not self.shunned(name))))
        return found

    def term_holds(self, term: NodeSelectorTerm, name: str) -> bool:
        return all(requirement(r.key, r.operator, r.values, self.book.labels[name]) for r in term.match_expressions)

    def shunned(self, name: str) -> bool:
        taints = self.book.nodes[name].spec.taints
        return any(t.effect == "PreferNoSchedule" and not tolerated(self.pod, t.key, t.value, t.effect) for t in taints)

    def pod_wishes(self, name: str) -> list[tuple[int, float]]:
        """Preferred affinity and anti-affinity."""
        affinity, found = self.pod.spec.affinity, []
        for group, near in (
            (affinity and affinity.pod_affinity, True),
            (affinity and affinity.pod_anti_affinity, False),
        ):
            for wish in group.preferred_during_scheduling_ignored_during_execution if group else ():
                term = wish.pod_affinity_term
                per_domain = self.book.matching_per_domain(
                    term.label_selector, "default", term.topology_key, leaving=True
                )
                count = per_domain[self.book.labels[name].get(term.topology_key, "")]
                found.append((wish.weight, float(count > 0) if near else 1 / (1 + count)))
        return found

    def spread_wishes(self, name: str) -> list[tuple[int, float]]:
        """Soft topology spread."""
        found = []
        for number, constraint in enumerate(self.pod.spec.topology_spread_constraints):
            if constraint.when_unsatisfiable == "ScheduleAnyway":
                domain = self.book.labels[name].get(constraint.topology_key)
                over = max(0, self.spread_count(number)[domain or ""] - self.start.floors[number])
                found.append((50, 0.0 if domain is None else 1 / (1 + over / constraint.max_skew)))
        return found

    def spread_count(self, number: int) -> Counter[str]:
        constraint = self.pod.spec.topology_spread_constraints[number]
        return self.book.matching_per_domain(
            constraint.label_selector, "default", constraint.topology_key, leaving=False
        )


def start_of(book: Book, placed: Sequence[Placed], group: Sequence[Pod]) -> Start:
    """The fixed facts for a group that is about to be placed."""
    pod = group[0]
    candidates = []
    for name in book.nodes:
        objections = book.objections(pod, name)
        own_spread = any(
            c.when_unsatisfiable == "DoNotSchedule" and selected(c.label_selector, pod.metadata.labels)
            for c in pod.spec.topology_spread_constraints
        )
        keyed = all(
            c.topology_key in book.labels[name]
            for c in pod.spec.topology_spread_constraints
            if c.when_unsatisfiable == "DoNotSchedule"
        )
        if not objections or (own_spread and keyed and set(objections) == {"spread"}):
            candidates.append(name)
    replicas = sum(same_workload(p.pod, pod) and p.pod.metadata.deletion_timestamp is None for p in placed) + len(group)
    start = Start(tuple(candidates), replicas, {})
    probe, floors = Reference(book, placed, pod, start), {}
    open_nodes = [n for n in book.nodes if not book.standing(pod, n, None)]
    for number, constraint in enumerate(pod.spec.topology_spread_constraints):
        domains = {book.labels[n].get(constraint.topology_key) for n in open_nodes} - {None}
        floors[number] = min((probe.spread_count(number)[str(d)] for d in domains), default=0)
    return Start(tuple(candidates), replicas, floors)
