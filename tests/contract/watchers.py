"""Watchers that keep account: each must see every change once and in order, or be told that it must list again."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

WATCHERS, OBJECTS = 200, 10
PATH = "/api/v1/configmaps"


class Events(Protocol):
    """A watch under way."""

    @property
    def status(self) -> int: ...

    async def next(self) -> dict[str, Any] | None:
        """The next event; None when the stream has ended."""
        ...


class Source(Protocol):
    """An API as one client sees it."""

    async def list(self) -> dict[str, Any]: ...

    def watch(self, after: int) -> AbstractAsyncContextManager[Events]: ...


@dataclass
class Follower:
    """One watcher: every tenth is slow, every fifth comes and goes, every 25th reads nothing until `go_on` is set."""

    source: Source
    number: int
    end: int  # the last revision that is waited for
    go_on: asyncio.Event | None = None
    state: dict[str, int] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    listed: int = 0
    lists: int = 0
    returns: int = 0

    def __post_init__(self) -> None:
        self.slow, self.restless = self.number % 10 == 0, self.number % 5 == 1
        self.stalls = self.number % 25 == 2
        self.chance = random.Random(self.number)

    async def follow(self) -> None:
        """Until the last change."""
        last = await self.list()
        while last < self.end:
            async with self.source.watch(last) as events:
                last = await self._read(events, last)
            self.returns += 1

    async def _read(self, events: Events, last: int) -> int:
        stay = self.chance.randrange(20, 200) if self.restless else self.end
        for count in range(stay):
            event = await events.next()
            if event is None and events.status == 200:
                return last  # it goes on from there
            if event is None or event["type"] == "ERROR" or events.status != 200:
                return await self.list()
            meta = event["object"]["metadata"]
            last = int(meta["resourceVersion"])
            self.state[meta["name"]] = last
            self.seen.append(last)
            if last >= self.end:
                break
            if self.slow and count % 50 == 0:
                await asyncio.sleep(0.05)
            if self.stalls and self.go_on is not None and len(self.seen) >= 100:
                await self.go_on.wait()
        return last

    async def list(self) -> int:
        """Begin anew, as clients do."""
        found = await self.source.list()
        self.state = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in found["items"]}
        self.seen = []
        self.lists += 1
        self.listed = int(found["metadata"]["resourceVersion"])
        return self.listed

    def check(self, changes: Sequence[int], wanted: dict[str, int]) -> None:
        """`changes`: all revisions that there were; `wanted`: the last one of each object."""
        assert self.seen == [revision for revision in changes if self.listed < revision <= self.end], self.number
        assert self.state == wanted, self.number
