"""`pods/portforward`: TCP to ports of a pod, as SPDY streams (kubectl) or as channels (Python's clients)."""

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from korch.api.streams import channels, spdy
from korch.api.streams.sockets import POLICY, GoneError, Talk, first_of
from korch.errors import KorchError
from korch.ssh.base import TcpTunnel

SPDY = "SPDY/3.1+portforward.k8s.io"
MOST_AT_ONCE = 256
MOST_PORTS = 100
_HELD_BYTES = 256 * 1024  # of one connection, on their way to the pod; then nothing more is read from the client
_PIECE_BYTES = 32 * 1024
_REFUSED_STREAM = 3

Dial = Callable[[int], Awaitable[TcpTunnel]]
"""Connects to a port of the pod. Raises `OSError` or a `KorchError`."""


class Pipe:
    """Bytes on their way from the client to one connection of the pod, with room for so many."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = self._broken = False
        self._changed = asyncio.Event()

    async def put(self, data: bytes) -> None:
        """Take them, when there is room. For who reads no more they are dropped."""
        while self._held >= _HELD_BYTES and not self._broken:
            self._changed.clear()
            await self._changed.wait()
        if data and not self._broken and not self._ended:
            self._pieces.append(data)
            self._held += len(data)
            self._changed.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._changed.set()

    def break_(self) -> None:
        """Nobody reads any more."""
        self._broken = True
        self._pieces.clear()
        self._changed.set()

    async def get(self) -> bytes:
        """The next bytes, b"" at the end."""
        while not self._pieces:
            if self._ended or self._broken:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._pieces.popleft()
        self._held -= len(data)
        self._changed.set()
        return data


async def carry(tunnel: TcpTunnel, upward: Pipe, downward: Callable[[bytes], Awaitable[None]]) -> None:
    """Copy both ways, until the pod's side ends. A client that has said all may still listen."""

    async def up() -> None:
        with suppress(BrokenPipeError, ConnectionError, KorchError):
            while data := await upward.get():
                await tunnel.write(data)
            await tunnel.write_eof()
        upward.break_()

    async def down() -> None:
        while data := await tunnel.read(_PIECE_BYTES):
            await downward(data)

    rising = asyncio.ensure_future(up())
    try:
        await down()
    finally:
        rising.cancel()
        await asyncio.gather(rising, return_exceptions=True)
        upward.break_()
        await tunnel.close()


@dataclass(slots=True)
class _Pair:
    """The two streams of one connection, as far as they are open."""

    key: str
    port: int
    unwanted: bool = False
    data: int = 0
    error: int = 0
    upward: Pipe = field(default_factory=Pipe)
    task: asyncio.Task[None] | None = None


class SpdyForward:
    """kubectl's form: SPDY frames in the messages of a WebSocket, two streams for each connection."""

    def __init__(self, talk: Talk, dial: Dial, pod: str) -> None:
        self._talk, self._dial, self._pod = talk, dial, pod
        self._reader, self._writer = spdy.Reader(), spdy.Writer()
        self._sending = asyncio.Lock()
        self._pairs: dict[str, _Pair] = {}  # by request id
        self._streams: dict[int, _Pair] = {}
        self._last = 0

    async def run(self) -> None:
        """Forward until the client goes, or nobody says anything for too long."""
        try:
            await first_of((self._listen(), self._talk.idle()))
        except GoneError:
            return
        except spdy.SpdyError as error:
            await self._talk.close(POLICY, str(error))
            return
        finally:
            tasks = [pair.task for pair in self._pairs.values() if pair.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._talk.close()

    async def _listen(self) -> None:
        while (message := await self._talk.receive()) is not None:
            for frame in self._reader.feed(message):
                await self._take(frame)

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Opened():
                await self._open(frame)
            case spdy.Data(stream, data, fin):
                pair = self._streams.get(stream)
                if pair is not None and stream == pair.data:
                    await pair.upward.put(data)
                    if fin:
                        pair.upward.end()
            case spdy.Reset(stream):
                pair = self._streams.get(stream)
                if pair is not None and (stream == pair.data or pair.task is None):
                    self._end(pair)
            case spdy.Ping(number):
                await self._send(spdy.ping(number))

    def _end(self, pair: _Pair) -> None:
        """The client wants no more of a connection."""
        pair.unwanted = True
        if pair.task is not None:
            pair.task.cancel()
        else:
            self._forget(pair)

    def _forget(self, pair: _Pair) -> None:
        del self._pairs[pair.key]
        for stream in (pair.data, pair.error):
            self._streams.pop(stream, None)

    async def _open(self, frame: spdy.Opened) -> None:
        """A stream of a new connection, or the other one of a connection that has one."""
        if frame.stream % 2 == 0 or frame.stream <= self._last:
            raise spdy.SpdyError(f"stream {frame.stream} comes out of turn")
        self._last = frame.stream
        kind, port = frame.headers.get("streamtype", ""), frame.headers.get("port", "")
        if kind not in ("data", "error") or not port.isascii() or not port.isdigit() or not 0 < int(port[:9]) < 65536:
            await self._send(spdy.reset(frame.stream, _REFUSED_STREAM))
            return
        key = frame.headers.get("requestid", "") or port
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= MOST_AT_ONCE:
                await self._send(spdy.reset(frame.stream, _REFUSED_STREAM))
                return
            pair = self._pairs[key] = _Pair(key, int(port))
        if getattr(pair, kind):
            raise spdy.SpdyError(f"the {kind} stream of connection {key[:20]} comes twice")
        setattr(pair, kind, frame.stream)
        self._streams[frame.stream] = pair
        async with self._sending:
            await self._talk.send(self._writer.reply(frame.stream))
        if frame.fin and kind == "data":
            pair.upward.end()
        if pair.data and pair.error:
            pair.task = asyncio.create_task(self._forward(pair), name=f"forward to {self._pod} {pair.port}")

    async def _forward(self, pair: _Pair) -> None:
        """One connection, from its beginning to its end."""
        problem = ""

        async def down(data: bytes) -> None:
            await self._send(spdy.data(pair.data, data))

        try:
            try:
                await carry(await self._dial(pair.port), pair.upward, down)
            except (OSError, KorchError) as error:
                problem = refusal_text(pair.port, self._pod, error)
            except asyncio.CancelledError:
                if not pair.unwanted:
                    raise
            if problem:
                await self._send(spdy.data(pair.error, problem.encode()))
            for stream in (pair.error, pair.data):
                await self._send(spdy.data(stream, b"", fin=True))
        except GoneError:
            return
        finally:
            pair.upward.break_()
            self._forget(pair)

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._talk.send(data)


def refusal_text(port: int, pod: str, error: Exception) -> str:
    """Why there is no connection, as Kubernetes begins such a sentence."""
    return f"error forwarding port {port} to pod {pod}: {error}"


class ChannelForward:
    """The form of Python's clients: channel 2 i is the data of the i-th port, the next one its errors."""

    def __init__(self, talk: Talk, dial: Dial, pod: str, ports: Sequence[int], *, ends: bool) -> None:
        self._talk, self._dial, self._pod, self._ports = talk, dial, pod, ports
        self._ends = ends  # the protocol has frames that end a channel
        self._pipes = [Pipe() for _ in ports]
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Forward until all connections have ended, the client goes, or nobody says anything for too long."""
        try:
            for index, port in enumerate(self._ports):
                for channel in (2 * index, 2 * index + 1):
                    await self._send(channel, struct.pack("<H", port))
            await first_of((self._all(), self._listen(), self._talk.idle()))
        except GoneError:
            return
        await self._talk.close()

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._ports)):
                group.create_task(self._forward(index), name=f"forward to {self._pod} {self._ports[index]}")

    async def _forward(self, index: int) -> None:
        async def down(data: bytes) -> None:
            await self._send(2 * index, data)

        port = self._ports[index]
        try:
            await carry(await self._dial(port), self._pipes[index], down)
        except (OSError, KorchError) as error:
            with suppress(GoneError):
                await self._send(2 * index + 1, refusal_text(port, self._pod, error).encode())
        except GoneError:
            return
        finally:
            self._pipes[index].break_()

    async def _listen(self) -> None:
        while (message := await self._talk.receive()) is not None:
            match self._decoded(message):
                case channels.Data(channel, data) if channel % 2 == 0 and channel // 2 < len(self._pipes):
                    await self._pipes[channel // 2].put(data)
                case channels.End(channel) if channel % 2 == 0 and channel // 2 < len(self._pipes):
                    self._pipes[channel // 2].end()

    def _decoded(self, message: bytes) -> channels.Data | channels.End | None:
        if len(message) < 2:
            return None
        if self._ends and message[0] == channels.CLOSE:
            return channels.End(message[1])
        return channels.Data(message[0], message[1:])

    async def _send(self, channel: int, data: bytes) -> None:
        async with self._sending:
            await self._talk.send(channels.encode(channel, data))


def ports_of(texts: Sequence[str]) -> tuple[int, ...] | None:
    """The ports of a query, each perhaps several with commas between; None when that is not what is there."""
    words = [word for text in texts for word in text.split(",")]
    if not 0 < len(words) <= MOST_PORTS or not all(w.isascii() and w.isdigit() and len(w) < 6 for w in words):
        return None
    found = tuple(int(word) for word in words)
    return found if all(0 < port < 65536 for port in found) else None
