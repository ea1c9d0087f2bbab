"""What Roles and their bindings grant, beside korch's own roles: pure, Kubernetes' rules.

The ClusterRoles `cluster-admin`, `admin`, `edit` and `view` are korch's own roles: they are bound and never written.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from korch.api.requestinfo import RequestInfo
from korch.api.security.users import Grant, Role, account_user
from korch.resources import rbac
from korch.resources.rbac import PolicyRule, RoleRef, Subject, rules_of

GROUP = "rbac.authorization.k8s.io"
EVERYWHERE = "*"  # the namespace of a grant in every namespace, and in nothing outside of namespaces
OWN: Mapping[str, Role] = {"cluster-admin": "admin", "admin": "admin", "edit": "edit", "view": "view"}

Binding = rbac.RoleBinding | rbac.ClusterRoleBinding


class Who(Protocol):
    """Somebody with a name and groups."""

    @property
    def name(self) -> str:
        """Their name."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """Their groups."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """What one binding gives: one of korch's roles, or rules. `namespace` "": everywhere. `by`: for people."""

    namespace: str
    rules: tuple[PolicyRule, ...] = ()
    grant: Grant | None = None
    by: str = ""


class Policy:
    """All Roles and bindings at one time."""

    def __init__(
        self,
        roles: Iterable[rbac.Role] = (),
        cluster_roles: Iterable[rbac.ClusterRole] = (),
        bindings: Iterable[Binding] = (),
    ) -> None:
        self._roles = {(role.metadata.namespace, role.metadata.name): role.rules for role in roles}
        self._cluster_roles = {role.metadata.name: role for role in cluster_roles}
        self._by_subject: dict[str, list[Held]] = {}
        for binding in bindings:
            held = self.given(binding.role_ref, binding.metadata.namespace, binding.metadata.name)
            if held is None:
                continue
            for subject in binding.subjects:
                self._by_subject.setdefault(_key(subject, binding.metadata.namespace), []).append(held)

    def given(self, ref: RoleRef, namespace: str, binding: str = "") -> Held | None:
        """What a binding to that role gives in a namespace ("": everywhere); None when there is no such role."""
        by = f'{"RoleBinding" if namespace else "ClusterRoleBinding"} "{binding}" of {ref.kind} "{ref.name}"'
        if ref.kind == "ClusterRole" and ref.name in OWN:
            everywhere = EVERYWHERE if ref.name == "admin" else ""
            return Held(namespace, grant=Grant(OWN[ref.name], namespace or everywhere), by=by)
        if ref.kind == "ClusterRole":
            role = self._cluster_roles.get(ref.name)
            return None if role is None else Held(namespace, rules_of(role, self._cluster_roles.values()), by=by)
        rules = self._roles.get((namespace, ref.name)) if namespace else None
        return None if rules is None else Held(namespace, rules, by=by)

    def held(self, user: Who, namespace: str) -> Iterator[Held]:
        """What a user has in a namespace; in "" only what counts everywhere."""
        for key in (f"User/{user.name}", *(f"Group/{group}" for group in user.groups)):
            for held in self._by_subject.get(key, ()):
                if held.namespace in {"", namespace}:
                    yield held


def _key(subject: Subject, namespace: str) -> str:
    if subject.kind == "ServiceAccount":
        return f"User/{account_user(subject.namespace or namespace, subject.name)}"
    return f"{subject.kind}/{subject.name}"


def allows(rule: PolicyRule, info: RequestInfo) -> bool:
    """Whether a rule allows a request; asked with `*` in place of a word, whether it allows every such word."""
    if not _any(rule.verbs, info.verb):
        return False
    if not info.is_resource:
        return any(_path_fits(path, info.path) for path in rule.non_resource_urls)
    named = not rule.resource_names or (info.name != "" and info.name in rule.resource_names)
    return named and _any(rule.api_groups, info.group) and _resource_fits(rule.resources, info)


def _any(words: tuple[str, ...], word: str) -> bool:
    return "*" in words or word in words


def _resource_fits(resources: tuple[str, ...], info: RequestInfo) -> bool:
    whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return _any(resources, whole) or (bool(info.subresource) and f"*/{info.subresource}" in resources)


def _path_fits(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def asked_by(rule: PolicyRule, namespace: str) -> Iterator[RequestInfo]:
    """Everything that a rule allows, as requests; its `*` stay what they are."""
    for verb in rule.verbs:
        for path in rule.non_resource_urls:
            yield RequestInfo(verb, path)
        for group in rule.api_groups:
            for word in rule.resources:
                resource, _, part = word.partition("/")
                for name in rule.resource_names or ("",):
                    yield RequestInfo(verb, "", group, "v1", resource, part, namespace, name)


def has_wildcard(info: RequestInfo) -> bool:
    """Whether it stands for more than one request."""
    return "*" in {info.verb, info.group, info.resource, info.subresource} or info.path.endswith("*")
