"""Logs and programs in containers over the API, as the streams that the command line knows from nodes."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import ProtocolError

from korch.client.base import LogOptions
from korch.client.requests import Requests
from korch.client.wire import Call, Line
from korch.errors import CommandFailedError, HostUnreachableError, InvalidError, KorchError
from korch.resources.pod import Pod
from korch.resources.podstate import chosen_container
from korch.ssh.base import Stream

_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_PROTOCOL = "v5.channel.k8s.io"
_CHUNK = 65_536
_FRAME_BYTES = 32_768  # of input
_UPGRADE_S = 75.0


def _path(pod: Pod, part: str) -> str:
    if not pod.spec.node_name:
        raise InvalidError(
            f'pod "{pod.metadata.name}" runs nowhere yet', hint=f"See why: korch why {pod.metadata.name}"
        )
    return f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}/{part}"


# --- logs ---


@asynccontextmanager
async def log_stream(requests: Requests, pod: Pod, options: LogOptions) -> AsyncIterator[Stream]:
    """The log as it comes; all of it is on channel 1."""
    wished = {
        "container": chosen_container(pod, options.container),
        "follow": "true" if options.follow else "",
        "previous": "true" if options.previous else "",
        "timestamps": "true" if options.timestamps else "",
        "tailLines": "" if options.tail is None else str(options.tail),
        "sinceSeconds": "" if options.since_s is None else str(max(options.since_s, 1)),
    }
    call = Call("GET", _path(pod, "log"), tuple((key, value) for key, value in wished.items() if value))
    async with requests.answering(call) as pieces:
        yield _Log(pieces)


class _Log:
    """Implements `Stream` for what is only read."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces, self._status = pieces, -1

    async def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        """What comes."""
        try:
            async for piece in self._pieces:
                yield 1, piece
        except HostUnreachableError:
            return  # `wait` says so
        self._status = 0

    async def wait(self) -> int:
        """0 when the log has ended, -1 when the connection did."""
        return self._status

    async def write(self, data: bytes) -> None:
        """Nobody reads."""

    async def write_eof(self) -> None:
        """Nobody reads."""

    async def resize(self, columns: int, rows: int) -> None:
        """There is no terminal."""


# --- exec ---


@asynccontextmanager
async def exec_stream(
    requests: Requests,
    pod: Pod,
    argv: Sequence[str],
    *,
    stdin: bool,
    pty: tuple[int, int] | None,
    container: str = "",
) -> AsyncIterator[Stream]:
    """A program in the pod's container; it is ended there when this is left."""
    flags = {"stdin": stdin, "stdout": True, "stderr": pty is None, "tty": pty is not None}
    query = (
        ("container", chosen_container(pod, container)),
        *((key, "true") for key, is_on in flags.items() if is_on),
        *(("command", word) for word in argv),
    )
    line = await requests.wire.open()
    try:
        stream = _Program(requests, line, pod)
        await stream.begin(Call("GET", _path(pod, "exec"), query))
        if pty is not None:
            await stream.resize(*pty)
        async with aclosing(stream):
            yield stream
    finally:
        line.close()


class _Program:
    """Implements `Stream` on a WebSocket with Kubernetes' channels."""

    def __init__(self, requests: Requests, line: Line, pod: Pod) -> None:
        self._requests, self._line, self._pod = requests, line, pod
        self._socket = WSConnection(ConnectionType.CLIENT)
        self._writing = asyncio.Lock()
        self._status: int | None = None
        self._part = b""

    async def begin(self, call: Call) -> None:
        """Returns when the program is started; the API's error when it is refused."""
        wire = self._requests.wire
        headers = [(b"korch-client", b"1"), *((name.encode(), value.encode()) for name, value in wire.credential)]
        await self._send(Request(host=wire.netloc, target=call.target, subprotocols=[_PROTOCOL], extra_headers=headers))
        refused, body = 0, b""
        try:
            async with asyncio.timeout(_UPGRADE_S):
                async for event in self._events():
                    match event:
                        case AcceptConnection():
                            return
                        case RejectConnection(status_code=code, has_body=False):
                            raise self._requests.error_in(code, b"")
                        case RejectConnection(status_code=code):
                            refused = code
                        case RejectData(data=data, body_finished=finished):
                            body += data
                            if finished:
                                raise self._requests.error_in(refused, body)
        except TimeoutError as error:
            raise self._lost() from error
        raise self._lost()

    async def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        """What the program writes, until it ends or the connection does."""
        try:
            async for event in self._events():
                if isinstance(event, CloseConnection):
                    return
                if not isinstance(event, BytesMessage):
                    continue
                self._part += event.data
                if not event.message_finished:
                    continue
                channel, data, self._part = self._part[:1], self._part[1:], b""
                if channel in {b"\x01", b"\x02"} and data:
                    yield channel[0], data
                elif channel == b"\x03":
                    self._status = self._status_in(data)
        except HostUnreachableError:
            return

    async def wait(self) -> int:
        """The exit status; -1 when the connection broke before it came."""
        if self._status is None:
            async for _ in self.chunks():
                pass
        return -1 if self._status is None else self._status

    async def write(self, data: bytes) -> None:
        """Input."""
        for at in range(0, len(data), _FRAME_BYTES):
            await self._send(BytesMessage(data=bytes((_STDIN,)) + data[at : at + _FRAME_BYTES]))

    async def write_eof(self) -> None:
        """No more input."""
        await self._send(BytesMessage(data=bytes((_CLOSE, _STDIN))))

    async def resize(self, columns: int, rows: int) -> None:
        """The size of the terminal."""
        size = json.dumps({"Width": columns, "Height": rows}).encode()
        await self._send(BytesMessage(data=bytes((_RESIZE,)) + size))

    async def aclose(self) -> None:
        """Hang up."""
        if self._status is None:
            self._line.close()

    async def _events(self) -> AsyncIterator[Event]:
        while True:
            for event in self._socket.events():
                if isinstance(event, Ping):
                    await self._send(event.response())
                yield event
            try:
                data = await self._line.reader.read(_CHUNK)
                self._socket.receive_data(data or None)
            except (OSError, ProtocolError) as error:
                raise self._lost() from error
            if not data:
                raise self._lost()

    async def _send(self, event: Event) -> None:
        async with self._writing:
            try:
                self._line.writer.write(self._socket.send(event))
                await self._line.writer.drain()
            except (OSError, ProtocolError) as error:
                raise self._lost() from error

    def _status_in(self, data: bytes) -> int:
        """The exit status that the last frame tells of; raises when the program could not be run."""
        try:
            said = json.loads(data)
            if said.get("status") == "Success":
                return 0
            if said.get("reason") == "NonZeroExitCode":
                return int(said["details"]["causes"][0]["message"])
            message = str(said.get("message", ""))
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            message = "the program's end is not understood"
        if message.startswith("the connection to the node broke"):
            return -1
        raise CommandFailedError(f"{self._pod.metadata.name}: {message}", host=self._pod.spec.node_name)

    def _lost(self) -> KorchError:
        return HostUnreachableError(
            f"the connection to the API at {self._requests.access.server} broke", host=self._requests.wire.host
        )
