"""Properties on random clusters: sound, complete, deterministic, monotone, and equal to the slow reference."""

import random
from itertools import groupby

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.checker import Book, problems
from korch.resources.node import Node
from korch.scheduler.board import Board
from korch.scheduler.decision import Decision
from korch.scheduler.demand import Demand
from korch.scheduler.select import schedule
from tests.unit.scheduler.reference import Placed, Reference, same_workload, start_of
from tests.unit.scheduler.world import GI, NOW, World, load, node, random_world

SEEDS = st.integers(0, 10**9)
FEW = st.integers(0, 8)
WORLDS = st.builds(random_world, SEEDS, FEW, st.integers(0, 12), st.integers(1, 14))


def placements(world: World, **options: int) -> list[Decision]:
    return schedule(world.snapshot(), world.wanted, **options)


@settings(max_examples=250, deadline=None)
@given(WORLDS)
def test_the_checker_has_no_objection_and_pending_pods_fit_nowhere(world: World) -> None:
    decisions = placements(world)
    by_uid = {p.metadata.uid: p for p in world.wanted}
    assert sorted(d.uid for d in decisions) == sorted(by_uid)
    replay = [(by_uid[d.uid], d.node) for d in decisions]
    assert problems(world.nodes, world.loads, world.running, replay, NOW, look_at_pending=99) == []


@settings(max_examples=60, deadline=None)
@given(WORLDS, SEEDS)
def test_input_order_does_not_matter(world: World, seed: int) -> None:
    rng = random.Random(seed)
    shuffled = World(
        rng.sample(world.nodes, len(world.nodes)),
        dict(rng.sample(sorted(world.loads.items()), len(world.loads))),
        rng.sample(world.running, len(world.running)),
        rng.sample(world.wanted, len(world.wanted)),
    )
    assert placements(shuffled) == placements(world)


@settings(max_examples=60, deadline=None)
@given(WORLDS)
def test_a_snapshot_is_not_used_up(world: World) -> None:
    snap = world.snapshot()
    assert schedule(snap, world.wanted) == schedule(snap, world.wanted)


@settings(max_examples=60, deadline=None)
@given(WORLDS)
def test_what_is_recorded_does_not_change_what_is_decided(world: World) -> None:
    full = [(d.uid, d.node, d.score) for d in placements(world, record=99)]
    assert full == [(d.uid, d.node, d.score) for d in placements(world, record=0)]
    assert full == [(d.uid, d.node, d.score) for d in placements(world, record=1)]


@settings(max_examples=150, deadline=None)
@given(st.builds(random_world, SEEDS, FEW, st.integers(0, 12), st.just(1)), SEEDS)
def test_more_room_never_makes_a_pod_unplaceable(world: World, seed: int) -> None:
    if placements(world)[0].node is None:
        return
    rng = random.Random(seed)
    grown = world.with_nodes([node("spare", cpu="64", memory="256Gi")], {"spare": load(cpus=64, memory=256 * GI)})
    spec = world.wanted[0].spec
    # An empty node is a new emptiest domain: a pod that must spread evenly and may not go there then fits nowhere.
    if not (spec.topology_spread_constraints and (spec.affinity or spec.volumes)):
        assert placements(grown)[0].node is not None
    larger = [_larger(n) if rng.random() < 0.5 else n for n in world.nodes]
    assert placements(World(larger, world.loads, world.running, world.wanted))[0].node is not None
    emptier = [p for p in world.running if p.spec.volumes or rng.random() < 0.5]
    if not (spec.affinity or spec.topology_spread_constraints):
        assert placements(World(world.nodes, world.loads, emptier, world.wanted))[0].node is not None


def _larger(one: Node) -> Node:
    sizes = {"cpu": "64", "memory": "256Gi", "pods": "500"}
    return msgspec.structs.replace(one, status=msgspec.structs.replace(one.status, capacity=sizes, allocatable=sizes))


@settings(max_examples=150, deadline=None)
@given(WORLDS)
def test_the_fast_filter_pass_agrees_with_the_filter_that_gives_reasons(world: World) -> None:
    snap = world.snapshot()
    board = Board(snap)
    for wanted in world.wanted:
        demand = Demand(board, snap.shapes.of(wanted))
        slow = [i for i in range(board.size) if demand.refusal(i) is None]
        assert [i for i in demand.candidates() if demand.spreads_well(i)] == slow


@settings(max_examples=200, deadline=None)
@given(st.builds(random_world, SEEDS, FEW, st.integers(0, 12), st.integers(1, 12), simple=st.just(True)))
def test_every_choice_is_the_best_by_the_slow_reference(world: World) -> None:
    decisions = placements(world, record=99)
    by_uid = {p.metadata.uid: p for p in world.wanted}
    book = Book(world.nodes, world.loads, world.running, NOW)
    placed = [Placed(p, p.spec.node_name, book._is_measured(p)) for p in world.running if p.status.phase != "Succeeded"]
    shapes = world.snapshot().shapes
    for _, members in groupby(decisions, key=lambda d: id(shapes.of(by_uid[d.uid]))):
        group = [(d, by_uid[d.uid]) for d in members]
        start = start_of(book, placed, [p for _, p in group])
        for decision, wanted in group:
            reference = Reference(book, placed, wanted, start)
            fitting = {n: reference.score(n) for n in book.nodes if not book.objections(wanted, n)}
            assert (decision.node is None) == (not fitting)
            if decision.node is None:
                continue
            told = {v.node: v.score for v in decision.verdicts if v.refusal is None}
            assert told == pytest.approx(fitting)
            assert fitting[decision.node] >= max(fitting.values()) - 1e-9
            for verdict in decision.verdicts:
                assert sum(p.points for p in verdict.parts) == pytest.approx(verdict.score)
            book.add(wanted, decision.node)
            placed.append(Placed(wanted, decision.node, seen=False))


def test_the_random_worlds_are_worth_it() -> None:
    """Placements, refusals of every kind and workloads of several pods do occur in them."""
    seen: set[str] = set()
    nodes: set[str | None] = set()
    for seed in range(300):
        world = random_world(seed, 6, 10, 12)
        for decision in placements(world, record=99):
            nodes.add(decision.node)
            seen |= {r.category for r in decision.refused}
    assert None in nodes
    assert len(nodes) == 7
    categories = {"Unreachable", "AddressUnknown", "Cordoned", "Taint", "NodeSelector", "NodeAffinity", "Architecture"}
    categories |= {"Stale", "DiskPressure", "Pods", "CPU", "Memory", "MemoryNow", "Port", "Volume", "AntiAffinity"}
    assert seen >= categories | {"Affinity", "Spread", "TopologyLabel"}
    assert any(
        same_workload(a, b)
        for a, b in zip(random_world(1, 6, 10, 12).wanted, random_world(1, 6, 10, 12).wanted[1:], strict=False)
    )
