"""What a person who waits for a workload is told."""

from msgspec.structs import replace

from korch.controllers.outcome import standing
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, LabelSelector, ObjectMeta
from korch.resources.pod import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodSpec,
)
from korch.resources.podstate import with_condition
from korch.resources.times import rfc3339
from korch.resources.workload import PodTemplateSpec, ReplicaSet, ReplicaSetSpec
from tests.unit.controllers.cluster import Toy, deployment

NOBODY: frozenset[str] = frozenset()


def judged(toy: Toy, *, dead: frozenset[str] = NOBODY, since: int = 0, **more: bool):
    return standing(toy.deployment, tuple(toy.pods.values()), toy.now, dead_nodes=dead, since=since, **more)


def settled(replicas: int = 2, *, auto: bool = True) -> Toy:
    toy = Toy(deployment(replicas=replicas, auto=auto))
    toy.settle()
    toy.step()
    return toy


def first(toy: Toy) -> str:
    return min(toy.pods)


def placed(toy: Toy, name: str, node: str) -> None:
    pod = toy.pods[name]
    toy.pods[name] = replace(pod, spec=replace(pod.spec, node_name=node))


def refused(pod: Pod, text: str = "0/3 nodes: port taken") -> Pod:
    no = Condition(type="PodScheduled", status="False", reason="Unschedulable", message=text)
    return replace(pod, status=replace(pod.status, conditions=with_condition((), no, rfc3339(0))))


def with_one_that_fits_nowhere() -> Toy:
    toy = settled()
    toy.wish(replicas=3)
    toy.step()
    toy.step()
    new = next(name for name, pod in toy.pods.items() if not pod.status.conditions)
    toy.pods[new] = refused(toy.pods[new])
    return toy


def leaving(pod: Pod) -> Pod:
    return with_meta(pod, deletion_timestamp=rfc3339(1_000_000))


def test_a_settled_workload_is_done() -> None:
    assert judged(settled()).state == "done"
    assert judged(settled(0)).state == "done"


def test_a_wish_that_nobody_has_looked_at_is_not_done() -> None:
    toy = settled()
    toy.wish(replicas=3)
    assert judged(toy).state == "going"


def test_old_replicas_that_still_stop_are_waited_for_but_not_on_dead_nodes() -> None:
    toy = settled()
    old = with_meta(leaving(toy.pods[first(toy)]), name="web-old-1")
    toy.pods["web-old-1"] = replace(old, spec=replace(old.spec, node_name="n9"))
    assert judged(toy).state == "going"
    assert judged(toy, dead=frozenset({"n9"})).state == "done"


def test_replicas_on_a_node_that_is_silent_are_not_known_to_run() -> None:
    toy = settled()
    placed(toy, first(toy), "n2")
    found = judged(toy, dead=frozenset({"n2"}))
    assert (found.state, found.silent) == ("stuck", True)
    assert "1 of 2 replicas run; no answer from n2" in found.message


def test_a_replica_that_fits_nowhere_is_for_a_person_to_solve() -> None:
    toy = with_one_that_fits_nowhere()
    found = judged(toy)
    assert found.state == "stuck"
    assert "0/3 nodes: port taken" in found.message


def test_a_replica_that_waits_for_the_place_of_one_that_stops_is_not_stuck() -> None:
    toy = with_one_that_fits_nowhere()
    toy.pods["web-old-1"] = with_meta(leaving(toy.pods[first(toy)]), name="web-old-1", uid="old")
    assert judged(toy).state == "going"


def test_a_rollback_is_a_failure_once_it_is_finished_and_only_for_the_wish_that_failed() -> None:
    toy = settled()
    toy.wish(image="web:bad")
    wish = toy.deployment.metadata.generation
    toy.settle(bad_image="web:bad")
    toy.step()
    found = judged(toy, since=wish)
    assert found.state == "failed"
    assert "exited with status 3" in found.message
    assert judged(toy, since=toy.deployment.metadata.generation).state == "done", "an old failure is history"


def test_a_first_revision_that_fails_is_a_failure_when_its_pods_are_gone() -> None:
    toy = Toy(deployment("web:bad"))
    toy.settle(bad_image="web:bad")
    assert judged(toy).state == "failed"


def test_a_crash_is_told_while_kubernetes_objects_wait() -> None:
    toy = Toy(deployment(auto=False))
    toy.step()
    toy.step()
    placed(toy, first(toy), "n1")
    toy.crash(first(toy), code=7)
    toy.step()
    found = judged(toy)
    assert found.state == "going"
    assert "exited with status 7" in found.message


def test_a_paused_rollout_waits_for_a_person() -> None:
    toy = settled()
    toy.deployment = replace(toy.deployment, spec=replace(toy.deployment.spec, paused=True))
    toy.wish(image="web:2")
    toy.step()
    found = judged(toy)
    assert found.state == "stuck"
    assert "paused" in found.message


def test_a_single_pod_of_the_same_name_changes_nothing() -> None:
    toy = settled()
    toy.pods["web"] = Pod(metadata=ObjectMeta(name="web", namespace="default", uid="x"))
    assert judged(toy).state == "done"


# --- sets and pods without a deployment ---


def single(phase: str = "", *, ready: bool = False, code: int | None = None, node: str = "n1") -> Pod:
    state = (
        ContainerState(terminated=ContainerStateTerminated(exit_code=code)) if code is not None else ContainerState()
    )
    pod = Pod(
        metadata=ObjectMeta(name="job", namespace="default", uid="j"),
        spec=PodSpec(containers=(Container(name="job", image="job:1"),), node_name=node, restart_policy="Never"),
    )
    conditions = with_condition((), Condition(type="Ready", status="True"), rfc3339(0)) if ready else ()
    statuses = (ContainerStatus(name="job", state=state),) if code is not None else ()
    return replace(pod, status=replace(pod.status, phase=phase, conditions=conditions, container_statuses=statuses))


def of_pod(pod: Pod, dead: frozenset[str] = NOBODY):
    return standing(None, (pod,), 1e6, dead_nodes=dead)


def test_a_single_pod_is_done_when_it_runs_or_has_succeeded() -> None:
    assert of_pod(single()).state == "going"
    assert of_pod(single("Running", ready=True)).state == "done"
    assert of_pod(single("Succeeded", code=0)).state == "done"
    assert of_pod(leaving(single("Succeeded", code=0))).state == "going"


def test_a_single_pod_that_failed_says_how() -> None:
    found = of_pod(single("Failed", code=3))
    assert (found.state, found.message) == ("failed", "job: ended with status 3")
    lost = replace(single("Failed"), status=replace(single("Failed").status, message="n1 went away"))
    assert of_pod(lost).message == "job: n1 went away"


def test_a_single_pod_on_a_silent_node_is_not_waited_for() -> None:
    found = of_pod(single("Running", ready=True), dead=frozenset({"n1"}))
    assert (found.state, found.silent) == ("stuck", True)
    assert of_pod(single("Succeeded", code=0), dead=frozenset({"n1"})).state == "done"


def a_set(replicas: int) -> ReplicaSet:
    template = PodTemplateSpec(spec=PodSpec(containers=(Container(name="x", image="x:1"),)))
    spec = ReplicaSetSpec(replicas=replicas, selector=LabelSelector(match_labels={"a": "b"}), template=template)
    return ReplicaSet(metadata=ObjectMeta(name="my-app", namespace="default", uid="s", generation=1), spec=spec)


def test_a_set_of_its_own_is_done_only_with_all_its_pods() -> None:
    alone = a_set(2)
    one = with_meta(single("Running", ready=True), name="my-app-1", uid="1")
    two = with_meta(one, name="my-app-2", uid="2")
    for pods, expected in (((), "going"), ((one,), "going"), ((one, two), "done"), ((one, two, leaving(two)), "going")):
        assert standing(None, pods, 1e6, dead_nodes=NOBODY, alone=alone).state == expected
    assert standing(None, (), 1e6, dead_nodes=NOBODY, alone=a_set(0)).state == "done"


def test_what_a_deleted_deployment_leaves_is_waited_for() -> None:
    assert standing(None, (), 1e6, dead_nodes=NOBODY, ownerless=True).state == "going"
    assert standing(None, (), 1e6, dead_nodes=NOBODY).state == "done"
