"""Who may be moved to level the load, and when nobody is."""

import pytest
from msgspec.structs import replace

from korch.controllers.disruption import World, marked
from korch.controllers.rebalance import may_move, plan_rebalance, settling_nodes
from korch.resources.annotations import MOVED_FROM
from korch.resources.codec import with_meta
from korch.resources.pod import CSIVolumeSource, HostPathVolumeSource, Pod, Volume
from korch.resources.times import rfc3339
from korch.resources.workload import DeploymentStrategy
from tests.unit.controllers.cluster import deployment
from tests.unit.controllers.test_disruption import Site
from tests.unit.scheduler.world import NOW, load, node

NODES = [node("n1"), node("n2")]
LOADS = {"n1": load(0.9), "n2": load(0.05)}


def settled() -> tuple[World, Pod]:
    """Two replicas on n1, ready for long."""
    one = Site(deployment(replicas=2), now=NOW - 1000)
    one.settle()
    one.step()
    pods = tuple(with_meta(pod, creation_timestamp=rfc3339(NOW - 1000)) for pod in one.pods.values())
    status = replace(one.plan().status, observed_generation=one.deployment.metadata.generation)
    world = World(pods, tuple(one.sets.values()), (replace(one.deployment, status=status),))
    return world, pods[0]


def plan(world: World, **more: int) -> list[str]:
    return [f"{one.source}>{one.target}" for one in plan_rebalance(world, NODES, LOADS, NOW, **more)]


def test_one_of_two_goes_to_the_idle_node() -> None:
    world, pod = settled()
    assert may_move(pod, world, NOW)
    assert plan(world, max_moves=1) == ["n1>n2"]


def test_while_a_move_is_under_way_its_node_gives_no_more_and_the_budget_counts_it() -> None:
    world, pod = settled()
    going = marked(pod, "rebalance")
    assert going is not None
    world = World((going, *world.pods[1:]), world.sets, world.deployments)
    assert settling_nodes(world.pods, NOW) == {"n1"}
    assert plan(world) == []
    assert not may_move(going, world, NOW)


@pytest.mark.parametrize(("age_s", "rests", "settles"), [(10, True, True), (100, True, False), (400, False, False)])
def test_a_moved_pod_rests_and_the_node_that_it_left_settles(age_s: int, rests: bool, settles: bool) -> None:
    world, pod = settled()
    fresh = with_meta(pod, annotations={MOVED_FROM: "n2"}, creation_timestamp=rfc3339(NOW - age_s))
    assert may_move(fresh, world, NOW) is not rests
    assert settling_nodes([fresh], NOW) == ({"n2"} if settles else set())


def test_who_stays() -> None:
    world, pod = settled()
    data = Volume(name="d", csi=CSIVolumeSource(driver="volumes.korch.dev", volume_attributes={"name": "d"}))
    path = Volume(name="p", host_path=HostPathVolumeSource(path="/srv"))
    for volume in (data, path):
        assert not may_move(replace(pod, spec=replace(pod.spec, volumes=(volume,))), world, NOW)
    assert not may_move(with_meta(pod, owner_references=()), world, NOW)
    assert not may_move(replace(pod, status=replace(pod.status, conditions=())), world, NOW), "it is not ready"
    (app,) = world.deployments
    recreated = replace(app, spec=replace(app.spec, strategy=DeploymentStrategy(type="Recreate")))
    assert not may_move(pod, World(world.pods, world.sets, (recreated,)), NOW)
    rolling = with_meta(app, generation=app.metadata.generation + 1)
    assert not may_move(pod, World(world.pods, world.sets, (rolling,)), NOW)
