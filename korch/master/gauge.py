"""What pods use, for whoever scales by it: each node is measured at most once in some seconds, whoever asks."""

import asyncio
from collections.abc import Mapping

from korch.controllers.scaling import Used
from korch.errors import CommandTimeoutError
from korch.master.fleet import Fleet
from korch.master.gathering import each

KEPT_S = 10.0
AT_MOST_S = 8.0  # for one node: what it would tell later is of no use


class NodeGauge:
    """Measures over the connections that the fleet has; nodes that do not answer are left out."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: dict[str, tuple[float, Mapping[str, Used]]] = {}  # by node: when, and what
        self._lock = asyncio.Lock()

    async def pods(self, nodes: frozenset[str]) -> Mapping[str, Used]:
        """What the pods on these nodes use, by uid; a pod with a figure that cannot be read is left out."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            old = {node for node in nodes if now - self._known.get(node, (-KEPT_S, {}))[0] >= KEPT_S}
            reachable = sorted(old & self._fleet.answering.keys())
            for node, found in (await each(dict.fromkeys(reachable), self._measure)).items():
                if isinstance(found, Mapping):
                    self._known[node] = (asyncio.get_running_loop().time(), found)
            fresh = asyncio.get_running_loop().time() - 2 * KEPT_S
            return {
                uid: used
                for node in sorted(nodes)
                if self._known.get(node, (-1.0, {}))[0] >= fresh
                for uid, used in self._known.get(node, (-1.0, {}))[1].items()
            }

    async def _measure(self, node: str, _: None) -> Mapping[str, Used]:
        try:
            async with asyncio.timeout(AT_MOST_S):
                containers = await self._fleet.machine(node).usage()
        except TimeoutError as error:
            raise CommandTimeoutError(f"{node}: its containers could not be measured in time", host=node) from error
        pods: dict[str, Used] = {}
        unknown = {one.uid for one in containers if one.cpu_millis is None or one.memory_bytes is None}
        for one in containers:
            before = pods.get(one.uid, Used(0, 0))
            cpu, memory = before.cpu_millis + (one.cpu_millis or 0), before.memory_bytes + (one.memory_bytes or 0)
            pods[one.uid] = Used(cpu, memory)
        return {uid: used for uid, used in pods.items() if uid not in unknown}
