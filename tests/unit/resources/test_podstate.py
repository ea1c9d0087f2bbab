"""Which workload a pod stands for, whatever the names."""

import pytest
from msgspec.structs import replace

from korch.controllers.deployment import set_from
from korch.controllers.replicaset import pod_from
from korch.resources.codec import with_meta
from korch.resources.meta import LabelSelector, Object, ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.podstate import removal_order, workload_name
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
