"""Keeps the state file small: forgets old history and gives free pages back, a little now and then after commits."""

import sqlite3
import time
from pathlib import Path

import msgspec

from korch.store import sql

_STEP = 256  # revisions between two looks
_FREE_PAGES_KEPT = 512  # they are used again by the next writes
_PAGES_A_STEP = 256
_WAL_BYTES = 32_000_000


class Limits(msgspec.Struct, frozen=True):
    """How much history stays: at most `revisions`, none older than `age_s`, fewer when the file passes `file_bytes`.

    Never fewer than `least_revisions`, so that watchers that are a little behind can go on.
    """

    revisions: int = 10_000
    age_s: float = 24 * 3600.0
    file_bytes: int = 256_000_000
    least_revisions: int = 1_000


def compaction_floor(now: sql.Head, limits: Limits, *, aged: int, used_bytes: int) -> int:
    """The revision up to which history goes; `aged` is the newest that is too old."""
    kept = limits.least_revisions if used_bytes > limits.file_bytes else limits.revisions
    floor = max(now.revision - kept, min(aged, now.revision - limits.least_revisions))
    return max(floor, now.compacted)


class Upkeep:
    """Decides after each commit of one process whether there is something to tidy, and does it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._wal, self._limits = path.with_name(path.name + "-wal"), limits
        self._looked_at: int | None = None

    def after_commit(self, conn: sqlite3.Connection, now: sql.Head) -> None:
        """Tidy when it is time. What fails here is tried again later: the commit before it stands."""
        try:
            if self._looked_at is None:  # a short process looks only when there is clearly too much
                self._looked_at = now.revision - (_STEP if self._too_much(conn, now) else 0)
            if now.revision - self._looked_at >= _STEP:
                self._looked_at = now.revision
                self._tidy(conn, now)
        except (sqlite3.Error, OSError):
            if conn.in_transaction:
                conn.execute("ROLLBACK")

    def _too_much(self, conn: sqlite3.Connection, now: sql.Head) -> bool:
        kept = now.revision - now.compacted
        return kept > self._limits.revisions + _STEP or used_bytes(conn) > self._limits.file_bytes

    def _tidy(self, conn: sqlite3.Connection, now: sql.Head) -> None:
        aged = sql.revision_before(conn, int(time.time() - self._limits.age_s))
        floor = compaction_floor(now, self._limits, aged=aged, used_bytes=used_bytes(conn))
        if floor > now.compacted:
            conn.execute("BEGIN IMMEDIATE")
            sql.forget(conn, floor)
            conn.execute("COMMIT")
        self.give_back(conn)
        if self._wal.stat().st_size > _WAL_BYTES:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @staticmethod
    def give_back(conn: sqlite3.Connection) -> None:
        """Shrink the file by some of its free pages when there are many; not while another process writes."""
        (free,) = conn.execute("PRAGMA freelist_count").fetchone()
        if free <= _FREE_PAGES_KEPT:
            return
        try:
            # Each page is a step without a row, and only a script takes all the steps.
            conn.executescript(f"PRAGMA incremental_vacuum({min(free - _FREE_PAGES_KEPT, _PAGES_A_STEP)})")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise


def used_bytes(conn: sqlite3.Connection) -> int:
    """Bytes of the file that hold data."""
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (free,) = conn.execute("PRAGMA freelist_count").fetchone()
    (size,) = conn.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)
