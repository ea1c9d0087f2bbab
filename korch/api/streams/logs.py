"""`pods/log`: what a container wrote, as plain text while it is written."""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from korch.api.answers import Refusal, bad_request, refusal_answer
from korch.api.requestinfo import truth
from korch.api.streams.door import LogWish, Seen
from korch.api.streams.sockets import first_of, quiet
from korch.api.streams.targets import Target
from korch.errors import InvalidError, KorchError
from korch.resources.pod import ContainerStatus
from korch.resources.times import parse_time
from korch.ssh.base import Stream

_MOST = 2**63 - 1
_EARLY_S = 0.1  # a program may write before its engine has noted that it runs
_RUNS = frozenset({"running", "paused"})


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What the query of a request asks for. `since`: seconds since 1970."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since_s: int | None = None
    since: float | None = None
    limit_bytes: int | None = None


def log_options(query: Mapping[str, str], pod: str) -> LogOptions:
    """The options of a request; what makes no sense is refused as Kubernetes does."""

    def count(key: str, least: int) -> int | None:
        text = query.get(key, "")
        if not text:
            return None
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
            raise bad_request(f'{key}: "{text[:40]}" is not a whole number')
        if int(text) < least:
            raise _invalid(pod, f"{key}: Invalid value: {int(text)}: must be greater than or equal to {least}")
        return int(text)

    since = _time(query.get("sinceTime", ""))
    since_s = count("sinceSeconds", 1)
    if since is not None and since_s is not None:
        raise _invalid(pod, "at most one of `sinceTime` or `sinceSeconds` may be specified")
    return LogOptions(
        follow=truth(query.get("follow")),
        previous=truth(query.get("previous")),
        timestamps=truth(query.get("timestamps")),
        tail=count("tailLines", 0),
        since_s=since_s,
        since=since,
        limit_bytes=count("limitBytes", 1),
    )


def _time(text: str) -> float | None:
    if not text:
        return None
    try:
        return parse_time(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except (InvalidError, OverflowError) as error:
        raise bad_request(f'sinceTime: "{text[:40]}" is not a time as 2026-01-02T03:04:05Z') from error


def _invalid(pod: str, why: str) -> Refusal:
    return Refusal(422, f'PodLogOptions "{pod}" is invalid: {why}')


def wish_of(options: LogOptions, seen: Seen, status: ContainerStatus | None) -> LogWish | None:
    """What to ask of the engine, whose log holds all runs of a container; None when there was no run before."""
    begin, end = _run_before(seen, status) if options.previous else (_begun(seen, status), None)
    if options.previous and end is None and begin is None:
        return None
    wanted = seen.now - options.since_s if options.since_s is not None else options.since
    since = max((moment for moment in (begin, wanted) if moment is not None), default=None)
    follow = options.follow and end is None
    return LogWish(follow, options.tail, since if since is None else max(since, 0.0), end, options.timestamps)


def _begun(seen: Seen, status: ContainerStatus | None) -> float | None:
    """When the newest run began to write; None when it is the only one."""
    if seen.started_at is None:
        return None
    if seen.state in _RUNS:
        if seen.finished_at is None or seen.finished_at > seen.started_at:
            return None
        return (seen.finished_at + seen.started_at) / 2  # both are noted a moment late
    return seen.started_at - _EARLY_S if status is not None and status.restart_count else None


def _run_before(seen: Seen, status: ContainerStatus | None) -> tuple[float | None, float | None]:
    """(since, until) of the run before. Of a container that waits for its next start, that is the newest one."""
    begun = _begun(seen, status)
    if begun is None:
        return None, None
    if seen.state not in _RUNS and (status is None or status.state.terminated is None):
        return begun, None
    ended = status.last_state.terminated if status is not None else None
    return (parse_time(ended.started_at) if ended is not None and ended.started_at else None), begun


class LogResponse(Response):
    """The output of a running log command. A client that goes ends the command on the node."""

    def __init__(
        self, start: Callable[[], AbstractAsyncContextManager[Stream]], target: Target, limit_bytes: int | None
    ) -> None:
        super().__init__(media_type="text/plain; charset=utf-8")
        del self.headers["content-length"]
        self._start, self._target, self._left = start, target, _MOST if limit_bytes is None else limit_bytes
        self._active_at = 0.0
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with it."""
        self._active_at = asyncio.get_running_loop().time()
        try:
            await first_of((self._pump(send), _departure(receive), quiet(lambda: self._active_at)))
        except KorchError as error:
            if not self._begun:
                await refusal_answer(Refusal(error.http_status, f"{error} {error.hint}".strip()))(scope, receive, send)
                return
            last = f"{error}\n".encode()  # the answer is under way: there is no other place
            await send({"type": "http.response.body", "body": last, "more_body": True})
        except OSError:  # the client has gone
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        async with self._start() as stream:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            self._begun = True
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # the head goes out at once
            async for _, data in stream.chunks():
                part = data[: self._left]
                self._left -= len(part)
                self._active_at = asyncio.get_running_loop().time()
                await send({"type": "http.response.body", "body": part, "more_body": True})
                if not self._left:
                    return
            if await stream.wait() == -1:
                node = self._target.node
                raise KorchError(f"{node}: the connection broke; this log may go on")


async def _departure(receive: Receive) -> None:
    message: Any = None
    while message is None or message["type"] != "http.disconnect":
        message = await receive()
