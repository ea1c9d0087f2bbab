"""The API as a master serves it (TLS, credentials, roles), from a thread of its own, so that commands can call it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from korch.api.app import create_app
from korch.api.security.audit import AuditLog
from korch.api.security.authenticate import Authenticator
from korch.api.security.credentials import Credentials, KnownCredentials
from korch.api.security.guard import Guard
from korch.api.security.kubeconfig import write
from korch.api.security.minting import Wish, mint
from korch.api.security.permissions import Permissions
from korch.api.server import Place, serving
from korch.api.services import Services, Streams
from korch.objects.objects import Objects
from korch.objects.values import SystemClock
from korch.store.sqlite import open_sqlite

WAIT_S = 20.0


@dataclass
class Served:
    """An API that can stop and come back at its port. `asked`: the paths of requests, in order."""

    state: Path
    folder: Path
    client_on: Callable[[Any], Any]
    streams: Callable[[Objects], Streams] | None = None
    port: int = 0
    asked: list[str] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop | None = None
    _end: asyncio.Event | None = None
    _thread: threading.Thread | None = None
    _store: Any = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        began = threading.Event()

        async def main() -> None:
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            self._store = store = await open_sqlite(self.state)
            clock, objects, client = SystemClock(), Objects(store), self.client_on(store)
            await objects.ensure_default_namespace()

            async def the_client() -> Any:
                return client

            streams = self.streams(objects) if self.streams else None
            app = create_app(objects, store, services=Services(Permissions(store), client=the_client, streams=streams))

            async def noted(scope: Any, receive: Any, send: Any) -> None:
                self.asked.append(scope["path"])
                await app(scope, receive, send)

            audit = AuditLog(self.folder / "audit.log")
            authenticator = Authenticator(KnownCredentials(Credentials(store)), clock)
            guard = Guard(noted, authenticator, Permissions(store), clock=clock, audit=audit)
            place = Place(self.folder, "test", port=self.port)
            async with serving(guard, place, store=store, clock=clock) as url:
                self.port = int(url().rpartition(":")[2])
                began.set()
                await self._end.wait()
            await app.state.api.close()
            await store.close()
            audit.close()

        self._thread = threading.Thread(target=lambda: asyncio.run(main()), name="api")
        self._thread.start()
        assert began.wait(WAIT_S)

    def stop(self) -> None:
        if self._thread is not None and self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(WAIT_S)
            assert not self._thread.is_alive()
        self._thread = None

    def kubeconfig(
        self, role: Any = "admin", namespace: str = "", *, token: bool = False, name: str = "config"
    ) -> Path:
        """A file with a new credential."""
        path = self.folder / name
        wish = Wish("tester", role, namespace, 3600.0, token=token)
        assert self._loop is not None

        async def make() -> Any:
            now = SystemClock().now()
            return (await mint(self._store, self.folder / "pki", "test", wish, now=now, server=self.url))[0]

        write(path, asyncio.run_coroutine_threadsafe(make(), self._loop).result(WAIT_S))
        return path


@contextmanager
def served(
    state: Path, folder: Path, client_on: Callable[[Any], Any], streams: Callable[[Objects], Streams] | None = None
) -> Iterator[Served]:
    """An API on a state file for the length of a block."""
    state.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    found = Served(state, folder, client_on, streams)
    found.start()
    try:
        yield found
    finally:
        found.stop()
