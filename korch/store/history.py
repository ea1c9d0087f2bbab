"""Load history: a bounded local file of samples per node. Telemetry, so it never enters the revision log.

It is worth less than any deploy: a damaged file is put aside and begun anew, and a power cut may cost the last samples.
"""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from korch.errors import StoreError
from korch.store import failures, files
from korch.store.places import make_private_folder
from korch.store.worker import Worker, call_in, settle

Answer = TypeVar("Answer")

# A node's samples take turns in `slots`: the place of the oldest is the newest's.
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS nodes (node TEXT PRIMARY KEY, samples INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS slots (
        node TEXT NOT NULL, slot INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, measured TEXT NOT NULL,
        PRIMARY KEY (node, slot)
    ) WITHOUT ROWID;
"""
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


class Sample(msgspec.Struct, frozen=True):
    """What was measured on `node` at `at` (Unix seconds of this machine): names to numbers."""

    node: str
    at: float
    measured: Mapping[str, float]


class _Job(msgspec.Struct, frozen=True):
    call: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


class LoadHistory:
    """The newest `per_node` samples of each of at most `max_nodes` nodes, in the file at `path`.

    Belongs to one event loop; several processes may use one file. Needs no opening.
    """

    def __init__(self, path: Path, *, per_node: int = 720, max_nodes: int = 1_000) -> None:
        self.path, self._per_node, self._max_nodes = path, per_node, max_nodes
        self._conn: sqlite3.Connection | None = None
        self._worker: Worker[_Job] = Worker("korch-load-history", self._handle, finish=self._hang_up)
        self._closed: asyncio.Event | None = None

    async def append(self, *samples: Sample) -> None:
        """Keep `samples`, in one commit."""
        if samples:
            await self._ask(lambda conn: self._append(conn, samples))

    async def recent(self, node: str, count: int) -> tuple[Sample, ...]:
        """The newest `count` samples of a node, oldest first."""
        query = "SELECT at, measured FROM slots WHERE node = ? ORDER BY number DESC LIMIT ?"
        rows = await self._ask(lambda conn: conn.execute(query, (node, count)).fetchall())
        return tuple(Sample(node, at, json.loads(measured)) for at, measured in reversed(rows))

    async def forget(self, node: str) -> None:
        """Drop all samples of a node."""
        await self._ask(lambda conn: _forget(conn, node))

    async def close(self) -> None:
        """Finish what was asked and release the file; calling it twice is fine."""
        if self._closed is None:
            loop, closed = asyncio.get_running_loop(), asyncio.Event()
            self._closed = closed
            self._worker.stop(lambda: call_in(loop, closed.set))
        await self._closed.wait()

    async def _ask(self, call: Callable[[sqlite3.Connection], Answer]) -> Answer:
        if self._closed is not None:
            raise StoreError(f"{self.path} was closed")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._worker.submit(_Job(call, future))
        return await future

    def _handle(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if not job.future.cancelled():
                answer = self._answer(job)
                call_in(job.future.get_loop(), settle, ((job.future, answer),))

    def _answer(self, job: _Job) -> object:
        try:
            try:
                return job.call(self._connected())
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF not in _DAMAGE:
                    raise
                self._begin_anew()
                return job.call(self._connected())
        except (sqlite3.Error, OSError) as error:
            self._hang_up()
            failure = failures.explain(error, self.path)
            failure.__cause__ = error
            return failure

    def _connected(self) -> sqlite3.Connection:
        if self._conn is None:
            make_private_folder(self.path.parent)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._conn = files.connect(self.path, busy_s=5.0, write=True)
            _use_wal(self._conn)
            self._conn.execute("PRAGMA synchronous = NORMAL")
            self._conn.executescript(_SCHEMA)
        return self._conn

    def _begin_anew(self) -> None:
        self._hang_up()
        for name in files.companions(self.path):
            if name.exists():
                name.replace(name.with_name(name.name.replace(self.path.name, self.path.name + ".damaged")))

    def _hang_up(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _append(self, conn: sqlite3.Connection, samples: Sequence[Sample]) -> None:
        conn.execute("BEGIN IMMEDIATE")
        try:
            for sample in samples:
                self._put(conn, sample)
            self._drop_nodes(conn)
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise

    def _put(self, conn: sqlite3.Connection, sample: Sample) -> None:
        row = conn.execute("SELECT samples FROM nodes WHERE node = ?", (sample.node,)).fetchone()
        number = row[0] if row else 0
        conn.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", (sample.node, number + 1, sample.at))
        conn.execute(
            "INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?)",
            (sample.node, number % self._per_node, number, sample.at, json.dumps(dict(sample.measured))),
        )

    def _drop_nodes(self, conn: sqlite3.Connection) -> None:
        """Forget the nodes that have been silent longest when there are too many."""
        query = "SELECT node FROM nodes ORDER BY at DESC, node LIMIT -1 OFFSET ?"
        for (node,) in conn.execute(query, (self._max_nodes,)).fetchall():
            _forget(conn, node)


def _use_wal(conn: sqlite3.Connection) -> None:
    """Switch to WAL; while another process does the same, SQLite answers "busy" at once whatever the timeout."""
    for _ in range(100):
        try:
            conn.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        time.sleep(0.02)


def _forget(conn: sqlite3.Connection, node: str) -> None:
    conn.execute("DELETE FROM slots WHERE node = ?", (node,))
    conn.execute("DELETE FROM nodes WHERE node = ?", (node,))
