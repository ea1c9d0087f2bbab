"""A lost or an old state: rebuilt from the nodes, without a container noticing."""

import json
import shutil
from pathlib import Path

import pytest

from korch.lab.lab import Lab
from tests.lab.korch_cli import Site, make_site

QUICK = ("--settle", "0")


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Site:
    return make_site(lab, tmp_path / "home")


@pytest.fixture
def docker_site(clean_docker_lab: Lab, tmp_path: Path) -> Site:
    """For what has nothing to do with the engine."""
    return make_site(clean_docker_lab, tmp_path / "home")


@pytest.fixture
def podman_site(clean_podman_lab: Lab, tmp_path: Path) -> Site:
    """The same, with the other engine."""
    return make_site(clean_podman_lab, tmp_path / "home")


def births(site: Site, app: str) -> set[tuple[str, str]]:
    return {found.birth for found in site.of(app)}


def epochs(site: Site) -> list[int]:
    return [int(site.shell(node, "cat /var/lib/korch/*/epoch")) for node in site.nodes]


def test_a_lost_state_is_rebuilt_and_nothing_restarts(site: Site, tmp_path: Path) -> None:
    values = tmp_path / "values.env"
    values.write_text("TOKEN=first\n")
    words = ("--replicas", "2", "--port", "8080", "--health", "/healthz", "--env-file", str(values), *QUICK)
    site.korch("deploy", site.image(), "--name", "web", *words)
    site.korch("deploy", site.image(), "--name", "other", "--replicas", "1", *QUICK)
    site.korch("scale", "web=3")
    before, others, seen, foreign = births(site, "web"), births(site, "other"), epochs(site), site.foreign()
    (cluster_id,) = {found.labels["korch.dev/cluster"] for found in site.of("web")}
    shutil.rmtree(site.korch.home / "clusters")

    site.korch.fails("deploy", site.image(), "--name", "new", status=6, says=("belongs to the korch cluster",))
    shown = site.korch("adopt", "--dry-run")
    assert cluster_id in shown.out
    assert "deployment/web with 3 replicas" in shown.out
    assert "TOKEN" in shown.err, "the Secret's value is lost, and said so"
    site.korch("adopt", status=2)  # nobody to ask
    done = site.korch("adopt", "--yes")
    assert cluster_id in done.out
    assert "--env-file" in done.err

    assert min(epochs(site)) > max(seen), "whoever led before is refused everywhere"
    assert {found["metadata"]["name"] for found in site.korch.objects("pods")} >= {
        found.labels["korch.dev/pod"] for found in site.of("web")
    }
    synced = site.korch("sync")
    assert "web: nothing to change, 3 of 3 replicas run" in synced.out
    assert "other: nothing to change, 1 of 1 replicas run" in synced.out
    assert births(site, "web") == before
    assert births(site, "other") == others
    assert "Everything that runs on the hosts is on record" in site.korch("adopt").out

    site.korch("deploy", site.image("2"), "--name", "web", *words[2:])
    assert {found.env["TOKEN"] for found in site.of("web")} == {"first"}
    assert births(site, "web").isdisjoint(before)
    assert len(births(site, "web")) == 3
    site.korch("delete", "web", "other")
    assert site.containers() == []
    assert site.foreign() == foreign


def test_a_damaged_state_is_put_aside(docker_site: Site) -> None:
    site = docker_site
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "1", *QUICK)
    before = births(site, "web")
    state = site.korch.home / "clusters" / "e2e" / "state.db"
    state.write_bytes(b"garbage" * 5000)
    site.korch.fails("adopt", status=11, says=("--fresh",))
    site.korch("adopt", "--fresh", "--yes")
    assert "nothing to change" in site.korch("sync").out
    assert births(site, "web") == before


def test_what_is_younger_than_a_restored_backup_is_left_running_then_taken_in_or_removed(
    site: Site, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "1", *QUICK)
    site.korch("backup", str(backup))
    site.korch.fails("backup", str(backup), status=5)
    site.korch("deploy", site.image(), "--name", "late", "--replicas", "2", *QUICK)
    late, web, seen, foreign = births(site, "late"), births(site, "web"), epochs(site), site.foreign()

    def restored() -> None:
        done = site.korch("restore", str(backup), "--yes")
        assert "2 container(s) are younger than the backup" in done.err
        assert min(epochs(site)) > max(seen)
        assert "unknown to its state" in site.korch("sync").err
        assert (births(site, "late"), births(site, "web")) == (late, web), "an orphan is left running"

    restored()
    site.korch("adopt", "--yes")
    assert "late: nothing to change, 2 of 2" in site.korch("sync").out
    assert (births(site, "late"), births(site, "web")) == (late, web)

    restored()
    listed = site.korch("prune", "--orphans", status=2)
    assert listed.out.count("_late-") == 2
    assert births(site, "late") == late
    site.korch("prune", "--orphans", "--yes")
    assert (births(site, "late"), births(site, "web")) == (set(), web)
    assert site.foreign() == foreign


def test_an_older_state_learns_of_newer_settings(docker_site: Site, tmp_path: Path) -> None:
    """The backup knows one replica of version 1; the nodes know better."""
    site = docker_site
    backup = tmp_path / "backup.db"
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "1", *QUICK)
    site.korch("backup", str(backup))
    site.korch("deploy", site.image("2"), "--name", "web", "--replicas", "2", *QUICK)
    new = births(site, "web")
    site.korch("restore", str(backup), "--yes")
    shown = site.korch("adopt", "--yes").out
    assert "which is newer than the state" in shown
    assert "is forgotten: nothing of it is left" in shown
    assert "web: nothing to change, 2 of 2" in site.korch("sync").out
    assert births(site, "web") == new


def test_only_what_is_this_clusters_is_taken_in(podman_site: Site, tmp_path: Path) -> None:
    """Two clusters share the nodes; each adopts its own."""
    site = podman_site
    inventory = json.loads(json.dumps({"all": {"vars": {"korch_shared": True}}}))
    shared = tmp_path / "shared.json"
    shared.write_text(json.dumps(inventory))
    one = site.korch.with_env(KORCH_INVENTORY=f"{site.korch.inventory};{shared}")
    two = one.with_env(KORCH_CLUSTER="second")
    one("deploy", site.image(), "--name", "mine", "--replicas", "1", *QUICK)
    two("deploy", site.image(), "--name", "yours", "--replicas", "1", *QUICK)
    before = {found.birth for found in site.containers()}
    shutil.rmtree(site.korch.home / "clusters" / "e2e")
    refused = one.fails("adopt", "--yes", status=3, says=("things of 2 clusters",))
    assert "--cluster-id" in refused.err
    (mine,) = {found.labels["korch.dev/cluster"] for found in site.of("mine")}
    one("adopt", "--cluster-id", mine, "--yes")
    assert [found["metadata"]["name"] for found in one.objects("deploy")] == ["mine"]
    assert "nothing to change" in one("sync").out
    assert {found.birth for found in site.containers()} == before
    one.fails("adopt", "--cluster-id", two("cluster", "show", "-o", "json").data()["id"], "--yes", status=7)
