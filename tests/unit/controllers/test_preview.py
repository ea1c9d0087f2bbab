"""What `korch plan` shows: the steps that the controllers would take."""

from msgspec.structs import replace

from korch.client.base import PlannedStep
from korch.controllers.daemonset import daemon_for
from korch.controllers.preview import preview
from korch.resources.annotations import FAILED_REVISION
from korch.resources.blame import note_loss
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, LabelSelector, Object, ObjectMeta
from korch.resources.pod import Container, ContainerPort, Pod, PodSpec
from korch.resources.templates import template_hash
from korch.resources.workload import DaemonSet, Deployment, PodTemplateSpec, ReplicaSet, ReplicaSetSpec
from tests.unit.controllers.cluster import Toy, deployment
from tests.unit.controllers.test_daemonset import daemonset
from tests.unit.scheduler.world import NOW, load, node

NODES = tuple(node(f"n{number}") for number in range(3))
LOADS = {found.metadata.name: load() for found in NODES}


def shown(toy: Toy, *wishes: Object, others: tuple[Pod, ...] = (), sets: tuple[ReplicaSet, ...] = ()):
    pods = (*toy.pods.values(), *others)
    return preview(wishes or (toy.deployment,), (*toy.sets.values(), *sets), pods, NODES, LOADS, now=NOW)


def does(steps: tuple[PlannedStep, ...]) -> list[str]:
    return [step.do for step in steps]


def settled(replicas: int = 2, *, port: int = 0) -> Toy:
    toy = Toy(with_port(deployment(replicas=replicas), port))
    toy.settle()
    for number, name in enumerate(sorted(toy.pods)):
        pod = toy.pods[name]
        toy.pods[name] = replace(pod, spec=replace(pod.spec, node_name=f"n{number}"))
    return toy


def with_port(wish: Deployment, port: int) -> Deployment:
    if not port:
        return wish
    main = replace(wish.spec.template.spec.containers[0], ports=(ContainerPort(container_port=80, host_port=port),))
    template = replace(wish.spec.template, spec=replace(wish.spec.template.spec, containers=(main,)))
    return replace(wish, spec=replace(wish.spec, template=template))


def with_image(wish: Deployment, image: str) -> Deployment:
    main = replace(wish.spec.template.spec.containers[0], image=image)
    template = replace(wish.spec.template, spec=replace(wish.spec.template.spec, containers=(main,)))
    meta = replace(wish.metadata, generation=wish.metadata.generation + 1)
    return replace(wish, metadata=meta, spec=replace(wish.spec, template=template))


def test_a_first_deploy_starts_all() -> None:
    steps = shown(Toy(deployment()))
    assert does(steps) == ["start"] * 3
    assert {step.node for step in steps} == {"n0", "n1", "n2"}
    assert {step.workload for step in steps} == {"web"}


def test_a_node_that_was_lost_lately_is_trusted_less_as_in_a_deploy() -> None:
    wish = deployment(replicas=1)
    (first,) = preview((wish,), (), (), NODES, LOADS, now=NOW)
    nodes = tuple(note_loss(found, NOW - 60) if found.metadata.name == first.node else found for found in NODES)
    (second,) = preview((wish,), (), (), nodes, LOADS, now=NOW)
    assert (first.do, second.do) == ("start", "start")
    assert second.node != first.node


def test_what_is_true_needs_nothing() -> None:
    assert shown(settled()) == ()


def test_new_before_old_one_at_a_time() -> None:
    toy = settled(2)
    steps = shown(toy, with_image(toy.deployment, "web:2"))
    assert does(steps) == ["start", "stop", "start", "stop"]
    assert steps[1].why == "an older revision"


def test_where_a_port_is_taken_everywhere_the_old_goes_first() -> None:
    toy = settled(3, port=8080)
    steps = shown(toy, with_image(toy.deployment, "web:2"))
    assert does(steps) == ["stop", "start"] * 3


def test_what_fits_nowhere_is_said_once() -> None:
    steps = shown(Toy(with_port(deployment(replicas=4), 8080)))
    assert does(steps) == ["start", "start", "start", "wait"]
    assert "8080" in steps[-1].why


def test_pods_of_a_set_of_the_same_name_in_another_namespace_are_others() -> None:
    toy = settled(2)
    (own,) = toy.sets.values()
    theirs_owner = (replace(own.metadata.owner_references[0], uid="d2"),)
    twin = with_meta(own, namespace="other", uid="twin-set", owner_references=theirs_owner)
    references = (replace(own.metadata.owner_references[0], kind="ReplicaSet", name=own.metadata.name, uid="twin-set"),)
    theirs = tuple(
        with_meta(pod, namespace="other", uid=f"other-{name}", owner_references=references)
        for name, pod in toy.pods.items()
    )
    assert shown(toy, others=theirs, sets=(twin,)) == ()
    more = replace(toy.deployment, spec=replace(toy.deployment.spec, replicas=3))
    assert does(shown(toy, more, others=theirs, sets=(twin,))) == ["start"]


def test_a_revision_that_failed_before_is_tried_again_as_deploy_does_it() -> None:
    wish = deployment(replicas=1)
    failed = with_meta(
        wish, annotations={**wish.metadata.annotations, FAILED_REVISION: template_hash(wish.spec.template)}
    )
    assert does(shown(Toy(failed))) == ["start"]


def test_sets_and_pods_of_their_own() -> None:
    spec = PodSpec(containers=(Container(name="x", image="x:1"),))
    template = PodTemplateSpec(spec=spec)
    alone = ReplicaSet(
        metadata=ObjectMeta(name="my-app", namespace="default", uid="new"),
        spec=ReplicaSetSpec(replicas=2, selector=LabelSelector(match_labels={"a": "b"}), template=template),
    )
    single = Pod(metadata=ObjectMeta(name="job", namespace="default", uid="new"), spec=spec)
    steps = shown(settled(), alone, single)
    assert [(step.do, step.workload) for step in steps] == [("start", "my-app")] * 2 + [("start", "job")]
    stands = replace(with_meta(single, uid="stands"), spec=replace(spec, node_name="n1"))
    assert shown(settled(), stands, others=(stands,)) == ()


def test_wishes_of_one_plan_see_each_other() -> None:
    first, second = with_port(deployment(replicas=3), 8080), with_port(deployment(replicas=1), 8080)
    second = with_meta(second, name="late", uid="new-2")
    steps = shown(Toy(deployment()), first, second)
    assert does(steps) == ["start", "start", "start", "wait"]
    assert steps[-1].workload == "late"


def test_a_daemon_set_starts_on_every_node_and_rolls_node_by_node() -> None:
    def planned(wish: DaemonSet, *pods: Pod) -> tuple[PlannedStep, ...]:
        return preview([wish], (), pods, NODES, LOADS, now=NOW)

    first = planned(daemonset())
    assert [(step.do, step.node) for step in first] == [("start", "n0"), ("start", "n1"), ("start", "n2")]
    running = tuple(_running(daemon_for(daemonset(), found.metadata.name), found.metadata.name) for found in NODES)
    assert planned(daemonset(), *running) == ()
    rolled = planned(daemonset("log:2"), *running)
    assert [step.do for step in rolled] == ["stop", "start"] * 3
    assert [step.node for step in rolled] == ["n0", "n0", "n1", "n1", "n2", "n2"]


def _running(pod: Pod, node: str) -> Pod:
    ready = (Condition(type="Ready", status="True"),)
    status = replace(pod.status, phase="Running", conditions=ready)
    return replace(with_meta(pod, uid=f"uid-{node}"), spec=replace(pod.spec, node_name=node), status=status)
