"""The scheduler's working copy of a snapshot: what is free on each node, and where which pods are, as it places them.

Columns are lists by node index: the passes over all nodes read them millions of times, and a list is the fastest that
Python has. Only `Board.place` changes them.
"""

from collections.abc import Iterator

from korch.scheduler.filters import Limits, Standing, standing
from korch.scheduler.shape import Rules, Shape, Term
from korch.scheduler.snapshot import Snapshot, port_marks

_UNKNOWN_BYTES = 2**62  # free memory of a node that does not say: only requests count there


class Board:
    """Free room, load and pods of every node of a snapshot; `place` adds a pod."""

    def __init__(self, snap: Snapshot, allowed_nodes: frozenset[str] | None = None) -> None:
        nodes, usage = snap.nodes, snap.usage
        self.snapshot, self.size = snap, len(nodes)
        self.limits = Limits(allowed_nodes, snap.max_sample_age_s)
        self.slots = [n.max_pods - u.pods for n, u in zip(nodes, usage, strict=True)]
        self.cpu_free = [n.cpu_millis - u.cpu_millis for n, u in zip(nodes, usage, strict=True)]
        self.memory_free = [n.memory_bytes - u.memory_bytes for n, u in zip(nodes, usage, strict=True)]
        self.memory_now = [
            (_UNKNOWN_BYTES if n.memory_available_bytes is None else n.memory_available_bytes) - u.promised_memory_bytes
            for n, u in zip(nodes, usage, strict=True)
        ]
        self.ports = [u.ports for u in usage]
        self.per_cpu = [1 / n.capacity_cpu_millis for n in nodes]
        self.per_memory = [1 / n.memory_total_bytes if n.memory_total_bytes else 0.0 for n in nodes]
        self.per_cpu_share = [1 / n.cpu_millis if n.cpu_millis else 0.0 for n in nodes]
        self.per_memory_share = [1 / n.memory_bytes if n.memory_bytes else 0.0 for n in nodes]
        self.calm = [1 - min(1.0, n.pressure) / 2 for n in nodes]
        self.hidden_cpu = [u.hidden_cpu_millis for u in usage]
        self.hidden_memory = [u.hidden_memory_bytes for u in usage]
        self.cpu_load, self.memory_load = [0.0] * self.size, [0.0] * self.size
        self.cpu_share, self.memory_share = [0.0] * self.size, [0.0] * self.size
        for i in range(self.size):
            self._refresh(i)
        self._standing: dict[Rules, Standing] = {}
        self._added: dict[Shape, dict[int, int]] = {}
        self._unique: dict[str, bool] = {}
        self._images: dict[str, set[int]] = {}
        self._image_bytes: dict[str, int] = {}
        for i, node in enumerate(nodes):
            for image in node.images:
                self._images.setdefault(image, set()).add(i)
            for image, size in node.image_bytes.items():
                self._image_bytes[image] = max(size, self._image_bytes.get(image, 0))
        self._index_pods()

    def _index_pods(self) -> None:
        self._by_label: dict[tuple[str, str, str], list[Shape]] = {}
        self._by_namespace: dict[str, list[Shape]] = {}
        self._by_workload: dict[str, list[Shape]] = {}
        self._apart: list[Shape] = []
        self._volumes: dict[str, set[int]] = {}
        for shape, per_node in self.snapshot.by_shape.items():
            self._index(shape)
            for volume in shape.volumes:
                self._volumes.setdefault(volume, set()).update(per_node)
        for i, node in enumerate(self.snapshot.nodes):
            for volume in node.volumes:
                self._volumes.setdefault(volume, set()).add(i)

    def _index(self, shape: Shape) -> None:
        self._by_namespace.setdefault(shape.namespace, []).append(shape)
        if shape.workload:
            self._by_workload.setdefault(shape.workload, []).append(shape)
        for key, value in shape.labels.items():
            self._by_label.setdefault((shape.namespace, key, value), []).append(shape)
        if shape.apart:
            self._apart.append(shape)

    def _refresh(self, i: int) -> None:
        """Recompute a node's ratios from whole numbers: they depend on what is there, not on the order it came in."""
        node = self.snapshot.nodes[i]
        total, available = node.memory_total_bytes, node.memory_available_bytes
        used = 1 - (available or 0) / total if total else 0.0
        self.cpu_load[i] = node.busy + self.hidden_cpu[i] * self.per_cpu[i]
        self.memory_load[i] = used + self.hidden_memory[i] * self.per_memory[i]
        self.cpu_share[i] = 1 - self.cpu_free[i] * self.per_cpu_share[i]
        self.memory_share[i] = 1 - self.memory_free[i] * self.per_memory_share[i]

    def place(self, shape: Shape, i: int) -> None:
        """Count one more pod of that shape on node `i`."""
        self.slots[i] -= 1
        self.cpu_free[i] -= shape.cpu_millis
        self.memory_free[i] -= shape.memory_bytes
        self.memory_now[i] -= shape.memory_bytes
        self.hidden_cpu[i] += shape.expected_cpu_millis
        self.hidden_memory[i] += shape.expected_memory_bytes
        if shape.ports:
            self.ports[i] |= frozenset(port_marks(shape))
        for volume in shape.volumes:
            self._volumes.setdefault(volume, set()).add(i)
        self._refresh(i)
        added = self._added.get(shape)
        if added is None:
            added = self._added[shape] = {}
            if shape not in self.snapshot.by_shape:
                self._index(shape)
        added[i] = added.get(i, 0) + 1

    def standing(self, rules: Rules) -> Standing:
        """Which nodes stand these rules; computed once per set of rules."""
        found = self._standing.get(rules)
        if found is None:
            found = self._standing[rules] = standing(rules, self.snapshot.nodes, self.limits)
        return found

    def holders(self, volume: str) -> set[int]:
        """Nodes that hold the volume `namespace/name`. A node may list it by its bare name."""
        return self._volumes.get(volume, set()) | self._volumes.get(volume.partition("/")[2], set())

    def image_holders(self, image: str) -> set[int]:
        """Nodes that have the image."""
        return self._images.get(image, set())

    def knows_size(self, shape: Shape) -> bool:
        """Whether any node tells what one of the shape's images takes."""
        return any(image in self._image_bytes for image in shape.images)

    def bytes_to_pull(self, shape: Shape, i: int) -> int:
        """What the images that node `i` lacks take on its disk, as far as other nodes tell their size."""
        return sum(self._image_bytes.get(image, 0) for image in shape.images if i not in self.image_holders(image))

    def is_unique(self, topology_key: str) -> bool:
        """Whether each value of that label is found on one node only, as with the hostname."""
        found = self._unique.get(topology_key)
        if found is None:
            values = [v for v in self.snapshot.domains(topology_key) if v is not None]
            found = self._unique[topology_key] = len(values) == len(set(values))
        return found

    def pods_of(self, shape: Shape) -> Iterator[tuple[int, int]]:
        """(node index, pods) of one shape; a node may come twice."""
        yield from self.snapshot.by_shape.get(shape, {}).items()
        yield from self._added.get(shape, {}).items()

    def replicas(self, shape: Shape) -> dict[int, int]:
        """Pods of the same workload per node, without those that are being deleted."""
        counts: dict[int, int] = {}
        for other in self._by_workload.get(shape.workload, ()) if shape.workload else (shape,):
            for i, count in self.pods_of(other):
                counts[i] = counts.get(i, 0) + count
            for i, count in self.snapshot.leaving_by_shape.get(other, {}).items():
                counts[i] -= count
        return counts

    def meant_by(self, term: Term) -> list[Shape]:
        """Shapes with pods on nodes that the term's selector means."""
        if term.selector is None:
            return []
        exact = next((r for r in term.selector.requirements if r.operator == "In" and len(r.values) == 1), None)
        found: list[Shape] = []
        for namespace in dict.fromkeys(term.namespaces):
            if exact:
                found += self._by_label.get((namespace, exact.key, exact.values[0]), ())
            else:
                found += self._by_namespace.get(namespace, ())
        return [shape for shape in found if term.matches(shape)]

    def keeping_away(self, shape: Shape) -> list[tuple[Shape, Term]]:
        """Anti-affinity of pods on nodes that means this shape: it binds both sides, as in Kubernetes."""
        return [(other, term) for other in self._apart for term in other.apart if term.matches(shape)]
