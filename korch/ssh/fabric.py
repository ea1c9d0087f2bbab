"""The default transport: SSH by Fabric and paramiko, with OpenSSH's configuration and known_hosts.

Importing this module is cheap; Fabric is loaded by the first connect.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from korch.engines.base import Command, Script
from korch.errors import CommandTimeoutError, HostRefusedError, HostUnreachableError
from korch.inventory.model import Host
from korch.ssh.base import Result, Stream, Tunnel
from korch.ssh.frame import KILL_GRACE_S, new_marker, remote_line, true_status
from korch.ssh.governor import Breaker

if TYPE_CHECKING:
    from korch.ssh.link import Link
    from korch.ssh.program import Program
    from korch.ssh.wire import WireChannel

COMMANDS_AT_ONCE: Final = 6  # sshd's MaxSessions is 10 a connection; the session and people's own tools need some
STREAMS_A_LINK: Final = 6
SILENCE_GRACE_S: Final = 10.0  # after the deadline on the host and its SIGKILL
REFUSALS_BELIEVED: Final = 5
OUTPUT_LIMIT_BYTES: Final = 64 << 20

Opener = Callable[[float], Awaitable["Link"]]
"""Makes a logged-in connection to this host within so many seconds."""


class FabricTransport:
    """Implements `Transport`. Made by `Connector.transport_for`, which knows the options and shares the bastions."""

    def __init__(self, host: Host, open_link: Opener) -> None:
        self._host, self._open_link = host, open_link
        self._control: _Pool | None = None
        self._streams: list[_Pool] = []
        self._retired: list[_Pool] = []
        self._connecting = asyncio.Lock()
        self._breaker = Breaker()
        self._last_error: Exception | None = None
        self._closed = False

    @property
    def host(self) -> str:
        """The host's name in the inventory."""
        return self._host.name

    async def connect(self, *, timeout_s: float = 10.0) -> None:
        """Connect and log in; does nothing when connected."""
        await self._ready(timeout_s)

    async def run(self, command: Command | Script, *, become: bool | None = None) -> Result:
        """Run to the end; a program that overstays is ended on the host, with status 124."""
        async with self._program(command, self._become(become), None, self._ready) as program:
            return await self._collect(program, command)

    @asynccontextmanager
    async def stream(
        self, command: Command | Script, *, pty: tuple[int, int] | None = None, become: bool | None = None
    ) -> AsyncIterator[Stream]:
        """A running program. Leaving the context ends it on the host, too."""
        become = self._become(become)
        async with self._program(command, become, pty, self._stream_link, open_stdin=True) as program:
            try:
                yield program
            finally:
                await asyncio.shield(asyncio.ensure_future(self._end(program, become)))

    async def forward(self, address: str, port: int, *, timeout_s: float = 5.0) -> Tunnel:
        """TCP from the host to `address:port`. Raises `ConnectionRefusedError`, `PermissionError`, `TimeoutError`."""
        from korch.ssh.link import ChannelRefusedError, NeverOpenedError
        from korch.ssh.tunnel import ChannelTunnel

        pool = await self._ready(10.0)
        try:
            channel = await pool.link.open("direct-tcpip", (address, port), timeout_s)
        except ChannelRefusedError as error:
            where = f"{self.host}: {address} port {port}: {error.text or 'refused'}"
            raise PermissionError(where) if error.code == 1 else ConnectionRefusedError(where) from error
        except NeverOpenedError as error:
            raise TimeoutError(f"{self.host}: {address} port {port}: {error}") from error
        return ChannelTunnel(channel, pool.link)

    async def close(self) -> None:
        """Hang up; calling it twice is fine."""
        self._closed = True
        for pool in (self._control, *self._streams, *self._retired):
            if pool is not None:
                pool.close()
        self._control, self._streams, self._retired = None, [], []

    def _become(self, become: bool | None) -> bool:
        return self._host.become is True if become is None else become

    async def _ready(self, timeout_s: float = 10.0) -> "_Pool":
        """The control connection: opened when there is none, or when its slots are all held by lost commands."""
        async with self._connecting:
            pool = self._control
            if pool is not None and pool.link.is_alive and not pool.is_stuck:
                return pool
            for old in [old for old in self._retired if old.busy == 0 or not old.link.is_alive]:
                self._retired.remove(old)
                old.close()
            if pool is not None:
                self._retire(pool)
                self._control = None
            self._control = _Pool(await self._dial(timeout_s), COMMANDS_AT_ONCE)
            return self._control

    async def _stream_link(self, timeout_s: float = 10.0) -> "_Pool":
        """A connection for streams with a free place; the control connection keeps its slots for commands."""
        async with self._connecting:
            for pool in list(self._streams):
                if not pool.link.is_alive or pool.is_stuck:
                    self._streams.remove(pool)
                    pool.close()
                elif pool.free > 0:
                    return pool
            pool = _Pool(await self._dial(timeout_s), STREAMS_A_LINK)
            self._streams.append(pool)
            return pool

    async def _dial(self, timeout_s: float) -> "Link":
        if self._closed:
            raise HostUnreachableError(f"{self.host}: this transport is closed", host=self.host)
        loop = asyncio.get_running_loop()
        wait_s = self._breaker.wait_s(loop.time())
        if wait_s > 0 and self._last_error is not None:
            raise HostUnreachableError(
                f"{self._last_error} (failed {self._breaker.failures} times; next try in {wait_s:.1f} s)",
                host=self.host,
                hint=getattr(self._last_error, "hint", ""),
            )
        try:
            link = await self._open_link(timeout_s)
        except (HostUnreachableError, HostRefusedError) as error:
            if isinstance(error, HostUnreachableError):
                self._breaker.failed(loop.time())
                self._last_error = error
            raise
        self._breaker.succeeded()
        return link

    def _retire(self, pool: "_Pool") -> None:
        """Keep a connection whose commands still run on the host, close one that has none."""
        if pool.link.is_alive and pool.busy > 0:
            self._retired.append(pool)
        else:
            pool.close()

    @asynccontextmanager
    async def _program(
        self,
        command: Command | Script,
        become: bool,
        pty: tuple[int, int] | None,
        ready: Callable[[], Awaitable["_Pool"]],
        *,
        open_stdin: bool = False,
    ) -> AsyncIterator["Program"]:
        """A started program that is being given its stdin; its slot stays taken until it has ended on the host."""
        marker = new_marker()
        line = remote_line(command, marker, become=become, pty=pty is not None)  # what cannot be sent takes no slot
        pool, channel = await self._session(ready)
        from korch.ssh.program import Program

        if become and pool.link.options.user == "root":
            become, line = False, remote_line(command, marker, pty=pty is not None)
        pool.link.busy()
        feeding: asyncio.Task[None] | None = None
        try:
            program = Program(self.host, channel, marker, pool.link.why_lost)
            program.send_command(line, pty=pty)
            if command.stdin or not open_stdin:
                feed = _feed(program, command.stdin or b"", open_stdin=open_stdin)
                feeding = asyncio.create_task(feed, name=f"stdin of {self.host}")
            await program.started(become=become)
            yield program
        finally:
            if feeding is not None:
                feeding.cancel()
            pool.link.idle()
            pool.release(channel)

    async def _session(self, ready: Callable[[], Awaitable["_Pool"]]) -> "tuple[_Pool, WireChannel]":
        """A session channel in a slot. A connection that proves dead before anything was sent is replaced once."""
        from korch.ssh.link import ChannelRefusedError, NeverOpenedError

        for last_try in (False, True):
            pool = await ready()
            try:
                return pool, await pool.session()
            except NeverOpenedError as error:
                pool.link.close(str(error))
                if last_try:
                    raise HostUnreachableError(
                        f"{self.host}: the connection is dead: {error}", host=self.host
                    ) from error
            except ChannelRefusedError as error:
                raise HostRefusedError(
                    f"{self.host}: sshd opens no session: {error.text or 'refused'}",
                    host=self.host,
                    hint="Look at MaxSessions in sshd_config there; korch needs at least 1.",
                ) from error
        raise AssertionError("unreachable")

    async def _collect(self, program: "Program", command: Command | Script) -> Result:
        """All of the output and the end."""
        out: list[bytes] = []
        err: list[bytes] = []
        size = 0
        limit_s = command.timeout_s + KILL_GRACE_S + SILENCE_GRACE_S if command.timeout_s > 0 else None
        try:
            async with asyncio.timeout(limit_s):
                async for number, data in program.chunks():
                    size += len(data)
                    if size > OUTPUT_LIMIT_BYTES:
                        raise CommandTimeoutError(
                            f"{self.host}: a command wrote more than {OUTPUT_LIMIT_BYTES >> 20} MiB", host=self.host
                        )
                    (out if number == 1 else err).append(data)
                status = await program.wait()
        except TimeoutError:
            raise CommandTimeoutError(
                f"{self.host}: a command gave no end within {limit_s:.0f} s, though the host should have ended it",
                host=self.host,
                hint="The machine may hang (disk, engine); look at it with ssh.",
            ) from None
        if status == -1:
            program.raise_if_lost()
        elapsed_s = time.monotonic() - program.started_at
        return Result(true_status(status, elapsed_s, command.timeout_s), b"".join(out), b"".join(err))

    async def _end(self, program: "Program", become: bool) -> None:
        """Make sure that a program which nobody listens to any more ends."""
        from korch.ssh.pipes import BROKEN

        with contextlib.suppress(*BROKEN, HostUnreachableError):
            if program.channel.has_ended:
                return
            program.ask_to_end()
            await program.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await program.wait()
                return
            if program.pid is not None and self._control is not None:
                kill = Script('kill -TERM -- "-$1" 2>/dev/null || kill -TERM "$1"', (str(program.pid),), timeout_s=5.0)
                await self.run(kill, become=become)


async def _feed(program: "Program", stdin: bytes, *, open_stdin: bool) -> None:
    """All of stdin, then its end unless more may follow; a program that does not want it is no error."""
    with contextlib.suppress(BrokenPipeError, HostUnreachableError):
        if stdin:
            await program.write(stdin)
        if not open_stdin:
            await program.write_eof()


class _Pool:
    """A connection's session slots."""

    def __init__(self, link: "Link", limit: int) -> None:
        self.link, self.limit = link, limit
        self.busy = 0
        self.lost = 0  # slots of commands that nobody waits for, but which have not ended
        self._changed = asyncio.Condition()
        self._reapers: set[asyncio.Task[None]] = set()

    @property
    def free(self) -> int:
        """Slots for the taking."""
        return self.limit - self.busy

    @property
    def is_stuck(self) -> bool:
        """No slot will come free by waiting for a caller."""
        return self.lost >= self.limit

    async def session(self) -> "WireChannel":
        """A session channel; waits for a slot."""
        from korch.ssh.link import ChannelRefusedError

        refusals = 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self.busy < self.limit)
                self.busy += 1
            try:
                return await self.link.open("session")
            except ChannelRefusedError:
                refusals += 1
                alone = self.busy == 1
                if not alone:
                    self.limit = self.busy - 1  # this sshd's MaxSessions is lower than the default
                await self._freed()
                if alone and refusals > REFUSALS_BELIEVED:
                    raise
                if alone:  # sshd counts a session for a moment after it has told its exit status
                    await asyncio.sleep(0.05 * refusals)
            except BaseException:
                await asyncio.shield(self._freed())
                raise

    def release(self, channel: "WireChannel") -> None:
        """Give the slot back, at once or when the command on the host has ended."""
        if not channel.has_ended:
            self.lost += 1
        reaper = asyncio.get_running_loop().create_task(self._reap(channel), name=f"slot of {self.link.name}")
        self._reapers.add(reaper)
        reaper.add_done_callback(self._reapers.discard)

    async def _reap(self, channel: "WireChannel") -> None:
        from korch.ssh.pipes import BROKEN

        if not channel.has_ended:
            await channel.until(lambda: channel.has_ended)
            self.lost -= 1
        with contextlib.suppress(*BROKEN):
            channel.close()
        await self._freed()

    async def _freed(self) -> None:
        async with self._changed:
            self.busy -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Hang up."""
        for reaper in self._reapers:
            reaper.cancel()
        self.link.close()
