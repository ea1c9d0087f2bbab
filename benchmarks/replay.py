"""A server of static answers: what the API once said to each request, over the same TLS, without anything behind it.

What a client's program costs beside it is the client's own.
"""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import h11

from korch.api.security.kubeconfig import Access as Written
from korch.api.security.kubeconfig import write
from korch.api.security.pki import ServerCertificate, load_authority
from korch.client.kubeconfig import Access
from korch.client.wire import Answer, Call, Wire

_CHUNK = 65_536
_BEGIN_S = 20.0
_PASSED_ON = frozenset({"content-type", "warning"})


@contextmanager
def replaying(access: Access, folder: Path) -> Iterator[Path]:
    """A kubeconfig of a server that asks the API only what it was never asked before."""
    with TemporaryDirectory(dir=folder) as own:
        server = _Replay(access, Path(own))
        server.start()
        try:
            yield server.config
        finally:
            server.stop()


class _Replay:
    def __init__(self, access: Access, folder: Path) -> None:
        self._access, self._folder, self.config = access, folder, folder / "kubeconfig"
        self._known: dict[tuple[str, str, str], Answer] = {}
        self._began = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="replay")

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()
        if not self._began.wait(_BEGIN_S):
            raise SystemExit("the server of static answers does not begin")

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_BEGIN_S)

    async def _serve(self) -> None:
        import time

        self._loop, self._end, self._wire = asyncio.get_running_loop(), asyncio.Event(), Wire(self._access)
        authority = load_authority(self._folder / "pki", "replay", now=time.time())
        certificate = ServerCertificate(self._folder / "pki", authority, ("127.0.0.1",))
        certificate.renew(time.time())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.path)
        context.set_alpn_protocols(["http/1.1"])
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=context)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        write(self.config, Written("replay", url, authority.pem, token="static"))
        self._began.set()
        await self._end.wait()
        server.close()
        await self._wire.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state = h11.Connection(h11.SERVER)
        with suppress(OSError, h11.RemoteProtocolError):
            while not reader.at_eof():
                asked, body = await _request(state, reader)
                if asked is None:
                    break
                answer = await self._known_to(asked, body)
                headers = [(name, value) for name, value in answer.headers.items() if name in _PASSED_ON]
                head = h11.Response(
                    status_code=answer.status, headers=[*headers, ("content-length", str(len(answer.body)))]
                )
                data = (state.send(head), state.send(h11.Data(answer.body)), state.send(h11.EndOfMessage()))
                writer.write(b"".join(part for part in data if part))
                await writer.drain()
                state.start_next_cycle()
        writer.close()

    async def _known_to(self, asked: h11.Request, body: bytes) -> Answer:
        headers = {name.decode(): value.decode() for name, value in asked.headers}
        key = (asked.method.decode(), asked.target.decode(), headers.get("accept", ""))
        if key not in self._known:
            path, _, query = key[1].partition("?")
            call = Call(
                key[0], path, _pairs(query), body, headers.get("content-type", ""), headers.get("accept", "*/*")
            )
            found = await self._wire.ask(call)
            self._known[key] = replace(found, headers={name.lower(): value for name, value in found.headers.items()})
        return self._known[key]


async def _request(state: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request | None, bytes]:
    asked, body = None, b""
    while True:
        event = state.next_event()
        match event:
            case h11.Request():
                asked = event
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage():
                return asked, body
            case h11.ConnectionClosed():
                return None, b""
            case _:
                state.receive_data(await reader.read(_CHUNK))


def _pairs(query: str) -> tuple[tuple[str, str], ...]:
    from urllib.parse import parse_qsl

    return tuple(parse_qsl(query, keep_blank_values=True))
