"""The API on a TLS port, in the event loop of whoever runs it, for as long as a block lasts.

A second master of the same cluster on this machine finds the port taken by the first: it waits for it, and serves when
the other one is gone, so that kubeconfigs stay good.
"""

import asyncio
import logging
import os
import resource
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from uvicorn.config import Config
from uvicorn.server import ServerState

from korch.api.security.guard import Guard
from korch.api.security.pki import Authority, ServerCertificate, load_authority
from korch.api.security.transport import HttpProtocol, SocketProtocol
from korch.errors import KorchError, SetupError
from korch.objects.values import Clock
from korch.store.base import Store

log = logging.getLogger(__name__)

DEFAULT_ADDRESS, DEFAULT_PORT = "127.0.0.1", 6443
RECORD_KEY = "/korch.dev/api"
_HANDSHAKE_S = 10.0
_ANSWER_S = 3.0  # of a master that has the port
_IDLE_S = 90.0  # Go's clients keep idle connections for 90 s
_HEADER_BYTES = 65_536
_MESSAGE_BYTES = 4 * 1024 * 1024  # of a WebSocket
_TLS_BUFFER_BYTES = 32 * 1024  # two records of TLS
_SILENT_S = 60.0  # of a WebSocket that is asked for a sign of life
_STOP_S = 3.0
_MOST_CONNECTIONS = 4096
_TAKEN_POLL_S = 1.0
_RENEWAL_POLL_S = 5.0  # a machine that slept for months must not be shut for long
_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104


class ApiRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API was last served; whether it still is, only a request can tell."""

    url: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where to serve, and with which authority's certificates. `address`: an address or name of this machine,
    which clients may also call by `names`.
    """

    folder: Path
    cluster: str
    address: str = DEFAULT_ADDRESS
    port: int = DEFAULT_PORT
    names: tuple[str, ...] = ()

    @property
    def pki(self) -> Path:
        """The folder of keys and certificates."""
        return self.folder / "pki"


@asynccontextmanager
async def serving(guard: Guard, place: Place, *, store: Store, clock: Clock) -> AsyncIterator[Callable[[], str]]:
    """A block in which the API is served; gives a function that tells its URL ("" while another master has the port).

    `SetupError` when the port is taken by something else.
    """
    authority = load_authority(place.pki, place.cluster, now=clock.now())
    certificate = ServerCertificate(place.pki, authority, _names(place))
    certificate.renew(clock.now())
    server = _Server(guard, place, authority, certificate)
    bound = await _bind(place, authority, store)
    if bound is not None:
        await server.start(bound, store)
    tasks = [asyncio.create_task(server.keep_certificate(clock), name="api-certificate")]
    if bound is None:
        log.info("port %d is served by another master of this cluster; this one serves when it is gone", place.port)
        tasks.append(asyncio.create_task(server.start_when_free(store), name="api-port"))
    try:
        yield lambda: server.url
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        guard.stop()
        await server.stop()


async def where(store: Store) -> str:
    """The URL at which the API was last served, else the default one."""
    found = await _record(store)
    return found.url if found is not None else f"https://{DEFAULT_ADDRESS}:{DEFAULT_PORT}"


async def was_served(store: Store) -> bool:
    """Whether a master of this state has ever served the API."""
    return await _record(store) is not None


async def _record(store: Store) -> ApiRecord | None:
    found = await store.get(RECORD_KEY)
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(found.value, type=ApiRecord) if found is not None else None
    return None


class _Server:
    """uvicorn's protocols on a listening socket."""

    def __init__(self, guard: Guard, place: Place, authority: Authority, certificate: ServerCertificate) -> None:
        self._place, self._authority, self._certificate = place, authority, certificate
        self._state = ServerState()
        self._config = Config(
            guard,
            http=HttpProtocol,
            ws=SocketProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nobody but the peer itself says where it is
            server_header=False,
            date_header=False,
            ws_per_message_deflate=False,
            ws_max_size=_MESSAGE_BYTES,
            ws_ping_timeout=_SILENT_S,
            limit_concurrency=_most_connections(),
            timeout_keep_alive=int(_IDLE_S),
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # its words hold queries; what matters is audited
        self._config.load()
        SSLProtocol.max_size = _TLS_BUFFER_BYTES  # asyncio's 256 KiB a connection are most of what a watcher costs
        self._context = self._make_context()
        self._server: asyncio.Server | None = None
        self.url = ""

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.options |= ssl.OP_NO_TICKET  # each connection shows its certificate anew
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        context.load_verify_locations(cadata=self._authority.pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(self._certificate.path)
        return context

    async def start(self, bound: socket.socket, store: Store) -> None:
        """Serve on the socket, and put on record where."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpProtocol(self._config, self._state, {}, loop),
            sock=bound,
            ssl=self._context,
            ssl_handshake_timeout=_HANDSHAKE_S,
            ssl_shutdown_timeout=_STOP_S,
        )
        self.url = _url(self._place.address, bound.getsockname()[1])
        record = ApiRecord(url=self.url, host=socket.gethostname(), pid=os.getpid())
        await store.put(RECORD_KEY, msgspec.json.encode(record))
        log.info("API: %s", self.url)

    async def start_when_free(self, store: Store) -> None:
        """Serve as soon as the other master's port is free."""
        while True:
            await asyncio.sleep(_TAKEN_POLL_S)
            try:
                bound = await _bind(self._place, self._authority, store)
                if bound is not None:
                    await self.start(bound, store)
                    return
            except (KorchError, OSError) as error:
                log.warning("%s; trying again", error)
                await asyncio.sleep(10 * _TAKEN_POLL_S)

    async def keep_certificate(self, clock: Clock) -> None:
        """Renew the certificate in time, by the wall clock: who has slept for months wakes up with an old one."""
        while True:
            await asyncio.sleep(_RENEWAL_POLL_S)
            try:
                renewed = await asyncio.to_thread(self._certificate.renew, clock.now())
                if renewed:
                    log.info("the server's certificate was renewed")
                self._context.load_cert_chain(self._certificate.path)  # perhaps another master has renewed it
            except (KorchError, OSError) as error:
                log.error("the server's certificate could not be renewed: %s; trying again", error)
            except Exception:
                log.exception("renewing the server's certificate failed; this is a bug in korch; trying again")

    async def stop(self) -> None:
        """Let what is nearly done end, then hang up."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            with suppress(Exception):  # whatever state it is in, the others have to be told too
                connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self._state.tasks:
                    await asyncio.wait(set(self._state.tasks))
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        self.url = ""


async def _bind(place: Place, authority: Authority, store: Store) -> socket.socket | None:
    """A socket on the place's port; None when another master of this cluster has it. `SetupError` when others do."""
    try:
        return _listener(place.address, place.port)
    except OSError as error:
        if await _is_ours(place, authority, store):
            return None
        reason = error.strerror or str(error)
        raise SetupError(
            f"the API cannot be served on {place.address} port {place.port}: {reason.lower()}",
            hint="Choose another place with --api-port (0: any free one) and --api-address, or --no-api.",
        ) from error


def _listener(address: str, port: int) -> socket.socket:
    family, kind, proto, _, where_ = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _notice_the_dead(bound)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
        bound.bind(where_)
        bound.listen(1024)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _notice_the_dead(bound: socket.socket) -> None:
    """Connections that are accepted here end a minute after their client's machine went away without a word."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _is_ours(place: Place, authority: Authority, store: Store) -> bool:
    """Whether who listens there has a certificate of this cluster's authority, or is a frozen master of it."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    address = "127.0.0.1" if place.address in _ANY else place.address
    try:
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(address, place.port, ssl=context, server_hostname="localhost")
            writer.transport.abort()
    except TimeoutError:
        return await _is_recorded(place, store)
    except OSError:
        return False
    return True


async def _is_recorded(place: Place, store: Store) -> bool:
    """Whether the process that served the API there last is alive."""
    found = await _record(store)
    if found is None or found.host != socket.gethostname() or urlsplit(found.url).port != place.port:
        return False
    try:
        os.kill(found.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        return True
    return True


def _names(place: Place) -> tuple[str, ...]:
    """What clients may call this server."""
    host = socket.gethostname()
    own = (host,) if host.isascii() and 0 < len(host) <= 253 else ()
    reached = sorted(_outgoing()) if place.address in _ANY else (place.address,)
    return ("localhost", "127.0.0.1", "::1", *own, *reached, *place.names)


def _outgoing() -> set[str]:
    """The addresses that this machine has towards others; nothing is sent."""
    found = set()
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            found.add(str(probe.getsockname()[0]).partition("%")[0])
    return found


def _url(address: str, port: int) -> str:
    host = "127.0.0.1" if address in _ANY else address
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _most_connections() -> int:
    """Half of the files that this process may have open: the rest is for SSH and the store. A watch is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, soft // 2)
