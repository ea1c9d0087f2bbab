"""Many watchers of one API, and how long each change takes to them: connections that only note when bytes came."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from korch.client.kubeconfig import Access

WRITES = 100
_PAUSE_S = 0.02
_WAIT_S = 60.0


@dataclass
class Seen:
    """Of each write: how long it took, and how long until the median and the last watcher had it."""

    written_s: list[float] = field(default_factory=list)
    median_s: list[float] = field(default_factory=list)
    last_s: list[float] = field(default_factory=list)
    rss_mib: float = 0.0  # of the server while all of them watched


class _Watcher(asyncio.Protocol):
    """Notes when changes come: `told` is called with the moment of each."""

    def __init__(self, head: bytes, told: Callable[[float], None]) -> None:
        self._head, self._told, self.begun = head, told, asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """The head of the answer, then changes."""
        now = time.perf_counter()
        self.begun.set()
        for _ in range(data.count(b'{"type":"MODIFIED"')):
            self._told(now)


async def delays(
    access: Access, count: int, after: int, write: Callable[[int], Awaitable[object]], rss_mib: Callable[[], float]
) -> Seen:
    """Writes one after the other, each awaited by all of so many watchers of pods."""
    place, loop = urlsplit(access.server), asyncio.get_running_loop()
    host = place.hostname or ""
    path = f"/api/v1/pods?watch=1&allowWatchBookmarks=true&resourceVersion={after}"
    head = f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\nAccept: application/json\r\n\r\n".encode()
    moments: list[float] = []
    all_told = asyncio.Event()

    def told(now: float) -> None:
        moments.append(now)
        if len(moments) == count:
            all_told.set()

    tls, watchers, seen = access.tls(), list[_Watcher](), Seen()
    try:
        for _ in range(count):
            _, watcher = await loop.create_connection(
                lambda: _Watcher(head, told), host, place.port or 443, ssl=tls, server_hostname=host
            )
            watchers.append(watcher)
            await watcher.begun.wait()
        for number in range(WRITES):
            moments.clear()
            all_told.clear()
            began = time.perf_counter()
            await write(number)
            seen.written_s.append(time.perf_counter() - began)
            async with asyncio.timeout(_WAIT_S):
                await all_told.wait()
            seen.median_s.append(statistics.median(moments) - began)
            seen.last_s.append(moments[-1] - began)
            await asyncio.sleep(_PAUSE_S)
        seen.rss_mib = rss_mib()
    finally:
        for watcher in watchers:
            watcher.transport.abort()
    return seen
