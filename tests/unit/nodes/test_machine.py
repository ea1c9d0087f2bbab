"""What a machine makes of answers that say little."""

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from korch.engines.base import Command, Script
from korch.errors import EngineDownError
from korch.nodes.machine import Machine
from korch.ssh.base import Result
from korch.ssh.frame import STATUS_TIMED_OUT
from tests.unit.nodes.fake_machine import CLUSTER
from tests.unit.nodes.shells import SHELLS, ShellTransport


class Answering:
    """A transport that gives one answer to whatever is asked."""

    host = "n1"

    def __init__(self, text: str) -> None:
        self.text = text

    async def run(self, command: Command | Script, *, become: bool | None = None) -> Result:
        return Result(0, self.text.encode(), b"")


def machine(text: str) -> Machine:
    transport: Any = Answering(text)
    return Machine(transport, CLUSTER, engine="docker", become=False)


@pytest.mark.parametrize("word", ["1", "124", "137"])
def test_a_look_that_runs_out_of_time_and_says_nothing_tells_of_an_engine_that_hangs(word: str) -> None:
    hung = machine(f"@korch begin\n@korch look {word}\n\n@korch clock\n1.0\n@korch end\n")
    with pytest.raises(EngineDownError, match="did not answer"):
        asyncio.run(hung.containers())
    with pytest.raises(EngineDownError, match="did not answer"):
        asyncio.run(hung.container("korch_web"))


def test_a_container_that_is_not_there_is_none() -> None:
    found = machine("@korch begin\n@korch look 1\nError: No such container: korch_web\n@korch clock\n1.0\n@korch end\n")
    assert asyncio.run(found.container("korch_web")) is None


# --- checks whose time is over ---


class Container:
    """One container on a node: programs that the engine runs in it, by mark; `hangs`: new ones run on for ever."""

    host = "n1"

    def __init__(self, *, sees_all: bool = True) -> None:
        self.sees_all, self.hangs, self.dead_network = sees_all, True, False
        self.programs: dict[str, str] = {"user": "sh -c 'a shell of some user'"}
        self.stuck = False  # not even SIGKILL ends them
        self.begun = 0

    async def run(self, command: Command | Script, *, become: bool | None = None) -> Result:
        if isinstance(command, Script):
            if self.dead_network:
                return Result(-1, b"", b"")
            return Result(0, self._unprobe(command.args[4:]).encode(), b"")
        assert command.argv[4:7] == ("docker", "exec", "--env")
        self.begun += 1
        if not self.hangs:
            return Result(0, b"fine", b"")
        mark = command.argv[7].removeprefix("KORCH_PROBE=")
        self.programs[mark] = " ".join(command.argv[9:]).replace("\n", "?")
        return Result(STATUS_TIMED_OUT, b"", b"")

    def _unprobe(self, marks: tuple[str, ...]) -> str:
        left = [mark for mark in marks if mark in self.programs] if self.sees_all else []
        for mark in left:
            if not self.stuck:
                del self.programs[mark]
        if self.sees_all:
            return f"@korch begin\n@korch left {int(self.stuck and bool(left))} all\n@korch end\n"
        lines = "\n".join(f"{number} {words}" for number, words in enumerate(self.programs.values(), 7))
        return f"@korch begin\n@korch left 0 some\n@korch programs\n    PID COMMAND\n{lines}\n@korch end\n"


def checks(there: Container, times: int) -> list[int]:
    """The status of so many checks, one after the other."""
    transport: Any = there
    asked = Machine(transport, CLUSTER, engine="docker", become=False)

    async def work() -> list[int]:
        found = []
        for _ in range(times):
            with contextlib.suppress(Exception):
                found.append((await asked.exec_probe("korch_web", ("sh", "-c", "check\n  'it'"), 1.0)).status)
        there.hangs = there.stuck = there.dead_network = False
        there.programs = {"user": "sh -c 'a shell of some user'"}
        assert (await asked.exec_probe("korch_web", ("sh", "-c", "check\n  'it'"), 1.0)).status == 0, (
            "and once it is over, checks go on"
        )
        return found

    return asyncio.run(work())


def test_a_check_whose_time_is_over_leaves_nothing_in_its_container() -> None:
    there = Container()
    assert checks(there, 5) == [STATUS_TIMED_OUT] * 5
    assert there.begun == 6, "each was made"


@pytest.mark.parametrize("sees_all", [True, False])
def test_no_check_begins_beside_one_that_cannot_be_ended(sees_all: bool) -> None:
    there = Container(sees_all=sees_all)
    there.stuck = True
    assert checks(there, 20) == [STATUS_TIMED_OUT] * 20
    assert there.begun == 2, "one that hangs, and one when it is gone"


def test_without_a_look_there_no_check_begins() -> None:
    there = Container()
    there.dead_network = True
    assert checks(there, 10) == [STATUS_TIMED_OUT], "the others tell nothing of the app"
    assert there.begun == 2


@pytest.mark.parametrize("shell", SHELLS)
def test_programs_with_the_mark_are_ended_and_no_others(shell: str, tmp_path: Path) -> None:
    transport: Any = ShellTransport(tmp_path / "machine", shell)
    asked = Machine(transport, CLUSTER, engine="docker", become=False, state_root=str(tmp_path / "korch"))
    marked = {"PATH": os.environ["PATH"], "FIRST": "1", "KORCH_PROBE": "ab12"}
    ours = subprocess.Popen(("sh", "-c", "sleep 100 & wait"), env=marked, start_new_session=True)
    others = [
        subprocess.Popen(("sleep", "100"), env={**marked, "KORCH_PROBE": word}) for word in ("ab1", "ab123", "xab12")
    ]
    try:
        asked._leftovers.add("korch_web", "ab12", ("check",))
        assert asyncio.run(asked._clear("korch_web")), "what it had started is gone, too"
        assert ours.wait(10) == -signal.SIGKILL
        assert [one.poll() for one in others] == [None] * 3
    finally:
        for one in (ours, *others):
            one.kill()
            one.wait()
