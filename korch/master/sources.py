"""The inventory of a master that runs: read again when one of its sources changed."""

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import msgspec.structs

from korch.errors import KorchError
from korch.inventory.load import load_inventory, parse_source
from korch.master.cluster import RECORD_KEY, Cluster, ClusterRecord

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
RUN_EVERY_S = 45.0  # a program that prints an inventory is asked again so often
MOST_FILES = 5000
_VARIABLES = ("group_vars", "host_vars")
Marks = tuple[tuple[str, int, int, int], ...]


def marks_of(sources: Sequence[str], home: Path, now: float) -> Marks:
    """What changes when a source does: path, time, size and number of each file that it is made of.

    Programs may say something else at any time: for them the marks change every `RUN_EVERY_S`.
    """
    marks: list[tuple[str, int, int, int]] = []
    for source in sources:
        try:
            parsed = parse_source(source, home)
        except KorchError:
            marks.append((source, 0, 0, 0))  # it is missing, for now
            continue
        if parsed.kind == "list":
            marks.append((source, 0, 0, 0))
            continue
        for path in sorted(_files(parsed.path, vagrant=parsed.kind == "vagrant"))[:MOST_FILES]:
            try:
                found = path.stat()
            except OSError:
                continue
            marks.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
            if parsed.kind == "ansible" and os.access(path, os.X_OK):
                marks.append((f"{path} runs", int(now // RUN_EVERY_S), 0, 0))
    return tuple(marks)


def _files(path: Path, *, vagrant: bool) -> Iterator[Path]:
    if vagrant:
        yield path / "Vagrantfile"
        yield from _below(path / ".vagrant" / "machines")
        return
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        yield from _below(path)
    else:
        yield path
        for name in _VARIABLES:
            yield from _below(folder / name)


def _below(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in names)


class Sources:
    """The newest inventory of a cluster, for one that asks now and then: `cluster` has it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._taken = self._marks(cluster.record)
        self._seen: object = self._taken

    def _marks(self, record: ClusterRecord) -> tuple[tuple[str, ...], Marks]:
        return record.inventories, marks_of(record.inventories, self.cluster.settings.home, time.monotonic())

    async def look(self, *, at_once: bool = False) -> Cluster | None:
        """The cluster with another inventory, when there is one. A change counts when it stood still between two looks.

        `at_once`: without waiting for that, for a start. What cannot be read, or has no hosts, is a warning, once: the
        old inventory stays.
        """
        found = await self.cluster.store.get(RECORD_KEY)
        record = self.cluster.record if found is None else msgspec.json.decode(found.value, type=ClusterRecord)
        marks = self._marks(record)
        before, self._seen = self._seen, marks
        if marks == self._taken or (marks != before and not at_once):
            return None
        self._taken = marks
        old = self.cluster.hosts()
        try:
            new = await asyncio.to_thread(
                load_inventory, record.inventories, limit=old.limit, home=self.cluster.settings.home
            )
        except KorchError as error:
            hint = f" {error.hint}" if error.hint else ""
            log.warning("the inventory stays as it was, since it cannot be read now: %s%s", error, hint)
            return None
        if new.hosts == old.hosts and new.groups == old.groups:
            return None
        self.cluster = msgspec.structs.replace(self.cluster, record=record, inventory=new)
        return self.cluster
