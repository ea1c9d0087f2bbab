"""The frame: help, guesses, options before and after the command, errors at the edge, start-up cost."""

import asyncio
import errno
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from korch.cli import edge
from korch.cli.base import cluster_options, report_and_fail, run
from korch.cli.main import COMMANDS, SECTIONS, cli
from korch.errors import ConflictError, InvalidError, KorchError, NotFoundError

from .world import World


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, f"{path} {name}")


def test_help_is_grouped_by_purpose() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    places = [result.output.index(f"{title}:\n") for title in [*SECTIONS, "Options", "  Examples"]]
    assert places == sorted(places)
    assert all(f"\n  {name}" in result.output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_the_table_loads_and_shows_examples(name: str) -> None:
    module, _, attribute = COMMANDS[name].target.partition(":")
    command = getattr(importlib.import_module(f"korch.cli.{module}"), attribute)
    assert command.name == name
    for path, found in _commands(command, name):
        assert found.help, path
        assert "Examples:" in (found.epilog or ""), path


@pytest.mark.parametrize(
    ("typed", "guess"),
    [
        ("deplyo", "`korch deploy`"),
        ("ps", "`korch get pods`"),
        ("rollback", "`korch rollout undo`"),
        ("nod", "`korch node`"),
    ],
)
def test_an_unknown_command_is_guessed_at(typed: str, guess: str) -> None:
    result = CliRunner().invoke(cli, [typed, "x"])
    assert result.exit_code == 2
    assert f'there is no command "{typed}"' in result.stderr
    assert guess in result.stderr


def test_an_unknown_command_that_resembles_nothing_has_no_guess() -> None:
    assert "Did you mean" not in CliRunner().invoke(cli, ["zzzzzz"]).stderr


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("korch 0.")


@pytest.mark.parametrize(
    "args",
    [
        ("-i", "lab", "--cluster", "c1", "--host-key", "accept-new", "get", "pods"),
        ("get", "pods", "-i", "lab", "--cluster", "c1", "--host-key", "accept-new"),
        ("-i", "lab", "--cluster", "other", "get", "-i", "lab", "pods", "--cluster", "c1", "--host-key", "accept-new"),
    ],
    ids=["before", "after", "both"],
)
def test_the_options_that_name_a_cluster_may_stand_anywhere(world: World, args: tuple[str, ...]) -> None:
    assert world.run(*args).exit_code == 0
    settings, _, need_inventory = world.opened[0]
    assert (settings.inventories, settings.cluster, settings.host_key) == (("lab",), "c1", "accept-new")
    assert not need_inventory


def test_options_of_a_group_reach_its_command(world: World) -> None:
    world.run("node", "-i", "hosts.yml", "cordon", "-i", "more.yml", "n1")
    assert world.opened[0][0].inventories == ("hosts.yml", "more.yml")


def test_the_client_is_closed_after_an_error(world: World) -> None:
    assert world.run("get", "pod", "none").exit_code == NotFoundError.exit_code
    assert world.closed == 1


# --- the edge ---


def _fail_with(monkeypatch: pytest.MonkeyPatch, world: World, error: BaseException) -> Any:
    async def fail() -> None:
        raise error

    world.on_open = fail
    return world.run("get", "pods")


@pytest.mark.parametrize("error_class", [InvalidError, NotFoundError, ConflictError], ids=lambda c: c.__name__)
def test_an_explained_error_is_a_sentence_a_hint_and_a_code(
    monkeypatch: pytest.MonkeyPatch, world: World, error_class: type[KorchError]
) -> None:
    result = _fail_with(monkeypatch, world, error_class("it\x1b[2J went wrong", hint="Do that."))
    assert result.exit_code == error_class.exit_code
    assert result.stderr == "Error: it\\x1b[2J went wrong\nHint: Do that.\n"
    assert result.stdout == ""


def test_several_errors_of_a_group_are_all_shown(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    group = ExceptionGroup("x", [NotFoundError("one"), ExceptionGroup("y", [ConflictError("two")])])
    result = _fail_with(monkeypatch, world, group)
    assert result.stderr == "Error: one\nError: two\n"
    assert result.exit_code == ConflictError.exit_code


def test_an_unexpected_error_leaves_its_traceback_in_a_private_file(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    result = _fail_with(monkeypatch, world, RuntimeError("boom"))
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "RuntimeError: boom" in result.stderr
    (path,) = world.home.glob("crash-*.txt")
    assert str(path) in result.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in path.read_text()


def test_old_crash_files_are_removed(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    world.home.mkdir()
    for number in range(30):
        (world.home / f"crash-20200101T0000{number:02}-1.txt").write_text("old")
    _fail_with(monkeypatch, world, RuntimeError("boom"))
    left = sorted(path.name for path in world.home.glob("crash-*.txt"))
    assert len(left) == edge._CRASHES_KEPT
    assert not left[-1].startswith("crash-2020")


def test_a_home_that_cannot_be_written_is_no_second_error(
    monkeypatch: pytest.MonkeyPatch, world: World, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    async def fail() -> None:
        raise RuntimeError("boom")

    world.on_open = fail
    result = world.run("get", "pods", env={"KORCH_HOME": str(tmp_path / "file" / "home")})
    assert result.exit_code == 1
    assert "KORCH_DEBUG=1" in result.stderr


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setenv("KORCH_DEBUG", "1")
    result = _fail_with(monkeypatch, world, NotFoundError("gone"))
    assert "Traceback" in result.stderr
    assert result.exit_code == NotFoundError.exit_code


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EACCES], ids=errno.errorcode.get)
def test_a_home_that_cannot_be_used_is_told(world: World, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for path in (world.home, world.home / "clusters" / "x", world.home.parent):
        result = _fail_with(monkeypatch, world, OSError(number, os.strerror(number), str(path)))
        assert result.exit_code == 11
        assert "point KORCH_HOME at a folder" in result.stderr


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 11), (errno.EROFS, 11), (errno.EACCES, 1), (errno.EIO, 1)],
    ids=errno.errorcode.get,
)
def test_errors_of_the_system_name_the_file(
    monkeypatch: pytest.MonkeyPatch, world: World, number: int, code: int
) -> None:
    result = _fail_with(monkeypatch, world, OSError(number, os.strerror(number), "/some/file"))
    assert result.exit_code == code
    assert f"Error: /some/file: {os.strerror(number).lower()}" in result.stderr
    assert "Traceback" not in result.output


def test_ctrl_c_is_one_sentence(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    result = _fail_with(monkeypatch, world, KeyboardInterrupt())
    assert result.exit_code == 130
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_closed_output_is_quiet(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    result = _fail_with(monkeypatch, world, BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.stderr) == (141, "")


def test_a_closed_output_inside_a_task_group_is_quiet(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    group = ExceptionGroup("tasks", [BrokenPipeError(errno.EPIPE, "Broken pipe")])
    result = _fail_with(monkeypatch, world, group)
    assert (result.exit_code, result.stderr) == (141, "")


def test_a_usage_error_is_2(world: World) -> None:
    result = world.run("get")
    assert result.exit_code == 2
    assert "Usage: korch get" in result.stderr


def test_errors_of_several_names_are_all_shown(world: World) -> None:
    @click.command()
    def command() -> None:
        report_and_fail([NotFoundError("a"), NotFoundError("b")])

    group = edge.EdgeGroup("x", commands={"command": command})
    result = CliRunner().invoke(group, ["command"])
    assert result.stderr == "Error: a\nError: b\n"
    assert result.exit_code == NotFoundError.exit_code


def test_sigterm_lets_the_command_clean_up(world: World) -> None:
    ended: list[str] = []

    async def wait(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cleaned")

    @click.command()
    @cluster_options()
    def command() -> None:
        run(wait)

    result = CliRunner(env={"KORCH_HOME": str(world.home)}).invoke(
        edge.EdgeGroup("x", commands={"command": command}), ["command"]
    )
    assert result.exit_code == 128 + signal.SIGTERM
    assert ended == ["cleaned"]
    assert world.closed == 1


# --- as a real process ---


def _korch(home: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "KORCH_HOME": str(home), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "korch", *args], env=environ, capture_output=True, text=True, timeout=60, **options
    )


def _imported(*args: str, home: Path) -> set[str]:
    code = (
        "import sys\nfrom korch.cli.main import main\n"
        f"try:\n    main({list(args)!r})\nfinally:\n    sys.stderr.write('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KORCH_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return {name.split(".")[0] for name in done.stderr.split()} | set(done.stderr.split())


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
    heavy = {"asyncio", "rich", "msgspec", "fabric", "paramiko", "yaml", "sqlite3", "korch.client", "json"}
    assert _imported("--help", home=tmp_path) & heavy == set()


def test_reading_the_store_loads_no_ssh_and_no_rich(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {hosts: {n1: {ansible_host: 192.0.2.1}}}\n")
    made = _korch(tmp_path, "get", "pods", "-i", str(inventory))
    assert (made.returncode, made.stderr) == (0, "No pods found in namespace default.\n")
    heavy = {"rich", "fabric", "paramiko", "yaml", "korch.inventory.load", "korch.master.fleet"}
    assert _imported("get", "pods", home=tmp_path) & heavy == set()


def test_output_into_head_is_quiet(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m korch --help | head -1", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("Usage: korch")
    assert done.stderr == ""


def test_an_unknown_cluster_is_explained(tmp_path: Path) -> None:
    done = _korch(tmp_path, "get", "pods")
    assert done.returncode == NotFoundError.exit_code
    assert "Hint: " in done.stderr
    assert not (tmp_path / "clusters").exists()


def test_a_closed_stdin_is_no_crash(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "korch", "cluster", "rm"],
        env={**os.environ, "KORCH_HOME": str(tmp_path)},
        preexec_fn=lambda: os.close(0),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == NotFoundError.exit_code


def test_a_bad_cluster_name_is_refused(tmp_path: Path) -> None:
    done = _korch(tmp_path, "get", "pods", "--cluster", "Not A Name")
    assert done.returncode == InvalidError.exit_code
    assert "DNS label" in done.stderr


def _named(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


EVERY_COMMAND = dict(found for name in COMMANDS for found in _commands(_named(name), f"korch {name}"))


@pytest.mark.parametrize("words", EVERY_COMMAND)
def test_every_command_has_examples_and_words_for_its_options(words: str) -> None:
    command = EVERY_COMMAND[words]
    assert f"\n  {words}" in (command.epilog or "")
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert [option.name for option in options if not option.help] == []
    if isinstance(command, click.Group):
        shown = CliRunner().invoke(cli, [*words.split()[1:], "--help"]).stdout
        assert not [line for line in shown.splitlines() if line.startswith("  ") and line.endswith("...")]


def test_leaving_at_once_loses_neither_output_nor_the_status() -> None:
    program = (
        "import atexit, sys; sys.argv = ['korch', *sys.argv[1:]]; atexit.register(print, 'the end', flush=False);"
        "from korch.cli.main import main; main()"
    )
    for words, status, begin in ((["--version"], 0, "korch "), (["no-such-command"], 2, "")):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
        assert done.returncode == status
        assert done.stdout.startswith(begin)
        assert done.stdout.endswith("the end\n")
