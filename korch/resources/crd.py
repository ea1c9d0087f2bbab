"""CustomResourceDefinition: kinds that users bring along. Shape is Kubernetes' (apiextensions.k8s.io/v1)."""

from typing import Any

import msgspec

from korch.resources.meta import Condition, Object, Struct


class CustomResourceDefinitionNames(Struct, frozen=True, kw_only=True):
    """What the kind is called."""

    plural: str = ""
    singular: str = ""
    kind: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class CustomResourceValidation(Struct, frozen=True, kw_only=True):
    """The schema of its objects."""

    open_api_v3_schema: dict[str, Any] | None = msgspec.field(default=None, name="openAPIV3Schema")


class CustomResourceColumnDefinition(Struct, frozen=True, kw_only=True):
    """A column of `kubectl get`."""

    name: str
    type: str
    json_path: str
    format: str = ""
    description: str = ""
    priority: int = 0


class CustomResourceSubresourceScale(Struct, frozen=True, kw_only=True):
    """Where its replicas stand."""

    spec_replicas_path: str
    status_replicas_path: str
    label_selector_path: str | None = None


class CustomResourceSubresources(Struct, frozen=True, kw_only=True):
    """`status` (an empty mapping) and `scale`, when it has them."""

    status: dict[str, Any] | None = None
    scale: CustomResourceSubresourceScale | None = None


class SelectableField(Struct, frozen=True, kw_only=True):
    """A field that lists and watches may select by: `.spec.size`."""

    json_path: str


class CustomResourceDefinitionVersion(Struct, frozen=True, kw_only=True):
    """One version. All versions have the same objects: nothing is converted."""

    name: str
    served: bool
    storage: bool
    schema: CustomResourceValidation | None = None
    subresources: CustomResourceSubresources | None = None
    additional_printer_columns: tuple[CustomResourceColumnDefinition, ...] = ()
    selectable_fields: tuple[SelectableField, ...] = ()
    deprecated: bool = False
    deprecation_warning: str | None = None


class CustomResourceConversion(Struct, frozen=True, kw_only=True):
    """`strategy`: None."""

    strategy: str
    webhook: dict[str, Any] | None = None


class CustomResourceDefinitionSpec(Struct, frozen=True, kw_only=True):
    """`scope`: Namespaced or Cluster."""

    group: str = ""
    names: CustomResourceDefinitionNames = CustomResourceDefinitionNames()
    scope: str = ""
    versions: tuple[CustomResourceDefinitionVersion, ...] = ()
    conversion: CustomResourceConversion | None = None
    preserve_unknown_fields: bool = False


class CustomResourceDefinitionStatus(Struct, frozen=True, kw_only=True):
    """Conditions NamesAccepted and Established."""

    conditions: tuple[Condition, ...] = ()
    accepted_names: CustomResourceDefinitionNames = CustomResourceDefinitionNames()
    stored_versions: tuple[str, ...] = ()


class CustomResourceDefinition(Object, frozen=True, kw_only=True):
    """apiextensions.k8s.io/v1 CustomResourceDefinition, called PLURAL.GROUP."""

    spec: CustomResourceDefinitionSpec = CustomResourceDefinitionSpec()
    status: CustomResourceDefinitionStatus = CustomResourceDefinitionStatus()
