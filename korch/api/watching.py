"""Watches: every change of a selection once, in order, or word that the client has to list again.

A watcher has a place in the changes that the cache keeps and reads on from there at its own pace.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

import msgspec
from starlette.responses import Response, StreamingResponse

from korch.api.cache import KindCache
from korch.api.entries import Change, Entry, event_line
from korch.api.formats import Form, Renderer
from korch.api.reading import (
    Reading,
    check_match,
    expired,
    gone_status,
    invalid_options,
    revision_number,
    whole_number,
)
from korch.api.requestinfo import truth
from korch.api.selecting import Selection, selection
from korch.api.versions import Version
from korch.errors import ExpiredError
from korch.resources.kinds import Kind

INITIAL_END = {"k8s.io/initial-events-end": "true"}
BOOKMARK_S = 60.0
NOW = -1
_LEAST_S = 1800.0  # of a watch without timeoutSeconds; up to twice that, so that not all come back at once
_MOST = 256  # changes looked at in one go
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched and how. `after` None: begin with all that is there, as it is now or (`stale`) as it is known.

    `NOW` as `after`: only what comes.
    """

    selection: Selection
    after: int | None
    stale: bool
    bookmarks: bool
    initial_end: bool
    timeout_s: float


def watch_of(kind: Kind, namespace: str, query: Mapping[str, str]) -> Watch:
    """What a watch request asks for; 400 or 422 when it asks for what cannot be."""
    wanted, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    initial = query.get("sendInitialEvents")
    bookmarks = truth(query.get("allowWatchBookmarks"))
    if initial is not None and match != "NotOlderThan":
        raise invalid_options("resourceVersionMatch: Forbidden: sendInitialEvents requires NotOlderThan")
    if initial is None and match:
        raise invalid_options("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch")
    check_match(wanted, match, query)
    from_all = truth(initial) if initial is not None else wanted in ("", "0")
    after = None if from_all else NOW if wanted in ("", "0") else revision_number(wanted)
    return Watch(
        selection=selection(kind, namespace, query),
        after=after,
        stale=wanted == "0" and initial is None,
        bookmarks=bookmarks,
        initial_end=truth(initial) and bookmarks,
        timeout_s=_timeout_s(query),
    )


def _timeout_s(query: Mapping[str, str]) -> float:
    """`timeoutSeconds` bounds the watch, and so does the client's own deadline for the request."""
    asked = whole_number(query, "timeoutSeconds") or _LEAST_S * random.uniform(1, 2)  # noqa: S311 (no secret)
    return min(asked, duration_s(query.get("timeout", "")) or asked)


def duration_s(text: str) -> float:
    """Seconds of a Go duration of one unit (`32s`, `1m0s` counts as its minutes); 0 for anything else."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    total, number = 0.0, ""
    rest = text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        unit = next((name for name in ("ms", "h", "m", "s") if rest.startswith(name)), "")
        if not unit or not number.replace(".", "", 1).isdigit():
            return 0.0
        total += float(number) * units[unit]
        rest = rest[len(unit) :]
    return total


async def watch(
    reading: Reading, version: Version, namespace: str, query: Mapping[str, str], form: Form, ending: asyncio.Event
) -> Response:
    """The answer to a watch. A revision that is forgotten is told before the stream begins: 410."""
    wish = watch_of(version.kind, namespace, query)
    feed = _Feed(reading, version.kind, wish, Renderer(version, form, reading.now), ending)
    await feed.begin()
    return StreamingResponse(feed.lines(), media_type="application/json")


class _Feed:
    """One watcher on its way through the changes."""

    def __init__(self, reading: Reading, kind: Kind, wish: Watch, renderer: Renderer, ending: asyncio.Event) -> None:
        self._reading, self._kind, self._wish, self._renderer = reading, kind, wish, renderer
        self._ending = ending
        self._cache: KindCache
        self._place = 0
        self._initial: tuple[Entry, ...] = ()
        self._begun_at = 0
        self._missed: list[Change] | None = None
        self._headed = False  # a Table's columns were named

    async def begin(self) -> None:
        """Find the place to begin at."""
        cache, wish = self._reading.cache, self._wish
        if wish.after is None:
            if wish.stale:
                self._cache = await cache.of(self._kind)
                self._begun_at = max(cache.revision, self._cache.loaded)
            else:
                self._cache, self._begun_at = await cache.fresh(self._kind)
            self._initial = tuple(entry for entry in self._cache.snapshot() if entry.chosen(wish.selection))
            self._place = self._cache.end
            return
        if wish.after == NOW:
            self._cache, self._begun_at = await cache.fresh(self._kind)
            self._place = self._cache.end
            return
        self._cache, _ = await cache.fresh(self._kind, wish.after)
        self._begun_at = wish.after
        place = self._cache.place_after(wish.after)
        while place is None:
            place = await self._catch_up(wish.after)
        self._place = place

    async def _catch_up(self, after: int) -> int | None:
        """Read what the cache has forgotten from the store; the place in the cache to go on from, if it is known."""
        start = self._cache.start
        try:
            self._missed = [change async for change in self._reading.cache.history(self._cache, after)]
        except ExpiredError as error:
            raise expired(f"too old resource version: {after} ({start})") from error
        return self._cache.place_after(start)

    async def lines(self) -> AsyncIterator[bytes]:
        """The stream: joined events, each a line."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._wish.timeout_s
        for piece in self._opening():
            yield piece
            await asyncio.sleep(0)
        self._initial, self._missed = (), None
        marked = loop.time()
        while not self._ending.is_set():
            try:
                changes = self._cache.since(self._place, _MOST)
            except ExpiredError as error:
                yield event_line("ERROR", msgspec.json.encode(gone_status(str(error))))
                return
            if changes:
                self._place += len(changes)
                for piece in _joined(self._line(change) for change in changes):
                    yield piece
                continue
            now = loop.time()
            if self._wish.bookmarks and (now >= end or now - marked >= BOOKMARK_S):
                marked = now
                yield event_line("BOOKMARK", self._renderer.bookmark(self._seen()))
            if now >= end:
                return
            await self._cache.news(min(end - now, BOOKMARK_S - (now - marked) if self._wish.bookmarks else end - now))

    def _seen(self) -> int:
        """The revision up to which this watcher has been told everything."""
        return max(self._reading.cache.revision, self._cache.loaded, self._begun_at)

    def _opening(self) -> Iterable[bytes]:
        yield from _joined(self._added(entry) for entry in self._initial)
        if self._wish.initial_end:
            yield event_line("BOOKMARK", self._renderer.bookmark(self._begun_at, INITIAL_END))
        if self._missed is not None:
            yield from _joined(self._line(change) for change in self._missed)

    def _added(self, entry: Entry) -> bytes:
        return event_line("ADDED", self._rendered(entry, entry.revision))

    def _line(self, change: Change) -> bytes:
        type_ = change.type_for(self._wish.selection)
        if type_ is None:
            return b""
        form = (self._renderer.form, self._renderer.kind, self._headed)
        line = change.line(type_, form, self._rendered)
        self._headed = True
        return line

    def _rendered(self, entry: Entry, revision: int) -> bytes:
        headed, self._headed = self._headed, True
        return (self._renderer.row if headed else self._renderer.one)(entry, revision)


def _joined(lines: Iterable[bytes]) -> Iterable[bytes]:
    """The lines in pieces of a good size."""
    pieces: list[bytes] = []
    size = 0
    for line in lines:
        if not line:
            continue
        pieces.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)
