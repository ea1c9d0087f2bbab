"""For property tests of planners: a steady profile, pods in every state that may be met, inputs in another order.

The promise that they check: a plan that was carried out is followed by an empty one, what rolls never goes under its
floor by the planner's own acts, and the order of input is irrelevant.
"""

import random
from collections.abc import Collection, Mapping
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.resources.annotations import EVICT, EVICT_WHY, STOP_FIRST
from korch.resources.codec import with_meta
from korch.resources.meta import Condition
from korch.resources.pod import ContainerState, ContainerStateTerminated, ContainerStatus, Pod
from korch.resources.times import rfc3339

K = TypeVar("K")
T = TypeVar("T")

NOW = 1_000_000.0
DICE = st.randoms(use_true_random=False)


def steady(examples: int) -> settings:
    """The same examples in every run: what fails here fails again."""
    return settings(max_examples=examples, deadline=None, derandomize=True)


def mixed(found: Collection[T], dice: random.Random) -> list[T]:
    """The same ones in another order."""
    return dice.sample(list(found), len(found))


def mixed_keys(found: Mapping[K, T], dice: random.Random) -> dict[K, T]:
    """The same mapping, filled in another order."""
    return dict(mixed(found.items(), dice))


def ready(pod: Pod, since: float, *, node: str = "n1") -> Pod:
    """The pod as it runs and serves since then."""
    conditions = (Condition(type="Ready", status="True", last_transition_time=rfc3339(since)),)
    status = replace(pod.status, phase="Running", conditions=conditions)
    return replace(pod, spec=replace(pod.spec, node_name=pod.spec.node_name or node), status=status)


def unready(pod: Pod) -> Pod:
    """The pod as it runs and serves nobody."""
    conditions = (Condition(type="Ready", status="False", last_transition_time=rfc3339(NOW - 5)),)
    status = replace(pod.status, phase="Running", conditions=conditions)
    return replace(pod, spec=replace(pod.spec, node_name=pod.spec.node_name or "n1"), status=status)


def unplaced(pod: Pod, why: str, victim: str = "") -> Pod:
    """The pod as it fits nowhere; `victim`: whose end would make room."""
    conditions = (Condition(type="PodScheduled", status="False", reason="Unschedulable", message=why),)
    pod = with_meta(pod, annotations={**pod.metadata.annotations, **({STOP_FIRST: victim} if victim else {})})
    return replace(pod, status=replace(pod.status, phase="Pending", conditions=conditions))


def crashed(pod: Pod) -> Pod:
    """The pod as its container died and was started again."""
    ended = ContainerState(terminated=ContainerStateTerminated(exit_code=3))
    status = ContainerStatus(name=pod.spec.containers[0].name, state=ended, restart_count=1)
    pod = unready(pod)
    return replace(pod, status=replace(pod.status, container_statuses=(status,)))


def ended(pod: Pod, phase: str) -> Pod:
    """The pod as all of it is over."""
    return replace(unready(pod), status=replace(pod.status, phase=phase))


def going(pod: Pod) -> Pod:
    """The pod on its way out: its containers are being stopped."""
    return with_meta(pod, deletion_timestamp=rfc3339(NOW - 1))


def to_leave(pod: Pod, how: str) -> Pod:
    """The pod, marked to leave its node."""
    return with_meta(pod, annotations={**pod.metadata.annotations, EVICT: how, EVICT_WHY: "drain"})


STATES = {
    "good": lambda pod: ready(pod, NOW - 1000),
    "fresh": lambda pod: ready(pod, NOW - 1),
    "new": lambda pod: pod,
    "bound": lambda pod: replace(pod, spec=replace(pod.spec, node_name=pod.spec.node_name or "n1")),
    "unready": unready,
    "unplaced": lambda pod: unplaced(pod, f"0/1 nodes: {pod.metadata.name} is too large"),
    "crashed": crashed,
    "failed": lambda pod: ended(pod, "Failed"),
    "succeeded": lambda pod: ended(pod, "Succeeded"),
    "going": lambda pod: going(ready(pod, NOW - 1000)),
}
"""What a pod of a set may be like; `fresh` ones are ready and not yet available where they have to stay so a while."""
