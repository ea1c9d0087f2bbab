import asyncio
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pytest
from msgspec.structs import replace

from korch.cli import logs as module
from korch.client.base import LogOptions
from korch.errors import CommandFailedError, HostUnreachableError, NotFoundError
from korch.resources.codec import with_meta
from korch.resources.pod import Container, ContainerStatus, Pod

from .world import FakeStream, World, a_deployment, a_pod, a_workload


def _says(*output: tuple[int, bytes], status: int = 0) -> Callable[[], FakeStream]:
    return lambda: FakeStream(output, status)


def test_one_pod_has_no_prefix_and_loses_no_byte(world: World) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says((1, b"a\xff\nb"), (2, b"err"), (1, b"c\n"), (2, b"or\n"), (1, b"end"))}
    result = world.run("logs", "web-1")
    assert result.stdout_bytes == b"a\xff\nbc\nerror\nend\n"
    assert result.exit_code == 0


def test_lines_of_several_pods_are_whole_and_marked(world: World) -> None:
    world.put(*a_workload("web", 2))
    world.streams = {
        "web-bcdfg-1": _says((1, b"one "), (1, b"two\nthree"), (1, b"\n")),
        "web-bcdfg-2": _says((1, b"x\n"), (1, b"y\n")),
    }
    lines = world.run("logs", "deploy/web").stdout.splitlines()
    assert sorted(lines) == [
        "[web-bcdfg-1] one two",
        "[web-bcdfg-1] three",
        "[web-bcdfg-2] x",
        "[web-bcdfg-2] y",
    ]
    assert [line for line in lines if "-1]" in line] == ["[web-bcdfg-1] one two", "[web-bcdfg-1] three"]


def test_options_reach_the_client(world: World) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says()}
    world.run("logs", "web-1", "--tail", "5", "--since", "1h30m", "--timestamps", "-f")
    assert world.log_options == [LogOptions(follow=True, tail=5, since_s=5400, timestamps=True, container="app")]


def _of_three() -> Pod:
    """A pod with two containers and an init container; one of the two has not been made yet."""
    pod = a_pod("web-1")
    first, second = Container(name="first", image="a"), Container(name="log", image="b")
    spec = replace(pod.spec, containers=(*pod.spec.containers, second), init_containers=(first,))
    statuses = (replace(pod.status.container_statuses[0], container_id="c1"), ContainerStatus(name="log"))
    done = (ContainerStatus(name="first", container_id="c0"),)
    status = replace(pod.status, container_statuses=statuses, init_container_statuses=done)
    return replace(pod, spec=spec, status=status)


def test_a_container_is_chosen_by_name_else_by_annotation_else_the_first(world: World) -> None:
    world.put(_of_three())
    world.streams = {"web-1": _says((1, b"x\n"))}
    for words in ((), ("-c", "log"), ("--container", "first")):
        assert world.run("logs", "web-1", *words).stdout_bytes == b"x\n"
        assert world.run("exec", "web-1", *words, "--", "true").exit_code == 0
    usual = with_meta(_of_three(), name="web-2", annotations={"kubectl.kubernetes.io/default-container": "log"})
    world.put(usual)
    world.streams["web-2"] = _says()
    world.run("logs", "web-2")
    assert [options.container for options in world.log_options] == ["app", "log", "first", "log"]
    assert world.entered == ["app", "log", "first"]
    refused = world.run("logs", "web-1", "-c", "lgo")
    assert (refused.exit_code, refused.stderr) == (
        4,
        'Error: pod "web-1" has no container "lgo"\nHint: It has app, log, first.\n',
    )


def test_logs_of_all_containers_are_those_that_were_made_each_marked(world: World) -> None:
    world.put(_of_three())
    world.streams = {"web-1": _says((1, b"x\n"))}
    result = world.run("logs", "web-1", "--all-containers")
    assert sorted(result.stdout_bytes.splitlines()) == [b"[web-1 app]   x", b"[web-1 first] x"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("45s", 45), ("10m", 600), ("1h", 3600), ("2d1h", 176400), ("0", 0)]
)
def test_durations(world: World, text: str, seconds: int) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says()}
    world.run("logs", "web-1", "--since", text)
    assert world.log_options[0].since_s == seconds


@pytest.mark.parametrize("text", ["soon", "", "-5", "1.5h", "m", "5m5h"])
def test_bad_durations(world: World, text: str) -> None:
    assert world.run("logs", "web-1", "--since", text).exit_code == 2


def test_a_broken_node_leaves_the_others_alone(world: World) -> None:
    world.put(*a_workload("web", 3))
    world.streams = {
        "web-bcdfg-1": HostUnreachableError("n1: no answer", host="n1", hint="Switch it on."),
        "web-bcdfg-2": _says((1, b"fine\n")),
        "web-bcdfg-3": _says((1, b"half"), status=-1),
    }
    result = world.run("logs", "web")
    assert sorted(result.stdout.splitlines()) == ["[web-bcdfg-2] fine", "[web-bcdfg-3] half"]
    assert "Error: n1: no answer" in result.stderr
    assert "Error: web-bcdfg-3: the connection to n3 broke" in result.stderr
    assert result.exit_code == HostUnreachableError.exit_code


def test_a_silent_node_does_not_hold_the_others_back(world: World) -> None:
    """The first pod says nothing until the second one has been read to its end."""
    world.put(*a_workload("web", 2))
    gate: list[asyncio.Event] = []

    def slow() -> FakeStream:
        gate.append(asyncio.Event())
        return FakeStream((), gate=gate[0])

    class Opening(FakeStream):
        async def wait(self) -> int:
            gate[0].set()
            return 0

    world.streams = {"web-bcdfg-1": slow, "web-bcdfg-2": lambda: Opening([(1, b"now\n")])}
    assert world.run("logs", "web").stdout == "[web-bcdfg-2] now\n"


def test_an_endless_line_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_LINE", 4)
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says((1, b"abcdefghij"))}
    assert world.run("logs", "web-1").stdout.splitlines() == ["abcd", "efgh", "ij"]


def test_a_log_command_that_fails_is_an_error(world: World) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says((2, b"no such container\n"), status=1)}
    result = world.run("logs", "web-1")
    assert result.exit_code == CommandFailedError.exit_code
    assert "web-1 on n1: the log command ended with status 1" in result.stderr


def test_logs_of_what_runs_nowhere(world: World) -> None:
    world.put(a_pod("web-1", node="", phase="Pending"), a_deployment("db"))
    for name in ("web-1", "db"):
        result = world.run("logs", name)
        assert result.exit_code == NotFoundError.exit_code
        assert f"korch why {name}" in result.stderr


def test_ctrl_c_ends_following_quietly(world: World) -> None:
    world.put(a_pod("web-1"))

    class Endless(FakeStream):
        async def wait(self) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
            return 0

    world.streams = {"web-1": lambda: Endless([(1, b"line\n")])}
    result = world.run("logs", "-f", "web-1")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "line\n", "")


# --- exec ---


def test_exec_passes_words_output_and_status_on(world: World) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says((1, b"out\xff"), (2, b"err"), status=42)}
    result = world.run("exec", "web-1", "--", "sh", "-c", "echo $HOME; 'a b'")
    assert world.executed == [("web-1", ("sh", "-c", "echo $HOME; 'a b'"), False, None)]
    assert (result.stdout_bytes, result.stderr, result.exit_code) == (b"out\xff", "err", 42)


def test_exec_in_a_deployment_prefers_a_ready_pod(world: World) -> None:
    first, second, *pods = a_workload("web", 2)
    slow = a_pod("web-bcdfg-1", owner="web-bcdfg", phase="Pending")
    world.put(first, second, slow, pods[1])
    world.streams = {"web-bcdfg-2": _says()}
    assert world.run("exec", "deploy/web", "--", "true").exit_code == 0
    assert world.executed[0][0] == "web-bcdfg-2"


def test_exec_without_a_running_container(world: World) -> None:
    world.put(a_pod("web-1", phase="Pending"))
    result = world.run("exec", "web-1", "--", "true")
    assert result.exit_code == NotFoundError.exit_code
    assert "korch describe pod/web-1" in result.stderr


def test_a_broken_connection_is_no_status(world: World) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says(status=-1)}
    result = world.run("exec", "web-1", "--", "true")
    assert result.exit_code == HostUnreachableError.exit_code
    assert "the connection to n1 broke" in result.stderr


def test_a_terminal_that_is_not_there_is_said(world: World) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says()}
    result = world.run("exec", "-t", "web-1", "--", "true")
    assert "without -t" in result.stderr
    assert world.executed[0][3] is None


def test_exec_needs_a_command(world: World) -> None:
    assert world.run("exec", "web-1").exit_code == 2


def test_i_means_stdin_for_exec(world: World) -> None:
    world.put(a_pod("web-1"))
    world.streams = {"web-1": _says()}
    world.run("exec", "--inventory", "lab", "web-1", "--", "true")
    assert world.opened[0][0].inventories == ("lab",)


PROGRAM = """
import asyncio, sys, types
from pathlib import Path
from contextlib import asynccontextmanager
from tests.unit.cli.world import FakeStream, World
from korch.cli.main import main

class Echo(FakeStream):
    '''Sends back what it is sent, in capitals, until the end of input, "q", or an interrupt key.'''
    def __init__(self):
        super().__init__()
        self.queue = asyncio.Queue()
    async def chunks(self):
        yield 1, b"ready;"
        while True:
            data = await self.queue.get()
            if data is None or b"q" in data:
                return
            yield 1, data.upper().replace(b"\\x03", b"<ctrl-c>")
    async def write(self, data):
        self.queue.put_nowait(data)
    async def write_eof(self):
        self.queue.put_nowait(None)
    async def resize(self, columns, rows):
        self.queue.put_nowait(b"size %d %d;" % (columns, rows))
    async def wait(self):
        return 7

world = World(Path(sys.argv[1]))
world.streams = {"web-1": Echo}
module = types.ModuleType("korch.master.local")
module.open_client = world.open_client
sys.modules["korch.master.local"] = module
main(sys.argv[2:])
"""


def _argv(world: World, *args: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(world.home), *args]


def _environment(world: World) -> dict[str, str]:
    return {**os.environ, "KORCH_HOME": str(world.home), "PYTHONPATH": str(Path(__file__).parents[3])}


def test_a_pipe_goes_to_the_command_and_ends_it(world: World) -> None:
    world.put(a_pod("web-1"))
    big = b"x" * 300_000
    done = subprocess.run(
        _argv(world, "exec", "-i", "web-1", "--", "cat"),
        input=big,
        env=_environment(world),
        capture_output=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"ready;" + big.upper(), b"", 7)


def test_a_file_goes_to_the_command(world: World, tmp_path: Path) -> None:
    world.put(a_pod("web-1"))
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as file:
        argv = _argv(world, "exec", "-i", "web-1", "--", "cat")
        done = subprocess.run(argv, stdin=file, env=_environment(world), capture_output=True, timeout=60)
    assert (done.stdout, done.returncode) == (b"ready;ABC", 7)


def test_a_terminal_is_raw_while_the_command_runs_and_as_before_afterwards(world: World) -> None:
    world.put(a_pod("web-1"))
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        _argv(world, "exec", "-it", "web-1", "--", "sh"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=_environment(world),
        start_new_session=True,
    )
    try:
        seen = _read_until(master, b"ready;")
        os.write(master, b"\x03")  # in a raw terminal this is a key like any other
        seen += _read_until(master, b"<ctrl-c>")
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        os.kill(process.pid, signal.SIGWINCH)
        seen += _read_until(master, b"SIZE 99 33;")
        os.write(master, b"q")
        assert process.wait(30) == 7
        assert termios.tcgetattr(slave) == before
        assert re.search(rb"\^C", seen) is None
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def _read_until(fd: int, mark: bytes) -> bytes:
    """What comes until the mark; gives up when nothing comes for long."""
    import select

    seen = b""
    limit = time.monotonic() + 30
    while mark not in seen and time.monotonic() < limit:
        if select.select([fd], [], [], 1.0)[0]:
            seen += os.read(fd, 4096)
    assert mark in seen, seen
    return seen


def test_a_kill_gives_the_terminal_back(world: World) -> None:
    world.put(a_pod("web-1"))
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        _argv(world, "exec", "-it", "web-1", "--", "sh"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=_environment(world),
        start_new_session=True,
    )
    try:
        _read_until(master, b"ready;")
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)
