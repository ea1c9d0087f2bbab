"""What every transport promises (korch/ssh/base.py): one suite, run on this machine's own and on a real sshd."""

import asyncio
import os
import socket
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.engines.base import Command, Script
from korch.errors import InvalidError
from korch.inventory.model import Host
from korch.ssh.base import Result, Transport
from tests.unit.ssh.sshd import SSHD, TRANSPORTS, bench, sshd

HOSTILE = (
    "",
    " ",
    "a b",
    "it's",
    '"quoted"',
    "$(id)",
    "`id`",
    "$HOME",
    "a;b|c&d",
    "line\nbreak\n",
    "tab\tcr\r",
    "\\n\\",
    "*?[a]{b,c}",
    "~",
    "!history!",
    "#comment",
    "-n",
    "--",
    "ünï→🚢",
    "\x01\x7f\x1b[31m",
    "%s %d %%",
    "long " * 1000,
)
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=20)


class Call:
    """A transport with its event loop."""

    def __init__(self, runner: asyncio.Runner, transport: Transport) -> None:
        self.runner, self.transport = runner, transport

    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def run(self, command: Command | Script) -> Result:
        result = self(self.transport.run(command))
        assert isinstance(result, Result)
        return result


@pytest.fixture(scope="module", params=["local", *TRANSPORTS])
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    folder = tmp_path_factory.mktemp("transport")
    if request.param == "local":
        with bench(folder / "korch", Host("n1", "localhost", connection="local")) as made:
            yield Call(made.runner, made.transport)
        return
    if SSHD is None:
        pytest.skip("needs sshd")
    with (
        sshd(folder / "sshd") as server,
        bench(folder / "korch", replace(server.host(), transport=request.param)) as made,
    ):
        yield Call(made.runner, made.transport)


def test_its_name_is_the_inventorys(call: Call) -> None:
    assert call.transport.host == "n1"


def test_connecting_twice_is_fine(call: Call) -> None:
    call(call.transport.connect())
    call(call.transport.connect())


def test_output_errors_and_status_are_apart(call: Call) -> None:
    result = call.run(Script('echo out; echo err >&2; exit "$1"', ("7",)))
    assert result == Result(7, b"out\n", b"err\n")
    assert result.text == "out\n"


@pytest.mark.parametrize("word", HOSTILE, ids=lambda word: repr(word[:20]))
def test_a_hostile_word_arrives_unchanged(call: Call, word: str) -> None:
    assert call.run(Command(("printf", r"%s\0", word))).stdout == word.encode() + b"\0"
    assert call.run(Script(r'printf "%s\0" "$@"', (word,))).stdout == word.encode() + b"\0"


@given(WORDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_arrive_unchanged(call: Call, words: list[str]) -> None:
    expected = b"".join(word.encode() + b"\0" for word in words)
    assert call.run(Script(r'for word; do printf "%s\0" "$word"; done', tuple(words))).stdout == expected


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_stdin_arrives_whole_and_ends(call: Call, size: int) -> None:
    data = os.urandom(size)
    result = call.run(Command(("cat",), stdin=data))
    assert (result.status, result.stdout) == (0, data)


def test_without_stdin_it_is_empty(call: Call) -> None:
    assert call.run(Command(("cat",))).stdout == b""


def test_a_script_leaves_stdin_to_its_commands(call: Call) -> None:
    script = Script('read -r first; printf "%s|" "$first" "$1"; cat', ("$(no)",), stdin=b"one\ntwo\n")
    assert call.run(script).stdout == b"one|$(no)|two\n"


def test_stdin_that_nobody_reads_is_no_error(call: Call) -> None:
    assert call.run(Command(("true",), stdin=b"x" * 5_000_000)).status == 0


def test_output_may_be_large(call: Call) -> None:
    result = call.run(Script("head -c 8000000 /dev/zero; head -c 3000000 /dev/zero >&2"))
    assert (len(result.stdout), len(result.stderr)) == (8_000_000, 3_000_000)


def test_a_missing_program_is_127(call: Call) -> None:
    assert call.run(Command(("korch-no-such-program",))).status == 127
    assert call.run(Command(("korch-no-such-program",), timeout_s=0)).status == 127


def test_the_deadline_on_the_host_ends_a_program(call: Call) -> None:
    began = time.monotonic()
    result = call.run(Script("echo before; sleep 60; echo after", timeout_s=1))
    assert (result.status, result.stdout) == (124, b"before\n")
    assert time.monotonic() - began < 30


def test_a_program_that_ignores_sigterm_is_killed(call: Call) -> None:
    result = call.run(Script("trap '' TERM; while :; do sleep 1; done", timeout_s=1))
    assert result.status == 124


def test_death_by_a_signal_is_not_success(call: Call) -> None:
    assert call.run(Script("kill -9 $$", timeout_s=0)).status == 137


@pytest.mark.parametrize("argv", [(), ("",), ("-x",), ("echo", "a\0b")], ids=repr)
def test_impossible_words_are_refused(call: Call, argv: tuple[str, ...]) -> None:
    with pytest.raises(InvalidError):
        call.run(Command(argv))


def test_refused_words_cost_nothing(call: Call) -> None:
    for _ in range(12):
        with pytest.raises(InvalidError):
            call.run(Command(("echo", "a\0b")))
    assert call.run(Command(("echo", "ok"))).stdout == b"ok\n"


def test_too_long_words_are_refused_and_shown_the_way(call: Call) -> None:
    with pytest.raises(InvalidError) as caught:
        call.run(Command(("true", "x" * 120_000)))
    assert "stdin" in caught.value.hint


def test_thirty_commands_at_once(call: Call) -> None:
    async def all_of_them() -> list[Result]:
        one = call.transport.run
        return await asyncio.gather(*(one(Script('sleep 0.05; echo "$1"', (str(n),))) for n in range(30)))

    assert [result.stdout for result in call(all_of_them())] == [f"{n}\n".encode() for n in range(30)]


def test_a_stream_talks_both_ways(call: Call) -> None:
    async def talk() -> tuple[list[bytes], int]:
        heard = []
        script = Script('while read -r x; do echo "<$x>"; done; exit 4', timeout_s=0)
        async with call.transport.stream(script) as stream:
            output = stream.chunks()
            for word in (b"one\n", b"two\n"):
                await stream.write(word)
                heard.append((await anext(output))[1])
            await stream.write_eof()
            assert [chunk async for chunk in output] == []
            return heard, await stream.wait()

    assert call(talk()) == ([b"<one>\n", b"<two>\n"], 4)


def test_a_stream_tells_output_from_errors(call: Call) -> None:
    async def listen() -> set[tuple[int, bytes]]:
        async with call.transport.stream(Script("echo out; echo err >&2", timeout_s=0)) as stream:
            return {chunk async for chunk in stream.chunks()}

    assert call(listen()) == {(1, b"out\n"), (2, b"err\n")}


def test_a_stream_begins_with_the_commands_own_stdin(call: Call) -> None:
    async def listen() -> bytes:
        async with call.transport.stream(Command(("cat",), stdin=b"first ", timeout_s=0)) as stream:
            await asyncio.sleep(0.05)
            await stream.write(b"second")
            await stream.write_eof()
            return b"".join([data async for _, data in stream.chunks()])

    assert call(listen()) == b"first second"


def test_leaving_a_stream_ends_its_program(call: Call) -> None:
    async def leave() -> str:
        async with call.transport.stream(Script("echo $$; sleep 300; :", timeout_s=0)) as stream:
            _, data = await anext(stream.chunks())
            return data.decode().strip()

    pid = call(leave())
    for _ in range(100):
        if call.run(Script('kill -0 "$1"', (pid,))).status != 0:
            return
    pytest.fail(f"process {pid} still runs")


def test_a_stream_on_the_control_connection_leaves_room_for_commands(call: Call) -> None:
    async def talk() -> tuple[bytes, list[bytes], bytes]:
        script = Script('while read -r x; do echo "<$x>"; done; echo end; exit 4', timeout_s=0)
        async with call.transport.stream(script, control=True) as stream:
            output = stream.chunks()
            await stream.write(b"one\n")
            _, first = await anext(output)
            results = await asyncio.gather(*(call.transport.run(Command(("echo", str(n)))) for n in range(12)))
            await stream.write_eof()
            rest = b"".join([data async for _, data in output])
            assert await stream.wait() == 4
            return first, [result.stdout for result in results], rest

    assert call(talk()) == (b"<one>\n", [f"{n}\n".encode() for n in range(12)], b"end\n")


def test_leaving_a_stream_on_the_control_connection_ends_its_stdin(call: Call) -> None:
    async def leave() -> str:
        script = Script("trap '' TERM; echo $$; cat; exit 0", timeout_s=0)
        async with call.transport.stream(script, control=True) as stream:
            _, data = await anext(stream.chunks())
            return data.decode().strip()

    pid = call(leave())
    for _ in range(100):
        if call.run(Script('kill -0 "$1"', (pid,))).status != 0:
            return
    pytest.fail(f"process {pid} still runs")


def test_a_terminal_has_its_size_and_can_be_resized(call: Call) -> None:
    async def talk() -> bytes:
        script = Script("stty size; read -r x; stty size; exit 3", timeout_s=0)
        async with call.transport.stream(script, pty=(101, 33)) as stream:
            heard = b""
            output = stream.chunks()
            while b"33 101" not in heard:
                heard += (await anext(output))[1]
            await stream.resize(120, 40)
            await asyncio.sleep(0.1)
            await stream.write(b"\n")
            async for _, data in output:
                heard += data
            assert await stream.wait() == 3
            return heard

    assert b"40 120" in call(talk())


def test_a_tunnel_carries_bytes(call: Call) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def through() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        tunnel = await call.transport.forward("127.0.0.1", server.sockets[0].getsockname()[1])
        await tunnel.write(b"x" * 200_000)
        heard = b""
        while len(heard) < 200_000:
            heard += await tunnel.read()
        await tunnel.close()
        await tunnel.close()
        server.close()
        await server.wait_closed()
        return heard

    assert call(through()) == b"x" * 200_000


def test_a_tunnel_to_nobody_is_refused(call: Call) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match="n1"):
            call(call.transport.forward("127.0.0.1", port))


def test_a_cancelled_call_leaves_the_transport_usable(call: Call) -> None:
    async def cancel() -> None:
        task = asyncio.create_task(call.transport.run(Command(("sleep", "2"))))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    call(cancel())
    assert call.run(Command(("echo", "ok"))).stdout == b"ok\n"
