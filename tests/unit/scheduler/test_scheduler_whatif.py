"""Questions about clusters that are not."""

import pytest

from korch.errors import NotFoundError
from korch.scheduler.select import schedule
from korch.scheduler.whatif import copies, what_if, with_placements, without_nodes
from tests.unit.scheduler.world import GI, apart, counts, load, node, pod, pods, shot

NODES = [node("a"), node("b"), node("c")]


def test_more_replicas() -> None:
    snap = shot(NODES, pod("web-0", on="a", owner="rs"))
    outlook = what_if(snap, pods=copies(pod("web-0", on="a", owner="rs"), 5))
    assert outlook.fits
    assert outlook.moved == ()
    assert [d.name for d in outlook.added] == [f"web-0-whatif-{n}" for n in range(1, 6)]
    assert counts(outlook.added) == {"a": 1, "b": 2, "c": 2}


def test_a_lost_node() -> None:
    running = [pod(f"web-{n}", on=on, owner="rs", memory="2Gi") for n, on in enumerate("aab")]
    outlook = what_if(shot(NODES, *running, loads={n: load(free=4 * GI) for n in "abc"}), lose=["a"])
    assert {d.name: d.node for d in outlook.moved} == {"web-0": "c", "web-1": "b"}
    assert outlook.fits


def test_lost_pods_take_room_before_new_ones() -> None:
    nodes, running = [node("a"), node("b")], [pod("old", app="db", on="a", cpu="3")]
    outlook = what_if(shot(nodes, *running), lose=["a"], pods=[pod(cpu="2")])
    assert [d.node for d in outlook.moved] == ["b"]
    assert [d.message for d in outlook.added] == ["0/2 nodes: 1 lacks CPU (2 asked), 1 lost"]
    assert not outlook.fits


def test_data_on_a_lost_node_is_not_started_afresh_elsewhere() -> None:
    running = [pod("db", on="a", volumes=["data"]), pod("web", on="a")]
    outlook = what_if(shot(NODES, *running), lose=["a"])
    assert {d.name: d.node for d in outlook.moved} == {"db": None, "web": "b"}
    db = next(d for d in outlook.moved if d.node is None)
    assert db.message == "0/3 nodes: 2 without volume data (it is on a), 1 lost"


def test_leaving_and_ended_pods_are_not_moved() -> None:
    running = [pod("x", on="a", leaving=True), pod("y", on="a", phase="Succeeded")]
    assert what_if(shot(NODES, *running), lose=["a"]).moved == ()


def test_an_unknown_node_is_named() -> None:
    with pytest.raises(NotFoundError, match='"z"') as caught:
        what_if(shot(NODES), lose=["a", "z"])
    assert "a, b, c" in caught.value.hint


def test_the_limit_binds_new_pods_only() -> None:
    snap = shot(NODES, pod("old", on="a", app="db"))
    outlook = what_if(snap, lose=["a"], pods=[pod()], allowed_nodes=frozenset({"c"}))
    assert [d.node for d in outlook.moved] == ["b"]
    assert [d.node for d in outlook.added] == ["c"]


def test_the_snapshot_itself_stays_as_it_was() -> None:
    snap = shot(NODES, pod("old", on="a", app="db"))
    before = schedule(snap, [pod()])
    what_if(snap, lose=["a"], pods=pods(3))
    without_nodes(snap, ["b"])
    assert schedule(snap, [pod()]) == before


def test_placements_can_be_built_upon() -> None:
    snap, first = shot(NODES), pods(2, affinity=apart())
    after = with_placements(snap, schedule(snap, first), first)
    third = [pod("web-2", owner="web-rs", affinity=apart()), pod("web-3", owner="web-rs", affinity=apart())]
    assert sorted(str(d.node) for d in schedule(after, third)) == ["None", "c"]
