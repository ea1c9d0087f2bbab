"""DELETE of one object and of collections, evictions: options from query and body, answers as clients expect them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from starlette.responses import Response

from korch.api.answers import (
    Refusal,
    bad_request,
    bytes_answer,
    conflict,
    details_of,
    forbidden,
    json_answer,
    not_found,
    success,
)
from korch.api.formats import PLAIN, Renderer
from korch.api.reading import Reading, chosen_of
from korch.api.target import Body, is_dry
from korch.api.versions import plain_version
from korch.api.wire import strict
from korch.api.writing import shown
from korch.errors import ConflictError, NotFoundError
from korch.objects.objects import Objects
from korch.objects.values import Deletion
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import Kind
from korch.resources.meta import Object
from korch.resources.misc import Namespace

Propagation = Literal["Background", "Foreground", "Orphan"]
_POLICIES = ("Background", "Foreground", "Orphan")
_MOST_GRACE_S = 10**7


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete. `uid` and `revision` are preconditions."""

    grace_s: int | None = None
    propagation: Propagation = "Background"
    uid: str | None = None
    revision: str = ""
    dry_run: bool = False


def options_of(query: Mapping[str, str], body: Body) -> DeleteOptions:
    """How to delete, from the body, else from the query; 400 or 422 for options that cannot be."""
    given = strict.parse_body(body.data, body.content_type) if body.data.strip() else {}
    grace = given.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    policy = given.get("propagationPolicy", query.get("propagationPolicy")) or ""
    orphan = given.get("orphanDependents", query.get("orphanDependents"))
    if policy and orphan is not None:
        raise bad_request("orphanDependents and propagationPolicy cannot be both set")
    if not policy:
        policy = "Orphan" if orphan in (True, "true") else "Background"
    if policy not in _POLICIES:
        raise Refusal(
            422,
            f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{policy}": '
            'supported values: "Background", "Foreground", "Orphan"',
        )
    before = given.get("preconditions") or {}
    dry = given.get("dryRun") or ([query["dryRun"]] if query.get("dryRun") else [])
    if not isinstance(before, dict) or not isinstance(dry, list):
        raise bad_request("DeleteOptions: preconditions is a mapping, and dryRun is a list")
    return DeleteOptions(
        grace_s=_grace_s(grace),
        propagation=cast("Propagation", policy),
        uid=before.get("uid") or None,
        revision=str(before.get("resourceVersion") or ""),
        dry_run=any(is_dry(str(word)) for word in dry),
    )


def _grace_s(grace: Any) -> int | None:
    if grace is None or grace == "":
        return None
    try:
        seconds = int(grace)
    except (TypeError, ValueError):
        raise bad_request(f'gracePeriodSeconds: Invalid value: "{grace}"') from None
    return None if seconds < 0 else min(seconds, _MOST_GRACE_S)  # below 0: its own; 0 would be by force


class Deleter:
    """Deletes for one API."""

    def __init__(self, objects: Objects, reading: Reading) -> None:
        self._objects, self._reading = objects, reading

    async def delete(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> Response:
        """The answer: the object for some kinds, else a Status that names it."""
        before, left = await self._delete(kind, namespace, name, options)
        if kind.returned:
            return json_answer(shown(kind, left or before).plain())
        return json_answer(success({**details_of(kind, name), "uid": before.metadata.uid}))

    async def _delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[Object, Object | None]:
        """The object as it was, and as it is while something holds it."""
        before = await self._objects.find(kind.type, name, namespace)
        if before is None:
            raise not_found(kind, name)
        if options.uid and options.uid != before.metadata.uid:
            why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {before.metadata.uid}"
            raise conflict(kind, name, why)
        if options.revision and options.revision != before.metadata.resource_version:
            why = (
                f"Precondition failed: ResourceVersion in precondition: {options.revision}, "
                f"ResourceVersion in object meta: {before.metadata.resource_version}"
            )
            raise conflict(kind, name, why)
        if isinstance(before, Namespace) and name == DEFAULT_NAMESPACE:
            raise forbidden(kind, name, "this namespace may not be deleted")
        wish = Deletion(
            propagation=options.propagation,
            revision=options.revision,
            force=options.grace_s == 0,
            contents=True,
            dry_run=options.dry_run,
        )
        left = await self._objects.delete(
            kind.type, name, namespace, uid=options.uid, grace_s=options.grace_s, wish=wish
        )
        return before, left

    async def collection(
        self, kind: Kind, namespace: str, query: Mapping[str, str], options: DeleteOptions
    ) -> Response:
        """The answer to a deletion of all that a selection means: the list of them."""
        entries, revision = await chosen_of(self._reading, kind, namespace, query)
        for entry in entries:
            try:
                await self._delete(kind, entry.namespace, entry.name, options)
            except (NotFoundError, ConflictError):
                continue  # somebody else was faster
            except Refusal as refusal:
                if refusal.code not in (404, 409):
                    raise
        pieces = Renderer(plain_version(kind), PLAIN, self._reading.now).listing(
            entries, {"resourceVersion": str(revision)}
        )
        return bytes_answer(b"".join([piece async for piece in pieces]))
