"""Whether a workload has come true: what a person who waits for it is told. Pure."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from korch.controllers.daemonset import plan_daemons
from korch.resources.annotations import FAILED_REVISION, STOP_FIRST
from korch.resources.leaving import is_leaving
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.podstate import (
    changing_of,
    condition,
    controller_of,
    failure_of,
    is_available,
    is_counted,
    last_log,
    statuses_of,
    unschedulable,
)
from korch.resources.templates import template_hash
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet


class Standing(msgspec.Struct, frozen=True):
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
    alone: ReplicaSet | None = None,
) -> Standing:
    """How a workload with all these `pods` stands. A rollback counts from generation `since` on.

    `ownerless`: sets or pods are left over of a deployment that was deleted. `alone`: the set that is the workload.
    Pods that are to go from a node that cannot be reached (`dead_nodes`) are not waited for.
    """
    if deployment is None:
        if ownerless:
            return Standing("going", "what it owned is being removed")
        pods = [pod for pod in pods if not (pod.metadata.deletion_timestamp and pod.spec.node_name in dead_nodes)]
        return _standing_of_set(alone, pods, now, dead_nodes) if alone else _standing_of_pods(pods, now, dead_nodes)
    pods = [pod for pod in pods if controller_of(pod) and not (_leaving(pod) and pod.spec.node_name in dead_nodes)]
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
        and all(
            is_available(pod, deployment.spec.min_ready_seconds, now) for pod in pods
        )  # may be newer than the status
        and not any(pod.spec.node_name in dead_nodes or is_leaving(pod) for pod in pods)
    ):
        return Standing("done")
    if deployment.spec.paused:
        return Standing(
            "stuck", f"it is paused: nothing is rolled out until `korch rollout resume {deployment.metadata.name}`"
        )
    seen = status.observed_generation == deployment.metadata.generation
    return _why_not_yet(pods, wanted, deployment.spec.min_ready_seconds, now, dead_nodes, seen=seen)


def _leaving(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None or not is_counted(pod)


def _standing_of_set(alone: ReplicaSet, pods: Sequence[Pod], now: float, dead_nodes: frozenset[str]) -> Standing:
    """Of a set that no deployment made."""
    wanted = 1 if alone.spec.replicas is None else alone.spec.replicas
    wait = alone.spec.min_ready_seconds
    if len(pods) == wanted and all(
        is_available(pod, wait, now) and pod.spec.node_name not in dead_nodes and not is_leaving(pod) for pod in pods
    ):
        return Standing("done")
    return _why_not_yet(pods, wanted, wait, now, dead_nodes, seen=True)


def standing_of_daemons(
    daemonset: DaemonSet, nodes: Sequence[Node], pods: Sequence[Pod], now: float, *, dead_nodes: frozenset[str]
) -> Standing:
    """How a daemon set with all these `pods` stands: done when every node that wants one has one that is available."""
    pods = [pod for pod in pods if not (pod.metadata.deletion_timestamp and pod.spec.node_name in dead_nodes)]
    plan = plan_daemons(daemonset, nodes, pods, now)
    counts, wait_s = plan.status, daemonset.spec.min_ready_seconds
    wanted = counts.desired_number_scheduled
    settled = not (plan.create or plan.delete or any(_leaving(pod) or is_leaving(pod) for pod in pods))
    silent = any(pod.spec.node_name in dead_nodes for pod in pods)
    if settled and not silent and counts.number_available == wanted:
        return Standing("done")
    return _why_not_yet(pods, wanted, wait_s, now, dead_nodes, seen=True)


def _standing_of_pods(pods: Sequence[Pod], now: float, dead_nodes: frozenset[str]) -> Standing:
    """Of pods of their own, and of what is left of a workload that is being deleted."""
    if any(pod.metadata.deletion_timestamp for pod in pods):
        return Standing("going", "its containers are being stopped")
    for pod in pods:
        if pod.status.phase == "Failed":
            return Standing("failed", f"{pod.metadata.name}: {_end_of(pod)}")
        if failure_of(pod):
            return Standing("failed", failure_of(pod))
    alive = [pod for pod in pods if pod.status.phase != "Succeeded"]
    for pod in alive:
        if (changing := changing_of(pod)) and pod.spec.node_name not in dead_nodes:
            text = f"container {', '.join(changing)} of {pod.metadata.name} still has the image that it had before"
            return Standing("going", text)
    if not any(is_leaving(pod) for pod in alive) and all(
        is_available(pod, 0, now) and pod.spec.node_name not in dead_nodes for pod in alive
    ):
        return Standing("done")
    return _why_not_yet(alive, len(alive), 0, now, dead_nodes, seen=True)


def _end_of(pod: Pod) -> str:
    """How a failed pod ended."""
    ends = [status.state.terminated for status in statuses_of(pod) if status.state.terminated is not None]
    if ends:
        worst = next((end for end in ends if end.exit_code), ends[-1])
        return f"ended with status {worst.exit_code}{last_log(pod)}"
    return pod.status.message or pod.status.reason or "failed"


def _failure(deployment: Deployment, pods: Sequence[Pod], since: int) -> Standing | None:
    """Set once the workload has gone back (or stopped) in full."""
    given_up = deployment.metadata.annotations.get(FAILED_REVISION) == template_hash(deployment.spec.template)
    rolled = condition(deployment.status.conditions, "RolledBack")
    if given_up:
        if pods:
            return Standing("going", f"{rolled.message if rolled else 'it failed'} Not all of them are gone yet.")
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
    if back and not leaving:
        return Standing("failed", rolled.message)
    return Standing("going", f"{rolled.message} That is not finished yet.")


def _why_not_yet(
    pods: Sequence[Pod], wanted: int, wait_s: int, now: float, dead_nodes: frozenset[str], *, seen: bool
) -> Standing:
    """Of a wish that is not true. `seen`: the controllers have looked at it."""
    alive = [pod for pod in pods if is_counted(pod)]
    late = sorted((pod for pod in alive if not is_available(pod, wait_s, now)), key=lambda pod: pod.metadata.name)
    good = sum(pod not in late and pod.spec.node_name not in dead_nodes for pod in alive)
    count = f"{good} of {wanted} replicas run"
    unheard = sorted({pod.spec.node_name for pod in alive if pod.spec.node_name in dead_nodes})
    if seen and unheard and all(pod.spec.node_name in dead_nodes for pod in late):
        where = ", ".join(unheard)
        return Standing("stuck", f"{count}; no answer from {where}, so what runs there is not known", silent=True)
    leaving = sorted((pod for pod in pods if _leaving(pod)), key=lambda pod: pod.metadata.name)
    stuck = [pod for pod in late if unschedulable(pod)]
    if seen and stuck and len(stuck) == len(late) and len(alive) >= wanted and not leaving and not _can_roll(stuck):
        return Standing("stuck", f"{count}; {stuck[0].metadata.name} is Pending: {unschedulable(stuck[0])}")
    reasons = [f"{pod.metadata.name}: {_pod_reason(pod)}" for pod in late[:3]]
    reasons += [f"{pod.metadata.name} on {pod.spec.node_name or 'no node'} is stopping" for pod in leaving[:2]]
    reasons += [f"{pod.metadata.name} is to leave {pod.spec.node_name}" for pod in alive if is_leaving(pod)][:2]
    return Standing("going", "; ".join((count, *reasons)))


def _can_roll(stuck: Sequence[Pod]) -> bool:
    return any(STOP_FIRST in pod.metadata.annotations for pod in stuck)


def _pod_reason(pod: Pod) -> str:
    if not pod.spec.node_name:
        return unschedulable(pod) or "not placed yet"
    if failure_of(pod):
        return failure_of(pod).removeprefix(f"{pod.metadata.name} ")
    ready = condition(pod.status.conditions, "Ready")
    why = (ready.message or ready.reason) if ready else "starting"
    return f"on {pod.spec.node_name}: {why or 'not ready yet'}"
