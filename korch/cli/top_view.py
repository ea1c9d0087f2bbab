"""The tables of `korch top`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from korch.cli.columns import UNKNOWN, percent
from korch.cli.output import clean, table
from korch.resources.quantity import cpu_millis, human_bytes, memory_bytes

if TYPE_CHECKING:
    from korch.cli.nodes_view import Row
    from korch.client.base import ContainerUsage, NodeUsage
    from korch.resources.pod import Container, Pod

_BAR = 10
_STEPS = "▁▂▃▄▅▆▇█"
_PLAIN_STEPS = "_.-=+*#@"


def sparkline(values: Sequence[float], *, fancy: bool = True) -> str:
    """One character a sample of 0..1."""
    steps = _STEPS if fancy else _PLAIN_STEPS
    return "".join(steps[min(len(steps) - 1, int(min(max(value, 0.0), 1.0) * len(steps)))] for value in values)


def bar_text(ratio: float | None, *, fancy: bool) -> str:
    """`████░░░░░░  42%`; a dash where nothing is known."""
    if ratio is None:
        return UNKNOWN if fancy else "-"
    full, empty = ("█", "░") if fancy else ("#", ".")
    filled = round(min(max(ratio, 0.0), 1.0) * _BAR)
    return f"{full * filled}{empty * (_BAR - filled)} {percent(ratio):>4}"


def nodes_text(rows: Iterable[Row], history: Mapping[str, Sequence[Mapping[str, float]]], *, fancy: bool) -> str:
    """The hosts, the busiest first, each with the CPU of its last samples."""
    ordered = sorted(rows, key=lambda row: (row.cpu is None, -(row.cpu or 0.0), row.name))
    cells = [
        (
            row.name,
            row.state,
            bar_text(row.cpu, fancy=fancy),
            sparkline([one["cpu"] for one in history.get(row.name, ()) if "cpu" in one], fancy=fancy),
            bar_text(row.memory, fancy=fancy),
            "-" if row.load1 is None else f"{row.load1:.2f}/{row.cpus}",
            row.pods,
        )
        for row in ordered
    ]
    return (
        table(cells, ("NODE", "STATE", "CPU", "LATELY", "MEMORY", "LOAD1/CPUS", "PODS"))
        or "The inventory has no hosts."
    )


@dataclass(frozen=True, slots=True)
class PodRow:
    """One container. Requests and limits are None where it has none, uses where they are not known."""

    namespace: str
    name: str
    container: str
    node: str
    cpu: int | None
    cpu_request: int | None
    cpu_limit: int | None
    memory: int | None
    memory_request: int | None
    memory_limit: int | None


def pod_rows(pods: Iterable[Pod], usage: Iterable[NodeUsage], *, by_memory: bool) -> tuple[PodRow, ...]:
    """The containers of pods that have a node, the hungriest first; what is not known comes last."""
    known = {(one.uid, one.container): one for node in usage for one in node.containers}
    rows = []
    for pod in pods:
        if not pod.spec.node_name or pod.status.phase in {"Succeeded", "Failed"}:
            continue
        for container in pod.spec.containers:
            used = known.get((pod.metadata.uid, container.name))
            rows.append(_pod_row(pod, container, used))

    def hunger(row: PodRow) -> tuple[bool, int, str, str, str]:
        value = row.memory if by_memory else row.cpu
        return (value is None, -(value or 0), row.namespace, row.name, row.container)

    return tuple(sorted(rows, key=hunger))


def _pod_row(pod: Pod, container: Container, used: ContainerUsage | None) -> PodRow:
    asked, most = container.resources.requests, container.resources.limits
    return PodRow(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        container=container.name,
        node=pod.spec.node_name,
        cpu=used.cpu_millis if used else None,
        cpu_request=cpu_millis(asked["cpu"]) if "cpu" in asked else None,
        cpu_limit=cpu_millis(most["cpu"]) if "cpu" in most else None,
        memory=used.memory_bytes if used else None,
        memory_request=memory_bytes(asked["memory"]) if "memory" in asked else None,
        memory_limit=memory_bytes(most["memory"]) if "memory" in most else None,
    )


def pods_text(rows: Sequence[PodRow], *, everywhere: bool) -> str:
    """The table; the container is named where a pod has several."""
    several = len({(row.namespace, row.name) for row in rows}) < len(rows)
    headers = (
        *(("NAMESPACE",) if everywhere else ()),
        "POD",
        *(("CONTAINER",) if several else ()),
        *("NODE", "CPU", "OF REQUEST", "OF LIMIT", "MEMORY", "OF REQUEST", "OF LIMIT"),
    )
    cells = [
        (
            *((row.namespace,) if everywhere else ()),
            row.name,
            *((row.container,) if several else ()),
            row.node,
            UNKNOWN if row.cpu is None else f"{row.cpu}m",
            _share(row.cpu, row.cpu_request, "m"),
            _share(row.cpu, row.cpu_limit, "m"),
            UNKNOWN if row.memory is None else human_bytes(row.memory),
            _share(row.memory, row.memory_request, ""),
            _share(row.memory, row.memory_limit, ""),
        )
        for row in rows
    ]
    return table(cells, headers)


def _share(used: int | None, of: int | None, unit: str) -> str:
    """`48% of 250m`, or a dash without such a bound."""
    if not of:
        return UNKNOWN
    bound = f"{of}{unit}" if unit else human_bytes(of)
    return f"of {bound}" if used is None else f"{used / of:.0%} of {bound}"


def silent_text(usage: Iterable[NodeUsage]) -> tuple[str, ...]:
    """A line for each host that could not be asked."""
    return tuple(
        f"{one.node} could not be asked: {clean(' '.join(str(one.error).split())).removeprefix(f'{one.node}: ')}"
        for one in usage
        if one.error is not None
    )
