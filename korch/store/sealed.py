"""A store whose values under some prefixes are sealed on their way in and opened on their way out. Nobody notices.

Values that were written before still read as they are; `reseal` seals them, and moves sealed ones to the newest key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from msgspec.structs import replace

from korch.errors import ConflictError, StoreError
from korch.store.base import Changes, Event, Listing, Op, Put, Record, Store
from korch.store.keyring import Keyring, key_of

_AT_ONCE_BYTES = 1_000_000
_STRAGGLERS_S = 1.0  # a write that was sealed before the newest key was there has arrived by then


class SealedStore:
    """`inner` with sealed values under `prefixes`; each is 44 bytes longer there."""

    def __init__(self, inner: Store, keyring: Keyring, prefixes: tuple[str, ...]) -> None:
        self.inner, self._keyring, self._prefixes = inner, keyring, prefixes

    async def get(self, key: str) -> Record | None:
        """As the store's."""
        found = await self.inner.get(key)
        return None if found is None else self._opened(found)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0) -> Listing:
        """As the store's."""
        found = await self.inner.list(prefix, after=after, limit=limit)
        if not self._touches(prefix):
            return found
        if sum(len(record.value) for record in found.records) > _AT_ONCE_BYTES:  # the loop has others to serve
            return replace(found, records=await asyncio.to_thread(self._all_opened, found.records))
        return replace(found, records=self._all_opened(found.records))

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """As the store's."""
        return await self.inner.put(key, await self._sealed(key, value), expect=expect)

    async def delete(self, key: str, *, expect: int | None = None) -> int:
        """As the store's."""
        return await self.inner.delete(key, expect=expect)

    async def txn(self, ops: Sequence[Op]) -> int:
        """As the store's."""
        if not any(isinstance(op, Put) and op.key.startswith(self._prefixes) for op in ops):
            return await self.inner.txn(ops)
        sealed = [replace(op, value=await self._sealed(op.key, op.value)) if isinstance(op, Put) else op for op in ops]
        return await self.inner.txn(sealed)

    async def revision(self) -> int:
        """As the store's."""
        return await self.inner.revision()

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Changes]:
        """As the store's."""
        return self._watch(prefix, after) if self._touches(prefix) else self.inner.watch(prefix, after=after)

    @asynccontextmanager
    async def _watch(self, prefix: str, after: int) -> AsyncIterator[Changes]:
        async with self.inner.watch(prefix, after=after) as changes:
            yield _Opened(changes, self)

    async def compact(self, revision: int) -> None:
        """As the store's."""
        await self.inner.compact(revision)

    async def close(self) -> None:
        """As the store's."""
        await self.inner.close()

    async def reseal(self) -> int:
        """Seal with the newest key what is not; how many values. Repeating it is safe, also beside other writers."""
        done = 0
        for prefix in self._prefixes:
            for record in (await self.inner.list(prefix)).records:
                if self._keyring.exists() and key_of(record.value) == self._keyring.newest():
                    continue
                plain = self._keyring.open(record.key, record.value)
                try:
                    sealed = await self._sealed(record.key, plain)
                    await self.inner.put(record.key, sealed, expect=record.revision)
                    done += 1
                except ConflictError:  # somebody else has written it, with the newest key if all is well
                    continue
        return done

    async def rotate(self, *, forget_old: bool) -> int:
        """Use a new key from now on, and seal everything with it; how many values.

        `forget_old` drops the former keys, when nothing in this state needs them any more.
        """
        self._keyring.add(now=time.time())
        done = await self.reseal()
        await asyncio.sleep(_STRAGGLERS_S)
        done += await self.reseal()
        await self.inner.compact(await self.inner.revision())  # the history still held the former values
        if forget_old and await self._older():
            raise StoreError("some Secrets are still sealed with a former key", hint="Run it again.")
        if forget_old:
            self._keyring.forget_older()
        return done

    async def _older(self) -> bool:
        newest = self._keyring.newest()
        found = [record for prefix in self._prefixes for record in (await self.inner.list(prefix)).records]
        return any(key_of(record.value) != newest for record in found)

    def opened(self, event: Event) -> Event:
        """The event with its values opened."""
        record = self._opened(event.record) if event.record is not None else None
        previous = self._opened(event.previous) if event.previous is not None else None
        return replace(event, record=record, previous=previous)

    def _all_opened(self, records: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(self._opened(record) for record in records)

    def _opened(self, record: Record) -> Record:
        if not key_of(record.value) or not record.key.startswith(self._prefixes):
            return record
        return replace(record, value=self._keyring.open(record.key, record.value))

    async def _sealed(self, key: str, value: bytes) -> bytes:
        if not key.startswith(self._prefixes):
            return value
        if not self._keyring.exists():
            await self._first_key()
        return self._keyring.seal(key, value)

    async def _first_key(self) -> None:
        """Make the first key; but not when one has been there, for then it must come back."""
        for prefix in self._prefixes:
            for record in (await self.inner.list(prefix)).records:
                if key_of(record.value):
                    self._keyring.open(record.key, record.value)  # says what is missing
        await asyncio.to_thread(self._keyring.make, now=time.time())

    def _touches(self, prefix: str) -> bool:
        return any(prefix.startswith(own) or own.startswith(prefix) for own in self._prefixes)


class _Opened:
    """The changes of a watch with their values opened."""

    def __init__(self, changes: Changes, store: SealedStore) -> None:
        self._changes, self._store = changes, store

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return self._store.opened(await self._changes.__anext__())

    @property
    def revision(self) -> int:
        """Up to where every change has been handed out."""
        return self._changes.revision


def unsealed(store: Store) -> Store:
    """The store itself."""
    return store.inner if isinstance(store, SealedStore) else store
