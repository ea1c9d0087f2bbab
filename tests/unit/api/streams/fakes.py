"""A client, a program and a connection of a pod that a test plays."""

import asyncio
from collections.abc import AsyncIterator, Callable

from korch.api.streams.sockets import GoneError


async def until(true: Callable[[], object]) -> None:
    """Let others go on until it is so."""
    while not true():  # noqa: ASYNC110 — nothing tells when a fake was used
        await asyncio.sleep(0)


class FakeTalk:
    """Implements what sessions use of `Talk`. `say(None)`: the client goes."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed: int | None = None
        self.may_hear = asyncio.Event()
        self.may_hear.set()
        self.waiting = 0
        self.left = False

    def say(self, *messages: bytes | None) -> None:
        for message in messages:
            self._said.put_nowait(message)

    @property
    def unread(self) -> int:
        return self._said.qsize()

    async def receive(self) -> bytes | None:
        message = await self._said.get()
        self.left = message is None
        return message

    async def send(self, data: bytes) -> None:
        if self.left:
            raise GoneError
        self.waiting += 1
        await self.may_hear.wait()
        self.waiting -= 1
        self.heard.put_nowait(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = code

    async def idle(self) -> None:
        await asyncio.Event().wait()


class FakeStream:
    """Implements `Stream`: echoes its input, and ends with `status` at the end of it."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.size = status, (0, 0)
        self.written: list[bytes] = []
        self._out: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.ended = asyncio.Event()

    def print(self, number: int, data: bytes) -> None:
        self._out.put_nowait((number, data))

    def end(self) -> None:
        self._out.put_nowait(None)
        self.ended.set()

    async def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        while (chunk := await self._out.get()) is not None:
            yield chunk

    async def write(self, data: bytes) -> None:
        if self.ended.is_set():
            raise BrokenPipeError
        self.written.append(data)
        self.print(1, data)

    async def write_eof(self) -> None:
        self.end()

    async def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)

    async def wait(self) -> int:
        await self.ended.wait()
        return self.status


class FakeTunnel:
    """Implements `TcpTunnel`: echoes, and ends when its input does. `stuck`: takes nothing."""

    def __init__(self, *, stuck: bool = False) -> None:
        self._back: asyncio.Queue[bytes] = asyncio.Queue()
        self.stuck, self.closed = stuck, False

    async def read(self, limit: int = 65536) -> bytes:
        return await self._back.get()

    async def write(self, data: bytes) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self._back.put_nowait(data)

    async def write_eof(self) -> None:
        self._back.put_nowait(b"")

    async def close(self) -> None:
        self.closed = True
