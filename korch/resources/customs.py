"""Custom kinds: what a CustomResourceDefinition makes of itself, as a `Kind` like any other.

A custom object is a struct with one field for each top-level property of its schema, held as plain data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from korch.resources import kinds
from korch.resources.crd import (
    CustomResourceDefinition,
    CustomResourceDefinitionVersion,
    CustomResourceSubresourceScale,
)
from korch.resources.kinds import Kind
from korch.resources.meta import Condition, Object
from korch.resources.names import dns_label_problem, dns_subdomain_problem
from korch.resources.times import rfc3339

_OWN = frozenset({"apiVersion", "kind", "metadata"})
_ESTABLISHED = (
    ("NamesAccepted", "NoConflicts", "no conflicts found"),
    ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
)


@dataclass(frozen=True, slots=True)
class Custom:
    """A custom kind. `schemas`, `columns`: by version; `versions`: those that are served.

    `warnings`: what users of a deprecated version are told.
    """

    kind: Kind
    versions: tuple[str, ...]
    schemas: Mapping[str, Mapping[str, Any]] = field(hash=False)
    columns: Mapping[str, tuple[dict[str, Any], ...]] = field(hash=False)
    scale: CustomResourceSubresourceScale | None = None
    warnings: Mapping[str, str] = field(default_factory=dict, hash=False)


def custom(crd: CustomResourceDefinition) -> Custom | None:
    """The kind that a definition makes; None when it has no version that is stored, or its group is korch's own.

    The definition may be from a backup, or older than a rule: what matters to the cluster's safety is asked again.
    """
    spec = crd.spec
    stored = next((found for found in spec.versions if found.storage), None)
    if stored is None or not (spec.group and spec.names.plural and spec.names.kind):
        return None
    if kinds.is_taken(spec.group) or dns_subdomain_problem(spec.group) or dns_label_problem(spec.names.plural):
        return None
    mark = (crd.metadata.uid, crd.metadata.generation)
    kind = kinds.registered(spec.group, spec.names.plural, mark, lambda: _kind(crd, stored))
    served = tuple(found.name for found in spec.versions if found.served)
    return Custom(
        kind=kind,
        versions=served,
        scale=stored.subresources.scale if stored.subresources is not None else None,
        schemas={found.name: _schema(found) for found in spec.versions},
        columns={
            found.name: tuple(msgspec.to_builtins(column) for column in found.additional_printer_columns)
            for found in spec.versions
        },
        warnings={
            found.name: found.deprecation_warning or f"{spec.group}/{found.name} {spec.names.kind} is deprecated"
            for found in spec.versions
            if found.deprecated
        },
    )


def _kind(crd: CustomResourceDefinition, stored: CustomResourceDefinitionVersion) -> Kind:
    names = crd.spec.names
    subresources = stored.subresources
    return Kind(
        group=crd.spec.group,
        version=stored.name,
        name=names.kind,
        plural=names.plural,
        namespaced=crd.spec.scope != "Cluster",
        type=_type(names.kind, [_schema(found) for found in crd.spec.versions]),
        short=names.short_names,
        has_status=subresources is not None and subresources.status is not None,
        scalable=subresources is not None and subresources.scale is not None,
        categories=names.categories,
        one=names.singular,
        list_kind=names.list_kind,
        selectable=tuple(
            dict.fromkeys(
                one.json_path.removeprefix(".") for found in crd.spec.versions for one in found.selectable_fields
            )
        ),
    )


def _schema(version: CustomResourceDefinitionVersion) -> Mapping[str, Any]:
    found = version.schema.open_api_v3_schema if version.schema is not None else None
    return found or {"x-kubernetes-preserve-unknown-fields": True}


def _type(name: str, schemas: list[Mapping[str, Any]]) -> type[Object]:
    """A struct for the objects. `spec` and `status` are there in any case: much is done by these names."""
    properties = {key for schema in schemas for key in schema.get("properties") or {}} | {"spec", "status"}
    wanted = sorted(key for key in properties - _OWN if isinstance(key, str))
    python = {key if key in ("spec", "status") else f"field_{number}": key for number, key in enumerate(wanted)}
    rename = {**python, "api_version": "apiVersion"}
    fields: list[tuple[str, Any, Any]] = [(key, Any, None) for key in python]
    made = msgspec.defstruct(
        name if name.isidentifier() else "Custom",
        fields,
        bases=(Object,),
        frozen=True,
        kw_only=True,
        omit_defaults=True,
        rename=rename,
    )
    made.__doc__ = f"{name}, a custom kind."
    return cast("type[Object]", made)


def established(crd: CustomResourceDefinition, now: float) -> CustomResourceDefinition | None:
    """The definition as one whose kind is served; None when it says so already."""
    names, status = crd.spec.names, crd.status
    stored = tuple(found.name for found in crd.spec.versions if found.storage)
    known = (*status.stored_versions, *(name for name in stored if name not in status.stored_versions))
    done = {found.type for found in status.conditions if found.status == "True"}
    if status.accepted_names == names and known == status.stored_versions and {"Established", "NamesAccepted"} <= done:
        return None
    others = tuple(found for found in status.conditions if found.type not in {"Established", "NamesAccepted"})
    conditions = tuple(
        Condition(type=type_, status="True", reason=reason, message=text, last_transition_time=rfc3339(now))
        for type_, reason, text in _ESTABLISHED
    )
    changes = {"conditions": (*others, *conditions), "accepted_names": names, "stored_versions": known}
    return msgspec.structs.replace(crd, status=msgspec.structs.replace(status, **changes))
