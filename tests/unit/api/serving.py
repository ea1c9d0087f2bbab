"""An API in this process on a store in a file, asked over ASGI or (for real clients) on a loopback port."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from korch.api.app import create_app
from korch.api.services import Services
from korch.objects.objects import Objects
from korch.store.sqlite import SqliteStore, open_sqlite

PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


class Clock:
    def __init__(self) -> None:
        self.time_s = 1_790_000_000.0

    def now(self) -> float:
        return self.time_s


class World:
    """Objects, and a client of the API over them."""

    def __init__(self, store: SqliteStore, services: Services) -> None:
        self.store, self.clock = store, Clock()
        self.objects = Objects(store, clock=self.clock)
        self.app = create_app(self.objects, store, clock=self.clock, services=services)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://korch")

    async def get(self, path: str, **query: Any) -> Any:
        return (await self.http.get(path, params=query)).json()

    async def make(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


def run(
    tmp_path: Path,
    test: Callable[[World], Awaitable[None]],
    services: Services | None = None,
    *,
    timeout_s: float = 60,
) -> None:
    """Run one test on a fresh store; a test that hangs fails."""

    async def main() -> None:
        async with asyncio.timeout(timeout_s):
            store = await open_sqlite(tmp_path / "state.db")
            world = World(store, services or Services())
            try:
                await world.objects.ensure_default_namespace()
                await test(world)
            finally:
                await world.app.state.api.close()
                await world.http.aclose()
                await store.close()

    asyncio.run(main())


class Watcher:
    """A watch that is read line by line, as a client on a wire does."""

    def __init__(self, world: World, path: str, query: dict[str, Any], accept: str) -> None:
        request = httpx.Request(
            "GET", f"http://korch{path}", params={"watch": "true", **query}, headers={"accept": accept}
        )
        self.status = 0
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._rest = b""
        self._begun = asyncio.Event()
        self._gone = asyncio.Event()
        self._task = asyncio.create_task(self._run(world.app, request))

    async def _run(self, app: Any, request: httpx.Request) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "server": ("korch", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "query_string": request.url.query,
            "headers": [(key.lower(), value) for key, value in request.headers.raw],
        }
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self._begun.set()
            else:
                *lines, self._rest = (self._rest + message.get("body", b"")).split(b"\n")
                for line in lines:
                    self._lines.put_nowait(line)

        try:
            await app(scope, receive, send)
        finally:
            self._begun.set()
            self._lines.put_nowait(None)

    async def begun(self) -> int:
        await self._begun.wait()
        return self.status

    async def next(self) -> dict[str, Any] | None:
        """The next event; None when the stream has ended."""
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
            return None
        event: dict[str, Any] = json.loads(line)
        return event

    async def take(self, count: int) -> list[dict[str, Any]]:
        found = []
        for _ in range(count):
            event = await self.next()
            assert event is not None, f"the stream ended after {len(found)} events"
            found.append(event)
        return found

    def quiet(self) -> bool:
        return self._lines.empty()

    async def close(self) -> None:
        self._gone.set()
        await self._task


@asynccontextmanager
async def watching(world: World, path: str, accept: str = "application/json", **query: Any) -> AsyncIterator[Watcher]:
    watcher = Watcher(world, path, query, accept)
    await watcher.begun()
    try:
        yield watcher
    finally:
        await watcher.close()


def pod(name: str = "web-1", **fields: Any) -> dict[str, Any]:
    meta = {"name": name, **fields.pop("metadata", {})}
    return {"metadata": meta, "spec": {"containers": [{"name": "c", "image": "web:1"}], **fields}}


def deployment(name: str = "web", replicas: int | None = 2, image: str = "web:1") -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": template}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def configmap(name: str = "c", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def shown(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Types and names of watch events."""
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]
