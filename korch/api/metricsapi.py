"""metrics.k8s.io: what `kubectl top` shows, from the newest load samples of nodes and from measured containers."""

import asyncio
from collections.abc import Sequence
from typing import Any

from korch.api.answers import Refusal
from korch.api.selecting import Selection
from korch.api.services import Services
from korch.client.base import NodeUsage
from korch.objects.objects import Objects
from korch.objects.values import Clock
from korch.resources.meta import Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.times import parse_time, rfc3339

VERSION = "metrics.k8s.io/v1beta1"
_KEPT_S = 5.0  # a measurement serves all who ask within this time
_WINDOW = "10s"
_OLD_S = 120.0  # a sample of a node that is older says nothing of now


class Metrics:
    """Usage of nodes and pods."""

    def __init__(self, objects: Objects, clock: Clock, services: Services) -> None:
        self._objects, self._clock, self._services = objects, clock, services
        self._measured: tuple[NodeUsage, ...] = ()
        self._measured_at = float("-inf")
        self._lock = asyncio.Lock()

    async def answer(self, plural: str, name: str, chosen: Selection) -> dict[str, Any]:
        """One NodeMetrics or PodMetrics, or the list of all that are chosen."""
        items = await (self._nodes(chosen) if plural == "nodes" else self._pods(chosen))
        kind = "NodeMetrics" if plural == "nodes" else "PodMetrics"
        if not name:
            return {"kind": f"{kind}List", "apiVersion": VERSION, "metadata": {}, "items": items}
        found = next((item for item in items if item["metadata"]["name"] == name), None)
        if found is None:
            details = {"name": name, "group": "metrics.k8s.io", "kind": plural}
            raise Refusal(404, f'{plural}.metrics.k8s.io "{name}" not found', details)
        return {"kind": kind, "apiVersion": VERSION, **found}

    async def _nodes(self, chosen: Selection) -> list[dict[str, Any]]:
        nodes = (await self._objects.list(Node)).items
        loads = {load.metadata.name: load for load in (await self._objects.list(NodeLoad)).items}
        found = []
        for node in nodes:
            load = loads.get(node.metadata.name)
            if not _chosen(node, chosen) or load is None or load.sampled_at is None or load.cpu_busy is None:
                continue
            if self._clock.now() - parse_time(load.sampled_at) > _OLD_S:
                continue
            used = load.memory_total_bytes - load.memory_available_bytes
            millis = round(load.cpu_busy * load.cpu_count * 1000)
            found.append(_item(node, load.sampled_at, usage=_usage(millis, used)))
        return found

    async def _pods(self, chosen: Selection) -> list[dict[str, Any]]:
        pods = (await self._objects.list(Pod, chosen.namespace)).items
        containers: dict[str, list[dict[str, Any]]] = {}
        for node in await self._measure():
            for one in node.containers:
                usage = _usage(one.cpu_millis or 0, one.memory_bytes or 0)
                containers.setdefault(one.uid, []).append({"name": one.container, "usage": usage})
        now = rfc3339(self._clock.now())
        return [
            _item(pod, now, containers=containers[pod.metadata.uid])
            for pod in pods
            if pod.metadata.uid in containers and _chosen(pod, chosen)
        ]

    async def _measure(self) -> Sequence[NodeUsage]:
        """What containers use; several who ask at once wait for one and the same measurement."""
        if self._services.usage is None:
            raise Refusal(503, "the usage of containers is only known while a master runs")
        async with self._lock:
            if self._clock.now() - self._measured_at > _KEPT_S:
                self._measured = tuple(await self._services.usage())
                self._measured_at = self._clock.now()
        return self._measured


def _chosen(obj: Object, chosen: Selection) -> bool:
    meta = obj.metadata
    fields = {"metadata.name": meta.name, "metadata.namespace": meta.namespace}
    return chosen.has(meta.namespace, meta.labels, fields)


def _item(obj: Object, at: str, **more: Any) -> dict[str, Any]:
    meta = obj.metadata
    shown = {"name": meta.name, **({"namespace": meta.namespace} if meta.namespace else {})}
    labels = {"labels": meta.labels} if meta.labels else {}
    return {"metadata": {**shown, "creationTimestamp": at, **labels}, "timestamp": at, "window": _WINDOW, **more}


def _usage(cpu_millis: int, memory_bytes: int) -> dict[str, str]:
    return {"cpu": f"{cpu_millis}m", "memory": f"{memory_bytes // 1024}Ki"}
