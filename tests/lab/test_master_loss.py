"""Nodes that fall silent under `korch master`: who is lost, who is only slow, and what must never move."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.faulty import Faulty
from tests.lab.mastering import (
    AT_ONCE,
    all_ready,
    births,
    eventually,
    is_ready,
    is_tainted,
    mastered,
    places,
    pods,
    ready_of,
    settles,
)

pytestmark = pytest.mark.faults
ONE_A_NODE = ("--port", "18080:8080")
STALL_S = 5


def deploy_four(site: Faulty) -> tuple[dict[str, str], set[tuple[str, str, str]]]:
    """A replica a node; where each pod is, and every container's birth."""
    site.korch("deploy", site.image(), "--replicas", "4", *AT_ONCE)
    found = places(site)
    assert set(found.values()) == set(site.nodes)
    return found, births(site)


def end_sessions(site: Faulty, node: str) -> None:
    """Every connection to the node breaks; its sshd takes new ones."""
    script = """for p in /proc/[0-9]*; do
        case $(tr '\\0' ' ' <"$p/cmdline") in 'sshd: '*@*) kill -9 "${p#/proc/}" ;; esac
        done 2>/dev/null; :"""
    site.shell(node, script)


def test_a_node_that_is_off_is_replaced_and_its_return_doubles_nothing(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        before, _ = deploy_four(faulty)
        began = time.monotonic()
        faulty.lab.kill("d1")
        eventually("four replicas without d1", lambda: all_ready(faulty, "web", 4, without="d1"))
        print(f"node lost: replaced after {time.monotonic() - began:.1f} s")
        ready = ready_of(faulty, "d1")
        assert (ready["status"], ready["reason"]) == ("Unknown", "Unreachable")
        assert "gives no sign of life" in ready["message"]
        assert is_tainted(faulty, "d1")
        kept = {uid: node for uid, node in before.items() if node != "d1"}
        assert kept.items() <= places(faulty).items(), "only what stood there moved"

        faulty.lab.start("d1")
        master.says("d1: is back")
        settles(faulty, {"web": 4})
        assert ready_of(faulty, "d1")["status"] == "True"
        assert not is_tainted(faulty, "d1")
        assert "d1" not in places(faulty).values()


def test_stalls_of_five_seconds_and_a_busy_master_move_nothing(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        before, born = deploy_four(faulty)
        for fault, end in ((faulty.lab.partition, faulty.lab.heal), (faulty.lab.pause, faulty.lab.resume)):
            for nodes in (("d1",), ("p1",), ("d2", "p2", "d1")):
                for node in nodes:
                    fault(node)
                time.sleep(STALL_S)
                for node in nodes:
                    end(node)
                time.sleep(2)
        master.send(signal.SIGSTOP)
        time.sleep(8)
        master.send(signal.SIGCONT)
        time.sleep(8)
        assert (places(faulty), births(faulty)) == (before, born)
        assert "replaced" not in master.text
        eventually("all is well", lambda: all_ready(faulty, "web", 4))


def test_a_node_that_others_reach_is_not_lost(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        before, born = deploy_four(faulty)
        faulty.lab.partition("d1", ["host"])
        master.says("reaches it, so its pods stay")
        assert ready_of(faulty, "d1")["reason"] == "Unreachable"
        time.sleep(5)
        assert (places(faulty), births(faulty)) == (before, born)
        assert master.text.count("reaches it, so its pods stay") == 1
        faulty.lab.heal("d1")
        eventually("it is Ready again", lambda: ready_of(faulty, "d1")["status"] == "True")
        assert (places(faulty), births(faulty)) == (before, born)


def test_when_most_nodes_fall_silent_it_is_the_masters_network(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        before, born = deploy_four(faulty)
        for node in ("d2", "p1", "p2"):
            faulty.lab.partition(node)
        for node in ("d2", "p1", "p2"):
            master.says(f"{node} fell silent together with most nodes")
        assert "korch node lost p1" in ready_of(faulty, "p1")["message"]
        time.sleep(5)
        assert places(faulty) == before
        master.send(signal.SIGKILL)
        master.process.wait()
        with mastered(faulty, ready=["d1"]) as second:
            time.sleep(12)
            assert places(faulty) == before, "the next master remembers"
            faulty.korch.fails("node", "lost", "d1", status=7, says=["d1 is Ready"])
            faulty.korch("node", "lost", "p1")
            eventually("p1's replica is elsewhere", lambda: list(places(faulty).values()).count("d1") == 2)
            assert sorted(places(faulty).values()) == ["d1", "d1", "d2", "p2"]
            for node in ("d2", "p1", "p2"):
                faulty.lab.heal(node)
            for node in ("d2", "p1", "p2"):
                second.says(f"{node}: is back")
            settles(faulty, {"web": 4})
            assert births(faulty, ["d1", "d2", "p2"]) >= {one for one in born if one[0] != "p1"}
            assert not [node for node in faulty.nodes if is_tainted(faulty, node)]


def test_pods_with_data_there_wait_for_the_fencing_hook_or_a_persons_word(faulty: Faulty, tmp_path: Path) -> None:
    hook = tmp_path / "fence.sh"
    hook.write_text(f'#!/bin/sh\nsleep 6\necho "$@" >>{tmp_path}/fenced\n')
    hook.chmod(0o755)
    faulty.korch("deploy", faulty.image(), "--name", "db", "--volume", "data:/data", "--limit", "d1", *AT_ONCE)
    faulty.korch("deploy", faulty.image(), "--name", "kv", "--volume", "keys:/data", "--limit", "p1", *AT_ONCE)
    (db,), (kv,) = places(faulty, "db"), places(faulty, "kv")
    with mastered(faulty, "--fence", f"{hook} --force") as master:
        faulty.lab.kill("d1")
        master.says("running the fencing command")
        time.sleep(3)
        assert places(faulty, "db") == {db: "d1"}
        assert not any(is_ready(pod) for pod in pods(faulty, "db"))
        eventually("it moved", lambda: all_ready(faulty, "db", 1, without="d1"))
        assert (tmp_path / "fenced").read_text() == "--force d1\n"
    faulty.lab.start("d1")
    with mastered(faulty) as master:
        master.says("d1: is back")
        faulty.lab.kill("p1")
        master.says("its data is on p1, which cannot be reached")
        time.sleep(5)
        assert places(faulty, "kv") == {kv: "p1"}
        assert "korch node lost p1" in faulty.korch("events").out
        faulty.korch("node", "lost", "p1")
        eventually("it moved", lambda: all_ready(faulty, "kv", 1, without="p1"))
        faulty.lab.start("p1")
        master.says("p1: is back")
        settles(faulty, {"db": 1, "kv": 1})


def test_nodes_that_refuse_the_master_keep_their_pods(faulty: Faulty) -> None:
    known, path = faulty.korch.cwd / "known_hosts", faulty.korch.cwd / "hosts.yml"
    known.write_text(faulty.lab.known_hosts.read_text())
    path.write_text(path.read_text().replace(str(faulty.lab.known_hosts), str(known)))
    with mastered(faulty) as master:
        before, born = deploy_four(faulty)
        other = known.with_name("other")
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)), check=True)
        address, fresh = faulty.lab.address("p1"), other.with_suffix(".pub").read_text().split()
        lines = [line for line in known.read_text().splitlines() if not line.startswith(f"{address} ")]
        known.write_text("\n".join([*lines, f"{address} {fresh[0]} {fresh[1]}", ""]))
        keys = faulty.shell("d1", "cat /root/.ssh/authorized_keys")
        faulty.shell("d1", "mv /root/.ssh/authorized_keys /root/.ssh/away")
        try:
            for node in ("d1", "p1"):
                end_sessions(faulty, node)
            eventually("d1 refuses", lambda: ready_of(faulty, "d1")["reason"] == "AuthFailed")
            eventually("p1 is another", lambda: ready_of(faulty, "p1")["reason"] == "HostKeyChanged")
            tries = master.text.count("AuthFailed")
            time.sleep(15)
            assert master.text.count("AuthFailed") == tries
            assert (places(faulty), births(faulty)) == (before, born)
            assert not is_tainted(faulty, "d1")
            assert not is_tainted(faulty, "p1")
        finally:
            faulty.shell("d1", "mv /root/.ssh/away /root/.ssh/authorized_keys")
        assert keys
        known.write_text(faulty.lab.known_hosts.read_text())
        for node in ("d1", "p1"):
            eventually("it is taken up again", lambda node=node: ready_of(faulty, node)["status"] == "True")
        assert (places(faulty), births(faulty)) == (before, born)


def kill_containers(site: Faulty, node: str) -> None:
    """Their processes die with the engine's helpers beside them, and nobody is there to see it."""
    script = """for p in /proc/[0-9]*; do
        read -r name <"$p/comm"
        case $name in containerd*) kill -9 "${p#/proc/}" ;; esac
        grep -q -e /docker/ "$p/cgroup" && kill -9 "${p#/proc/}"
        done 2>/dev/null; :"""
    site.shell(node, script)


def test_an_engine_that_stays_down_moves_only_what_is_dead(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        before, born = deploy_four(faulty)
        for node in ("d1", "d2"):
            faulty.lab.stop_engine(node, hard=True)
        kill_containers(faulty, "d2")
        eventually("it is told", lambda: ready_of(faulty, "d2")["reason"] == "EngineDown")
        assert places(faulty) == before
        eventually("d2's replica is elsewhere", lambda: "d2" not in places(faulty).values(), timeout_s=120)
        assert "no process of its containers lives" in master.text
        time.sleep(16)  # another look at d1
        living = {uid: node for uid, node in before.items() if node != "d2"}
        assert living.items() <= places(faulty).items()
        for node in ("d1", "d2"):
            faulty.lab.start_engine(node)
        settles(faulty, {"web": 4})
        assert "d1" in places(faulty).values()
        assert {one for one in born if one[0] in {"p1", "p2"}} <= births(faulty)
