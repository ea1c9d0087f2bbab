"""A new credential for a person or a program, put on record before anybody holds it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from korch.api.security.credentials import FORGET_AFTER_S, Credential, Credentials
from korch.api.security.kubeconfig import Access
from korch.api.security.pki import load_authority
from korch.api.security.users import Role, check_group_name, check_namespace, check_user_name, group_for
from korch.errors import InvalidError
from korch.store.base import Store

SHORTEST_S, LONGEST_S = 60.0, 10 * 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Wish:
    """Who shall be able to do what, for how long. `namespace` "": everywhere. `teams`: groups for RoleBindings."""

    user: str
    role: Role | Literal["none"]
    namespace: str
    ttl_s: float
    token: bool = False
    teams: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the credential."""
        return (*(() if self.role == "none" else (group_for(self.role, self.namespace),)), *dict.fromkeys(self.teams))


async def mint(
    store: Store, pki: Path, cluster: str, wish: Wish, *, now: float, server: str, context: str = ""
) -> tuple[Access, Credential]:
    """A way to the cluster with a new credential, and the record of that."""
    check_user_name(wish.user)
    for team in wish.teams:
        check_group_name(team)
    if wish.namespace:
        check_namespace(wish.namespace)
    if not SHORTEST_S <= wish.ttl_s <= LONGEST_S:
        hint = "Give --ttl, such as 12h or 90d."
        raise InvalidError("a credential lives for a minute at least and ten years at most", hint=hint)
    if not re.fullmatch(r"https://[^\s/]+", server):
        raise InvalidError(f'"{server}" is no address of an API', hint="Write it like https://m1.example.com:6443")
    credentials, groups = Credentials(store), wish.groups
    authority = load_authority(pki, cluster, now=now)
    await credentials.forget_expired(now, after_s=FORGET_AFTER_S)
    name = context or context_name(cluster, wish.role, wish.namespace)
    if wish.token:
        minted = await credentials.mint_token(wish.user, groups, now=now, ttl_s=wish.ttl_s)
        return Access(name, server, authority.pem, wish.namespace, token=minted.token), minted.credential
    pair = authority.issue_client(wish.user, groups, now=now, ttl_s=wish.ttl_s)
    record = await credentials.add_certificate(pair.serial, wish.user, groups, now=now, expires=pair.expires)
    return Access(name, server, authority.pem, wish.namespace, certificate=pair.certificate, key=pair.key), record


def context_name(cluster: str, role: str, namespace: str) -> str:
    """What a context is called when nobody says: `korch-lab`, `korch-lab-view-shop`."""
    words = ["korch", cluster, *([role] if role != "admin" or namespace else []), *([namespace] if namespace else [])]
    return "-".join(words)
