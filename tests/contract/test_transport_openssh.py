"""What is special to the transport over the installed `ssh`: its processes, its folder, and what only it can do."""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from korch.engines.base import Command, Script
from korch.errors import SetupError
from korch.settings import Settings
from korch.ssh.connect import Connector
from tests.unit.ssh.sshd import Chosen, Sshd, bench, make_key, needs_sshd, public, sshd

pytestmark = needs_sshd
HELLO = Command(("echo", "hello"))


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this transport."""
    monkeypatch.setattr(Chosen, "transport", "openssh")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server with the default limits."""
    with sshd(tmp_path_factory.mktemp("sshd")) as made:
        yield made


def masters(server: Sshd) -> list[int]:
    """Processes of `ssh` (not of the shells that watch over them) that connect to the server."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].rsplit(b"/")[-1] == b"ssh" and str(server.port).encode() in words:
                found.append(int(path.parent.name))
    return found


def gone(server: Sshd) -> bool:
    """Whether the server's masters end within some seconds."""
    for _ in range(500):
        if not masters(server):
            return True
        time.sleep(0.01)
    return False


PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from korch.engines.base import Command
from korch.inventory.model import Host
from korch.settings import Settings
from korch.ssh.connect import Connector

async def main():
    home, port, user, key, *args = sys.argv[1:]
    host = Host("n1", "127.0.0.1", int(port), user, key, tuple(args), transport="openssh")
    async with Connector(Settings(Path(home), "test")) as connector:
        transport = connector.transport_for(host)
        print((await transport.run(Command(("echo", "hello")))).text, end="", flush=True)
        async with transport.stream(Command(("sleep", "300"), timeout_s=0)):
            print("streaming", flush=True)
            await asyncio.sleep(300)

asyncio.run(main())
"""


def test_a_korch_that_is_killed_leaves_no_ssh_and_its_folder_goes_with_the_next(server: Sshd, short_path: Path) -> None:
    host = server.host()
    words = (str(short_path), str(host.port), host.user or "", host.identity_file or "", *host.ssh_args)
    process = subprocess.Popen((sys.executable, "-c", PROGRAM, *words), stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hello\n"
        assert process.stdout.readline() == "streaming\n"
        assert len(masters(server)) == 2  # one for commands, one for streams
        process.kill()
    assert gone(server)
    (left,) = (short_path / "run").glob("korch-*[!k]")
    with bench(short_path, host) as made:
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"
        assert not left.exists()
    assert list((short_path / "run").iterdir()) == []


def test_closing_ends_ssh_and_removes_the_folder(server: Sshd, short_path: Path) -> None:
    with bench(short_path, server.host()) as made:
        made.runner.run(made.transport.connect())
        (folder,) = (path for path in (short_path / "run").iterdir() if path.is_dir())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(masters(server)) == 1
    assert not folder.exists()
    assert gone(server)


def test_two_processes_do_not_share_and_do_not_end_each_others_connections(server: Sshd, short_path: Path) -> None:
    """Two connectors are what two processes have."""

    async def both() -> bytes:
        one, other = (Connector(Settings(short_path, "test")) for _ in range(2))
        first, second = (connector.transport_for(server.host()) for connector in (one, other))
        await asyncio.gather(first.connect(), second.connect())
        assert len(masters(server)) == 2
        await first.close()
        await one.close()
        try:
            return (await second.run(HELLO)).stdout
        finally:
            await second.close()
            await other.close()

    assert asyncio.run(both()) == b"hello\n"


def test_an_ssh_that_dies_is_told_and_replaced(server: Sshd, tmp_path: Path) -> None:
    with bench(tmp_path, server.host()) as made:
        made.runner.run(made.transport.connect())
        (pid,) = masters(server)
        os.kill(pid, signal.SIGKILL)
        assert gone(server)
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


def test_a_home_with_a_long_path_or_strange_characters_is_no_obstacle(server: Sshd, tmp_path: Path) -> None:
    for home in (tmp_path / ("long" * 30), tmp_path / "with space $HOME %h"):
        with bench(home, server.host()) as made:
            assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"
            made.runner.run(made.transport.close())
    assert gone(server)


def test_what_the_users_configuration_wants_for_sessions_is_left_out(server: Sshd, short_path: Path) -> None:
    told = short_path / "told"
    others = ("ControlMaster=auto", f"ControlPath={short_path}/theirs", "ControlPersist=60", "RequestTTY=force")
    deeds = ("RemoteCommand=touch told", "PermitLocalCommand=yes", f"LocalCommand=touch {told}", "LogLevel=QUIET")
    forward = (f"LocalForward={short_path}/forward localhost:22", "StrictHostKeyChecking=no")
    words = tuple(word for option in (*others, *deeds, *forward) for word in ("-o", option))
    with bench(short_path, server.host("n1", "-q", *words)) as made:
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"
        assert [path.name for path in short_path.iterdir()] == ["run"]


def test_a_hosts_certificate_is_enough(tmp_path: Path) -> None:
    """A known authority signed the host's key: what the other transport refuses."""
    authority, host_key = make_key(tmp_path / "ca"), make_key(tmp_path / "certified")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "x", "-h", "-n", "127.0.0.1", f"{host_key}.pub"], check=True
    )
    known = tmp_path / "known"
    known.write_text(f"@cert-authority [127.0.0.1]:* {public(authority)}\n")
    lines = (f"HostKey {host_key}", f"HostCertificate {host_key}-cert.pub")
    with sshd(tmp_path / "sshd", *lines) as server, bench(tmp_path / "korch", server.host(known=known)) as made:
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


def test_a_sign_of_life_through_a_bastion(tmp_path: Path) -> None:
    with sshd(tmp_path / "bastion") as bastion, sshd(tmp_path / "node") as node:
        config = tmp_path / "config"
        config.write_text(
            f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n  IdentityFile {bastion.user_key}\n"
            f"  UserKnownHostsFile {bastion.known_hosts}\n  ProxyJump none\n"
        )
        host = node.host("n1", "-F", str(config), "-J", "bastion")
        with bench(tmp_path / "korch", host) as made:
            assert made.runner.run(made.connector.greets(host, timeout_s=10)) is True
            assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"
            node.stop()
            assert made.runner.run(made.connector.greets(host, timeout_s=10)) is False
        assert bastion.log().count("Accepted publickey") == 1


def test_forbidden_and_refused_tunnels_at_once_are_told_apart_later(tmp_path: Path) -> None:
    async def three(port: int) -> list[type[BaseException]]:
        kinds: list[type[BaseException]] = []
        for number in (9, port, 9):
            try:
                await made.transport.forward("127.0.0.1", number)
            except OSError as error:
                kinds.append(type(error))
        return kinds

    with sshd(tmp_path / "sshd", "PermitOpen 127.0.0.1:9") as server, bench(tmp_path, server.host()) as made:
        found = made.runner.run(three(server.port))
        assert found == [ConnectionRefusedError, PermissionError, ConnectionRefusedError]


def test_a_program_that_a_signal_ends_is_no_broken_connection(server: Sshd, tmp_path: Path) -> None:
    async def end() -> int:
        async with made.transport.stream(Script("kill -TERM $$", timeout_s=0)) as stream:
            assert [chunk async for chunk in stream.chunks()] == []
            return await stream.wait()

    with bench(tmp_path, server.host()) as made:
        assert made.runner.run(end()) == 137
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


def test_output_that_nobody_reads_holds_up_its_program_alone(server: Sshd, tmp_path: Path) -> None:
    async def ignore() -> bytes:
        async with made.transport.stream(Script("yes", timeout_s=0)) as stream:
            await anext(stream.chunks())
            return (await made.transport.run(HELLO)).stdout

    with bench(tmp_path, server.host()) as made:
        assert made.runner.run(ignore()) == b"hello\n"


def test_without_ssh_it_is_said_what_to_install(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, server.host()) as made:
        made.runner.run(made.connector.options_for(server.host()))  # known; only the connection is still to come
        monkeypatch.setattr(shutil, "which", lambda *_: None)
        with pytest.raises(SetupError, match='"ssh" is not installed') as caught:
            made.runner.run(made.transport.connect())
        assert "openssh-client" in caught.value.hint


def test_the_same_host_over_both_transports_at_once(server: Sshd, tmp_path: Path) -> None:
    async def both() -> list[bytes]:
        async with Connector(Settings(tmp_path, "test")) as connector:
            hosts = (server.host(), replace(server.host(), transport="fabric"))
            transports = [connector.transport_for(host) for host in hosts]
            results = await asyncio.gather(*(transport.run(HELLO) for transport in transports))
            await asyncio.gather(*(transport.close() for transport in transports))
            return [result.stdout for result in results]

    assert asyncio.run(both()) == [b"hello\n"] * 2
