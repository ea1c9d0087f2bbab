"""HTTP/1.1 over TLS to one API: requests on connections that are kept, answers whole or piece by piece.

It knows nothing of objects. What goes wrong on the way is an `ApiUnreachableError`, or a `HostRefusedError` when who
answers is not who was meant.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import h11

from korch import __version__
from korch.client.kubeconfig import Access
from korch.errors import HostRefusedError, HostUnreachableError

CONNECT_S = 10.0
ANSWER_S = 75.0  # the API gives up after 60 s by itself
_CHUNK = 262_144
_HINT = "`korch master` serves it; --server names another place."


class ApiUnreachableError(HostUnreachableError):
    """The API itself, not a node of which it tells, gives no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `query`: pairs, of which several may have one name."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_type: str = "application/json"
    accept: str = "application/json"

    @property
    def target(self) -> str:
        """As it stands in the request."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


class Line:
    """One connection, on which one request after the other is answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> None:
        self.reader, self.writer, self._url = reader, writer, url
        self._state = h11.Connection(h11.CLIENT)

    async def send(self, head: h11.Request, body: bytes) -> h11.Response:
        """The head of the answer."""
        with _broken(self._url):
            parts = [self._state.send(head), self._state.send(h11.Data(body)) if body else b""]
            self.writer.write(b"".join(filter(None, (*parts, self._state.send(h11.EndOfMessage())))))
            await self.writer.drain()
            while not isinstance(event := await self._event(), h11.Response):
                pass
            return event

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. `HostUnreachableError` when the connection ends before it does."""
        with _broken(self._url):
            while True:
                match await self._event():
                    case h11.Data(data=data):
                        yield bytes(data)
                    case h11.EndOfMessage():
                        return

    async def _event(self) -> h11.Event:
        while (event := self._state.next_event()) is h11.NEED_DATA:
            self._state.receive_data(await self.reader.read(_CHUNK))
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise ConnectionResetError("the connection was closed")
        assert not isinstance(event, type)
        return event

    def rested(self) -> bool:
        """Whether another request may be sent; False once the server has hung up."""
        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE or self.reader.at_eof():
            return False
        self._state.start_next_cycle()
        return True

    def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


class Wire:
    """Connections to one API, and what every request carries."""

    def __init__(self, access: Access, *, buffer_bytes: int = 4 * _CHUNK) -> None:
        self.access, self._tls, self._buffer_bytes = access, access.tls(), buffer_bytes
        place = urlsplit(access.server)
        self.host, self._port = place.hostname or "", place.port or 443
        self.netloc = place.netloc
        self._idle: list[Line] = []

    @property
    def credential(self) -> tuple[tuple[str, str], ...]:
        """The header that lets us in; a certificate does so by itself."""
        return (("authorization", f"Bearer {self.access.token}"),) if self.access.token else ()

    async def open(self) -> Line:
        """A new connection."""
        name = self.access.server_name or self.host
        with _broken(self.access.server):
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    self.host, self._port, ssl=self._tls, server_hostname=name, limit=self._buffer_bytes
                )
        _notice_the_dead(writer)
        if self._buffer_bytes < _CHUNK:  # somebody who wants to hear no more than is read
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        return Line(reader, writer, self.access.server)

    async def ask(self, call: Call, *, answer_s: float = ANSWER_S) -> Answer:
        """The whole answer."""
        try:
            async with asyncio.timeout(answer_s) as end, self.answering(call) as (head, pieces):
                body = b"".join([piece async for piece in pieces])
        except TimeoutError as error:
            if not end.expired():
                raise
            raise _unreachable(self.access.server, f"no answer within {answer_s:.0f} s") from error
        return Answer(head.status_code, _headers(head), body)

    @asynccontextmanager
    async def answering(self, call: Call) -> AsyncIterator[tuple[h11.Response, AsyncGenerator[bytes, None]]]:
        """A block with the head of an answer, and its body as it comes."""
        line = self._rested() or await self.open()
        kept = False
        try:
            pieces = line.pieces()
            yield await line.send(self._head(call), call.body), pieces
            await pieces.aclose()
            kept = line.rested()
        finally:
            if kept:
                self._idle.append(line)
            else:
                line.close()

    def _rested(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if not line.reader.at_eof():
                return line
            line.close()
        return None

    def _head(self, call: Call) -> h11.Request:
        headers = [
            ("host", self.netloc),
            ("user-agent", f"korch/{__version__}"),
            ("accept", call.accept),
            ("korch-client", "1"),
            *self.credential,
        ]
        if call.body or call.method in {"POST", "PUT", "PATCH"}:
            headers += [("content-type", call.content_type), ("content-length", str(len(call.body)))]
        return h11.Request(method=call.method, target=call.target, headers=headers)

    async def close(self) -> None:
        """Hang up."""
        for line in self._idle:
            line.close()
        self._idle.clear()
        await asyncio.sleep(0)  # what was aborted is taken down in the next round of the loop


def _headers(head: h11.Response) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}


@contextmanager
def _broken(url: str) -> Iterator[None]:
    """A block whose network errors become errors that name the API."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise HostRefusedError(
            f"who answers at {url} is not the API that the kubeconfig means: {error.verify_message}",
            host=url,
            hint="After a cluster was made anew: `korch kubeconfig` makes a new one.",
        ) from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise _unreachable(url, "the connection was closed") from error
    except ssl.SSLError as error:
        raise HostRefusedError(
            f"the API at {url} ends the connection: {error.reason or error}",
            host=url,
            hint="Perhaps the certificate is of another cluster: `korch kubeconfig` makes one.",
        ) from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise _unreachable(url, _words(error)) from error


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _unreachable(url: str, why: str) -> ApiUnreachableError:
    return ApiUnreachableError(f"the API does not answer at {url}: {why}", host=url, hint=_HINT)


def _notice_the_dead(writer: asyncio.StreamWriter) -> None:
    """A connection whose other machine went away without a word ends after a minute."""
    connected = writer.get_extra_info("socket")
    with suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
