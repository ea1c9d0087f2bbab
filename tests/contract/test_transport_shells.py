"""Login shells of every kind, quiet or not, pass a command on intact."""

import shutil
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from korch.engines.base import Command, Script
from korch.errors import CommandTimeoutError, NoPermissionError
from korch.ssh.program import Program
from tests.contract.test_transport import HOSTILE, WORDS
from tests.unit.ssh.sshd import TRANSPORTS, Bench, Chosen, bench, needs_sshd, sshd

pytestmark = needs_sshd

SHELLS = {
    "sh": ("sh",),
    "dash": ("dash",),
    "bash": ("bash",),
    "busybox": ("busybox", "sh"),
    "zsh": ("zsh",),
    "ksh": ("ksh",),
    "tcsh": ("tcsh",),
    "fish": ("fish",),
}


@pytest.fixture(scope="module", params=TRANSPORTS, autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test runs once with each transport."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chosen, "transport", request.param)
        yield str(request.param)


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest, kind: str, tmp_path_factory: pytest.TempPathFactory):
    """A host whose login shell is that one: sshd hands the command line to it, unread by another."""
    words = SHELLS[request.param]
    path = shutil.which(words[0])
    if path is None:
        pytest.skip(f"{words[0]} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    forced = " ".join((path, *words[1:], "-c", '"$SSH_ORIGINAL_COMMAND"'))
    with sshd(folder / "sshd", f"ForceCommand {forced}") as server, bench(folder / "korch", server.host()) as made:
        yield made


def test_hostile_words_pass_the_shell(shell: Bench) -> None:
    result = shell.runner.run(shell.transport.run(Script(r'printf "%s\0" "$@"', HOSTILE)))
    assert result.stdout.decode().split("\0")[:-1] == list(HOSTILE)


@given(WORDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_pass_the_shell(shell: Bench, words: list[str]) -> None:
    result = shell.runner.run(shell.transport.run(Command(("printf", r"%s\0", "-", *words))))
    assert result.stdout.decode().split("\0")[1:-1] == words


def test_a_long_script_and_its_stdin_pass_the_shell(shell: Bench) -> None:
    text = f"# {'long comment ' * 6000}\ncat; exit 5"
    result = shell.runner.run(shell.transport.run(Script(text, stdin=b"in\x00put")))
    assert (result.status, result.stdout, result.stderr) == (5, b"in\x00put", b"")


NOISE = 'for i in $(seq 1000); do echo "welcome $i"; echo "warning $i" >&2; done; printf "no newline"\n'


def test_a_noisy_startup_file_changes_no_result(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", rc=NOISE) as server, bench(tmp_path / "korch", server.host()) as made:
        result = made.runner.run(made.transport.run(Script("echo out; echo err >&2; exit 3")))
        assert (result.status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")

        async def listen(pty: tuple[int, int] | None) -> bytes:
            async with made.transport.stream(Script("echo out", timeout_s=0), pty=pty) as stream:
                return b"".join([data async for _, data in stream.chunks()])

        assert made.runner.run(listen(None)) == b"out\n"
        assert made.runner.run(listen((80, 24))) == b"out\r\n"


def test_a_slow_startup_file_does_not_use_up_the_deadline(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", rc="sleep 2\n") as server, bench(tmp_path / "korch", server.host()) as made:
        result = made.runner.run(made.transport.run(Command(("echo", "ok"), timeout_s=1)))
        assert (result.status, result.stdout) == (0, b"ok\n")


def test_after_a_command_that_never_began_the_next_one_has_another_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = tmp_path / "hangs"
    rc = f'echo "$SSH_CONNECTION" >{tmp_path}/last; while grep -qsx "$SSH_CONNECTION" {hangs}; do sleep 0.1; done\n'
    with sshd(tmp_path / "sshd", rc=rc) as server, bench(tmp_path / "korch", server.host()) as made:
        made.runner.run(made.transport.run(Command(("true",))))
        shutil.copy(tmp_path / "last", hangs)
        with monkeypatch.context() as patch:
            patch.setattr(Program, "started", partialmethod(Program.started, timeout_s=1.0))
            with pytest.raises(CommandTimeoutError, match="did not start a command"):
                made.runner.run(made.transport.run(Command(("true",))))
        assert made.runner.run(made.transport.run(Command(("echo", "ok")))).stdout == b"ok\n"
        assert (tmp_path / "last").read_text() != hangs.read_text()
        hangs.unlink()


def test_a_login_shell_that_refuses_is_named(tmp_path: Path) -> None:
    refusal = 'echo "This account is closed." >&2; exit 1\n'
    closed = pytest.raises(NoPermissionError, match=r"n1: the login shell .*: This account is closed")
    with sshd(tmp_path / "sshd", rc=refusal) as server, bench(tmp_path / "korch", server.host()) as made, closed:
        made.runner.run(made.transport.run(Command(("true",))))


def test_a_host_without_base64_is_no_success(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    forced = f'ForceCommand PATH={programs} /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    with sshd(tmp_path / "sshd", forced) as server, bench(tmp_path / "korch", server.host()) as made:
        with pytest.raises(NoPermissionError, match=r"n1.*base64") as caught:
            made.runner.run(made.transport.run(Command(("true",))))
        assert "base64" in caught.value.hint


def test_a_banner_of_a_thousand_lines_changes_nothing(tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_text("Authorized use only!\n" * 1000)
    with sshd(tmp_path / "sshd", f"Banner {banner}") as server, bench(tmp_path / "korch", server.host()) as made:
        assert made.runner.run(made.transport.run(Command(("echo", "ok")))).stdout == b"ok\n"
