"""TLS over a tunnel, for HTTPS checks. As in Kubernetes, a check does not look at certificates."""

import ssl

from korch.ssh.base import Tunnel


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_CONTEXT = _context()


class TlsTunnel:
    """Implements `Tunnel` on another one: what is written there is encrypted."""

    def __init__(self, below: Tunnel) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _CONTEXT.wrap_bio(self._incoming, self._outgoing)

    async def handshake(self) -> None:
        """Agree on keys. Raises `ssl.SSLError`, an `OSError`, when the other side speaks no TLS."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
                continue
            await self._flush()
            return

    async def read(self, limit: int = 65536) -> bytes:
        """Next bytes, b"" at the end."""
        while True:
            try:
                return self._tls.read(limit)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        self._tls.write(data)
        await self._flush()

    async def close(self) -> None:
        """End it."""
        await self._below.close()

    async def _feed(self) -> None:
        data = await self._below.read()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._below.write(data)
