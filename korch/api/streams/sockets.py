"""A WebSocket as messages of bytes, with an end that is no error; and work that ends together."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

IDLE_S = 4 * 3600.0  # without a byte in either direction; Kubernetes' own limit
POLICY, TOO_LARGE, FAILED = 1008, 1009, 1011  # codes of RFC 6455 section 7.4.1
_REASON_BYTES = 120


class GoneError(Exception):
    """The client is not there any more."""


class Talk:
    """An accepted WebSocket. The server stops reading from the network while messages wait to be received."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.active_at = asyncio.get_running_loop().time()

    async def receive(self) -> bytes | None:
        """The next message, text as UTF-8; None when the client has gone."""
        try:
            message = await self._socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            return None
        self.active_at = asyncio.get_running_loop().time()
        if message["type"] != "websocket.receive":
            return None
        data: bytes | None = message.get("bytes")
        return data if data is not None else str(message.get("text") or "").encode("utf-8", "replace")

    async def send(self, data: bytes) -> None:
        """A message; waits while the client does not read. Raises `GoneError`."""
        try:
            await self._socket.send_bytes(data)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise GoneError from error
        self.active_at = asyncio.get_running_loop().time()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say good-bye; to whom has gone is fine."""
        with suppress(WebSocketDisconnect, RuntimeError, OSError):
            await self._socket.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))

    async def idle(self) -> None:
        """Returns when nothing was said for too long."""
        await quiet(lambda: self.active_at)


async def quiet(active_at: Callable[[], float], limit_s: float = IDLE_S) -> None:
    """Returns when so long has passed since the last act, on the loop's clock."""
    loop = asyncio.get_running_loop()
    while (left := active_at() + limit_s - loop.time()) > 0:  # noqa: ASYNC110 — acts only put the end off
        await asyncio.sleep(left)


async def first_of(works: Sequence[Coroutine[Any, Any, Any]]) -> int:
    """The index of the work that ended first; the others are cancelled, and have ended. Raises what that one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done = next(index for index, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    tasks[done].result()
    return done
