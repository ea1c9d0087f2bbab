"""The master's side of a session: news for whoever asks, heartbeats, and a clear end."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from korch.engines.base import Script
from korch.errors import CommandTimeoutError, EngineDownError, HostUnreachableError, KorchError
from korch.nodes.news import Pulse
from korch.nodes.session import HEARTBEAT_S, SILENCE_S, open_session, pulses_a_sample
from tests.unit.nodes.virtual_loop import VirtualLoop

BEGIN = b"@korch begin\n@korch session 1\n"


class FakeStream:
    """Says what it is told to; `status` of the end, -1 = the connection broke."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.written = b""
        self.status = 0
        self.stuck = False
        self.host = "n1"
        self.left = False

    async def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        while (chunk := await self.said.get()) is not None:
            yield chunk

    async def write(self, data: bytes) -> None:
        if self.status == -1:
            raise HostUnreachableError("n1: the connection broke: cable", host="n1")
        if self.stuck:
            await asyncio.Event().wait()
        self.written += data

    async def wait(self) -> int:
        return self.status

    @asynccontextmanager
    async def stream(self, script: Script, **_: object) -> AsyncIterator["FakeStream"]:
        yield self
        self.left = True

    def session(self) -> Any:
        return open_session(self, Script(""), become=False, engine="docker")  # type: ignore[arg-type]

    def say(self, data: bytes, stream: int = 1) -> None:
        self.said.put_nowait((stream, data))

    def end(self, status: int) -> None:
        self.status = status
        self.said.put_nowait(None)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


async def others() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def test_heartbeats_come_often_enough_for_one_to_be_lost() -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(BEGIN)
        async with stream.session():
            await asyncio.sleep(HEARTBEAT_S * 3 + 1)
            assert stream.written == b"beat\n" * 3

    run(work())
    assert HEARTBEAT_S * 2 < SILENCE_S


def test_a_call_that_is_cancelled_loses_no_news() -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(BEGIN)
        async with stream.session() as session:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await anext(session)
            heard_at = session.heard_at
            stream.say(b".\n.\n")
            assert [await anext(session), await anext(session)] == [Pulse(), Pulse()]
            assert session.heard_at == heard_at + 3

    run(work())


def test_leaving_ends_everything_and_the_iteration() -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(BEGIN + b".\n")
        stream.stuck = True
        async with stream.session() as session:
            await asyncio.sleep(HEARTBEAT_S + 1)  # a heartbeat hangs
        assert stream.left
        assert await others() == []
        assert [news async for news in session] == []

    run(work())


@pytest.mark.parametrize(("status", "words"), [(-1, "cable"), (137, "ended there .status 137")])
def test_the_end_is_told_after_the_news_and_again(status: int, words: str) -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(BEGIN + b".\n")
        async with stream.session() as session:
            stream.end(status)
            assert await anext(session) == Pulse()
            for _ in range(2):
                with pytest.raises(HostUnreachableError, match=words):
                    await anext(session)

    run(work())


@pytest.mark.parametrize(
    ("status", "stderr", "kind"),
    [
        (-1, b"", HostUnreachableError),
        (1, b"Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", EngineDownError),
        (2, b"sh: syntax error", KorchError),
    ],
)
def test_a_script_that_does_not_begin_says_why(status: int, stderr: bytes, kind: type[KorchError]) -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(stderr, 2)
        stream.end(status)
        with pytest.raises(kind, match="n1"):
            async with stream.session():
                pass
        assert await others() == []

    run(work())


def test_a_script_that_says_nothing_is_given_up() -> None:
    async def work() -> None:
        stream = FakeStream()
        with pytest.raises(CommandTimeoutError, match="n1"):
            async with stream.session():
                pass
        assert await others() == []

    run(work())


def test_news_that_nobody_takes_wait_and_are_not_lost() -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(BEGIN)
        async with stream.session() as session:
            for _ in range(30):
                stream.say(b".\n" * 100)
            await asyncio.sleep(1)
            assert stream.said.qsize() > 10, "the reader waits for the consumer"
            assert [await anext(session) for _ in range(3000)] == [Pulse()] * 3000

    run(work())


def test_a_bug_while_reading_wakes_who_waits() -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(BEGIN)
        async with stream.session() as session:
            stream.say("no bytes")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await anext(session)

    run(work())


def test_cancelling_the_owner_leaves_no_task() -> None:
    async def work() -> None:
        stream = FakeStream()
        stream.say(BEGIN)

        async def owner() -> None:
            async with stream.session() as session:
                async for _ in session:
                    pass

        task = asyncio.create_task(owner())
        await asyncio.sleep(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert await others() == []

    run(work())


@pytest.mark.parametrize(("every_s", "pulses"), [(1, 5), (2, 3), (5, 1), (30, 1)])
def test_a_load_sample_comes_about_every_five_seconds(every_s: int, pulses: int) -> None:
    assert pulses_a_sample(every_s) == pulses
