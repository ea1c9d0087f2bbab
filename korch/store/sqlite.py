"""The store on one SQLite file, for any number of processes of one machine: the asynchronous front.

Reads and writes run in threads that start when first used; writes that wait together are committed together.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from korch.errors import InvalidError, KorchError, StoreError
from korch.store import failures, files, sql
from korch.store.backup import back_up
from korch.store.base import Changes, Delete, Listing, Op, Put, Record
from korch.store.feed import Feed, Watcher
from korch.store.ops import check_ops, key_size
from korch.store.upkeep import Limits, used_bytes
from korch.store.worker import Worker, call_in, settle
from korch.store.writer import Compact, Leap, Settled, Write, Writer

Answer = TypeVar("Answer")
_READERS = 2


class Size(msgspec.Struct, frozen=True):
    """What the state takes on the disk: the file, what of it holds data, SQLite's log beside it; revisions kept."""

    file_bytes: int
    used_bytes: int
    wal_bytes: int
    revisions: int


class _Read(msgspec.Struct, frozen=True):
    call: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


async def open_sqlite(
    path: Path | str,
    *,
    limits: Limits | None = None,
    busy_s: float = 10.0,
    poll_s: float = 0.05,
    wait_s: float = 10.0,
) -> "SqliteStore":
    """The store in the file at `path`, which is created (0600, its folder 0700) when there is none.

    Raises `StoreError` when it cannot be used. `busy_s` is how long a write waits for other processes' writes, `poll_s`
    how often their commits are looked for while there are watches, `wait_s` how long a restore under way is waited for.
    """
    store = SqliteStore(Path(path), limits or Limits(), busy_s=busy_s, poll_s=poll_s, wait_s=wait_s)
    try:
        await store.revision()
    except BaseException:
        await store.close()
        raise
    return store


class SqliteStore:
    """A `Store`; see `open_sqlite`. Belongs to the event loop and the process that opened it."""

    def __init__(self, path: Path, limits: Limits, *, busy_s: float, poll_s: float, wait_s: float) -> None:
        self.path = path = path.absolute()
        self._busy_s, self._wait_s = busy_s, wait_s
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._lock: int | None = None  # set by the first reader, before anything else is touched
        self._closing: asyncio.Task[None] | None = None
        self._feed = Feed(path, poll_s=poll_s, busy_s=busy_s, read=self._history)
        self._writer = Writer(path, busy_s=busy_s, limits=limits, settle=self._settle_writes)
        self._write_worker: Worker[Write | Compact | Leap] = Worker(
            "korch-store-writer", self._writer.handle, batch=256, finish=self._writer.close
        )
        self._readers = [_Reader(self, number).worker for number in range(_READERS)]

    async def get(self, key: str) -> Record | None:
        """The record, or None."""
        key_size(key)
        return await self._ask(lambda conn: sql.get(conn, key))

    async def list(self, prefix: str, *, after: str = "", limit: int = 0) -> Listing:
        """Records whose key starts with `prefix` and is greater than `after`, in key order; `limit` 0 = all."""
        return await self._ask(lambda conn: sql.list_records(conn, prefix, after, limit))

    async def revision(self) -> int:
        """The newest revision."""
        return (await self._ask(sql.head)).revision

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """Write one key; the new revision."""
        return await self.txn((Put(key, value, expect),))

    async def delete(self, key: str, *, expect: int | None = None) -> int:
        """Remove one key; the revision after it (unchanged when there was nothing to remove)."""
        return await self.txn((Delete(key, expect),))

    async def txn(self, ops: Sequence[Op]) -> int:
        """All of `ops` at one new revision, or none with `KeyConflictError` naming the key."""
        checked = check_ops(ops)
        self._check_usable()
        future: asyncio.Future[int] = self._loop.create_future()
        self._write_worker.submit(Write(checked, future))
        return await future

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Changes]:
        """Every change of matching keys after revision `after`, in order, none lost, without end."""
        self._check_usable()
        return Watcher(self._feed, prefix, after)

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including `revision`; what stands stays."""
        self._check_usable()
        future: asyncio.Future[int] = self._loop.create_future()
        self._write_worker.submit(Compact(revision, future))
        await future

    async def leap(self, at_least: int) -> int:
        """The newest revision, made `at_least` that; the history before it is forgotten, so every watch lists again.

        For a state that takes the place of a lost one: no revision that was handed out before may come again.
        """
        self._check_usable()
        future: asyncio.Future[int] = self._loop.create_future()
        self._write_worker.submit(Leap(at_least, future))
        return await future

    async def size(self) -> Size:
        """How big the state is."""
        return await self._ask(self._measure)

    async def check(self) -> None:
        """Read the whole file; `StoreError` when anything in it is damaged. Takes longer the bigger the file is."""
        problems = await self._ask(lambda conn: conn.execute("PRAGMA integrity_check(3)").fetchall())
        if problems != [("ok",)]:
            raise failures.damaged(self.path, "; ".join(str(row[0]) for row in problems))

    async def backup(self, target: Path) -> None:
        """Write the state as of one moment to one file at `target` (0600), replacing it whole or not at all."""
        await self._ask(lambda conn: self._back_up(conn, target.absolute()))

    def _back_up(self, conn: sqlite3.Connection, target: Path) -> None:
        if target in (*files.companions(self.path), files.lock_path(self.path)):
            raise InvalidError(f"{target} is the state itself", hint="Name another file for the backup.")
        back_up(conn, target)

    async def close(self) -> None:
        """Finish queued writes and release everything; calling it twice is fine. In a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name="korch-store-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._ended(self._write_worker.stop)
        await self._ended(self._feed.stop)
        for worker in self._readers:
            await self._ended(worker.stop)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _ended(self, stop: Callable[[Callable[[], object]], None]) -> None:
        ended = asyncio.Event()
        stop(lambda: call_in(self._loop, ended.set))
        await ended.wait()

    def _check_usable(self) -> None:
        if self._closing is not None:
            raise StoreError(f"{self.path} was closed")
        if os.getpid() != self._pid:
            raise StoreError(f"{self.path} was opened before a fork", hint="Open it again in the child.")

    async def _ask(self, call: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """What `call` finds, run in a reading thread: the first, or the second while that is busy."""
        self._check_usable()
        future: asyncio.Future[Answer] = self._loop.create_future()
        opened = self._lock is not None
        worker = next((worker for worker in self._readers if opened and not worker.busy), self._readers[0])
        worker.submit(_Read(call, future))
        return await future

    async def _history(self, prefix: str, after: int) -> sql.Chunk:
        return await self._ask(lambda conn: sql.history(conn, prefix, after))

    def open_reader(self) -> sqlite3.Connection:
        """A reading connection; the first call prepares the file. For the reading threads."""
        if self._lock is None:
            self._lock = files.open_state(self.path, wait_s=self._wait_s)
        return files.connect(self.path, busy_s=self._busy_s, write=False)

    def settle_read(self, future: asyncio.Future[Any], answer: object) -> None:
        """Hand an answer or a `KorchError` to who waits for it. For the reading threads."""
        call_in(self._loop, settle, ((future, answer),))

    def _settle_writes(self, settled: Settled) -> None:
        if settled:
            self._feed.nudge()
            call_in(self._loop, settle, settled)

    def _measure(self, conn: sqlite3.Connection) -> Size:
        now = sql.head(conn)
        wal = files.companions(self.path)[1]
        return Size(
            file_bytes=self.path.stat().st_size,
            used_bytes=used_bytes(conn),
            wal_bytes=wal.stat().st_size if wal.exists() else 0,
            revisions=now.revision - now.compacted,
        )


class _Reader:
    """One reading thread with its connection."""

    def __init__(self, store: SqliteStore, number: int) -> None:
        self._store = store
        self._conn: sqlite3.Connection | None = None
        self.worker: Worker[_Read] = Worker(f"korch-store-reader-{number}", self._handle, finish=self._finish)

    def _handle(self, jobs: list[_Read]) -> None:
        for job in jobs:
            if not job.future.cancelled():
                self._store.settle_read(job.future, self._answer(job))

    def _answer(self, job: _Read) -> object:
        try:
            if self._conn is None:
                self._conn = self._store.open_reader()
            return job.call(self._conn)
        except KorchError as error:
            return error
        except (sqlite3.Error, OSError) as error:
            failure = failures.explain(error, self._store.path)
            failure.__cause__ = error
            return failure

    def _finish(self) -> None:
        if self._conn is not None:
            self._conn.close()
