"""A node's session: one long-lived script there that says at every moment how the node is, read as values here.

The script holds nothing that matters: it reads, and it ends with everything it started as soon as its stdin ends or the
master's heartbeats stay away. So nothing is asked of the node when a session ends, and a silent node holds up nobody.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from korch.engines.base import Script
from korch.engines.wish import EngineName
from korch.errors import CommandTimeoutError, HostUnreachableError, KorchError
from korch.nodes.errors import silent_error
from korch.nodes.news import News, NewsReader
from korch.ssh.base import Stream, Transport

HEARTBEAT_S: Final = 10.0
SILENCE_S: Final = 30  # without a heartbeat, and the script ends
BEGIN_TIMEOUT_S: Final = 15.0
SAMPLE_S: Final = 5.0
_QUEUE_LIMIT: Final = 1000  # news that nobody has taken yet; further ones wait on the node


def pulses_a_sample(every_s: int) -> int:
    """How many pulses it takes until about 5 s have passed."""
    return math.ceil(SAMPLE_S / every_s)


class Session:
    """An endless iterator of news. Raises `HostUnreachableError` when the connection or the script ended."""

    def __init__(self, host: str, stream: Stream) -> None:
        self.host = host
        self._stream = stream
        self._reader = NewsReader()
        self._news: asyncio.Queue[News | None] = asyncio.Queue(_QUEUE_LIMIT)
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._end: Exception | None = None
        self._closed = False
        self._noise = b""
        self.heard_at = asyncio.get_running_loop().time()

    def __aiter__(self) -> "Session":
        """Itself; there is one sequence of news."""
        return self

    async def __anext__(self) -> News:
        """The next news. A call that is cancelled loses none."""
        if self._closed:
            raise StopAsyncIteration
        if self._end is not None and self._news.empty():
            raise self._end
        news = await self._news.get()
        if news is not None:
            return news
        assert self._end is not None
        raise self._end

    async def begun(self) -> None:
        """Return when the script runs. Raises why it does not."""
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT_S):
                await asyncio.shield(self._begun)
        except TimeoutError:
            raise CommandTimeoutError(
                f"{self.host}: the session's script did not begin within {BEGIN_TIMEOUT_S:.0f} s",
                host=self.host,
                hint="The machine may hang (disk, memory); look at it with ssh.",
            ) from None

    def close(self) -> None:
        """No more news."""
        self._closed = True
        if not self._begun.done():
            self._begun.cancel()

    async def read(self, engine: EngineName) -> None:
        """Take what the script says, until it ends."""
        loop = asyncio.get_running_loop()
        try:
            async for number, data in self._stream.chunks():
                self.heard_at = loop.time()
                if not self._reader.has_begun and number == 2:
                    self._noise = (self._noise + data)[-1000:]
                for news in self._reader.feed(number, data):
                    await self._news.put(news)
                if self._reader.has_begun and not self._begun.done():
                    self._begun.set_result(None)
            self._end = await self._why_ended(engine)
        except Exception as error:  # a bug, too, must wake those who wait
            self._end = error
        if not self._begun.done():
            self._begun.set_exception(self._end)
        await self._news.put(None)

    async def _why_ended(self, engine: EngineName) -> KorchError:
        status = await self._stream.wait()
        if status == -1:
            try:
                await self._stream.write(b"\n")  # a stream that broke tells why
            except HostUnreachableError as error:
                return error
            except BrokenPipeError:
                return HostUnreachableError(f"{self.host}: the session broke", host=self.host)
        if not self._reader.has_begun:
            stderr = self._noise.decode("utf-8", "replace")
            return silent_error(self.host, status, stderr, timeout_s=BEGIN_TIMEOUT_S, engine=engine)
        return HostUnreachableError(
            f"{self.host}: the session ended there (status {status})",
            host=self.host,
            hint=f"Something killed it, or the master was silent for {SILENCE_S} s; another one is opened.",
        )

    async def beat(self) -> None:
        """Tell the script again and again that the master lives."""
        try:
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                await self._stream.write(b"beat\n")
        except (BrokenPipeError, HostUnreachableError):
            return  # the reader sees the same, and says why


@asynccontextmanager
async def open_session(
    transport: Transport, script: Script, *, become: bool | None, engine: EngineName
) -> AsyncIterator[Session]:
    """The session that `script` (the text `session`) makes; leaving ends it here at once and there in a moment."""
    async with transport.stream(script, become=become, control=True) as stream:
        session = Session(transport.host, stream)
        tasks = (
            asyncio.create_task(session.read(engine), name=f"session of {transport.host}"),
            asyncio.create_task(session.beat(), name=f"heartbeat of {transport.host}"),
        )
        try:
            await session.begun()
            yield session
        finally:
            session.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
