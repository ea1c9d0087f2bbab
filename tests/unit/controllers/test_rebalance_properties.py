"""Levelling the load: in any order of input, few at a time, and at rest as soon as a plan is carried out."""

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.disruption import World, marked, plan_evictions
from korch.controllers.rebalance import REBALANCE, REST_S, may_move, plan_rebalance, settling_nodes
from korch.controllers.replicaset import plan_replicas, pod_from
from korch.resources.codec import with_meta
from korch.resources.leaving import is_leaving
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import owner_reference
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment, ReplicaSet
from korch.scheduler.rebalance import MIN_GAIN, Shift
from tests.unit.controllers.cluster import Toy, deployment
from tests.unit.planners import DICE, mixed, mixed_keys, ready, steady
from tests.unit.scheduler.test_scheduler_rebalance import measured
from tests.unit.scheduler.world import GI, NOW, load, node

A_BIT_MORE = MIN_GAIN + 1e-6  # sums of floats differ in their last digits


class Region:
    """Two apps on a few nodes of different load."""

    def __init__(self, nodes: list[Node], loads: dict[str, NodeLoad]) -> None:
        self.nodes, self.loads, self.now = nodes, loads, NOW
        self.pods: dict[str, Pod] = {}
        self.sets: list[ReplicaSet] = []
        self.deployments: list[Deployment] = []

    def add(self, name: str, homes: list[str]) -> None:
        """An app that has run for long, with one replica on each of these nodes."""
        wish = deployment(f"{name}:1", len(homes))
        wish = with_meta(wish, name=name, uid=name)
        toy = Toy(wish, now=NOW - 2000)
        toy.settle()
        toy.step()
        (found,) = (with_meta(one, uid=f"set-{name}") for one in toy.sets.values())
        self.sets.append(found)
        self.deployments.append(toy.deployment)
        for (pod_name, pod), home in zip(sorted(toy.pods.items()), homes, strict=True):
            old = with_meta(pod, uid=f"u-{pod_name}", creation_timestamp=rfc3339(NOW - 2000))
            old = with_meta(old, owner_references=(owner_reference(found),))
            self.pods[pod_name] = self._runs(old, home, NOW - 2000)

    def _runs(self, pod: Pod, home: str, since: float) -> Pod:
        pod = replace(pod, spec=replace(pod.spec, node_name=home))
        pod = ready(pod, since)
        return replace(pod, status=replace(pod.status, start_time=rfc3339(since)))

    def world(self) -> World:
        return World(tuple(self.pods.values()), tuple(self.sets), tuple(self.deployments))

    def plan(self, most: int = 1000, gain: float = A_BIT_MORE) -> tuple[Shift, ...]:
        return plan_rebalance(self.world(), self.nodes, self.loads, self.now, max_moves=most, min_gain=gain)

    def mark(self, plan: tuple[Shift, ...]) -> None:
        for shift in plan:
            pod = marked(self.pods[shift.name], REBALANCE)
            assert pod is not None, "it is on its way already"
            self.pods[shift.name] = pod

    def hand_over(self, targets: dict[str, str], most: int) -> None:
        """Successors start, one pair at a time, where the plan wanted them; then the old ones go."""
        while any(is_leaving(pod) for pod in self.pods.values()):
            for found in self.sets:
                mine = [pod for pod in self.pods.values() if pod.metadata.owner_references[0].uid == found.metadata.uid]
                plan = plan_replicas(found, mine, self.now)
                assert not plan.create
                assert not plan.delete
                if plan.succeed is not None:
                    old, name = plan.succeed
                    new = with_meta(pod_from(found, name, instead_of=old), uid=f"new-{name}-{self.now}")
                    new = with_meta(new, creation_timestamp=rfc3339(self.now))
                    self.pods[name] = self._runs(new, targets[old.metadata.uid], self.now)
                under_way = [pod.metadata.uid for pod in self.pods.values() if is_leaving(pod)]
                more = self.plan(most)
                assert len(under_way) + len(more) <= most
                assert not {shift.source for shift in more} & settling_nodes(tuple(self.pods.values()), self.now)
            for verdict in plan_evictions(self.world(), self.now):
                if verdict.go:
                    del self.pods[verdict.pod.metadata.name]


@st.composite
def regions(draw: st.DrawFn) -> Region:
    names = [f"n{number}" for number in range(draw(st.integers(2, 4)))]
    loads = {name: load(draw(st.integers(25, 95)) / 100, free=3 * GI) for name in names}
    region = Region([node(name) for name in names], loads)
    for app in ("a", "b"):
        region.add(app, draw(st.lists(st.sampled_from(names), max_size=4)))
    return region


@steady(80)
@given(regions(), st.integers(0, 4), st.integers(0, 2), DICE)
def test_only_those_that_nobody_misses_move_few_at_a_time_in_any_order(
    region: Region, most: int, leaving: int, dice: random.Random
) -> None:
    for name in mixed(sorted(region.pods), dice)[:leaving]:
        region.pods[name] = marked(region.pods[name], "drain") or region.pods[name]
    if region.deployments and dice.random() < 0.3:
        rolling = region.deployments[0]
        region.deployments[0] = with_meta(rolling, generation=rolling.metadata.generation + 1)
    plan, world = region.plan(most), region.world()
    busy = sum(map(is_leaving, world.pods))
    assert len(plan) <= max(0, most - busy)
    closed = settling_nodes(world.pods, NOW)
    for shift in plan:
        assert may_move(region.pods[shift.name], world, NOW)
        assert shift.source == region.pods[shift.name].spec.node_name
        assert shift.source not in closed
        assert shift.gain >= MIN_GAIN or len(plan) > 1
    other = World(*(tuple(mixed(found, dice)) for found in (world.pods, world.sets, world.deployments)))
    nodes, loads = mixed(region.nodes, dice), mixed_keys(region.loads, dice)
    assert plan_rebalance(other, nodes, loads, NOW, max_moves=most, min_gain=A_BIT_MORE) == plan


@steady(80)
@given(regions(), st.integers(1, 4))
def test_a_plan_that_is_carried_out_is_followed_by_none(region: Region, most: int) -> None:
    plan = region.plan(most)
    region.mark(plan)
    assert len(region.plan(most)) <= most - len(plan)
    region.hand_over({shift.uid: shift.target for shift in plan}, most)
    if len(plan) < most:
        assert region.plan() == (), "what is not measured yet counts as it was planned"
    region.loads = measured(region.loads, plan)
    region.now += REST_S + 1
    later = {name: replace(found, sampled_at=rfc3339(region.now - 1)) for name, found in region.loads.items()}
    region.loads = later
    if len(plan) < most:
        assert region.plan() == ()
