"""The transport over SSH: programs, streams and tunnels on connections that a `Dialer` makes and remakes.

By default they are Fabric's and paramiko's (`login.py`), else those of the installed `ssh` (`openssh.py`); both read
OpenSSH's configuration and known_hosts. Importing this module is cheap; Fabric is loaded by the first connect.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from korch.engines.base import Command, Script
from korch.errors import CommandTimeoutError, HostRefusedError, HostUnreachableError, NoPermissionError
from korch.inventory.model import Host
from korch.ssh.base import Result, Stream, TcpTunnel
from korch.ssh.frame import KILL_GRACE_S, new_marker, remote_line, true_status
from korch.ssh.governor import Breaker
from korch.ssh.slots import COMMANDS_AT_ONCE, STREAMS_A_LINK, SingleFlight, Slots

if TYPE_CHECKING:
    from korch.ssh.channels import Channel, Connection
    from korch.ssh.program import Program

SILENCE_GRACE_S: Final = 10.0  # after the deadline on the host and its SIGKILL
REFUSALS_BELIEVED: Final = 5
OUTPUT_LIMIT_BYTES: Final = 64 << 20

Opener = Callable[[float], Awaitable["Connection"]]
"""Makes a logged-in connection to this host within so many seconds."""


class SshTransport:
    """Implements `Transport`. Made by `Connector.transport_for`, which knows the options and shares the bastions."""

    def __init__(self, host: Host, open_link: Opener) -> None:
        self._host, self._open_link = host, open_link
        self._control: Slots | None = None
        self._streams: list[Slots] = []
        self._retired: list[Slots] = []
        self._connecting: SingleFlight[Slots] = SingleFlight(host.name)
        self._connecting_streams: SingleFlight[None] = SingleFlight(host.name)
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
        async with self._program(command, self._become(become), None, self._command_slot) as program:
            return await self._collect(program, command)

    @asynccontextmanager
    async def stream(
        self,
        command: Command | Script,
        *,
        pty: tuple[int, int] | None = None,
        become: bool | None = None,
        control: bool = False,
    ) -> AsyncIterator[Stream]:
        """A running program. Leaving the context ends it on the host, too."""
        become = self._become(become)
        take = self._command_slot if control else self._stream_slot
        async with self._program(command, become, pty, take, open_stdin=True, lasting=control) as program:
            try:
                yield program
            finally:
                await asyncio.shield(asyncio.ensure_future(self._end(program, become, ask=not control)))

    async def forward(self, address: str, port: int, *, timeout_s: float = 5.0) -> TcpTunnel:
        """TCP from the host to `address:port`. Raises `ConnectionRefusedError`, `PermissionError`, `TimeoutError`."""
        from korch.ssh.channels import ChannelRefusedError, NeverOpenedError
        from korch.ssh.tunnel import ChannelTunnel

        slots = await self._ready()
        try:
            channel = await slots.link.reach(address, port, timeout_s)
        except ChannelRefusedError as error:
            where = f"{self.host}: {address} port {port}: {error.text or 'refused'}"
            raise PermissionError(where) if error.code == 1 else ConnectionRefusedError(where) from error
        except NeverOpenedError as error:
            raise TimeoutError(f"{self.host}: {address} port {port}: {error}") from error
        return ChannelTunnel(channel, slots.link)

    async def close(self) -> None:
        """Hang up; calling it twice is fine."""
        self._closed = True
        self._connecting.cancel()
        self._connecting_streams.cancel()
        for slots in (self._control, *self._streams, *self._retired):
            if slots is not None:
                slots.close()
        self._control, self._streams, self._retired = None, [], []

    def _become(self, become: bool | None) -> bool:
        return self._host.become is True if become is None else become

    async def _ready(self, timeout_s: float = 10.0) -> Slots:
        """The control connection: opened when there is none, or when its slots are all held by lost commands."""
        if self._control is not None and self._control.is_usable:
            return self._control

        async def connect() -> Slots:
            if self._control is not None:
                self._retire(self._control)
            self._control = Slots(await self._dial(timeout_s), COMMANDS_AT_ONCE)
            return self._control

        return await self._connecting(connect, f"connect {self.host}")

    async def _command_slot(self) -> Slots:
        """A slot of the control connection, taken."""
        while True:
            slots = await self._ready()
            if await slots.take():
                return slots

    async def _stream_slot(self) -> Slots:
        """A slot of another connection, taken: the control connection keeps its slots for commands."""

        async def connect() -> None:
            self._streams.append(Slots(await self._dial(10.0), STREAMS_A_LINK))

        while True:
            for slots in list(self._streams):
                if not slots.is_usable:
                    self._streams.remove(slots)
                    slots.close()
                elif slots.try_take():
                    return slots
            await self._connecting_streams(connect, f"connect {self.host} for streams")

    async def _dial(self, timeout_s: float) -> "Connection":
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

    def _retire(self, slots: Slots) -> None:
        """Keep a connection while its commands run on the host; close those that have none any more."""
        self._retired.append(slots)
        for old in [old for old in self._retired if old.busy == 0 or not old.link.is_alive]:
            self._retired.remove(old)
            old.close()

    @asynccontextmanager
    async def _program(
        self,
        command: Command | Script,
        become: bool,
        pty: tuple[int, int] | None,
        take: Callable[[], Awaitable[Slots]],
        *,
        open_stdin: bool = False,
        lasting: bool = False,
    ) -> AsyncIterator["Program"]:
        """A started program that is being given its stdin; its slot stays taken until it has ended on the host."""
        marker = new_marker()
        remote_line(command, marker, become=become)  # what cannot be sent takes no slot

        def line(link: "Connection") -> str:
            needed = become and link.options.user != "root"
            return remote_line(command, marker, become=needed, pty=pty is not None)

        slots, channel = await self._session(take, line, pty)
        from korch.ssh.program import Program

        slots.link.busy()
        slots.lasts(+lasting)
        feeding: asyncio.Task[None] | None = None
        try:
            program = Program(self.host, channel, marker, slots.link.why_lost, has_pty=pty is not None)
            if command.stdin or not open_stdin:
                feed = _feed(program, command.stdin or b"", open_stdin=open_stdin)
                feeding = asyncio.create_task(feed, name=f"stdin of {self.host}")
            await program.started(become=become and slots.link.options.user != "root")
            yield program
        except CommandTimeoutError:
            slots.is_doubted = slots is self._control
            raise
        finally:
            if feeding is not None:
                feeding.cancel()
            slots.link.idle()
            slots.lasts(-lasting)
            slots.release(channel)

    async def _session(
        self,
        take: Callable[[], Awaitable[Slots]],
        line: "Callable[[Connection], str]",
        pty: tuple[int, int] | None,
    ) -> "tuple[Slots, Channel]":
        """A channel in a slot, with the line sent. A connection that proves dead before that is replaced once."""
        from korch.ssh.channels import ChannelRefusedError, NeverOpenedError

        deaths = refusals = 0
        while True:
            slots = await take()
            try:
                return slots, await slots.link.start(line(slots.link), pty)
            except NeverOpenedError as error:
                slots.give_back()
                slots.link.close(str(error))
                deaths += 1
                if deaths > 1:
                    raise HostUnreachableError(
                        f"{self.host}: the connection is dead: {error}", host=self.host
                    ) from error
            except ChannelRefusedError as error:
                if slots.refused():  # sshd counts a session for a moment after it has told its exit status
                    refusals += 1
                    await asyncio.sleep(0.05 * refusals)
                if refusals > REFUSALS_BELIEVED:
                    raise NoPermissionError(
                        f"{self.host}: sshd opens no session: {error.text or 'refused'}",
                        host=self.host,
                        hint="Look at MaxSessions in sshd_config there; korch needs at least 2.",
                    ) from error
            except BaseException:
                slots.give_back()
                raise

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

    async def _end(self, program: "Program", become: bool, *, ask: bool) -> None:
        """Make sure that a program which nobody listens to any more ends; `ask`: by a command there, if need be."""
        from korch.ssh.pipes import BROKEN

        with contextlib.suppress(*BROKEN, HostUnreachableError):
            if program.channel.has_ended:
                return
            program.channel.ask_to_end()
            await program.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await program.wait()
                return
            if ask and program.pid is not None and self._control is not None:
                kill = Script('kill -TERM -- "-$1" 2>/dev/null || kill -TERM "$1"', (str(program.pid),), timeout_s=5.0)
                await self.run(kill, become=become)


async def _feed(program: "Program", stdin: bytes, *, open_stdin: bool) -> None:
    """All of stdin, then its end unless more may follow; a program that does not want it is no error."""
    with contextlib.suppress(BrokenPipeError, HostUnreachableError):
        if stdin:
            await program.write(stdin)
        if not open_stdin:
            await program.write_eof()
