"""A program and its client."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from korch.api.streams.sessions import USUAL_SIZE, Session, Wanted
from korch.api.streams.sockets import Talk
from korch.errors import HostUnreachableError
from tests.unit.api.streams.fakes import FakeStream, FakeTalk, until

ALL = Wanted(stdin=True, stdout=True, stderr=True, tty=False)


@dataclass
class Play:
    """A session that runs, and what it was started with."""

    talk: FakeTalk
    stream: FakeStream
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    left: bool = False


def play(act: Callable[[Play], Coroutine[Any, Any, None]], wanted: Wanted = ALL, status: int = 0) -> Play:
    """Run a session while `act` does something."""

    async def main() -> Play:
        play = Play(FakeTalk(), FakeStream(status))

        @asynccontextmanager
        async def start(size: tuple[int, int] | None) -> AsyncIterator[FakeStream]:
            play.sizes.append(size)
            try:
                yield play.stream
            finally:
                play.left = True

        async with asyncio.timeout(20):
            session = asyncio.create_task(Session(cast(Talk, play.talk), start, wanted).run())
            await act(play)
            await session
        return play

    return asyncio.run(main())


def test_input_comes_back_and_the_status_arrives() -> None:
    async def act(play: Play) -> None:
        play.talk.say(b"\x00ab", b"\x00c", b"\xff\x00")
        assert await play.talk.heard.get() == b"\x01ab"
        assert await play.talk.heard.get() == b"\x01c"
        assert json.loads((await play.talk.heard.get())[1:])["details"]["causes"][0]["message"] == "3"

    done = play(act, status=3)
    assert (done.talk.closed, done.sizes, done.left) == (1000, [None], True)


def test_input_that_was_not_asked_for_is_dropped() -> None:
    async def act(play: Play) -> None:
        play.talk.say(b"\x00ab")
        assert (await play.talk.heard.get())[0] == 3

    assert play(act, Wanted(stdin=False, stdout=True, stderr=True, tty=False)).stream.written == []


def test_a_program_that_reads_no_more_ends_by_itself() -> None:
    async def act(play: Play) -> None:
        play.stream.ended.set()
        play.talk.say(b"\x00ab", b"\x00cd")
        await until(lambda: not play.talk.unread)
        play.stream.print(2, b"bye")
        play.stream.end()
        assert await play.talk.heard.get() == b"\x02bye"

    assert play(act).talk.closed == 1000


def test_a_client_that_goes_ends_it() -> None:
    async def act(play: Play) -> None:
        play.talk.say(None)

    done = play(act)
    assert done.left
    assert done.talk.closed is None


def test_the_terminal_has_the_size_that_the_client_tells_first_and_later() -> None:
    async def act(play: Play) -> None:
        play.talk.say(b'\x04{"Width":101,"Height":33}', b'\x04{"Width":50,"Height":20}', b"\x00x", b"\xff\x00")

    done = play(act, Wanted(stdin=True, stdout=True, stderr=False, tty=True))
    assert done.sizes == [(101, 33)]
    assert done.stream.size == (50, 20)


def test_what_a_client_types_first_is_not_lost() -> None:
    async def act(play: Play) -> None:
        play.talk.say(b"\x00x", b"\xff\x00")

    done = play(act, Wanted(stdin=True, stdout=True, stderr=False, tty=True))
    assert done.sizes == [USUAL_SIZE]
    assert done.stream.written == [b"x"]


def test_large_output_goes_in_pieces_no_faster_than_it_is_read() -> None:
    async def act(play: Play) -> None:
        play.talk.may_hear.clear()
        play.stream.print(1, b"x" * 100_000)
        play.stream.end()
        await until(lambda: play.talk.waiting)
        assert play.talk.heard.empty()
        play.talk.may_hear.set()

    done = play(act)
    sizes = [len(done.talk.heard.get_nowait()) - 1 for _ in range(done.talk.heard.qsize() - 1)]
    assert sum(sizes) == 100_000
    assert max(sizes) <= 32 * 1024


def test_a_broken_connection_and_a_node_that_is_gone_are_failures() -> None:
    async def act(play: Play) -> None:
        play.stream.end()

    failure = json.loads(play(act, status=-1).talk.heard.get_nowait()[1:])
    assert (failure["reason"], failure["code"]) == ("InternalError", 500)

    async def main() -> bytes:
        talk = FakeTalk()

        @asynccontextmanager
        async def start(_: tuple[int, int] | None) -> AsyncIterator[FakeStream]:
            raise HostUnreachableError("n1 is gone", host="n1")
            yield FakeStream()

        await Session(cast(Talk, talk), start, ALL).run()
        return await talk.heard.get()

    assert "n1 is gone" in json.loads(asyncio.run(main())[1:])["message"]
