"""`korch node drain`: what it marks, what it refuses, what it tells."""

from typing import Any

from msgspec.structs import replace

from korch.client.base import Workload
from korch.errors import ForbiddenError, NotFoundError, RolloutFailedError
from korch.resources.annotations import EVICT, EVICT_WHY
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.disruption import PodDisruptionBudget, PodDisruptionBudgetSpec
from korch.resources.meta import LabelSelector, Object, OwnerReference
from korch.resources.node import Node
from korch.resources.pod import Container, CSIVolumeSource, HostPathVolumeSource, Pod, PodSpec, Volume
from korch.resources.workload import Deployment, DeploymentStrategy

from .world import World, a_node, a_pod, a_workload, meta


def marks(world: World, name: str) -> str | None:
    return world.read(Pod, name).metadata.annotations.get(EVICT)


def put(world: World, *objects: Object) -> None:
    """As they stand once created."""
    world.put(*map(with_defaults, objects))


def with_volume(name: str, volume: Volume, **fields: Any) -> Pod:
    spec = PodSpec(containers=(Container(name="app", image="web:1"),), node_name="n1", volumes=(volume,))
    return a_pod(name, spec=spec, **fields)


DATA = Volume(name="data", csi=CSIVolumeSource(driver="volumes.korch.dev", volume_attributes={"name": "data"}))
PATH = Volume(name="p", host_path=HostPathVolumeSource(path="/srv/www"))


def goes(world: World, *names: str) -> None:
    """Whoever leads lets the marked pods go while the command follows."""

    async def converge(client: Any) -> None:
        for name in names:
            pod = await client.objects.get(Pod, name)
            assert EVICT in pod.metadata.annotations
            await client.objects.finish_delete(pod)

    world.on_converge = converge


def test_drain_cordons_marks_follows_and_tells(world: World) -> None:
    put(world, a_node("n1"), a_node("n2"), *a_workload("web", 2))
    goes(world, "web-bcdfg-1")
    result = world.run("node", "drain", "n1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == ["node/n1 cordoned", "node/n1 drained: 1 pod(s) left"]
    assert world.read(Node, "n1", "").spec.unschedulable
    assert marks(world, "web-bcdfg-2") is None
    assert world.converged == [(Workload("default", "web-bcdfg"),)], "only what had a pod there"


def test_what_is_left_is_told_with_the_reason(world: World) -> None:
    put(world, a_node("n1"), *a_workload("web", 1))
    result = world.run("node", "drain", "n1")
    assert result.exit_code == RolloutFailedError.exit_code
    assert "web-bcdfg-1 on n1: its successor is about to be made" in result.stderr
    assert "korch node uncordon" in result.stderr
    assert marks(world, "web-bcdfg-1") == "start-first"
    assert "is cordoned already" in world.run("node", "drain", "n1").stdout, "the same command goes on"


def test_a_dry_run_writes_nothing(world: World) -> None:
    bare = a_pod("bare")
    daemon = with_meta(
        a_pod("logs-x"),
        owner_references=(
            OwnerReference(api_version="apps/v1", kind="DaemonSet", name="logs", uid="u", controller=True),
        ),
    )
    put(world, a_node("n1"), a_node("n2"), bare, daemon, *a_workload("web", 1))
    result = world.run("node", "drain", "n1", "--dry-run")
    assert result.exit_code == 0
    rows = [line.split()[:3] for line in result.stdout.splitlines()[1:]]
    assert rows == [["bare", "n1", "refuse"], ["logs-x", "n1", "stay"], ["web-bcdfg-1", "n1", "move"]]
    assert not world.read(Node, "n1", "").spec.unschedulable
    assert marks(world, "web-bcdfg-1") is None
    assert "Nothing runs on n2" in world.run("node", "drain", "n2", "--dry-run").stdout


def test_pods_that_cannot_run_elsewhere_are_refused_before_anything_is_done(world: World) -> None:
    put(
        world,
        a_node("n1"),
        a_pod("bare"),
        with_volume("db-1", DATA, owner="db"),
        with_volume("www-1", PATH, owner="www"),
        *a_workload("web", 1),
    )
    result = world.run("node", "drain", "n1")
    assert result.exit_code == ForbiddenError.exit_code
    for text in (
        "bare on n1: it belongs to no Deployment or ReplicaSet",
        "db-1 on n1: volume data exists on this node only",
        "www-1 on n1: it uses /srv/www of this node",
    ):
        assert text in result.stderr
    assert not world.read(Node, "n1", "").spec.unschedulable
    assert marks(world, "web-bcdfg-1") is None
    world.run("node", "drain", "n1", "--force", "--no-wait")
    found = {name: marks(world, name) for name in ("bare", "db-1", "www-1", "web-bcdfg-1")}
    assert found == {
        "bare": "stop-first",
        "db-1": "stop-first",
        "www-1": "start-first",
        "web-bcdfg-1": "start-first",
    }


def test_an_app_that_never_runs_twice_stops_first(world: World) -> None:
    objects = a_workload("web", 1)
    assert isinstance(objects[0], Deployment)
    spec = replace(objects[0].spec, strategy=DeploymentStrategy(type="Recreate"))
    put(world, a_node("n1"), replace(objects[0], spec=spec), *objects[1:])
    world.run("node", "drain", "n1", "--no-wait")
    assert marks(world, "web-bcdfg-1") == "stop-first"


def test_a_silent_node_is_not_drained(world: World) -> None:
    put(world, a_node("n1", state="Unreachable", message="no route to host"), *a_workload("web", 1))
    result = world.run("node", "drain", "n1")
    assert result.exit_code == ForbiddenError.exit_code
    assert "n1 is Unreachable: no route to host" in result.stderr
    assert "korch sync --failover" in result.stderr
    assert marks(world, "web-bcdfg-1") is None


def test_an_unknown_node_changes_nothing(world: World) -> None:
    put(world, a_node("n1"), *a_workload("web", 1))
    assert world.run("node", "drain", "n1", "nx").exit_code == NotFoundError.exit_code
    assert not world.read(Node, "n1", "").spec.unschedulable


def test_an_empty_node_is_drained_at_once(world: World) -> None:
    put(world, a_node("n1", cordoned=True))
    assert "drained: nothing was there to move" in world.run("node", "drain", "n1").stdout
    assert world.converged == []


def test_pods_that_are_stopping_already_are_waited_for(world: World) -> None:
    """What a drain that was killed leaves behind."""
    put(world, a_node("n1", cordoned=True), a_pod("web-1", owner="web", deletion_timestamp="2026-01-01T00:00:00Z"))
    goes(world)
    world.run("node", "drain", "n1")
    assert world.converged == [(Workload("default", "web"),)]


def test_uncordon_takes_a_drain_back_and_no_other_wish(world: World) -> None:
    put(
        world,
        a_node("n1", cordoned=True),
        a_pod("a", annotations={EVICT: "start-first", EVICT_WHY: "drain"}, owner="web"),
        a_pod("b", annotations={EVICT: "start-first", EVICT_WHY: "rebalance"}, owner="web"),
        a_pod("c", annotations={EVICT: "start-first", EVICT_WHY: "drain"}, owner="web", node="n2"),
    )
    result = world.run("node", "uncordon", "n1")
    assert result.stdout.splitlines() == ["node/n1 uncordoned", "1 pod(s) stay on n1: a"]
    assert [marks(world, name) for name in "abc"] == [None, "start-first", "start-first"]


def test_a_budget_that_holds_a_pod_is_told(world: World) -> None:
    budget = PodDisruptionBudget(
        metadata=meta("all"),
        spec=PodDisruptionBudgetSpec(min_available=1, selector=LabelSelector(match_labels={"app": "web"})),
    )
    pod = a_pod("bare", labels={"app": "web"})
    put(world, a_node("n1"), budget, pod)
    result = world.run("node", "drain", "n1", "--force")
    assert result.exit_code == RolloutFailedError.exit_code
    assert "budget all wants 1 ready pods, and 1 of 1 are" in result.stderr
    listed = world.run("get", "pdb", "-o", "wide").stdout.splitlines()
    assert listed[1].split()[:4] == ["all", "1", "N/A", "0"]
