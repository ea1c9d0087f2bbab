"""A plain HTTP door on loopback for a browser or curl: what comes in goes on to the API with our credential.

Each connection carries one request, whose head is read and written anew; then bytes are passed on as they are, so that
watches and WebSockets work. Web pages of strangers that a browser has open could reach this door too: they are told
apart by the Host and Origin that browsers send.
"""

import asyncio
import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

from korch.api.security.statuses import status_body
from korch.errors import HostUnreachableError, SetupError

log = logging.getLogger(__name__)

_HEAD_BYTES = 65_536
_HEAD_S = 15.0
_CHUNK = 65_536
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_OURS = frozenset(
    {b"authorization", b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"host"}
)
_FRAMING = frozenset({b"upgrade", b"content-length", b"transfer-encoding"})
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Upstream:
    """The API, and how we are let in."""

    url: str
    context: ssl.SSLContext
    token: str = field(repr=False)


def refusal(headers: Headers, address: str) -> str:
    """Why a request is not passed on, or "". `address`: what this door listens on."""
    allowed = _LOOPBACK | {address}
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or _hostname(hosts[0]) not in allowed:
        return "the Host of this request is none of this machine's"
    for name, value in headers:
        if name == b"origin" and _hostname_of_url(value) not in allowed:
            return "requests of other sites' pages are not passed on"
        if name == b"sec-fetch-site" and value.lower() == b"cross-site":
            return "requests of other sites' pages are not passed on"
    return ""


def head_for(request: h11.Request, upstream: Upstream) -> bytes:
    """The request as it goes on: our credential, and the end of the connection after the answer."""
    values = b",".join(value for name, value in request.headers if name == b"connection")
    named = {word.strip().lower() for word in values.split(b",")}
    upgrade = b"upgrade" in named
    dropped = _OURS | (named - _FRAMING)
    kept = [
        (name, value)
        for name, value in request.headers
        if name not in dropped and not name.startswith(b"impersonate-") and (upgrade or name != b"upgrade")
    ]
    ours = [
        (b"host", urlsplit(upstream.url).netloc.encode()),
        (b"authorization", b"Bearer " + upstream.token.encode()),
        (b"connection", b"Upgrade" if upgrade else b"close"),
    ]
    lines = [request.method + b" " + request.target + b" HTTP/1.1", *(n + b": " + v for n, v in (*ours, *kept))]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def reach(upstream: Upstream) -> None:
    """Returns when the API answers there. `HostUnreachableError`."""
    place = urlsplit(upstream.url)
    host = place.hostname or ""
    try:
        async with asyncio.timeout(_HEAD_S):
            _, writer = await asyncio.open_connection(
                host, place.port or 443, ssl=upstream.context, server_hostname=host
            )
            writer.transport.abort()
    except (OSError, TimeoutError) as error:
        raise HostUnreachableError(
            f"the API does not answer at {upstream.url}: {error}",
            host=host,
            hint="`korch master` serves it; --server names another place.",
        ) from error


class Proxy:
    """The door. `serve` gives the server, which the caller closes."""

    def __init__(self, upstream: Upstream, *, address: str = "127.0.0.1") -> None:
        self.upstream, self._address = upstream, address

    async def serve(self, port: int) -> asyncio.Server:
        """Listen. `SetupError` when the port is taken."""
        try:
            return await asyncio.start_server(self._answer, self._address, port, limit=_HEAD_BYTES)
        except OSError as error:
            raise SetupError(
                f"{self._address} port {port} cannot be used: {(error.strerror or str(error)).lower()}",
                hint="Choose another with --port (0: any free one).",
            ) from error

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, h11.RemoteProtocolError):
                async with asyncio.timeout(_HEAD_S):
                    request, rest = await _read_head(reader)
                if problem := refusal(list(request.headers), self._address):
                    await _say(writer, 403, "Forbidden", problem)
                else:
                    await self._pass_on(request, rest, reader, writer)
        finally:
            writer.close()

    async def _pass_on(
        self, request: h11.Request, rest: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        place = urlsplit(self.upstream.url)
        try:
            there, onward = await asyncio.open_connection(
                place.hostname, place.port or 443, ssl=self.upstream.context, server_hostname=place.hostname
            )
        except (OSError, ssl.SSLError) as error:
            await _say(writer, 502, "BadGateway", f"the API at {self.upstream.url} cannot be reached: {error}")
            return
        try:
            onward.write(head_for(request, self.upstream) + rest)
            sending = asyncio.create_task(_copy(reader, onward))
            try:
                await _copy(there, writer)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            onward.transport.abort()


async def _read_head(reader: asyncio.StreamReader) -> tuple[h11.Request, bytes]:
    """The head of a request, and what came after it already."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event, connection.trailing_data[0]
        data = await reader.read(_CHUNK)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        connection.receive_data(data)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


async def _say(writer: asyncio.StreamWriter, code: int, reason: str, text: str) -> None:
    body = status_body(code, reason, text)
    head = f"HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    await writer.drain()


def _hostname(host: bytes) -> str:
    return _hostname_of_url(b"//" + host)


def _hostname_of_url(url: bytes) -> str:
    try:
        return urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:
        return ""
