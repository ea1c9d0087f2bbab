"""The API on a loopback port, served from a thread of its own, for clients that block; and a kubeconfig for it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import yaml

from korch.api.app import create_app
from korch.controllers.collector import Collector
from korch.objects.objects import Objects
from korch.resources.meta import ObjectMeta
from korch.resources.node import Node, NodeStatus
from korch.store.sqlite import open_sqlite

BEGIN_S = 20.0
IDLE_S = 600  # on a slow machine, the end of an idle connection must not race with the next request on it


@dataclass(frozen=True)
class Served:
    url: str
    config: Path


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Nobody stands at the door: every client is an administrator. No master runs, but what lost its owner goes."""
    began = threading.Event()
    end: list[Callable[[], object]] = []
    url: list[str] = []

    async def serve() -> None:
        store = await open_sqlite(folder / "state.db")
        objects = Objects(store)
        await objects.ensure_default_namespace()
        status = NodeStatus(allocatable={"cpu": "4", "memory": "8Gi", "pods": "110"})
        node = await objects.create(Node(metadata=ObjectMeta(name="n1")))
        await objects.modify(Node, node.metadata.name, "", lambda old: _with_status(old, status), status=True)
        app = create_app(objects, store)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", http="h11", ws="none")
        config.timeout_keep_alive = IDLE_S
        made = uvicorn.Server(config)
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        end.append(lambda: loop.call_soon_threadsafe(ending.set))
        collecting = asyncio.create_task(Collector(objects, store).run())
        serving = asyncio.create_task(made.serve())
        while not made.started:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
        url.append(f"http://127.0.0.1:{made.servers[0].sockets[0].getsockname()[1]}")
        began.set()
        await ending.wait()
        await app.state.api.close()
        made.should_exit = True
        await serving
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        await store.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="api")
    thread.start()
    try:
        assert began.wait(BEGIN_S)
        yield Served(url[0], _kubeconfig(folder / "kubeconfig", url[0]))
    finally:
        for call in end:
            call()
        thread.join(BEGIN_S)


def _with_status(node: Node, status: NodeStatus) -> Node:
    from msgspec.structs import replace

    return replace(node, status=status)


def _kubeconfig(path: Path, url: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "k", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "none"}}],
        "contexts": [{"name": "k", "context": {"cluster": "k", "user": "u", "namespace": "default"}}],
        "current-context": "k",
    }
    path.write_text(yaml.safe_dump(config))
    return path
