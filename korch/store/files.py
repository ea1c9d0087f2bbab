"""The state file as a file: created whole or not at all, checked, migrated forward, shared by processes under a lock.

Every process that has it open holds a shared flock on `FILE.lock`; creating, migrating and restoring take it alone.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from korch.errors import StoreError
from korch.store import failures
from korch.store.places import make_private_folder, refuse_shared_file_system

APPLICATION_ID = 0x6B6F7263  # "korc"
_LOCK_POLL_S = 0.01

# Step N brings a file from schema N to N+1. Never edit a released step; append one.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE head (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        revision INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    );
    INSERT INTO head VALUES (1, 0, 0);
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        revision INTEGER NOT NULL,
        created INTEGER NOT NULL
    );
    -- id = revision * 2^16 + place in the transaction; value is NULL for a deletion, the old_* for a creation
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        key TEXT NOT NULL,
        value BLOB,
        created INTEGER,
        old_value BLOB,
        old_revision INTEGER,
        old_created INTEGER
    );
    """,
)


def connect(path: Path, *, busy_s: float, write: bool) -> sqlite3.Connection:
    """A connection to the existing file at `path`; it may be used by any one thread at a time."""
    conn = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False
    )
    if write:
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA journal_size_limit = 4194304")
    else:
        conn.execute("PRAGMA query_only = ON")
    return conn


def open_state(path: Path, *, wait_s: float, migrations: Sequence[str] = MIGRATIONS) -> int:
    """A lock descriptor that keeps the state file at `path` usable while it is open.

    The file then exists, is ours and has the newest schema.
    """
    refuse_shared_file_system(path)
    try:
        make_private_folder(path.parent)
        lock = open_lock(path)
    except OSError as error:
        raise failures.explain(error, path) from error
    try:
        _prepare(path, lock, time.monotonic() + wait_s, migrations)
    except (sqlite3.Error, OSError) as error:
        os.close(lock)
        raise failures.explain(error, path) from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def lock_path(path: Path) -> Path:
    """The file whose flock says who uses the state file at `path`."""
    return path.with_name(path.name + ".lock")


def open_lock(path: Path) -> int:
    """A descriptor of the lock file beside `path`, not yet locked."""
    return os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_flock(lock: int, mode: int) -> bool:
    """Whether the flock was given; when not, an flock held before on this descriptor is gone too (flock(2))."""
    try:
        fcntl.flock(lock, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare(path: Path, lock: int, deadline: float, migrations: Sequence[str]) -> None:
    """Return with a shared flock on a file that needs no work; do the work under an exclusive one."""
    while True:
        if try_flock(lock, fcntl.LOCK_SH) and _is_current(path, migrations):
            return
        if try_flock(lock, fcntl.LOCK_EX):
            if not path.exists():
                _create(path, migrations)
            elif not _is_current(path, migrations):
                _migrate_file(path, migrations)
        elif time.monotonic() > deadline:
            raise failures.locked(path, failures.flock_holders(lock_path(path)))
        else:
            time.sleep(_LOCK_POLL_S)


def _is_current(path: Path, migrations: Sequence[str]) -> bool:
    """False when the file is missing or has an older schema; `StoreError` when it is not, or newer than, ours."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return False
    if facts.st_size == 0:
        raise failures.damaged(path, "it is empty")
    if facts.st_mode & 0o077 and facts.st_uid == os.geteuid():
        path.chmod(0o600)
    conn = connect(path, busy_s=5.0, write=False)
    try:
        return schema_of(conn, path, len(migrations)) == len(migrations)
    finally:
        conn.close()


def schema_of(conn: sqlite3.Connection, path: Path, newest: int) -> int:
    """The schema version of an open state file; `StoreError` when it is not ours or newer than `newest`."""
    (application,) = conn.execute("PRAGMA application_id").fetchone()
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise failures.damaged(path, "it belongs to another program")
    if version > newest:
        raise StoreError(
            f"{path} has schema {version}, this korch knows up to {newest}",
            hint="It was written by a newer korch: use that one.",
        )
    if version == newest:
        conn.execute("SELECT revision FROM head").fetchone()  # reads real pages: damage shows here and not later
    return int(version)


def _create(path: Path, migrations: Sequence[str]) -> None:
    """Make the file beside its place and move it there: nobody ever sees half of it."""
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size > 0:
        raise StoreError(
            f"{path} is missing, but {wal.name} beside it still holds changes made to it",
            hint="Put the file back, or move the -wal file away and run `korch restore FILE` or `korch adopt`.",
        )
    young = path.with_name(path.name + ".new")
    remove_state(young)
    os.close(os.open(young, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    young.chmod(0o600)
    conn = connect(young, busy_s=5.0, write=True)
    try:
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
        _run_migrations(conn, 0, migrations)
    finally:
        conn.close()
    young.rename(path)
    sync_folder(path.parent)


def _migrate_file(path: Path, migrations: Sequence[str]) -> None:
    conn = connect(path, busy_s=5.0, write=True)
    try:
        migrate(conn, path, migrations)
    finally:
        conn.close()


def migrate(conn: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring an open file to the newest schema; `StoreError` when it is not ours or newer than that."""
    version = schema_of(conn, path, len(migrations))
    if version < len(migrations):
        _run_migrations(conn, version, migrations)


def _run_migrations(conn: sqlite3.Connection, version: int, migrations: Sequence[str]) -> None:
    """All missing steps in one transaction: the file has the old schema or the new one."""
    statements = ";\n".join(migrations[version:])
    try:
        conn.executescript(
            f"BEGIN IMMEDIATE;\n{statements};\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {len(migrations)};\nCOMMIT;"
        )
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def remove_state(path: Path) -> None:
    """Remove a state file and its companions, whichever exist."""
    for name in companions(path):
        name.unlink(missing_ok=True)


def companions(path: Path) -> tuple[Path, Path, Path]:
    """The file and SQLite's two beside it, which belong together."""
    return path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
