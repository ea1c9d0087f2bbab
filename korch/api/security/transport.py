"""uvicorn's two protocols with what this API needs beyond: the peer's certificate, and an end to idle connections."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from korch.api.security.statuses import App, Receive, Scope, Send

FIRST_REQUEST_S = 15.0  # from the connection, or from the first byte of a request, to the end of its headers


def _with_certificate(app: App, transport: asyncio.BaseTransport) -> App:
    certificate = transport.get_extra_info("peercert")

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["peercert"] = certificate
        await app(scope, receive, send)

    return call


class HttpProtocol(H11Protocol):
    """HTTP/1.1. A client that does not finish the headers of a request in time is hung up on."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self.app = _with_certificate(self.app, transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """The timer runs from the first byte of a head until it is whole."""
        before = self.scope
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        super().data_received(data)
        if self.scope is not before:
            self._forget_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._forget_timer()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(FIRST_REQUEST_S, self._hang_up)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hang_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """From here on another protocol has the connection."""
        self._forget_timer()
        super().handle_websocket_upgrade(event)


class SocketProtocol(WSProtocol):
    """WebSockets."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """An upgraded connection."""
        super().connection_made(transport)
        self.app = _with_certificate(self.app, transport)  # type: ignore[arg-type,assignment]
