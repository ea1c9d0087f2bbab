"""Bounds and classes that are kept on record: ResourceQuota, LimitRange, PriorityClass, StorageClass."""

from typing import Any

from korch.resources.meta import Object, Struct

Quantities = dict[str, str | int | float]


class ResourceQuotaSpec(Struct, frozen=True, kw_only=True):
    """How much a namespace may have."""

    hard: Quantities = {}
    scopes: tuple[str, ...] = ()
    scope_selector: dict[str, Any] | None = None


class ResourceQuotaStatus(Struct, frozen=True, kw_only=True):
    """What it has."""

    hard: Quantities = {}
    used: Quantities = {}


class ResourceQuota(Object, frozen=True, kw_only=True):
    """core/v1 ResourceQuota."""

    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    status: ResourceQuotaStatus = ResourceQuotaStatus()


class LimitRangeItem(Struct, frozen=True, kw_only=True):
    """Bounds and defaults of one type of thing, such as Container."""

    type: str
    max: Quantities = {}
    min: Quantities = {}
    default: Quantities = {}
    default_request: Quantities = {}
    max_limit_request_ratio: Quantities = {}


class LimitRangeSpec(Struct, frozen=True, kw_only=True):
    """Bounds of each type."""

    limits: tuple[LimitRangeItem, ...] = ()


class LimitRange(Object, frozen=True, kw_only=True):
    """core/v1 LimitRange."""

    spec: LimitRangeSpec = LimitRangeSpec()


class PriorityClass(Object, frozen=True, kw_only=True):
    """scheduling.k8s.io/v1 PriorityClass."""

    value: int
    global_default: bool = False
    description: str = ""
    preemption_policy: str | None = None


class StorageClass(Object, frozen=True, kw_only=True):
    """storage.k8s.io/v1 StorageClass."""

    provisioner: str
    parameters: dict[str, str] = {}
    reclaim_policy: str | None = None
    volume_binding_mode: str | None = None
    allow_volume_expansion: bool | None = None
    mount_options: tuple[str, ...] = ()
    allowed_topologies: tuple[dict[str, Any], ...] = ()
