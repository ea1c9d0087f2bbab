"""Whether a workload has come true: what a person who waits for it is told. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from korch.controllers.rollout import FAILED_REVISION, STOP_FIRST
from korch.resources.pod import Pod
from korch.resources.podstate import condition, failure_of, is_available, is_counted, main_status, unschedulable
from korch.resources.templates import template_hash
from korch.resources.workload import Deployment


@dataclass(frozen=True, slots=True)
class Standing:
    """How a workload stands. "going": waiting may help; "stuck": only a change helps; `message` says why not done.

    `silent`: it is stuck because of nodes that do not answer.
    """

    state: Literal["done", "going", "stuck", "failed"]
    message: str = ""
    silent: bool = False


def standing(
    deployment: Deployment | None,
    pods: Sequence[Pod],
    now: float,
    *,
    dead_nodes: frozenset[str],
    since: int = 0,
    ownerless: bool = False,
) -> Standing:
    """How a workload with all these `pods` stands. A rollback counts from generation `since` on.

    `ownerless`: sets or pods are left over of a deployment that was deleted.
    Pods that are to go from a node that cannot be reached (`dead_nodes`) are not waited for.
    """
    pods = [pod for pod in pods if not (_leaving(pod) and pod.spec.node_name in dead_nodes)]
    if deployment is None:
        if ownerless:
            return Standing("going", "what it owned is being removed")
        return _standing_of_pods(pods, now)
    failed = _failure(deployment, pods, since)
    if failed is not None:
        return failed
    wanted = deployment.spec.replicas if deployment.spec.replicas is not None else 1
    status = deployment.status
    progressing = condition(status.conditions, "Progressing")
    if (
        status.observed_generation == deployment.metadata.generation
        and progressing is not None
        and progressing.reason == "NewReplicaSetAvailable"
        and len(pods) == wanted == status.available_replicas
        and not any(pod.spec.node_name in dead_nodes for pod in pods)
    ):
        return Standing("done")
    return _why_not_yet(deployment, pods, wanted, now, dead_nodes)


def _leaving(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None or not is_counted(pod)


def _standing_of_pods(pods: Sequence[Pod], now: float) -> Standing:
    """Of a workload without a deployment: pods of their own, or one that is being deleted."""
    if any(pod.metadata.deletion_timestamp for pod in pods):
        return Standing("going", "its containers are being stopped")
    for pod in pods:
        if pod.status.phase == "Failed":
            ended = main_status(pod)
            code = ended.state.terminated.exit_code if ended and ended.state.terminated else "?"
            return Standing("failed", f"{pod.metadata.name}: ended with status {code}")
        if failure_of(pod):
            return Standing("failed", failure_of(pod))
    late = [pod for pod in pods if pod.status.phase != "Succeeded" and not is_available(pod, 0, now)]
    if late and all(unschedulable(pod) for pod in late):
        return Standing("stuck", f"{late[0].metadata.name} is Pending: {unschedulable(late[0])}")
    return Standing("going", "not ready yet") if late else Standing("done")


def _failure(deployment: Deployment, pods: Sequence[Pod], since: int) -> Standing | None:
    """Set once the workload has gone back (or stopped) in full."""
    given_up = deployment.metadata.annotations.get(FAILED_REVISION) == template_hash(deployment.spec.template)
    rolled = condition(deployment.status.conditions, "RolledBack")
    if given_up:
        if pods:
            return Standing("going", "its containers are being removed")
        return Standing("failed", rolled.message if rolled else "this revision failed before")
    if rolled is None or (rolled.observed_generation or 0) < since:
        return None
    progressing = condition(deployment.status.conditions, "Progressing")
    back = (
        deployment.status.observed_generation == deployment.metadata.generation > (rolled.observed_generation or 0)
        and progressing is not None
        and progressing.reason == "NewReplicaSetAvailable"
    )
    leaving = any(_leaving(pod) for pod in pods)
    return Standing("failed", rolled.message) if back and not leaving else Standing("going", "going back")


def _why_not_yet(
    deployment: Deployment, pods: Sequence[Pod], wanted: int, now: float, dead_nodes: frozenset[str]
) -> Standing:
    wait = deployment.spec.min_ready_seconds
    alive = [pod for pod in pods if is_counted(pod)]
    late = sorted((pod for pod in alive if not is_available(pod, wait, now)), key=lambda pod: pod.metadata.name)
    good = sum(pod not in late and pod.spec.node_name not in dead_nodes for pod in alive)
    count = f"{good} of {wanted} replicas run"
    seen = deployment.status.observed_generation == deployment.metadata.generation
    unheard = sorted({pod.spec.node_name for pod in alive if pod.spec.node_name in dead_nodes})
    if seen and unheard and all(pod.spec.node_name in dead_nodes for pod in late):
        where = ", ".join(unheard)
        return Standing("stuck", f"{count}; no answer from {where}, so what runs there is not known", silent=True)
    stuck = [pod for pod in late if unschedulable(pod)]
    if seen and stuck and len(stuck) == len(late) and len(alive) >= wanted and not _can_roll(stuck):
        return Standing("stuck", f"{count}; {stuck[0].metadata.name} is Pending: {unschedulable(stuck[0])}")
    reasons = "; ".join(f"{pod.metadata.name}: {_pod_reason(pod)}" for pod in late[:3])
    return Standing("going", f"{count}{'; ' + reasons if reasons else ''}")


def _can_roll(stuck: Sequence[Pod]) -> bool:
    return any(STOP_FIRST in pod.metadata.annotations for pod in stuck)


def _pod_reason(pod: Pod) -> str:
    if not pod.spec.node_name:
        return unschedulable(pod) or "not placed yet"
    ready = condition(pod.status.conditions, "Ready")
    why = (ready.message or ready.reason) if ready else "starting"
    return f"on {pod.spec.node_name}: {why or 'not ready yet'}"
