"""Copies of the state file that can be trusted, and the way back from one."""

import asyncio
import os
import shutil
import sqlite3
import time
from fcntl import LOCK_EX
from pathlib import Path
from urllib.parse import quote

import msgspec

from korch.errors import NotFoundError, StoreError
from korch.store import failures, files, sql
from korch.store.places import make_private_folder, refuse_shared_file_system

REVISION_GAP = 1_000_000  # more than any client can have seen since the backup; so no old revision ever comes again


class Restored(msgspec.Struct, frozen=True):
    """Where the store stands after a restore, and under which name the former file was kept (None: there was none)."""

    revision: int
    kept_as: Path | None


def back_up(conn: sqlite3.Connection, target: Path) -> None:
    """Write what `conn` sees, as of one moment, to one file at `target` (0600): all of it or nothing."""
    young = target.with_name(target.name + ".new")
    try:
        make_private_folder(target.parent)
        files.remove_state(young)
        os.close(os.open(young, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy = sqlite3.connect(young, isolation_level=None)
        try:
            conn.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # a backup is one file, readable from any medium
        finally:
            copy.close()
        _sync_file(young)
        young.rename(target)
        files.sync_folder(target.parent)
    except (sqlite3.Error, OSError) as error:
        files.remove_state(young)
        raise failures.explain(error, target) from error


async def restore(source: Path, target: Path) -> Restored:
    """Put the backup at `source` in the place of the state file `target`, its revision moved up by `REVISION_GAP`.

    Refuses, with everything as it was, a source that is damaged or not ours, and a target that a process uses. The
    former file stays beside it under another name. Afterwards the lead's epoch must be raised above that of any node.
    """
    return await asyncio.to_thread(_restore, source, target)


def peek(source: Path, key: str) -> bytes | None:
    """One value in a backup, which is not changed by the look; None when it has no such key."""
    source = source.absolute()
    if not source.is_file():
        raise NotFoundError(f"there is no backup {source}")
    try:
        conn = sqlite3.connect(f"file:{quote(str(source))}?mode=ro&immutable=1", uri=True)
        try:
            found = sql.get(conn, key)
        finally:
            conn.close()
    except sqlite3.DatabaseError as error:
        raise failures.damaged(source, str(error)) from error
    return found.value if found is not None else None


def set_aside(target: Path) -> Path | None:
    """Give the state file another name, under which it stays; that name (None: there was none).

    Refused while a process uses it.
    """
    target = target.absolute()
    if not target.exists():
        return None
    try:
        lock = files.open_lock(target)
        try:
            if not files.try_flock(lock, LOCK_EX):
                raise failures.locked(target, failures.flock_holders(files.lock_path(target)))
            aside = _put_aside(target)
            target.unlink(missing_ok=True)
            files.sync_folder(target.parent)
        finally:
            os.close(lock)
    except OSError as error:
        raise failures.explain(error, target) from error
    return aside


def _restore(source: Path, target: Path) -> Restored:
    source, target = source.absolute(), target.absolute()
    if not source.is_file():
        raise NotFoundError(f"there is no backup {source}")
    refuse_shared_file_system(target)
    young = target.with_name(target.name + ".new")
    try:
        make_private_folder(target.parent)
        lock = files.open_lock(target)
        try:
            if not files.try_flock(lock, LOCK_EX):
                raise failures.locked(target, failures.flock_holders(files.lock_path(target)))
            _copy(source, young)
            revision = _renew(young, source, _revision_of(target))
            kept_as = _put_aside(target)
            young.rename(target)
            files.sync_folder(target.parent)
        finally:
            files.remove_state(young)
            os.close(lock)
    except (sqlite3.Error, OSError) as error:
        raise failures.explain(error, target) from error
    return Restored(revision, kept_as)


def _copy(source: Path, young: Path) -> None:
    """A private copy to work on, with the -wal if someone copied a state file by hand."""
    files.remove_state(young)
    for there, here in list(zip(files.companions(source), files.companions(young), strict=True))[:2]:
        if there.exists():
            os.close(os.open(here, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            shutil.copyfile(there, here)


def _renew(young: Path, source: Path, revision_before: int) -> int:
    """Check the copy to its last page and make it the next state; the revision it is at."""
    try:
        conn = files.connect(young, busy_s=1.0, write=True)
        try:
            problems = conn.execute("PRAGMA integrity_check(1)").fetchall()
            if problems != [("ok",)]:
                raise failures.damaged(source, str(problems[0][0]))
            files.migrate(conn, source)
            conn.execute("PRAGMA journal_mode = WAL")
            revision = max(sql.head(conn).revision, revision_before) + REVISION_GAP
            conn.execute("BEGIN IMMEDIATE")
            sql.set_revision(conn, revision)
            sql.forget(conn, revision)  # whoever watches must list again
            conn.execute("COMMIT")
        finally:
            conn.close()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}:
            raise failures.damaged(source, str(error)) from error
        raise
    _sync_file(young)
    return revision


def _revision_of(target: Path) -> int:
    """Where the file that is to be replaced stands; 0 when it cannot tell. Empties its -wal as nobody else uses it."""
    try:
        conn = files.connect(target, busy_s=1.0, write=True)
        try:
            return sql.head(conn).revision
        finally:
            conn.close()
    except sqlite3.Error:
        return 0


def _put_aside(target: Path) -> Path | None:
    """Give the former file a second name and its -wal that name only. The caller has it alone, and replaces it next.

    At no moment is there no state file: a start in between would begin an empty one.
    """
    if not any(name.exists() for name in files.companions(target)):
        return None
    aside = _free_name(target)
    for here, there in zip(files.companions(target), files.companions(aside), strict=True):
        if here == target and here.exists():
            try:
                there.hardlink_to(here)
            except OSError:  # a file system without links
                here.rename(there)
        elif here.exists():
            here.rename(there)
    return aside


def _free_name(target: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for tail in ("", *(f"-{number}" for number in range(1, 100))):
        name = target.with_name(f"{target.name}.before-restore-{stamp}{tail}")
        if not name.exists():
            return name
    raise StoreError(f"there is no free name beside {target} to keep the former file under")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
