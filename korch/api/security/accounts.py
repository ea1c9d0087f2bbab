"""Tokens of service accounts, as `kubectl create token` asks for them. They end with their account."""

from typing import Any

from korch.api.requestinfo import RequestInfo
from korch.api.security.credentials import FORGET_AFTER_S, Credentials
from korch.errors import InvalidError
from korch.objects.values import Clock
from korch.resources.kinds import SERVICEACCOUNT
from korch.resources.times import rfc3339

_DEFAULT_S, _SHORTEST_S, _LONGEST_S = 3600, 600, 366 * 86_400  # Kubernetes' default and its shortest


class AccountTokens:
    """Answers TokenRequests. Such a token says who asks; what they may is up to RoleBindings."""

    def __init__(self, credentials: Credentials, clock: Clock) -> None:
        self._credentials, self._clock = credentials, clock

    async def answer(self, info: RequestInfo, data: dict[str, Any]) -> dict[str, Any]:
        """The request with its status. `NotFoundError` without the account."""
        seconds, now = _seconds(data), self._clock.now()
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{info.namespace}")
        await self._credentials.forget_expired(now, after_s=FORGET_AFTER_S)
        minted = await self._credentials.mint_token(
            f"system:serviceaccount:{info.namespace}:{info.name}",
            groups,
            now=now,
            ttl_s=seconds,
            bound_to=SERVICEACCOUNT.key(info.namespace, info.name),
        )
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": info.name, "namespace": info.namespace, "creationTimestamp": rfc3339(now)},
            "spec": {"audiences": [], "expirationSeconds": seconds, "boundObjectRef": None},
            "status": {"token": minted.token, "expirationTimestamp": rfc3339(now + seconds)},
        }


def _seconds(data: dict[str, Any]) -> int:
    spec = data.get("spec") or {}
    seconds = (spec.get("expirationSeconds") if isinstance(spec, dict) else None) or _DEFAULT_S
    if data.get("kind", "TokenRequest") != "TokenRequest" or not isinstance(spec, dict):
        raise InvalidError("the body is no TokenRequest")
    if not isinstance(seconds, int) or not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise InvalidError("spec.expirationSeconds: a token lives for 10 minutes at least and a year at most")
    return seconds
