"""A program or a TCP connection at the other end of a ControlMaster: pipes that the master reads and writes."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import tty
from collections.abc import Awaitable, Callable
from typing import Final

from korch.ssh import mux

READ_AHEAD_BYTES: Final = 256 * 1024
STATUS_KILLED: Final = 137
_CHUNK_BYTES: Final = 65536


class Inlet:
    """Bytes from a descriptor, read ahead of whoever wants them, up to a bound."""

    def __init__(self, descriptor: int, changed: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor, self._changed = descriptor, changed
        self._loop = asyncio.get_running_loop()
        self._watching = False
        self.waiting = bytearray()
        self.has_ended = False
        self._watch()

    def take(self, limit: int) -> bytes:
        """Bytes that wait."""
        data = bytes(self.waiting[:limit])
        del self.waiting[:limit]
        if not self.has_ended and not self._watching and len(self.waiting) < READ_AHEAD_BYTES:
            self._watch()
        return data

    def close(self) -> None:
        """Read no more; what was read stays."""
        if self.has_ended:
            return
        self._unwatch()
        self.has_ended = True
        os.close(self._descriptor)

    def _watch(self) -> None:
        self._watching = True
        self._loop.add_reader(self._descriptor, self._readable)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._descriptor)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.waiting += data
        if not data:
            self.close()
        elif len(self.waiting) >= READ_AHEAD_BYTES:
            self._unwatch()
        self._changed()


class Outlet:
    """Bytes to a descriptor."""

    def __init__(self, descriptor: int, changed: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor, self._changed = descriptor, changed
        self._loop = asyncio.get_running_loop()
        self.is_full = False
        self.has_ended = False

    def put(self, data: bytes) -> int:
        """How many bytes were taken; 0 when it is full, or when nobody reads them any more."""
        if self.has_ended:
            return 0
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            self.is_full = True
            self._loop.add_writer(self.descriptor, self._writable)
        except OSError:
            self.close()
        return 0

    def close(self) -> None:
        """Tell the reader that this was all."""
        if self.has_ended:
            return
        self._writable()
        self.has_ended = True
        os.close(self.descriptor)

    def _writable(self) -> None:
        if self.is_full:
            self.is_full = False
            self._loop.remove_writer(self.descriptor)
            self._changed()


class MuxChannel:
    """Implements `Channel`. `is_alive` asks whether `master` (a process) lives, `on_end` hears of the end."""

    def __init__(
        self,
        sock: socket.socket,
        ends: "Ends",
        *,
        master: int,
        is_alive: Callable[[], Awaitable[bool]],
        on_end: "Callable[[MuxChannel], None]",
    ) -> None:
        self.exit_seen, self.exit_status = False, -1
        self._sock, self._master, self._is_alive, self._on_end = sock, master, is_alive, on_end
        self._waiters: list[asyncio.Future[None]] = []
        self._out = Inlet(ends.ours.pop("out"), self.changed)
        self._err = Inlet(ends.ours.pop("err"), self.changed) if "err" in ends.ours else None
        self._in = Outlet(ends.ours.pop("in"), self.changed)
        self._said = bytearray()
        self._is_over = False  # the conversation, and with it the channel
        self._verdict: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._hear)

    @property
    def has_ended(self) -> bool:
        """Nothing runs at the other end any more."""
        return self.exit_seen or self._is_over

    @property
    def is_closed(self) -> bool:
        """The channel is gone, and no more output will come."""
        return self._is_over and self.eof_seen

    @property
    def eof_seen(self) -> bool:
        """The other side sends no more."""
        return self._out.has_ended and (self._err is None or self._err.has_ended)

    @property
    def cannot_send(self) -> bool:
        """Nothing can be written any more."""
        return self._in.has_ended

    async def until(self, true: Callable[[], bool]) -> None:
        """Return when `true()`, which is asked again after every change."""
        while not true():
            future = self._loop.create_future()
            self._waiters.append(future)
            await future

    def changed(self) -> None:
        """Wake everyone."""
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    def recv_ready(self) -> bool:
        """Output waits."""
        return bool(self._out.waiting)

    def recv(self, limit: int, /) -> bytes:
        """Output that waits."""
        return self._out.take(limit)

    def recv_stderr_ready(self) -> bool:
        """Error output waits."""
        return self._err is not None and bool(self._err.waiting)

    def recv_stderr(self, limit: int, /) -> bytes:
        """Error output that waits."""
        return self._err.take(limit) if self._err is not None else b""

    def send_ready(self) -> bool:
        """Some bytes can be sent, or never any more."""
        return not self._in.is_full

    def send(self, data: bytes, /) -> int:
        """How many of the bytes were taken."""
        return self._in.put(data)

    def shutdown_write(self) -> None:
        """Nothing more will be sent."""
        self._in.close()

    def resize_pty(self, width: int, height: int) -> None:
        """Tell the size of the terminal: the master looks at it when it gets this signal, as from any `ssh -S`."""
        if self._in.has_ended:
            return
        set_size(self._in.descriptor, width, height)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._master, signal.SIGWINCH)

    def ask_to_end(self) -> None:
        """The protocol has no word for it."""

    def hang_up(self) -> None:
        """Close; sshd keeps a session while its program runs."""
        if self._verdict is not None:
            self._verdict.cancel()
        self._in.close()
        self._out.close()
        if self._err is not None:
            self._err.close()
        self._end()
        self._on_end(self)

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._loop.remove_reader(self._sock)
            self._sock.close()
        self.changed()

    def _hear(self) -> None:
        """What the master says while the channel is open: the exit status, or that it is gone."""
        try:
            data = self._sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data
        try:
            while (message := mux.unpack(self._said)) is not None:
                if message.kind == mux.EXIT_MESSAGE and len(message.numbers) > 1:
                    self.exit_status, self.exit_seen = message.numbers[1], True
                elif message.kind == mux.TTY_ALLOC_FAIL:
                    data = b""
        except mux.MuxError:
            data = b""
        if data:
            self.changed()
        elif self.exit_seen:
            self._end()
        elif self._verdict is None:
            self._loop.remove_reader(self._sock)
            self._verdict = self._loop.create_task(self._judge(), name="end of a channel")

    async def _judge(self) -> None:
        """No exit status came: either the connection is gone, or a signal ended the program.

        OpenSSH's client forgets which one it was, so it counts as the one that cannot be caught.
        """
        if await self._is_alive():
            self.exit_status, self.exit_seen = STATUS_KILLED, True
        self._end()


class Ends:
    """Descriptors for a channel: `ours`, by name, and `theirs`, in the order in which the master takes them."""

    def __init__(self) -> None:
        self.ours: dict[str, int] = {}
        self.theirs: list[int] = []
        self._terminal: int | None = None

    @classmethod
    def pipes(cls, *, err: bool) -> "Ends":
        """For programs without a terminal, and for TCP."""
        made = cls()
        try:
            made._writing("in")
            made._reading("out")
            if err:
                made._reading("err")
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def terminal(cls, columns: int, rows: int) -> "Ends":
        """Input through a terminal, whose modes and size the host's one gets. Output through a pipe: nothing that a
        local terminal would do to it is wanted.
        """
        made = cls()
        try:
            made.ours["in"], inner = os.openpty()
            made.theirs.append(inner)
            made._terminal = inner
            set_size(inner, columns, rows)
            made._reading("out")
            made.theirs.append(os.dup(made.theirs[-1]))
        except BaseException:
            made.close()
            raise
        return made

    def sent(self) -> None:
        """The master has them and has read the modes: from now on, bytes pass the terminal unchanged."""
        if self._terminal is not None:
            tty.setraw(self._terminal)
        self._close_theirs()

    def close(self) -> None:
        """All that nobody has taken over."""
        self._close_theirs()
        while self.ours:
            os.close(self.ours.popitem()[1])

    def _close_theirs(self) -> None:
        while self.theirs:
            os.close(self.theirs.pop())

    def _reading(self, name: str) -> None:
        self.ours[name], inner = os.pipe()
        self.theirs.append(inner)

    def _writing(self, name: str) -> None:
        inner, self.ours[name] = os.pipe()
        self.theirs.append(inner)


def set_size(terminal: int, columns: int, rows: int) -> None:
    """The size of a terminal in characters."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
