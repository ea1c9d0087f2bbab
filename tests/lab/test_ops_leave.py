"""A cluster that goes, and a node that is gone."""

from pathlib import Path

import pytest

from korch.lab.lab import Lab
from tests.lab.korch_cli import Site, make_site, write_inventory

QUICK = ("--settle", "0")


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Site:
    inventory = write_inventory(tmp_path / "hosts.yml", lab, {name: {} for name in ("n1", "n2", "n3")})
    return make_site(lab, tmp_path / "home", inventory=inventory)


def test_a_removed_cluster_leaves_nothing_but_volumes(site: Site) -> None:
    foreign = site.foreign()
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "2", "--volume", "data:/data", *QUICK)
    site.korch.fails("cluster", "rm", "--yes", status=7, says=("still has deployment/web",))
    done = site.korch("cluster", "rm", "--yes", "--force")
    assert "default/data" in done.err, "named volumes are told, not removed"
    assert site.containers() == []
    left = site.each_node(lambda node: site.shell(node, "ls /var/lib/korch"))
    assert left == ["lock\n", "lock\n", "lock\ntickets\n"], "of a lock that others may hold just now"
    assert not (site.korch.home / "clusters" / "e2e").exists()
    assert site.foreign() == foreign
    again = site.korch.with_env(KORCH_CLUSTER="second")
    again("deploy", site.image(), "--name", "web", *QUICK)
    again("cluster", "rm", "--yes", "--force")
    site.each_node(lambda node: site.shell(node, '"$1" volume prune -f', site.engine(node)))


def test_the_pods_of_a_node_that_is_gone_are_replaced_and_never_double(site: Site, tmp_path: Path) -> None:
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "3", *QUICK)
    assert {found.node for found in site.of("web")} == {"n1", "n2", "n3"}
    hosts = Path(site.korch.inventory)
    everybody = hosts.read_text()
    write_inventory(hosts, site.lab, {name: {} for name in ("n1", "n2")})
    site.korch.fails("node", "rm", "n3", status=7)
    site.korch("nodes")
    site.korch.fails("node", "rm", "n3", status=7, says=("still has 1 pod",))
    assert "1 pod(s) given up" in site.korch("node", "rm", "n3", "--force").out
    assert "3 of 3 replicas run" in site.korch("sync").out
    assert len(site.of("web")) == 4, "the machine lives on, where nobody looks"
    hosts.write_text(everybody)
    site.korch("sync")
    assert [found.node for found in site.of("web") if found.node == "n3"] == [], "its pod has ended: it is surplus"
    assert len(site.of("web")) == 3
