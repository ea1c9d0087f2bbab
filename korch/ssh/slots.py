"""How many programs may run on one connection, and work that several callers share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from korch.errors import HostUnreachableError

if TYPE_CHECKING:
    from korch.ssh.channels import Channel, Connection

T = TypeVar("T")
STREAMS_A_LINK: Final = 6
COMMANDS_AT_ONCE: Final = 6  # beside the node's session; sshd's MaxSessions is 10 a connection


class SingleFlight(Generic[T]):
    """Lets callers who want the same thing at the same time wait for one attempt, and share its end."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._task: asyncio.Task[T] | None = None

    async def __call__(self, make: Callable[[], Awaitable[T]], name: str) -> T:
        """What `make` gives. A caller that is cancelled does not end the attempt of the others."""
        if self._task is None or self._task.done():

            async def attempt() -> T:
                return await make()

            self._task = asyncio.create_task(attempt(), name=name)
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task = self._task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by `cancel`, not this caller
                raise HostUnreachableError(f"{self._host}: closed while connecting", host=self._host) from None
            raise

    def cancel(self) -> None:
        """End the attempt."""
        if self._task is not None:
            self._task.cancel()


class Slots:
    """A connection with its session slots. A slot is free again when its program's exit status has arrived.

    Closing a channel does not free it: the program goes on, and sshd counts it.
    """

    def __init__(self, link: "Connection", limit: int) -> None:
        self.link, self.limit = link, limit
        self.busy = 0
        self.lost = 0  # held by programs that nobody waits for any more
        self.is_doubted = False  # a command gave no sign there in its time: the next one finds out on a new connection
        self._lasting = 0  # held by programs that stay as long as the connection: they count as no command
        self._waiters: list[asyncio.Future[None]] = []
        self._reapers: set[asyncio.Task[None]] = set()

    @property
    def is_stuck(self) -> bool:
        """Every slot is held by a program that nobody waits for."""
        return self.lost >= self.limit

    @property
    def is_usable(self) -> bool:
        """Worth waiting for."""
        return self.link.is_alive and not self.is_stuck and not self.is_doubted

    def try_take(self) -> bool:
        """Take a slot if there is one."""
        if self.busy - self._lasting >= self.limit:
            return False
        self.busy += 1
        return True

    async def take(self) -> bool:
        """Wait for a slot and take it; False when the connection is not worth waiting for any more."""
        while self.is_usable:
            if self.try_take():
                return True
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return False

    def give_back(self) -> None:
        """Free a slot that holds no program."""
        self.busy -= 1
        self._wake()

    def refused(self) -> bool:
        """sshd opened no session: free the slot and learn the true limit; True when no other command ran there."""
        commands = self.busy - self._lasting
        alone = commands == 1
        if not alone:
            self.limit = commands - 1
        self.give_back()
        return alone

    def lasts(self, more: int) -> None:
        """Count so many more of the programs here as lasting."""
        self._lasting += more
        self._wake()

    def release(self, channel: "Channel") -> None:
        """The caller needs its program no more: the slot is free now, or when the program has ended."""
        if not channel.has_ended:
            self.lost += 1
            self._wake()
        reaper = asyncio.get_running_loop().create_task(self._reap(channel), name=f"slot of {self.link.name}")
        self._reapers.add(reaper)
        reaper.add_done_callback(self._reapers.discard)

    def close(self) -> None:
        """Hang up."""
        for reaper in self._reapers:
            reaper.cancel()
        self.link.close()
        self._wake()

    async def _reap(self, channel: "Channel") -> None:
        if not channel.has_ended:
            await channel.until(lambda: channel.has_ended)
            self.lost -= 1
        channel.hang_up()
        self.give_back()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
