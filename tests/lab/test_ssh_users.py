"""Ordinary users on a real sshd: sudo with and without a password, login shells as /etc/passwd has them.

The users exist only in a mount namespace of that sshd, where /etc/passwd, /etc/group and /etc/sudoers are other files.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from korch.engines.base import Command, Script
from korch.errors import NoPermissionError
from korch.inventory.model import Host
from tests.unit.ssh.sshd import SSHD, TRANSPORTS, Chosen, Sshd, bench, sshd

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root"),
    pytest.mark.skipif(SSHD is None or shutil.which("unshare") is None, reason="needs sshd and unshare"),
]

PASSWORD = "correct horse"
SHELLS = {"ann": "/bin/bash", "bob": "/bin/dash", "eve": "/usr/sbin/nologin"}


@pytest.fixture(scope="module", params=TRANSPORTS, autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test runs once with each transport."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chosen, "transport", request.param)
        yield str(request.param)


class UsersSshd(Sshd):
    """Starts with its own users."""

    def start(self) -> None:
        etc = self.folder / "etc"
        etc.mkdir(exist_ok=True)
        lines = Path("/etc/passwd").read_text()
        for number, (name, shell) in enumerate(SHELLS.items()):
            home = self.folder / name
            home.mkdir(exist_ok=True)
            os.chown(home, 4000 + number, 4000)
            lines += f"{name}:x:{4000 + number}:4000::{home}:{shell}\n"
        (etc / "passwd").write_text(lines)
        (etc / "group").write_text(Path("/etc/group").read_text() + "korchtest:x:4000:\n")
        (etc / "sudoers").write_text("root ALL=(ALL) ALL\nann ALL=(ALL) NOPASSWD: ALL\nbob ALL=(ALL) ALL\n")
        (etc / "sudoers").chmod(0o440)
        openssl = ["openssl", "passwd", "-6", PASSWORD]
        secret = subprocess.run(openssl, check=True, capture_output=True, text=True).stdout.strip()
        secrets = {"root": "*", "sshd": "*", **dict.fromkeys(SHELLS, secret)}
        (etc / "shadow").write_text("".join(f"{name}:{word}:19000:0:99999:7:::\n" for name, word in secrets.items()))
        (etc / "shadow").chmod(0o600)
        files = ("passwd", "group", "shadow", "sudoers")
        mounts = "; ".join(f"mount --bind {etc}/{name} /etc/{name}" for name in files)
        script = f'{mounts}; exec "$0" "$@"'
        self.wrapper = ["unshare", "--mount", "sh", "-ec", script]
        super().start()


@contextlib.contextmanager
def users_sshd(*lines: str) -> Iterator[Sshd]:
    """A server in a folder that its users may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="korch-users-") as folder:
        Path(folder).chmod(0o755)
        with sshd(Path(folder) / "sshd", *lines, kind=UsersSshd) as made:
            yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with users_sshd() as made:
        yield made


def user(server: Sshd, name: str, *, become: bool | None = None) -> Host:
    return replace(server.host(), user=name, become=become)


def test_a_password_is_asked_for_where_there_is_a_terminal(tmp_path: Path) -> None:
    questions: list[str] = []

    def prompt(question: str) -> str:
        questions.append(question)
        return PASSWORD if len(questions) == 2 else "wrong"

    config = ("PasswordAuthentication yes", "PubkeyAuthentication no")
    with users_sshd(*config) as server:
        with bench(tmp_path, user(server, "ann"), prompt=prompt) as made:
            assert made.runner.run(made.transport.run(Command(("id", "-un")))).text == "ann\n"
        assert len(questions) == 2


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_a_user_is_who_logged_in(server: Sshd, tmp_path: Path, name: str) -> None:
    with bench(tmp_path, user(server, name)) as made:
        assert made.runner.run(made.transport.run(Command(("id", "-un")))).text == f"{name}\n"


def test_becoming_root_as_the_inventory_says(server: Sshd, tmp_path: Path) -> None:
    with bench(tmp_path, user(server, "ann", become=True)) as made:
        script = Script('id -un; printf "%s|" "$@"; cat; exit 3', ("a b", "$(id)"), stdin=b"secret\n")
        result = made.runner.run(made.transport.run(script))
        assert (result.status, result.stdout) == (3, b"root\na b|$(id)|secret\n")
        assert made.runner.run(made.transport.run(Command(("id", "-un")), become=False)).text == "ann\n"


def test_the_deadline_reaches_what_sudo_runs(server: Sshd, tmp_path: Path) -> None:
    with bench(tmp_path, user(server, "ann")) as made:
        assert made.runner.run(made.transport.run(Command(("sleep", "60"), timeout_s=1), become=True)).status == 124


def test_leaving_a_stream_ends_what_sudo_runs(server: Sshd, tmp_path: Path) -> None:
    async def leave() -> str:
        await made.transport.connect()
        async with made.transport.stream(Script("echo $$; exec sleep 300", timeout_s=0), become=True) as stream:
            _, data = await anext(stream.chunks())
            return data.decode().strip()

    with bench(tmp_path, user(server, "ann")) as made:
        pid = made.runner.run(leave())
        for _ in range(100):
            alive = made.runner.run(made.transport.run(Script('kill -0 "$1"', (pid,)), become=True))
            if alive.status != 0:
                return
        pytest.fail(f"process {pid} still runs")


def test_a_password_for_sudo_is_a_missing_permission(server: Sshd, tmp_path: Path) -> None:
    with bench(tmp_path, user(server, "bob", become=True)) as made:
        with pytest.raises(
            NoPermissionError, match=r"n1: sudo does not run commands without a password: sudo: "
        ) as caught:
            made.runner.run(made.transport.run(Command(("id",))))
        assert "NOPASSWD" in caught.value.hint
        assert made.runner.run(made.transport.run(Command(("id", "-un")), become=False)).text == "bob\n"


def test_an_account_without_a_shell_is_named(server: Sshd, tmp_path: Path) -> None:
    refused = pytest.raises(NoPermissionError, match="n1: the login shell does not run commands")
    with bench(tmp_path, user(server, "eve")) as made, refused:
        made.runner.run(made.transport.run(Command(("id",))))


def test_nothing_of_it_is_left_here() -> None:
    users = subprocess.run(["getent", "passwd", *SHELLS], capture_output=True, check=False)
    assert users.stdout == b""
