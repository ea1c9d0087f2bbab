"""GET of one object and of lists: fresh, or as old as the client allows, in pages of one and the same state."""

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from korch.api.answers import Refusal, bad_request, bytes_answer, failure, not_found
from korch.api.cache import Cache, KindCache, page
from korch.api.entries import Entry, entry_of
from korch.api.fixed import fixed_one
from korch.api.formats import Form, Renderer
from korch.api.selecting import Selection, selection
from korch.api.versions import Version
from korch.resources.kinds import Kind
from korch.store.base import Store

_WHOLE = 256  # objects that are answered in one piece
_STEP = 2000  # objects looked at between two chances for others


@dataclass(frozen=True, slots=True)
class Reading:
    """What reads need: the store for one object, the cache for many."""

    store: Store
    cache: Cache
    now: Callable[[], float]


class _Token(msgspec.Struct, frozen=True):
    """Where a list goes on: the state that it is of, and the last key of the page before."""

    rv: int
    after: str


async def one(reading: Reading, kind: Kind, namespace: str, name: str) -> Entry:
    """The object as stored now; 404."""
    if (found := fixed_one(kind, name)) is not None:
        return found
    record = await reading.store.get(kind.key(namespace, name))
    if record is None:
        raise not_found(kind, name)
    return entry_of(kind, record)


async def get(reading: Reading, version: Version, namespace: str, name: str, form: Form) -> Response:
    """The answer to a GET of one object."""
    entry = await one(reading, version.kind, namespace, name)
    return bytes_answer(Renderer(version, form, reading.now).one(entry) + b"\n")


async def list_(reading: Reading, version: Version, namespace: str, query: Mapping[str, str], form: Form) -> Response:
    """The answer to a list."""
    kind = version.kind
    chosen = selection(kind, namespace, query)
    limit = whole_number(query, "limit")
    token = _decoded(query["continue"]) if query.get("continue") else None
    if token is not None and query.get("resourceVersion", "0") not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")
    entries, revision = await _state(reading, kind, query, token)
    found = await _matching(entries, kind, chosen, token)
    meta: dict[str, Any] = {"resourceVersion": str(revision)}
    if limit and len(found) > limit:
        meta["continue"] = _encoded(_Token(revision, found[limit - 1].key))
        if not chosen.labels.requirements and not chosen.fields:
            meta["remainingItemCount"] = len(found) - limit
        found = found[:limit]
        (await reading.cache.of(kind)).keep(revision, entries)
    return await _answer(Renderer(version, form, reading.now), found, meta)


async def chosen_of(
    reading: Reading, kind: Kind, namespace: str, query: Mapping[str, str]
) -> tuple[tuple[Entry, ...], int]:
    """All stored objects that the selectors of a query mean, as they are now, and the revision of that."""
    cache, revision = await reading.cache.fresh(kind)
    chosen = selection(kind, namespace, query)
    found = await _matching(cache.snapshot(), kind, chosen, None)
    return tuple(entry for entry in found if fixed_one(kind, entry.name) is None), revision


async def _answer(renderer: Renderer, found: Sequence[Entry], meta: dict[str, Any]) -> Response:
    pieces = renderer.listing(found, meta)
    if len(found) > _WHOLE:
        return StreamingResponse(pieces, media_type="application/json")
    return bytes_answer(b"".join([piece async for piece in pieces]))


async def _state(
    reading: Reading, kind: Kind, query: Mapping[str, str], token: _Token | None
) -> tuple[tuple[Entry, ...], int]:
    """All objects of the kind in the state that the request is about, and its revision."""
    wanted, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    check_match(wanted, match, query)
    exact = token.rv if token is not None else revision_number(wanted) if match == "Exact" else 0
    if exact:
        return _snapshot(await reading.cache.of(kind), exact, reading.cache.revision, continued=token is not None)
    if wanted == "0":
        cache = await reading.cache.of(kind)
        return cache.snapshot(), max(reading.cache.revision, cache.loaded)
    cache, revision = await reading.cache.fresh(kind, revision_number(wanted) if wanted else None)
    return cache.snapshot(), revision


def _snapshot(cache: KindCache, revision: int, newest: int, *, continued: bool) -> tuple[tuple[Entry, ...], int]:
    kept = cache.kept(revision)
    if kept is None and revision == max(newest, cache.loaded):
        kept = cache.snapshot()
    if kept is None and continued:
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. "
            "You can start a new list without the continue parameter."
        )
    if kept is None:
        raise expired(f"too old resource version: {revision} ({newest})")
    return kept, revision


async def _matching(
    entries: tuple[Entry, ...], kind: Kind, chosen: Selection, token: _Token | None
) -> tuple[Entry, ...]:
    part = page(entries, kind.prefix(chosen.namespace), token.after if token is not None else "")
    if not chosen.labels.requirements and not chosen.fields:
        return part
    found: list[Entry] = []
    for start in range(0, len(part), _STEP):
        if start:
            await asyncio.sleep(0)
        found += [entry for entry in part[start : start + _STEP] if entry.chosen(chosen)]
    return tuple(found)


def expired(message: str) -> Refusal:
    """What was asked for is forgotten: list again."""
    return Refusal(410, message)


def check_match(wanted: str, match: str, query: Mapping[str, str]) -> None:
    """400 or 422 for a resourceVersion and a resourceVersionMatch that do not go together."""
    if not match:
        return
    problem = ""
    if match not in ("Exact", "NotOlderThan"):
        problem = f'resourceVersionMatch: Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
    elif query.get("continue"):
        problem = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"
    elif not wanted and "sendInitialEvents" not in query:
        problem = (
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    elif match == "Exact" and wanted == "0":
        problem = 'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    if problem:
        raise invalid_options(problem)


def invalid_options(problem: str) -> Refusal:
    """422 for options of a list that cannot be."""
    details = {
        "group": "meta.k8s.io",
        "kind": "ListOptions",
        "causes": [{"reason": "FieldValueForbidden", "message": problem, "field": problem.partition(":")[0]}],
    }
    return Refusal(422, f'ListOptions.meta.k8s.io "" is invalid: {problem}', details)


def revision_number(text: str) -> int:
    """A resourceVersion as a number; 400 for one that korch never gave."""
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    raise bad_request(f'Invalid value: "{text}": resourceVersion must be a number')


def whole_number(query: Mapping[str, str], name: str) -> int:
    """A number of the query, 0 when there is none; 400 when it is no number."""
    text = query.get(name, "") or "0"
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise bad_request(f'Invalid value: "{text}": {name} must be a whole number')


def _encoded(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _decoded(text: str) -> _Token:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Token)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise bad_request("continue key is not valid") from error


def gone_status(message: str) -> dict[str, Any]:
    """The Status inside an ERROR event of a watch that has to begin anew."""
    return failure(410, message)
