"""The fencing hook: how the command is called, and when it counts as done."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from korch.errors import InvalidError
from korch.master.fencing import FencingHook


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_words_are_words_and_the_nodes_name_is_the_last(tmp_path: Path) -> None:
    out, done = tmp_path / "out", list[str]()

    async def body() -> None:
        hook = FencingHook(f"sh -c 'printf \"%s|\" \"$@\" >>{out}' sh 'two words'")
        hook.start("n1; rm -rf /", done.append)
        hook.start("n1; rm -rf /", done.append)  # it runs already
        await until(lambda: bool(done))

    asyncio.run(body())
    assert out.read_text() == "two words|n1; rm -rf /|"
    assert done == ["n1; rm -rf /"]


def test_a_failure_is_told_and_tried_again_after_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark, done = tmp_path / "mark", list[str]()

    async def body() -> None:
        hook = FencingHook(f"sh -c 'echo no power; test -e {mark}'", again_after_s=0.2)
        hook.start("n1", done.append)
        await until(lambda: "status 1: no power" in caplog.text)
        mark.touch()

        def again() -> bool:  # as the lifecycle does, at each look
            hook.start("n1", done.append)
            return bool(done)

        await until(again)

    asyncio.run(body())
    assert "failed with status 1: no power" in caplog.text
    assert caplog.text.count("running the fencing command") == 2, "not at every look"


@pytest.mark.parametrize("how", ["deadline", "close"])
def test_one_that_hangs_is_ended_with_all_that_it_started(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pid, done = tmp_path / "pid", list[str]()

    async def body() -> None:
        hook = FencingHook(f"sh -c 'sleep 300 & echo $! >{pid}; wait'", time_s=0.5 if how == "deadline" else 60)
        began = time.monotonic()
        hook.start("n1", done.append)
        await until(lambda: pid.exists() and pid.read_text().strip() != "")
        if how == "close":
            await hook.close()
        else:
            await until(lambda: "did not end within" in caplog.text)
        await until(lambda: not alive(int(pid.read_text())))
        await until(lambda: not hook._running)
        assert time.monotonic() - began < 30

    asyncio.run(body())
    assert done == []


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_command_that_is_not_there_is_no_success(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    async def body() -> None:
        FencingHook("/nonexistent/fence").start("n1", done.append)
        await until(lambda: "cannot be run" in caplog.text)

    asyncio.run(body())
    assert done == []


@pytest.mark.parametrize("command", ["", "  ", "'"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(InvalidError) as caught:
        FencingHook(command)
    assert caught.value.hint
