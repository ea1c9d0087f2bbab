"""What the objects layer hands out: lists, changes, tombstones; and the clock it reads."""

import time
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

from korch.resources.meta import Object, Struct

T = TypeVar("T", bound=Object)


class ObjectList(msgspec.Struct, Generic[T], frozen=True):
    """Objects sorted by namespace and name, and the revision at which exactly this is true: watch from there."""

    items: tuple[T, ...]
    revision: int


class Change(msgspec.Struct, Generic[T], frozen=True):
    """One change. Of a deletion, `object` is the last state; `previous` is None for a creation."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: T
    previous: T | None
    revision: int


class Deletion(msgspec.Struct, frozen=True):
    """How to delete. `propagation`: what is owned goes afterwards, before its owner does, or stays behind.

    `revision`: only as it was read; `force`: what runs on a node is not waited for; `contents`: a namespace goes with
    all that is in it; `dry_run`: all checks are made, and nothing is written.
    """

    propagation: Literal["Background", "Foreground", "Orphan"] = "Background"
    revision: str = ""
    force: bool = False
    contents: bool = False
    dry_run: bool = False


DELETION = Deletion()


class Tombstone(Struct, frozen=True, kw_only=True):
    """Proof that a pod has ended: a container of this uid is surplus wherever it is found."""

    uid: str
    namespace: str
    name: str
    node_name: str
    removed_at: str


class Clock(Protocol):
    """Where times come from."""

    def now(self) -> float:
        """Unix seconds."""
        ...


class SystemClock:
    """This machine's clock."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()
