"""TCP through a host: a direct-tcpip channel as bytes to read and write."""

import asyncio
from typing import Final

from korch.ssh.link import Link
from korch.ssh.pipes import BROKEN
from korch.ssh.wire import WireChannel

_CHUNK_BYTES: Final = 65536


class ChannelTunnel:
    """Implements `Tunnel`."""

    def __init__(self, channel: WireChannel, link: Link) -> None:
        self._channel, self._link = channel, link
        channel.settimeout(0.0)
        link.busy()
        self._closed = False

    async def read(self, limit: int = 65536) -> bytes:
        """Next bytes, b"" at the end."""
        channel = self._channel
        await channel.until(lambda: channel.recv_ready() or bool(channel.eof_received) or bool(channel.closed))
        return bytes(channel.recv(limit)) if channel.recv_ready() else b""

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises `BrokenPipeError` when the other side has gone."""
        view = memoryview(data)
        while view:
            await self._channel.until(lambda: self._channel.send_ready() or bool(self._channel.closed))
            if self._channel.closed:
                raise BrokenPipeError("the tunnel is closed")
            try:
                view = view[self._channel.send(bytes(view[:_CHUNK_BYTES])) :]
            except BROKEN as error:
                raise BrokenPipeError("the tunnel is closed") from error
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End it; twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._link.idle()
        try:
            self._channel.close()
        except BROKEN:
            return
