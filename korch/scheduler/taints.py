"""What taints of a node mean for a pod: whether it may come, and how long it may stay. Pure."""

import math
from collections.abc import Sequence
from typing import Final

from korch.resources.node import Taint
from korch.resources.pod import Pod, Toleration

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
DISK_PRESSURE: Final = "node.kubernetes.io/disk-pressure"
MEMORY_PRESSURE: Final = "node.kubernetes.io/memory-pressure"
UNSCHEDULABLE: Final = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether one of the tolerations is for this taint."""
    return any(_is_for(toleration, taint) for toleration in tolerations)


def _is_for(toleration: Toleration, taint: Taint) -> bool:
    return (
        (not toleration.effect or toleration.effect == taint.effect)
        and (toleration.key == taint.key or (not toleration.key and toleration.operator == "Exists"))
        and (toleration.operator == "Exists" or toleration.value == taint.value)
    )


def eviction_due_s(pod: Pod, taints: Sequence[Taint], since: float, now: float) -> float | None:
    """Seconds from `now` until the pod must leave a node with these taints; 0.0: at once; None: it may stay.

    `since` is when the NoExecute taints came, on the clock of `now`; other effects make nobody leave. As in Kubernetes,
    a taint that nothing tolerates ends the stay at once, and of several tolerations the one with the shortest
    `tolerationSeconds` counts (none: for ever).
    """
    stays_s = [_stay_s(pod.spec.tolerations, taint) for taint in taints if taint.effect == "NoExecute"]
    shortest = min(stays_s, default=math.inf)
    return None if math.isinf(shortest) else max(0.0, since + shortest - now)


def _stay_s(tolerations: Sequence[Toleration], taint: Taint) -> float:
    used = [toleration.toleration_seconds for toleration in tolerations if _is_for(toleration, taint)]
    if not used:
        return 0.0
    return min((float(max(0, seconds)) for seconds in used if seconds is not None), default=math.inf)
