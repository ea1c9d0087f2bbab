"""An flock beside the lease: the kernel takes it from a dead process at once, so nobody has to wait for the TTL."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class LeaseFile:
    """At most one holder on this running kernel. Works between containers too when they see the same file.

    The identity names this very file on this very kernel: who holds the flock of the file that a lease's record names
    has proof that the process which wrote the record no longer does. Pids, which are used again, play no part.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._descriptor: int | None = None
        self.identity = ""  # not empty while the flock is held

    @property
    def missing(self) -> bool:
        """Whether there is a file to lock and it is not locked by us."""
        return self.path is not None and self._descriptor is None

    def take(self) -> bool:
        """Try to get the flock, without waiting; True when it is held now. Any failure is a plain False."""
        if self.path is None or self._descriptor is not None:
            return self._descriptor is not None
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine, there = os.fstat(descriptor), os.stat(self.path)
            if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
                raise FileNotFoundError  # somebody removed the file between open and flock
            self.identity = f"{boot_id()}:{mine.st_dev}:{mine.st_ino}"
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def drop(self) -> None:
        """Give the flock back; twice is fine."""
        descriptor, self._descriptor, self.identity = self._descriptor, None, ""
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may still have it open
            os.close(descriptor)


def boot_id() -> str:
    """A name of this run of this kernel; the same in all its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
