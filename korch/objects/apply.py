"""What `apply` makes of a manifest and the stored object: pure, but for the loop around it.

Modelled on `kubectl apply`'s three-way merge.
"""

import json
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, cast

from korch.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError
from korch.objects.prepare import subject
from korch.resources.codec import from_dict, to_dict, with_meta
from korch.resources.defaults import with_defaults
from korch.resources.kinds import kind_of
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.patch import three_way_merge

T = TypeVar("T", bound=Object)

LAST_APPLIED = "korch.dev/last-applied"
_META = ("labels", "annotations")
_TRIES = 16


class Keeping(Protocol):
    """Where objects are kept: the store, or a master far away."""

    async def find(self, type_: type[T], name: str, namespace: str) -> T | None:
        """The object, or None."""

    async def create(self, obj: T) -> T:
        """A new object. `AlreadyExistsError`."""

    async def modify(self, type_: type[T], name: str, namespace: str, change: Callable[[T], T | None]) -> T:
        """Read, change, write; again on conflict. `NotFoundError`."""


async def apply_to(keeping: Keeping, obj: T, namespace: str) -> tuple[T, Literal["created", "configured", "unchanged"]]:
    """Declare an object there, also while others make or delete it. `ConflictError` when they never stop."""
    name = obj.metadata.name
    for _ in range(_TRIES):
        before = await keeping.find(type(obj), name, namespace)
        if before is None:
            try:
                return await keeping.create(declared(obj)), "created"
            except AlreadyExistsError:
                continue  # it came in between
        try:
            after = await keeping.modify(type(obj), name, namespace, lambda stored: merged(obj, stored))
        except NotFoundError:
            continue  # it went in between
        same = after.metadata.resource_version == before.metadata.resource_version
        return after, "unchanged" if same else "configured"
    raise ConflictError(f"{subject(obj)} comes and goes", hint="Somebody else deletes it: try it again.")


def declared(obj: T) -> T:
    """The object of a manifest that is applied for the first time: it remembers what the manifest said."""
    annotations = {**obj.metadata.annotations, LAST_APPLIED: _remembered(obj)}
    return with_meta(obj, annotations=annotations, resource_version="")


def merged(obj: T, stored: T) -> T:
    """`stored` after applying `obj`: what the manifest says, without what it said before, with what others added."""
    wanted, before = _wish(obj), _last_applied(stored)
    result = three_way_merge(before, wanted, _wish(stored))
    annotations = {**result["metadata"]["annotations"], LAST_APPLIED: _remembered(obj)}
    labels = result["metadata"]["labels"]
    changed = from_dict(kind_of(obj), {**result, "metadata": {"name": stored.metadata.name}})
    meta = {name: getattr(stored.metadata, name) for name in stored.metadata.__struct_fields__}
    return cast("T", with_meta(changed, **{**meta, "labels": labels, "annotations": annotations}))


def _wish(obj: Object) -> dict[str, Any]:
    """What a manifest can own: labels, annotations, and everything beside metadata and status."""
    data = to_dict(with_defaults(obj) if isinstance(obj, Secret) else obj)  # stringData is a way to write data
    meta = {key: data["metadata"].get(key, {}) for key in _META}
    meta["annotations"] = {key: text for key, text in meta["annotations"].items() if key != LAST_APPLIED}
    rest = {key: value for key, value in data.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    return {"metadata": meta, **rest}


def _remembered(obj: Object) -> str:
    """The manifest as text. Of a Secret only which keys it has: annotations are shown, logged and backed up."""
    wish = _wish(obj)
    if isinstance(obj, Secret):
        wish = {**wish, "data": dict.fromkeys(wish.get("data", {}), "")}
    return json.dumps(wish, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _last_applied(stored: Object) -> dict[str, Any]:
    text = stored.metadata.annotations.get(LAST_APPLIED)
    if text is None:
        return {}
    try:
        before = json.loads(text)
    except ValueError as error:
        raise InvalidError(
            f'annotation {LAST_APPLIED} of "{stored.metadata.name}" is not JSON', hint="Remove the annotation."
        ) from error
    return before if isinstance(before, dict) else {}
