"""The columns of `korch get`, kind by kind, with kubectl's names and words. Pure: objects and a time in, cells out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from korch.cli.output import age, headline
from korch.resources.codec import to_dict
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.kinds import Kind, kind_of_type
from korch.resources.meta import LabelSelector, Object
from korch.resources.misc import Event, Lease, Namespace, Secret
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Container, ContainerPort, ContainerStatus, Pod
from korch.resources.podstate import condition
from korch.resources.quantity import human_bytes
from korch.resources.selectors import selector_text
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

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
    """One word for a pod's state, found as kubectl finds it: the most telling reason of its containers."""
    status = pod.status
    word = status.reason or status.phase or "Pending"
    initial = _init_reason(pod)
    if initial:
        word = initial
    else:
        for container in reversed(status.container_statuses):
            word = _container_reason(container) or word
        running = any(container.state.running and container.ready for container in status.container_statuses)
        if word == "Completed" and running:
            word = "Running" if _is_ready(pod) else "NotReady"
    if pod.metadata.deletion_timestamp is not None and status.phase not in {"Succeeded", "Failed"}:
        return "Unknown" if status.reason == "NodeLost" else "Terminating"
    return word


def _container_reason(status: ContainerStatus) -> str:
    state = status.state
    if state.waiting is not None:
        return state.waiting.reason
    if state.terminated is not None:
        ended = state.terminated
        return ended.reason or (f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exit_code}")
    return ""


def _init_reason(pod: Pod) -> str:
    """`Init:0/2`, `Init:Error`... while an init container is not through, else ""."""
    total = len(pod.spec.init_containers)
    for index, status in enumerate(pod.status.init_container_statuses):
        ended = status.state.terminated
        if ended is not None and ended.exit_code == 0:
            continue
        reason = _container_reason(status)
        return f"Init:{reason}" if reason and reason != "PodInitializing" else f"Init:{index}/{total}"
    return ""


def _is_ready(pod: Pod) -> bool:
    found = condition(pod.status.conditions, "Ready")
    return found is not None and found.status == "True"


def ready_count(pod: Pod) -> str:
    """`1/2`: containers that are ready, of how many; none is on a node that is lost."""
    lost = pod.status.reason == "NodeLost"
    return f"{0 if lost else sum(s.ready for s in pod.status.container_statuses)}/{len(pod.spec.containers)}"


def pod_restarts(pod: Pod, now: float) -> str:
    """`0`, or `3 (5m ago)` with the time of the last one."""
    statuses = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    count = sum(status.restart_count for status in statuses)
    ends = [s.last_state.terminated.finished_at for s in statuses if s.last_state.terminated is not None]
    last = max((end for end in ends if end), default="")
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


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
    return (
        pod.metadata.name,
        ready_count(pod),
        pod_status(pod),
        pod_restarts(pod, now),
        age(pod.metadata.creation_timestamp, now),
        pod.status.pod_ip or NONE,
        pod.spec.node_name or NONE,
        pod_ports(pod),
    )


# --- workloads ---


def _template(containers: Sequence[Container], selector: LabelSelector) -> tuple[object, ...]:
    names = ",".join(container.name for container in containers)
    return names, ",".join(container.image for container in containers), selector_text(selector) or NONE


def _deployment(obj: Deployment, now: float) -> tuple[object, ...]:
    status = obj.status
    return (
        obj.metadata.name,
        f"{status.ready_replicas}/{obj.spec.replicas if obj.spec.replicas is not None else 1}",
        status.updated_replicas,
        status.available_replicas,
        age(obj.metadata.creation_timestamp, now),
        *_template(obj.spec.template.spec.containers, obj.spec.selector),
    )


def _replicaset(obj: ReplicaSet, now: float) -> tuple[object, ...]:
    return (
        obj.metadata.name,
        obj.spec.replicas if obj.spec.replicas is not None else 1,
        obj.status.replicas,
        obj.status.ready_replicas,
        age(obj.metadata.creation_timestamp, now),
        *_template(obj.spec.template.spec.containers, obj.spec.selector),
    )


def _daemonset(obj: DaemonSet, now: float) -> tuple[object, ...]:
    status, spec = obj.status, obj.spec.template.spec
    return (
        obj.metadata.name,
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled,
        status.number_available,
        ",".join(f"{key}={value}" for key, value in sorted(spec.node_selector.items())) or NONE,
        age(obj.metadata.creation_timestamp, now),
        *_template(spec.containers, obj.spec.selector),
    )


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


def node_address(node: Node, type_: str = "InternalIP") -> str:
    """The node's address of one type, or ""."""
    return next((found.address for found in node.status.addresses if found.type == type_), "")


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
    return event.last_timestamp or event.first_timestamp or event.metadata.creation_timestamp or ""


def event_age(event: Event, now: float) -> str:
    """`5m`, or `5m (x12 over 3h)` when it happened again and again."""
    last = age(event_time(event), now)
    return f"{last} (x{event.count} over {age(event.first_timestamp, now)})" if event.count > 1 else last


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
        event.source.component or NONE,
        age(event.first_timestamp, now),
        event.count,
        event.metadata.name,
    )


def _secret(secret: Secret, now: float) -> tuple[object, ...]:
    return secret.metadata.name, secret.type or "Opaque", len(secret.data), age(secret.metadata.creation_timestamp, now)


def _namespace(obj: Namespace, now: float) -> tuple[object, ...]:
    going = obj.metadata.deletion_timestamp is not None
    word = "Terminating" if going else obj.status.phase or "Active"
    return obj.metadata.name, word, age(obj.metadata.creation_timestamp, now)


def _lease(lease: Lease, now: float) -> tuple[object, ...]:
    return lease.metadata.name, lease.spec.holder_identity or NONE, age(lease.metadata.creation_timestamp, now)


_TEMPLATE = ("CONTAINERS", "IMAGES", "SELECTOR")
_COLUMNS: dict[type[Object], Columns] = {
    Pod: Columns(("NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "PORTS"), _pod, wide=3),
    Deployment: Columns(("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", *_TEMPLATE), _deployment, wide=3),
    ReplicaSet: Columns(("NAME", "DESIRED", "CURRENT", "READY", "AGE", *_TEMPLATE), _replicaset, wide=3),
    DaemonSet: Columns(
        (
            *("NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "AGE"),
            *_TEMPLATE,
        ),
        _daemonset,
        wide=3,
    ),
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
    Secret: Columns(("NAME", "TYPE", "DATA", "AGE"), _secret),
    Namespace: Columns(("NAME", "STATUS", "AGE"), _namespace),
    Lease: Columns(("NAME", "HOLDER", "AGE"), _lease),
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
