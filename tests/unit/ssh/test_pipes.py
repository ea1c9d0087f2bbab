"""Byte pipes whose sender never waits, and the slots of a connection."""

import asyncio
import socket
import threading
from types import SimpleNamespace

import pytest

from korch.errors import HostUnreachableError
from korch.ssh.pipes import SocketPipe
from korch.ssh.slots import SingleFlight, Slots
from korch.ssh.threads import detached


def pipe_pair() -> tuple[SocketPipe, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pipe = SocketPipe(ours, asyncio.get_running_loop())
    pipe.settimeout(5.0)
    return pipe, theirs


def test_a_sender_never_waits_and_all_arrives_in_order() -> None:
    async def go() -> bytes:
        pipe, theirs = pipe_pair()
        parts = [bytes([number % 256]) * 50_000 for number in range(40)]
        for part in parts:  # nobody reads yet
            assert pipe.send(part) == len(part)
        heard = bytearray()
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        while len(heard) < 2_000_000:
            heard += await loop.sock_recv(theirs, 65536)
        assert heard == b"".join(parts)
        pipe.send(b"end")
        assert await loop.sock_recv(theirs, 10) == b"end"
        pipe.close()
        assert await loop.sock_recv(theirs, 10) == b""
        theirs.close()
        return bytes(heard)

    assert len(asyncio.run(go())) == 2_000_000


def test_closing_wakes_a_reader_and_refuses_senders() -> None:
    async def go() -> list[bytes]:
        pipe, theirs = pipe_pair()
        pipe.settimeout(60.0)
        heard: list[bytes] = []
        reader = threading.Thread(target=lambda: heard.append(pipe.recv(10)))
        reader.start()
        await asyncio.sleep(0.05)
        pipe.close()
        pipe.close()
        await asyncio.to_thread(reader.join)
        with pytest.raises(OSError, match="closed"):
            pipe.send(b"x")
        theirs.close()
        return heard

    assert asyncio.run(go()) == [b""]


def test_closing_with_unsent_bytes_lets_the_loop_go_of_the_descriptor() -> None:
    async def go() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):  # the numbers of descriptors are used again
            pipe, theirs = pipe_pair()
            pipe.send(b"x" * 1_000_000)
            await asyncio.sleep(0)
            pipe.close()
            await asyncio.sleep(0)
            theirs.close()
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        await loop.sock_sendall(a, b"x")
        assert await loop.sock_recv(b, 1) == b"x"
        a.close()
        b.close()

    asyncio.run(go())


def test_small_reads_come_from_one_large_one() -> None:
    async def go() -> list[bytes]:
        pipe, theirs = pipe_pair()
        theirs.sendall(b"abcdef")
        before = pipe.heard_at
        got = [pipe.recv(2) for _ in range(3)]
        assert pipe.heard_at >= before
        pipe.close()
        theirs.close()
        return got

    assert asyncio.run(go()) == [b"ab", b"cd", b"ef"]


class FakeChannel:
    """A program that ends when told."""

    def __init__(self) -> None:
        self.has_ended = False
        self.hung_up = False
        self._ended = asyncio.Event()

    async def until(self, true: object) -> None:
        await self._ended.wait()

    def end(self) -> None:
        self.has_ended = True
        self._ended.set()

    def hang_up(self) -> None:
        self.hung_up = True


def slots(limit: int) -> Slots:
    return Slots(SimpleNamespace(is_alive=True, name="n1", close=lambda: None), limit)  # type: ignore[arg-type]


def test_a_slot_is_free_only_when_its_program_has_ended() -> None:
    async def go() -> None:
        made = slots(1)
        assert await made.take()
        channel = FakeChannel()
        made.release(channel)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not made.try_take()
        assert made.is_stuck
        channel.end()
        await asyncio.sleep(0.01)
        assert (channel.hung_up, made.busy, made.lost, made.is_stuck) == (True, 0, 0, False)
        assert made.try_take()

    asyncio.run(go())


def test_those_who_wait_for_a_stuck_connection_are_sent_away() -> None:
    async def go() -> None:
        made = slots(2)
        channels = [FakeChannel(), FakeChannel()]
        assert await made.take()
        assert await made.take()
        waiting = asyncio.create_task(made.take())
        await asyncio.sleep(0)
        for channel in channels:
            made.release(channel)  # type: ignore[arg-type]
        assert await waiting is False
        made.close()

    asyncio.run(go())


def test_a_lower_limit_is_learnt_from_refusals() -> None:
    async def go() -> None:
        made = slots(6)
        for _ in range(3):
            assert await made.take()
        assert made.refused() is False
        assert (made.limit, made.busy) == (2, 2)
        assert not made.try_take()
        made.give_back()
        made.give_back()
        assert await made.take()
        assert made.refused() is True
        assert (made.limit, made.busy) == (2, 0)

    asyncio.run(go())


def test_callers_share_one_attempt_and_its_failure() -> None:
    async def go() -> int:
        attempts = 0

        async def fail() -> str:
            nonlocal attempts
            attempts += 1
            await asyncio.sleep(0.01)
            raise HostUnreachableError("n1: off", host="n1")

        flight: SingleFlight[str] = SingleFlight("n1")
        results = await asyncio.gather(*(flight(fail, "x") for _ in range(50)), return_exceptions=True)
        assert all(isinstance(result, HostUnreachableError) for result in results)
        return attempts

    assert asyncio.run(go()) == 1


def test_one_caller_that_leaves_does_not_end_the_attempt() -> None:
    async def go() -> str:
        async def succeed() -> str:
            await asyncio.sleep(0.02)
            return "link"

        flight: SingleFlight[str] = SingleFlight("n1")
        first = asyncio.create_task(flight(succeed, "x"))
        second = asyncio.create_task(flight(succeed, "x"))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(go()) == "link"


def test_an_attempt_that_is_ended_from_outside_is_an_error_not_a_cancellation() -> None:
    async def go() -> None:
        flight: SingleFlight[None] = SingleFlight("n1")

        async def hang() -> None:
            await asyncio.sleep(60)

        caller = asyncio.create_task(flight(hang, "x"))
        await asyncio.sleep(0)
        flight.cancel()
        with pytest.raises(HostUnreachableError, match="n1: closed"):
            await caller

    asyncio.run(go())


def test_a_detached_call_gives_its_result_or_its_error() -> None:
    async def go() -> None:
        assert await detached(lambda: 7, "x") == 7
        with pytest.raises(ZeroDivisionError):
            await detached(lambda: 1 // 0, "x")

    asyncio.run(go())


def test_a_detached_call_that_hangs_keeps_nobody() -> None:
    release = threading.Event()

    async def go() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await detached(release.wait, "hanging")

    asyncio.run(go())
    (hanging,) = [thread for thread in threading.enumerate() if thread.name == "hanging"]
    assert hanging.daemon
    release.set()
    hanging.join()
