"""What may take long on a node, so that starts and checks always find room beside it. No I/O."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass

from korch.engines.images import ImageInfo

SLOW_AT_ONCE = 4  # of the six commands that a connection carries at once (ssh/slots.py)
PULLS_AT_ONCE = 2  # of those: an end must not wait for large images


class SlowLane:
    """Acts that may take minutes. `aside`: while it lasts, another worker does what the waiting one would have done.

    `slots`: of the commands that they run.
    """

    def __init__(self, aside: Callable[[], AbstractContextManager[None]]) -> None:
        self.aside = aside
        self.slots = asyncio.Semaphore(SLOW_AT_ONCE)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A worker's wait for one of the slots, which it then holds."""
        with self.aside():
            async with self.slots:
                yield


@dataclass(slots=True, eq=False)
class _Flight:
    task: asyncio.Task[ImageInfo]
    waiters: int = 0


class Pulls:
    """Images on their way to one node: one pull for all pods that wait for the same, for as long as one does."""

    def __init__(self, lane: SlowLane) -> None:
        self._lane = lane
        self._slots = asyncio.Semaphore(PULLS_AT_ONCE)
        self._flights: dict[Hashable, _Flight] = {}
        self._given_up: dict[str, asyncio.Future[None]] = {}  # by the uids of pods that wait

    async def have(self, uid: str, what: Hashable, pull: Callable[[], Awaitable[ImageInfo]]) -> ImageInfo | None:
        """What `pull` brings, or the pull of `what` that goes on already; None when the pod is given up meanwhile."""
        flight = self._flights.get(what)
        if flight is None:
            flight = self._flights[what] = _Flight(asyncio.create_task(self._fly(pull), name=f"pull for {uid}"))
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        flight.waiters += 1
        gone = self._given_up[uid] = asyncio.get_running_loop().create_future()
        try:
            with self._lane.aside():
                await asyncio.wait({flight.task, gone}, return_when=asyncio.FIRST_COMPLETED)
            return None if gone.done() else flight.task.result()
        finally:
            del self._given_up[uid]
            flight.waiters -= 1
            if flight.task.done() or not flight.waiters:
                flight.task.cancel()
                if self._flights.get(what) is flight:
                    del self._flights[what]

    def give_up(self, uid: str) -> None:
        """The pod needs its image no more."""
        gone = self._given_up.get(uid)
        if gone is not None and not gone.done():
            gone.set_result(None)

    async def _fly(self, pull: Callable[[], Awaitable[ImageInfo]]) -> ImageInfo:
        async with self._slots, self._lane.slots:
            return await pull()
