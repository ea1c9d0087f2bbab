"""Moving pods on purpose, seen from the nodes: drains, budgets, refusals, and a drain that is killed half way."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from korch.lab.lab import Lab
from tests.lab.korch_cli import KORCH, Site, make_site

QUICK = ("--settle", "0")
BUDGET = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 0, selector: {matchLabels: {app: web}}}
"""


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Site:
    return make_site(lab, tmp_path / "home")


def running(site: Site, app: str) -> int:
    """Running containers of an app on all nodes; one that vanishes meanwhile does not matter."""
    words = "ps -q --filter status=running --filter"

    def look(node: str) -> int:
        return len(site.shell(node, f'"$1" {words} "label=korch.dev/owner=$2"', site.engine(node), app).split())

    return sum(site.each_node(look))


@contextmanager
def counted(site: Site, app: str) -> Iterator[Callable[[], int]]:
    """The fewest containers of an app that ran while the block did, by two looks in a row.

    The nodes are not looked at in the same moment: one look may miss a container that moves.
    """
    counts: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            counts.append(running(site, app))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: min(max(pair) for pair in pairwise(counts))
    finally:
        over.set()
        thread.join()


def test_a_drain_moves_every_pod_and_never_serves_with_fewer(site: Site) -> None:
    foreign = site.foreign()
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "3", *QUICK)
    site.korch("apply", "-f", "-", stdin=BUDGET)
    before = {found.node: found.birth for found in site.of("web")}
    assert set(before) == {"n1", "n2", "n3"}
    plan = site.korch("node", "drain", "n1", "--dry-run").out
    assert " n1 " in plan
    assert "move" in plan
    with counted(site, "web") as fewest:
        done = site.korch("node", "drain", "n1")
    assert "node/n1 drained: 1 pod(s) left" in done.out
    assert fewest() >= 3, "the new one ran before the old one went"
    after = site.of("web")
    assert sorted({found.node for found in after}) == ["n2", "n3"]
    assert len(after) == 3
    assert {before["n2"], before["n3"]} <= {found.birth for found in after}, "the others were not touched"
    assert site.korch("node", "drain", "n1").out.endswith("drained: nothing was there to move\n")
    site.korch("scale", "web=4")
    assert {found.node for found in site.of("web")} == {"n2", "n3"}, "it stays cordoned"
    assert "0" in site.korch("get", "pdb", "web").out.splitlines()[1].split()
    site.korch("node", "uncordon", "n1")
    assert site.foreign() == foreign
    site.clear()


def test_what_cannot_run_elsewhere_is_refused_until_forced(site: Site) -> None:
    site.korch("deploy", site.image(), "--name", "db", "--volume", "data:/data", *QUICK)
    (found,) = site.of("db")
    site.korch.fails("node", "drain", found.node, status=7, says=("volume data exists on this node only",))
    assert [one.birth for one in site.of("db")] == [found.birth]
    assert site.korch.objects("node", found.node)[0]["spec"].get("unschedulable", False) is False
    forced = site.korch("node", "drain", found.node, "--force")
    assert "drained" in forced.out
    assert site.of("db") == [], "its data is there, and the node is closed: it waits"
    site.korch("node", "uncordon", found.node)
    site.korch("sync")
    assert [one.node for one in site.of("db")] == [found.node]
    site.clear()
    site.each_node(lambda node: site.shell(node, '"$1" volume prune -f', site.engine(node)))


def test_a_drain_without_room_says_so_and_stops_nothing(site: Site) -> None:
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "3", "--port", "8081:80", *QUICK)
    births = sorted(found.birth for found in site.of("web"))
    failed = site.korch("node", "drain", "n1", "--timeout", "60", status=None)
    assert failed.status == 9, failed
    assert "fits nowhere" in failed.err
    assert sorted(found.birth for found in site.of("web") if found.running) == births
    assert "stay on n1" in site.korch("node", "uncordon", "n1").out
    site.korch("sync")
    assert sorted(found.birth for found in site.of("web")) == births
    site.clear()


def test_a_drain_that_is_killed_half_way_is_finished_by_the_next(site: Site) -> None:
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "6", *QUICK)
    words = (str(KORCH), "node", "drain", "n1")
    with subprocess.Popen(words, env=site.korch.environment(), cwd=site.korch.cwd, stdout=subprocess.DEVNULL) as run:
        while running(site, "web") == 6 and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    assert running(site, "web") >= 6
    site.korch("node", "drain", "n1")
    after = site.of("web")
    assert len(after) == 6
    assert {found.node for found in after} == {"n2", "n3"}
    assert all(found.running for found in after)
    site.clear()


@contextmanager
def led(site: Site) -> Iterator[None]:
    """While a master leads the cluster."""
    words = (str(KORCH), "master", "--api-port", "0")
    with subprocess.Popen(words, env=site.korch.environment(), cwd=site.korch.cwd, stderr=subprocess.DEVNULL) as run:
        try:
            while "led by the master" not in site.korch("status").out:
                assert run.poll() is None, "the master has ended"
            yield
        finally:
            run.terminate()
            run.wait(30)


def test_a_master_does_it_and_the_command_only_follows(site: Site) -> None:
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "3", *QUICK)
    site.korch("apply", "-f", "-", stdin=BUDGET)
    with led(site):
        with counted(site, "web") as fewest:
            done = site.korch("node", "drain", "n1")
        assert "which leads now" in done.err
        assert fewest() >= 3
        assert {found.node for found in site.of("web")} == {"n2", "n3"}
        site.korch("node", "uncordon", "n1")
        site.korch("node", "drain", "n2", "--no-wait")
        while site.shell("n2", '"$1" ps -q --filter label=korch.dev/owner=web', site.engine("n2")).strip():
            time.sleep(0.1)
        assert running(site, "web") == 3
        assert "leaves" not in site.korch("status").out
    site.korch("node", "uncordon", "n2")
    site.clear()


def test_a_node_that_is_back_gets_its_share_and_then_nothing_moves(site: Site) -> None:
    site.korch("node", "cordon", "n1", status=None)
    site.korch("nodes")
    site.korch("node", "cordon", "n1")
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "4", *QUICK)
    site.korch("node", "uncordon", "n1")
    births = sorted(found.birth for found in site.of("web"))
    plan = site.korch("rebalance", "--plan").out
    assert " n1 " in plan
    assert "spread:" in plan
    assert sorted(found.birth for found in site.of("web")) == births, "a plan changes nothing"
    with counted(site, "web") as fewest:
        site.korch("rebalance", "--max-moves", "1")
    assert fewest() >= 4
    assert [found.node for found in site.of("web")].count("n1") == 1
    site.korch("rebalance")
    assert "Nothing to move" in site.korch("rebalance").out
    site.clear()


def test_top_measures_what_a_pod_really_uses(site: Site) -> None:
    site.korch("deploy", site.image(), "--name", "web", "--replicas", "2", "--memory", "32Mi", *QUICK)
    (first, second) = site.of("web")
    rows = [line.split() for line in site.korch("top", "pods", "--sort", "memory").out.splitlines()[1:]]
    assert sorted(row[1] for row in rows) == sorted((first.node, second.node))
    for row in rows:
        assert re.fullmatch(r"[0-9]+m", row[2]), row
        assert "of 32Mi" in " ".join(row)
    (idle,) = set(site.nodes) - {first.node, second.node}
    site.lab.kill(idle)
    try:
        assert f"{idle} could not be asked" in site.korch("top", "pods").out
    finally:
        site.lab.start(idle)
    site.clear()
