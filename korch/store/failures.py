"""From what SQLite and the system say about a state file to a sentence that names the cause and the next step."""

import errno
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from korch.errors import StoreError

_WAL_WRITE_LOCK_BYTE = 120  # in the -shm file; https://www.sqlite.org/walformat.html#wal_locks
_RESCUE = "Bring back a backup with `korch restore FILE`, or rebuild the state from the nodes with `korch adopt`."
_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS}
_NO_PERMISSION = {errno.EACCES, errno.EPERM}
_PASSING = {
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
}


def explain(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """The `StoreError` for a failure on the state file at `path`. The caller chains `error` to it."""
    if isinstance(error, OSError):
        return _explain_errno(error, path)
    code = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR
    match code & 0xFF:  # the extended codes keep the primary one in the low byte
        case sqlite3.SQLITE_FULL:
            return disk_full(path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return locked(path, writers_of(path))
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, str(error))
        case sqlite3.SQLITE_READONLY:
            return _read_only(path)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return _not_allowed(path)
        case sqlite3.SQLITE_IOERR if _free_bytes(path) < 1 << 16:
            return disk_full(path)  # the shared-memory file reports a full disk as an I/O error
        case sqlite3.SQLITE_IOERR:
            name = getattr(error, "sqlite_errorname", "SQLITE_IOERR")
            return StoreError(
                f"{path}: the disk reports an error ({name}: {error})", hint="Look at `dmesg`. " + _RESCUE
            )
    return StoreError(f"{path}: {error}", hint=_RESCUE)


def may_pass(error: BaseException) -> bool:
    """Whether waiting may mend it (room on the disk, a lock, rights): not a file that is damaged, replaced, too new."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return True
    code: int = getattr(cause, "sqlite_errorcode", None) or 0
    return code & 0xFF in _PASSING and code != sqlite3.SQLITE_READONLY_DBMOVED


def disk_full(path: Path) -> StoreError:
    """For a write that found no room; what was stored before stands."""
    return StoreError(
        f"{path}: no space left on the disk; nothing was changed",
        hint=f"Free some space on the file system of {path.parent} and run the same command again.",
    )


def damaged(path: Path, detail: str) -> StoreError:
    """For a file that is no korch state, or no longer one."""
    return StoreError(f"{path} is damaged or not a korch state file: {detail}", hint=_RESCUE)


def locked(path: Path, holders: Iterable[str]) -> StoreError:
    """For a lock that was not given in time, naming who has it as far as the system tells."""
    who = ", ".join(holders)
    return StoreError(
        f"{path} is locked by " + (who or "another process"),
        hint="Wait for it to end, or stop it, and run the same command again.",
    )


def writers_of(path: Path) -> list[str]:
    """The processes that hold SQLite's write lock, as `pid 12 (korch master)`; empty when unknown."""
    return _holders(path.with_name(path.name + "-shm"), "POSIX", _WAL_WRITE_LOCK_BYTE)


def flock_holders(path: Path) -> list[str]:
    """The other processes that hold an flock on `path`, as `pid 12 (korch master)`; empty when unknown."""
    return _holders(path, "FLOCK", 0)


def _holders(path: Path, kind: str, byte: int) -> list[str]:
    try:
        inode, table = path.stat().st_ino, Path("/proc/locks").read_text()
    except OSError:
        return []
    return [_process_name(pid) for pid in lock_pids(table, inode, kind, byte) if pid != os.getpid()]


def lock_pids(table: str, inode: int, kind: str, byte: int) -> list[int]:
    """The pids in the text of /proc/locks that hold a lock of `kind` on `inode` over `byte` (proc(5))."""
    pids = []
    for line in table.splitlines():
        words = line.split()
        if len(words) != 8 or words[1] != kind or words[5].rpartition(":")[2] != str(inode):
            continue  # 9 words: `->` marks one that waits
        first, last = int(words[6]), words[7]
        if first <= byte and (last == "EOF" or byte <= int(last)) and int(words[4]) > 0:
            pids.append(int(words[4]))
    return sorted(set(pids))


def _process_name(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = ""
    return f"pid {pid} ({command[:80]})" if command else f"pid {pid}"


def _explain_errno(error: OSError, path: Path) -> StoreError:
    if error.errno in _FULL:
        return disk_full(path)
    if error.errno in _READ_ONLY:
        return _read_only(path)
    if error.errno in _NO_PERMISSION:
        return _not_allowed(path)
    return StoreError(f"{error.filename or path}: {error.strerror or error}", hint="Check the path and KORCH_HOME.")


def _read_only(path: Path) -> StoreError:
    return StoreError(
        f"{path} cannot be written: the file, its folder or the file system is read-only",
        hint=f"Make {path.parent} and the file writable for you, or choose another folder with KORCH_HOME.",
    )


def _not_allowed(path: Path) -> StoreError:
    return StoreError(
        f"{path} cannot be opened: no permission for it or its folder",
        hint=f"Run korch as the owner of {path.parent}, correct the rights, or choose another folder with KORCH_HOME.",
    )


def _free_bytes(path: Path) -> int:
    try:
        facts = os.statvfs(path.parent)
    except OSError:
        return 1 << 62
    return facts.f_bavail * facts.f_frsize
