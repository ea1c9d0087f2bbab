"""HorizontalPodAutoscaler: as many replicas as the measured load asks for. Shapes are Kubernetes' (autoscaling/v2)."""

from typing import Any

from korch.resources.meta import Condition, Object, Struct


class CrossVersionObjectReference(Struct, frozen=True, kw_only=True):
    """The workload that is scaled."""

    kind: str = ""
    name: str = ""
    api_version: str = ""


class MetricTarget(Struct, frozen=True, kw_only=True):
    """`type`: Utilization (percent of what the pods request) or AverageValue (a quantity for each pod)."""

    type: str = ""
    average_utilization: int | None = None
    average_value: str | int | float | None = None
    value: str | int | float | None = None


class ResourceMetricSource(Struct, frozen=True, kw_only=True):
    """`name`: cpu or memory, over all containers of a pod."""

    name: str
    target: MetricTarget


class MetricSpec(Struct, frozen=True, kw_only=True):
    """`type`: Resource; others need metrics that korch does not measure."""

    type: str
    resource: ResourceMetricSource | None = None


class HPAScalingPolicy(Struct, frozen=True, kw_only=True):
    """At most `value` pods or percent in `period_seconds`. `type`: Pods or Percent."""

    type: str
    value: int
    period_seconds: int


class HPAScalingRules(Struct, frozen=True, kw_only=True):
    """How fast it may go one way. `select_policy`: Max, Min or Disabled."""

    stabilization_window_seconds: int | None = None
    select_policy: str | None = None
    policies: tuple[HPAScalingPolicy, ...] = ()


class HorizontalPodAutoscalerBehavior(Struct, frozen=True, kw_only=True):
    """How fast it may go."""

    scale_up: HPAScalingRules | None = None
    scale_down: HPAScalingRules | None = None


class HorizontalPodAutoscalerSpec(Struct, frozen=True, kw_only=True):
    """Which workload, between which bounds, by which measure."""

    scale_target_ref: CrossVersionObjectReference = CrossVersionObjectReference()
    min_replicas: int | None = None
    max_replicas: int = 0
    metrics: tuple[MetricSpec, ...] = ()
    behavior: HorizontalPodAutoscalerBehavior | None = None


class MetricValueStatus(Struct, frozen=True, kw_only=True):
    """As measured."""

    average_utilization: int | None = None
    average_value: str | None = None
    value: str | None = None


class ResourceMetricStatus(Struct, frozen=True, kw_only=True):
    """One resource as measured."""

    name: str
    current: MetricValueStatus


class MetricStatus(Struct, frozen=True, kw_only=True):
    """One metric as measured."""

    type: str
    resource: ResourceMetricStatus | None = None


class HorizontalPodAutoscalerStatus(Struct, frozen=True, kw_only=True):
    """What was measured and decided; conditions AbleToScale, ScalingActive, ScalingLimited."""

    desired_replicas: int
    current_replicas: int
    observed_generation: int | None = None
    last_scale_time: str | None = None
    current_metrics: tuple[MetricStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()


class HorizontalPodAutoscaler(Object, frozen=True, kw_only=True):
    """autoscaling/v2 HorizontalPodAutoscaler."""

    spec: HorizontalPodAutoscalerSpec = HorizontalPodAutoscalerSpec()
    status: HorizontalPodAutoscalerStatus | None = None


def to_v1(hpa: dict[str, Any]) -> dict[str, Any]:
    """The plain data of an autoscaling/v2 object as autoscaling/v1; what v1 cannot say is left out."""
    spec, status = hpa.get("spec", {}), hpa.get("status")
    target = _cpu(spec.get("metrics", ()), "target")
    old = {key: spec[key] for key in ("scaleTargetRef", "minReplicas", "maxReplicas") if key in spec}
    if target is not None:
        old["targetCPUUtilizationPercentage"] = target
    made = {**hpa, "apiVersion": "autoscaling/v1", "spec": old}
    if status is not None:
        names = ("observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas")
        shown = {key: status[key] for key in names if key in status}
        current = _cpu(status.get("currentMetrics", ()), "current")
        made["status"] = shown if current is None else {**shown, "currentCPUUtilizationPercentage": current}
    return made


def from_v1(hpa: dict[str, Any]) -> dict[str, Any]:
    """The plain data of an autoscaling/v1 object as autoscaling/v2; its status is left out."""
    spec = dict(hpa.get("spec") or {})
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    rest = {key: value for key, value in hpa.items() if key != "status"}
    return {**rest, "apiVersion": "autoscaling/v2", "spec": spec}


def _cpu(metrics: Any, field: str) -> int | None:
    for metric in metrics:
        resource = metric.get("resource") or {}
        if resource.get("name") == "cpu" and "averageUtilization" in resource.get(field, {}):
            percent: int = resource[field]["averageUtilization"]
            return percent
    return None
