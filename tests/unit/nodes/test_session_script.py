"""The session's script in real shells (dash, bash, bare busybox), with an engine that only prints events."""

import array
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from korch.engines.events import EngineEvent
from korch.errors import HostUnreachableError
from korch.inventory.model import Host
from korch.nodes import looking
from korch.nodes import session as session_module
from korch.nodes.machine import ClusterIdentity, Machine
from korch.nodes.news import EngineWatch, News, Pulse, Sample
from korch.nodes.session import Session
from korch.nodes.texts import script_text
from korch.ssh.local import LocalTransport
from tests.unit.nodes.shells import SHELLS

# An engine: prints what it finds in the file `events`, and ends when the file `stop` is there. Its words are recorded.
ENGINE = """#!/bin/sh
here=${0%/*}
echo "$*" >>"$here/calls"
[ -e "$here/stop" ] && exit 1
echo 'a warning' >&2
while [ ! -e "$here/stop" ]; do
    if [ -e "$here/events" ]; then
        mv "$here/events" "$here/told"
        printf '%s' '{"Status":' # as real engines write: in pieces
        echo '"die","ID":"a1"}'
    fi
    sleep 0.1
done
exit 1
"""


class Node:
    """A PATH with one shell and the engine, and what this shell started."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        if shell == "busybox":
            applets = subprocess.run(("busybox", "--list"), capture_output=True, text=True, check=True).stdout.split()
            for applet in applets:
                (self.bin / applet).symlink_to(shutil.which("busybox") or "")
            self.path = str(self.bin)
        else:
            (self.bin / "sh").symlink_to(shutil.which(shell) or "")
            self.path = f"{self.bin}:/usr/bin:/bin"
        (self.bin / "docker").write_text(ENGINE)
        (self.bin / "docker").chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return (self.bin / "calls").read_text().splitlines() if (self.bin / "calls").exists() else []

    def processes(self) -> dict[int, str]:
        """What runs with this PATH, zombies aside, with its command line."""
        mark = f"PATH={self.path}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
        return found

    def client(self) -> int | None:
        """The engine's client, once it runs. What it has forked looks like it, until that is another program."""
        line = f"/bin/sh {self.bin}/docker"
        found = {pid: _parent(pid) for pid, text in self.processes().items() if text.startswith(line)}
        return next((pid for pid, parent in found.items() if parent and parent not in found), None)

    async def parts(self) -> dict[str, int]:
        """Its processes: the shell that reads stdin, the one that makes the pulses, the engine's client."""
        await until(lambda: self.client() is not None)
        client = self.client()
        assert client is not None
        pulses = _parent(client)
        return {"client": client, "pulses": pulses, "shell": _parent(pulses)}

    @staticmethod
    def words(*engine: str) -> tuple[str, ...]:
        """The script as a command; `engine` stands for the engine's client."""
        return ("sh", "-c", script_text("session"), "sh", "c1", "", "docker", "0.1", "5", "30", "", *engine)

    @asynccontextmanager
    async def session(self, *, events: bool = True) -> AsyncIterator[Session]:
        """On a machine whose commands run here."""
        host = Host("n1", "localhost", connection="local")
        machine = Machine(LocalTransport(host), ClusterIdentity("c1", "lab", "here"), engine="docker", become=False)
        # Real nodes may know whole seconds only; the shells of this machine sleep less, and the tests are quicker.
        async with machine.session(every_s=0.1, events=events) as session:  # type: ignore[arg-type]
            yield session


@pytest.fixture(params=SHELLS)
def node(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(tmp_path, request.param)
    monkeypatch.setenv("PATH", made.path)
    monkeypatch.setattr(session_module, "SAMPLE_S", 0.5)
    return made


def _parent(pid: int) -> int:
    """0: it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def take(session: Session, kind: type[News]) -> News:
    """The next news of that kind."""
    async with asyncio.timeout(30):
        async for news in session:
            if isinstance(news, kind):
                return news
    raise AssertionError("the session ended")


def test_pulses_and_samples_of_this_machine(node: Node) -> None:
    async def work() -> None:
        async with node.session(events=False) as session:
            sample = await anext(session)
            assert isinstance(sample, Sample)
            assert sample.facts.cpu_count == os.cpu_count()
            assert sample.facts.memory_total_bytes > sample.facts.memory_available_bytes > 1 << 20
            assert sample.facts.cpu_ticks is not None
            assert sample.facts.uptime_s > 0
            assert [type(await anext(session)) for _ in range(5)] == [Pulse] * 4 + [Sample]
            assert node.calls == []
        await until(lambda: node.processes() == {})

    asyncio.run(work())


def test_the_disk_is_told_with_the_second_sample(node: Node) -> None:
    async def work() -> None:
        async with node.session(events=False) as session:
            await take(session, Sample)
            second = await take(session, Sample)
            assert isinstance(second, Sample)
            assert 0 < second.disk_free_bytes <= second.disk_total_bytes

    asyncio.run(work())


def test_an_event_comes_through_and_the_engines_warnings_do_not(node: Node) -> None:
    async def work() -> None:
        async with node.session() as session:
            assert await take(session, EngineWatch) == EngineWatch(True)
            (node.bin / "events").touch()
            event = await take(session, EngineEvent)
            assert (event.action, event.id) == ("die", "a1")  # type: ignore[union-attr]
        (call,) = node.calls
        assert call.startswith("events --filter type=container --filter label=korch.dev/cluster=c1 ")
        since = int(call.rpartition("--since ")[2])
        assert abs(since - time.time()) < 60

    asyncio.run(work())


def test_an_engine_that_goes_is_told_once_and_its_return_too(node: Node) -> None:
    async def work() -> None:
        async with node.session() as session:
            assert await take(session, EngineWatch) == EngineWatch(True)
            (node.bin / "stop").touch()
            assert await take(session, EngineWatch) == EngineWatch(False)
            await until(lambda: len(node.calls) >= 4)
            (node.bin / "stop").unlink()
            assert await take(session, EngineWatch) == EngineWatch(True)
            (node.bin / "events").touch()
            assert isinstance(await take(session, EngineEvent), EngineEvent)

    asyncio.run(work())


def test_an_engine_that_is_not_there_at_all_is_told_and_the_node_lives(node: Node) -> None:
    (node.bin / "stop").touch()

    async def work() -> None:
        async with node.session() as session:
            assert await take(session, EngineWatch) == EngineWatch(False)
            assert await take(session, Pulse) == Pulse()

    asyncio.run(work())


def test_the_engines_client_holds_neither_stdin_nor_stdout(node: Node) -> None:
    async def work() -> None:
        async with node.session() as session:
            await take(session, EngineWatch)
            parts = {name: Path("/proc") / str(pid) for name, pid in (await node.parts()).items()}
            client, shell = parts["client"], parts["shell"]
            assert os.readlink(client / "fd/0") == "/dev/null"
            theirs = {os.readlink(fd) for fd in (client / "fd").iterdir()}
            assert os.readlink(shell / "fd/3") not in theirs
            assert os.readlink(shell / "fd/1") not in theirs
            assert os.readlink(shell / "fd/2") in theirs

    asyncio.run(work())


@pytest.mark.parametrize("victim", ["shell", "pulses", "client"])
def test_whatever_is_killed_there_nothing_stays(node: Node, victim: str) -> None:
    async def work() -> None:
        async with node.session() as session:
            await take(session, EngineWatch)
            os.kill((await node.parts())[victim], signal.SIGKILL)
            if victim == "client":
                assert await take(session, EngineWatch) == EngineWatch(False)
                assert await take(session, EngineWatch) == EngineWatch(True)
            elif victim == "shell":
                with pytest.raises(HostUnreachableError):
                    await take(session, EngineEvent)
        await until(lambda: node.processes() == {})

    asyncio.run(work())


def test_without_heartbeats_it_ends_itself(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "SILENCE_S", 1)

    async def work() -> None:
        async with node.session() as session:
            await take(session, EngineWatch)
            with pytest.raises(HostUnreachableError, match="ended there"):
                await take(session, EngineEvent)
            await until(lambda: node.processes() == {})

    asyncio.run(work())


def test_with_heartbeats_it_lives_longer_than_the_limit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "SILENCE_S", 1)
    monkeypatch.setattr(session_module, "HEARTBEAT_S", 0.2)

    async def work() -> None:
        async with node.session(events=False) as session:
            began = None
            async for news in session:
                if isinstance(news, Sample):
                    began = began or news.facts.uptime_s
                    if news.facts.uptime_s > began + 2:
                        break

    asyncio.run(work())


def test_it_ends_when_the_masters_processes_are_killed_and_its_output_is_stuck(node: Node) -> None:
    """Nobody reads, the pipe is full, then stdin ends: the shell that reads it is not the one that hangs."""
    words = node.words("yes")
    (node.bin / "yes").unlink(missing_ok=True)
    (node.bin / "yes").write_text("#!/bin/sh\nwhile :; do echo '{}'; done\n")
    (node.bin / "yes").chmod(0o755)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(words, start_new_session=True, **pipes)  # type: ignore[call-overload]
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        asyncio.run(until(lambda: _is_full(process.stdout.fileno())))
        process.stdin.close()
        process.wait(30)
        asyncio.run(until(lambda: node.processes() == {}))
    finally:
        process.stdout.close()


def _is_full(pipe: int) -> bool:
    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0] > 60_000


def test_in_a_group_of_others_only_its_own_processes_end(node: Node) -> None:
    """Some servers give a command no process group of its own."""
    leader = subprocess.Popen(
        ("sh", "-c", '"$@"; echo survived; exit 5', "sh", *node.words("docker", "events")),
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert leader.stdin is not None
    assert leader.stdout is not None
    asyncio.run(until(lambda: len(node.calls) > 0))
    leader.stdin.close()
    output = leader.stdout.read()
    leader.stdout.close()
    assert leader.wait(30) == 5
    assert output.endswith(b"survived\n")
    asyncio.run(until(lambda: node.processes() == {}))
