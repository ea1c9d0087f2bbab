"""Pods that are to leave their node, and those that take their places. Pure.

A mark on the pod is the whole wish, so that it outlives every process: its set makes a successor beside it, which
counts for the same replica, and the pod goes once that one is available.
"""

from collections.abc import Iterable

from korch.resources.annotations import EVICT, REPLACES
from korch.resources.pod import Pod
from korch.resources.podstate import controller_of, is_counted

START_FIRST, STOP_FIRST = "start-first", "stop-first"


def is_leaving(pod: Pod) -> bool:
    """Whether it is marked to leave its node, and has not gone yet."""
    return EVICT in pod.metadata.annotations and is_counted(pod)


def waits_for_successor(pod: Pod) -> bool:
    """Whether another pod has to be available before this one goes."""
    owner = controller_of(pod)
    stop_first = pod.metadata.annotations.get(EVICT) == STOP_FIRST
    return is_leaving(pod) and not stop_first and owner is not None and owner.kind == "ReplicaSet"


def holds_its_place(pod: Pod) -> bool:
    """Whether nothing may start in its place yet: it stops first, and is still there."""
    marked = pod.metadata.annotations.get(EVICT) == STOP_FIRST
    return marked and pod.metadata.deletion_timestamp is not None and bool(pod.spec.node_name)


def successors(pods: Iterable[Pod]) -> dict[str, Pod]:
    """Uid of a pod that waits → the pod that takes its place; at most one each, the first by name."""
    counted = [pod for pod in pods if is_counted(pod)]
    waiting = {pod.metadata.uid for pod in counted if waits_for_successor(pod)}
    found: dict[str, Pod] = {}
    for pod in sorted(counted, key=lambda one: one.metadata.name):
        replaced = pod.metadata.annotations.get(REPLACES, "")
        if replaced in waiting and pod.metadata.uid not in waiting:
            found.setdefault(replaced, pod)
    return found


def replicas_of(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """The pods without those that take the place of one that still stands: one replica, one pod."""
    known = tuple(pods)
    doubled = {pod.metadata.uid for pod in successors(known).values()}
    return tuple(pod for pod in known if pod.metadata.uid not in doubled)
