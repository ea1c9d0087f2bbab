"""What stands where paramiko expects a socket: byte pipes whose `send` never waits for the peer.

What the kernel (or the bastion's window) does not take at once stays in a buffer, which SSH's own windows bound. A
frozen node can therefore never hold the event loop, from which most messages are sent.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from paramiko.ssh_exception import SSHException

if TYPE_CHECKING:
    from korch.ssh.wire import WireChannel

BROKEN: Final = (EOFError, OSError, SSHException)
_READ_BYTES: Final = 65536


class Pipe(Protocol):
    """What paramiko uses as its socket, and korch uses to see life on it."""

    heard_at: float

    def send(self, data: bytes) -> int:
        """Take all of `data`."""
        ...

    def recv(self, limit: int) -> bytes:
        """Wait for bytes; b"" at the end."""
        ...

    def settimeout(self, timeout_s: float | None) -> None:
        """How long `recv` waits."""
        ...

    def close(self) -> None:
        """Hang up and wake the reader."""
        ...


class SocketPipe:
    """A connected TCP or Unix socket (the second one for ProxyCommand)."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._sock, self._loop = sock, loop
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._unread = b""
        self._closed = False
        self._watching = False
        self.heard_at = time.monotonic()

    def send(self, data: bytes) -> int:
        """Take all of `data`; raises `OSError` after `close`."""
        with self._lock:
            if self._closed:
                raise OSError("the connection is closed")
            if not self._unsent:
                sent = self._write(data)
                if sent == len(data):
                    return sent
                self._unsent += data[sent:]
                self._on_loop(self._watch_writable)
            else:
                self._unsent += data
        return len(data)

    def recv(self, limit: int) -> bytes:
        """Wait for bytes as `settimeout` says; b"" at the end."""
        if not self._unread:
            try:
                self._unread = self._sock.recv(_READ_BYTES)
            except TimeoutError:
                raise
            except OSError:
                if self._closed:
                    return b""
                raise
            self.heard_at = time.monotonic()
        data, self._unread = self._unread[:limit], self._unread[limit:]
        return data

    def settimeout(self, timeout_s: float | None) -> None:
        """How long `recv` waits."""
        self._sock.settimeout(timeout_s)

    def getpeername(self) -> Any:
        """For paramiko's logs."""
        return self._sock.getpeername()

    def close(self) -> None:
        """Hang up and wake the reader."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            watching = self._watching
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a reader in another thread; closing alone does not
        if not (watching and self._on_loop(self._finish)):
            self._sock.close()

    def _finish(self) -> None:
        """Close a descriptor that the loop watches: it must let go of the number before that is used again."""
        if self._watching:
            self._loop.remove_writer(self._sock.fileno())
            self._watching = False
        self._sock.close()

    def _write(self, data: bytes | bytearray) -> int:
        """Bytes that the kernel took; the descriptor is non-blocking because the socket has a timeout."""
        try:
            return os.write(self._sock.fileno(), data)
        except BlockingIOError:
            return 0

    def _watch_writable(self) -> None:
        with self._lock:
            if not self._closed and not self._watching:
                self._watching = True
                self._loop.add_writer(self._sock.fileno(), self._flush)

    def _flush(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                del self._unsent[: self._write(self._unsent)]
            except OSError:
                self._unsent.clear()  # the reader sees the same and ends the connection
            if not self._unsent:
                self._loop.remove_writer(self._sock.fileno())
                self._watching = False

    def _on_loop(self, call: Callable[[], object]) -> bool:
        """Have the loop call it; False when the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            return False
        return True


class ChannelPipe:
    """A direct-tcpip channel of a bastion's connection: how everything behind it shares that one connection."""

    def __init__(self, channel: "WireChannel") -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self.heard_at = time.monotonic()
        channel.watch(self._flush)

    @property
    def _closed(self) -> bool:
        return bool(self._channel.closed)

    def send(self, data: bytes) -> int:
        """Take all of `data`; raises `OSError` after `close`."""
        if self._channel.closed:
            raise OSError("the connection through the jump host is closed")
        with self._lock:
            self._unsent += data
        self._flush()
        return len(data)

    def recv(self, limit: int) -> bytes:
        """Wait for bytes as `settimeout` says; b"" at the end."""
        data = self._channel.recv(limit)
        self.heard_at = time.monotonic()
        return data

    def settimeout(self, timeout_s: float | None) -> None:
        """How long `recv` waits."""
        self._channel.settimeout(timeout_s)

    def close(self) -> None:
        """Hang up and wake the reader."""
        with contextlib.suppress(*BROKEN):
            self._channel.close()

    def _flush(self) -> None:
        with self._lock, contextlib.suppress(*BROKEN):
            while self._unsent and self._channel.send_ready() and not self._channel.closed:
                sent = self._channel.send(bytes(self._unsent[:_READ_BYTES]))
                if sent == 0:
                    return  # ended meanwhile
                del self._unsent[:sent]
