"""An independent judge of placements: it shares no code with the scheduler and replays its decisions on the objects.

It keeps its own books, in plain dictionaries, and asks of every placement whether the node may take the pod at that
moment. `problems` is empty when all is well. Written for clarity; speed comes only from counting pods by label set.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from korch.resources.meta import LabelSelector
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Container, Pod

UNITS: dict[str, Decimal | int] = {
    "m": Decimal("0.001"),
    "k": 1000,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
Labels = tuple[str, frozenset[tuple[str, str]]]  # namespace, labels


def amount(text: str | int | float) -> Decimal:
    """A quantity with one of the usual suffixes."""
    text = str(text)
    for suffix in sorted(UNITS, key=len, reverse=True):
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * UNITS[suffix]
    return Decimal(text)


def asked(pod: Pod, what: str) -> Decimal:
    """The larger of the containers' sum and the largest init container."""

    def one(container: Container) -> Decimal:
        resources = container.resources
        return amount(resources.requests.get(what, resources.limits.get(what, 0)))

    return max(
        sum((one(c) for c in pod.spec.containers), Decimal(0)),
        max((one(c) for c in pod.spec.init_containers), default=Decimal(0)),
    )


def selected(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Label selector semantics; no selector selects nothing."""
    if selector is None:
        return False
    for key, value in selector.match_labels.items():
        if key not in labels or labels[key] != value:
            return False
    return all(requirement(r.key, r.operator, r.values, labels) for r in selector.match_expressions)


def requirement(key: str, operator: str, values: Sequence[str], labels: Mapping[str, str]) -> bool:
    """One expression of a selector or a node affinity."""
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return not (key in labels and labels[key] in values)
    try:
        number, bound = int(labels[key]), int(values[0])
    except (KeyError, ValueError):
        return False
    return number > bound if operator == "Gt" else number < bound


class Book:
    """What the checker believes to run where."""

    def __init__(
        self,
        nodes: Sequence[Node],
        loads: Mapping[str, NodeLoad],
        pods: Sequence[Pod],
        now: float,
        max_age_s: float = 300,
    ) -> None:
        self.nodes = {node.metadata.name: node for node in nodes}
        self.loads, self.now, self.max_age_s = loads, now, max_age_s
        self.labels = {name: {"kubernetes.io/hostname": name, **n.metadata.labels} for name, n in self.nodes.items()}
        self.cpu: dict[str, Decimal] = defaultdict(Decimal)
        self.memory: dict[str, Decimal] = defaultdict(Decimal)
        self.unseen_memory: dict[str, Decimal] = defaultdict(Decimal)
        self.ports: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
        self.volumes: dict[str, set[str]] = defaultdict(set)
        self.count: Counter[str] = Counter()
        self.groups: dict[str, Counter[Labels]] = defaultdict(Counter)  # node -> pods per label set
        self.leaving: dict[str, Counter[Labels]] = defaultdict(Counter)
        self.keep_away: dict[str, Counter[tuple[str, Any]]] = defaultdict(Counter)  # node -> (namespace, term)
        self.terms: dict[str, Any] = {}
        self.members: dict[tuple[str, str], list[str]] = defaultdict(list)  # (label, value) -> nodes
        for name, labels in self.labels.items():
            for pair in labels.items():
                self.members[pair].append(name)
            for volume in self.nodes[name].status.volumes_in_use:
                self.volumes[volume].add(name)
        self.sizes: Counter[str] = Counter()
        for node in nodes:
            for held in node.status.images:
                self.sizes |= Counter(dict.fromkeys(held.names, held.size_bytes))
        self.matching: dict[tuple[str, str], dict[tuple[str, bool], Counter[str]]] = {}
        for pod in pods:
            if pod.spec.node_name in self.nodes and pod.status.phase not in ("Succeeded", "Failed"):
                self.add(pod, pod.spec.node_name, measured=self._is_measured(pod))

    def _is_measured(self, pod: Pod) -> bool:
        """Whether the pod had run for 10 s when its node's sample was taken."""
        load = self.loads.get(pod.spec.node_name)
        if pod.status.start_time is None or load is None or load.sampled_at is None:
            return pod.status.phase == "Running"
        return seconds(load.sampled_at) - seconds(pod.status.start_time) >= 10

    def add(self, pod: Pod, node: str, *, measured: bool = False) -> None:
        """The pod runs on the node; `measured`: the node's sample already shows its memory."""
        self.cpu[node] += asked(pod, "cpu")
        self.memory[node] += asked(pod, "memory")
        self.unseen_memory[node] += 0 if measured else asked(pod, "memory")
        self.count[node] += 1
        self.ports[node] += host_ports(pod)
        for volume in named_volumes(pod):
            self.volumes[f"{pod.metadata.namespace}/{volume}"].add(node)
        group = (pod.metadata.namespace, frozenset(pod.metadata.labels.items()))
        self.groups[node][group] += 1
        leaving = pod.metadata.deletion_timestamp is not None
        if leaving:
            self.leaving[node][group] += 1
        for term in anti_terms(pod):
            key = repr((term, pod.metadata.namespace))
            self.terms[key] = term
            self.keep_away[node][(pod.metadata.namespace, key)] += 1
        self._remember(group, node, leaving)

    def _remember(self, group: Labels, node: str, leaving: bool) -> None:
        """Keep the memo of `matching_per_domain` true."""
        for (selector_key, namespace), by_label in self.matching.items():
            if group[0] == namespace and selected(self.terms[selector_key], dict(group[1])):
                for (topology_key, with_leaving), counter in by_label.items():
                    domain = self.labels[node].get(topology_key)
                    if domain is not None and (with_leaving or not leaving):
                        counter[domain] += 1

    def matching_per_domain(
        self, selector: LabelSelector | None, namespace: str, topology_key: str, *, leaving: bool
    ) -> Counter[str]:
        """Pods that a selector means, per domain."""
        key = repr(selector)
        self.terms[key] = selector
        by_label = self.matching.setdefault((key, namespace), {})
        if (topology_key, leaving) not in by_label:
            counter: Counter[str] = Counter()
            for node, groups in self.groups.items():
                domain = self.labels[node].get(topology_key)
                if domain is None:
                    continue
                for group, count in groups.items():
                    if group[0] == namespace and selected(selector, dict(group[1])):
                        counter[domain] += count - (0 if leaving else self.leaving[node][group])
            by_label[(topology_key, leaving)] = counter
        return by_label[(topology_key, leaving)]

    def objections(self, pod: Pod, node: str, allowed: frozenset[str] | None = None) -> list[str]:
        """Why the node may not take the pod now."""
        return [*self.standing(pod, node, allowed), *self.room(pod, node), *self.company(pod, node, allowed)]

    def standing(self, pod: Pod, name: str, allowed: frozenset[str] | None) -> list[str]:
        """State, cordon, taints, selectors, freshness, disk."""
        node, load, found = self.nodes[name], self.loads.get(name), []
        ready = [c for c in node.status.conditions if c.type == "Ready"]
        reason = ready[0].reason if ready else ""
        if not ready or (
            (ready[0].status != "True" or reason == "AddressUnknown")
            and not (reason == "AddressUnknown" and not host_ports(pod))
        ):
            found.append("not ready")
        if any(c.status == "True" and c.type in ("DiskPressure", "MemoryPressure") for c in node.status.conditions):
            found.append("pressure")
        if node.spec.unschedulable and not tolerated(pod, "node.kubernetes.io/unschedulable", "", "NoSchedule"):
            found.append("cordoned")
        if allowed is not None and name not in allowed:
            found.append("not allowed")
        for taint in node.spec.taints:
            if taint.effect != "PreferNoSchedule" and not tolerated(pod, taint.key, taint.value, taint.effect):
                found.append(f"taint {taint.key}")
        if any(self.labels[name].get(key) != value for key, value in pod.spec.node_selector.items()):
            found.append("node selector")
        if not self.affine(pod, name):
            found.append("node affinity")
        arches = [a.strip() for a in pod.metadata.annotations.get("korch.dev/arch", "").split(",") if a.strip()]
        arch = self.labels[name].get("kubernetes.io/arch") or node.status.node_info.architecture
        if arches and arch and arch not in arches:
            found.append("architecture")
        if load is None or load.sampled_at is None or self.now - seconds(load.sampled_at) > self.max_age_s:
            found.append("stale")
        elif load.disk_free_bytes < min(2**30, load.disk_total_bytes / 20):
            found.append("disk")
        return found

    def affine(self, pod: Pod, name: str) -> bool:
        """Required node affinity."""
        affinity = pod.spec.affinity and pod.spec.affinity.node_affinity
        required = affinity and affinity.required_during_scheduling_ignored_during_execution
        if not required:
            return True
        for term in required.node_selector_terms:
            every = [requirement(r.key, r.operator, r.values, self.labels[name]) for r in term.match_expressions]
            every += [requirement(r.key, r.operator, r.values, {"metadata.name": name}) for r in term.match_fields]
            if every and all(every):
                return True
        return False

    def room(self, pod: Pod, name: str) -> list[str]:
        """Slots, CPU, memory promised and real, ports, volumes."""
        allocatable, load, found = self.nodes[name].status.allocatable, self.loads.get(name), []
        if self.count[name] + 1 > int(allocatable.get("pods", 110)):
            found.append("pods")
        cpu, memory = asked(pod, "cpu"), asked(pod, "memory")
        if cpu and self.cpu[name] + cpu > amount(allocatable["cpu"]):
            found.append("cpu")
        if memory and self.memory[name] + memory > amount(allocatable["memory"]):
            found.append("memory")
        if (
            memory
            and load
            and load.memory_total_bytes
            and self.unseen_memory[name] + memory > load.memory_available_bytes
        ):
            found.append("real memory")
        pulled = self.to_pull(pod, name)
        if pulled and load and load.disk_free_bytes - pulled < min(2**30, load.disk_total_bytes / 20):
            found.append("disk for the image")
        for protocol, port, ip in host_ports(pod):
            for used_protocol, used_port, used_ip in self.ports[name]:
                if (protocol, port) == (used_protocol, used_port) and (ip == used_ip or "" in (ip, used_ip)):
                    found.append(f"port {port}")
        for volume in named_volumes(pod):
            homes = self.volumes[f"{pod.metadata.namespace}/{volume}"] | self.volumes[volume]
            if homes and name not in homes:
                found.append(f"volume {volume}")
        return found

    def to_pull(self, pod: Pod, name: str) -> int:
        """Bytes of the pod's images that the node lacks, as large as any node says they are."""
        here = {image for held in self.nodes[name].status.images for image in held.names}
        return sum(self.sizes.get(image, 0) for image in {one.image for one in pod.spec.containers} - here)

    def company(self, pod: Pod, name: str, allowed: frozenset[str] | None) -> list[str]:
        """Affinity, anti-affinity (both ways) and topology spread."""
        found, labels, namespace = [], self.labels[name], pod.metadata.namespace
        for term in anti_terms(pod):
            for other in term.namespaces or (namespace,):
                per_domain = self.matching_per_domain(term.label_selector, other, term.topology_key, leaving=True)
                if per_domain[labels.get(term.topology_key, "")]:
                    found.append("anti-affinity")
        found += ["anti-affinity of another"] * self.kept_away(pod, name)
        near = near_terms(pod)
        totals = [
            sum(
                (
                    self.matching_per_domain(t.label_selector, n, t.topology_key, leaving=True)
                    for n in t.namespaces or (namespace,)
                ),
                Counter(),
            )
            for t in near
        ]
        itself = all(
            selected(t.label_selector, pod.metadata.labels) and namespace in (t.namespaces or (namespace,))
            for t in near
        )
        alone = itself and not any(t.total() for t in totals)
        for term, per_domain in zip(near, totals, strict=True):
            domain = labels.get(term.topology_key)
            if domain is None or (not per_domain[domain] and not alone):
                found.append("affinity")
        return found + self.skewed(pod, name, allowed)

    def kept_away(self, pod: Pod, name: str) -> bool:
        """Whether a pod nearby has an anti-affinity against this one."""
        for key, term in [(k, t) for k, t in self.terms.items() if hasattr(t, "topology_key")]:
            domain = self.labels[name].get(term.topology_key)
            if domain is None or not selected(term.label_selector, pod.metadata.labels):
                continue
            for node in self.members[(term.topology_key, domain)]:
                for (namespace, other), count in self.keep_away[node].items():
                    if other == key and count and pod.metadata.namespace in (term.namespaces or (namespace,)):
                        return True
        return False

    def skewed(self, pod: Pod, name: str, allowed: frozenset[str] | None) -> list[str]:
        """Hard topology spread; domains count that have a node which would take the pod but for room and company."""
        hard = [c for c in pod.spec.topology_spread_constraints if c.when_unsatisfiable == "DoNotSchedule"]
        if not hard:
            return []
        open_nodes = self.open_nodes(pod, allowed, tuple(c.topology_key for c in hard))
        found = []
        for constraint in hard:
            domain = self.labels[name].get(constraint.topology_key)
            per_domain = self.matching_per_domain(
                constraint.label_selector, pod.metadata.namespace, constraint.topology_key, leaving=False
            )
            emptiest = min((per_domain[self.labels[n][constraint.topology_key]] for n in open_nodes), default=0)
            itself = selected(constraint.label_selector, pod.metadata.labels)
            if domain is None or per_domain[domain] + itself - emptiest > constraint.max_skew:
                found.append("spread")
        return found

    def open_nodes(self, pod: Pod, allowed: frozenset[str] | None, keys: tuple[str, ...]) -> list[str]:
        """Nodes without a standing objection; remembered per kind of pod, as nothing in it changes."""
        spec, arch = pod.spec, pod.metadata.annotations.get("korch.dev/arch")
        has_ports = bool(host_ports(pod))
        kind = repr((spec.node_selector, spec.affinity, spec.tolerations, has_ports, arch, allowed, keys))
        memo = self.__dict__.setdefault("_open", {})
        if kind not in memo:
            memo[kind] = [
                name
                for name, labels in self.labels.items()
                if set(keys) <= labels.keys() and not self.standing(pod, name, allowed)
            ]
        result: list[str] = memo[kind]
        return result


def problems(
    nodes: Sequence[Node],
    loads: Mapping[str, NodeLoad],
    pods: Sequence[Pod],
    placements: Iterable[tuple[Pod, str | None]],
    now: float,
    *,
    allowed: frozenset[str] | None = None,
    look_at_pending: int = 0,
) -> list[str]:
    """What is wrong with the placements, replayed in order; the first pending pods are tried on every node."""
    book = Book(nodes, loads, pods, now)
    found, pending = [], 0
    for pod, node in placements:
        if node is None:
            pending += 1
            if pending <= look_at_pending:
                fitting = [name for name in book.nodes if not book.objections(pod, name, allowed)]
                found += [f"{pod.metadata.name} is pending, {fitting[0]} could take it"] if fitting else []
            continue
        found += [f"{pod.metadata.name} on {node}: {why}" for why in book.objections(pod, node, allowed)]
        book.add(pod, node)
    return found


def host_ports(pod: Pod) -> list[tuple[str, int, str]]:
    """(protocol, port, address or "" for all)."""
    return [
        (p.protocol or "TCP", p.host_port, "" if p.host_ip in ("0.0.0.0", "::") else p.host_ip)
        for c in pod.spec.containers
        for p in c.ports
        if p.host_port
    ]


def named_volumes(pod: Pod) -> list[str]:
    """Names of node-local volumes."""
    return [
        v.csi.volume_attributes.get("name", v.name)
        for v in pod.spec.volumes
        if v.csi and v.csi.driver == "volumes.korch.dev"
    ]


def anti_terms(pod: Pod) -> Sequence[Any]:
    """Required anti-affinity."""
    anti = pod.spec.affinity and pod.spec.affinity.pod_anti_affinity
    return anti.required_during_scheduling_ignored_during_execution if anti else ()


def near_terms(pod: Pod) -> Sequence[Any]:
    """Required affinity to pods."""
    near = pod.spec.affinity and pod.spec.affinity.pod_affinity
    return near.required_during_scheduling_ignored_during_execution if near else ()


def tolerated(pod: Pod, key: str, value: str, effect: str) -> bool:
    """Whether a toleration covers it."""
    for t in pod.spec.tolerations:
        same_key = t.key == key or (not t.key and t.operator == "Exists")
        same_value = t.operator == "Exists" or t.value == value
        if same_key and same_value and t.effect in ("", effect):
            return True
    return False


def seconds(text: str) -> float:
    """Unix seconds."""
    return datetime.fromisoformat(text).timestamp()
