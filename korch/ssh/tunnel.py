"""TCP through a host: a direct-tcpip channel as bytes to read and write."""

import asyncio
import contextlib
from typing import Final

from korch.ssh.channels import Channel, Connection
from korch.ssh.pipes import BROKEN

_CHUNK_BYTES: Final = 65536


class ChannelTunnel:
    """Implements `TcpTunnel`."""

    def __init__(self, channel: Channel, link: Connection) -> None:
        self._channel, self._link = channel, link
        link.busy()
        self._closed = False

    async def read(self, limit: int = 65536) -> bytes:
        """Next bytes, b"" at the end."""
        channel = self._channel
        await channel.until(lambda: channel.recv_ready() or channel.eof_seen or channel.is_closed)
        return channel.recv(limit) if channel.recv_ready() else b""

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises `BrokenPipeError` when the other side has gone."""
        view = memoryview(data)
        while view:
            await self._channel.until(lambda: self._channel.send_ready() or self._is_over)
            if self._is_over:
                raise BrokenPipeError("the tunnel is closed")
            try:
                view = view[self._channel.send(bytes(view[:_CHUNK_BYTES])) :]
            except BROKEN as error:
                raise BrokenPipeError("the tunnel is closed") from error
            await asyncio.sleep(0)

    async def write_eof(self) -> None:
        """Send no more; to whom has gone is fine."""
        with contextlib.suppress(*BROKEN):
            self._channel.shutdown_write()

    @property
    def _is_over(self) -> bool:
        return self._channel.is_closed or self._channel.cannot_send

    async def close(self) -> None:
        """End it; twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._link.idle()
        self._channel.hang_up()
