"""Who may do what: Role, RoleBinding and their cluster-wide forms. Shapes are Kubernetes'."""

import msgspec

from korch.resources.meta import LabelSelector, Object, Struct


class PolicyRule(Struct, frozen=True, kw_only=True):
    """Verbs on resources of API groups, or on paths that are no resources."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")


class Subject(Struct, frozen=True, kw_only=True):
    """`kind`: User, Group or ServiceAccount."""

    kind: str
    name: str
    api_group: str = ""
    namespace: str = ""


class RoleRef(Struct, frozen=True, kw_only=True):
    """A Role of the same namespace, or a ClusterRole."""

    kind: str
    name: str
    api_group: str = ""


class AggregationRule(Struct, frozen=True, kw_only=True):
    """Roles whose rules are put together."""

    cluster_role_selectors: tuple[LabelSelector, ...] = ()


class Role(Object, frozen=True, kw_only=True):
    """rbac.authorization.k8s.io/v1 Role."""

    rules: tuple[PolicyRule, ...] = ()


class ClusterRole(Object, frozen=True, kw_only=True):
    """rbac.authorization.k8s.io/v1 ClusterRole."""

    rules: tuple[PolicyRule, ...] = ()
    aggregation_rule: AggregationRule | None = None


class RoleBinding(Object, frozen=True, kw_only=True):
    """rbac.authorization.k8s.io/v1 RoleBinding."""

    role_ref: RoleRef
    subjects: tuple[Subject, ...] = ()


class ClusterRoleBinding(Object, frozen=True, kw_only=True):
    """rbac.authorization.k8s.io/v1 ClusterRoleBinding."""

    role_ref: RoleRef
    subjects: tuple[Subject, ...] = ()
