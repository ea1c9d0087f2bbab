"""What all objects share: metadata, conditions, references. Shapes are Kubernetes' (meta/v1)."""

from typing import Any

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all wire types: frozen, camelCase on the wire, unset fields left out; `structs.replace` changes one."""


class OwnerReference(Struct, frozen=True, kw_only=True):
    """Who made this object; when the owner goes, the garbage collector removes it."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct, frozen=True, kw_only=True):
    """Identity and bookkeeping. Times are RFC 3339 text in UTC, as `2026-01-02T03:04:05Z`."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    managed_fields: tuple[dict[str, Any], ...] = ()


class Condition(Struct, frozen=True, kw_only=True):
    """One aspect of a state. `status` is "True", "False" or "Unknown"; `reason` one word; `message` is for people."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_update_time: str | None = None
    last_probe_time: str | None = None
    observed_generation: int | None = None


class LabelSelectorRequirement(Struct, frozen=True, kw_only=True):
    """`operator`: In, NotIn, Exists, DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Struct, frozen=True, kw_only=True):
    """All of it must match; an empty one matches everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class Object(Struct, frozen=True, kw_only=True):
    """What every kind has. Kinds add `spec` and `status`, or their own fields."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()


class ObjectReference(Struct, frozen=True, kw_only=True):
    """Names another object, as in an Event."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""
