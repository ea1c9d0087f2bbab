"""One look at many hosts at once, whose answers come one by one: who needs only some of them need not wait for all."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

from korch.errors import FencedError, KorchError
from korch.nodes.report import NodeReport
from korch.resources.node import Node

PATIENCE_S = 2.0  # after the newest answer: whoever says nothing for so long comes late
DOUBT_S = 0.5  # the same for hosts that did not answer last time either

Answer = NodeReport | KorchError


class Round:
    """The looks under way. `doubtful`: hosts that on record did not answer last time."""

    def __init__(
        self,
        names: Iterable[str],
        look: Callable[[str, "Round"], Coroutine[None, None, NodeReport]],
        doubtful: frozenset[str] = frozenset(),
    ) -> None:
        self.doubtful = doubtful
        self._answered_at: float | None = None  # the newest report, on the event loop's clock
        self._arrived: list[Node] = []
        self._taken: set[str] = set()
        self._news = asyncio.Event()
        self._tasks = {name: asyncio.create_task(self._one(look(name, self)), name=f"look-{name}") for name in names}
        for task in self._tasks.values():
            task.add_done_callback(lambda _: self._tell())

    async def _one(self, looking: Coroutine[None, None, NodeReport]) -> Answer:
        try:
            report = await looking
        except FencedError:
            raise
        except KorchError as error:
            return error
        self._answered_at = asyncio.get_running_loop().time()
        return report

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def arrive(self, node: Node) -> None:
        """A node can be worked with, as it is known so far; the look at it may still go on."""
        self._arrived.append(node)
        self._tell()

    @property
    def pending(self) -> frozenset[str]:
        """Hosts that have not answered, nor failed."""
        return frozenset(name for name, task in self._tasks.items() if not task.done())

    @property
    def left(self) -> frozenset[str]:
        """Hosts whose answer nobody has taken yet."""
        return frozenset(self._tasks.keys() - self._taken)

    async def arrivals(self) -> AsyncGenerator[Node, None]:
        """Nodes that can be worked with, from the first one on, each as soon as it has arrived."""
        given = 0
        while given < len(self._arrived) or self.pending:
            if given == len(self._arrived):
                await self._news.wait()
                continue
            given += 1
            yield self._arrived[given - 1]

    async def first(self) -> None:
        """Wait for all that answer soon; when none does, for all."""
        loop = asyncio.get_running_loop()
        while pending := self.pending:
            if self._answered_at is None:
                await self._news.wait()
                continue
            until = self._answered_at + (DOUBT_S if pending <= self.doubtful else PATIENCE_S)
            if until <= loop.time():
                return
            try:
                async with asyncio.timeout_at(until):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def all(self) -> None:
        """Wait for the last one."""
        while self.pending:
            await self._news.wait()

    async def more(self) -> bool:
        """Wait for answers that nobody has taken; False when there will be none."""
        while not any(self._tasks[name].done() for name in self.left):
            if not self.pending:
                return False
            await self._news.wait()
        return True

    def take(self) -> dict[str, Answer]:
        """Answers that came since the last call."""
        new = {name: task for name, task in self._tasks.items() if task.done() and name in self.left}
        found = {name: task.result() for name, task in new.items() if not task.cancelled()}
        self._taken |= new.keys()
        return found

    async def stop(self) -> None:
        """Wait for nobody any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
