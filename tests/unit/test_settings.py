"""Which cluster is meant."""

from pathlib import Path

import pytest

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
