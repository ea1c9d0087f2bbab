"""Two masters on one state: one leads, the other waits, and one that was only asleep does no harm."""

import signal
import time

import pytest

from tests.lab.faulty import Faulty, at_each
from tests.lab.mastering import AT_ONCE, Master, all_ready, births, eventually, mastered, places, settles, start_master

pytestmark = pytest.mark.faults


def waiting(site: Faulty) -> Master:
    """A second master, which has seen that another one leads."""
    second = start_master(site)
    second.says("leads; waiting")
    return second


def epochs(site: Faulty) -> set[str]:
    """The highest epoch that each node has seen."""
    return set(site.each_node(lambda node: site.shell(node, "cat /var/lib/korch/*-*/epoch").strip()))


def lead_passes_to(site: Faulty, master: Master) -> None:
    """It leads, and every node knows."""
    for node in site.nodes:
        master.says(f"{node}: ready")
    (epoch,) = epochs(site)
    assert f"epoch {epoch}" in master.text.rpartition("leading cluster")[2]


def test_the_second_takes_over_when_the_first_is_killed(faulty: Faulty) -> None:
    with mastered(faulty) as first:
        second = waiting(faulty)
        faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
        before = births(faulty)
        first.send(signal.SIGKILL)
        first.process.wait()
        began = time.monotonic()
        second.says("leading cluster")
        assert time.monotonic() - began < 9, "it need not wait for the lease to run out"
        lead_passes_to(faulty, second)
        assert births(faulty) == before
        faulty.korch("scale", "web=6")
        settles(faulty, {"web": 6})
        third = waiting(faulty)
        second.stop()
        third.says("leading cluster")
        third.stop()


def test_a_frozen_master_that_wakes_up_changes_nothing(faulty: Faulty) -> None:
    with mastered(faulty) as first:
        second = waiting(faulty)
        faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
        # It freezes with starts under way: on some nodes the engine is at it, others it has yet to tell.
        with faulty.hold("run", "d1", "p1") as holds:
            faulty.korch("scale", "web=12", "--no-wait")
            at_each(holds[:1], lambda _: first.send(signal.SIGSTOP))
        for node in faulty.nodes:
            second.says(f"{node}: ready")
        faulty.korch("scale", "web=3")
        settles(faulty, {"web": 3})
        before, stand = births(faulty), places(faulty)
        lead_passes_to(faulty, second)
        logged = second.text

        first.send(signal.SIGCONT)
        first.says("leads; waiting")
        time.sleep(3)
        assert (births(faulty), places(faulty)) == (before, stand)
        assert second.text == logged, "the one that leads has noticed nothing"
        faulty.check({"web": 3})
        faulty.korch("scale", "web=5")
        eventually("the new one still works", lambda: all_ready(faulty, "web", 5))
        second.stop()
        first.says("leading cluster", times=2)
        settles(faulty, {"web": 5})
