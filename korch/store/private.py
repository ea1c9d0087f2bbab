"""Small files that only this user may read: keys, certificates, credentials. Written whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from korch.store.files import sync_folder
from korch.store.places import make_private_folder


def write_private(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file (0600), durably; nobody ever sees half of it, or with another mode."""
    make_private_folder(path.parent)
    young = path.with_name(f".{path.name}.{os.getpid()}.new")
    young.unlink(missing_ok=True)
    try:
        descriptor = os.open(young, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        young.rename(path)
        sync_folder(path.parent)
    except BaseException:
        young.unlink(missing_ok=True)
        raise


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """A block that one process at a time is in: an flock on the file, which stays behind empty."""
    make_private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def keep_private(path: Path) -> None:
    """Take away what others may do with a file of ours."""
    facts = path.stat()
    if facts.st_mode & 0o077 and facts.st_uid == os.geteuid():
        path.chmod(0o600)
