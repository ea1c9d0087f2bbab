"""How many replicas the measured load asks for. Pure. The algorithm is that of Kubernetes' HorizontalPodAutoscaler.

What is not measured decides for caution: pods without a figure count as idle when there is a reason to grow, and as
working to capacity when there is a reason to shrink; pods that are not ready yet count as idle.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from korch.errors import InvalidError
from korch.resources.autoscaling import (
    HorizontalPodAutoscalerSpec,
    HPAScalingPolicy,
    HPAScalingRules,
    MetricSpec,
    MetricStatus,
    MetricValueStatus,
    ResourceMetricStatus,
)
from korch.resources.pod import Pod
from korch.resources.podstate import is_counted, is_ready
from korch.resources.quantity import cpu_millis, memory_bytes

TOLERANCE = 0.1  # of the target: load is never quite steady
DOWN_WINDOW_S = 300
PERIOD_S = 15
_UP = HPAScalingRules(
    stabilization_window_seconds=0,
    select_policy="Max",
    policies=(
        HPAScalingPolicy(type="Percent", value=100, period_seconds=PERIOD_S),
        HPAScalingPolicy(type="Pods", value=4, period_seconds=PERIOD_S),
    ),
)
_DOWN = HPAScalingRules(
    stabilization_window_seconds=DOWN_WINDOW_S,
    select_policy="Max",
    policies=(HPAScalingPolicy(type="Percent", value=100, period_seconds=PERIOD_S),),
)
_READ: dict[str, Callable[[str | int | float], int]] = {"cpu": cpu_millis, "memory": memory_bytes}


# What held back the wish of the load.
Limit = Literal[
    "",
    "ScaleDownLimit",
    "ScaleDownStabilized",
    "ScaleUpLimit",
    "ScaleUpStabilized",
    "TooFewReplicas",
    "TooManyReplicas",
]
LIMITS: Mapping[Limit, str] = {
    "ScaleDownLimit": "it shrinks no faster than behavior.scaleDown allows",
    "ScaleDownStabilized": "the load asks for fewer replicas, and may rise again soon",
    "ScaleUpLimit": "it grows no faster than behavior.scaleUp allows",
    "ScaleUpStabilized": "the load asks for more replicas, and may fall again soon",
    "TooFewReplicas": "there are never fewer replicas than minReplicas",
    "TooManyReplicas": "there are never more replicas than maxReplicas",
}


class Used(msgspec.Struct, frozen=True):
    """What a pod uses."""

    cpu_millis: int
    memory_bytes: int

    def of(self, resource: str) -> int:
        """One figure."""
        return self.cpu_millis if resource == "cpu" else self.memory_bytes


class Past(msgspec.Struct, frozen=True):
    """What was recommended and done lately: (time, replicas) and (time, change), oldest first."""

    recommended: tuple[tuple[float, int], ...] = ()
    changed: tuple[tuple[float, int], ...] = ()


class Proposal(msgspec.Struct, frozen=True):
    """The replicas that one metric asks for, and what was measured."""

    replicas: int
    current: MetricStatus


class Decision(msgspec.Struct, frozen=True):
    """`replicas` after all rules. `limited`: which one held back the load's wish; `problem`: what is not measured."""

    replicas: int
    past: Past
    limited: Limit = ""
    problem: str = ""
    metrics: tuple[MetricStatus, ...] = msgspec.field(default=())


def decide(
    spec: HorizontalPodAutoscalerSpec,
    current: int,
    pods: Sequence[Pod],
    used: Mapping[str, Used],
    past: Past,
    now: float,
) -> Decision:
    """How many replicas there shall be, now that `current` are wished for; `used` is by pod uid."""
    least, most = spec.min_replicas or 1, spec.max_replicas
    if not least <= current <= most:
        wanted = min(max(current, least), most)
        change = (*past.changed, (now, wanted - current))
        return Decision(
            wanted, Past(past.recommended, change), "TooFewReplicas" if wanted > current else "TooManyReplicas"
        )
    proposals, problems = [], []
    for metric in spec.metrics:
        try:
            proposals.append(propose(metric, current, pods, used))
        except InvalidError as error:
            problems.append(str(error))
    wished = max((found.replicas for found in proposals), default=current)
    if problems and wished < current:
        wished = current  # a measure that is missing may be the one that asks for more
    if not past.recommended:
        past = Past(((now, current),), past.changed)
    wanted, limited, recommended = _held_back(spec, current, wished, past, now)
    changed = tuple(found for found in past.changed if now - found[0] <= 3600)
    if wanted != current:
        changed = (*changed, (now, wanted - current))
    metrics = tuple(found.current for found in proposals)
    return Decision(wanted, Past(recommended, changed), limited, "; ".join(problems), metrics)


# --- what a metric asks for ---


def propose(metric: MetricSpec, current: int, pods: Sequence[Pod], used: Mapping[str, Used]) -> Proposal:
    """The replicas for which the metric would be at its target. `InvalidError` when nothing is measured."""
    assert metric.resource is not None
    name, target = metric.resource.name, metric.resource.target
    counted = sorted(filter(is_counted, pods), key=lambda pod: pod.metadata.name)
    ready = [pod for pod in counted if is_ready(pod)]
    figures = [used[pod.metadata.uid].of(name) for pod in ready if pod.metadata.uid in used]
    if not figures:
        raise InvalidError(f"no {name} of any ready pod is measured yet")
    if target.type == "Utilization":
        request = sum(_request(pod, name) for pod in counted) / len(counted)
        goal = request * (target.average_utilization or 0) / 100
    else:
        request, goal = 0.0, float(_READ[name](target.average_value or 0))
    replicas = _replicas(current, figures, len(ready) - len(figures), len(counted) - len(ready), goal)
    average = sum(figures) / len(figures)
    shown = MetricValueStatus(
        average_value=f"{round(average)}m" if name == "cpu" else str(round(average)),
        average_utilization=round(average * 100 / request) if request else None,
    )
    return Proposal(replicas, MetricStatus(type="Resource", resource=ResourceMetricStatus(name=name, current=shown)))


def _request(pod: Pod, resource: str) -> int:
    total = 0
    for container in pod.spec.containers:
        value = container.resources.requests.get(resource)
        amount = _READ[resource](value) if value is not None else 0
        if not amount:
            raise InvalidError(
                f"missing request for {resource} in container {container.name} of pod {pod.metadata.name}"
            )
        total += amount
    return total


def _replicas(current: int, figures: Sequence[int], missing: int, unready: int, goal: float) -> int:
    ratio = sum(figures) / (len(figures) * goal)
    if not missing and not unready:
        return current if abs(1 - ratio) <= TOLERANCE else _up(ratio * len(figures))
    total, count = float(sum(figures)), len(figures) + missing
    if ratio > 1:
        count += unready
    else:
        total += missing * goal
    again = total / (count * goal)
    if abs(1 - again) <= TOLERANCE or (again > 1) != (ratio > 1):
        return current
    wanted = _up(again * count)
    return current if (wanted > current) != (again > 1) else wanted


def _up(value: float) -> int:
    return math.ceil(round(value, 6))


# --- what the rules let through ---


def _held_back(
    spec: HorizontalPodAutoscalerSpec, current: int, wished: int, past: Past, now: float
) -> tuple[int, Limit, tuple[tuple[float, int], ...]]:
    """(replicas, which rule held them back, recommendations to remember)."""
    up = _rules(spec, "up")
    down = _rules(spec, "down")
    longest = max(up.stabilization_window_seconds or 0, down.stabilization_window_seconds or 0)
    recommended = (*(found for found in past.recommended if now - found[0] <= longest), (now, wished))
    lowest = min((n for at, n in recommended if now - at < (up.stabilization_window_seconds or 0)), default=wished)
    highest = max((n for at, n in recommended if now - at < (down.stabilization_window_seconds or 0)), default=wished)
    steady = max(current, min(wished, lowest)) if wished > current else min(current, max(wished, highest))
    limited: Limit = "ScaleDownStabilized" if steady > wished else ("ScaleUpStabilized" if steady < wished else "")
    if steady > current:
        allowed = _limit(up, current, past, now, "up")
        steady, limited = (allowed, "ScaleUpLimit") if allowed < steady else (steady, limited)
    elif steady < current:
        allowed = _limit(down, current, past, now, "down")
        steady, limited = (allowed, "ScaleDownLimit") if allowed > steady else (steady, limited)
    bounded = min(max(steady, spec.min_replicas or 1), spec.max_replicas)
    if bounded != steady:
        limited = "TooFewReplicas" if bounded > steady else "TooManyReplicas"
    return bounded, limited, recommended


def _rules(spec: HorizontalPodAutoscalerSpec, way: Literal["up", "down"]) -> HPAScalingRules:
    usual = _UP if way == "up" else _DOWN
    own = None
    if spec.behavior is not None:
        own = spec.behavior.scale_up if way == "up" else spec.behavior.scale_down
    if own is None:
        return usual
    window_s = own.stabilization_window_seconds
    return HPAScalingRules(
        stabilization_window_seconds=usual.stabilization_window_seconds if window_s is None else window_s,
        select_policy=own.select_policy or "Max",
        policies=own.policies or usual.policies,
    )


def _limit(rules: HPAScalingRules, current: int, past: Past, now: float, way: Literal["up", "down"]) -> int:
    """How far it may go this time, one way."""
    if rules.select_policy == "Disabled":
        return current
    sign = 1 if way == "up" else -1
    limits = []
    for policy in rules.policies:
        lately = sum(change for at, change in past.changed if now - at < policy.period_seconds and change * sign > 0)
        before = current - lately
        if policy.type == "Pods":
            limits.append(before + sign * policy.value)
        else:
            share = before * (1 + sign * policy.value / 100)
            limits.append(_up(share) if way == "up" else math.floor(share))
    far = max if (rules.select_policy == "Max") == (way == "up") else min
    found = far(limits)
    return max(found, current) if way == "up" else max(0, min(found, current))
