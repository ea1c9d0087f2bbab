"""Who may do what: Role, RoleBinding and their cluster-wide forms. Shapes are Kubernetes'."""

from collections.abc import Iterable

import msgspec

from korch.resources.meta import LabelSelector, Object, Struct
from korch.resources.selectors import matches

OWN_ROLES = frozenset({"cluster-admin", "admin", "edit", "view"})  # ClusterRoles of these names are korch's own


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


def rules_of(role: ClusterRole, roles: Iterable[ClusterRole]) -> tuple[PolicyRule, ...]:
    """A role's rules, or those of the `roles` that it puts together, by name. Roles of that kind are no parts."""
    if role.aggregation_rule is None:
        return role.rules
    wanted = role.aggregation_rule.cluster_role_selectors
    parts = (one for one in roles if one.aggregation_rule is None and one.metadata.name not in OWN_ROLES)
    chosen = [one for one in parts if any(matches(by, one.metadata.labels) for by in wanted)]
    return tuple(rule for one in sorted(chosen, key=lambda one: one.metadata.name) for rule in one.rules)
