"""What a request wants, read from its method, path and query alone: what authorization and routing decide by.

Follows Kubernetes' RequestInfo: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#request-verb
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from korch.api.fieldterms import field_terms, name_in
from korch.client.forms import ACTS, LOOKS

_TRUE = frozenset({"true", "1", "t", "yes"})
_STREAMS = frozenset({"exec", "attach", "portforward"})  # opened with GET by WebSocket clients, and yet they act
_NAMESPACE_PARTS = frozenset({"status", "finalize"})  # /namespaces/NAME/status is no resource inside NAME
_OWN = frozenset({LOOKS, ACTS})
_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """`resource` is "" for what is no resource (`/version`, discovery): then `verb` is the method in small letters."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def is_resource(self) -> bool:
        """Whether it is about objects."""
        return bool(self.resource)


def request_info(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """What `method` on `path` wants. `path` as on the wire or decoded; a trailing slash means nothing.

    Verbs of resources: get, list, watch, create, update, patch, delete, deletecollection. A list or watch of one name
    (`fieldSelector=metadata.name=x`) carries that name, so that it can be allowed by name.
    """
    plain = "/" + "/".join(part for part in path.split("/") if part)
    parts = [unquote(part) for part in plain.split("/")[1:]]
    found = _split(parts)
    if found is None:
        return RequestInfo(method.lower(), plain)
    group, version, namespace, resource, name, subresource = found
    verb = _verb(method, query, name=name, subresource=subresource)
    if not name and verb in ("list", "watch", "deletecollection"):
        name = _selected_name(query.get("fieldSelector", ""))
    return RequestInfo(verb, plain, group, version, resource, subresource, namespace, name)


def is_own(info: RequestInfo) -> bool:
    """Whether it is one of the calls that korch's own client makes beside those about objects."""
    return info.group == "korch.dev" and info.resource in _OWN


def truth(text: str | None) -> bool:
    """Whether a query value means yes, as Go's ParseBool and Python's clients write it."""
    return (text or "").lower() in _TRUE


def _split(parts: list[str]) -> tuple[str, str, str, str, str, str] | None:
    """(group, version, namespace, resource, name, subresource), or None for what is no resource."""
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None
    namespace = ""
    if rest[0] == "namespaces" and not group and len(rest) >= 2:
        namespace = rest[1]
        rest = rest if len(rest) == 2 or rest[2] in _NAMESPACE_PARTS else rest[2:]
    elif rest[0] == "namespaces" and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    resource, name, *more = [*rest, ""] if len(rest) == 1 else rest
    return group, version, namespace, resource, name, "/".join(more)


def _verb(method: str, query: Mapping[str, str], *, name: str, subresource: str) -> str:
    verb = _VERBS.get(method.upper(), method.lower())
    if subresource.partition("/")[0] in _STREAMS:
        return "create"
    if verb == "get" and not name:
        return "watch" if truth(query.get("watch")) else "list"
    return "deletecollection" if verb == "delete" and not name else verb


def _selected_name(selector: str) -> str:
    try:
        return name_in(field_terms(selector))
    except ValueError:
        return ""  # it is refused when it is read again
