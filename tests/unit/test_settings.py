"""Which cluster is meant."""

from pathlib import Path

from korch.settings import Settings, no_such_cluster


def test_a_cluster_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    hint = no_such_cluster(Settings(tmp_path, "default")).hint
    assert "--cluster" not in hint
    assert "korch nodes -i hosts.yml" in hint
    for name in ("web", "lab"):
        (tmp_path / "clusters" / name).mkdir(parents=True)
        (tmp_path / "clusters" / name / "state.db").touch()
    hint = no_such_cluster(Settings(tmp_path, "default")).hint
    assert "There is lab, web: give --cluster lab, or set KORCH_CLUSTER=lab." in hint
