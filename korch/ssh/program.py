"""A program that runs at the other end of a channel: its output as it comes, its input, its end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from korch.errors import CommandTimeoutError, HostUnreachableError, KorchError, NoPermissionError
from korch.ssh.channels import Channel
from korch.ssh.frame import Unframer
from korch.ssh.pipes import BROKEN

START_TIMEOUT_S: Final = 30.0  # login shells with slow start-up files take their time, on loaded machines even more
LINGER_S: Final = 1.0  # for output after the end: a daemon that the program left may hold the stream open for ever
END_OF_TRANSMISSION: Final = b"\x04"
_CHUNK_BYTES: Final = 65536


class Program:
    """Implements `Stream` on a channel whose login shell was given a line with `marker` (see `frame.py`)."""

    def __init__(
        self, host: str, channel: Channel, marker: str, why_lost: Callable[[], str], *, has_pty: bool = False
    ) -> None:
        self.host, self.channel, self._why_lost, self._has_pty = host, channel, why_lost, has_pty
        self.started_at = 0.0
        self._out, self._err = Unframer(marker), Unframer(marker)
        self._early: list[tuple[int, bytes]] = []  # output that arrived with the marker
        self._writing = asyncio.Lock()
        self._err.started = has_pty  # a terminal has one output

    @property
    def pid(self) -> int | None:
        """On the host: of the process that became the program."""
        return self._out.pid

    async def started(self, *, become: bool, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for the marker. Raises `NoPermissionError` when the login shell or sudo ended without running it."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._out.started and (chunk := await self._next()):
                    self._early.append(chunk)
        except TimeoutError:
            raise CommandTimeoutError(
                f"{self.host}: the login shell did not start a command within {timeout_s:.0f} s",
                host=self.host,
                hint="Look at the start-up files of the user's shell there, and at the load of the machine.",
            ) from None
        if not self._out.started:
            raise self._not_started(await self.wait(), become=become)
        self.started_at = time.monotonic()

    async def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1, bytes) from stdout and (2, bytes) from stderr until both end."""
        while self._early:
            number, data = self._early.pop(0)
            if data:
                yield number, data
        while chunk := await self._next():
            yield chunk

    async def write(self, data: bytes) -> None:
        """Send to stdin; waits while the other side does not read. Raises `BrokenPipeError` when it never will."""
        async with self._writing:
            view = memoryview(data)
            while view:
                await self.channel.until(lambda: self.channel.send_ready() or self.channel.has_ended)
                if self.channel.has_ended or self.channel.cannot_send:
                    self.raise_if_lost()
                    raise BrokenPipeError(f"{self.host}: the program does not read any more")
                try:
                    view = view[self.channel.send(bytes(view[:_CHUNK_BYTES])) :]
                except BROKEN as error:
                    raise self._lost() from error
                await asyncio.sleep(0)

    async def write_eof(self) -> None:
        """Close stdin; on a terminal, type what means that."""
        if self._has_pty:
            await self.write(END_OF_TRANSMISSION)
            return
        async with self._writing:
            try:
                self.channel.shutdown_write()
            except BROKEN as error:
                raise self._lost() from error

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the size of the terminal."""
        try:
            self.channel.resize_pty(columns, rows)
        except BROKEN as error:
            raise self._lost() from error

    async def wait(self) -> int:
        """The exit status; -1 when the connection broke."""
        await self.channel.until(lambda: self.channel.has_ended)
        return self.channel.exit_status if self.channel.exit_seen else -1

    async def _next(self) -> tuple[int, bytes] | None:
        """The next output of the program, None at the end."""
        channel = self.channel
        while True:
            if channel.recv_ready():
                if data := self._out.feed(channel.recv(_CHUNK_BYTES)):
                    return 1, data
                if self._out.started and not self.started_at:
                    return 1, b""
            elif channel.recv_stderr_ready():
                if data := self._err.feed(channel.recv_stderr(_CHUNK_BYTES)):
                    return 2, data
            elif channel.eof_seen or channel.is_closed or not await self._more():
                return None

    async def _more(self) -> bool:
        """Wait for output; False when the program ended and nothing came for a while."""
        channel = self.channel

        def something() -> bool:
            return channel.recv_ready() or channel.recv_stderr_ready() or channel.eof_seen or channel.is_closed

        await channel.until(lambda: something() or channel.exit_seen)
        if something():
            return True
        try:
            async with asyncio.timeout(LINGER_S):
                await channel.until(something)
        except TimeoutError:
            return False
        return True

    def raise_if_lost(self) -> None:
        """Raise `HostUnreachableError` when the connection broke before the program ended."""
        if self.channel.has_ended and not self.channel.exit_seen:
            raise self._lost()

    def _lost(self) -> HostUnreachableError:
        return HostUnreachableError(f"{self.host}: the connection broke: {self._why_lost()}", host=self.host)

    def _not_started(self, status: int, *, become: bool) -> KorchError:
        """Why no marker came."""
        if not self.channel.exit_seen:
            return self._lost()
        said = (self._err.noise.strip() or self._out.noise.strip()).decode("utf-8", "replace").splitlines()
        last = said[-1].strip() if said else f"exit status {status}"
        if become and "sudo" in last:
            return NoPermissionError(
                f"{self.host}: sudo does not run commands without a password: {last}",
                host=self.host,
                hint="On that machine: echo 'USER ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/korch, with USER replaced.",
            )
        return NoPermissionError(
            f"{self.host}: the login shell does not run commands: {last}",
            host=self.host,
            hint="The user needs a login shell that runs `sh -c`, and the program base64.",
        )
