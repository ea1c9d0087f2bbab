"""What a host's inventory entry and a look at it make of its Node and NodeLoad objects. Pure."""

from collections.abc import Mapping

from msgspec.structs import replace

from korch import __version__
from korch.engines.images import ImageInfo
from korch.engines.wish import EngineName
from korch.errors import (
    CommandFailedError,
    HostRefusedError,
    HostUnreachableError,
    InvalidError,
    KorchError,
    NotRespondingError,
    SetupError,
    StoreError,
    TransientError,
)
from korch.inventory.hostnames import node_name
from korch.inventory.model import Host
from korch.nodes.facts import Facts, cpu_busy
from korch.nodes.news import Sample
from korch.nodes.report import NodeReport
from korch.resources.annotations import GONE, MASS_LOSS
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.node import (
    ContainerImage,
    Node,
    NodeAddress,
    NodeLoad,
    NodeStatus,
    NodeSystemInfo,
    Taint,
)
from korch.resources.podstate import with_condition
from korch.resources.quantity import cpu_millis, format_cpu, memory_bytes
from korch.resources.times import parse_time, rfc3339
from korch.scheduler.taints import NOT_READY, UNREACHABLE

ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"
OWN_LABELS = "korch.dev/inventory-labels"  # annotation: label keys that came from the inventory
OWN_TAINTS = "korch.dev/inventory-taints"  # annotation: taints that did
HOST = "korch.dev/host"  # annotation: the name in the inventory
ENGINE_SAID = "korch.dev/engine"  # annotation: NAME WHEN LINE, from the last full look
KNOWN_FOR_S = 600.0
CPU_WINDOW_S = 60.0
_LEAST_AGE_S = 2.0  # half a second is enough for a difference; on record are whole ones
CLAIM_TOKEN = "korch.dev/machine"  # noqa: S105  annotation: the machine's token; two nodes never share one
NOT_IN_INVENTORY = "NotInInventory"
_PRESSURES = ("DiskPressure", "MemoryPressure")
SMOOTHING = 0.4  # weight of a new CPU sample that comes SMOOTHED_OVER_S after the one before
SMOOTHED_OVER_S = 10.0
MAX_IMAGES = 50  # as in Kubernetes' node status


def parse_taint(text: str) -> Taint:
    """`key=value:Effect` or `key:Effect` (the inventory has checked it)."""
    left, _, effect = text.rpartition(":")
    key, _, value = left.partition("=")
    return Taint(key=key, value=value, effect=effect)


def noted(node: Node, report: NodeReport, now: float) -> Node:
    """The Node with what is kept for later looks: the machine's token, and what its engine said about itself."""
    notes = dict(node.metadata.annotations)
    if report.machine_token:
        notes[CLAIM_TOKEN] = report.machine_token
    if report.full and report.engine.said and report.uid == 0:  # others may need sudo, which a look finds out
        since = now // (KNOWN_FOR_S / 2) * (KNOWN_FOR_S / 2)  # rounded, so that looks in a row write nothing
        notes[ENGINE_SAID] = f"{report.engine.name} {since:.0f} {report.engine.said}"
    elif report.engine.state != "Ready" or report.uid:
        notes.pop(ENGINE_SAID, None)
    return replace(node, metadata=replace(node.metadata, annotations=notes))


def known_engine(node: Node | None, now: float) -> tuple[EngineName, str] | None:
    """The engine and its words of at most some minutes ago; None when it should be asked again."""
    words = node.metadata.annotations.get(ENGINE_SAID, "").split(" ", 2) if node else []
    if len(words) != 3 or not words[1].isdigit() or not 0 <= now - int(words[1]) < KNOWN_FOR_S:
        return None
    return ("podman" if words[0] == "podman" else "docker"), words[2]


def with_images(status: NodeStatus, fetched: Mapping[str, ImageInfo]) -> NodeStatus:
    """The status with images that came since the last full look, by reference; the newest first."""
    known = {name for image in status.images for name in image.names}
    new = (
        ContainerImage(names=(name,), size_bytes=info.size_bytes) for name, info in fetched.items() if name not in known
    )
    return replace(status, images=(*new, *status.images)[:MAX_IMAGES])


def new_node(host: Host) -> Node:
    """The Node of a host that was never seen."""
    return declared_node(host, Node(metadata=ObjectMeta(name=node_name(host.name))))


def declared_node(host: Host, node: Node) -> Node:
    """The Node with what the inventory says; labels and taints that people set otherwise stay."""
    notes = node.metadata.annotations
    labels = {
        key: value for key, value in node.metadata.labels.items() if key not in notes.get(OWN_LABELS, "").split(",")
    }
    declared = {**host.labels, HOSTNAME: node.metadata.name, **({ZONE: host.zone} if host.zone else {})}
    earlier = {parse_taint(text) for text in notes.get(OWN_TAINTS, "").split(",") if text}
    taints = [taint for taint in node.spec.taints if taint not in earlier]
    ours = [parse_taint(text) for text in host.taints]
    meta = replace(
        node.metadata,
        labels={**labels, **declared},
        annotations={
            **notes,
            OWN_LABELS: ",".join(sorted(declared)),
            OWN_TAINTS: ",".join(host.taints),
            HOST: host.name,
        },
    )
    spec = replace(node.spec, taints=(*taints, *(taint for taint in ours if taint not in taints)))
    return replace(node, metadata=meta, spec=spec)


def well_again(node: Node) -> Node | None:
    """The node without what a loss, or an engine that was down, left on it; None when there is nothing."""
    notes = {key: text for key, text in node.metadata.annotations.items() if key not in {MASS_LOSS, *GONE}}
    taints = tuple(taint for taint in node.spec.taints if taint.key not in {UNREACHABLE, NOT_READY})
    if len(notes) == len(node.metadata.annotations) and len(taints) == len(node.spec.taints):
        return None
    return replace(node, metadata=replace(node.metadata, annotations=notes), spec=replace(node.spec, taints=taints))


def without_inventory(node: Node, now: float) -> NodeStatus:
    """The status of a node that the inventory no longer has: it is not lost, it only takes nothing new."""
    return not_ready(
        node,
        NOT_IN_INVENTORY,
        "the inventory has it no more; remove it for good with `korch node rm`",
        now,
        unknown=False,
    )


def not_ready(node: Node, reason: str, message: str, now: float, *, unknown: bool) -> NodeStatus:
    """The status of a node that takes no pods. `unknown`: nobody knows what goes on there."""
    found = Condition(type="Ready", status="Unknown" if unknown else "False", reason=reason, message=message)
    return replace(node.status, conditions=with_condition(node.status.conditions, found, rfc3339(now)))


def failed_status(node: Node, error: KorchError, now: float) -> NodeStatus:
    """The status of a node that could not be looked at."""
    text = f"{error}" + (f" {error.hint}" if error.hint else "")
    return not_ready(node, state_of(error), text, now, unknown=isinstance(error, TransientError))


def state_of(error: KorchError) -> str:
    """The state of a node that could not be looked at for this error."""
    if isinstance(error, HostRefusedError | NotRespondingError):
        return error.reason
    if isinstance(error, TransientError):
        return HostUnreachableError.reason
    kinds = (InvalidError, SetupError, StoreError, CommandFailedError, KorchError)
    return next(kind.reason for kind in kinds if isinstance(error, kind))


def seen_status(node: Node, host: Host, report: NodeReport, address: str | None, now: float) -> NodeStatus:
    """The status of a node that was looked at by this cluster."""
    facts = report.facts
    engine = f"{report.engine.name}://{report.engine.version}" if report.engine.name else ""
    status = replace(
        node.status,
        capacity=_capacity(host, report),
        allocatable=_allocatable(host, report),
        addresses=_addresses(node, host, address),
        node_info=NodeSystemInfo(
            machine_id=facts.machine_id,
            boot_id=facts.boot_id,
            kernel_version=facts.kernel,
            os_image=facts.os_image,
            container_runtime_version=engine,
            kubelet_version=f"v{__version__}",
            operating_system="linux",
            architecture=report.arch,
        ),
    )
    if report.full:  # a quick look leaves them as they were
        images = (
            ContainerImage(names=image.names, size_bytes=image.size_bytes) for image in report.images[:MAX_IMAGES]
        )
        status = replace(status, images=tuple(images), volumes_in_use=report.volumes)
    conditions = status.conditions
    for condition in _conditions(report, address):
        conditions = with_condition(conditions, condition, rfc3339(now))
    return replace(status, conditions=conditions)


def _conditions(report: NodeReport, address: str | None) -> tuple[Condition, ...]:
    text = f"{report.message}. {report.hint}".strip()
    found = [
        Condition(
            type=name,
            status="True" if report.state == name else "False",
            reason=name if report.state == name else "Enough",
            message=text if report.state == name else "",
        )
        for name in _PRESSURES
    ]
    if report.state != "Ready" and report.state not in _PRESSURES:
        return (Condition(type="Ready", status="False", reason=report.state, message=text), *found)
    if address is None:
        own = ", ".join(ip.address for ip in report.addresses) or "none"
        text = f"which of its addresses others can reach is not clear ({own}): set korch_address in the inventory"
        return (Condition(type="Ready", status="True", reason="AddressUnknown", message=text), *found)
    return (Condition(type="Ready", status="True", reason="Ready", message="the engine answers"), *found)


def _capacity(host: Host, report: NodeReport) -> dict[str, str]:
    return {
        "cpu": str(report.facts.cpu_count),
        "memory": str(report.facts.memory_total_bytes),
        "ephemeral-storage": str(report.disk_total_bytes),
        "pods": str(host.max_pods or 110),
    }


def _allocatable(host: Host, report: NodeReport) -> dict[str, str]:
    """Capacity without what the inventory reserves for the host itself."""
    capacity = _capacity(host, report)
    cpu = report.facts.cpu_count * 1000 - cpu_millis(host.reserved.get("cpu", "0"))
    memory = report.facts.memory_total_bytes - memory_bytes(host.reserved.get("memory", "0"))
    return {**capacity, "cpu": format_cpu(max(0, cpu)), "memory": str(max(0, memory))}


def _addresses(node: Node, host: Host, address: str | None) -> tuple[NodeAddress, ...]:
    found = [NodeAddress(type="Hostname", address=node.metadata.name)]
    if address is not None:
        found.insert(0, NodeAddress(type="InternalIP", address=address))
    if host.connection == "ssh":
        found.append(NodeAddress(type="ExternalIP", address=host.address))
    return tuple(found)


def begins_difference(stored: NodeLoad | None, now: float) -> bool:
    """Whether the CPU's use since the stored sample is the use now: the node need not be watched for half a second."""
    age_s = _age_s(stored, now)
    if stored is None or stored.cpu_ticks is None or age_s is None:
        return False
    return _LEAST_AGE_S <= age_s <= CPU_WINDOW_S


def load_of(name: str, report: NodeReport, old: NodeLoad | None, now: float, *, boot_id: str = "") -> NodeLoad:
    """The node's newest sample; CPU use is smoothed over time. `boot_id`: of the boot in which `old` was read."""
    begun = old if not boot_id or boot_id == report.facts.boot_id else None
    busy = report.cpu_busy if report.cpu_busy is not None else busy_since(begun, report.facts, now)
    offset = report.clock_offset_s
    return replace(
        _load(name, report.facts, busy, old, now),
        disk_total_bytes=report.disk_total_bytes,
        disk_free_bytes=report.disk_free_bytes,
        clock_offset_seconds=None if offset is None else round(offset, 3),
    )


def load_of_sample(name: str, sample: Sample, old: NodeLoad | None, now: float) -> NodeLoad:
    """The same from a session: CPU use is what was busy since `old`, and the clock's offset stays as it was."""
    load = _load(name, sample.facts, busy_since(old, sample.facts, now), old, now)
    if not sample.disk_total_bytes:
        return load
    return replace(load, disk_total_bytes=sample.disk_total_bytes, disk_free_bytes=sample.disk_free_bytes)


def busy_since(old: NodeLoad | None, facts: Facts, now: float) -> float | None:
    """The busy share since `old`; None when that was long ago, in another boot, or just now."""
    age_s = _age_s(old, now)
    if old is None or age_s is None or age_s > CPU_WINDOW_S or 0.0 < facts.uptime_s < age_s:
        return None
    return cpu_busy(old.cpu_ticks, facts.cpu_ticks, facts.cpu_count)


def _age_s(old: NodeLoad | None, now: float) -> float | None:
    """How old a stored sample is; None when nobody can tell, as after a step back of the clock."""
    if old is None or old.sampled_at is None:
        return None
    age_s = now - parse_time(old.sampled_at)
    return age_s if age_s >= 0.0 else None


def _smoothed(busy: float | None, facts: Facts, old: NodeLoad | None, now: float) -> float | None:
    """What went before fades with time. Where no difference tells the use since then, the load average does."""
    before = old.cpu_busy_smoothed if old else None
    if before is None:
        return busy
    age_s = _age_s(old, now)
    if busy is None and age_s is not None and age_s < _LEAST_AGE_S:
        return before
    latest = min(1.0, facts.load[0] / facts.cpu_count) if busy is None else busy
    weight = 1.0 if age_s is None else 1.0 - (1.0 - SMOOTHING) ** (age_s / SMOOTHED_OVER_S)
    return weight * latest + (1.0 - weight) * before


def _load(name: str, facts: Facts, busy: float | None, old: NodeLoad | None, now: float) -> NodeLoad:
    smoothed = _smoothed(busy, facts, old, now)
    return replace(
        old or NodeLoad(metadata=ObjectMeta(name=name)),
        sampled_at=rfc3339(now),
        load1=facts.load[0],
        load5=facts.load[1],
        load15=facts.load[2],
        cpu_count=facts.cpu_count,
        cpu_busy=None if busy is None else round(busy, 4),
        cpu_busy_smoothed=None if smoothed is None else round(smoothed, 4),
        cpu_ticks=facts.cpu_ticks,
        memory_total_bytes=facts.memory_total_bytes,
        memory_available_bytes=facts.memory_available_bytes,
        pressure_cpu=facts.pressure_cpu,
        pressure_memory=facts.pressure_memory,
        pressure_io=facts.pressure_io,
    )
