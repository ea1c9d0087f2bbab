import asyncio
import socket
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from korch.errors import SetupError
from korch.master.metrics import Figures, serve_metrics
from korch.objects.objects import Objects, SystemClock
from korch.objects.view import View
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.node import Node, NodeLoad, NodeStatus
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.workload import DaemonSet, Deployment
from korch.store.sqlite import open_sqlite


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def ask(port: int, path: str = "/metrics") -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    head, _, body = text.partition("\r\n\r\n")
    return head.splitlines()[0], body


def samples(body: str) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def test_a_scrape_tells_what_the_view_holds(tmp_path) -> None:
    async def go() -> None:
        figures, port = Figures(), free_port()
        server = await serve_metrics(figures, "127.0.0.1", port)
        assert samples((await ask(port))[1]) == {"korch_leading": 0}

        store = await open_sqlite(tmp_path / "state.db")
        objects = Objects(store, clock=SystemClock())
        await objects.ensure_default_namespace()
        ready = Condition(type="Ready", status="False", reason="EngineDown")
        node = await objects.create(Node(metadata=ObjectMeta(name="n1")))
        await objects.update_status(
            Node(metadata=node.metadata, spec=node.spec, status=NodeStatus(conditions=(ready,)))
        )
        await objects.create(NodeLoad(metadata=ObjectMeta(name="n1"), load1=0.5))
        spec = PodSpec(containers=(Container(name="web", image="web:1"),), node_name="n1")
        await objects.create(Pod(metadata=ObjectMeta(name="web-1", namespace="default"), spec=spec))
        view = View(objects, (Node, NodeLoad, Pod, Deployment, DaemonSet))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(view))
            await asyncio.sleep(0.2)
            figures.lead(view)
            found = samples((await ask(port))[1])
            watching.cancel()
        assert found["korch_leading"] == 1
        assert found["korch_node_state[('node', 'n1'), ('state', 'EngineDown')]"] == 1
        assert found["korch_node_load1[('node', 'n1')]"] == 0.5
        assert found["korch_pods[('namespace', 'default'), ('phase', 'Pending')]"] == 1
        assert (await ask(port, "/etc/passwd"))[0] == "HTTP/1.1 404 Not Found"
        server.close()
        await store.close()

    asyncio.run(go())


async def _watch(view: View) -> None:
    async with asyncio.TaskGroup() as group:
        await view.start(group)


def test_a_port_that_is_taken_is_told() -> None:
    async def go() -> None:
        with closing(socket.socket()) as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(SetupError, match="cannot be served on"):
                await serve_metrics(Figures(), "127.0.0.1", other.getsockname()[1])

    asyncio.run(go())
