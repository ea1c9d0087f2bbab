"""`korch master` on real nodes of both engines, seen from outside: what dies comes back, and it comes and goes."""

import re
import signal
import time

import pytest

from tests.lab.faulty import Faulty, wait_for
from tests.lab.mastering import (
    AT_ONCE,
    all_ready,
    births,
    eventually,
    is_ready,
    mastered,
    places,
    pods,
    session_processes,
    settles,
    start_master,
)

pytestmark = pytest.mark.faults
ONE_A_NODE = ("--port", "18080:8080")
ENDS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: ends}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: ends}}}}
  template:
    metadata: {{labels: {{app: ends}}}}
    spec:
      containers:
        - {{name: ends, image: "{image}", command: [sh, -c, "echo no database at 10.0.0.9; exit 3"]}}
"""


def test_containers_that_are_killed_or_removed_run_again(faulty: Faulty) -> None:
    with mastered(faulty):
        faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE, *ONE_A_NODE)
        before = places(faulty)
        names = {one.node: one.name for one in faulty.check({"web": 4})}
        for word in ("kill", "rm -f"):
            old = births(faulty)
            for node in faulty.nodes:
                faulty.shell(node, f"{faulty.engine(node)} {word} {names[node]}")
            eventually("all of them again", lambda old=old: all_ready(faulty, "web", 4) and not births(faulty) & old)
            settles(faulty, {"web": 4})
            assert places(faulty) == before, "healed, not replaced"


def test_a_container_that_keeps_ending_is_told_with_its_last_words(faulty: Faulty) -> None:
    manifest = faulty.korch.cwd / "ends.yml"
    manifest.write_text(ENDS.format(image=faulty.image()))

    def told() -> bool:
        for pod in pods(faulty, "ends"):
            for status in pod["status"].get("containerStatuses") or ():
                if status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff":
                    return "no database at 10.0.0.9" in str(status)
        return False

    with mastered(faulty):
        faulty.korch("apply", "-f", str(manifest), "--no-wait")
        eventually("CrashLoopBackOff", told)
        uid = set(places(faulty, "ends"))
        text = faulty.korch("describe", "deployment/ends").out
        assert "no database at 10.0.0.9" in text, text
        assert set(places(faulty, "ends")) == uid, "the same pod, again and again"


def test_an_engine_is_restarted_under_a_live_session(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE, *ONE_A_NODE)
        before = places(faulty)
        faulty.lab.stop_engine("d1")
        master.says("d1: ")
        wait_for("it was noticed", lambda: "engine does not answer" in master.text)
        faulty.lab.start_engine("d1")
        master.says("d1: ready", times=2)
        eventually("all run", lambda: all_ready(faulty, "web", 4))
        assert places(faulty) == before
        settles(faulty, {"web": 4})
        old = births(faulty, ["d1"])
        (name,) = [one.name for one in faulty.seen() if one.node == "d1"]
        faulty.shell("d1", f"docker kill {name}")
        eventually("events are heard again", lambda: all_ready(faulty, "web", 4) and not births(faulty, ["d1"]) & old)


def test_what_commands_want_while_a_master_leads(faulty: Faulty) -> None:
    with mastered(faulty):
        run = faulty.korch("deploy", faulty.image(), "--replicas", "2", *AT_ONCE)
        assert len(run.rows()) == 2, run
        faulty.korch("scale", "web=4")
        settles(faulty, {"web": 4})
        bad = faulty.korch(
            "deploy",
            faulty.image(),
            "--name",
            "web",
            "--port",
            "8080",
            "--health",
            "/nothing",
            "--timeout",
            "10",
            status=9,
        )
        assert "Error" in bad.err, bad
        settles(faulty, {"web": 4})
        began = time.monotonic()
        full = faulty.korch("deploy", faulty.image(), "--name", "big", "--memory", "900Gi", *AT_ONCE, status=9)
        assert "memory" in full.err, full
        assert time.monotonic() - began < 60, "nothing could change, so nothing was to be waited for"
        faulty.korch("delete", "deployment", "big")
        faulty.korch("deploy", faulty.image("2"), "--name", "web", "--replicas", "4", *AT_ONCE)
        faulty.korch("rollout", "undo", "web")
        settles(faulty, {"web": 4})
        faulty.korch("delete", "deployment", "web")
        faulty.check({})


def test_what_was_declared_while_no_master_ran_comes_true_and_surplus_goes(faulty: Faulty) -> None:
    faulty.korch("deploy", faulty.image(), "--name", "old", "--replicas", "4", *AT_ONCE)
    faulty.korch("deploy", faulty.image(), "--name", "lone", "--limit", "d2", *AT_ONCE)
    (lone,) = [one for one in faulty.seen() if one.app == "lone"]
    labels = " ".join(f"--label {key}={text}" for key, text in lone.labels.items() if key.startswith("korch.dev/"))
    stray = labels.replace(lone.uid, "00000000-aaaa-bbbb-cccc-000000000000")
    faulty.shell("d2", f"docker run -d --name stray {stray} {faulty.image()}")
    faulty.korch("scale", "old=2", "--no-wait")
    faulty.korch("deploy", faulty.image(), "--replicas", "3", "--no-wait")
    with mastered(faulty) as master:
        eventually("the wish is true", lambda: all_ready(faulty, "web", 3) and all_ready(faulty, "old", 2))
        master.says("stray is unknown to the state; see `korch adopt`")
        assert [one.running for one in faulty.seen() if one.name == "stray"] == [True], "nobody knows whose it is"
        assert master.text.count("stray is unknown") == 1
        faulty.shell("d2", "docker rm -f stray")
        settles(faulty, {"web": 3, "old": 2, "lone": 1})


def test_it_stops_cleanly_and_what_it_ran_on_nodes_ends_with_it_also_when_it_is_killed(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
        before = births(faulty)
        assert all(session_processes(faulty, node) for node in faulty.nodes), "else this test sees nothing"
        master.stop()
    for node in faulty.nodes:
        wait_for(f"{node} is left", lambda node=node: not session_processes(faulty, node))
    assert "leads" not in faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE).err, (
        "the lead was given back"
    )
    assert births(faulty) == before

    with mastered(faulty) as master:
        assert all(session_processes(faulty, node) for node in faulty.nodes)
        master.send(signal.SIGKILL)
        master.process.wait()
    for node in faulty.nodes:
        wait_for(f"{node} is left", lambda node=node: not session_processes(faulty, node))
    assert births(faulty) == before


def test_the_inventory_changes_under_it(faulty: Faulty) -> None:
    path = faulty.korch.cwd / "hosts.yml"
    whole = path.read_text()
    without = re.sub(r"\n +p2:\n +ansible_host: \S+", "", whole)
    assert without != whole
    path.write_text(without)
    with mastered(faulty, ready=["d1", "d2", "p1"]) as master:
        faulty.korch("deploy", faulty.image(), "--replicas", "3", *AT_ONCE)
        path.write_text(whole)
        master.says("p2: ready")
        faulty.korch("deploy", faulty.image(), "--name", "more", "--replicas", "4", *ONE_A_NODE, *AT_ONCE)
        assert set(places(faulty, "more").values()) == set(faulty.nodes)
        before = births(faulty)
        path.write_text("all: [\n")
        master.says("the inventory stays as it was")
        path.write_text(without)
        master.says("the inventory changed: gone: p2")
        eventually("p2 is closed", lambda: "NotInInventory" in str(faulty.korch.objects("node", "p2")))
        assert births(faulty) == before, "it is not lost, only closed"
        path.write_text(whole)
        master.says("p2: ready", times=2)
        assert births(faulty) == before
        assert master.text.count("the inventory stays as it was") == 1


def test_clocks_that_are_wrong_or_jump_change_nothing(faulty: Faulty) -> None:
    def set_clock(node: str, seconds: int) -> None:
        script = f'#!/bin/sh\nexec /usr/bin/date -d "@$(($(/usr/bin/date +%s) + {seconds}))" "$@"\n'
        faulty.lab.write_file(node, "/usr/local/bin/date", script, 0o755)

    set_clock("d1", 7200)
    set_clock("p1", -7200)
    with mastered(faulty) as master:
        faulty.korch("deploy", faulty.image(), "--replicas", "4", "--health", "/healthz", *ONE_A_NODE)
        before, stand = births(faulty), places(faulty)
        set_clock("d2", 7200)
        set_clock("d1", -3600)
        time.sleep(8)
        assert (births(faulty), places(faulty)) == (before, stand)
        assert all(is_ready(pod) for pod in pods(faulty))
        (name,) = [one.name for one in faulty.seen() if one.node == "d1"]
        faulty.shell("d1", f"docker kill {name}")
        eventually("healed at any hour", lambda: all_ready(faulty, "web", 4) and births(faulty) != before)
        assert "lost" not in master.text


def test_a_master_without_an_inventory_or_with_a_bad_hook_is_refused(faulty: Faulty) -> None:
    faulty.korch.fails("master", "--fence", "'", status=3, says=["fencing command"])
    lone = start_master(faulty, "-i", str(faulty.korch.cwd / "nothing.yml"))
    assert lone.process.wait(timeout=30) != 0
    assert "does not exist" in lone.text
    assert "Traceback" not in lone.text
