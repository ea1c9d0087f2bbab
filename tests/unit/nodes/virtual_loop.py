"""An event loop whose clock moves only when everybody waits: minutes of a keeper's life in milliseconds."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable


class _Selector(selectors.SelectSelector):
    """Instead of waiting, time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None):
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise AssertionError("everything waits for ever")
        self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class LoopClock:
    """Unix seconds that go with the loop's time."""

    def now(self) -> float:
        return 1_000_000.0 + asyncio.get_running_loop().time()


def run_virtually(body: Callable[[], Awaitable[None]]) -> None:
    """Run to the end, in virtual time. Nothing in it may wait for a thread or a socket."""

    async def main() -> None:
        await body()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
