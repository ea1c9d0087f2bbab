"""The audit log: who asked what, when, from where, and what came of it. Never a body, a query or a credential.

A bounded file of JSON lines with older ones beside it, written by a thread of its own: a slow disk delays no answer.
Lines that it cannot take are counted, and the count is logged.
"""

import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from korch.store.places import make_private_folder

log = logging.getLogger(__name__)

MAX_BYTES = 10_000_000
KEEP = 5
_MOST_WAITING = 10_000
_LONGEST_TEXT = 256
Line = Mapping[str, Any]


class AuditLog:
    """Writes lines to `path` (0600); at `max_bytes` it becomes `path.1`, and so on up to `keep`."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._queue: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._dropped = 0
        self._file: int | None = None
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="korch-audit", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        """Take one line; returns at once."""
        clipped = {key: _clip(value) for key, value in line.items() if value not in ("", None)}
        data = json.dumps(clipped, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
        try:
            self._queue.put_nowait(data)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is left; waits a few seconds at most."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=2.0)
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                data = json.dumps({"dropped": dropped}).encode() + b"\n" + data
            try:
                self._append(data)
                self._complained = False
            except OSError as error:
                self._dropped += 1
                self._close_file()
                if not self._complained:
                    log.error("the audit log %s cannot be written: %s", self._path, error.strerror or error)
                    self._complained = True
        self._close_file()

    def _append(self, data: bytes) -> None:
        if self._file is None or self._moved():
            self._close_file()
            make_private_folder(self._path.parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)
            os.fchmod(self._file, 0o600)
        size = os.fstat(self._file).st_size
        if size and size + len(data) > self._max_bytes:
            self._rotate()
            self._append(data)
            return
        while data:
            data = data[os.write(self._file, data) :]

    def _moved(self) -> bool:
        """Whether the file at our path is another one now: somebody else, perhaps a second master, has rotated it."""
        assert self._file is not None
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        here = os.fstat(self._file)
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)

    def _rotate(self) -> None:
        self._close_file()
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._keep))]
        for newer, older in zip(reversed(names[:-1]), reversed(names[1:]), strict=True):
            if newer.exists():
                newer.rename(older)
        if self._keep == 1:
            self._path.unlink()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _clip(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[:_LONGEST_TEXT] + "…"
    return value
