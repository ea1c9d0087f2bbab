"""What a transport needs of a connection that is logged in, whichever program made it (`link.py`, `openssh.py`)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from korch.ssh.hostkeys import HostKey
from korch.ssh.options import SshOptions


class ChannelRefusedError(Exception):
    """The server does not open a channel; `code` as in RFC 4254 section 5.1."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class NeverOpenedError(Exception):
    """The connection was dead before a channel opened: nothing was sent to the host."""


class Channel(Protocol):
    """Bytes in three directions, and the end. Nothing here blocks; whoever wants to wait uses `until`."""

    exit_seen: bool
    exit_status: int

    @property
    def has_ended(self) -> bool:
        """Nothing runs at the other end any more: it told an exit status, or the channel is gone."""
        ...

    @property
    def is_closed(self) -> bool:
        """The channel is gone, and no more output will come."""
        ...

    @property
    def eof_seen(self) -> bool:
        """The other side sends no more; what it sent may still be waiting here."""
        ...

    @property
    def cannot_send(self) -> bool:
        """Nothing can be written any more."""
        ...

    async def until(self, true: Callable[[], bool]) -> None:
        """Return when `true()`, which is asked again after every change."""
        ...

    def recv_ready(self) -> bool:
        """Output waits."""
        ...

    def recv(self, limit: int, /) -> bytes:
        """Output that waits."""
        ...

    def recv_stderr_ready(self) -> bool:
        """Error output waits."""
        ...

    def recv_stderr(self, limit: int, /) -> bytes:
        """Error output that waits."""
        ...

    def send_ready(self) -> bool:
        """Some bytes can be sent."""
        ...

    def send(self, data: bytes, /) -> int:
        """How many of the bytes were taken. Raises one of `pipes.BROKEN` when the connection is gone."""
        ...

    def shutdown_write(self) -> None:
        """Nothing more will be sent."""
        ...

    def resize_pty(self, width: int, height: int) -> None:
        """Tell the size of the terminal."""
        ...

    def ask_to_end(self) -> None:
        """Send SIGTERM to the program, where the connection can; without waiting."""
        ...

    def hang_up(self) -> None:
        """Close, however the connection does."""
        ...


class Connection(Protocol):
    """Channels on request."""

    name: str
    options: SshOptions

    @property
    def is_alive(self) -> bool:
        """False once either side hung up."""
        ...

    def why_lost(self) -> str:
        """A few words on the end of this connection."""
        ...

    async def start(self, line: str, pty: tuple[int, int] | None) -> Channel:
        """A channel on which the login shell was given `line`. Raises `ChannelRefusedError`, `NeverOpenedError`."""
        ...

    async def reach(self, address: str, port: int, timeout_s: float) -> Channel:
        """TCP from the host. Raises `ChannelRefusedError`, `NeverOpenedError`."""
        ...

    def busy(self) -> None:
        """Someone waits for the other side: watch that it lives."""
        ...

    def idle(self) -> None:
        """The opposite of `busy`."""
        ...

    def close(self, why: str = "closed here") -> None:
        """Hang up; everything that waits on a channel is woken."""
        ...


class Dialer(Protocol):
    """Makes connections. Everything raises `HostUnreachableError` or a `HostRefusedError`, naming `name`.

    `question` are the words for `ssh`, `options` its answer; `via` is the jump host's connection, of the same dialer.
    """

    async def open(
        self, name: str, question: Sequence[str], options: SshOptions, *, via: Connection | None, timeout_s: float
    ) -> Connection:
        """A connection that is logged in."""
        ...

    async def host_key(
        self, name: str, question: Sequence[str], options: SshOptions, *, via: Connection | None, timeout_s: float
    ) -> HostKey:
        """The key that the host shows now, for a person to judge. Nobody is logged in."""
        ...

    async def greets(self, name: str, options: SshOptions, *, via: Connection | None, timeout_s: float) -> bool:
        """Whether an sshd speaks there now, on a new connection; nothing is negotiated."""
        ...
