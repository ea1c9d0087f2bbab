"""A clock for leases that moves only when a test says so, and stands still for the holders that are frozen."""

import asyncio


class VirtualTime:
    """Shared time. `advance` wakes sleepers in order and lets each finish what it does before time goes on."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None], asyncio.Task[object], VirtualClock]] = []

    async def advance(self, seconds: float) -> None:
        target = self.seconds + seconds
        for _ in range(3):
            await asyncio.sleep(0)  # tasks just made begin to sleep now, not later
        while True:
            due = [sleeper for sleeper in self._sleepers if sleeper[0] <= target and not sleeper[3].frozen]
            if not due:
                break
            sleeper = min(due, key=lambda one: one[0])
            self._sleepers.remove(sleeper)
            self.seconds = max(self.seconds, sleeper[0])
            if not sleeper[1].done():
                sleeper[1].set_result(None)
            await self._settled(sleeper[2])
        self.seconds = target

    async def _settled(self, task: asyncio.Task[object]) -> None:
        # The task may end, sleep again or wait for the store: no one event tells.
        while not task.done() and all(sleeper[2] is not task for sleeper in self._sleepers):  # noqa: ASYNC110
            await asyncio.sleep(0.0005)

    async def sleep(self, seconds: float, clock: "VirtualClock") -> None:
        task = asyncio.current_task()
        assert task is not None
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.seconds + seconds, woken, task, clock))
        try:
            await woken
        finally:
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[1] is not woken]


class VirtualClock:
    """One process's view of the time. While `frozen` (SIGSTOP) its sleepers do not wake."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self.frozen = False

    def now(self) -> float:
        return self._time.seconds

    async def sleep(self, seconds: float) -> None:
        await self._time.sleep(seconds, self)
