"""The folder for control sockets: private, short, gone with its process."""

import stat
from pathlib import Path

import pytest

from korch.errors import SetupError
from korch.ssh import rundir
from korch.ssh.rundir import LONGEST_PATH_BYTES, RunDir, candidates


def test_it_is_private_and_short_and_goes(short_path: Path) -> None:
    folder = RunDir(short_path, {})
    path = folder.path
    assert path.parent == short_path / "run"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert len(str(path)) <= LONGEST_PATH_BYTES
    assert folder.path == path
    assert folder.new_name() != folder.new_name()
    folder.close()
    folder.close()
    assert list((short_path / "run").iterdir()) == []


def test_two_have_folders_of_their_own_and_sweep_only_what_nobody_holds(short_path: Path) -> None:
    first, second = RunDir(short_path, {}), RunDir(short_path, {})
    kept = first.path
    dead = short_path / "run" / "korch-dead"
    dead.mkdir()
    (dead / "1").touch()
    dead.with_name("korch-dead.lock").write_text("held\n")
    starting = short_path / "run" / "korch-new"
    starting.mkdir()
    starting.with_name("korch-new.lock").touch()  # not locked yet
    assert second.path != kept
    assert kept.exists()
    assert starting.exists()
    assert not dead.exists()
    assert not dead.with_name("korch-dead.lock").exists()
    second.close()
    assert kept.exists()
    first.close()


@pytest.mark.parametrize("home", ["x" * 90, "a b", "100%h", "${HOME}"])
def test_a_path_that_ssh_could_not_use_is_passed_over(
    short_path: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = short_path / "t"
    other.mkdir()
    monkeypatch.setattr(rundir.tempfile, "gettempdir", lambda: str(other))
    folder = RunDir(short_path / home, {})
    assert folder.path.parent == other
    folder.close()


def test_the_systems_folder_for_sockets_comes_first_when_it_is_ours(short_path: Path) -> None:
    short_path.chmod(0o700)
    assert candidates(Path("/home/ann/.korch"), {"XDG_RUNTIME_DIR": str(short_path)})[0] == short_path
    short_path.chmod(0o755)
    assert candidates(Path("/home/ann/.korch"), {"XDG_RUNTIME_DIR": str(short_path)})[0] == Path("/home/ann/.korch/run")


def test_no_place_at_all_is_told(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = (short_path / "none",)
    monkeypatch.setattr(rundir, "candidates", lambda *_: nowhere)
    with pytest.raises(SetupError, match="no folder for SSH's control sockets") as caught:
        _ = RunDir(short_path, {}).path
    assert "XDG_RUNTIME_DIR" in caught.value.hint
