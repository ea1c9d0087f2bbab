"""The door of the API: who asks, may they, not too much of it, and what came of it in the audit log.

An ASGI app around the one that answers. Nothing passes without a credential but health and version.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from korch.api.requestinfo import RequestInfo, is_own, request_info, truth
from korch.api.security.audit import AuditLog
from korch.api.security.authenticate import Authenticator, impersonated
from korch.api.security.authorize import READ, refusal
from korch.api.security.limits import BodyCutOffError, BodyTooLargeError, Buckets, Limits, Open, TooManyError, Turnstile
from korch.api.security.permissions import Permissions
from korch.api.security.statuses import App, Message, Receive, Scope, Send, refuse
from korch.api.security.users import User
from korch.errors import ForbiddenError, KorchError
from korch.objects.values import Clock
from korch.resources.times import rfc3339_micro

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_STREAMS = frozenset({"exec", "attach", "portforward", "log", "proxy"})
_ALWAYS = ((b"cache-control", b"no-cache, private"), (b"x-content-type-options", b"nosniff"))
_RETRY = ((b"retry-after", b"1"),)
_CLOSE = (b"connection", b"close")
_DRAINED_BYTES = 65_536
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._~:@=,+-]*", re.ASCII)


@dataclass(slots=True)
class _Call:
    """One request on its way: what it wants, by whom, and what was answered so far."""

    scope: Scope
    receive: Receive
    send: Send
    info: RequestInfo
    user: User | None = None
    status: int = 0
    complete: bool = False
    received: int = 0
    body_read: bool = True
    too_large: bool = False
    started: float | None = None  # when it was noted that it began

    @property
    def lasts(self) -> bool:
        """Whether it is meant to last: a watch, a log, a terminal."""
        stream = self.info.subresource.partition("/")[0] in _STREAMS
        return self.scope["type"] == "websocket" or self.info.verb == "watch" or stream


class Guard:
    """Lets requests through to `app`, with `user` and `info` in the scope's state. `stop` ends what is open."""

    def __init__(
        self,
        app: App,
        authenticator: Authenticator,
        permissions: Permissions,
        *,
        clock: Clock,
        limits: Limits | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._app, self._authenticator, self._permissions = app, authenticator, permissions
        self._clock, self._limits, self._audit = clock, limits or Limits(), audit
        self._turnstile = Turnstile(self._limits)
        self._failures = Buckets(self._limits.failures_per_s, self._limits.failures_burst)
        self._told = Buckets(0.2, 1.0)
        self._stopping = asyncio.Event()

    @property
    def open_now(self) -> Mapping[str, Open]:
        """What each user has open."""
        return self._turnstile.open

    def stop(self) -> None:
        """End watches and other streams; they end as if the server had no more to say."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in {"http", "websocket"}:
            return
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        method = scope["method"] if scope["type"] == "http" else "GET"
        call = _Call(scope, receive, send, request_info(method, scope["path"], query))
        call.body_read = not (_announced(scope) or _header(scope, b"transfer-encoding"))
        try:
            await self._answer(call, query)
        finally:
            self._note(call, call.status or "gone")

    async def _answer(self, call: _Call, query: Mapping[str, str]) -> None:
        if problem := path_problem(call.scope):
            await self._refuse(call, 400, "BadRequest", problem)
        elif _header(call.scope, b"sec-fetch-site") == "cross-site":  # a browser adds certificates by itself
            await self._refuse(call, 403, "Forbidden", "requests of other sites' pages are not answered")
        elif call.info.path in OPEN_PATHS and call.info.verb in {"get", "head"}:
            await self._through(call, f"{_address(call.scope)} without a name", follows=False)
        elif await self._let_in(call):
            assert call.user is not None
            call.scope.setdefault("state", {}).update(user=call.user, info=call.info)
            await self._through(call, call.user.name, follows=truth(query.get("follow")))

    async def _through(self, call: _Call, client: str, *, follows: bool) -> None:
        """To the app, as long as the client has not too much open already."""
        stream = call.lasts and call.user is not None
        try:
            with self._turnstile.passing(client, _now(), stream=stream):
                await (self._stream(call, follows) if stream else self._pass(call))
        except TooManyError:
            await self._too_many(call)

    # Who, and may they

    async def _let_in(self, call: _Call) -> bool:
        try:
            user = await self._authenticator.user_of(call.scope)
            if user is None:
                await self._unknown(call)
                return False
            call.user = user
            call.user = impersonated(user, call.scope["headers"])
            allowed, _ = await self._permissions.allowed(call.user, call.info)
        except ForbiddenError as error:
            await self._refuse(call, 403, "Forbidden", str(error))
            return False
        except KorchError as error:
            await self._refuse(call, error.http_status, error.reason, str(error))
            return False
        if allowed:
            return True
        details = {"name": call.info.name, "group": call.info.group, "kind": call.info.resource}
        await self._refuse(call, 403, "Forbidden", refusal(call.user, call.info), details)
        return False

    async def _unknown(self, call: _Call) -> None:
        """Nobody that we know. Who is wrong all the time has to wait; others at the same address do not."""
        if self._failures.take(_address(call.scope), _now()):
            await self._refuse(call, 401, "Unauthorized", "Unauthorized")
        else:
            await self._too_many(call)

    # Passing on

    async def _pass(self, call: _Call) -> None:
        """An ordinary request: it has a limited body and a limited time."""
        if _announced(call.scope) > self._limits.body_bytes:
            await self._too_large(call)
            return
        try:
            async with asyncio.timeout(self._limits.work_s if is_own(call.info) else self._limits.request_s):
                await self._app(call.scope, self._bounded(call), self._watched(call))
        except TimeoutError:
            if call.status:
                raise
            text = "Timeout: request did not complete within the allotted time"
            await self._refuse(call, 504, "Timeout", text)
        except BodyCutOffError:
            call.status = call.status or 400  # there is nobody to tell
        except Exception:
            if not call.too_large:
                log.exception("%s %s failed; this is a bug in korch", call.info.verb, call.info.path)
                if call.status:
                    raise
                await self._refuse(call, 500, "InternalError", "Internal error occurred")
        if call.too_large and not call.status:
            await self._too_large(call)

    async def _stream(self, call: _Call, follows: bool) -> None:
        """A request that lasts: until it is done, the credential no longer counts, or the server stops."""
        if follows or call.info.subresource != "log":
            self._note(call, "started")
            call.started = _now()
        work = asyncio.ensure_future(self._app(call.scope, self._bounded(call), self._watched(call)))
        ended = asyncio.ensure_future(self._ended(call))
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            cut = not work.done()
            work.cancel()
            results = await asyncio.gather(work, ended, return_exceptions=True)
        if cut:
            await self._finish(call)
        elif isinstance(results[0], Exception):
            await self._failed(call, results[0])

    async def _failed(self, call: _Call, error: Exception) -> None:
        log.error("%s %s failed; this is a bug in korch", call.info.verb, call.info.path, exc_info=error)
        if call.status:
            raise error
        await self._refuse(call, 500, "InternalError", "Internal error occurred")

    async def _ended(self, call: _Call) -> None:
        """Returns when the stream has to end."""
        assert call.user is not None
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._limits.recheck_s):
                    await self._stopping.wait()
            except TimeoutError:
                with suppress(KorchError):  # a store that fails for a moment ends nothing
                    if not await self._may_stay(call.user, call.info):
                        return

    async def _may_stay(self, user: User, info: RequestInfo) -> bool:
        """Whether the credential still counts, and what it stands for is still allowed."""
        known = await self._authenticator.still_valid(user)
        return known and (await self._permissions.allowed(user, info))[0]

    async def _finish(self, call: _Call) -> None:
        """A clean end of what was cut off."""
        if call.complete:
            return
        if not call.status:
            await self._refuse(call, 503, "ServiceUnavailable", "the server is stopping")
        elif call.scope["type"] == "http":
            await call.send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            with suppress(Exception):  # the peer may have closed it meanwhile
                await call.send({"type": "websocket.close", "code": 1001})

    def _bounded(self, call: _Call) -> Receive:
        async def receive() -> Message:
            message = await call.receive()
            if message["type"] == "http.request":
                call.received += len(message.get("body", b""))
                call.body_read = not message.get("more_body", False)
                if call.received > self._limits.body_bytes:
                    call.too_large = True
                    raise BodyTooLargeError("the body is too large")
            elif message["type"] == "http.disconnect" and not call.body_read:
                raise BodyCutOffError("the client went before it had sent all of the body")
            return message

        return receive

    def _watched(self, call: _Call) -> Send:
        async def send(message: Message) -> None:
            if call.too_large and not call.status:
                return  # whatever the app makes of half a body, the answer is ours
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    call.status = message["status"]
                    message = {**message, "headers": [*message.get("headers", ()), *_ALWAYS]}
                case "websocket.accept":
                    call.status = 101
            last = message["type"].endswith("response.body") and not message.get("more_body", False)
            call.complete = call.complete or last or message["type"] == "websocket.close"
            await call.send(message)

        return send

    # Refusing

    async def _refuse(
        self, call: _Call, code: int, reason: str, text: str, details: dict[str, Any] | None = None
    ) -> None:
        call.status, call.complete = code, True
        headers = (_CLOSE,) if _brings_much(call.scope) else ()
        await refuse(call.scope, call.send, code, reason, text, details=details, headers=headers)

    async def _too_many(self, call: _Call) -> None:
        call.status, call.complete = 429, True
        text = "Too many requests, please try again later."
        details = {"retryAfterSeconds": 1}
        await refuse(call.scope, call.send, 429, "TooManyRequests", text, details=details, headers=_RETRY)

    async def _too_large(self, call: _Call) -> None:
        call.status, call.complete = 413, True
        text = f"Request entity too large: limit is {self._limits.body_bytes}"
        await refuse(call.scope, call.send, 413, "RequestEntityTooLarge", text, headers=(_CLOSE,))

    # The audit log

    def _note(self, call: _Call, result: int | str) -> None:
        """One line; two for what lasts: that it began, and how it ended and after how long."""
        if self._audit is None or _is_dull(call):
            return
        if call.status == 429 and not self._told.take(_address(call.scope), _now()):
            return  # a client that runs wild must not push everything else out of the log
        info, user = call.info, call.user
        self._audit.write(
            {
                "time": rfc3339_micro(self._clock.now()),
                "user": (user.impersonator or user.name) if user else "",
                "as": user.name if user and user.impersonator else "",
                "credential": user.credential if user else "",
                "from": _address(call.scope),
                "agent": _header(call.scope, b"user-agent"),
                "verb": info.verb,
                "path": "" if info.is_resource else info.path,
                "group": info.group,
                "resource": f"{info.resource}/{info.subresource}" if info.subresource else info.resource,
                "namespace": info.namespace,
                "name": info.name,
                "result": result,
                "seconds": None if call.started is None else round(_now() - call.started, 3),
            }
        )


def path_problem(scope: Scope) -> str:
    """Why a path is refused, or "": what two readers could split in different ways is read by none."""
    raw, path = bytes(scope.get("raw_path") or b"").lower(), scope["path"]
    if b"%2f" in raw or not _PLAIN_PATH.fullmatch(path) or not {".", ".."}.isdisjoint(path.split("/")):
        return "the path holds what no name of an object can hold"
    return ""


def _address(scope: Scope) -> str:
    """Where the peer is."""
    return str((scope.get("client") or ("",))[0])


def _is_dull(call: _Call) -> bool:
    """Whether nobody will ever look for it: discovery and health that went well."""
    return not call.info.is_resource and call.info.verb in {*READ, "head"} and 200 <= call.status < 300


def _brings_much(scope: Scope) -> bool:
    """Whether a body is on its way that is not worth reading to its end."""
    return _announced(scope) > _DRAINED_BYTES or bool(_header(scope, b"transfer-encoding"))


def _announced(scope: Scope) -> int:
    text = _header(scope, b"content-length")
    return int(text) if text.isascii() and text.isdigit() else 0


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _now() -> float:
    return asyncio.get_running_loop().time()
