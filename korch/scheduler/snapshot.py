"""The cluster at one moment, as the scheduler sees it: nodes, their load, and the pods that hold something on them.

Built once, then only read: any number of `schedule` calls and what-if questions may use one snapshot. The caller passes
the time; nothing here looks at a clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from korch.errors import InvalidError
from korch.resources.annotations import GONE
from korch.resources.node import Node, NodeLoad, Taint
from korch.resources.pod import Pod, PodSpec
from korch.resources.quantity import cpu_millis, memory_bytes, parse_quantity
from korch.resources.times import parse_time
from korch.scheduler.shape import Shape, Shapes, image_name

HOSTNAME = "kubernetes.io/hostname"
ARCH = "kubernetes.io/arch"
ZONE = "topology.kubernetes.io/zone"
DEFAULT_MAX_PODS = 110  # Kubernetes' default for a node


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, digested. Fractions are 0..1 of the whole machine; a `sample_age_s` of None means no sample at all."""

    name: str
    labels: Mapping[str, str]
    state: str  # "Ready", or the state's name of the table in the design
    state_message: str = ""
    cordoned: bool = False
    taints: tuple[Taint, ...] = ()
    cpu_millis: int = 0  # allocatable
    memory_bytes: int = 0  # allocatable
    max_pods: int = DEFAULT_MAX_PODS
    capacity_cpu_millis: int = 1000  # of the whole machine; load is relative to it
    busy: float = 0.0  # smoothed CPU use
    memory_total_bytes: int = 0
    memory_available_bytes: int | None = None
    disk_total_bytes: int = 0
    disk_free_bytes: int = 0
    pressure: float = 0.0  # the worst of the PSI figures
    sample_age_s: float | None = None
    images: frozenset[str] = frozenset()
    image_bytes: Mapping[str, int] = field(default_factory=dict, repr=False)  # of those whose size is known, unpacked
    volumes: frozenset[str] = frozenset()
    arch: str = ""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod on a node, or one to be placed (`node` empty). `hidden`: no sample shows its load yet."""

    namespace: str
    name: str
    uid: str
    created: str
    shape: Shape
    node: str = ""
    hidden: bool = True
    leaving: bool = False  # being deleted: it still holds resources, but is no replica any more


@dataclass(frozen=True, slots=True)
class Usage:
    """What placed pods hold of one node. `hidden_*` is load that no sample shows yet."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    pods: int = 0
    hidden_cpu_millis: int = 0
    hidden_memory_bytes: int = 0
    promised_memory_bytes: int = 0  # requests that are not yet seen as used memory
    ports: frozenset[tuple[str, int, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nodes sorted by name, the pods on them, and sums over those pods. Counts map node index to pods."""

    nodes: tuple[NodeView, ...]
    placed: tuple[PodView, ...]
    now: float
    max_sample_age_s: float
    failures: Mapping[tuple[str, str], int]
    shapes: Shapes = field(repr=False)
    usage: tuple[Usage, ...] = field(repr=False)
    by_shape: Mapping[Shape, Mapping[int, int]] = field(repr=False)
    leaving_by_shape: Mapping[Shape, Mapping[int, int]] = field(repr=False)
    columns: dict[str, tuple[str | None, ...]] = field(default_factory=dict, repr=False)  # memo of `domains`

    def domains(self, topology_key: str) -> tuple[str | None, ...]:
        """The value of that label on each node; None where it is missing."""
        found = self.columns.get(topology_key)
        if found is None:
            found = self.columns[topology_key] = tuple(node.labels.get(topology_key) for node in self.nodes)
        return found


def snapshot(
    nodes: Sequence[Node],
    loads: Mapping[str, NodeLoad],
    pods: Sequence[Pod],
    *,
    now: float,
    failures: Mapping[tuple[str, str], int] | None = None,
    max_sample_age_s: float = 300.0,
    lag_s: float = 10.0,
) -> Snapshot:
    """The cluster at `now` (Unix seconds). `pods` may hold all pods: ended and unplaced ones are left out.

    `failures` counts recent failures by (node, workload), workloads as `workload_of` names them, "" for all.
    A node without a sample younger than `max_sample_age_s` takes no pods. A pod's load counts as visible `lag_s` after
    its start.
    """
    shapes = Shapes()
    views = tuple(sorted((_node(node, loads.get(node.metadata.name), now) for node in nodes), key=lambda v: v.name))
    sampled = {view.name: now - view.sample_age_s for view in views if view.sample_age_s is not None}
    placed = tuple(
        _placed(pod, shapes, sampled.get(pod.spec.node_name), lag_s)
        for pod in pods
        if pod.spec.node_name and pod.status.phase not in ("Succeeded", "Failed")
    )
    return assemble(views, placed, shapes, now=now, failures=failures or {}, max_sample_age_s=max_sample_age_s)


def _node(node: Node, load: NodeLoad | None, now: float) -> NodeView:
    """The node digested; one that holds nonsense takes no pods, and does not stop the others from taking some."""
    try:
        return node_view(node, load, now)
    except InvalidError as error:
        return NodeView(node.metadata.name, node.metadata.labels, "NotReady", str(error))


def _placed(pod: Pod, shapes: Shapes, sampled_at: float | None, lag_s: float) -> PodView:
    """The pod digested; one that holds nonsense (a newer korch's, perhaps) counts as a pod that asks for nothing."""
    try:
        return pod_view(pod, shapes, sampled_at, lag_s)
    except InvalidError:
        return pod_view(
            msgspec.structs.replace(pod, spec=PodSpec(node_name=pod.spec.node_name)), shapes, sampled_at, lag_s
        )


def node_view(node: Node, load: NodeLoad | None, now: float) -> NodeView:
    """One node digested; what neither its status nor its sample says stays at "unknown" or zero."""
    status, name, info = node.status, node.metadata.name, node.status.node_info
    state, message = _state(node)
    labels = {HOSTNAME: name, "kubernetes.io/os": "linux", **node.metadata.labels}
    if info.architecture:
        labels.setdefault(ARCH, info.architecture)
    view = NodeView(
        name=name,
        labels=labels,
        state=state,
        state_message=message,
        cordoned=node.spec.unschedulable,
        taints=node.spec.taints,
        images=frozenset(image_name(n) for image in status.images for n in image.names),
        image_bytes={
            image_name(n): image.size_bytes for image in status.images if image.size_bytes for n in image.names
        },
        volumes=frozenset() if GONE & node.metadata.annotations.keys() else frozenset(status.volumes_in_use),
        arch=labels.get(ARCH, ""),
    )
    sample = load or NodeLoad()
    totals = {"cpu": str(sample.cpu_count), "memory": str(sample.memory_total_bytes), **status.capacity}
    allocatable = {**totals, **status.allocatable}
    view = replace(
        view,
        cpu_millis=cpu_millis(allocatable["cpu"]),
        memory_bytes=memory_bytes(allocatable["memory"]),
        max_pods=int(parse_quantity(allocatable.get("pods", DEFAULT_MAX_PODS))),
        capacity_cpu_millis=(sample.cpu_count * 1000 if load else cpu_millis(totals["cpu"])) or 1000,
    )
    return _with_sample(view, load, now) if load and load.sampled_at else view


def _with_sample(view: NodeView, load: NodeLoad, now: float) -> NodeView:
    busy = load.cpu_busy if load.cpu_busy_smoothed is None else load.cpu_busy_smoothed
    if busy is None:
        busy = min(1.0, load.load1 / max(1, load.cpu_count))
    return replace(
        view,
        busy=busy,
        memory_total_bytes=load.memory_total_bytes,
        memory_available_bytes=load.memory_available_bytes if load.memory_total_bytes else None,
        disk_total_bytes=load.disk_total_bytes,
        disk_free_bytes=load.disk_free_bytes,
        pressure=max(load.pressure_cpu or 0.0, load.pressure_memory or 0.0, load.pressure_io or 0.0),
        sample_age_s=max(0.0, now - parse_time(load.sampled_at or "")),
    )


def _state(node: Node) -> tuple[str, str]:
    """The state's name and message: the reason of condition Ready, unless another condition refuses work."""
    ready = next((c for c in node.status.conditions if c.type == "Ready"), None)
    if ready is None:
        return "NotSeen", "never contacted"
    unknown_address = ready.reason == "AddressUnknown"  # says no to ports only, so anything worse goes first
    if ready.status != "True" and not unknown_address:
        return ready.reason or "NotReady", ready.message
    for condition in node.status.conditions:
        if condition.status == "True" and condition.type in ("DiskPressure", "MemoryPressure"):
            return condition.type, condition.message
    return (ready.reason, ready.message) if unknown_address else ("Ready", "")


def pod_view(pod: Pod, shapes: Shapes, sampled_at: float | None = None, lag_s: float = 10.0) -> PodView:
    """One pod digested."""
    meta = pod.metadata
    return PodView(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        created=meta.creation_timestamp or "",
        shape=shapes.of(pod),
        node=pod.spec.node_name,
        hidden=not pod.spec.node_name or _is_hidden(pod, sampled_at, lag_s),
        leaving=meta.deletion_timestamp is not None,
    )


def _is_hidden(pod: Pod, sampled_at: float | None, lag_s: float) -> bool:
    """Whether the sample was taken before the pod had run for `lag_s`.

    Until then all of its expected load is added: counting some of it twice for a moment is better than sending the next
    pods to a node that only looks idle.
    """
    started = pod.status.start_time
    for status in pod.status.container_statuses:
        if status.state.running and status.state.running.started_at:
            started = status.state.running.started_at
            break
    if started is None:
        return pod.status.phase != "Running"
    if sampled_at is None:
        return False
    try:
        return sampled_at - parse_time(started) < lag_s
    except InvalidError:
        return False  # an engine's odd clock text; the pod runs, so its load is in the sample


def assemble(
    nodes: tuple[NodeView, ...],
    placed: tuple[PodView, ...],
    shapes: Shapes,
    *,
    now: float,
    failures: Mapping[tuple[str, str], int],
    max_sample_age_s: float,
) -> Snapshot:
    """A snapshot from views, with the sums. `nodes` must be sorted by name."""
    index = {node.name: i for i, node in enumerate(nodes)}
    on_node: list[list[PodView]] = [[] for _ in nodes]
    by_shape: dict[Shape, dict[int, int]] = {}
    leaving: dict[Shape, dict[int, int]] = {}
    for pod in placed:
        i = index.get(pod.node)
        if i is None:
            continue  # its node is no longer known: it holds nothing that we could give away
        on_node[i].append(pod)
        for counts in (by_shape, leaving) if pod.leaving else (by_shape,):
            per_node = counts.setdefault(pod.shape, {})
            per_node[i] = per_node.get(i, 0) + 1
    return Snapshot(
        nodes=nodes,
        placed=placed,
        now=now,
        max_sample_age_s=max_sample_age_s,
        failures=failures,
        shapes=shapes,
        usage=tuple(_usage(pods) for pods in on_node),
        by_shape=by_shape,
        leaving_by_shape=leaving,
    )


def _usage(pods: Sequence[PodView]) -> Usage:
    """Sums in whole numbers, so that the order of pods cannot matter."""
    cpu = memory = hidden_cpu = hidden_memory = promised = 0
    ports: set[tuple[str, int, str]] = set()
    for pod in pods:
        shape = pod.shape
        cpu += shape.cpu_millis
        memory += shape.memory_bytes
        if pod.hidden:
            hidden_cpu += shape.expected_cpu_millis
            hidden_memory += shape.expected_memory_bytes
            promised += shape.memory_bytes
        if shape.ports:
            ports.update(port_marks(shape))
    return Usage(cpu, memory, len(pods), hidden_cpu, hidden_memory, promised, frozenset(ports))


def port_marks(shape: Shape) -> Iterable[tuple[str, int, str]]:
    """What a pod with host ports leaves on a node: each port with its address, and once with "*" for any address."""
    for port in shape.ports:
        yield (port.protocol, port.port, port.ip)
        yield (port.protocol, port.port, "*")


def port_taken(shape: Shape, used: frozenset[tuple[str, int, str]]) -> str:
    """The first wanted port that is in use, as `8080/TCP`, or "". A port on every address collides with any address."""
    for port in shape.ports:
        wanted = (port.protocol, port.port, port.ip or "*")
        if wanted in used or (port.protocol, port.port, "") in used:
            return f"{port.port}/{port.protocol}"
    return ""
