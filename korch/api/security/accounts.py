"""Tokens of service accounts, as `kubectl create token` asks for them. They end with what they are bound to."""

from typing import Any

from korch.api.requestinfo import RequestInfo
from korch.api.security.credentials import FORGET_AFTER_S, Credentials
from korch.api.security.users import account_groups, account_user
from korch.errors import ConflictError, InvalidError, NotFoundError
from korch.objects.values import Clock
from korch.resources.codec import decode
from korch.resources.kinds import NODE, POD, SECRET, SERVICEACCOUNT
from korch.resources.pod import Pod
from korch.resources.times import rfc3339
from korch.store.base import Store

_DEFAULT_S, _SHORTEST_S, _LONGEST_S = 3600, 600, 366 * 86_400  # Kubernetes' default and its shortest
_AUDIENCES = ("https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local")  # the API, as there
_BINDABLE = {kind.name: kind for kind in (POD, SECRET, NODE)}


class AccountTokens:
    """Answers TokenRequests. Such a token says who asks; what they may is up to RoleBindings."""

    def __init__(self, credentials: Credentials, store: Store, clock: Clock) -> None:
        self._credentials, self._store, self._clock = credentials, store, clock

    async def answer(self, info: RequestInfo, data: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """The request with its status; on a dry run without a token. `NotFoundError` without the account."""
        spec, now = _spec(data), self._clock.now()
        seconds, bound = _seconds(spec), _bound_object(spec)
        key = SERVICEACCOUNT.key(info.namespace, info.name)
        account = await self._store.get(key)
        if account is None:
            raise NotFoundError(f'serviceaccount "{info.name}" not found')
        bonds = {key: account.created}
        if bound:
            bonds |= await self._bond(info, bound)
        token = "" if dry_run else await self._mint(info, seconds, bonds, now)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": info.name, "namespace": info.namespace, "creationTimestamp": rfc3339(now)},
            "spec": {
                "audiences": spec.get("audiences") or [],
                "expirationSeconds": seconds,
                "boundObjectRef": bound or None,
            },
            "status": {"token": token, "expirationTimestamp": rfc3339(now + seconds)},
        }

    async def _mint(self, info: RequestInfo, seconds: int, bonds: dict[str, int], now: float) -> str:
        name = account_user(info.namespace, info.name)
        await self._credentials.forget_expired(now, after_s=FORGET_AFTER_S)
        return (
            await self._credentials.mint_token(name, account_groups(name), now=now, ttl_s=seconds, bound_to=bonds)
        ).token

    async def _bond(self, info: RequestInfo, ref: dict[str, str]) -> dict[str, int]:
        """The key of what the token ends with too, and since when it has been there."""
        kind = _BINDABLE[ref["kind"]]
        key = kind.key(info.namespace if kind.namespaced else "", ref["name"])
        record = await self._store.get(key)
        if record is None:
            raise InvalidError(f'spec.boundObjectRef: {ref["kind"]} "{ref["name"]}" not found')
        found = decode(kind, record.value)
        if ref.get("uid", found.metadata.uid) != found.metadata.uid:
            raise ConflictError(f'spec.boundObjectRef: {ref["kind"]} "{ref["name"]}" is another one: {ref["uid"]}')
        if isinstance(found, Pod) and (found.spec.service_account_name or "default") != info.name:
            runs = found.spec.service_account_name or "default"
            raise InvalidError(f'spec.boundObjectRef: pod "{ref["name"]}" runs as serviceaccount "{runs}"')
        return {key: record.created}


def _spec(data: dict[str, Any]) -> dict[str, Any]:
    spec = data.get("spec") or {}
    if data.get("kind", "TokenRequest") != "TokenRequest" or not isinstance(spec, dict):
        raise InvalidError("the body is no TokenRequest")
    audiences = spec.get("audiences") or []
    if not isinstance(audiences, list):
        raise InvalidError("spec.audiences must be a list")
    for audience in audiences:
        if audience not in _AUDIENCES:
            raise InvalidError(f'spec.audiences: tokens of korch are for its own API, not for "{audience}"')
    return spec


def _seconds(spec: dict[str, Any]) -> int:
    seconds = spec.get("expirationSeconds") or _DEFAULT_S
    if not isinstance(seconds, int) or not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise InvalidError("spec.expirationSeconds: a token lives for 10 minutes at least and a year at most")
    return seconds


def _bound_object(spec: dict[str, Any]) -> dict[str, str]:
    """The object that the token shall end with, or {}."""
    ref = spec.get("boundObjectRef") or {}
    if not isinstance(ref, dict) or not all(isinstance(value, str) for value in ref.values()):
        raise InvalidError("spec.boundObjectRef: kind, apiVersion, name and uid are texts")
    found = {word: ref[word] for word in ("kind", "apiVersion", "name", "uid") if ref.get(word)}
    if not found:
        return {}
    if found.get("kind") not in _BINDABLE or found.get("apiVersion", "v1") != "v1" or not found.get("name"):
        raise InvalidError(f"spec.boundObjectRef: a name and a kind of v1 are needed: {', '.join(_BINDABLE)}")
    return found
