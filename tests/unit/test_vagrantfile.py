"""The Vagrantfile is one that Vagrant accepts, with every setting; and korch reads what Vagrant says of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from korch.errors import InvalidError
from korch.inventory import load_inventory

ROOT = Path(__file__).parents[2]
needs_vagrant = pytest.mark.skipif(
    not shutil.which("vagrant"), reason="vagrant is not installed (apt-get install vagrant)"
)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's Vagrant is read, and nothing is written beside the Vagrantfile."""
    for name in [name for name in os.environ if name.startswith(("VAGRANT_", "KORCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "dot"))
    monkeypatch.setenv("VAGRANT_CHECKPOINT_DISABLE", "1")


def vagrant(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["vagrant", *words],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_vagrant
@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["node1", "node2", "node3"]),
        (
            {"KORCH_NODES": "1", "KORCH_ENGINE": "podman", "KORCH_NETWORK": "192.168.60", "KORCH_MEMORY": "768"},
            ["node1"],
        ),
    ],
    ids=["default", "all settings"],
)
def test_vagrantfile_is_valid(settings: dict[str, str], names: list[str]) -> None:
    done = vagrant("validate", "--ignore-provider", **settings)
    assert done.returncode == 0, done.stderr
    assert "validated successfully" in done.stdout
    told = [line.split(":")[0].removeprefix("==> ") for line in done.stdout.splitlines() if line.startswith("==> ")]
    assert told == names


@needs_vagrant
@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_settings_of_the_provider_are_valid(provider: str) -> None:
    done = vagrant("validate", VAGRANT_DEFAULT_PROVIDER=provider)
    if "could not be found" in done.stderr or "isn't usable" in done.stderr:
        pytest.skip(f"Vagrant has no {provider} here")
    assert done.returncode == 0, done.stderr


@needs_vagrant
@pytest.mark.parametrize(
    ("name", "value"),
    [("KORCH_NODES", "0"), ("KORCH_NODES", "many"), ("KORCH_ENGINE", "dcoker"), ("KORCH_NETWORK", "10.0.0.1")],
)
def test_wrong_settings_are_refused(name: str, value: str) -> None:
    done = vagrant("validate", "--ignore-provider", **{name: value})
    assert done.returncode != 0
    assert f"{name}={value} is not allowed; an example:" in done.stderr


@needs_vagrant
def test_korch_asks_vagrant_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load_inventory([f"vagrant:{ROOT}"], home=tmp_path)
    assert "no machine" in str(caught.value) or "No usable default provider" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["hosts.yml", "vagrant.yml"])
def test_sample_inventories_are_valid(name: str, tmp_path: Path) -> None:
    inventory = load_inventory([str(ROOT / "inventory" / name)], home=tmp_path)
    assert len(inventory.hosts) >= 3
    assert inventory.warnings == ()
