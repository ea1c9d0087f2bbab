"""Random histories of a store against a model that is a dict with revisions: the same answers, the same events."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from korch.errors import ExpiredError
from korch.store.base import Changes, Check, Delete, Event, KeyConflictError, Op, Put, Record, Store
from tests.contract.test_store import STORES, OpenStore

T = TypeVar("T")

keys = st.sampled_from(["/a/1", "/a/2", "/a/é", "/b", "/b/1", "/b/1/x"])
prefixes = st.sampled_from(["", "/", "/a/", "/b", "/b/", "/b/1", "/none"])
values = st.binary(max_size=6)
# An expectation is drawn as a wish, and becomes a revision when the state is known.
wishes = st.sampled_from(["any", "right", "right", "absent", "stale"])


@dataclass
class Model:
    """What the contract says, in the simplest words."""

    revision: int
    compacted: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def txn(self, ops: list[Op]) -> str | None:
        """The key in conflict, or None after the change."""
        for op in ops:
            actual = self.records[op.key].revision if op.key in self.records else 0
            if op.expect is not None and op.expect != actual:
                return op.key
        writes = [op for op in ops if isinstance(op, Put) or (isinstance(op, Delete) and op.key in self.records)]
        self.revision += bool(writes)
        for op in writes:
            before = self.records.pop(op.key, None)
            after = None
            if isinstance(op, Put):
                after = Record(op.key, op.value, self.revision, before.created if before else self.revision)
                self.records[op.key] = after
            self.events.append(Event(op.key, self.revision, after, before))
        return None

    def after(self, revision: int, prefix: str) -> list[Event]:
        return [event for event in self.events if event.revision > revision and event.key.startswith(prefix)]

    def expectation(self, key: str, wish: str) -> int | None:
        record = self.records.get(key)
        right = record.revision if record else 0
        return {"any": None, "right": right, "absent": 0, "stale": max(1, right - 1)}[wish]


@dataclass
class Follower:
    """A watch, and how many of the model's events lie behind it."""

    changes: Changes
    prefix: str
    seen: int


class StoreMachine(RuleBasedStateMachine):
    """Two openers of one store do the same to it as is done to the model."""

    open_in: Any = None

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.opener: OpenStore = type(self).open_in(Path(self.folder.name))
        self.stores: list[Store] = [self.run(self.opener()) for _ in range(2)]
        self.watches = AsyncExitStack()
        self.run(self.watches.__aenter__())
        self.model = Model(self.run(self.stores[0].revision()))
        self.first = self.model.revision
        self.follow_all()

    def follow_all(self) -> None:
        self.followers: list[Follower] = []
        for who in range(2):
            self.follow(who, "", 0)

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(20):
                return await what

        return self.runner.run(bounded())

    @rule(
        who=st.integers(0, 1),
        writes=st.dictionaries(keys, st.tuples(values | st.none(), wishes), min_size=1, max_size=3),
        checks=st.lists(st.tuples(keys, st.sampled_from(["right", "right", "right", "absent"])), max_size=1),
        times=st.integers(1, 3),
        readers=st.lists(st.integers(0, 9), max_size=3),
    )
    def txn(
        self,
        who: int,
        writes: dict[str, tuple[bytes | None, str]],
        checks: list[tuple[str, str]],
        times: int,
        readers: list[int],
    ) -> None:
        for turn in range(times):
            ops: list[Op] = [Check(key, self.model.expectation(key, wish) or 0) for key, wish in checks]
            for key, (value, wish) in writes.items():
                expect = self.model.expectation(key, wish)
                ops.append(Delete(key, expect) if value is None else Put(key, value + b"%d" % turn, expect))
            self.transact(who, ops)
        for which in readers:
            self.read_on(which, 2)

    def transact(self, who: int, ops: list[Op]) -> None:
        conflict = self.model.txn(ops)
        if conflict is None:
            assert self.run(self.stores[who].txn(ops)) == self.model.revision
        else:
            with pytest.raises(KeyConflictError) as caught:
                self.run(self.stores[who].txn(ops))
            assert caught.value.key == conflict

    @rule(who=st.integers(0, 1), back=st.integers(0, 10))
    def compact(self, who: int, back: int) -> None:
        revision = max(self.first, self.model.revision - back)
        self.run(self.stores[who].compact(revision))
        self.model.compacted = max(self.model.compacted, revision)

    @rule(who=st.integers(0, 1))
    def open_again(self, who: int) -> None:
        self.run(self.watches.aclose())
        self.run(self.stores[who].close())
        self.stores[who] = self.run(self.opener())
        self.follow_all()

    @rule(who=st.integers(0, 1), prefix=prefixes, back=st.integers(0, 12))
    def follow(self, who: int, prefix: str, back: int) -> None:
        after = max(self.first, self.model.revision - back)
        changes = self.run(self.watches.enter_async_context(self.stores[who].watch(prefix, after=after)))
        if after < self.model.compacted:
            with pytest.raises(ExpiredError):
                self.run(step(changes))
        else:
            seen = sum(event.revision <= after for event in self.model.events)
            self.followers.append(Follower(changes, prefix, seen))

    def read_on(self, which: int, most: int) -> None:
        if self.followers:
            self.read(self.followers[which % len(self.followers)], most)

    def read(self, follower: Follower, most: int) -> None:
        for _ in range(most):
            upcoming = [n for n, event in enumerate(self.model.events) if n >= follower.seen]
            upcoming = [n for n in upcoming if self.model.events[n].key.startswith(follower.prefix)]
            if not upcoming:
                return
            expected = self.model.events[upcoming[0]]
            try:
                assert self.run(step(follower.changes)) == expected
            except ExpiredError:
                assert follower.changes.revision < self.model.compacted
                self.followers.remove(follower)
                return
            follower.seen = upcoming[0] + 1
            assert expected.revision - 1 <= follower.changes.revision <= self.model.revision

    @invariant()
    def reads_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        for store in self.stores:
            listing = self.run(store.list(""))
            assert listing.records == tuple(self.model.records[key] for key in sorted(self.model.records))
            assert listing.revision == self.model.revision == self.run(store.revision())

    @rule(who=st.integers(0, 1), prefix=prefixes, after=keys | st.just(""), limit=st.integers(0, 4))
    def list_page(self, who: int, prefix: str, after: str, limit: int) -> None:
        wanted = [
            self.model.records[key] for key in sorted(self.model.records) if key.startswith(prefix) and key > after
        ]
        listing = self.run(self.stores[who].list(prefix, after=after, limit=limit))
        assert list(listing.records) == (wanted[:limit] if limit else wanted)
        assert listing.more == (bool(limit) and len(wanted) > limit)

    @rule(who=st.integers(0, 1), key=keys)
    def get(self, who: int, key: str) -> None:
        assert self.run(self.stores[who].get(key)) == self.model.records.get(key)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for follower in list(self.followers):
            self.read(follower, 1000)
        self.run(self.watches.aclose())
        for store in self.stores:
            self.run(store.close())
        self.runner.close()
        self.folder.cleanup()


async def step(changes: Changes) -> Event:
    return await changes.__anext__()


@pytest.mark.parametrize("kind", sorted(STORES))
def test_a_store_behaves_like_a_dict_with_revisions(kind: str) -> None:
    class Machine(StoreMachine):
        open_in = staticmethod(STORES[kind])

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
