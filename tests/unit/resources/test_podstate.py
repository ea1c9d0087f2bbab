"""Which workload a pod stands for, whatever the names."""

import pytest
from msgspec.structs import replace

from korch.controllers.deployment import set_from
from korch.controllers.replicaset import pod_from
from korch.errors import NotFoundError
from korch.resources.codec import with_meta
from korch.resources.meta import LabelSelector, Object, ObjectMeta
from korch.resources.pod import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
)
from korch.resources.podstate import (
    DEFAULT_CONTAINER,
    chosen_container,
    failure_of,
    has_begun,
    removal_order,
    telling_status,
    workload_name,
)
from korch.resources.workload import PodTemplateSpec, ReplicaSet, ReplicaSetSpec
from tests.unit.controllers.cluster import deployment


def a_set(name: str) -> ReplicaSet:
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels={"app": "x"}), spec=PodSpec(containers=(Container(name="x", image="x:1"),))
    )
    spec = ReplicaSetSpec(replicas=1, selector=LabelSelector(match_labels={"app": "x"}), template=template)
    return ReplicaSet(metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-{name}"), spec=spec)


def of_deployment(name: str) -> tuple[Object, Object]:
    made = with_meta(set_from(with_meta(deployment(), name=name), 1), uid="s")
    return made, pod_from(made, f"{made.metadata.name}-abcde")


@pytest.mark.parametrize("name", ["web", "web-a", "web-7d9f8", "a-b-c"])
def test_sets_and_pods_of_a_deployment_stand_for_it(name: str) -> None:
    assert [workload_name(obj) for obj in of_deployment(name)] == [name, name]


@pytest.mark.parametrize("name", ["web", "my-app", "my-app-2"])
def test_a_set_of_its_own_is_the_workload_of_its_pods_whatever_its_name(name: str) -> None:
    alone = a_set(name)
    assert workload_name(alone) == name
    assert workload_name(pod_from(alone, f"{name}-abcde")) == name


def test_a_pod_of_its_own_is_one() -> None:
    assert workload_name(Pod(metadata=ObjectMeta(name="one-off"))) == "one-off"


def test_a_set_that_ends_like_a_hash_of_other_pods_keeps_its_name() -> None:
    pod = pod_from(a_set("my-app"), "my-app-abcde")
    labelled = replace(pod, metadata=replace(pod.metadata, labels={"pod-template-hash": "other"}))
    assert workload_name(labelled) == "my-app"


@pytest.mark.parametrize("cost", ["", "soon", "1.5", "²"])
def test_a_cost_that_is_no_number_counts_for_nothing(cost: str) -> None:
    pod = Pod(metadata=ObjectMeta(name="p", annotations={"controller.kubernetes.io/pod-deletion-cost": cost}))
    assert removal_order(pod) == (0, 0, 0, "p")


# --- several containers ---


def reported(**states: ContainerState) -> Pod:
    """A pod with two containers and an init container, as reported."""
    spec = PodSpec(
        containers=(Container(name="web"), Container(name="log")), init_containers=(Container(name="first"),)
    )

    def status(name: str) -> ContainerStatus:
        state = states.get(name, ContainerState(waiting=ContainerStateWaiting(reason="PodInitializing")))
        done = state.terminated is not None and state.terminated.exit_code == 0 and name == "first"
        begun = state.waiting is None
        return ContainerStatus(
            name=name, state=state, ready=done or state.running is not None, container_id="x" if begun else ""
        )

    found = PodStatus(
        phase="Pending",
        container_statuses=(status("web"), status("log")),
        init_container_statuses=(status("first"),),
    )
    return Pod(metadata=ObjectMeta(name="duo"), spec=spec, status=found)


RUNS = ContainerState(running=ContainerStateRunning())
WELL, BADLY = (ContainerState(terminated=ContainerStateTerminated(exit_code=code)) for code in (0, 3))
NO_IMAGE = ContainerState(waiting=ContainerStateWaiting(reason="ImageNotFound", message="there is none"))


@pytest.mark.parametrize(
    ("states", "telling", "failure"),
    [
        ({}, "first", ""),
        ({"first": NO_IMAGE}, "first", "ImageNotFound: there is none"),
        ({"first": BADLY}, "first", "container first exited with status 3"),
        ({"first": WELL}, "web", ""),
        ({"first": WELL, "web": RUNS, "log": NO_IMAGE}, "log", "ImageNotFound: there is none"),
        ({"first": WELL, "log": BADLY}, "log", "container log exited with status 3"),
        ({"first": WELL, "web": RUNS, "log": RUNS}, "web", ""),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_a_pod_of_several_waits_for(states: dict[str, ContainerState], telling: str, failure: str) -> None:
    pod = reported(**states)
    found = telling_status(pod)
    assert found is not None
    assert found.name == telling
    assert failure_of(pod) == (f"duo on no node: {failure}" if failure else "")
    assert has_begun(pod) is any(state.waiting is None for state in states.values())


def test_the_usual_container_is_the_annotated_one_if_there_is_such_a_one() -> None:
    pod = reported()
    assert chosen_container(pod) == "web"
    assert chosen_container(pod, "first") == "first"
    assert chosen_container(with_meta(pod, annotations={DEFAULT_CONTAINER: "log"})) == "log"
    assert chosen_container(with_meta(pod, annotations={DEFAULT_CONTAINER: "gone"})) == "web"
    with pytest.raises(NotFoundError, match='no container "lgo"'):
        chosen_container(pod, "lgo")
