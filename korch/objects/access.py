"""Objects as records of the store: reading with their resourceVersion, writing under the fence."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from korch.errors import ConflictError, FencedError, InvalidError, StoreError
from korch.resources.codec import decode, encode, with_meta
from korch.resources.kinds import kind_of, kind_of_type
from korch.resources.meta import Object
from korch.store.base import Check, Delete, Op, Put, Record, Store

T = TypeVar("T", bound=Object)

_FENCE_TRIES = 4


def key_of(obj: Object) -> str:
    """Where an object is stored."""
    return kind_of(obj).key(obj.metadata.namespace, obj.metadata.name)


def expected(obj: Object) -> int:
    """The revision that the object was read at; 0 when it never was."""
    version = obj.metadata.resource_version
    if not version.isascii() or not version.isdigit():
        return 0
    return int(version)


def put(obj: Object, expect: int | None) -> Put:
    """The write of an object. Its resourceVersion is the record's revision, so it is not part of the value."""
    return Put(key_of(obj), encode(with_meta(obj, resource_version="")), expect)


def at_revision(obj: T, revision: int) -> T:
    """The object as it is read back after a write."""
    return with_meta(obj, resource_version=str(revision))


class Access:
    """Typed reads, fenced writes."""

    def __init__(self, store: Store, fence: Callable[[], Check | None] | None) -> None:
        self.store = store
        self._fence = fence or (lambda: None)

    def read(self, type_: type[T], record: Record) -> T:
        """The object of a record; `StoreError` names the key of a damaged one."""
        try:
            obj = decode(kind_of_type(type_), record.value)
        except InvalidError as error:
            raise StoreError(f"record {record.key} cannot be read: {error}", hint="Restore a backup.") from error
        return at_revision(cast("T", obj), record.revision)

    async def find(self, type_: type[T], name: str, namespace: str) -> T | None:
        """The object, or None."""
        record = await self.store.get(kind_of_type(type_).key(namespace, name))
        return None if record is None else self.read(type_, record)

    async def save(self, obj: T, *more: Op, expect: int) -> T:
        """Write one object (0 = it must be new) with other writes in the same transaction."""
        return at_revision(obj, await self.write((put(obj, expect), *more)))

    async def remove(self, obj: Object, *more: Op) -> int:
        """Remove an object as it was read, with other writes in the same transaction."""
        return await self.write((Delete(key_of(obj), expected(obj)), *more))

    async def write(self, ops: Sequence[Op]) -> int:
        """All of it at one new revision. `FencedError` when this process no longer leads, else `ConflictError`.

        The lease's own renewal changes its record too: while the fence moves on with it, the write is tried again.
        """
        for _ in range(_FENCE_TRIES):
            check = self._fence()
            try:
                return await self.store.txn(ops if check is None else (*ops, check))
            except ConflictError as error:
                if check is None or await self._stands(check):
                    raise
                if self._fence() in (check, None):
                    raise FencedError(
                        "another master leads this cluster now; nothing was written",
                        hint="Run the command again: it follows the new master.",
                    ) from error
        raise FencedError("the lease of this cluster changes faster than it can be followed; nothing was written")

    async def _stands(self, check: Check) -> bool:
        record = await self.store.get(check.key)
        return (record.revision if record else 0) == check.expect
