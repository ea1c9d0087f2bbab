"""What is stored, in memory, for lists and watches: one watch on the store feeds any number of readers.

A kind is loaded when it is first asked for, then follows the store. Each kind keeps its newest changes; a watcher has
a place in them and nothing else, so a slow one costs nothing and falls behind alone. Who falls behind what is kept
reads on from the store's own history (`history`), and who is behind that has to list again.
"""

import asyncio
import logging
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from korch.api.answers import too_new
from korch.api.entries import Change, Entry, entry_of
from korch.api.fixed import fixed, with_fixed
from korch.errors import ExpiredError, KorchError, StoreError, TransientError
from korch.resources.kinds import Kind
from korch.store.base import Changes, Event, Record, Store

log = logging.getLogger(__name__)

KEPT_CHANGES = 4096  # of a kind
KEPT_BYTES = 32_000_000
SNAPSHOTS = 64  # of a kind: lists being read page by page
_FRESH_S = 5.0
_STEP = 200  # objects between two chances for others
_BURST = 64  # events
_RETRY_S = 0.5


class KindCache:
    """All objects of one kind, and how they came to be so."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []  # in order: sorting them all after each change would take long
        self._sorted: tuple[Entry, ...] | None = None
        self._fixed: tuple[Entry, ...] = ()
        self._snapshots: dict[int, tuple[Entry, ...]] = {}
        self.changes: list[Change] = []
        self.first = 0  # the number of changes[0], counted since the kind was loaded
        self.loaded = 0  # the revision of the list that it began with
        self.start = 0  # `changes` has all after this revision
        self._bytes = 0
        self._news = asyncio.Event()
        self.closed = False  # something was missed: whoever reads here has to begin anew

    async def fill(self, records: tuple[Record, ...], revision: int) -> None:
        """Take over a list of the store."""
        for number, record in enumerate(records):
            self._entries[record.key] = self._entry(record)
            if number % _STEP == _STEP - 1:
                await asyncio.sleep(0)
        self._keys = sorted(self._entries)
        self._sorted = None
        self.start = self.loaded = revision

    def apply(self, event: Event) -> None:
        """Follow one change; what is older than the list is known."""
        if event.revision <= self.loaded:
            return
        try:
            change = self.change_of(event, self._entries.get(event.key))
        except StoreError as error:  # a damaged record takes nothing else away
            log.error("%s", error)
            return
        self._put(event.key, change.new)
        self.changes.append(change)
        self._bytes += change.size
        if len(self.changes) > 2 * KEPT_CHANGES or self._bytes > 2 * KEPT_BYTES:
            self._trim()
        self.wake()

    def _put(self, key: str, new: Entry | None) -> None:
        known = key in self._entries
        if new is None:
            if known:
                del self._entries[key], self._keys[bisect_left(self._keys, key)]
        else:
            self._entries[key] = new
            if not known:
                insort(self._keys, key)
        self._sorted = None

    def change_of(self, event: Event, old: Entry | None = None) -> Change:
        """The change that an event of the store tells of."""
        if old is None and event.previous is not None:
            old = self._entry(event.previous)
        new = None if event.record is None else self._entry(event.record)
        return Change(event.revision, new, old)

    def _entry(self, record: Record) -> Entry:
        return entry_of(self.kind, record)

    def _trim(self) -> None:
        """Forget the older half, and more while what is left is too much."""
        drop = len(self.changes) // 2
        self.start = self.changes[drop - 1].revision
        del self.changes[:drop]
        self.first += drop
        self._bytes = sum(change.size for change in self.changes)

    def wake(self) -> None:
        """Let all that wait look again."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def close(self) -> None:
        """End it: readers get `ExpiredError`."""
        self.closed = True
        self.wake()

    def snapshot(self) -> tuple[Entry, ...]:
        """All objects in key order, as they are now."""
        more = fixed(self.kind)
        if self._sorted is None or more is not self._fixed:
            self._fixed = more
            self._sorted = with_fixed(tuple(map(self._entries.__getitem__, self._keys)), more)
        return self._sorted

    def keep(self, revision: int, entries: tuple[Entry, ...]) -> None:
        """Remember a snapshot, for a while."""
        self._snapshots.pop(revision, None)
        self._snapshots[revision] = entries
        while len(self._snapshots) > SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]

    def kept(self, revision: int) -> tuple[Entry, ...] | None:
        """A snapshot of then, or None."""
        return self._snapshots.get(revision)

    @property
    def end(self) -> int:
        """The number that the next change will have."""
        return self.first + len(self.changes)

    def place_after(self, revision: int) -> int | None:
        """The number of the first change after a revision; None when that is no longer known here."""
        if revision < self.start:
            return None
        return self.first + bisect_right(self.changes, revision, key=lambda change: change.revision)

    def since(self, place: int, most: int) -> list[Change]:
        """Up to `most` changes from a number on; `ExpiredError` when they are forgotten."""
        if self.closed or place < self.first:
            raise ExpiredError("too old resource version: the watch is too far behind")
        at = place - self.first
        return self.changes[at : at + most]

    async def news(self, timeout_s: float) -> None:
        """Wait until something happened here, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()


class Cache:
    """Every kind that was asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kinds: dict[Kind, KindCache] = {}
        self._pending: dict[Kind, list[Event]] = {}  # of kinds that are being loaded
        self._loading: dict[Kind, asyncio.Task[KindCache]] = {}
        self._prefixes: dict[str, Kind] = {}
        self._changes: Changes | None = None
        self._task: asyncio.Task[None] | None = None
        self._running = asyncio.Event()
        self._moved = asyncio.Event()
        self._failure: KorchError | None = None

    @property
    def revision(self) -> int:
        """Everything up to this revision has been seen."""
        return self._changes.revision if self._changes is not None else 0

    async def of(self, kind: Kind) -> KindCache:
        """The cache of a kind, loaded."""
        await self._follow()
        found = self._kinds.get(kind)
        if found is not None:
            return found
        task = self._loading.get(kind)
        if task is None:
            task = self._loading[kind] = asyncio.create_task(self._load(kind), name=f"load-{kind.plural}")
            task.add_done_callback(lambda _: self._loading.pop(kind, None))
        return await asyncio.shield(task)

    async def fresh(self, kind: Kind, at_least: int | None = None) -> tuple[KindCache, int]:
        """The cache of a kind and the revision that it is at: not older than what is stored now, or than asked."""
        wanted = await self._store.revision() if at_least is None else at_least
        found = await self.of(kind)
        end = asyncio.get_running_loop().time() + _FRESH_S
        while max(self.revision, found.loaded) < wanted:
            if asyncio.get_running_loop().time() > end:
                raise too_new(wanted, self.revision)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):  # the store's position may move without an event
                    await self._moved.wait()
        return (found if not found.closed else await self.of(kind)), max(self.revision, found.loaded)

    async def history(self, cache: KindCache, after: int) -> AsyncIterator[Change]:
        """Changes after a revision from the store, up to where the cache itself goes on; `ExpiredError`."""
        until = cache.start
        async with self._store.watch("", after=after) as changes, aclosing(_timely(changes, until)) as events:
            async for event in events:
                if event.key.startswith(cache.kind.prefix()):
                    yield cache.change_of(event)

    async def close(self) -> None:
        """Stop following; all readers end."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._task = None
        self._drop()

    async def _follow(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="api-cache")
        if not self._running.is_set():
            await self._running.wait()
        if self._failure is not None:
            raise TransientError(f"the store cannot be followed: {self._failure}") from self._failure

    async def _run(self) -> None:
        while True:
            try:
                after = await self._store.revision()
                async with self._store.watch("", after=after) as changes:
                    self._changes, self._failure = changes, None
                    self._running.set()
                    await self._read_on(changes)
            except ExpiredError:
                log.info("the history was compacted faster than it was read: loading again")
            except KorchError as error:
                log.warning("the store cannot be followed: %s", error)
                await self._fail(error)
            except Exception as error:
                log.exception("following the store failed; this is a bug in korch")
                await self._fail(KorchError(str(error)))
            self._drop()

    async def _fail(self, error: KorchError) -> None:
        """Tell who waits, and whoever asks until it is better."""
        self._failure = error
        self._running.set()
        self._drop()
        await asyncio.sleep(_RETRY_S)

    async def _read_on(self, changes: Changes) -> None:
        """Apply all that comes, with a chance for others now and then, never within one transaction."""
        number = 0
        async for event in changes:
            self._apply(event)
            number += 1
            if number >= _BURST and changes.revision >= event.revision:
                number = 0
                await asyncio.sleep(0)

    def _drop(self) -> None:
        self._changes = None
        if self._failure is None:
            self._running.clear()
        for found in self._kinds.values():
            found.close()
        self._kinds.clear()

    def _apply(self, event: Event) -> None:
        for kind, pending in self._pending.items():
            if event.key.startswith(kind.prefix()):
                pending.append(event)
        parts = event.key.split("/", 3)
        kind_ = self._prefixes.get("/".join(parts[:3]) + "/")
        found = self._kinds.get(kind_) if kind_ is not None else None
        if found is not None:
            found.apply(event)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _load(self, kind: Kind) -> KindCache:
        pending = self._pending[kind] = []
        following = self._changes
        try:
            cache = KindCache(kind)
            listing = await self._store.list(kind.prefix())
            await cache.fill(listing.records, listing.revision)
            for event in pending:
                if event.revision > listing.revision:
                    cache.apply(event)
        finally:
            del self._pending[kind]
        if self._changes is not following:  # the watch broke meanwhile, and something may be missing
            return await self._load(kind)
        former = self._prefixes.get(kind.prefix())
        if former is not None and former != kind:  # a custom kind with another definition: its watchers begin anew
            old = self._kinds.pop(former, None)
            if old is not None:
                old.close()
        self._prefixes[kind.prefix()] = kind
        self._kinds[kind] = cache
        return cache


async def _timely(changes: Changes, until: int) -> AsyncGenerator[Event, None]:
    """The events up to a revision that is past already. A store that cannot bring them in time has lost them."""
    while changes.revision < until:
        try:
            async with asyncio.timeout(_FRESH_S):
                event = await changes.__anext__()
        except TimeoutError as error:
            raise ExpiredError("too old resource version: its history is not complete") from error
        if event.revision > until:
            return
        yield event


def page(entries: tuple[Entry, ...], prefix: str, after: str) -> tuple[Entry, ...]:
    """The entries under a key prefix and behind a key, of entries in key order."""
    low = bisect_left(entries, prefix, key=lambda entry: entry.key)
    if after:
        low = max(low, bisect_right(entries, after, key=lambda entry: entry.key))
    high = bisect_left(entries, prefix[:-1] + "0", key=lambda entry: entry.key)  # "0" is next to "/"
    return entries[low:high]
