"""PodDisruptionBudget: how many pods of an app may be missing because somebody moves them. Shapes are Kubernetes'."""

from korch.resources.meta import Condition, LabelSelector, Object, Struct


class PodDisruptionBudgetSpec(Struct, frozen=True, kw_only=True):
    """One of `min_available` and `max_unavailable`, a number or a percentage; an empty `selector` means all pods."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: LabelSelector | None = None
    unhealthy_pod_eviction_policy: str = ""


class PodDisruptionBudgetStatus(Struct, frozen=True, kw_only=True):
    """As last counted: `expected_pods` of which `desired_healthy` must stay and `current_healthy` are ready."""

    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    conditions: tuple[Condition, ...] = ()


class PodDisruptionBudget(Object, frozen=True, kw_only=True):
    """policy/v1 PodDisruptionBudget, of the pods of its namespace."""

    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()
