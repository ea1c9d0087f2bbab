"""Which cluster is meant."""

import re
from pathlib import Path

import pytest

from korch.cli.main import cli
from korch.errors import InvalidError
from korch.settings import Settings, no_such_cluster, read_settings


def test_a_cluster_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    hint = no_such_cluster(Settings(tmp_path, "default")).hint
    assert "--cluster" not in hint
    assert "korch nodes -i hosts.yml" in hint
    for name in ("web", "lab"):
        (tmp_path / "clusters" / name).mkdir(parents=True)
        (tmp_path / "clusters" / name / "state.db").touch()
    hint = no_such_cluster(Settings(tmp_path, "default")).hint
    assert "There is lab, web: give --cluster lab, or set KORCH_CLUSTER=lab." in hint


@pytest.mark.parametrize(
    ("typed", "environ", "expected"),
    [
        (None, {}, ""),
        ("strict", {}, "strict"),
        (None, {"KORCH_HOST_KEY": "strict"}, "strict"),
        ("strict", {"KORCH_HOST_KEY": "accept-new"}, "strict"),
        ("accept-new", {"KORCH_HOST_KEY": "strict"}, "accept-new"),
    ],
)
def test_only_what_was_typed_is_a_policy_for_host_keys(
    typed: str | None, environ: dict[str, str], expected: str
) -> None:
    assert read_settings(host_key=typed, environ=environ).host_key == expected
    with pytest.raises(InvalidError, match="host key policy"):
        read_settings(environ={"KORCH_HOST_KEY": "yes"})


def test_every_variable_that_korch_reads_is_in_the_readme() -> None:
    root = Path(__file__).parents[2]
    text = "".join(path.read_text("utf-8") for path in (root / "korch").rglob("*.py"))
    read = set(re.findall(r"""environ(?:\.get\(|\[)"(KORCH_[A-Z_]+|KUBECONFIG)\"""", text))
    assert {"KORCH_HOME", "KORCH_INVENTORY", "KORCH_HOST_KEY"} <= read
    told = (root / "README.md").read_text("utf-8").partition("## Environment variables")[2].partition("\n## ")[0]
    assert read - set(re.findall(r"\w+", told)) == set()


@pytest.mark.parametrize("name", ["KORCH_INVENTORY", "KORCH_CLUSTER", "KORCH_HOST_KEY"])
def test_the_help_of_an_option_names_its_variable(name: str) -> None:
    helps = " ".join(getattr(param, "help", "") or "" for param in cli.params)
    assert name in helps
