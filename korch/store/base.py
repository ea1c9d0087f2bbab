"""The store's contract: versioned keys, compare-and-set transactions, watches. One test suite runs against every store.

Modelled on etcd (and kine's `Backend`): one global revision that only grows, a history to follow and to compact.
Keys look like `/GROUP/PLURAL/NAMESPACE/NAME`. Values are bytes; the store does not read them.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from korch.errors import ConflictError

# The bounds of an etcd with its defaults (--max-txn-ops 128, --max-request-bytes 1.5 MiB): what fits here fits there.
MAX_TXN_OPS = 128
MAX_TXN_BYTES = 1_400_000
MAX_KEY_BYTES = 1024


class KeyConflictError(ConflictError):
    """A transaction did not hold because of `key`, which is at revision `actual` (0 = it does not exist)."""

    def __init__(self, key: str, *, expected: int, actual: int) -> None:
        is_now = f"it is at revision {actual}" if actual else "it does not exist"
        wanted = f"expected at revision {expected}" if expected else "expected not to exist"
        super().__init__(
            f"{key} changed meanwhile: {wanted}, but {is_now}", hint="Read it again and repeat the change."
        )
        self.key, self.expected, self.actual = key, expected, actual


class Record(msgspec.Struct, frozen=True):
    """One key as it stands: `revision` of its last write, `created` the revision since which it has existed."""

    key: str
    value: bytes
    revision: int
    created: int


class Event(msgspec.Struct, frozen=True):
    """One change. `record` is None for a deletion, `previous` is None for a creation; both hold whole values."""

    key: str
    revision: int
    record: Record | None
    previous: Record | None


class Listing(msgspec.Struct, frozen=True):
    """Records in key order and the revision at which exactly this is true. `more` tells that `limit` cut the list."""

    records: tuple[Record, ...]
    revision: int
    more: bool = False


class Put(msgspec.Struct, frozen=True):
    """Write `value`. `expect`: None = in any case, 0 = only if the key does not exist, N = only at that revision."""

    key: str
    value: bytes
    expect: int | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove a key; removing what is not there does nothing when `expect` is None or 0. `expect` as in `Put`."""

    key: str
    expect: int | None = None


class Check(msgspec.Struct, frozen=True):
    """Write nothing; the transaction holds only if the key is at revision `expect` (0 = does not exist)."""

    key: str
    expect: int


Op = Put | Delete | Check


class Changes(Protocol):
    """The events of a watch: an asynchronous iterator that knows how far it is."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __anext__(self) -> Event: ...

    @property
    def revision(self) -> int:
        """The revision up to which every matching change has been handed out (good for a bookmark)."""
        ...


class Store(Protocol):
    """Every call may raise `StoreError`; every write may raise `KeyConflictError`, and then nothing of it happened.

    Cancelling a call never leaves half a write; whether the whole of it happened is then unknown.
    A key is 1 to `MAX_KEY_BYTES` bytes without NUL; a transaction has at most `MAX_TXN_OPS` operations and
    `MAX_TXN_BYTES` bytes of keys and values (`InvalidError` beyond).
    """

    async def get(self, key: str) -> Record | None:
        """The record, or None."""
        ...

    async def list(self, prefix: str, *, after: str = "", limit: int = 0) -> Listing:
        """Records whose key starts with `prefix` and is greater than `after`, in key order; `limit` 0 = all."""
        ...

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """Write one key; the new revision."""
        ...

    async def delete(self, key: str, *, expect: int | None = None) -> int:
        """Remove one key; the revision after it (unchanged when there was nothing to remove)."""
        ...

    async def txn(self, ops: Sequence[Op]) -> int:
        """All of `ops` at one new revision, or none with `KeyConflictError` naming the key. A key may be written once.

        Every `expect` is compared with what stood before the transaction. The revision stays when nothing is written.
        """
        ...

    async def revision(self) -> int:
        """The newest revision."""
        ...

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Changes]:
        """Every change of matching keys after revision `after`, in order, none lost, without end.

        Raises `ExpiredError` (at the first or a later step) when the history needed has been compacted: list again.
        Other processes' writes appear too.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including `revision`; what stands stays."""
        ...

    async def close(self) -> None:
        """Flush and release; calling it twice is fine."""
        ...
