"""The writing side of the SQLite store: transactions that wait share one durable commit, each with its own result."""

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from korch.errors import KorchError, StoreError
from korch.store import failures, files, sql
from korch.store.base import Op
from korch.store.upkeep import Limits, Upkeep

Result = int | KorchError


class Write(msgspec.Struct, frozen=True):
    """A transaction to commit and the future that waits for its revision. Cancelled before its turn: never begun."""

    ops: Sequence[Op]
    future: asyncio.Future[int]


class Compact(msgspec.Struct, frozen=True):
    """History to forget, beside the writes."""

    revision: int
    future: asyncio.Future[int]


class Leap(msgspec.Struct, frozen=True):
    """A revision to be beyond, and the future that waits for the new one."""

    at_least: int
    future: asyncio.Future[int]


Settled = list[tuple[asyncio.Future[int], Result]]


class Writer:
    """Owns the writing connection of one process. All calls in one thread."""

    def __init__(self, path: Path, *, busy_s: float, limits: Limits, settle: Callable[[Settled], None]) -> None:
        self._path, self._busy_s, self._settle = path, busy_s, settle
        self._conn: sqlite3.Connection | None = None
        self._inode = 0
        self._upkeep = Upkeep(path, limits)

    def handle(self, jobs: list[Write | Compact | Leap]) -> None:
        """Do `jobs`, writes first and in order, and settle them all."""
        writes = [job for job in jobs if isinstance(job, Write) and not job.future.cancelled()]
        results = self._commit_all([write.ops for write in writes])
        self._settle([(write.future, result) for write, result in zip(writes, results, strict=True)])
        for job in jobs:
            if isinstance(job, Compact):
                self._settle([(job.future, self._compact(job.revision))])
            elif isinstance(job, Leap):
                self._settle([(job.future, self._leap(job.at_least))])

    def close(self) -> None:
        """Release the connection."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _commit_all(self, batch: Sequence[Sequence[Op]]) -> Sequence[Result]:
        if not batch:
            return ()
        try:
            return self._commit(batch)
        except StoreError as error:
            if len(batch) == 1 or not _may_be_one_of_many(error):
                return [error] * len(batch)
        return [result for ops in batch for result in self._commit_all([ops])]

    def _commit(self, batch: Sequence[Sequence[Op]]) -> Sequence[Result]:
        results: list[Result] = []
        try:
            conn = self._begin()
            before = sql.head(conn)
            revision, at = before.revision, int(time.time())
            for ops in batch:
                try:
                    revision = sql.write(conn, ops, revision, at)
                    results.append(revision)
                except KorchError as conflict:
                    results.append(conflict)
            if revision != before.revision:
                sql.set_revision(conn, revision)
            conn.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            raise failures.explain(error, self._path) from error
        self._upkeep.after_commit(conn, sql.Head(revision, before.compacted))
        return results

    def _compact(self, revision: int) -> Result:
        try:
            conn = self._begin()
            sql.forget(conn, revision)
            conn.execute("COMMIT")
            self._upkeep.give_back(conn)
        except StoreError as error:
            return error
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            return failures.explain(error, self._path)
        return 0

    def _leap(self, at_least: int) -> Result:
        try:
            conn = self._begin()
            revision = max(at_least, sql.head(conn).revision)
            sql.set_revision(conn, revision)
            sql.forget(conn, revision)  # whoever watches must list again
            conn.execute("COMMIT")
        except StoreError as error:
            return error
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            return failures.explain(error, self._path)
        return revision

    def _begin(self) -> sqlite3.Connection:
        """The connection inside a write transaction. Waits for other processes' writers up to `busy_s`.

        Not SQLite's busy handler: it sleeps up to 100 ms a time and starves beside a process that writes all the time.
        """
        conn = self._connected()
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                conn.execute("BEGIN IMMEDIATE")
                return conn
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.0005, 0.003))  # noqa: S311

    def _connected(self) -> sqlite3.Connection:
        if self._conn is None:
            self._conn = files.connect(self._path, busy_s=0.0, write=True)
            self._inode = os.stat(self._path).st_ino
        try:
            there = os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            there = False
        if not there:
            raise StoreError(
                f"{self._path} was moved, removed or replaced while in use; nothing was written",
                hint="Put the file back with its -wal, or stop this process and start again.",
            )
        return self._conn

    def _roll_back(self) -> None:
        if self._conn is None:
            return
        try:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()  # a connection that cannot roll back is of no use; the next write opens another


def _may_be_one_of_many(error: StoreError) -> bool:
    """Whether one transaction that is too big for the disk may have failed a batch of others that would fit."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG}
