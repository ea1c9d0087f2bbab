"""How many SSH handshakes may run at once, and when to try again.

sshd's default MaxStartups, 10:30:100, drops new connections at random from the 11th that has not logged in yet. So
korch never has more than five of those open to one sshd, and a drop that happens nevertheless (others log in, too) is
tried again after a growing, jittered pause. The decisions are pure; `Governor` is the thin part that waits.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

HANDSHAKES_PER_SSHD: Final = 5  # sshd counts one a little longer than we do: it lets go of it after the login
HANDSHAKES_AT_ONCE: Final = 16  # key exchanges and logins; connecting and waiting for a banner are not counted
# Behind a proxy the door is the proxy's own sshd. A login there is done by then, and what takes longer is the host
# behind it: one that is off must not keep the others from being asked.
PROXY_HOLD_S: Final = 1.0
FREE_FAILURES: Final = 3
LONGEST_HOLD_S: Final = 5.0


def retry_pause_s(attempt: int, dice: float) -> float:
    """Seconds to wait before try number `attempt` (1 = the first repetition); `dice` is 0..1."""
    base: float = min(2.0, 0.2 * 2.0 ** (attempt - 1))
    return base * (0.5 + dice)


@dataclass(slots=True)
class Breaker:
    """Keeps a node that fails again and again from being dialled all the time. Times are seconds of one clock."""

    failures: int = 0
    held_until: float = 0.0

    def wait_s(self, now: float) -> float:
        """How long not to try; 0 when trying is fine."""
        return max(0.0, self.held_until - now)

    def failed(self, now: float) -> None:
        """Note a failed connect."""
        self.failures += 1
        if self.failures > FREE_FAILURES:
            hold = min(LONGEST_HOLD_S, 0.5 * 2.0 ** min(10, self.failures - FREE_FAILURES - 1))
            self.held_until = now + hold

    def succeeded(self) -> None:
        """Note a login."""
        self.failures, self.held_until = 0, 0.0


@dataclass(slots=True)
class Governor:
    """Shared by all transports of a process."""

    per_sshd: int = HANDSHAKES_PER_SSHD
    at_once: int = HANDSHAKES_AT_ONCE
    _doors: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    _logins: asyncio.Semaphore | None = None

    @asynccontextmanager
    async def door(self, sshd: str, *, most_s: float | None = None) -> AsyncIterator[None]:
        """Held from the TCP connect to the login, at most so long.

        `sshd` names the server that sees this connection unauthenticated.
        """
        door = self._doors.setdefault(sshd, asyncio.Semaphore(self.per_sshd))
        await door.acquire()
        held = [door]

        def let_go() -> None:
            while held:
                held.pop().release()

        timer = None if most_s is None else asyncio.get_running_loop().call_later(most_s, let_go)
        try:
            yield
        finally:
            let_go()
            if timer is not None:
                timer.cancel()

    @asynccontextmanager
    async def login(self) -> AsyncIterator[None]:
        """Held during key exchange and login."""
        if self._logins is None:
            self._logins = asyncio.Semaphore(self.at_once)
        async with self._logins:
            yield

    @staticmethod
    async def pause(attempt: int) -> None:
        """Wait before the given repetition."""
        await asyncio.sleep(retry_pause_s(attempt, random.random()))  # noqa: S311 (spreads load, guards nothing)
