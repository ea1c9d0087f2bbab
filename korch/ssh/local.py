"""This machine as a node (`ansible_connection: local`): the same contract without SSH."""

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from korch.engines.base import Command, Script
from korch.errors import CommandTimeoutError, HostUnreachableError, NoPermissionError
from korch.inventory.model import Host
from korch.ssh.base import Result, Stream, TcpTunnel
from korch.ssh.frame import KILL_GRACE_S, remote_line, timed_words, true_status

_GRACE_S: Final = 10.0
_CHUNK_BYTES: Final = 65536


class LocalTransport:
    """Implements `Transport` with programs of this machine, run as the user who runs korch."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def host(self) -> str:
        """The host's name in the inventory."""
        return self._host.name

    async def connect(self, *, timeout_s: float = 10.0) -> None:
        """Nothing to do."""

    async def run(self, command: Command | Script, *, become: bool | None = None) -> Result:
        """Run to the end."""
        loop = asyncio.get_running_loop()
        argv = self._argv(command, become)
        process = await self._start(argv, stdin=DEVNULL if command.stdin is None else PIPE, stdout=PIPE, stderr=PIPE)
        began = loop.time()
        limit_s = command.timeout_s + KILL_GRACE_S + _GRACE_S if command.timeout_s > 0 else None
        try:
            async with asyncio.timeout(limit_s):
                out, err = await process.communicate(command.stdin)
        except TimeoutError:
            raise CommandTimeoutError(
                f"{self.host}: a command gave no end within {limit_s:.0f} s", host=self.host
            ) from None
        finally:
            _kill(process)
        status = process.returncode if process.returncode is not None else -1
        status = 128 - status if status < 0 else status
        if len(argv) > 2 and argv[0] == "sudo" and status == 1 and err.startswith(b"sudo:"):
            raise NoPermissionError(
                f"{self.host}: sudo does not run commands without a password: {err.decode('utf-8', 'replace').strip()}",
                host=self.host,
                hint="Here: echo 'USER ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/korch, with USER replaced.",
            )
        return Result(true_status(status, loop.time() - began, command.timeout_s), out, err)

    @asynccontextmanager
    async def stream(
        self,
        command: Command | Script,
        *,
        pty: tuple[int, int] | None = None,
        become: bool | None = None,
        control: bool = False,
    ) -> AsyncIterator[Stream]:
        """A running program; leaving the context ends it."""
        argv = self._argv(command, become)
        program: _Program
        if pty is None:
            process = await self._start(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            program = _Program(process, None)
        else:
            ours, theirs = os.openpty()
            try:
                _set_size(theirs, *pty)
                process = await self._start(argv, stdin=theirs, stdout=theirs, stderr=theirs)
            except BaseException:
                os.close(ours)
                raise
            finally:
                os.close(theirs)
            program = _Program(process, ours)
        feeding = asyncio.create_task(program.feed(command.stdin or b""), name=f"stdin of {self.host}")
        try:
            yield program
        finally:
            feeding.cancel()
            await asyncio.shield(asyncio.ensure_future(program.end()))

    async def forward(self, address: str, port: int, *, timeout_s: float = 5.0) -> TcpTunnel:
        """TCP from this machine. Raises `ConnectionRefusedError`, `TimeoutError`."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(address, port)
        except TimeoutError:
            raise TimeoutError(f"{self.host}: {address} port {port}: no answer for {timeout_s:.0f} s") from None
        except OSError as error:
            raise ConnectionRefusedError(f"{self.host}: {address} port {port}: {error.strerror or error}") from error
        return _Tunnel(reader, writer)

    async def close(self) -> None:
        """Nothing to do."""

    def _argv(self, command: Command | Script, become: bool | None) -> tuple[str, ...]:
        """The words to run; what no SSH transport could carry is refused here, too."""
        remote_line(command, "check")
        words = timed_words(command)
        wanted = self._host.become is True if become is None else become
        return ("sudo", "-n", "--", *words) if wanted and os.geteuid() != 0 else words

    async def _start(self, argv: tuple[str, ...], *, stdin: int, stdout: int, stderr: int) -> Process:
        """A process group of its own, so that all of it can be ended."""
        words = tuple(os.fsencode(word) for word in argv)
        try:
            return await asyncio.create_subprocess_exec(
                *words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, limit=_CHUNK_BYTES
            )
        except FileNotFoundError:
            # With no deadline there is no `timeout` that would report it as a shell does.
            return await self._start(("sh", "-c", 'exec "$@"', "sh", *argv), stdin=stdin, stdout=stdout, stderr=stderr)
        except OSError as error:
            raise HostUnreachableError(
                f"{self.host}: a program cannot be started: {error.strerror or error}", host=self.host
            ) from error


class _Program:
    """Implements `Stream` on a process: with pipes, or with the terminal `terminal`."""

    def __init__(self, process: Process, terminal: int | None) -> None:
        self._process, self._terminal = process, terminal
        self._chunks: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(16)
        reading = self._read_terminal(terminal) if terminal is not None else self._read_pipes()
        self._reading = asyncio.create_task(reading, name="output of a local program")

    async def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1, bytes) from stdout and (2, bytes) from stderr until both end."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def write(self, data: bytes) -> None:
        """Send to stdin."""
        if self._terminal is not None:
            view = memoryview(data)
            while view:
                view = view[await self._write_terminal(view) :]
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise BrokenPipeError("the program does not read any more") from error

    async def write_eof(self) -> None:
        """Close stdin."""
        if self._terminal is not None:
            await self.write(b"\x04")
        elif self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the size of the terminal."""
        if self._terminal is not None:
            _set_size(self._terminal, columns, rows)

    async def wait(self) -> int:
        """The exit status."""
        status = await self._process.wait()
        return 128 - status if status < 0 else status

    async def feed(self, data: bytes) -> None:
        """Write what the command brings along; a program that does not want it is no error."""
        with contextlib.suppress(BrokenPipeError):
            if data:
                await self.write(data)

    async def end(self) -> None:
        """End the program and everything that it started."""
        _kill(self._process, signal.SIGHUP if self._terminal is not None else signal.SIGTERM)
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._process.wait()
        _kill(self._process)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._process.wait()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    async def _read_pipes(self) -> None:
        async def read(number: int, pipe: asyncio.StreamReader | None) -> None:
            while pipe is not None and (data := await pipe.read(_CHUNK_BYTES)):
                await self._chunks.put((number, data))

        await asyncio.gather(read(1, self._process.stdout), read(2, self._process.stderr))
        await self._chunks.put(None)

    async def _read_terminal(self, terminal: int) -> None:
        while True:
            await _ready(terminal, writing=False)
            try:
                data = os.read(terminal, _CHUNK_BYTES)
            except OSError:  # EIO: the last program has closed the terminal
                data = b""
            if not data:
                break
            await self._chunks.put((1, data))
        await self._chunks.put(None)

    async def _write_terminal(self, view: memoryview) -> int:
        assert self._terminal is not None
        await _ready(self._terminal, writing=True)
        try:
            return os.write(self._terminal, view[:512])
        except OSError as error:
            raise BrokenPipeError("the terminal is closed") from error


class _Tunnel:
    """Implements `TcpTunnel`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, limit: int = 65536) -> bytes:
        """Next bytes, b"" at the end."""
        with contextlib.suppress(ConnectionError):
            return await self._reader.read(limit)
        return b""

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        self._writer.write(data)
        await self._writer.drain()

    async def write_eof(self) -> None:
        """Send no more; to whom has gone is fine."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def close(self) -> None:
        """End it."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


async def _ready(descriptor: int, *, writing: bool) -> None:
    """Wait until a read or a write would not block."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)


def _kill(process: Process, number: int = signal.SIGKILL) -> None:
    """Signal the process group while its leader has not been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
