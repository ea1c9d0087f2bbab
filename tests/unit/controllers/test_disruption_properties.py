"""Drains, evictions and moves: they end, the order of input is irrelevant, and no budget is undercut, pass by pass."""

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.disruption import World, budgets_now, marked, plan_evictions
from korch.controllers.drain import DRAIN, DrainPlan, plan_drain
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.meta import ObjectMeta, OwnerReference
from korch.resources.pod import Container, HostPathVolumeSource, Pod, PodSpec, Volume
from korch.resources.podstate import is_counted, is_ready
from korch.resources.workload import DeploymentStrategy
from tests.unit.controllers.cluster import deployment
from tests.unit.controllers.test_disruption import Site, budget, specs
from tests.unit.planners import DICE, NOW, STATES, going, mixed, ready, steady

NODES = ("n1", "n2", "n3")
OWNERS = {
    "job": (OwnerReference(api_version="batch/v1", kind="Job", name="j", uid="j", controller=True),),
    "daemons": (OwnerReference(api_version="apps/v1", kind="DaemonSet", name="d", uid="d", controller=True),),
    "nobody": (),
}


def alone(name: str, owner: str, node: str) -> Pod:
    """A pod that no ReplicaSet has made, which the budgets count too."""
    meta = ObjectMeta(
        name=name, namespace="default", uid=f"u-{name}", labels={"app": "web"}, owner_references=OWNERS[owner]
    )
    return ready(Pod(metadata=meta, spec=PodSpec(containers=(Container(name="web"),), node_name=node)), NOW - 1000)


class Town(Site):
    """A site on several nodes, where pods take their time to end and may belong to nobody."""

    def world(self) -> World:
        return World(tuple(self.pods.values()), tuple(self.sets.values()), (self.deployment,), self.budgets)

    def by_set(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {name: [] for name in self.sets}
        for pod in self.pods.values():
            for ref in pod.metadata.owner_references:
                if ref.kind == "ReplicaSet":
                    found[ref.name].append(pod)
        return found

    def evictions(self) -> bool:
        gone = [verdict.pod.metadata.name for verdict in plan_evictions(self.world(), self.now) if verdict.go]
        for name in gone:
            self.pods[name] = going(self.pods[name])
        return bool(gone)

    def drain(self, plan: DrainPlan) -> bool:
        """Mark the pods as the command does; whether anything was written."""
        new = {move.pod.metadata.name: marked(move.pod, DRAIN, stop_first=move.stop_first) for move in plan.moves}
        self.pods |= {name: pod for name, pod in new.items() if pod is not None}
        return any(pod is not None for pod in new.values())

    def serving(self, found: PodDisruptionBudget) -> int:
        """Ready pods of a budget."""
        (one,) = budgets_now(replace(self.world(), budgets=(found,)))
        return one.healthy


@st.composite
def towns(draw: st.DrawFn) -> Town:
    """An app of a few replicas on three nodes, pods of others beside it, budgets on all of them."""
    town = Town(deployment(replicas=draw(st.integers(0, 5))), now=NOW - 1000)
    town.settle()
    town.now = NOW
    if draw(st.integers(0, 5)) == 0:
        strategy = DeploymentStrategy(type="Recreate")
        town.deployment = replace(town.deployment, spec=replace(town.deployment.spec, strategy=strategy))
    for name in sorted(town.pods):
        pod = town.pods[name]
        pod = replace(pod, spec=replace(pod.spec, node_name=draw(st.sampled_from(NODES))))
        if draw(st.integers(0, 7)) == 0:
            path = Volume(name="p", host_path=HostPathVolumeSource(path="/srv"))
            pod = replace(pod, spec=replace(pod.spec, volumes=(path,)))
        if draw(st.integers(0, 3)) == 0:
            pod = STATES[draw(st.sampled_from([*sorted(STATES), "going", "going"]))](pod)
        town.pods[name] = pod
    for number in range(draw(st.integers(0, 3))):
        name = f"x{number}"
        town.pods[name] = alone(name, draw(st.sampled_from(sorted(OWNERS))), draw(st.sampled_from(NODES)))
    town.budgets = tuple(budget(f"b{n}", **spec) for n, spec in enumerate(draw(st.lists(specs, max_size=2))))
    return town


@steady(80)
@given(towns(), st.sets(st.sampled_from(NODES)), st.booleans(), DICE)
def test_a_drain_has_a_word_for_each_pod_and_its_marks_are_written_once(
    town: Town, nodes: set[str], force: bool, dice: random.Random
) -> None:
    world = town.world()
    plan = plan_drain(world, nodes, force=force)
    other = World(*(tuple(mixed(found, dice)) for found in (world.pods, world.sets, world.deployments, world.budgets)))
    assert plan_drain(other, mixed(nodes, dice), force=force) == plan
    told = [*(move.pod for move in plan.moves), *plan.going, *plan.stay, *(pod for pod, _ in plan.refused)]
    there = [pod for pod in world.pods if pod.spec.node_name in nodes]
    twice = town.deployment.spec.strategy.type != "Recreate"
    assert all(twice or move.stop_first for move in plan.moves), "it would run twice"
    assert len(told) == len({pod.metadata.name for pod in told})
    assert {pod.metadata.name for pod in told} == {
        pod.metadata.name for pod in there if is_counted(pod) or pod.metadata.deletion_timestamp
    }
    assert not (force and plan.refused)
    assert not any(ref.kind == "DaemonSet" for move in plan.moves for ref in move.pod.metadata.owner_references)
    town.drain(plan)
    again = plan_drain(town.world(), nodes, force=force)
    assert not town.drain(again), "marked once is marked"
    assert [move.pod.metadata.name for move in again.moves] == [move.pod.metadata.name for move in plan.moves]


@steady(80)
@given(towns(), st.sets(st.sampled_from(NODES), min_size=1), DICE)
def test_a_drain_ends_within_its_budgets_whatever_comes_first(town: Town, nodes: set[str], dice: random.Random) -> None:
    for turn in range(90):
        town.drain(plan_drain(town.world(), nodes, force=True))
        floors = {one.metadata.name: budgets_now(replace(town.world(), budgets=(one,)))[0] for one in town.budgets}
        plan = plan_evictions(town.world(), town.now)
        world = town.world()
        shuffled = World(tuple(mixed(world.pods, dice)), world.sets, world.deployments, tuple(world.budgets))
        assert plan_evictions(shuffled, town.now) == plan
        did = town.evictions()
        assert not town.evictions(), "apply and plan again gives nothing"
        for one in town.budgets:
            old = floors[one.metadata.name]
            assert town.serving(one) >= min(old.healthy, old.desired)
        did = town.step() or did
        for name, pod in sorted(town.pods.items()):
            if not is_counted(pod) and (turn % 3 == 0 or dice.random() < 0.5):
                del town.pods[name]
                did = True
            elif is_counted(pod) and not is_ready(pod) and (turn % 3 == 0 or dice.random() < 0.5):
                town.pods[name] = ready(pod, town.now, node=dice.choice(sorted({*NODES, "n4"} - nodes)))
                did = True
        town.now += 1
        if not did and all(is_counted(pod) and is_ready(pod) for pod in town.pods.values()):
            break
    left = plan_drain(town.world(), nodes, force=True)
    held = [verdict for verdict in plan_evictions(town.world(), town.now) if not verdict.go]
    assert {move.pod.metadata.name for move in left.moves} == {verdict.pod.metadata.name for verdict in held}
    assert not held or any(verdict.held for verdict in held), "only budgets stop a drain"
