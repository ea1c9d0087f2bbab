"""Choosing: groups, heaps with zones and skew, order, ties, large calls."""

import msgspec
import pytest

from benchmarks.checker import problems
from korch.resources.pod import Pod
from korch.scheduler.select import schedule
from tests.unit.scheduler.world import (
    HOST,
    NOW,
    ZONE,
    apart,
    counts,
    load,
    near,
    node,
    on_nodes,
    pod,
    pods,
    prefer,
    shot,
    spread,
    where,
)


def test_one_replica_per_node_by_anti_affinity() -> None:
    nodes = [node(f"n{n}") for n in range(3)]
    decisions = schedule(shot(nodes), pods(5, affinity=apart()))
    assert counts(decisions) == {"n0": 1, "n1": 1, "n2": 1, None: 2}
    assert decisions[-1].message == "0/3 nodes: 3 already have a pod app=web it must keep away from"


def test_anti_affinity_leaves_the_best_node_for_the_others() -> None:
    nodes = [node(f"n{n}", cpu="64") for n in range(4)]
    loads = {"n0": load(0.0, cpus=64)} | {f"n{n}": load(0.99, cpus=64) for n in (1, 2, 3)}
    decisions = schedule(shot(nodes, loads=loads), pods(4, affinity=apart()))
    assert [d.node for d in decisions] == ["n0", "n1", "n2", "n3"]


def test_a_wish_to_be_near_spans_cells() -> None:
    """Zones draw pods in, racks keep them apart: after the first pod other racks of its zone are worth more."""
    nodes = [node(f"n{n}", zone=f"z{n // 4}", labels={"rack": f"r{n // 2}"}) for n in range(8)]
    both = msgspec.structs.replace(
        prefer("web", ZONE, close=True), pod_anti_affinity=apart("web", "rack").pod_anti_affinity
    )
    loads = {f"n{n}": load(0.5 if n in (2, 3) else 0.1) for n in range(8)}
    decisions = schedule(shot(nodes, loads=loads), pods(2, affinity=both))
    assert [d.node for d in decisions] == ["n0", "n2"]


def test_one_replica_per_zone() -> None:
    nodes = [node(f"n{n}", zone=f"z{n % 3}") for n in range(9)]
    decisions = schedule(shot(nodes), pods(4, affinity=apart("web", ZONE)))
    zones = [f"z{int(d.node[1:]) % 3}" for d in decisions if d.node]
    assert sorted(zones) == ["z0", "z1", "z2"]


def test_skew_one_over_nodes_fills_them_evenly_even_when_one_is_much_better() -> None:
    nodes = [node(f"n{n}") for n in range(4)]
    loads = {"n0": load(0.0), "n1": load(0.9), "n2": load(0.95), "n3": load(0.99)}
    decisions = schedule(shot(nodes, loads=loads), pods(10, topology_spread_constraints=spread(1, HOST)))
    assert sorted(counts(decisions).values()) == [2, 2, 3, 3]


def test_skew_one_over_zones_too() -> None:
    nodes = [node(f"n{n}", cpu="64", zone=f"z{n % 2}") for n in range(4)]
    loads = {f"n{n}": load(0.99 if n % 2 else 0.0, cpus=64) for n in range(4)}
    decisions = schedule(shot(nodes, loads=loads), pods(6, topology_spread_constraints=spread(1, ZONE)))
    assert [f"z{int(str(d.node)[1:]) % 2}" for d in decisions] == ["z0", "z1"] * 3


def test_zone_and_rack_together() -> None:
    """Racks of two nodes in two zones; one pod a rack. Each placement makes the other racks of its zone worth less."""
    nodes = [node(f"n{n}", zone=f"z{n // 4}", labels={"rack": f"r{n // 2}"}) for n in range(8)]
    loads = {f"n{n}": load(0.1 if n < 4 else 0.12) for n in range(8)}
    decisions = schedule(shot(nodes, loads=loads), pods(4, affinity=apart("web", "rack")))
    assert [d.node for d in decisions] == ["n0", "n4", "n2", "n6"]


def test_skew_over_nodes_and_zones_at_once() -> None:
    nodes = [node(f"n{n}", zone="a" if n < 4 else "b") for n in range(6)]
    constraints = (*spread(1, ZONE), *spread(1, HOST))
    wanted = pods(12, topology_spread_constraints=constraints)
    decisions = schedule(shot(nodes), wanted)
    by_uid = {p.metadata.uid: p for p in wanted}
    replay = [(by_uid[d.uid], d.node) for d in decisions]
    loads = {n.metadata.name: load() for n in nodes}
    assert problems(nodes, loads, [], replay, NOW, look_at_pending=12) == []
    assert counts(decisions)[None] == 7  # the sixth breaks one constraint or the other, wherever it goes


def test_a_skew_set_by_running_pods_is_evened_out_first() -> None:
    nodes = [node("a", zone="a"), node("b", zone="b")]
    running = [pod(f"old-{n}", on="a") for n in range(3)]
    decisions = schedule(shot(nodes, *running), pods(5, topology_spread_constraints=spread(1, ZONE)))
    assert [d.node for d in decisions][:3] == ["b", "b", "b"]
    assert counts(decisions) == {"a": 1, "b": 4}


def test_picky_and_large_pods_go_first() -> None:
    nodes = [node("a"), node("b", labels={"disk": "ssd"})]
    wanted = [
        pod("small-1", app="small", cpu="500m"),
        pod("small-2", app="small", cpu="500m"),
        pod("large", app="large", cpu="3500m"),
        pod("picky", app="picky", cpu="4", node_selector={"disk": "ssd"}),
    ]
    decisions = schedule(shot(nodes), wanted)
    assert [d.name for d in decisions] == ["picky", "large", "small-1", "small-2"]
    assert where(decisions) == {"picky": "b", "large": "a", "small-1": "a", "small-2": None}


def test_followers_come_after_those_they_follow() -> None:
    wanted = [pod("a-follower", app="cache", cpu="2", affinity=near("web")), pod("z-leader", cpu="100m")]
    decisions = schedule(shot([node("a"), node("b")]), wanted)
    assert [d.name for d in decisions] == ["z-leader", "a-follower"]
    assert decisions[0].node == decisions[1].node


def test_older_pods_of_a_shape_go_first() -> None:
    one = [pod("b", owner="rs", cpu="3", created="2026-01-01T00:00:00Z")]
    two = [pod("a", owner="rs", cpu="3", created="2026-01-02T00:00:00Z")]
    assert where(schedule(shot([node("n")]), [*two, *one])) == {"b": "n", "a": None}


def test_ties_go_by_name() -> None:
    assert schedule(shot([node("c"), node("b"), node("a")]), [pod()])[0].node == "a"


def test_same_app_of_two_controllers_counts_for_anti_affinity_but_not_for_spreading() -> None:
    nodes = [node("a"), node("b")]
    old = pod("old", on="a", owner="rs-1")
    assert schedule(shot(nodes, old, loads={"b": load(0.3)}), [pod("new", owner="rs-2")])[0].node == "a"
    assert schedule(shot(nodes, old), [pod("new", owner="rs-2", affinity=apart())])[0].node == "b"


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (pod("broken", cpu="lots"), '"lots" is not a quantity'),
        (pod("broken", affinity=on_nodes("a", "Like", "b")), "Like"),
        (pod("broken", affinity=on_nodes("a", "Gt", "b")), "whole number"),
    ],
)
def test_a_malformed_pod_is_told_so_and_stops_nobody(broken: Pod, word: str) -> None:
    decisions = schedule(shot([node("a")]), [broken, pod("web")])
    assert where(decisions) == {"broken": None, "web": "a"}
    assert decisions[0].message.startswith("cannot be placed: ")
    assert word in decisions[0].message


def test_malformed_objects_in_the_cluster_stop_nobody() -> None:
    snap = shot([node("a", cpu="many"), node("b")], pod("old", on="b", cpu="lots"))
    decision = schedule(snap, [pod()])[0]
    assert decision.node == "b"
    assert "many" in str(decision.verdicts)
    assert snap.usage[1].pods == 1


def test_nothing_to_place() -> None:
    assert schedule(shot([node("a")]), []) == []


def test_a_thousand_pods_fill_a_cluster_exactly() -> None:
    nodes = [node(f"n{n:02d}", cpu="4", memory="64Gi", zone=f"z{n % 4}") for n in range(25)]
    loads = {n.metadata.name: load(0.0, memory=64 * 2**30) for n in nodes}
    decisions = schedule(shot(nodes, loads=loads), pods(1001, cpu="100m"))
    assert set(counts(decisions).values()) == {40, 1}
    assert counts(decisions)[None] == 1
    assert decisions[-1].message == "0/25 nodes: 25 lack CPU (100m asked)"
