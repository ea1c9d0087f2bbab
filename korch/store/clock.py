"""The clock that leases are judged by: it also runs while the machine sleeps, and nobody can set it."""

import asyncio
import time
from typing import Protocol


class LeaseClock(Protocol):
    """Seconds since some start, and waiting. Tests bring their own."""

    def now(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after about `seconds`."""
        ...


class BootClock:
    """CLOCK_BOOTTIME where there is one (Linux), else the monotonic clock."""

    def now(self) -> float:
        """Seconds since boot, sleep included."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after about `seconds`."""
        await asyncio.sleep(seconds)
