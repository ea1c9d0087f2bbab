"""Which running pods would be better off elsewhere: best first, budgeted, and settled once carried out."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.times import rfc3339
from korch.scheduler.rebalance import MIN_GAIN, Shift, Usage, plan_shifts
from korch.scheduler.shape import DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES
from tests.unit.scheduler.world import GI, NOW, apart, load, node, pod, pods, shot


def uids(running: Sequence[Pod]) -> frozenset[str]:
    return frozenset(found.metadata.uid for found in running)


def moved(running: Sequence[Pod], plan: Sequence[Shift], *, started_s_ago: float) -> list[Pod]:
    """The pods once the plan is carried out."""
    targets = {shift.uid: shift.target for shift in plan}
    result = []
    for found in running:
        target = targets.get(found.metadata.uid)
        if target is None:
            result.append(found)
            continue
        status = replace(found.status, start_time=rfc3339(NOW - started_s_ago))
        result.append(replace(found, spec=replace(found.spec, node_name=target), status=status))
    return result


def measured(loads: dict[str, NodeLoad], plan: Sequence[Shift]) -> dict[str, NodeLoad]:
    """The samples once the load has followed the pods."""
    result = dict(loads)
    for shift in plan:
        for name, sign in ((shift.source, -1), (shift.target, 1)):
            old = result[name]
            result[name] = replace(
                old,
                cpu_busy_smoothed=(old.cpu_busy_smoothed or 0) + sign * DEFAULT_CPU_MILLIS / (1000 * old.cpu_count),
                memory_available_bytes=old.memory_available_bytes - sign * DEFAULT_MEMORY_BYTES,
            )
    return result


def test_a_pod_leaves_the_busy_node_with_the_reason() -> None:
    nodes = [node("n1"), node("n2")]
    running = [pod("a", on="n1", owner="a"), pod("b", on="n1", owner="b", app="b")]
    loads = {"n1": load(0.95), "n2": load(0.05)}
    plan = plan_shifts(shot(nodes, *running, loads=loads), uids(running), max_moves=1)
    (shift,) = plan
    assert (shift.name, shift.source, shift.target) == ("a", "n1", "n2")
    assert shift.gain >= MIN_GAIN
    assert "load: CPU 92% busy" in shift.why, "without the pod itself"
    assert "CPU 5% busy, 3.6Gi of 4Gi memory available on n2" in shift.why


def test_an_empty_node_gets_its_share_again() -> None:
    nodes = [node(name, images=["registry.lab/web:1"]) for name in ("n1", "n2", "n3")]
    running = [*pods(3, on="n2"), *pods(3, "more", owner="web-rs", on="n3")]
    plan = plan_shifts(shot(nodes, *running), uids(running), max_moves=10)
    counts = {
        name: [p.spec.node_name for p in moved(running, plan, started_s_ago=0)].count(name)
        for name in ("n1", "n2", "n3")
    }
    assert max(counts.values()) - min(counts.values()) <= 2, "the last one is not worth a move"
    assert counts["n1"] >= 1


def test_nothing_moves_for_a_little() -> None:
    nodes = [node("n1"), node("n2")]
    running = [pod("a", on="n1", owner="a"), pod("b", on="n2", owner="b", app="b")]
    assert plan_shifts(shot(nodes, *running, loads={"n1": load(0.30), "n2": load(0.22)}), uids(running)) == ()


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ({"cordoned": True}, {}),
        ({"state": "Unreachable"}, {}),
        ({"taints": ["gpu=yes:NoSchedule"]}, {}),
        ({}, {"affinity": apart("other")}),
    ],
    ids=["cordoned", "unreachable", "tainted", "kept apart"],
)
def test_nobody_goes_where_the_scheduler_would_not_put_him(target: dict[str, object], more: dict[str, object]) -> None:
    nodes = [node("n1"), node("n2", **target)]  # type: ignore[arg-type]
    mine = pod("a", on="n1", owner="a", **more)  # type: ignore[arg-type]
    other = pod("o", on="n2", owner="o", app="other")
    loads = {"n1": load(0.95), "n2": load(0.05)}
    assert plan_shifts(shot(nodes, mine, other, loads=loads), uids([mine])) == ()


def test_only_movable_pods_and_nodes_that_have_settled() -> None:
    nodes = [node("n1"), node("n2")]
    running = [pod("a", on="n1", owner="a"), pod("b", on="n1", owner="b", app="b")]
    snap = shot(nodes, *running, loads={"n1": load(0.95), "n2": load(0.05)})
    assert {shift.name for shift in plan_shifts(snap, uids(running[1:]))} == {"b"}
    assert plan_shifts(snap, uids(running), settling={"n1"}) == ()
    assert plan_shifts(snap, ()) == ()
    assert plan_shifts(snap, uids(running), max_moves=0) == ()


def test_what_a_pod_really_uses_decides() -> None:
    nodes = [node("n1"), node("n2")]
    hog, idle = pod("hog", on="n1", owner="h", app="h"), pod("idle", on="n1", owner="i", app="i")
    snap = shot(nodes, hog, idle, loads={"n1": load(0.90), "n2": load(0.05)})
    usage = {"uid-hog": Usage(3400, GI), "uid-idle": Usage(0, 0)}
    plan = plan_shifts(snap, uids([hog, idle]), usage=usage)
    assert {shift.name for shift in plan} == {"idle"}, "moving the hog would only move the trouble"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Node], list[Pod], dict[str, NodeLoad]]:
    count = draw(st.integers(2, 4))
    nodes = [node(f"n{i}", zone=draw(st.sampled_from(["", "z1", "z2"]))) for i in range(count)]
    running = [
        pod(f"{app}-{i}", app=app, owner=app, on=f"n{draw(st.integers(0, count - 1))}")
        for app in ("a", "b")
        for i in range(draw(st.integers(0, 4)))
    ]
    loads = {found.metadata.name: load(draw(st.integers(25, 95)) / 100, free=3 * GI) for found in nodes}
    return nodes, running, loads


@settings(max_examples=50, deadline=None)
@given(worlds(), st.integers(0, 4))
def test_a_budget_is_kept_and_every_move_gains(
    world: tuple[list[Node], list[Pod], dict[str, NodeLoad]], most: int
) -> None:
    nodes, running, loads = world
    plan = plan_shifts(shot(nodes, *running, loads=loads), uids(running), max_moves=most)
    assert len(plan) <= most
    assert len({shift.uid for shift in plan}) == len(plan)
    homes = {found.metadata.uid: found.spec.node_name for found in running}
    assert all(homes[shift.uid] == shift.source != shift.target for shift in plan)


@settings(max_examples=50, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_a_plan_that_was_carried_out_is_followed_by_an_empty_one(
    world: tuple[list[Node], list[Pod], dict[str, NodeLoad]], dice: random.Random
) -> None:
    nodes, running, loads = world
    plan = plan_shifts(shot(nodes, *running, loads=loads), uids(running), max_moves=1000)
    after = moved(running, plan, started_s_ago=3600)
    settled = shot(nodes, *after, loads=measured(loads, plan))
    assert plan_shifts(settled, uids(after), max_moves=1000, min_gain=MIN_GAIN + 1e-6) == ()
    fresh = moved(running, plan, started_s_ago=0)
    stale = shot(nodes, *fresh, loads=loads)
    still = uids(fresh) - {shift.uid for shift in plan}
    settling = {shift.source for shift in plan}
    assert plan_shifts(stale, still, max_moves=1000, settling=settling, min_gain=MIN_GAIN + 1e-6) == ()
    dice.shuffle(running)
    assert plan_shifts(shot(nodes, *running, loads=loads), uids(running), max_moves=1000) == plan
