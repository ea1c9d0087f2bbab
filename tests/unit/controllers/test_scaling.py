"""How many replicas a load asks for, and which rules hold that back."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.controllers.scaling import LIMITS, Limit, Past, Used, decide, propose
from korch.errors import InvalidError
from korch.resources.autoscaling import (
    HorizontalPodAutoscalerBehavior,
    HorizontalPodAutoscalerSpec,
    HPAScalingPolicy,
    HPAScalingRules,
    MetricSpec,
    MetricTarget,
    ResourceMetricSource,
)
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec, PodStatus, ResourceRequirements

NOW = 10_000.0


def metric(name: str = "cpu", *, percent: int | None = 50, value: str | None = None) -> MetricSpec:
    kind = "Utilization" if value is None else "AverageValue"
    target = MetricTarget(type=kind, average_utilization=None if value else percent, average_value=value)
    return MetricSpec(type="Resource", resource=ResourceMetricSource(name=name, target=target))


def spec(
    *metrics: MetricSpec, least: int = 1, most: int = 20, **behavior: HPAScalingRules
) -> HorizontalPodAutoscalerSpec:
    return HorizontalPodAutoscalerSpec(
        min_replicas=least,
        max_replicas=most,
        metrics=metrics or (metric(),),
        behavior=HorizontalPodAutoscalerBehavior(**behavior) if behavior else None,
    )


def pod(number: int, *, ready: bool = True, request: str = "100m") -> Pod:
    resources = ResourceRequirements(requests={"cpu": request, "memory": "64Mi"} if request else {})
    return Pod(
        metadata=ObjectMeta(name=f"p{number}", uid=f"u{number}"),
        spec=PodSpec(containers=(Container(name="a", resources=resources),), node_name="n1"),
        status=PodStatus(phase="Running", conditions=(Condition(type="Ready", status=str(ready)),)),
    )


def pods(count: int, *, unready: int = 0) -> list[Pod]:
    return [pod(number, ready=number >= unready) for number in range(count)]


def used(*cpu: int, memory: int = 32 << 20) -> dict[str, Used]:
    return {f"u{number}": Used(millis, memory) for number, millis in enumerate(cpu)}


@pytest.mark.parametrize(
    ("load", "wanted"),
    [((50, 50), 2), ((54, 54), 2), ((46, 46), 2), ((100, 100), 4), ((75, 76), 4), ((10, 10), 1), ((0, 0), 0)],
)
def test_the_load_over_the_target(load, wanted):
    assert propose(metric(), 2, pods(2), used(*load)).replicas == wanted


def test_a_quantity_for_each_pod():
    assert propose(metric("memory", value="16Mi"), 2, pods(2), used(0, 0)).replicas == 4
    found = propose(metric("cpu", value="100m"), 2, pods(2), used(300, 100))
    assert found.replicas == 4
    assert found.current.resource.current.average_value == "200m"


def test_what_is_not_measured_decides_for_caution():
    assert propose(metric(), 3, pods(3), used(100, 100)).replicas == 4  # the third counts as idle
    assert propose(metric(), 3, pods(3), used(10, 10)).replicas == 2  # and as busy
    assert propose(metric(), 4, pods(4, unready=2), {"u2": Used(100, 0), "u3": Used(100, 0)}).replicas == 4


def test_nothing_to_go_by():
    with pytest.raises(InvalidError, match="measured"):
        propose(metric(), 2, pods(2), {})
    with pytest.raises(InvalidError, match="missing request for cpu in container a of pod p0"):
        propose(metric(), 1, [pod(0, request="")], used(10))


def test_the_metric_that_asks_for_most_wins_and_a_missing_one_forbids_less():
    both = spec(metric(), metric("memory", percent=10))
    assert decide(both, 2, pods(2), used(10, 10), Past(), NOW).replicas == 6  # at most 4 more at a time
    odd = [pod(0, request=""), pod(1, request="")]
    found = decide(spec(metric(), metric("memory", value="64Mi")), 2, odd, used(10, 10), Past(), NOW)
    assert (found.replicas, bool(found.problem)) == (2, True)


def test_between_its_bounds():
    assert decide(spec(least=3), 1, pods(1), used(1), Past(), NOW).replicas == 3
    assert decide(spec(most=3), 9, pods(9), {}, Past(), NOW).replicas == 3
    found = decide(spec(most=3), 2, pods(2), used(100, 100), Past(), NOW)
    assert (found.replicas, found.limited) == (3, "TooManyReplicas")


def test_it_shrinks_only_when_nothing_asked_for_more_for_five_minutes():
    past, count, at = Past(), 4, NOW
    seen = []
    for _ in range(25):
        found = decide(spec(), count, pods(count), used(*[10] * count), past, at)
        past, count, at = found.past, found.replicas, at + 15
        seen.append(count)
    assert seen[:20] == [4] * 20
    assert seen[-1] == 1


def test_it_grows_by_what_the_policies_allow():
    past, count, seen = Past(), 1, []
    for step in range(4):
        found = decide(spec(most=100), count, pods(count), used(*[1000] * count), past, NOW + 15 * step)
        past, count = found.past, found.replicas
        seen.append(count)
    assert seen == [5, 10, 20, 40]
    slow = HPAScalingRules(policies=(HPAScalingPolicy(type="Pods", value=1, period_seconds=60),))
    first = decide(spec(scale_up=slow), 2, pods(2), used(500, 500), Past(), NOW)
    assert first.replicas == 3
    assert decide(spec(scale_up=slow), 3, pods(3), used(500, 500, 500), first.past, NOW + 30).replicas == 3
    assert decide(spec(scale_up=slow), 3, pods(3), used(500, 500, 500), first.past, NOW + 60).replicas == 4


def test_a_way_that_is_closed():
    never = HPAScalingRules(select_policy="Disabled", stabilization_window_seconds=0)
    assert decide(spec(scale_down=never), 4, pods(4), used(1, 1, 1, 1), Past(), NOW).replicas == 4


@given(
    count=st.integers(1, 12),
    least=st.integers(1, 5),
    more=st.integers(0, 10),
    load=st.lists(st.integers(0, 400), min_size=12, max_size=12),
    unready=st.integers(0, 12),
    percent=st.integers(1, 200),
)
def test_it_stays_within_its_bounds_and_never_moves_without_a_reason(count, least, more, load, unready, percent):
    wanted = spec(metric(percent=percent), least=least, most=least + more)
    figures = {f"u{number}": Used(load[number], 1) for number in range(unready, count)}
    found = decide(wanted, count, pods(count, unready=unready), figures, Past(), NOW)
    assert least <= found.replicas <= least + more
    if least <= count <= least + more and not figures:
        assert found.replicas == count
    if (
        figures
        and min(load[:count]) * 100 >= percent * 100 * 2
        and unready == 0
        and count < least + more
        and count >= least
    ):
        assert found.replicas > count


def test_every_limit_is_told_in_words():
    assert LIMITS.keys() == set(get_args(Limit)) - {""}
