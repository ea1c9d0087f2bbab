"""Nodes that die, freeze, are cut off, slow, full or without an engine: before, during and after a deploy."""

import random
import re

import pytest

from tests.chaos.budget import seed
from tests.lab.faulty import Faulty, Hold, at_each, finish
from tests.lab.korch_cli import Run

pytestmark = pytest.mark.faults
AT_ONCE = ("--settle", "0")
ONE_A_NODE = ("--port", "18080:8080")  # a node port can be taken once


def nodes_of(run: Run) -> set[str]:
    return {row[1] for row in run.rows()}


def test_nodes_that_die_or_freeze_while_they_start_a_replica(faulty: Faulty) -> None:
    """Nodes of both engines die; of which one freezes, the run's seed says."""
    freezes, stays = random.Random(seed()).choice((("d2", "p2"), ("p2", "d2")))
    faulty.forget_images()
    with faulty.hold("pull", "d1", "p1") as pulling, faulty.hold("run", freezes) as starting:
        deploy = faulty.start("deploy", faulty.image(), "--replicas", "6", *AT_ONCE)
        at_each(pulling, lambda hold: faulty.lab.kill(hold.node))
        at_each(starting, lambda hold: faulty.lab.pause(hold.node))
        run = finish(deploy)
    assert nodes_of(run) == {stays}, run
    assert len(run.rows()) == 6
    for node in ("d1", "p1", freezes):
        assert f"Note: {node}" in run.err, run

    faulty.mend()  # the script that froze goes on now: it starts a replica that nobody wants any more
    faulty.korch("sync")
    assert {one.node for one in faulty.check({"web": 6})} == {stays}


def test_nodes_that_are_cut_off_when_the_engine_has_started_a_replica(faulty: Faulty) -> None:
    with faulty.hold("run", "d1", "p1", when="after") as holds:
        deploy = faulty.start("deploy", faulty.image(), "--replicas", "6", *AT_ONCE)
        at_each(holds, lambda hold: faulty.lab.partition(hold.node))
        run = finish(deploy)
    assert nodes_of(run) == {"d2", "p2"}, run
    assert {one.node for one in faulty.seen() if one.running} == {"d1", "d2", "p1", "p2"}  # surplus, until heard again

    faulty.mend()
    faulty.korch("sync")
    assert {one.node for one in faulty.check({"web": 6})} == {"d2", "p2"}


def test_a_dead_node_before_and_after_a_deploy(faulty: Faulty) -> None:
    faulty.korch("deploy", faulty.image(), "--name", "db", "--volume", "data:/data", "--limit", "p1")
    faulty.lab.kill("d2")
    run = faulty.korch("deploy", faulty.image(), "--replicas", "3", *AT_ONCE)
    assert nodes_of(run) == {"d1", "p1", "p2"}, run
    assert "Note: d2" in run.err, run

    faulty.lab.start("d2")
    faulty.lab.kill("p1")
    again = faulty.korch.fails(
        "deploy",
        faulty.image(),
        "--replicas",
        "3",
        *AT_ONCE,
        status=9,
        says=["web", "2 of 3 replicas run", "p1", "--failover"],
    )
    assert nodes_of(again) == {"d1", "p1", "p2"}, again  # nothing moves without being asked for
    moved = faulty.korch("sync", "--failover", status=9)
    assert re.search(r"p1: web-\S+ is replaced elsewhere", moved.out), moved
    assert re.search(r"p1: db-\S+ stays, because its volume is there", moved.out), moved
    web = [pod["spec"]["nodeName"] for pod in faulty.korch.objects("pods") if pod["metadata"]["name"].startswith("web")]
    assert "p1" not in [one for one in web if one != "p1"]
    assert {row[1] for row in moved.rows() if row[0].startswith("web")} <= {"d1", "d2", "p2"}

    faulty.lab.start("p1")
    faulty.korch("sync")
    found = faulty.check({"web": 3, "db": 1})
    assert {one.node for one in found if one.app == "web"} <= {"d1", "d2", "p2"}
    assert {one.node for one in found if one.app == "db"} == {"p1"}


def test_when_most_nodes_are_lost_at_once_nothing_moves(faulty: Faulty) -> None:
    faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
    before = faulty.korch.objects("pods")
    for node in ("d1", "d2", "p1"):
        faulty.lab.partition(node)
    faulty.korch.fails("sync", "--failover", status=7, says=["3 of 4 nodes", "nothing was moved"])
    assert faulty.korch.objects("pods") == before
    faulty.mend()
    faulty.korch("sync")
    faulty.check({"web": 4})


def test_slow_and_lossy_links(faulty: Faulty) -> None:
    faulty.lab.delay("d1", 100, 30)
    faulty.lab.loss("p1", 10)
    faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
    faulty.korch("deploy", faulty.image("2"), "--replicas", "4", *AT_ONCE)
    faulty.mend()
    faulty.check({"web": 4})


def test_the_engine_is_stopped_half_way_and_killed_later(faulty: Faulty) -> None:
    with faulty.hold("run", "d1") as (hold,):
        deploy = faulty.start("deploy", faulty.image(), "--replicas", "6", *AT_ONCE)
        hold.wait()
        faulty.lab.stop_engine("d1")
        hold.release()
        run = finish(deploy)
    assert nodes_of(run) == {"d2", "p1", "p2"}, run
    assert re.search("Note: d1: .*engine does not answer", run.err), run

    faulty.lab.start_engine("d1")
    label = "label=korch.dev/cluster"
    pids = faulty.shell("d2", f"docker inspect --format '{{{{.State.Pid}}}}' $(docker ps -q --filter {label})").split()
    faulty.lab.stop_engine("d2", hard=True)
    command = ("deploy", faulty.image(), "--replicas", "6", *AT_ONCE)
    faulty.korch.fails(*command, status=9, says=["d2", "engine does not answer", "korch node check"])
    faulty.shell("d2", f"kill -0 {' '.join(pids)}")  # they live on, and nothing was moved
    faulty.lab.start_engine("d2")
    faulty.korch("sync")
    faulty.check({"web": 6})


@pytest.mark.parametrize("word", ["pull", "run"])
def test_disks_full_in_the_middle_of_a_deploy(faulty: Faulty, word: str) -> None:
    if word == "pull":
        faulty.forget_images()
    command = ("deploy", faulty.image(), "--replicas", "2", "--limit", "d1,p1", *ONE_A_NODE, *AT_ONCE)

    held: list[str] = []

    def fill(hold: Hold) -> None:
        held.append(hold.node)
        if word == "run" or len(held) > 1:  # the first pull tells what the tag stands for
            faulty.lab.fill_disk(hold.node)
        hold.release()

    with faulty.hold(word, "d1", "p1") as holds:
        deploy = faulty.start(*command, "--timeout", "8")
        at_each(holds, fill)
        run = finish(deploy, status=9)
    assert run.err.count("Error: ") == 1, run
    assert "Hint: " in run.err, run
    filled = held if word == "run" else held[1:]
    full = r"(no space left|is the disk full|does not fit)"
    assert re.search(rf"web-\S+ on ({'|'.join(filled)}): .*{full}", run.err), run
    for node in filled:
        assert re.search(rf"web-\S+ on {node} .*{full}", run.out), run
        faulty.lab.free_disk(node)
    faulty.check({})
    faulty.korch(*command)
    for node in ("d1", "p1"):
        faulty.lab.fill_disk(node)
    faulty.korch("delete", "deployment", "web")  # what stands on a full disk can be ended
    faulty.check({})


def test_a_full_node_gets_nothing_new(faulty: Faulty) -> None:
    faulty.lab.fill_disk("d1")
    faulty.lab.fill_disk("p1")
    run = faulty.korch("deploy", faulty.image(), "--replicas", "2", *AT_ONCE)
    assert nodes_of(run) <= {"d2", "p2"}, run
    why = faulty.korch("why", "deployment/web").out
    assert re.search(r"d1 +low on disk", why), why
    assert re.search(r"p1 +low on disk", why), why


def test_containers_that_end_and_nodes_that_reboot_come_back_with_sync(faulty: Faulty) -> None:
    faulty.korch("deploy", faulty.image(), "--replicas", "4", "--settle", "0", *ONE_A_NODE)
    before = faulty.check({"web": 4})
    names = {one.node: one.name for one in before}
    for node, word in (("d1", "rm -f"), ("p1", "kill"), ("d2", "kill"), ("p2", "rm -f")):
        faulty.shell(node, f"{faulty.engine(node)} {word} {names[node]}")
    assert len(faulty.korch("sync").rows()) == 4
    after = faulty.check({"web": 4})
    assert [(one.node, one.uid) for one in after] == [(one.node, one.uid) for one in before]  # healed, not replaced

    for node in ("d1", "p1"):
        faulty.lab.kill(node)
        faulty.lab.start(node)
    faulty.korch("sync")
    after = faulty.check({"web": 4})
    assert [(one.node, one.uid) for one in after] == [(one.node, one.uid) for one in before]


def test_clocks_two_hours_off(faulty: Faulty) -> None:
    for node, seconds in (("d1", 7200), ("p1", -7200)):
        script = f'#!/bin/sh\nexec /usr/bin/date -d "@$(($(/usr/bin/date +%s) + {seconds}))" "$@"\n'
        faulty.lab.write_file(node, "/usr/local/bin/date", script, 0o755)
    command = ("deploy", faulty.image(), "--replicas", "4", "--health", "/healthz", *ONE_A_NODE)
    faulty.korch(*command)
    assert "nothing to change" in faulty.korch(*command).out
    faulty.check({"web": 4})
    offsets = {load["metadata"]["name"]: load["clockOffsetSeconds"] for load in faulty.korch.objects("nodeloads")}
    assert round(offsets["d1"] / 100) == 72
    assert round(offsets["p1"] / 100) == -72
