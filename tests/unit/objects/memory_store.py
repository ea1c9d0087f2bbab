"""A store in a dict, for tests of the layers above: the contract without files, threads or other processes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from korch.store.base import Check, Delete, Event, KeyConflictError, Listing, Op, Put, Record


class MemoryStore:
    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.history: list[Event] = []
        self.newest = 0
        self.writes = 0
        self.before_txn = None  # an async function called once, before the next transaction: another writer's chance
        self._news = asyncio.Condition()

    async def get(self, key: str) -> Record | None:
        return self.records.get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0) -> Listing:
        found = [self.records[key] for key in sorted(self.records) if key.startswith(prefix) and key > after]
        return Listing(tuple(found[:limit] if limit else found), self.newest, bool(limit) and len(found) > limit)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        return await self.txn([Put(key, value, expect)])

    async def delete(self, key: str, *, expect: int | None = None) -> int:
        return await self.txn([Delete(key, expect)])

    async def txn(self, ops: Sequence[Op]) -> int:
        if self.before_txn is not None:
            hook, self.before_txn = self.before_txn, None
            await hook()
        for op in ops:
            old = self.records.get(op.key)
            if op.expect is not None and op.expect != (old.revision if old else 0):
                raise KeyConflictError(op.key, expected=op.expect, actual=old.revision if old else 0)
        events = [event for op in ops if (event := self._event(op)) is not None]
        if events:
            self.newest += 1
            self.writes += 1
            for event in events:
                if event.record is None:
                    del self.records[event.key]
                else:
                    self.records[event.key] = event.record
            self.history += events
        async with self._news:
            self._news.notify_all()
        return self.newest

    def _event(self, op: Op) -> Event | None:
        old = self.records.get(op.key)
        if isinstance(op, Check) or (isinstance(op, Delete) and old is None):
            return None
        revision = self.newest + 1
        if isinstance(op, Delete):
            return Event(op.key, revision, None, old)
        return Event(op.key, revision, Record(op.key, op.value, revision, old.created if old else revision), old)

    async def revision(self) -> int:
        return self.newest

    @asynccontextmanager
    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[AsyncIterator[Event]]:
        yield self._follow(prefix, after)

    async def _follow(self, prefix: str, after: int) -> AsyncIterator[Event]:
        seen = 0
        while True:
            while seen < len(self.history):
                event = self.history[seen]
                seen += 1
                if event.revision > after and event.key.startswith(prefix):
                    yield event
            async with self._news:
                if seen == len(self.history):
                    await self._news.wait()

    async def compact(self, revision: int) -> None:
        self.history = [event for event in self.history if event.revision > revision]

    async def close(self) -> None:
        return
