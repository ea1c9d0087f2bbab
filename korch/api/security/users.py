"""Who asks, and what their groups grant: pure values."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from korch.errors import InvalidError
from korch.resources.names import dns_label_problem

Role = Literal["admin", "edit", "view"]
ROLES: tuple[Role, ...] = get_args(Role)
MASTERS = "system:masters"  # Kubernetes' name for whoever may do everything
AUTHENTICATED = "system:authenticated"
_PREFIX = "korch:"


_ACCOUNT = "system:serviceaccount:"


def account_user(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"{_ACCOUNT}{namespace}:{name}"


def account_groups(user: str) -> tuple[str, ...]:
    """The groups that a service account is in by its user name; of all others none."""
    namespace, _, name = user.removeprefix(_ACCOUNT).partition(":")
    if not user.startswith(_ACCOUNT) or not namespace or not name:
        return ()
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. `credential`: the id it was proved with, "" when impersonated; `expires`: Unix seconds."""

    name: str
    groups: tuple[str, ...] = ()
    credential: str = ""
    expires: float = math.inf
    impersonator: str = ""


class Grant(NamedTuple):
    """A role in one namespace, or ("") in all and for what is in none."""

    role: Role
    namespace: str


def group_for(role: Role, namespace: str = "") -> str:
    """The group that grants a role."""
    if role == "admin" and not namespace:
        return MASTERS
    return f"{_PREFIX}{role}:{namespace}" if namespace else f"{_PREFIX}{role}"


def grants_of(groups: tuple[str, ...]) -> tuple[Grant, ...]:
    """The roles that groups grant; a group of an unknown form grants nothing."""
    found = []
    for group in groups:
        if group == MASTERS:
            found.append(Grant("admin", ""))
        elif group.startswith(_PREFIX):
            word, colon, namespace = group.removeprefix(_PREFIX).partition(":")
            role = next((role for role in ROLES if role == word), None)
            if role is not None and bool(colon) == bool(namespace):
                found.append(Grant(role, namespace))
    return tuple(found)


def describe_groups(groups: tuple[str, ...]) -> str:
    """The roles in words for people: `edit in shop, view`."""
    words = [grant.role + (f" in {grant.namespace}" if grant.namespace else "") for grant in grants_of(groups)]
    teams = [group for group in groups if group != MASTERS and not group.startswith((_PREFIX, "system:"))]
    return ", ".join([*words, *(f"group {team}" for team in teams)]) or "none"


def check_user_name(name: str) -> None:
    """`InvalidError` for a name that fits no certificate, or that could be taken for one of the system's."""
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip():
        raise InvalidError(f"{name!r} is no user name", hint="Use 1 to 64 printable characters.")
    if name.startswith("system:"):
        raise InvalidError(f'user name "{name}" begins with system:, which is kept for parts of the cluster')


def check_group_name(name: str) -> None:
    """`InvalidError` for a group that would be one of korch's own."""
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip():
        raise InvalidError(f"{name!r} is no name of a group", hint="Use 1 to 64 printable characters.")
    if name.startswith(("system:", _PREFIX)):
        raise InvalidError(
            f'group "{name}" is one of the cluster\'s own', hint="korch's own roles are given with --role."
        )


def check_namespace(name: str) -> None:
    """`InvalidError` for what no namespace can be called."""
    if problem := dns_label_problem(name):
        raise InvalidError(f'namespace "{name}": {problem}')
