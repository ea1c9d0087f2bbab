"""The transport's contract: how the rest of korch reaches a host. One test suite runs against every transport."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from korch.engines.base import Command, Script


class Result(msgspec.Struct, frozen=True):
    """How a program ended. `status` is its exit status, 124 when its time on the host ran out, -1 when unknown."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")


class Stream(Protocol):
    """A running program: its output as it comes, its input, its end."""

    def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1, bytes) from stdout and (2, bytes) from stderr until both end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send to stdin; waits while the other side does not read."""
        ...

    async def write_eof(self) -> None:
        """Close stdin."""
        ...

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the size of the terminal, when the stream has one."""
        ...

    async def wait(self) -> int:
        """The exit status; -1 when the connection broke."""
        ...


class Tunnel(Protocol):
    """A TCP connection made from the host (direct-tcpip)."""

    async def read(self, limit: int = 65536) -> bytes:
        """Next bytes, b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


class TcpTunnel(Tunnel, Protocol):
    """One that can end in one direction alone."""

    async def write_eof(self) -> None:
        """Send no more; the other side may go on."""
        ...


class Transport(Protocol):
    """One host. Every call may raise `HostUnreachableError` or a `HostRefusedError`, naming the host.

    Calls may be made at the same time; a transport keeps within what sshd allows by itself.
    """

    @property
    def host(self) -> str:
        """The host's name in the inventory, for messages."""
        ...

    async def connect(self, *, timeout_s: float = 10.0) -> None:
        """Connect and log in; does nothing when connected."""
        ...

    async def run(self, command: Command | Script, *, become: bool | None = None) -> Result:
        """Run to the end. Raises `CommandTimeoutError` only when the host itself stays silent past the deadline.

        `become` runs it under `sudo -n`; None means as the inventory says.
        """
        ...

    def stream(
        self,
        command: Command | Script,
        *,
        pty: tuple[int, int] | None = None,
        become: bool | None = None,
        control: bool = False,
    ) -> AbstractAsyncContextManager[Stream]:
        """A running program on a connection of its own; `pty` = (columns, rows); `timeout_s` 0 = no limit.

        `control`: on the connection that `run` uses, for what lives as long as that one and ends by itself at the end
        of its stdin; leaving the context then asks nothing more of the host, which may be silent.
        """
        ...

    async def forward(self, address: str, port: int, *, timeout_s: float = 5.0) -> TcpTunnel:
        """TCP from the host to `address:port`. `ConnectionRefusedError`; `PermissionError` if sshd forbids it."""
        ...

    async def close(self) -> None:
        """Hang up; calling it twice is fine."""
        ...
