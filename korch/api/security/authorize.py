"""What a user may do: pure. Everything that no role grants is refused.

`admin` may do everything (in a namespace: everything in it but its quota), `edit` changes what runs, `view` looks. The
last two see no roles, and `view` neither sees Secrets nor gets into a container.
"""

from collections import defaultdict
from dataclasses import dataclass

from korch.api.requestinfo import RequestInfo
from korch.api.security.users import Grant, User, grants_of
from korch.resources.kinds import KINDS

READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_RBAC = "rbac.authorization.k8s.io"
_QUOTAS = frozenset({"resourcequotas", "limitranges"})  # set by who runs the cluster for who works in the namespace
_CHANGED_BY_EDIT = frozenset(
    {"", "scale", "eviction", "exec", "attach", "portforward", "proxy", "ephemeralcontainers", "token"}
)
_SEEN_BY_VIEW = frozenset({"", "status", "scale", "log"})
_SELF_REVIEWS = frozenset(
    {
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
    }
)
_PUBLIC_PATHS = ("/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz")  # for whoever logged in
_SUBRESOURCES = {
    "pods": ("log", "exec", "attach", "portforward", "eviction", "status"),
    "deployments": ("scale", "status"),
    "replicasets": ("scale", "status"),
    "statefulsets": ("scale", "status"),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be done, as `kubectl auth can-i --list` shows it: of resources, or of paths."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class Authorizer:
    """Decides by the groups of a user alone, so the answer is the same in every process."""

    def allowed(self, user: User, info: RequestInfo) -> tuple[bool, str]:
        """Whether the user may do it, and by which role."""
        if not info.is_resource:
            if any(grant == Grant("admin", "") for grant in grants_of(user.groups)):
                return True, 'role "admin"'
            public = any(info.path == path or info.path.startswith(path + "/") for path in _PUBLIC_PATHS)
            return (True, "for everybody who has logged in") if public and info.verb in {"get", "head"} else (False, "")
        if info.verb == "create" and (info.group, info.resource) in _SELF_REVIEWS and not info.subresource:
            return True, "everybody may ask about themselves"
        for grant in grants_of(user.groups):
            if _covers(grant, info):
                where = f' in namespace "{grant.namespace}"' if grant.namespace else ""
                return True, f'role "{grant.role}"{where}'
        return False, ""

    def rules(self, user: User, namespace: str) -> tuple[Rule, ...]:
        """What the user may do in a namespace, each kind asked as a request would; first the paths."""
        if Grant("admin", "") in grants_of(user.groups):
            return (Rule(("*",), paths=("*",)), Rule(("*",), ("*",), ("*",)))
        found: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
        for group, resource in sorted(_SELF_REVIEWS):
            found[group, ("create",)].append(resource)
        for kind in KINDS:
            for subresource in ("", *_SUBRESOURCES.get(kind.plural, ())):
                place = namespace if kind.namespaced else ""
                verbs = self._verbs(user, kind.group, kind.plural, subresource, place)
                if verbs:
                    word = f"{kind.plural}/{subresource}" if subresource else kind.plural
                    found[kind.group, verbs].append(word)
        rules = [Rule(verbs, (group,), tuple(resources)) for (group, verbs), resources in found.items()]
        return (Rule(("get",), paths=tuple(p for path in _PUBLIC_PATHS for p in (path, path + "/*"))), *rules)

    def _verbs(self, user: User, group: str, resource: str, subresource: str, namespace: str) -> tuple[str, ...]:
        asked = ("create", "get") if subresource else ("get", "list", "watch", *sorted(WRITE))
        info = (RequestInfo(verb, "", group, "v1", resource, subresource, namespace) for verb in asked)
        return tuple(one.verb for one in info if self.allowed(user, one)[0])


def _covers(grant: Grant, info: RequestInfo) -> bool:
    """Whether a role in its place allows the request."""
    if grant == Grant("admin", ""):
        return True
    reads = info.verb in READ
    if grant.namespace:
        if info.resource == "namespaces" and not info.group:
            return reads and grant.namespace in {info.name, info.namespace} and info.subresource in {"", "status"}
        if info.namespace != grant.namespace:
            return False
    elif not reads and (not info.namespace or info.resource == "namespaces"):
        return False  # what is in no namespace is changed by who administers the cluster
    if not reads and (info.verb not in WRITE or (info.resource in _QUOTAS and not info.group)):
        return False
    if grant.role == "admin":
        return True
    if info.group == _RBAC:
        return False
    if grant.role == "edit":
        return info.subresource in (_SEEN_BY_VIEW | _CHANGED_BY_EDIT if reads else _CHANGED_BY_EDIT)
    return reads and info.subresource in _SEEN_BY_VIEW and (info.group, info.resource) != ("", "secrets")


def refusal(user: User, info: RequestInfo) -> str:
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
