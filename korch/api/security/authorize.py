"""What a user may do: pure. Everything that no role grants is refused.

Roles are korch's own, which stand in a user's groups, and those that are bound as objects (`rbac.py`). Of its own,
`admin` may do everything (in a namespace: everything in it but its quota, and where its pods are), `edit` changes what
runs, `view` looks. The last two see no roles, and `view` neither sees Secrets nor gets into a container.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from korch.api.registry import Served, everything, is_namespaced
from korch.api.requestinfo import RequestInfo
from korch.api.security.rbac import EVERYWHERE, GROUP, OWN, Binding, Policy, Who, allows, asked_by, has_wildcard
from korch.api.security.users import ROLES, Grant, grants_of
from korch.errors import ForbiddenError
from korch.resources import rbac
from korch.resources.meta import Object

READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_QUOTAS = frozenset({"resourcequotas", "limitranges"})  # set by who runs the cluster for who works in the namespace
_OF_NODES = frozenset({"status", "binding"})  # of pods: where it is and what address it has, which others trust
_OF_ADMINS = frozenset({GROUP, "authorization.k8s.io"})  # roles, and who else may what
_CHANGED_BY_EDIT = frozenset(
    {"", "scale", "eviction", "exec", "attach", "portforward", "proxy", "ephemeralcontainers", "token"}
)
_SEEN_BY_VIEW = frozenset({"", "status", "scale", "log"})
SELF_REVIEWS = frozenset(
    {
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
    }
)
_PUBLIC_PATHS = ("/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz")  # for whoever logged in


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be done, as `kubectl auth can-i --list` shows it: of resources, or of paths."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class Authorizer:
    """Decides by a user's name and groups, and by the Roles and bindings that it was given."""

    def __init__(self, policy: Policy | None = None) -> None:
        self._policy = policy or Policy()

    def allowed(self, user: Who, info: RequestInfo) -> tuple[bool, str]:
        """Whether the user may do it, and by which role."""
        return self._allowed(user, _in_its_place(info))

    def _allowed(self, user: Who, info: RequestInfo) -> tuple[bool, str]:
        """As `allowed`, in the namespace that is given: that of a binding, for what its role says."""
        found = self._by_groups(user, info)
        return found if found[0] else self._by_bindings(user, info)

    def _by_bindings(self, user: Who, info: RequestInfo) -> tuple[bool, str]:
        for held in self._policy.held(user, info.namespace):
            grants = held.grant is not None and _covers(_placed(held.grant, info.namespace), info)
            if grants or any(allows(rule, info) for rule in held.rules if info.is_resource or not held.namespace):
                return True, held.by
        return False, ""

    def _by_groups(self, user: Who, info: RequestInfo) -> tuple[bool, str]:
        if not info.is_resource:
            if any(grant == Grant("admin", "") for grant in grants_of(user.groups)):
                return True, 'role "admin"'
            public = any(info.path == path or info.path.startswith(path + "/") for path in _PUBLIC_PATHS)
            return (True, "for everybody who has logged in") if public and info.verb in {"get", "head"} else (False, "")
        if info.verb == "create" and (info.group, info.resource) in SELF_REVIEWS and not info.subresource:
            return True, "everybody may ask about themselves"
        for grant in grants_of(user.groups):
            if _covers(grant, info):
                where = f' in namespace "{grant.namespace}"' if grant.namespace else ""
                return True, f'role "{grant.role}"{where}'
        return False, ""

    def rules(self, user: Who, namespace: str) -> tuple[Rule, ...]:
        """What the user may do in a namespace, each kind asked as a request would; first the paths."""
        if self._is_admin(user):
            return (Rule(("*",), paths=("*",)), Rule(("*",), ("*",), ("*",)))
        found: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
        for group, resource in sorted(SELF_REVIEWS):
            found[group, ("create",), ()].append(resource)
        for served in everything():
            verbs = self.own_verbs(user, served, namespace)
            if verbs and (served.group, served.plural) not in SELF_REVIEWS:
                named = () if served.namespaced or self.own_verbs(user, served, "") else (namespace,)
                found[served.group, verbs, named].append(served.word)
        rules = [Rule(verbs, (group,), tuple(words), names=named) for (group, verbs, named), words in found.items()]
        rules += [
            Rule(one.verbs, one.api_groups, one.resources, one.non_resource_urls, one.resource_names)
            for held in self._policy.held(user, namespace)
            for one in held.rules
        ]
        return (Rule(("get",), paths=tuple(p for path in _PUBLIC_PATHS for p in (path, path + "/*"))), *rules)

    def own_verbs(self, user: Who, served: Served, namespace: str) -> tuple[str, ...]:
        """What the user may do with it there by korch's own roles; of namespaces, with this one."""
        own = [held.grant for held in self._policy.held(user, namespace) if held.grant is not None]
        name = namespace if (served.group, served.plural) == ("", "namespaces") else ""
        place = (served.group, "v1", served.plural, served.part, namespace, name)
        asked = (RequestInfo(verb, "", *place) for verb in served.verbs)
        return tuple(
            one.verb
            for one in map(_in_its_place, asked)
            if self._by_groups(user, one)[0] or any(_covers(_placed(grant, one.namespace), one) for grant in own)
        )

    # Nobody gives more than they have

    def check_grant(self, user: Who, new: Object, old: Object | None) -> None:
        """`ForbiddenError` when a Role or binding would give what the user has not; other objects pass."""
        match new:
            case rbac.Role() | rbac.ClusterRole():
                self._check_role(user, new, old)
            case rbac.RoleBinding() | rbac.ClusterRoleBinding():
                self._check_binding(user, new, old)

    def _check_role(self, user: Who, new: rbac.Role | rbac.ClusterRole, old: Object | None) -> None:
        namespace, name = new.metadata.namespace, new.metadata.name
        cluster = isinstance(new, rbac.ClusterRole)
        if cluster and name in OWN:
            raise ForbiddenError(f'clusterrole "{name}" is one of korch\'s own: it can be bound, and not be written')
        if old is not None and _gives(new) == _gives(old):
            return
        verb = RequestInfo("escalate", "", GROUP, "v1", "clusterroles" if cluster else "roles", "", namespace, name)
        if self._is_admin(user) or self._allowed(user, verb)[0]:
            return
        if isinstance(new, rbac.ClusterRole) and new.aggregation_rule is not None:
            raise _escalation(user, "roles that are put together of others")
        self._check_rules(user, new.rules, namespace)

    def _check_binding(self, user: Who, new: Binding, old: Object | None) -> None:
        same = old is not None and (new.role_ref, new.subjects) == (old.role_ref, old.subjects)  # type: ignore[attr-defined]
        ref, namespace = new.role_ref, new.metadata.namespace
        plural = "clusterroles" if ref.kind == "ClusterRole" else "roles"
        verb = RequestInfo("bind", "", GROUP, "v1", plural, "", namespace, ref.name)
        if same or self._is_admin(user) or self._allowed(user, verb)[0]:
            return
        given = self._policy.given(ref, namespace)
        if given is None:
            raise _escalation(user, f'{ref.kind} "{ref.name}", which is not there')
        if given.grant is not None and not any(_reaches(grant, given.grant) for grant in self._grants(user, namespace)):
            raise _escalation(user, f'{ref.kind} "{ref.name}"')
        self._check_rules(user, given.rules, namespace)

    def _check_rules(self, user: Who, rules: tuple[rbac.PolicyRule, ...], namespace: str) -> None:
        for rule in rules:
            for info in asked_by(rule, namespace):
                if not self._holds(user, info):
                    what = info.path or "/".join(part for part in (info.group, info.resource, info.subresource) if part)
                    raise _escalation(user, f'verb "{info.verb}" on "{what}"')

    def _holds(self, user: Who, info: RequestInfo) -> bool:
        """Whether they have all that it stands for."""
        if not has_wildcard(info):
            return self._allowed(user, info)[0]
        return any(allows(rule, info) for held in self._policy.held(user, info.namespace) for rule in held.rules)

    def _grants(self, user: Who, namespace: str) -> Iterator[Grant]:
        """korch's own roles that they have there."""
        yield from grants_of(user.groups)
        yield from (held.grant for held in self._policy.held(user, namespace) if held.grant is not None)

    def _is_admin(self, user: Who) -> bool:
        return Grant("admin", "") in self._grants(user, "")


def _in_its_place(info: RequestInfo) -> RequestInfo:
    """The request without a namespace that it is not in: kubectl names one for everything that it asks about.

    A namespace counts as inside itself, as in its own path.
    """
    if info.resource == "namespaces" and not info.group:
        return replace(info, namespace=info.name)
    return replace(info, namespace="") if info.namespace and not is_namespaced(info.group, info.resource) else info


def _gives(role: Object) -> tuple[object, ...]:
    """What of a role has to do with what somebody has by it; by its labels a ClusterRole becomes a part of others."""
    if isinstance(role, rbac.ClusterRole):
        return role.rules, role.aggregation_rule, role.metadata.labels
    return (role.rules,) if isinstance(role, rbac.Role) else ()


def _placed(grant: Grant, namespace: str) -> Grant:
    """A grant in every namespace as it counts in this one."""
    return grant._replace(namespace=namespace or EVERYWHERE) if grant.namespace == EVERYWHERE else grant


def _reaches(mine: Grant, given: Grant) -> bool:
    """Whether who has the first may give the second: a role that is no higher, in the same place."""
    near = mine.namespace in {"", given.namespace} or (mine.namespace == EVERYWHERE and given.namespace != "")
    return near and ROLES.index(mine.role) <= ROLES.index(given.role)


def _escalation(user: Who, what: str) -> ForbiddenError:
    return ForbiddenError(f'user "{user.name}" tries to grant more than they have: {what}')


def _covers(grant: Grant, info: RequestInfo) -> bool:
    """Whether a role in its place allows the request."""
    if grant == Grant("admin", ""):
        return True
    if not info.is_resource or has_wildcard(info):
        return False
    reads = info.verb in READ
    if grant.namespace:
        if info.resource == "namespaces" and not info.group:
            return reads and grant.namespace in {info.namespace, EVERYWHERE} and info.subresource in {"", "status"}
        if info.namespace != grant.namespace and not (reads and _is_everywhere(grant, info)):
            return False
    elif not reads and (not info.namespace or info.resource == "namespaces"):
        return False  # what is in no namespace is changed by who administers the cluster
    if not reads and (info.verb not in WRITE or _is_withheld(info)):
        return False
    if grant.role == "admin":
        return True
    if info.group in _OF_ADMINS:
        return False
    if grant.role == "edit":
        return info.subresource in (_SEEN_BY_VIEW | _CHANGED_BY_EDIT if reads else _CHANGED_BY_EDIT)
    return reads and info.subresource in _SEEN_BY_VIEW and (info.group, info.resource) != ("", "secrets")


def _is_everywhere(grant: Grant, info: RequestInfo) -> bool:
    """Whether it is about all namespaces at once, and the grant about each of them."""
    if info.namespace or grant.namespace != EVERYWHERE:
        return False
    return any(one.namespaced for one in everything() if (one.group, one.plural) == (info.group, info.resource))


def _is_withheld(info: RequestInfo) -> bool:
    """Whether only who administers the cluster writes it, though it is inside a namespace."""
    if info.group:
        return False
    return info.resource in _QUOTAS or (info.resource == "pods" and info.subresource in _OF_NODES)


def refusal(user: Who, info: RequestInfo) -> str:
    """The sentence of a refusal, as Kubernetes words it."""
    if not info.is_resource:
        return f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"'
    full = f"{info.resource}.{info.group}" if info.group else info.resource
    what = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    name = f' "{info.name}"' if info.name else ""
    place = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    return (
        f'{full}{name} is forbidden: User "{user.name}" cannot {info.verb} resource "{what}"'
        f' in API group "{info.group}" {place}'
    )
