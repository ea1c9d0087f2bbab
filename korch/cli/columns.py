"""The columns of `korch get`, where it shows more than kubectl does; of all other kinds, those of the API's tables.

Pure: objects and a time in, cells out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from korch.api.wire import podcells
from korch.api.wire.podcells import pod_word
from korch.cli.output import age, headline
from korch.resources.codec import to_dict
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.kinds import Kind, kind_of_type
from korch.resources.meta import Object
from korch.resources.misc import Event
from korch.resources.node import Node, NodeLoad, node_address
from korch.resources.pod import ContainerPort, Pod
from korch.resources.podstate import condition
from korch.resources.quantity import human_bytes
from korch.resources.selectors import selector_text

NONE = "<none>"
UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class Columns:
    """Headers and cells of one kind; the last `wide` columns belong to `-o wide` only."""

    headers: tuple[str, ...]
    cells: Callable[[Any, float], tuple[object, ...]]
    wide: int = 0

    def of(self, objects: Sequence[Object], now: float, *, wide: bool) -> tuple[tuple[str, ...], list[list[object]]]:
        """Headers and rows."""
        end = len(self.headers) if wide else len(self.headers) - self.wide
        return self.headers[:end], [list(self.cells(obj, now)[:end]) for obj in objects]


# --- pods ---


def pod_status(pod: Pod) -> str:
    """One word for a pod's state, as the API's tables have it."""
    return pod_word(to_dict(pod))


def ready_count(pod: Pod) -> str:
    """`1/2`: containers that are ready, of how many; none is on a node that is lost."""
    return podcells.ready_count(to_dict(pod))


def published_ports(pod: Pod) -> list[ContainerPort]:
    """The ports that containers listen on, each as published: as the node's engine says, else as wished."""
    wished = [port for container in pod.spec.containers for port in container.ports]
    found = {(port.container_port, port.protocol or "TCP"): port for port in wished}
    for port in (port for status in pod.status.container_statuses for port in status.published):
        if ":" not in port.host_ip or ":" in pod.status.host_ip:  # Docker lists its IPv6 half too
            found[port.container_port, port.protocol or "TCP"] = port
    return list(found.values())


def pod_ports(pod: Pod) -> str:
    """`10.0.0.5:8080->80/tcp`, comma-separated; unpublished ports without the left part."""
    found = []
    for port in published_ports(pod):
        inside = f"{port.container_port}/{(port.protocol or 'TCP').lower()}"
        where = port.host_ip if port.host_ip not in {"", "0.0.0.0", "::"} else pod.status.host_ip  # noqa: S104
        outside = f"{where}:{port.host_port}" if where else str(port.host_port)
        found.append(f"{outside}->{inside}" if port.host_port else inside)
    return ",".join(found) or NONE


def _pod(pod: Pod, now: float) -> tuple[object, ...]:
    plain = to_dict(pod)
    return (
        pod.metadata.name,
        podcells.ready_count(plain),
        pod_word(plain),
        podcells.restarts(plain, now),
        age(pod.metadata.creation_timestamp, now),
        pod.status.pod_ip or NONE,
        pod.spec.node_name or NONE,
        pod_ports(pod),
    )


# --- budgets ---


def _budget(obj: PodDisruptionBudget, now: float) -> tuple[object, ...]:
    spec, status = obj.spec, obj.status
    return (
        obj.metadata.name,
        "N/A" if spec.min_available is None else spec.min_available,
        "N/A" if spec.max_unavailable is None else spec.max_unavailable,
        status.disruptions_allowed,
        age(obj.metadata.creation_timestamp, now),
        f"{status.current_healthy}/{status.expected_pods}",
        (selector_text(spec.selector) if spec.selector else "") or NONE,
    )


# --- nodes ---


def node_state(node: Node) -> str:
    """The node's state in one word: Ready, Cordoned, DiskPressure, or why it is not ready (Unreachable...)."""
    ready = condition(node.status.conditions, "Ready")
    if ready is None:
        return "Unknown"
    if ready.status != "True" or ready.reason == "AddressUnknown":
        return ready.reason or "NotReady"
    for pressure in ("DiskPressure", "MemoryPressure"):
        found = condition(node.status.conditions, pressure)
        if found is not None and found.status == "True":
            return pressure
    return "Cordoned" if node.spec.unschedulable else "Ready"


def _node_status(node: Node) -> str:
    """kubectl's words, and why a node is not ready."""
    ready = condition(node.status.conditions, "Ready")
    if ready is None:
        word = "Unknown"
    elif ready.status == "True":
        word = "Ready"
    else:
        word = f"NotReady({ready.reason})" if ready.reason else "NotReady"
    return f"{word},SchedulingDisabled" if node.spec.unschedulable else word


def _node(node: Node, now: float) -> tuple[object, ...]:
    info = node.status.node_info
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in node.metadata.labels if key.startswith(prefix))
    return (
        node.metadata.name,
        _node_status(node),
        ",".join(roles) or NONE,
        age(node.metadata.creation_timestamp, now),
        info.kubelet_version or NONE,
        node_address(node) or NONE,
        node_address(node, "ExternalIP") or NONE,
        info.os_image or NONE,
        info.kernel_version or NONE,
        info.container_runtime_version or NONE,
    )


def percent(ratio: float | None) -> str:
    """`42%`, or a dash where it is not known."""
    return UNKNOWN if ratio is None else f"{ratio * 100:.0f}%"


def memory_ratio(load: NodeLoad) -> float | None:
    """How much of the memory is in use, 0..1."""
    total = load.memory_total_bytes
    return (total - load.memory_available_bytes) / total if total else None


def disk_ratio(load: NodeLoad) -> float | None:
    """How much of the engine's disk is in use, 0..1."""
    return (load.disk_total_bytes - load.disk_free_bytes) / load.disk_total_bytes if load.disk_total_bytes else None


def _nodeload(load: NodeLoad, now: float) -> tuple[object, ...]:
    return (
        load.metadata.name,
        percent(load.cpu_busy),
        percent(memory_ratio(load)),
        percent(disk_ratio(load)),
        f"{load.load1:.2f}/{load.cpu_count}",
        age(load.sampled_at, now),
        human_bytes(load.memory_available_bytes),
        human_bytes(load.disk_free_bytes),
    )


# --- the small kinds ---


def event_time(event: Event) -> str:
    """When it last happened."""
    return event.last_seen


def event_age(event: Event, now: float) -> str:
    """`5m`, or `5m (x12 over 3h)` when it happened again and again."""
    last = age(event_time(event), now)
    return f"{last} (x{event.times} over {age(event.first_seen, now)})" if event.times > 1 else last


def event_subject(event: Event) -> str:
    """`pod/web-1`: what it happened to."""
    return f"{event.involved_object.kind.lower()}/{event.involved_object.name}"


def _event(event: Event, now: float) -> tuple[object, ...]:
    return (
        age(event_time(event), now),
        event.type,
        event.reason,
        event_subject(event),
        headline(event.message),
        event.source.component or event.reporting_component or NONE,
        age(event.first_seen, now),
        event.times,
        event.metadata.name,
    )


_COLUMNS: dict[type[Object], Columns] = {
    Pod: Columns(("NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "PORTS"), _pod, wide=3),
    PodDisruptionBudget: Columns(
        (*("NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"), "HEALTHY", "SELECTOR"),
        _budget,
        wide=2,
    ),
    Node: Columns(
        (
            *("NAME", "STATUS", "ROLES", "AGE", "VERSION"),
            *("INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"),
        ),
        _node,
        wide=5,
    ),
    NodeLoad: Columns(
        ("NAME", "CPU", "MEMORY", "DISK", "LOAD1/CPUS", "SAMPLED", "MEM-FREE", "DISK-FREE"), _nodeload, 2
    ),
    Event: Columns(
        ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE", "SOURCE", "FIRST SEEN", "COUNT", "NAME"), _event, wide=4
    ),
}


def columns_of(type_: type[Object]) -> Columns:
    """The columns of a kind; those that the API shows to kubectl for one that has none of its own here."""
    return _COLUMNS.get(type_) or _as_served(kind_of_type(type_))


def _as_served(kind: Kind) -> Columns:
    """The columns of the API's tables, those for `-o wide` last."""
    from korch.api.wire.tables import table

    found = table(kind, (), now=0.0)["columnDefinitions"]
    order = sorted(range(len(found)), key=lambda index: bool(found[index]["priority"]))

    def cells(obj: Object, now: float) -> tuple[object, ...]:
        (row,) = table(kind, (to_dict(obj),), now=now, include="None")["rows"]
        return tuple(row["cells"][index] for index in order)

    wide = sum(bool(column["priority"]) for column in found)
    return Columns(tuple(found[index]["name"].upper() for index in order), cells, wide)
