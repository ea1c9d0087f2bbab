"""`korch rebalance`: what it shows and what it marks."""

from msgspec.structs import replace

from korch.client.base import ContainerUsage, NodeSeen, NodeUsage
from korch.resources.annotations import EVICT, EVICT_WHY
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.meta import Condition
from korch.resources.pod import Pod
from korch.resources.workload import Deployment

from .world import World, a_load, a_node, a_workload


def lopsided(world: World) -> None:
    """Both replicas on n1, which is busy; n2 is idle."""
    for obj in a_workload("web", 2):
        obj = with_defaults(obj)
        if isinstance(obj, Pod):
            (main,) = obj.spec.containers
            spec = replace(obj.spec, node_name="n1", containers=(replace(main, ports=()),))
            obj = replace(obj, spec=spec, status=replace(obj.status, start_time=obj.metadata.creation_timestamp))
        if isinstance(obj, Deployment):
            done = Condition(type="Progressing", status="True", reason="NewReplicaSetAvailable")
            obj = replace(obj, status=replace(obj.status, conditions=(done,)))
        world.put(obj)
    busy = {"n1": a_load("n1", cpu_busy=0.9), "n2": a_load("n2", cpu_busy=0.05)}
    world.seen = [NodeSeen(a_node(name), load) for name, load in busy.items()]
    world.put(*(one.node for one in world.seen))


def marks(world: World) -> list[str | None]:
    pods = (world.read(Pod, f"web-bcdfg-{n}") for n in (1, 2))
    return [pod.metadata.annotations.get(EVICT) for pod in pods]


def test_a_plan_shows_moves_with_reasons_and_marks_nothing(world: World) -> None:
    lopsided(world)
    result = world.run("rebalance", "--plan")
    assert result.exit_code == 0, result.stderr
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["POD", "FROM", "TO", "SCORE", "WHY"]
    assert rows[0].split()[:3] == ["web-bcdfg-1", "n1", "n2"]
    assert "load: CPU 85% busy" in rows[0]
    assert marks(world) == [None, None]
    assert world.converged == []


def test_moves_are_marked_and_followed(world: World) -> None:
    lopsided(world)
    assert world.run("rebalance", "--max-moves", "1").exit_code == 0
    assert marks(world) == ["start-first", None]
    assert world.read(Pod, "web-bcdfg-1").metadata.annotations[EVICT_WHY] == "rebalance"
    assert len(world.converged) == 1
    again = world.run("rebalance")
    assert "Nothing to move" in again.stdout, "the move that is under way settles first"


def test_a_cluster_in_balance_moves_nothing(world: World) -> None:
    lopsided(world)
    world.seen = [replace_load(one, 0.1) for one in world.seen]
    assert "Nothing to move" in world.run("rebalance", "--min-gain", "50").stdout


def test_what_pods_use_is_measured(world: World) -> None:
    lopsided(world)
    world.usage = [NodeUsage("n1", (ContainerUsage("uid-default-web-bcdfg-1", "app", 1700, 10),))]
    rows = world.run("rebalance", "--plan").stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["web-bcdfg-2"], "the hog would only take the trouble along"


def replace_load(one: NodeSeen, busy: float) -> NodeSeen:
    return NodeSeen(with_meta(one.node), a_load(one.node.metadata.name, cpu_busy=busy))


def test_a_master_is_told_to_do_it_by_itself(world: World) -> None:
    assert "from now on" in world.run("rebalance", "--auto").stdout
    assert world.auto_rebalance is True
    assert world.run("rebalance", "--no-auto").exit_code == 0
    assert world.auto_rebalance is False
    assert world.run("rebalance", "--auto", "--plan").exit_code == 2
    assert world.converged == []
