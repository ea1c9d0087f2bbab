"""The master's figures for Prometheus, read from its view at each scrape, on a port of this machine only.

Nothing is counted on the way except what the view cannot tell; the text is made by Prometheus' own client library.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from korch.errors import SetupError
from korch.objects.values import Change
from korch.objects.view import View
from korch.resources.meta import Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import condition, is_ready
from korch.resources.workload import DaemonSet, Deployment

log = logging.getLogger(__name__)

REQUEST_S = 5.0
REQUEST_LIMIT_BYTES = 16_384


_LOAD: tuple[tuple[str, str, Callable[[NodeLoad], float | None]], ...] = (
    ("korch_node_cpu_busy_ratio", "CPU in use, 0 to 1, smoothed.", lambda load: load.cpu_busy_smoothed),
    ("korch_node_load1", "Load average of one minute.", lambda load: load.load1),
    ("korch_node_memory_available_bytes", "Memory left for programs.", lambda load: load.memory_available_bytes),
    ("korch_node_memory_total_bytes", "Memory of the machine.", lambda load: load.memory_total_bytes),
    ("korch_node_disk_free_bytes", "Free space of the engine's disk.", lambda load: load.disk_free_bytes),
)


class Figures(Collector):
    """What a scrape sees. `view` None: this master does not lead now, and says only that."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._lost: Counter[str] = Counter()  # pods that were given up, by node

    def lead(self, view: View | None) -> None:
        """This master leads with this view from now on, or (None) does not lead any more."""
        self._view = view
        if view is not None:
            view.listen(self._note)

    def _note(self, change: Change[Object]) -> None:
        pod, before = change.object, change.previous
        if isinstance(pod, Pod) and pod.status.reason == "NodeLost" and isinstance(before, Pod):
            self._lost[pod.spec.node_name] += before.status.reason != "NodeLost"

    def collect(self) -> Iterator[Metric]:
        """All families; called by the library."""
        yield GaugeMetricFamily("korch_leading", "1 while this master leads the cluster.", int(self._view is not None))
        if self._view is not None:
            yield from _nodes(self._view)
            yield from _pods(self._view)
            yield from _workloads(self._view)
            lost = CounterMetricFamily("korch_pods_lost", "Pods given up because their node was lost.", labels=["node"])
            for node, count in sorted(self._lost.items()):
                lost.add_metric([node], count)
            yield lost


def _nodes(view: View) -> Iterator[Metric]:
    state = GaugeMetricFamily("korch_node_state", "1 for the state that a node is in.", labels=["node", "state"])
    for node in view.all(Node):
        ready = condition(node.status.conditions, "Ready")
        state.add_metric([node.metadata.name, (ready.reason if ready else "") or "Unknown"], 1)
    yield state
    for name, text, figure in _LOAD:
        family = GaugeMetricFamily(name, text, labels=["node"])
        for load in view.all(NodeLoad):
            value = figure(load)
            if value is not None:
                family.add_metric([load.metadata.name], value)
        yield family


def _pods(view: View) -> Iterator[Metric]:
    phases: Counter[tuple[str, str]] = Counter()
    restarts = GaugeMetricFamily(
        "korch_pod_container_restarts", "Restarts of a pod's containers.", labels=["namespace", "pod"]
    )
    ready = GaugeMetricFamily("korch_pods_ready", "Pods that are ready, by node.", labels=["node"])
    on_node: Counter[str] = Counter()
    for pod in view.all(Pod):
        phases[pod.metadata.namespace, pod.status.phase or "Pending"] += 1
        on_node[pod.spec.node_name] += is_ready(pod)
        if pod.status.container_statuses:
            count_of = sum(status.restart_count for status in pod.status.container_statuses)
            restarts.add_metric([pod.metadata.namespace, pod.metadata.name], count_of)
    count = GaugeMetricFamily("korch_pods", "Pods by phase.", labels=["namespace", "phase"])
    for (namespace, phase), number in sorted(phases.items()):
        count.add_metric([namespace, phase], number)
    for node, number in sorted(on_node.items()):
        ready.add_metric([node], number)
    yield from (count, ready, restarts)


def _workloads(view: View) -> Iterator[Metric]:
    labels = ["namespace", "kind", "name"]
    wanted = GaugeMetricFamily("korch_workload_replicas_wanted", "Replicas that were declared.", labels=labels)
    available = GaugeMetricFamily("korch_workload_replicas_available", "Replicas that serve.", labels=labels)
    for found in view.all(Deployment):
        words = [found.metadata.namespace, "Deployment", found.metadata.name]
        wanted.add_metric(words, 1 if found.spec.replicas is None else found.spec.replicas)
        available.add_metric(words, found.status.available_replicas)
    for daemons in view.all(DaemonSet):
        words = [daemons.metadata.namespace, "DaemonSet", daemons.metadata.name]
        wanted.add_metric(words, daemons.status.desired_number_scheduled)
        available.add_metric(words, daemons.status.number_available)
    yield from (wanted, available)


async def serve_metrics(figures: Figures, address: str, port: int) -> asyncio.Server:
    """Answer GET /metrics on the port; the caller closes the server."""
    registry = CollectorRegistry()
    registry.register(figures)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b"\r\n", 1)[0].split(b" ")
                found = words[:1] == [b"GET"] and words[1:2] == [b"/metrics"]
                body = generate_latest(registry) if found else b"GET /metrics\n"
                status = "200 OK" if found else "404 Not Found"
                kind = CONTENT_TYPE_LATEST if found else "text/plain"
                top = (
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
                )
                writer.write(f"{top}\r\n".encode() + body)
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, address, port, limit=REQUEST_LIMIT_BYTES)
    except OSError as error:
        raise SetupError(
            f"metrics cannot be served on {address} port {port}: {error.strerror or error}",
            hint="Choose another port with --metrics-port, or 0 for none.",
        ) from error
    log.info("metrics: http://%s:%d/metrics", address, port)
    return server
