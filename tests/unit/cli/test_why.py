import json
import time

import pytest
from msgspec.structs import replace

from korch.client.base import NodeSeen
from korch.errors import HostUnreachableError, InvalidError, NotFoundError, RolloutFailedError
from korch.resources import annotations
from korch.resources.blame import note_loss
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, Object
from korch.resources.pod import Container, Pod, PodSpec, PodStatus, ResourceRequirements
from korch.resources.workload import Deployment
from korch.scheduler.decision import Decision, Part, Refusal, Refused, Verdict, to_json

from .world import GIB, World, a_deployment, a_load, a_node, a_pod, a_workload

CORDONED = Refusal("Cordoned", "cordoned", "cordoned", "cordoned (korch node uncordon n3 opens it)")
DECISION = Decision(
    "default",
    "web-bcdfg-1",
    "uid",
    "n1",
    "n1 scores best of 2",
    score=80.25,
    nodes_total=3,
    verdicts=(
        Verdict("n1", score=80.25, parts=(Part("load", 60.25, "cpu 5%"), Part("spread", 20.0, "0 here"))),
        Verdict("n2", score=41.0, parts=(Part("load", 41.0, "cpu 95%"),)),
        Verdict("n3", CORDONED),
    ),
    refused=(Refused("Cordoned", "cordoned", 1, ("n3",)),),
)


def _decided(pod: Pod, decision: Decision) -> Pod:
    return with_meta(pod, annotations={annotations.DECISION: to_json(decision)})


@pytest.fixture
def placed(world: World) -> World:
    first, second, *pods = a_workload("web", 2)
    world.put(first, second, _decided(pods[0], DECISION), pods[1])  # type: ignore[type-var]
    return world


def test_why_shows_scores_parts_and_refusals(placed: World) -> None:
    result = placed.run("why", "deploy/web")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "web-bcdfg-1 is on n1: n1 scores best of 2",
        "  NODE   SCORE   LOAD   SPREAD",
        "* n1     80.2    60.2   20.0",
        "  n2     41.0    41.0",
        "  REFUSED   WHY",
        "  n3        cordoned",
        "",
        "web-bcdfg-2 runs on n2; there is no record of the scheduler's reasons",
    ]


def test_wide_says_where_points_come_from(placed: World) -> None:
    text = placed.run("why", "web-bcdfg-1", "-o", "wide").stdout
    assert "  n1: load 60.2, cpu 5%" in text
    assert "  n2: load 41.0, cpu 95%" in text


def test_json_is_the_record(placed: World) -> None:
    data = json.loads(placed.run("why", "web", "-o", "json").stdout)
    assert [item["node"] for item in data] == ["n1", "n2"]
    assert data[0]["decision"]["score"] == 80.25
    assert data[1]["decision"] is None


def test_a_pending_pod_has_its_sentence_and_the_refusals(world: World) -> None:
    sentence = "0/3 nodes: 2 lack memory (512Mi asked), 1 cordoned"
    refused = (
        Refused("Memory", "lack memory (512Mi asked)", 2, ("n1", "n2")),
        Refused("Cordoned", "cordoned", 1, ("n3",)),
    )
    decision = replace_decision(node=None, message=sentence, verdicts=(), refused=refused)
    status = PodStatus(phase="Pending", conditions=(Condition(type="PodScheduled", status="False", message=sentence),))
    world.put(_decided(a_pod("web-1", node="", status=status), decision))
    assert world.run("why", "web-1").stdout.splitlines() == [
        f"web-1 is pending: {sentence}",
        "  REFUSED   WHY",
        "  n1        lack memory (512Mi asked)",
        "  n2        lack memory (512Mi asked)",
        "  n3        cordoned",
    ]


def replace_decision(**changes: object) -> Decision:
    return replace(DECISION, **changes)  # type: ignore[arg-type]


def test_a_pod_that_nobody_looked_at_yet(world: World) -> None:
    world.put(a_pod("web-1", node="", phase="Pending"))
    assert "korch sync" in world.run("why", "pod/web-1").stdout


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("nothing", NotFoundError.exit_code, 'there is no deployment and no pod "nothing"'),
        ("node/n1", InvalidError.exit_code, "has no pods"),
        ("pod/none", NotFoundError.exit_code, "none"),
    ],
)
def test_bad_names(world: World, name: str, code: int, words: str) -> None:
    result = world.run("why", name)
    assert result.exit_code == code
    assert words in result.stderr


def test_a_damaged_record_is_explained(world: World) -> None:
    world.put(with_meta(a_pod("web-1"), annotations={annotations.DECISION: "{"}))
    assert world.run("why", "web-1").exit_code == InvalidError.exit_code


def test_a_deployment_without_pods(world: World) -> None:
    world.put(a_deployment("web"))
    assert world.run("why", "web").stderr == "web has no pods yet.\n"


# --- what if ---


def _asking(memory: str, **fields: object) -> PodSpec:
    container = Container(name="app", image="web:1", resources=ResourceRequirements(requests={"memory": memory}))
    return PodSpec(containers=(container,), **fields)  # type: ignore[arg-type]


@pytest.fixture
def fleet(world: World) -> World:
    """Three nodes of 2 GiB; web has two replicas of 512 MiB on n1 and n2."""
    world.seen = [NodeSeen(a_node(name), a_load(name, memory_available_bytes=2 * GIB)) for name in ("n1", "n2", "n3")]
    objects: list[Object] = []
    for obj in a_workload("web", 2):
        match obj:
            case Deployment():
                template = replace(obj.spec.template, spec=_asking("512Mi"))
                objects.append(replace(obj, spec=replace(obj.spec, template=template)))
            case Pod():
                objects.append(replace(obj, spec=_asking("512Mi", node_name=obj.spec.node_name)))
            case _:
                objects.append(obj)
    world.put(*objects)
    return world


def test_more_replicas_of_a_deployment(fleet: World) -> None:
    result = fleet.run("whatif", "web", "--replicas", "5")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "5 replica(s) of deployment web (2 stand, 3 new)"
    assert lines[1].split() == ["NODE", "NEW"]
    assert sum(int(line.split()[1]) for line in lines[2:5] if line) == 3
    assert lines[-1] == "Everything fits."


def test_too_many_stay_pending_with_the_reason(fleet: World) -> None:
    result = fleet.run("whatif", "web", "--replicas", "50")
    assert result.exit_code == RolloutFailedError.exit_code
    assert "would stay pending: 0/3 nodes: 3 " in result.stdout
    assert "512Mi" in result.stdout


def test_the_only_deployment_needs_no_name(fleet: World) -> None:
    assert "deployment web" in fleet.run("whatif", "--replicas", "3").stdout


def test_losing_a_node_moves_its_pods(fleet: World) -> None:
    result = fleet.run("whatif", "--lose", "n1")
    lines = result.stdout.splitlines()
    assert lines[0] == "Without n1: 1 pod(s) would move"
    assert lines[2].split()[0] == "web-bcdfg-1"
    assert lines[2].split()[1] in {"n2", "n3"}
    assert result.exit_code == 0


def test_losing_an_empty_node(fleet: World) -> None:
    assert "no pod would have to move" in fleet.run("whatif", "--lose", "n3").stdout


def test_a_node_that_does_not_answer_gets_nothing(fleet: World) -> None:
    fleet.seen[2] = NodeSeen(fleet.seen[2].node, None, HostUnreachableError("n3: no answer", host="n3"))
    assert "n3 " not in fleet.run("whatif", "--replicas", "4").stdout


def test_a_node_that_was_lost_lately_is_trusted_less_as_in_a_deploy(fleet: World) -> None:
    def node_of_one() -> str:
        return fleet.run("whatif", "--replicas", "1", "--cpu", "1m").stdout.splitlines()[2].split()[0]

    first = node_of_one()
    fleet.seen = [
        NodeSeen(note_loss(one.node, time.time() - 60), one.load) if one.node.metadata.name == first else one
        for one in fleet.seen
    ]
    assert node_of_one() != first


def test_new_replicas_stay_within_the_limit(fleet: World) -> None:
    lines = fleet.run("whatif", "web", "--replicas", "4", "--limit", "n2").stdout.splitlines()
    assert lines[2].split() == ["n2", "2"]


def test_a_bare_pod(fleet: World) -> None:
    result = fleet.run("whatif", "--replicas", "2", "--cpu", "500m", "--memory", "256Mi")
    assert result.stdout.startswith("2 replica(s) of a pod that asks for cpu 500m, memory 256Mi\n")


def test_fewer_than_stand(fleet: World) -> None:
    assert "2 stand, 1 would go" in fleet.run("whatif", "web", "--replicas", "1").stdout


def test_nothing_is_changed(fleet: World) -> None:
    before = fleet.read(Deployment, "web").metadata.resource_version
    fleet.run("whatif", "web", "--replicas", "50", "--lose", "n1")
    assert fleet.read(Deployment, "web").metadata.resource_version == before


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "--replicas N, --lose NODE"),
        (("web", "--replicas", "2", "--cpu", "1"), 2, "brings its own"),
        (("none", "--replicas", "2"), NotFoundError.exit_code, "none"),
        (("--lose", "nx"), NotFoundError.exit_code, '"nx" does not exist'),
        (("--replicas", "1", "--cpu", "lots"), 2, "lots"),
        (("--replicas", "-1"), 2, "-1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_questions(fleet: World, args: tuple[str, ...], code: int, words: str) -> None:
    result = fleet.run("whatif", *args)
    assert result.exit_code == code
    assert words in result.stderr
