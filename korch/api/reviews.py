"""Reviews: `kubectl auth can-i`, `can-i --list`, `whoami`, and whose token it is. Answered, never stored."""

from typing import Any

from korch.api.answers import bad_request
from korch.api.registry import Virtual
from korch.api.requestinfo import RequestInfo
from korch.api.services import Nobody, Services, User


async def review(
    found: Virtual, data: dict[str, Any], user: User, services: Services, namespace: str = ""
) -> dict[str, Any]:
    """The review, made in a namespace or in none, with its status."""
    spec = data.get("spec") or {}
    if not isinstance(spec, dict):
        raise bad_request(f"{found.name}: spec must be a mapping")
    meta = data.get("metadata") or {}
    shown = {
        "kind": found.name,
        "apiVersion": f"{found.group}/{found.version}",
        "metadata": {**meta, "creationTimestamp": None} if isinstance(meta, dict) else {"creationTimestamp": None},
        "spec": spec,
    }
    match found.name:
        case "SelfSubjectReview":
            return {**_without_spec(shown), "status": {"userInfo": _user_info(user)}}
        case "TokenReview":
            return {**shown, "spec": {}, "status": await _token(spec, services)}
        case "SelfSubjectRulesReview":
            return {**shown, "status": await _rules(user, str(spec.get("namespace") or ""), services)}
        case "SelfSubjectAccessReview":
            return {**shown, "status": await _access(user, spec, services)}
        case "LocalSubjectAccessReview":
            _check_local(namespace, meta, spec)
    groups = spec.get("groups") or []
    if not isinstance(groups, list):
        raise bad_request("spec.groups must be a list")
    subject = Nobody(str(spec.get("user") or ""), tuple(str(group) for group in groups))
    return {**shown, "status": await _access(subject, spec, services)}


def _check_local(namespace: str, meta: Any, spec: dict[str, Any]) -> None:
    """400 for a question about another namespace than the one that the asker was let into."""
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict) or spec.get("nonResourceAttributes"):
        raise bad_request("spec.resourceAttributes is needed, and alone: this is asked about one namespace")
    said = meta.get("namespace") if isinstance(meta, dict) else ""
    if asked.get("namespace") != namespace or said not in {None, "", namespace}:
        raise bad_request(f'spec.resourceAttributes.namespace must be "{namespace}", as in the path')


def _without_spec(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if key != "spec"}


def _user_info(user: User) -> dict[str, Any]:
    return {"username": user.name, "groups": list(user.groups)}


async def _token(spec: dict[str, Any], services: Services) -> dict[str, Any]:
    token = str(spec.get("token") or "")
    found = await services.user_of_token(token) if services.user_of_token is not None and token else None
    if found is None:
        return {"authenticated": False, "error": "the token is not known"}
    return {"authenticated": True, "user": _user_info(found)}


async def _access(user: User, spec: dict[str, Any], services: Services) -> dict[str, Any]:
    allowed, reason = True, "no door is kept here"
    if services.authorizer is not None:
        allowed, reason = await services.authorizer.allowed(user, _asked(spec))
    return {"allowed": allowed, **({"reason": reason} if reason else {})}


def _asked(spec: dict[str, Any]) -> RequestInfo:
    """The request that somebody asks about."""
    path, resource = spec.get("nonResourceAttributes"), spec.get("resourceAttributes")
    if isinstance(path, dict):
        return RequestInfo(_word(path, "verb"), _word(path, "path"))
    if not isinstance(resource, dict):
        raise bad_request("spec: exactly one of resourceAttributes and nonResourceAttributes is needed")
    return RequestInfo(
        verb=_word(resource, "verb"),
        path="",
        group=_word(resource, "group"),
        version=_word(resource, "version") or "v1",
        resource=_word(resource, "resource"),
        subresource=_word(resource, "subresource"),
        namespace=_word(resource, "namespace"),
        name=_word(resource, "name"),
    )


def _word(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


async def _rules(user: User, namespace: str, services: Services) -> dict[str, Any]:
    rules = await services.authorizer.rules(user, namespace) if services.authorizer is not None else ()
    resources = [
        {
            "verbs": list(rule.verbs),
            "apiGroups": list(rule.groups),
            "resources": list(rule.resources),
            **({"resourceNames": list(rule.names)} if rule.names else {}),
        }
        for rule in rules
        if rule.resources
    ]
    paths = [{"verbs": list(rule.verbs), "nonResourceURLs": list(rule.paths)} for rule in rules if rule.paths]
    return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}
