"""The package list, and installing from it with stand-ins for apt and dpkg."""

import os
from pathlib import Path

import pytest

from korch.errors import InvalidError, SetupError
from korch.lab import machine, packages
from korch.lab.packages import LIST, ensure, main, missing_packages, read_list, services_held


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs in place of the system's: apt-get notes what it is asked, and installs `knows`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "dpkg-query": 'shift 3; for name; do grep -qx "$name" installed && echo "$name installed"; done; exit 1',
        "apt-cache": 'shift; for name; do grep -qx "$name" known || exit 100; done',
        "apt-get": 'echo "$@" >> asked; ls policy-rc.d >> asked 2>&1; [ "$1" != update ] || cp mirror known',
    }
    for name, body in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{body}\n")
        path.chmod(0o755)
    for name in ("installed", "known", "mirror"):
        (tmp_path / name).write_text("")
    environment = {"PATH": f"{folder}:{os.defpath}"}
    monkeypatch.setattr(packages, "CLEAN_ENV", environment)
    monkeypatch.setattr(machine, "CLEAN_ENV", environment)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


def asked(system: Path) -> list[str]:
    return (system / "asked").read_text().splitlines() if (system / "asked").exists() else []


def test_project_list_reads() -> None:
    sections = read_list(LIST.read_text())
    assert set(sections) >= {"lab", "bench"}
    assert {"docker.io", "podman", "sudo", "openssh-client", "openssh-server", "iproute2"} <= set(sections["lab"])


def test_every_program_of_the_lab_has_a_package_in_the_list() -> None:
    listed = {name.rstrip("?") for name in read_list(LIST.read_text())["lab"]}
    assert set(machine.PACKAGE_OF.values()) <= listed


@pytest.mark.parametrize("text", ["tini\n", "[lab]\ntwo words\n"])
def test_mistakes_name_the_line(text: str) -> None:
    with pytest.raises(InvalidError, match=r"packages.txt:\d"):
        read_list(text)


def test_comments_and_blanks() -> None:
    assert read_list("# a\n\n[lab]  # b\ntini # c\n[bench]\n") == {"lab": ("tini",), "bench": ()}


def test_removed_package_is_missing() -> None:
    answer = "tini installed\npodman config-files\n"
    assert missing_packages(("tini", "podman", "sudo", "docker-cli?"), answer) == ("podman", "sudo")


def test_all_there_asks_nobody(system: Path) -> None:
    (system / "installed").write_text("tini\nsudo\n")
    assert ensure(["tini", "sudo"], policy=system / "policy-rc.d") == ()
    assert asked(system) == []


def test_known_packages_need_no_update(system: Path) -> None:
    (system / "known").write_text("tini\nextra\n")
    policy = system / "policy-rc.d"
    assert ensure(["tini", "extra?", "other?"], policy=policy) == ("tini",)
    words, held = asked(system)
    assert words.startswith("install -y ")
    assert words.endswith(" tini extra")  # what this release has of the optional ones
    assert "--no-install-recommends" in words
    assert held == "policy-rc.d"  # no service could start meanwhile
    assert not policy.exists()


def test_empty_lists_are_fetched_first(system: Path) -> None:
    (system / "mirror").write_text("tini\n")
    ensure(["tini"], policy=system / "policy-rc.d")
    assert [line.split()[0] for line in asked(system)[::2]] == ["update", "install"]


def test_package_that_nobody_has(system: Path) -> None:
    with pytest.raises(SetupError, match="could not install nosuch"):
        ensure(["nosuch"], policy=system / "policy-rc.d")
    assert not (system / "policy-rc.d").exists()


def test_only_root_installs(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="only root") as caught:
        ensure(["tini"], policy=system / "policy-rc.d")
    assert caught.value.hint == "sudo apt-get install --no-install-recommends tini"
    assert asked(system) == []


def test_policy_of_the_owner_is_left_alone(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("mine")
    with services_held(policy):
        assert policy.read_text() == "mine"
    assert policy.read_text() == "mine"


def test_policy_that_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with services_held(policy):
        left = policy.read_text()
    policy.write_text(left)
    with services_held(policy):
        assert os.access(policy, os.X_OK)
    assert not policy.exists()


def test_other_system_and_unknown_section(
    system: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nosuch"]) == 3
    (system / "bin/apt-get").unlink()
    monkeypatch.setattr(packages, "CLEAN_ENV", {"PATH": str(system / "bin")})
    monkeypatch.setattr(machine, "CLEAN_ENV", {"PATH": str(system / "bin")})
    assert main(["lab"]) == 10
    assert "no Debian-like system" in capsys.readouterr().err


def test_other_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SetupError, match="needs Linux"):
        ensure(["tini"])


def test_what_a_lab_lacks_is_named(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CLEAN_ENV", {"PATH": str(system / "bin")})
    with pytest.raises(SetupError, match=r"a lab needs busybox, .*podman.*") as caught:
        machine.require(("podman",))
    assert "lxcfs" in caught.value.hint
    assert "docker.io" not in caught.value.hint
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="needs root"):
        machine.require(())
