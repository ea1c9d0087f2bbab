"""Port-forwards: kubectl's form and that of Python's clients."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.streams import spdy, tunnels
from korch.api.streams.sockets import Talk
from korch.api.streams.tunnels import ChannelForward, Pipe, SpdyForward, ports_of
from korch.ssh.base import TcpTunnel
from tests.unit.api.streams.fakes import FakeTalk, FakeTunnel, until


class Client:
    """kubectl's side of a forward."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.talk, self.stuck = FakeTalk(), stuck
        self.writer, self.reader = spdy.Writer(), spdy.Reader()
        self.dialled: list[int] = []
        self.tunnels: list[FakeTunnel] = []

    async def dial(self, port: int) -> TcpTunnel:
        self.dialled.append(port)
        if port == 1:
            raise ConnectionRefusedError("n1: 10.0.0.1 port 1: Connection refused")
        self.tunnels.append(FakeTunnel(stuck=self.stuck))
        return self.tunnels[-1]

    def open(self, stream: int, kind: str, port: int | str = 80, request: str = "0", *, fin: bool = False) -> None:
        headers = {"streamtype": kind, "port": str(port), "requestid": request}
        self.talk.say(self.writer.opened(stream, headers, fin=fin))

    def connect(self, stream: int, port: int = 80, request: str = "0") -> None:
        """As kubectl does: the error stream is ended at once."""
        self.open(stream, "error", port, request)
        self.talk.say(spdy.data(stream, b"", fin=True))
        self.open(stream + 2, "data", port, request)

    async def hear(self) -> spdy.Frame:
        """The next frame that means something to a client."""
        while True:
            for frame in self.reader.feed(await self.talk.heard.get()):
                return frame


def forward(act: Callable[[Client], Coroutine[Any, Any, None]], *, stuck: bool = False) -> Client:
    async def main() -> Client:
        client = Client(stuck=stuck)
        async with asyncio.timeout(20):
            running = asyncio.create_task(SpdyForward(cast(Talk, client.talk), client.dial, "p").run())
            await act(client)
            client.talk.say(None)
            await running
        return client

    return asyncio.run(main())


def test_bytes_go_both_ways_and_both_streams_end() -> None:
    async def act(client: Client) -> None:
        client.connect(1)
        client.talk.say(spdy.data(3, b"hello"), spdy.data(3, b"", fin=True))
        assert [await client.hear() for _ in range(3)] == [
            spdy.Data(3, b"hello"),
            spdy.Data(1, b"", True),
            spdy.Data(3, b"", True),
        ]

    client = forward(act)
    assert client.dialled == [80]
    assert client.tunnels[0].closed


def test_a_refused_port_is_told_on_the_error_stream() -> None:
    async def act(client: Client) -> None:
        client.connect(1, port=1)
        assert await client.hear() == spdy.Data(
            1, b"error forwarding port 1 to pod p: n1: 10.0.0.1 port 1: Connection refused"
        )
        assert await client.hear() == spdy.Data(1, b"", True)

    forward(act)


def test_many_connections_at_once() -> None:
    async def act(client: Client) -> None:
        for number in range(50):
            client.connect(4 * number + 1, request=str(number))
            client.talk.say(spdy.data(4 * number + 3, str(number).encode()))
        heard = [await client.hear() for _ in range(50)]
        assert sorted(heard, key=lambda frame: frame.stream) == [  # type: ignore[union-attr]
            spdy.Data(4 * number + 3, str(number).encode()) for number in range(50)
        ]

    assert all(tunnel.closed for tunnel in forward(act).tunnels)


def test_a_reset_ends_one_connection_and_a_ping_comes_back() -> None:
    async def act(client: Client) -> None:
        client.connect(1)
        client.talk.say(spdy.data(3, b"x"))
        assert await client.hear() == spdy.Data(3, b"x")
        client.talk.say(spdy.ping(7), spdy.reset(3, 5))
        assert await client.hear() == spdy.Ping(7)
        assert await client.hear() == spdy.Data(1, b"", True), "kubectl waits for the end of the error stream"
        assert client.tunnels[0].closed
        client.open(5, "data", request="1")
        client.talk.say(spdy.reset(5, 5))
        client.connect(7, request="1")
        client.talk.say(spdy.data(9, b"y"))
        while (frame := await client.hear()) != spdy.Data(9, b"y"):
            assert isinstance(frame, spdy.Data)
            assert not frame.data

    forward(act)


def test_what_the_pod_does_not_read_is_not_taken_without_end() -> None:
    async def act(client: Client) -> None:
        client.connect(1)
        for _ in range(100):
            client.talk.say(spdy.data(3, bytes(32 * 1024)))
        await until(lambda: client.tunnels)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert client.talk.unread > 80
        client.talk.say(None)

    async def main() -> None:  # the client goes while it is held up: the end must not wait for the pod
        client = Client(stuck=True)
        running = asyncio.create_task(SpdyForward(cast(Talk, client.talk), client.dial, "p").run())
        async with asyncio.timeout(20):
            await act(client)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        assert client.tunnels[0].closed

    asyncio.run(main())


def test_streams_that_make_no_sense_are_refused() -> None:
    async def act(client: Client) -> None:
        client.open(1, "what")
        assert await client.hear() == spdy.Reset(1)
        client.open(3, "data", port="99999")
        assert await client.hear() == spdy.Reset(3)
        client.open(5, "data", port="x")
        assert await client.hear() == spdy.Reset(5)
        client.open(5, "data")

    assert forward(act).talk.closed == 1008


def test_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "MOST_AT_ONCE", 2)

    async def act(client: Client) -> None:
        for number in range(3):
            client.open(2 * number + 1, "data", request=str(number))
        assert await client.hear() == spdy.Reset(5)

    forward(act)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=120), max_size=6), st.binary(max_size=60))
def test_noise_ends_the_forward_cleanly(messages: list[bytes], tail: bytes) -> None:
    async def act(client: Client) -> None:
        client.connect(1)
        client.talk.say(*messages, tail)

    assert forward(act).talk.closed in {1000, 1008}


def channel_forward(act: Callable[[Client], Coroutine[Any, Any, None]], *ports: int, ends: bool = True) -> Client:
    async def main() -> Client:
        client = Client()
        async with asyncio.timeout(20):
            forward = ChannelForward(cast(Talk, client.talk), client.dial, "p", ports, ends=ends)
            running = asyncio.create_task(forward.run())
            await act(client)
            await running
        return client

    return asyncio.run(main())


def test_each_channel_begins_with_its_port() -> None:
    async def act(client: Client) -> None:
        head = [await client.talk.heard.get() for _ in range(4)]
        assert head == [b"\x00\x50\x00", b"\x01\x50\x00", b"\x02\x90\x1f", b"\x03\x90\x1f"]
        client.talk.say(b"\x02hello", b"\x09what", b"\x00")
        assert await client.talk.heard.get() == b"\x02hello"
        client.talk.say(b"\xff\x00", b"\xff\x02")

    client = channel_forward(act, 80, 8080)
    assert (client.dialled, client.talk.closed) == ([80, 8080], 1000)


def test_a_channel_that_cannot_be_is_told() -> None:
    async def act(client: Client) -> None:
        await client.talk.heard.get()
        await client.talk.heard.get()
        assert (await client.talk.heard.get()).startswith(b"\x01error forwarding port 1 to pod p:")

    assert channel_forward(act, 1).talk.closed == 1000


@pytest.mark.parametrize(
    ("texts", "ports"),
    [
        (["80"], (80,)),
        (["80", "81"], (80, 81)),
        (["80,81"], (80, 81)),
        ([], None),
        (["0"], None),
        (["70000"], None),
        (["x"], None),
        ([""], None),
        (["²"], None),
        (["80"] * 200, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_ports_of_a_query(texts: list[str], ports: tuple[int, ...] | None) -> None:
    assert ports_of(texts) == ports


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_a_pipe_gives_all_that_it_took(pieces: list[bytes]) -> None:
    async def main() -> None:
        pipe = Pipe()
        for piece in pieces:
            await pipe.put(piece)
        pipe.end()
        got = b""
        while data := await pipe.get():
            got += data
        assert got == b"".join(pieces)

    asyncio.run(main())
