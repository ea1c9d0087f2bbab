"""What `korch nodes` shows: one row a node, its cells, and the words for nodes that did not answer. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from korch.cli.columns import UNKNOWN, disk_ratio, memory_ratio, node_state, percent
from korch.cli.output import age, clean, table
from korch.resources.node import node_address
from korch.resources.podstate import condition
from korch.resources.quantity import human_bytes

if TYPE_CHECKING:
    from korch.client.base import NodeSeen
    from korch.resources.node import Node, NodeLoad
    from korch.resources.pod import Pod

ZONE = "topology.kubernetes.io/zone"
HEADERS = ("NODE", "STATE", "CPU", "MEMORY", "DISK", "LOAD1", "CPUS", "PODS", "ENGINE")
WIDE_HEADERS = ("ADDRESS", "SSH", "ZONE", "ARCH", "OS", "KERNEL", "PRESSURE", "CLOCK", "LABELS")


@dataclass(frozen=True, slots=True)
class Row:
    """One node. Ratios are 0..1; None where it is not known. `trouble` and `cure` are empty for a good one."""

    name: str
    state: str
    since: str
    cpu: float | None
    memory: float | None
    disk: float | None
    load1: float | None
    cpus: int | None
    memory_total: str
    disk_total: str
    pods: int
    engine: str
    wide: tuple[str, ...]
    trouble: str = ""
    cure: str = ""


def rows_of(seen: Iterable[NodeSeen], pods: Iterable[Pod], now: float) -> tuple[Row, ...]:
    """A row for each node, in the given order. `pods` are those of the whole cluster."""
    counts = Counter(pod.spec.node_name for pod in pods if pod.status.phase not in {"Succeeded", "Failed"})
    return tuple(_row(one, counts[one.node.metadata.name], now) for one in seen)


def _row(seen: NodeSeen, pods: int, now: float) -> Row:
    node, load = seen.node, None if seen.error else seen.load  # an old sample is no answer to "how is it now"
    ready = condition(node.status.conditions, "Ready")
    state = node_state(node)
    if seen.error is not None and state in {"Ready", "Unknown", "Cordoned"}:
        from korch.nodes.register import state_of

        state = state_of(seen.error)
    trouble, cure = _trouble(seen, state)
    return Row(
        name=node.metadata.name,
        state=state,
        since=age(ready.last_transition_time, now) if ready is not None and ready.last_transition_time else "",
        cpu=load.cpu_busy if load else None,
        memory=memory_ratio(load) if load else None,
        disk=disk_ratio(load) if load else None,
        load1=load.load1 if load else None,
        cpus=load.cpu_count if load else None,
        memory_total=human_bytes(load.memory_total_bytes) if load and load.memory_total_bytes else "",
        disk_total=human_bytes(load.disk_total_bytes) if load and load.disk_total_bytes else "",
        pods=pods,
        engine=node.status.node_info.container_runtime_version.replace("://", " ") or UNKNOWN,
        wide=_wide(node, load),
        trouble=trouble,
        cure=cure,
    )


def _trouble(seen: NodeSeen, state: str) -> tuple[str, str]:
    """Why the node takes no work, and what to do, in a line each."""
    if seen.error is not None:
        return _about(seen.node, str(seen.error)), _one_line(seen.error.hint)
    if state in {"Ready", "Cordoned"}:
        return "", f"korch node uncordon {seen.node.metadata.name}" if state == "Cordoned" else ""
    found = condition(seen.node.status.conditions, state if state.endswith("Pressure") else "Ready")
    return _about(seen.node, found.message if found is not None else ""), ""


def _about(node: Node, text: str) -> str:
    """Without the node's name in front: the line begins with it."""
    return _one_line(text).removeprefix(f"{node.metadata.name}: ")


def _one_line(text: str) -> str:
    return clean(" ".join(text.split()))


def _wide(node: Node, load: NodeLoad | None) -> tuple[str, ...]:
    info, labels = node.status.node_info, node.metadata.labels
    pressures = (load.pressure_cpu, load.pressure_memory, load.pressure_io) if load else ()
    known = any(value is not None for value in pressures)
    shown = ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if "kubernetes.io/" not in key)
    return (
        node_address(node) or UNKNOWN,
        node_address(node, "ExternalIP") or UNKNOWN,
        labels.get(ZONE) or UNKNOWN,
        info.architecture or UNKNOWN,
        info.os_image or UNKNOWN,
        info.kernel_version or UNKNOWN,
        "/".join(percent(value) for value in pressures) if known else UNKNOWN,
        _offset(load.clock_offset_seconds if load else None),
        shown or UNKNOWN,
    )


def _offset(seconds: float | None) -> str:
    """`+0.2s`, `-2h`: how far the node's clock is ahead of ours."""
    if seconds is None:
        return UNKNOWN
    for size, unit in ((3600, "h"), (60, "m")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:+.0f}{unit}"
    return f"{seconds:+.1f}s"


def plain(rows: Sequence[Row], *, wide: bool = False) -> str:
    """Stable columns for scripts and files: no bars, no colours."""
    cells = [
        (
            *(row.name, row.state, percent(row.cpu), percent(row.memory), percent(row.disk)),
            UNKNOWN if row.load1 is None else f"{row.load1:.2f}",
            UNKNOWN if row.cpus is None else row.cpus,
            *(row.pods, row.engine),
            *(row.wide if wide else ()),
        )
        for row in rows
    ]
    return table(cells, (*HEADERS, *(WIDE_HEADERS if wide else ())))


def troubles(rows: Iterable[Row], *, arrow: str = "->") -> tuple[str, ...]:
    """For each node that takes no work: a line why, and a line what to do about it."""
    lines: list[str] = []
    for row in rows:
        if row.state == "Ready":
            continue
        since = f" for {row.since}" if row.since not in {"", "0s"} else ""
        lines.append(f"{row.name}: {row.state}{since}" + (f": {row.trouble}" if row.trouble else ""))
        if row.cure:
            lines.append(f"  {arrow} {row.cure}")
    return tuple(lines)


def as_data(seen: Iterable[NodeSeen], rows: Iterable[Row]) -> dict[str, Any]:
    """For `-o json|yaml`: the objects as they are, with state, pods and error beside them."""
    from korch.resources.codec import to_dict

    items = [
        {
            "name": row.name,
            "state": row.state,
            "pods": row.pods,
            "error": None
            if one.error is None
            else {"reason": one.error.reason, "message": str(one.error), "hint": one.error.hint},
            "load": None if one.load is None else to_dict(one.load),
            "node": to_dict(one.node),
        }
        for one, row in zip(seen, rows, strict=True)
    ]
    return {"kind": "NodeSurvey", "items": items}
