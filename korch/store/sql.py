"""What the store does with SQL: plain functions on one connection, no threads, no waiting.

Writing functions expect an open write transaction; the caller begins and ends it.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from korch.errors import ExpiredError
from korch.store.base import Delete, Event, KeyConflictError, Listing, Op, Put, Record
from korch.store.ops import prefix_end

_PLACES_SHIFT = 16  # history.id = revision << 16 | place; MAX_TXN_OPS is far below 2^16
_CHUNK_BYTES = 8_000_000

_PUT = (
    "INSERT INTO records (key, value, revision, created) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision"
)
_REMEMBER = (
    "INSERT INTO history (id, at, key, value, created, old_value, old_revision, old_created) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Head(msgspec.Struct, frozen=True):
    """The newest revision, and the one up to which history has been forgotten."""

    revision: int
    compacted: int


class Chunk(msgspec.Struct, frozen=True):
    """Events in order; they are all there are up to `revision`. `last` = nothing newer was there."""

    events: tuple[Event, ...]
    revision: int
    last: bool


def head(conn: sqlite3.Connection) -> Head:
    """Where the store stands."""
    return Head(*conn.execute("SELECT revision, compacted FROM head").fetchone())


def data_version(conn: sqlite3.Connection) -> int:
    """A number that changes when any other connection, of this process or another, commits."""
    return int(conn.execute("PRAGMA data_version").fetchone()[0])


def get(conn: sqlite3.Connection, key: str) -> Record | None:
    """The record of `key`, or None."""
    row = conn.execute("SELECT key, value, revision, created FROM records WHERE key = ?", (key,)).fetchone()
    return Record(*row) if row else None


def list_records(conn: sqlite3.Connection, prefix: str, after: str, limit: int) -> Listing:
    """One consistent look at all records under `prefix`."""
    where, values = _key_range(prefix)
    query = f"SELECT key, value, revision, created FROM records WHERE {where} AND key > ? ORDER BY key LIMIT ?"  # noqa: S608
    with _one_look(conn):
        revision = head(conn).revision
        rows = conn.execute(query, (*values, after, limit + 1 if limit else -1)).fetchall()
    more = bool(limit) and len(rows) > limit
    return Listing(tuple(Record(*row) for row in (rows[:limit] if more else rows)), revision, more)


@contextmanager
def _one_look(conn: sqlite3.Connection) -> Iterator[None]:
    """All reads within see the same revision."""
    conn.execute("BEGIN")
    try:
        yield
    finally:
        if conn.in_transaction:  # some errors end it by themselves
            conn.execute("ROLLBACK")


def _key_range(prefix: str) -> tuple[str, tuple[str, ...]]:
    end = prefix_end(prefix)
    return ("key >= ?", (prefix,)) if end is None else ("key >= ? AND key < ?", (prefix, end))


def write(conn: sqlite3.Connection, ops: Iterable[Op], revision: int, at: int) -> int:
    """The revision after `ops`: `revision + 1` if they changed anything.

    `KeyConflictError` comes before any change. Does not touch the head: of several transactions in one commit only the
    last needs to.
    """
    changes = []
    for op in ops:
        before = get(conn, op.key)
        actual = before.revision if before else 0
        if op.expect is not None and op.expect != actual:
            raise KeyConflictError(op.key, expected=op.expect, actual=actual)
        if isinstance(op, Put) or (isinstance(op, Delete) and before):
            changes.append((op, before))
    if not changes:
        return revision
    revision += 1
    for place, (op, before) in enumerate(changes):
        value = op.value if isinstance(op, Put) else None
        created = None if value is None else before.created if before else revision
        if value is None:
            conn.execute("DELETE FROM records WHERE key = ?", (op.key,))
        else:
            conn.execute(_PUT, (op.key, value, revision, created))
        old = (before.value, before.revision, before.created) if before else (None, None, None)
        conn.execute(_REMEMBER, (revision << _PLACES_SHIFT | place, at, op.key, value, created, *old))
    return revision


def set_revision(conn: sqlite3.Connection, revision: int) -> None:
    """Move the head to `revision`."""
    conn.execute("UPDATE head SET revision = ?", (revision,))


def history(conn: sqlite3.Connection, prefix: str, after: int, *, max_events: int = 500) -> Chunk:
    """The next events under `prefix` after revision `after`; `ExpiredError` when some of them are forgotten.

    A chunk ends at the end of a revision, so it can be a little longer than `max_events`.
    """
    where, values = _key_range(prefix)
    columns = "id, key, value, created, old_value, old_revision, old_created"
    query = f"SELECT {columns} FROM history WHERE id >= ? AND {where} ORDER BY id"  # noqa: S608
    with _one_look(conn):
        now = head(conn)
        if not now.compacted <= after <= now.revision:
            raise ExpiredError(
                f"revision {after} is not in the history any more", hint="List again and watch from there."
            )
        cursor = conn.execute(query, ((after + 1) << _PLACES_SHIFT, *values))
        events, cut = _take(cursor, max_events)
        cursor.close()
    return Chunk(tuple(events), events[-1].revision if cut else now.revision, not cut)


def _take(rows: Iterable[tuple[Any, ...]], max_events: int) -> tuple[list[Event], bool]:
    """Events of whole revisions until there are enough, and whether some were left."""
    events: list[Event] = []
    size = 0
    for row in rows:
        event = _event(*row)
        full = len(events) >= max_events or size >= _CHUNK_BYTES
        if full and event.revision != events[-1].revision:
            return events, True
        size += sum(len(record.value) for record in (event.record, event.previous) if record)
        events.append(event)
    return events, False


def _event(
    row_id: int,
    key: str,
    value: bytes | None,
    created: int,
    old_value: bytes | None,
    old_revision: int,
    old_created: int,
) -> Event:
    revision = row_id >> _PLACES_SHIFT
    record = None if value is None else Record(key, value, revision, created)
    previous = None if old_value is None else Record(key, old_value, old_revision, old_created)
    return Event(key, revision, record, previous)


def forget(conn: sqlite3.Connection, revision: int) -> None:
    """Drop the history up to and including `revision` (at most the newest one)."""
    now = head(conn)
    floor = min(revision, now.revision)
    if floor > now.compacted:
        conn.execute("DELETE FROM history WHERE id < ?", ((floor + 1) << _PLACES_SHIFT,))
        conn.execute("UPDATE head SET compacted = ?", (floor,))


def revision_before(conn: sqlite3.Connection, at: int) -> int:
    """The newest revision written before the wall-clock second `at`; 0 when the history knows none."""
    row = conn.execute("SELECT id FROM history WHERE at < ? ORDER BY id DESC LIMIT 1", (at,)).fetchone()
    return int(row[0]) >> _PLACES_SHIFT if row else 0
