"""Objects that are answered as if they were stored, and that nobody writes: korch's own roles."""

from functools import lru_cache

from korch.api.answers import forbidden
from korch.api.entries import Entry, from_plain
from korch.api.security.ownroles import own_roles
from korch.resources.codec import to_dict
from korch.resources.kinds import CLUSTERROLE, Kind, every_kind


def fixed(kind: Kind) -> tuple[Entry, ...]:
    """All of a kind, by key; the same tuple as long as they are the same."""
    return _roles(every_kind()) if kind is CLUSTERROLE else ()


@lru_cache(maxsize=2)
def _roles(_: tuple[Kind, ...]) -> tuple[Entry, ...]:
    """For the kinds that there are now: the roles tell of each of them."""
    return tuple(
        from_plain(
            CLUSTERROLE, to_dict(role), CLUSTERROLE.key("", role.metadata.name), int(role.metadata.resource_version)
        )
        for role in own_roles()
    )


def with_fixed(entries: tuple[Entry, ...], more: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Both in the order of their keys; what is fixed counts where something else is stored under its name."""
    if not more:
        return entries
    found = {entry.key: entry for entry in (*entries, *more)}
    return tuple(found[key] for key in sorted(found))


def fixed_one(kind: Kind, name: str) -> Entry | None:
    """The one of that name, or None."""
    return next((entry for entry in fixed(kind) if entry.name == name), None)


def check_written(kind: Kind, name: str) -> None:
    """403 for a write to one of them."""
    if name and fixed_one(kind, name) is not None:
        raise forbidden(kind, name, "it is one of korch's own: it can be bound, and not be written")
