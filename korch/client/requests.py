"""Requests to the API of `korch master`: a good answer, or the error that it tells of.

A master that goes and comes back in between is waited for, as soon as the API has answered once: every request may be
sent twice.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from korch.client import kube
from korch.client.kubeconfig import Access
from korch.client.wire import ANSWER_S, Answer, ApiUnreachableError, Call, Wire
from korch.errors import ForbiddenError, KorchError

V = TypeVar("V")

FIRST_REST_S, _LONGEST_REST_S = 0.1, 2.0
_SILENT_S = 150.0  # of a watch: bookmarks come every minute


class Requests:
    """The way to one API. `patience_s`: how long one that answered before may stay away."""

    def __init__(self, access: Access, *, patience_s: float) -> None:
        self.access, self.wire, self.patience_s = access, Wire(access), patience_s
        self._met = False

    async def meet(self) -> None:
        """Returns when korch answers there: what other clusters hold is none of its business. `ForbiddenError`."""
        found = msgspec.json.decode((await self.ask(Call("GET", "/version"))).body)
        if not str(found.get("gitVersion", "")).endswith("+korch"):
            raise ForbiddenError(
                f"{self.access.server} is not served by korch, but says {found.get('gitVersion') or 'nothing'}",
                hint=f"The way there is from {self.access.source}. For another: --context NAME, --kubeconfig FILE.",
            )
        self._met = True

    async def ask(self, call: Call, *, answer_s: float = ANSWER_S) -> Answer:
        """The answer when it is a good one; else the error that it tells of."""

        async def once() -> Answer:
            answer = await self.wire.ask(call, answer_s=answer_s)
            if answer.status >= 300:
                raise self.error_in(answer.status, answer.body)
            return answer

        return await self.patiently(once)

    async def patiently(self, once: Callable[[], Awaitable[V]]) -> V:
        """What `once` gives, which is called again while the API is away."""
        loop = asyncio.get_running_loop()
        end, rest_s = loop.time() + (self.patience_s if self._met else 0.0), 0.0
        while True:
            try:
                return await once()
            except (ApiUnreachableError, kube.BusyError):
                if loop.time() + rest_s >= end:
                    raise
            await asyncio.sleep(rest_s)
            rest_s = min(max(2 * rest_s, FIRST_REST_S), _LONGEST_REST_S)

    @asynccontextmanager
    async def answering(self, call: Call) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The pieces of an answer that has begun, and is a good one."""
        async with self.wire.answering(call) as (head, pieces):
            if head.status_code >= 300:
                raise self.error_in(head.status_code, b"".join([piece async for piece in pieces]))
            yield pieces

    async def lines(self, call: Call) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that has begun. A connection that is silent for too long is given up."""
        lines = self._lines(call)
        await anext(lines)
        return lines

    async def _lines(self, call: Call) -> AsyncGenerator[bytes, None]:
        """b"" when the answer has begun, then its lines."""
        async with self.answering(call) as pieces:
            yield b""
            rest = b""
            while (piece := await _next(pieces)) is not None:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line

    def error_in(self, status: int, body: bytes) -> KorchError:
        """What an answer that is no success tells of."""
        return kube.error_in(status, body, self.access)

    async def close(self) -> None:
        """Hang up."""
        await self.wire.close()


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    try:
        async with asyncio.timeout(_SILENT_S):
            return await anext(pieces, None)
    except TimeoutError:
        return None
