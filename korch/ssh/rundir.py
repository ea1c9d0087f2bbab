"""A private folder with a short path for this process's sockets; it goes with the process, however that ends."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from korch.errors import SetupError

LONGEST_PATH_BYTES: Final = 80  # a socket's path may have 107 bytes, of which ssh wants 17 for a name of the moment
_PLAIN: Final = re.compile(r"[A-Za-z0-9._/+-]+")


class RunDir:
    """Made when it is first asked for. Each process has its own, so that none can end another's connections."""

    def __init__(self, home: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._parents = candidates(home, environ)
        self._lock: int | None = None
        self._path: Path | None = None
        self._count = 0

    @property
    def path(self) -> Path:
        """The folder. Raises `SetupError` when there is no place for it."""
        if self._path is None:
            reasons = []
            for parent in self._parents:
                try:
                    self._path = self._make(parent)
                    break
                except OSError as error:
                    reasons.append(f"{parent}: {error.strerror or error}")
            else:
                raise SetupError(
                    f"there is no folder for SSH's control sockets: {'; '.join(reasons)}",
                    hint="Set XDG_RUNTIME_DIR or TMPDIR to a folder of yours with a short path.",
                )
        return self._path

    def new_name(self) -> Path:
        """A path in the folder that was never used."""
        self._count += 1
        return self.path / str(self._count)

    def close(self) -> None:
        """Remove the folder."""
        if self._path is not None and self._lock is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            with contextlib.suppress(OSError):
                _lock_file(self._path).unlink()
            os.close(self._lock)
        self._path = self._lock = None

    def _make(self, parent: Path) -> Path:
        if parent.name == "run":
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(parent)
        path = Path(tempfile.mkdtemp(prefix="korch-", dir=parent))  # 0700
        if len(os.fsencode(path)) > LONGEST_PATH_BYTES or not _PLAIN.fullmatch(str(path)):
            path.rmdir()
            raise OSError(errno.EINVAL, "its path is too long for a socket, or has characters that ssh acts on")
        lock = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, b"held\n")  # an empty one is about to be locked: nobody sweeps it
        self._lock = lock
        return path


def candidates(home: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the folder may be: where the system keeps such things of this user, korch's home, the folder for all."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    own = (Path(runtime),) if runtime.startswith("/") and _is_mine(runtime) else ()
    return (*own, home / "run", Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 (mkdtemp makes it private)


def sweep(parent: Path) -> None:
    """Remove what processes that were killed have left behind: folders whose lock nobody holds."""
    for file in parent.glob("korch-*.lock"):
        try:
            lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid != os.getuid() or os.fstat(lock).st_size == 0:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)
            file.unlink()
        except OSError:
            continue
        finally:
            os.close(lock)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _is_mine(path: str) -> bool:
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return stat.st_uid == os.getuid() and stat.st_mode & 0o077 == 0
