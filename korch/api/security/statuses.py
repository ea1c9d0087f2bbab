"""Refusals on the wire: a Status object, over HTTP or instead of a WebSocket's greeting."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def status_body(code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> bytes:
    """A failure as Kubernetes writes it, keys in its order."""
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    status |= {"message": message, "reason": reason}
    if details:
        status["details"] = {key: value for key, value in details.items() if value not in ("", None)}
    status["code"] = code
    return json.dumps(status, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


async def refuse(
    scope: Scope,
    send: Send,
    code: int,
    reason: str,
    message: str,
    *,
    details: dict[str, Any] | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Answer with a failure. The connection ends when a body may still be on its way to us."""
    body = status_body(code, reason, message, details)
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    sized = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": f"{kind}.start", "status": code, "headers": sized})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
