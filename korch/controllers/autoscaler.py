"""HorizontalPodAutoscaler: measures the pods of a workload now and then, and wishes for as many as they ask for."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from msgspec.structs import replace

from korch.controllers.scaling import LIMITS, Decision, Past, Used, decide
from korch.errors import KorchError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.autoscaling import HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus
from korch.resources.meta import Condition, LabelSelector
from korch.resources.pod import Pod
from korch.resources.podstate import with_condition
from korch.resources.selectors import matches
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment, ReplicaSet

EVERY_S = 15.0
Gauge = Callable[[frozenset[str]], Awaitable[Mapping[str, Used]]]
"""What the pods on these nodes use, by uid; pods that cannot be measured are missing."""


class _Target(msgspec.Struct, frozen=True):
    """The workload that is scaled."""

    type: type[Deployment] | type[ReplicaSet]
    name: str
    replicas: int
    selector: LabelSelector


class AutoscalerController:
    """Looks after one autoscaler at a time. What was done lately is only remembered: a new master waits a little."""

    def __init__(self, view: View, clock: Clock, gauge: Gauge) -> None:
        self._view, self._clock, self._gauge = view, clock, gauge
        self._past: dict[str, Past] = {}

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Measure and decide for one autoscaler (namespace, name)."""
        hpa = self._view.find(HorizontalPodAutoscaler, key[1], key[0])
        if hpa is None:
            return None
        target = self._target(hpa)
        if target is None:
            ref = hpa.spec.scale_target_ref
            await self._write(
                hpa,
                _unable(hpa, "FailedGetScale", f"there is no {ref.kind} {ref.name} in namespace {key[0]}", self._now),
            )
            return EVERY_S
        if target.replicas == 0:
            text = "scaling is disabled since the replica count of the target is zero"
            await self._write(hpa, _inactive(hpa, target.replicas, "ScalingDisabled", text, self._now))
            return EVERY_S
        pods = [pod for pod in self._view.all(Pod, key[0]) if matches(target.selector, pod.metadata.labels)]
        used = await self._gauge(frozenset(pod.spec.node_name for pod in pods if pod.spec.node_name))
        past = self._past.get(hpa.metadata.uid, Past())
        decision = decide(hpa.spec, target.replicas, pods, used, past, self._clock.now())
        if decision.replicas != target.replicas:
            await self._scale(hpa, target, decision)
        self._past[hpa.metadata.uid] = decision.past
        await self._write(hpa, _status(hpa, target.replicas, decision, self._now))
        return EVERY_S

    @property
    def _now(self) -> str:
        return rfc3339(self._clock.now())

    def _target(self, hpa: HorizontalPodAutoscaler) -> _Target | None:
        ref, namespace = hpa.spec.scale_target_ref, hpa.metadata.namespace
        found: Deployment | ReplicaSet | None
        if ref.kind == "Deployment":
            found = self._view.find(Deployment, ref.name, namespace)
        else:
            found = self._view.find(ReplicaSet, ref.name, namespace)
        if found is None:
            return None
        wished = 1 if found.spec.replicas is None else found.spec.replicas
        return _Target(type(found), ref.name, wished, found.spec.selector)

    async def _scale(self, hpa: HorizontalPodAutoscaler, target: _Target, decision: Decision) -> None:
        """Only from the number that was judged: another one is somebody's wish of a moment ago."""

        def change(found: Deployment | ReplicaSet) -> Deployment | ReplicaSet | None:
            if found.spec.replicas != target.replicas:
                return None
            return replace(found, spec=replace(found.spec, replicas=decision.replicas))

        namespace = hpa.metadata.namespace
        try:
            await self._view.modify(target.type, target.name, namespace, change)
        except KorchError as error:
            await self._event(hpa, "Warning", "FailedRescale", f"New size: {decision.replicas}; error: {error}")
            raise
        why = LIMITS.get(decision.limited, "the measured load")
        await self._event(hpa, "Normal", "SuccessfulRescale", f"New size: {decision.replicas}; reason: {why}")

    async def _write(self, hpa: HorizontalPodAutoscaler, status: HorizontalPodAutoscalerStatus) -> None:
        if status != hpa.status:
            await self._view.update_status(replace(hpa, status=status))

    async def _event(self, hpa: HorizontalPodAutoscaler, type_: str, reason: str, message: str) -> None:
        await self._view.objects.record_event(
            hpa,
            type=type_,  # type: ignore[arg-type]
            reason=reason,
            message=message,
            component="horizontal-pod-autoscaler",
        )


def _before(hpa: HorizontalPodAutoscaler) -> HorizontalPodAutoscalerStatus:
    return hpa.status or HorizontalPodAutoscalerStatus(desired_replicas=0, current_replicas=0)


def _unable(hpa: HorizontalPodAutoscaler, reason: str, message: str, now: str) -> HorizontalPodAutoscalerStatus:
    status = _before(hpa)
    found = Condition(type="AbleToScale", status="False", reason=reason, message=message)
    return replace(
        status,
        observed_generation=hpa.metadata.generation,
        current_metrics=(),
        conditions=with_condition(status.conditions, found, now),
    )


def _inactive(
    hpa: HorizontalPodAutoscaler, current: int, reason: str, message: str, now: str
) -> HorizontalPodAutoscalerStatus:
    status = _before(hpa)
    able = Condition(type="AbleToScale", status="True", reason="SucceededGetScale", message="the target was found")
    idle = Condition(type="ScalingActive", status="False", reason=reason, message=message)
    conditions = with_condition(with_condition(status.conditions, able, now), idle, now)
    return replace(
        status,
        observed_generation=hpa.metadata.generation,
        current_replicas=current,
        desired_replicas=current,
        current_metrics=(),
        conditions=conditions,
    )


def _status(hpa: HorizontalPodAutoscaler, current: int, decision: Decision, now: str) -> HorizontalPodAutoscalerStatus:
    """What is shown: the load as measured, what was decided, and which rule held it back."""
    status = _before(hpa)
    steady = decision.limited in ("ScaleDownStabilized", "ScaleUpStabilized")
    why = LIMITS.get(decision.limited, "")
    able = Condition(type="AbleToScale", status="True", reason="ReadyForNewScale", message="nothing holds it back")
    if steady:
        able = Condition(type="AbleToScale", status="True", reason=decision.limited, message=why)
    active = Condition(type="ScalingActive", status="True", reason="ValidMetricFound", message="the load was measured")
    if decision.problem and not decision.metrics:
        active = Condition(
            type="ScalingActive", status="False", reason="FailedGetResourceMetric", message=decision.problem
        )
    limited = Condition(
        type="ScalingLimited", status="False", reason="DesiredWithinRange", message="the number is within its bounds"
    )
    if decision.limited and not steady:
        limited = Condition(type="ScalingLimited", status="True", reason=decision.limited, message=why)
    conditions = status.conditions
    for found in (able, active, limited):
        conditions = with_condition(conditions, found, now)
    return replace(
        status,
        observed_generation=hpa.metadata.generation,
        current_replicas=current,
        desired_replicas=decision.replicas,
        last_scale_time=now if decision.replicas != current else status.last_scale_time,
        current_metrics=decision.metrics,
        conditions=conditions,
    )
