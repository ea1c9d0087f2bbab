"""The line for the login shell, and what is told apart in its output."""

import itertools
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.engines.base import Command, Script
from korch.errors import InvalidError
from korch.ssh.frame import Unframer, new_marker, remote_line, timed_words, true_status


def test_the_line_holds_nothing_of_the_command() -> None:
    line = remote_line(Command(("echo", "secret'; rm -rf /")), "m")
    assert "secret" not in line
    assert line.startswith("exec sh -c 'eval \"$(printf %s ")
    assert set(line.split("%s ")[1].split(" ")[0]) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
    )


def test_becoming_root_never_asks_for_a_password() -> None:
    assert remote_line(Command(("id",)), "m", become=True).startswith("exec sudo -n -- sh -c '")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (Command(("ls", "-l"), timeout_s=2.1), ("timeout", "-k", "5", "3", "ls", "-l")),
        (Command(("ls",), timeout_s=0), ("ls",)),
        (Script("echo $1", ("a b",), timeout_s=9), ("timeout", "-k", "5", "9", "sh", "-c", "echo $1", "sh", "a b")),
    ],
    ids=["whole seconds", "no deadline", "script"],
)
def test_the_deadline_travels_with_the_words(command: Command | Script, words: tuple[str, ...]) -> None:
    assert timed_words(command) == words


def test_a_terminal_keeps_its_program_in_the_foreground() -> None:
    with_pty = subprocess.run(["sh", "-c", remote_line(Command(("echo", "x")), "m", pty=True)], capture_output=True)
    assert with_pty.stderr == b""
    assert with_pty.stdout.endswith(b"\nx\n")


@pytest.mark.parametrize("argv", [(), ("",), ("-rf",), ("a", "b\0")], ids=repr)
def test_words_that_cannot_run_are_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(InvalidError):
        remote_line(Command(argv), "m")


def test_too_much_for_a_command_line_is_refused() -> None:
    remote_line(Command(("true", "x" * 90_000)), "m")
    with pytest.raises(InvalidError) as caught:
        remote_line(Command(("true", "x" * 100_000)), "m")
    assert "stdin" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "elapsed_s", "expected"),
    [(124, 3.0, 124), (137, 8.0, 124), (143, 3.0, 124), (137, 1.0, 137), (143, 1.0, 143), (1, 9.0, 1), (0, 9.0, 0)],
)
def test_a_deadline_has_one_status(status: int, elapsed_s: float, expected: int) -> None:
    assert true_status(status, elapsed_s, timeout_s=3.0) == expected


def test_without_a_deadline_a_kill_is_a_kill() -> None:
    assert true_status(137, 1e6, timeout_s=0) == 137


def test_markers_differ() -> None:
    assert len({new_marker() for _ in range(100)}) == 100


@given(
    noise=st.binary(max_size=200),
    output=st.binary(max_size=200),
    cuts=st.lists(st.integers(0, 500), max_size=6),
    tty=st.booleans(),
)
def test_noise_is_cut_off_wherever_the_chunks_end(noise: bytes, output: bytes, cuts: list[int], tty: bool) -> None:
    end = b"\r\n" if tty else b"\n"
    text = noise + end + b"korch-0123 4711" + end + output
    unframer = Unframer("korch-0123")
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    got = b"".join(unframer.feed(text[a:b]) for a, b in itertools.pairwise(edges))
    assert (got, unframer.pid, unframer.started) == (output, 4711, True)


def test_endless_noise_is_not_kept() -> None:
    unframer = Unframer("korch-0123")
    for _ in range(1000):
        assert unframer.feed(b"x" * 1000) == b""
    assert len(unframer.noise) < 10_000
    assert unframer.feed(b"\nkorch-0123\nout") == b"out"
