"""Every score: which of two nodes wins, and what the parts say."""

from typing import Any

import pytest

from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.scheduler.decision import Decision
from korch.scheduler.scores import WEIGHTS, level_score
from korch.scheduler.select import schedule
from tests.unit.scheduler.world import (
    GI,
    MI,
    ZONE,
    counts,
    decide,
    load,
    node,
    pod,
    pods,
    prefer,
    prefer_nodes,
    shot,
    spread,
)

A, B = node("a"), node("b")


def part(decision: Decision, name: str, on: str) -> tuple[float, str]:
    verdict = next(v for v in decision.verdicts if v.node == on)
    return next((p.points, p.detail) for p in verdict.parts if p.name == name)


@pytest.mark.parametrize(
    ("loads", "winner"),
    [
        ({"a": load(0.5), "b": load(0.2)}, "b"),
        ({"a": load(0.2), "b": load(0.2)}, "a"),
        ({"a": load(None, load1=3.0), "b": load(None, load1=0.5)}, "b"),
        ({"a": load(None, cpu_busy=0.9), "b": load(None, cpu_busy=0.1)}, "b"),
        ({"a": load(0.2, free=1 * GI), "b": load(0.2, free=3 * GI)}, "b"),
        ({"a": load(0.2, pressure_memory=0.4), "b": load(0.2)}, "b"),
        ({"a": load(0.2, pressure_io=0.4), "b": load(0.2, pressure_cpu=0.1)}, "b"),
        ({"a": load(0.2), "b": load(0.2, pressure_cpu=1.0)}, "a"),
    ],
    ids=["cpu", "tie by name", "load1 when CPU use is unknown", "unsmoothed", "memory", "psi", "psi io", "psi cpu"],
)
def test_measured_load(loads: dict[str, NodeLoad], winner: str) -> None:
    assert decide([A, B], pod(), loads=loads).node == winner
    assert decide([B, A], pod(), loads=loads).node == winner


def test_level_score_falls_all_the_way() -> None:
    levels = [level_score(n / 10) for n in range(31)]
    assert levels[0] == 100
    assert levels[10] == 10
    assert levels == sorted(levels, reverse=True)
    assert len(set(levels)) == len(levels)
    assert level_score(99) == 0


def test_placements_that_no_sample_shows_are_added() -> None:
    unseen = [pod(f"u{n}", app=f"u{n}", on="a", started_s_ago=2) for n in range(4)]
    seen = [pod(f"s{n}", app=f"s{n}", on="b", started_s_ago=3600) for n in range(4)]
    decision = decide([A, B], pod(), *unseen, *seen)
    assert decision.node == "b"
    assert part(decision, "load", "a")[1] == "CPU 10% busy + 10% by pods just placed, 3.6Gi of 4Gi memory available"


def test_what_is_placed_in_this_call_is_added() -> None:
    wanted = [pod(f"p{n}", app=f"p{n}", cpu="1") for n in range(4)]
    assert counts(schedule(shot([A, B]), wanted)) == {"a": 2, "b": 2}


def test_larger_machines_take_more() -> None:
    nodes = [node("a", cpu="2", memory="4Gi"), node("b", cpu="8", memory="16Gi")]
    loads = {"a": load(0.0, cpus=2), "b": load(0.0, cpus=8, memory=16 * GI)}
    wanted = [pod(f"p{n}", app=f"p{n}", cpu="250m", memory="128Mi") for n in range(10)]
    assert counts(schedule(shot(nodes, loads=loads), wanted)) == {"a": 2, "b": 8}


def test_requests_decide_between_equal_loads() -> None:
    promised = pod("old", app="other", on="a", cpu="2", memory="2Gi")
    decision = decide([A, B], pod(), promised)
    assert decision.node == "b"
    assert part(decision, "requested", "a")[1] == "50% of CPU and 50% of memory promised"


def test_balance_prefers_what_evens_out() -> None:
    running = [pod("m", app="m", on="a", memory="2Gi"), pod("c", app="c", on="b", cpu="2")]
    assert decide([A, B], pod(cpu="1"), *running).node == "a"
    assert decide([A, B], pod(memory="1Gi"), *running).node == "b"


def test_replicas_spread_over_nodes() -> None:
    nodes = [node(name) for name in "abc"]
    loads = {"a": load(0.05), "b": load(0.25), "c": load(0.3)}
    assert counts(schedule(shot(nodes, loads=loads), pods(3))) == {"a": 1, "b": 1, "c": 1}
    decision = decide(nodes, pod(owner="rs"), pod("web-0", on="a", owner="rs"), loads=loads)
    assert decision.node == "b"
    assert part(decision, "spread", "a")[1] == "1 pod of this workload here"


def test_a_burning_node_is_worth_doubling_up() -> None:
    nodes = [node(name) for name in "abc"]
    loads = {"a": load(0.05), "b": load(0.05), "c": load(1.0)}
    assert counts(schedule(shot(nodes, loads=loads), pods(3))) == {"a": 2, "b": 1}


def test_replicas_that_are_leaving_do_not_count() -> None:
    leaving = pod("web-0", on="a", owner="rs", leaving=True)
    assert part(decide([A, B], pod(owner="rs"), leaving), "spread", "a")[1] == "no pods of this workload here"


def test_replicas_spread_over_zones() -> None:
    nodes = [node("a", zone="z1"), node("b", zone="z1"), node("c", zone="z2")]
    decision = decide(nodes, pod(owner="rs"), pod("web-0", on="a", owner="rs"))
    assert decision.node == "c"
    assert part(decision, "zones", "b")[1] == "1 pod of this workload in zone z1"


@pytest.mark.parametrize("held", ["nginx", "nginx:latest", "docker.io/library/nginx", "docker.io/library/nginx:latest"])
def test_image_present(held: str) -> None:
    decision = decide([A, node("b", images=[held])], pod(image="nginx"))
    assert decision.node == "b"
    assert part(decision, "image", "b") == (pytest.approx(7 / 1.1), "present")  # of the parts that apply, 110 in all
    assert part(decision, "image", "a") == (0, "must be pulled")


def test_another_version_of_the_image_is_not_present() -> None:
    assert decide([A, node("b", images=["nginx:1"])], pod(image="nginx:2")).node == "a"


def test_recent_failures() -> None:
    failures = {("a", "default/ReplicaSet/rs"): 2, ("b", "default/ReplicaSet/other"): 9}
    decision = decide([A, B], pod(owner="rs"), failures=failures)
    assert decision.node == "b"
    assert part(decision, "failures", "a")[1] == "2 lately"
    assert part(decision, "failures", "b")[1] == "none lately"


def test_a_node_that_was_lost_lately_is_trusted_less_with_any_pod() -> None:
    failures = {("a", ""): 2, ("a", "default/ReplicaSet/rs"): 1, ("b", ""): 1}
    decision = decide([A, B], pod(owner="rs"), failures=failures)
    assert decision.node == "b"
    assert part(decision, "failures", "a")[1] == "1 lately, lost 2 times in the last hour"
    assert part(decision, "failures", "b")[1] == "lost once in the last hour"
    assert decide([A, B], pod(), failures=failures).node == "b", "a pod of nobody too"


@pytest.mark.parametrize(
    ("nodes", "affinity", "winner"),
    [
        ([A, node("b", labels={"disk": "ssd"})], prefer_nodes("disk", "ssd"), "b"),
        ([A, B], prefer("db", close=True), "b"),
        ([A, B], prefer("cache", close=False), "b"),
        ([node("a", taints=["slow:PreferNoSchedule"]), B], None, "b"),
    ],
    ids=["node", "near", "apart", "taint"],
)
def test_wishes(nodes: list[Node], affinity: Any, winner: str) -> None:
    running = [pod("db", app="db", on="b"), pod("cache", app="cache", on="a")]
    decision = decide(nodes, pod(affinity=affinity), *running)
    assert decision.node == winner
    assert part(decision, "wishes", winner)[0] > part(decision, "wishes", "a" if winner == "b" else "b")[0]


def test_a_soft_spread_is_a_wish() -> None:
    nodes = [node("a", zone="z1"), node("b", zone="z2")]
    wanted = pod(topology_spread_constraints=spread(1, ZONE, hard=False))
    assert decide(nodes, wanted, pod("old", on="a"), loads={"a": load(0.05), "b": load(0.2)}).node == "b"
    assert decide([nodes[0]], wanted, *[pod(f"o{n}", on="a") for n in range(5)]).node == "a"


def test_a_wish_to_be_near_draws_the_next_ones_in() -> None:
    nodes = [node("a", zone="z1"), node("b", zone="z2"), node("c", zone="z1"), node("d", zone="z2")]
    decisions = schedule(shot(nodes), pods(2, affinity=prefer("web", ZONE, close=True)))
    zones = [d.node in "ac" for d in decisions if d.node]
    assert len(zones) == 2
    assert len(set(zones)) == 1


def test_points_add_up_to_the_score_and_stay_in_range() -> None:
    nodes = [node("a", zone="z1", images=["registry.lab/web:1"]), node("b", zone="z2", taints=["x:PreferNoSchedule"])]
    running = [pod("old", on="a", owner="rs", cpu="4", memory="4Gi")]
    failures = {("a", "default/ReplicaSet/rs"): 1}
    decision = decide(nodes, pod(owner="rs"), *running, failures=failures, loads={"b": load(1.0, free=100 * MI)})
    assert [p.name for p in decision.verdicts[0].parts] == list(WEIGHTS)
    for verdict in decision.verdicts:
        assert sum(p.points for p in verdict.parts) == pytest.approx(verdict.score)
        assert 0 <= verdict.score <= 100
        assert all(0 <= p.points <= 100 for p in verdict.parts)


def test_a_perfect_node_scores_nearly_100() -> None:
    idle = {"a": load(0.0, free=4 * GI)}
    wanted: Pod = pod(cpu="1m", memory="1Mi")
    assert decide([node("a", images=["registry.lab/web:1"])], wanted, loads=idle).score == pytest.approx(100, abs=0.5)
