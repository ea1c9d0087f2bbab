"""Brings new history to the watchers: one thread notices commits and reads them once, the watchers share that.

A watcher owns its place in the history, so nothing depends on the thread keeping up: who is behind what is kept in
memory reads on from the file, and who is behind what is kept in the file gets `ExpiredError`.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import takewhile
from pathlib import Path
from types import TracebackType

from korch.errors import KorchError, StoreError
from korch.store import failures, files, sql
from korch.store.base import Event
from korch.store.worker import call_in

_RING_EVENTS = 2_048
_RING_BYTES = 16_000_000
_MAX_UNREAD = 4  # chunks handed to the event loop that it has not looked at yet

ReadHistory = Callable[[str, int], Awaitable[sql.Chunk]]


class Feed:
    """The newest events in memory, and who waits for more. Methods are for the event loop unless they say otherwise."""

    def __init__(self, path: Path, *, poll_s: float, busy_s: float, read: ReadHistory) -> None:
        self.read = read
        # The ring has all that was delivered after `start`, up to `revision`. A watcher looks there only once it has
        # read the file to its end, so a ring that begins later than the watch is no gap.
        self.start = self.revision = 0
        self._ring: deque[Event] = deque()
        self._ring_bytes = 0
        self._watchers: set[Watcher] = set()
        self.closed: StoreError | None = None
        self._tail = _Tail(path, self, poll_s=poll_s, busy_s=busy_s)

    def join(self, watcher: "Watcher") -> None:
        """Start to wake `watcher`; the first one starts the thread or unparks it."""
        if self.closed is not None:
            raise self.closed
        if not self._watchers:
            self._clear(0)
        self._watchers.add(watcher)
        self._tail.run(asyncio.get_running_loop(), len(self._watchers))

    def leave(self, watcher: "Watcher") -> None:
        """Stop to wake `watcher`; without any the thread sleeps."""
        self._watchers.discard(watcher)
        self._tail.run(asyncio.get_running_loop(), len(self._watchers))

    def newer(self, revision: int, prefix: str) -> list[Event]:
        """The events in memory under `prefix` after `revision`, which must not be below `start`."""
        recent = takewhile(lambda event: event.revision > revision, reversed(self._ring))
        return [event for event in recent if event.key.startswith(prefix)][::-1]

    def nudge(self) -> None:
        """A commit was just made (any thread): look at once and not at the next tick."""
        self._tail.nudge()

    def stop(self, done: Callable[[], object]) -> None:
        """End the watches with an error and the thread; `done` is called from it."""
        self.closed = StoreError("the store was closed")
        self._wake()
        self._tail.stop(done)

    def restart(self, revision: int) -> None:
        """What the thread delivers continues after `revision`; what lies before is only in the file."""
        self._clear(revision)
        self._wake()

    def deliver(self, events: tuple[Event, ...], revision: int) -> None:
        """Events read, complete up to `revision`."""
        self._ring.extend(events)
        self._ring_bytes += sum(_size(event) for event in events)
        while self._ring and (len(self._ring) > _RING_EVENTS or self._ring_bytes > _RING_BYTES):
            oldest = self._ring.popleft()
            self._ring_bytes -= _size(oldest)
            self.start = oldest.revision  # maybe more of that revision is left; it counts as gone
        self.revision = revision
        self._wake()

    def fail(self, error: KorchError) -> None:
        """Raise `error` in each watcher's next step."""
        for watcher in self._watchers:
            watcher.error = error
        self._wake()

    def _clear(self, revision: int) -> None:
        self._ring.clear()
        self._ring_bytes = 0
        self.start = self.revision = revision

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.woken.set()


class Watcher:
    """The events under one prefix after one revision: an asynchronous context manager and iterator."""

    def __init__(self, feed: Feed, prefix: str, after: int) -> None:
        self._feed, self._prefix, self._position = feed, prefix, after
        self._from_file = True  # always at first: that also finds out whether the history is still there
        self._ready: deque[Event] = deque()
        self.woken = asyncio.Event()
        self.error: KorchError | None = None

    @property
    def revision(self) -> int:
        """The revision up to which every matching change has been handed out."""
        return self._ready[0].revision - 1 if self._ready else self._position

    async def __aenter__(self) -> "Watcher":
        self._feed.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.leave(self)

    def __aiter__(self) -> "Watcher":
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            await self._look()
        return self._ready.popleft()

    async def _look(self) -> None:
        """Take a step: read from the file, take from memory, or wait for news."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if self._feed.closed is not None:
            raise self._feed.closed
        self.woken.clear()
        if self._from_file:
            chunk = await self._feed.read(self._prefix, self._position)
            self._ready.extend(chunk.events)
            self._position = chunk.revision
            self._from_file = not chunk.last
        elif self._position < self._feed.start:
            self._from_file = True
        elif self._position < self._feed.revision:
            self._ready.extend(self._feed.newer(self._position, self._prefix))
            self._position = self._feed.revision
        else:
            await self.woken.wait()


class _Tail:
    """The thread behind a feed. While watches exist it asks SQLite every `poll_s` whether anyone has committed."""

    def __init__(self, path: Path, feed: Feed, *, poll_s: float, busy_s: float) -> None:
        self._path, self._feed, self._poll_s, self._busy_s = path, feed, poll_s, busy_s
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._done: Callable[[], object] = lambda: None
        self._watchers = self._unread = 0
        self._nudged = self._stopping = False
        # Only the thread touches these:
        self._conn: sqlite3.Connection | None = None
        self._seen: int | None = None
        self._revision: int | None = None

    def run(self, loop: asyncio.AbstractEventLoop, watchers: int) -> None:
        """Work while `watchers` is not 0."""
        with self._changed:
            self._loop, self._watchers = loop, watchers
            if self._thread is None and watchers and not self._stopping:
                self._thread = threading.Thread(target=self._main, name="korch-store-feed", daemon=True)
                self._thread.start()
            self._changed.notify()

    def nudge(self) -> None:
        """Look now."""
        with self._changed:
            self._nudged = True
            self._changed.notify()

    def stop(self, done: Callable[[], object]) -> None:
        """End the thread; it calls `done` last."""
        with self._changed:
            self._stopping, self._done = True, done
            if self._thread is not None:
                self._changed.notify()
                return
        done()

    def _main(self) -> None:
        while self._pause():
            try:
                self._step()
            except (sqlite3.Error, OSError) as error:
                failure = failures.explain(error, self._path)
                failure.__cause__ = error
                self._hang_up()
                self._post(self._feed.fail, failure)
        self._hang_up()
        self._done()

    def _hang_up(self) -> None:
        """Without the connection what it said of changes means nothing either."""
        if self._conn is not None:
            self._conn.close()
        self._conn = self._seen = None

    def _pause(self) -> bool:
        """Wait for a tick or a nudge; False when it is time to end."""
        with self._changed:
            if self._watchers and not self._nudged and not self._stopping:
                self._changed.wait(self._poll_s)
            while (not self._watchers or self._unread >= _MAX_UNREAD) and not self._stopping:
                if not self._watchers:
                    self._revision = self._seen = None
                self._changed.wait()
            self._nudged = False
            return not self._stopping

    def _step(self) -> None:
        if self._conn is None:
            self._conn = files.connect(self._path, busy_s=self._busy_s, write=False)
        version = sql.data_version(self._conn)  # before reading: a commit in between shows as a change next time
        if version == self._seen:
            return
        if self._revision is None:
            self._revision = sql.head(self._conn).revision
            self._post(self._feed.restart, self._revision)
        elif self._read_on(self._conn, self._revision):
            self._nudged = True
            return
        self._seen = version

    def _read_on(self, conn: sqlite3.Connection, after: int) -> bool:
        """Deliver the next chunk; True when there is more."""
        try:
            chunk = sql.history(conn, "", after)
        except KorchError:  # forgotten before we read it: watchers find out from the file
            self._revision = None
            return True
        if chunk.revision > after:
            self._revision = chunk.revision
            self._post(self._feed.deliver, chunk.events, chunk.revision)
        return not chunk.last

    def _post(self, call: Callable[..., None], *args: object) -> None:
        with self._changed:
            if call_in(self._loop, self._read, call, args):
                self._unread += 1
            else:
                self._stopping = True  # nobody is left to tell

    def _read(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        with self._changed:
            self._unread -= 1
            self._changed.notify()
        call(*args)


def _size(event: Event) -> int:
    return sum(len(record.value) for record in (event.record, event.previous) if record)
