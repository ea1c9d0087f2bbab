"""One SSH connection that is logged in: channels on request, and a watch over its silence."""

import asyncio
import time
from typing import Any, Final

from korch.ssh.channels import ChannelRefusedError, NeverOpenedError
from korch.ssh.dial import Dialled, abandon, opened
from korch.ssh.options import SshOptions
from korch.ssh.pipes import BROKEN
from korch.ssh.wire import WireChannel, WireTransport

OPEN_TIMEOUT_S: Final = 10.0
TERM: Final = "xterm-256color"
ASK_ALIVE_AFTER_S: Final = 4.0  # when ServerAliveInterval is not set; lost after four times that


class Link:
    """Made by `login.open_link`."""

    def __init__(self, name: str, options: SshOptions, connection: Any, dialled: Dialled) -> None:
        self.name, self.options = name, options
        self.connection = connection  # Fabric's
        transport = connection.transport
        assert isinstance(transport, WireTransport)
        self.transport = transport
        self._dialled = dialled
        self._why = ""
        self._busy = 0
        self._beat_timer: asyncio.TimerHandle | None = None
        self._interval_s = float(options.alive_interval_s or ASK_ALIVE_AFTER_S)
        self._unanswered = 0
        self._asked_at = 0.0

    @property
    def is_alive(self) -> bool:
        """False once either side hung up."""
        return bool(self.transport.is_active())

    def why_lost(self) -> str:
        """A few words on the end of this connection."""
        return self._why or "the host hung up"

    async def start(self, line: str, pty: tuple[int, int] | None) -> WireChannel:
        """A channel on which the login shell was given `line`."""
        channel = await self.open("session")
        channel.settimeout(0.0)
        try:
            if pty is not None:
                self.transport.request_nowait(channel, "pty-req", TERM, pty[0], pty[1], 0, 0, b"\0")
            self.transport.request_nowait(channel, "exec", line)
        except BROKEN as error:
            channel.hang_up()
            raise NeverOpenedError(str(error) or self.why_lost()) from error
        return channel

    async def reach(self, address: str, port: int, timeout_s: float) -> WireChannel:
        """TCP from the host."""
        channel = await self.open("direct-tcpip", (address, port), timeout_s)
        channel.settimeout(0.0)
        return channel

    async def open(
        self, kind: str, destination: tuple[str, int] | None = None, timeout_s: float = OPEN_TIMEOUT_S
    ) -> WireChannel:
        """An open channel. Raises `ChannelRefusedError`; `NeverOpenedError` when nobody answers."""
        try:
            channel = self.transport.open_nowait(kind, destination)
        except BROKEN as error:
            raise NeverOpenedError(str(error) or self.why_lost()) from error
        try:
            async with asyncio.timeout(timeout_s):
                await opened(channel)
        except TimeoutError:
            abandon(channel)
            raise NeverOpenedError(f"no answer for {timeout_s:.0f} s") from None
        except BaseException:
            abandon(channel)
            raise
        if channel.open_error is not None:
            raise ChannelRefusedError(*channel.open_error)
        if channel.closed:
            raise NeverOpenedError(self.why_lost())
        return channel

    def busy(self) -> None:
        """Someone waits for the other side: watch that it lives."""
        self._busy += 1
        if self._beat_timer is None:
            self._schedule()

    def idle(self) -> None:
        """The opposite of `busy`."""
        self._busy -= 1
        if self._busy == 0 and self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None

    def close(self, why: str = "closed here") -> None:
        """Hang up; everything that waits on a channel is woken."""
        self._why = self._why or why
        if self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None
        self.connection.client.close()
        self._dialled.close()

    def _schedule(self) -> None:
        self._beat_timer = asyncio.get_running_loop().call_later(self._interval_s, self._beat)

    def _beat(self) -> None:
        """Ask after each silent interval, and give up when so many questions in a row have had no answer."""
        self._beat_timer = None
        now, heard_at = time.monotonic(), self._dialled.pipe.heard_at
        if heard_at > self._asked_at:
            self._unanswered = 0
        elif self._unanswered >= self.options.alive_count:
            self.close(f"the host was silent for {now - heard_at:.0f} s")
            return
        if now - heard_at >= self._interval_s * 0.9:
            self._unanswered += 1
            self._asked_at = now
            try:
                self.transport.ask_alive()
            except BROKEN as error:
                self.close(str(error) or "the host hung up")
                return
        self._schedule()
