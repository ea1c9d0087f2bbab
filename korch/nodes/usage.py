"""What containers use: two looks at their cgroups' figures, made into CPU and memory. Pure."""

import re
from collections.abc import Mapping

from korch.client.base import ContainerUsage
from korch.engines.names import SANDBOX
from korch.nodes.answer import Answer, Section

TEMPLATE = '{{index .Config.Labels "korch.dev/uid"}} {{index .Config.Labels "korch.dev/container"}} {{.State.Pid}}'
_LINE = re.compile(r"(?P<path>/[^\n]*?)/(?P<file>[a-z_.]+):(?:(?P<key>[a-z_]+) )?(?P<value>[0-9]+)")
_CPU_NS = {"cpuacct.usage": 1, "cpu.stat/usage_usec": 1000}
_MEMORY = ("memory.current", "memory.usage_in_bytes")
_CACHE = ("memory.stat/inactive_file", "memory.stat/total_inactive_file")  # what the kernel drops when it needs room


def parse_usage(answer: Answer) -> tuple[ContainerUsage, ...]:
    """One entry a container that runs, by pod uid and name; a figure that could not be read is None."""
    looks: dict[tuple[str, str], list[tuple[float, Mapping[str, int]]]] = {}
    for section in answer.every("usage"):
        words = section.rest.split()
        if len(words) == 3 and words[1] != SANDBOX and re.fullmatch(r"[0-9.]+", words[2]):
            looks.setdefault((words[0], words[1]), []).append((float(words[2]), _figures(section)))
    return tuple(
        ContainerUsage(uid, name, _cpu_millis(found), _memory_bytes(found[-1][1]))
        for (uid, name), found in sorted(looks.items())
    )


def _figures(section: Section) -> dict[str, int]:
    """`cpu.stat/usage_usec`, `memory.current`...: the figures by file and key."""
    found = {}
    for line in section.lines:
        match = _LINE.fullmatch(line)
        if match:
            found[match["file"] + (f"/{match['key']}" if match["key"] else "")] = int(match["value"])
    return found


def _cpu_millis(looks: list[tuple[float, Mapping[str, int]]]) -> int | None:
    """Thousandths of a CPU between the two looks; None for a container that was there at one of them only."""
    if len(looks) < 2:
        return None
    (began, first), (ended, last) = looks[0], looks[-1]
    for name, ns in _CPU_NS.items():
        if name in first and name in last and ended > began and last[name] >= first[name]:
            return round((last[name] - first[name]) * ns / 1e6 / (ended - began))
    return None


def _memory_bytes(figures: Mapping[str, int]) -> int | None:
    used = next((figures[name] for name in _MEMORY if name in figures), None)
    cache = next((figures[name] for name in _CACHE if name in figures), 0)
    return None if used is None else max(0, used - cache)
