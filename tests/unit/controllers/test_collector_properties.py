"""Garbage collection in any order of news and looks: what nobody owns goes, what somebody owns stays, then nothing."""

import asyncio
import random
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from korch.controllers.collector import Collector
from korch.objects.objects import Objects
from korch.objects.values import Deletion
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from tests.unit.controllers.test_collector import owned_by
from tests.unit.objects.memory_store import MemoryStore
from tests.unit.planners import DICE, mixed, steady

NAMES = st.sampled_from("abcdef")
OWNERS = st.frozensets(NAMES, max_size=3)
MADE = st.tuples(*(st.tuples(st.just("make"), st.just(name), OWNERS) for name in "abcdef"))
LATER = st.lists(
    st.one_of(
        st.tuples(st.just("make"), NAMES, OWNERS),
        st.tuples(st.sampled_from(["Background", "Foreground", "Orphan"]), NAMES, st.just(frozenset())),
        st.tuples(st.just("work"), NAMES, st.just(frozenset())),
    ),
    max_size=20,
)


class Slow:
    """A collector whose news come late, and whose looks come in any order."""

    def __init__(self, dice: random.Random) -> None:
        self.store = MemoryStore()
        self.objects = Objects(self.store)  # type: ignore[arg-type]
        self.collector = Collector(self.objects, self.store)  # type: ignore[arg-type]
        self.dice, self.heard = dice, 0
        self.waiting: dict[str, None] = {}
        self.news = SimpleNamespace(revision=0)
        self.collector._queue = SimpleNamespace(add=lambda uid: self.waiting.setdefault(uid))  # type: ignore[assignment]
        self.collector._changes = self.news  # type: ignore[assignment]

    async def hear(self) -> None:
        event = self.store.history[self.heard]
        self.heard, self.news.revision = self.heard + 1, event.revision
        await self.collector._apply(event)

    async def look(self) -> None:
        uid = self.dice.choice(list(self.waiting))
        del self.waiting[uid]
        if await self.collector._reconcile(uid) is not None:
            self.waiting[uid] = None

    async def work(self) -> bool:
        """One piece of news, or one look."""
        acts = [self.hear] * (self.heard < len(self.store.history)) + [self.look] * bool(self.waiting)
        if acts:
            await self.dice.choice(acts)()
        return bool(acts)

    async def rest(self) -> None:
        for _ in range(400):
            while self.heard < len(self.store.history) and self.dice.random() < 0.9:
                await self.hear()
            if not await self.work():
                return
        raise AssertionError("it never rests")

    async def all(self) -> dict[str, ConfigMap]:
        return {one.metadata.name: one for one in (await self.objects.list(ConfigMap)).items}


@steady(300)
@given(MADE, LATER, DICE)
def test_whatever_comes_first_all_that_nobody_owns_goes_and_nothing_else(
    made: tuple[tuple[str, str, frozenset[str]], ...], later: list[tuple[str, str, frozenset[str]]], dice: random.Random
) -> None:
    async def body() -> None:
        slow = Slow(dice)
        slow.collector._is_current = _at_once(slow)  # type: ignore[method-assign]
        wished_away: set[str] = set()
        owners: dict[str, set[str]] = {}
        known: dict[str, ConfigMap] = {}
        for what, name, of in (*made, *later):
            there = await slow.all()
            if what == "work":
                await slow.work()
            elif what == "make" and name not in there:
                found = [known[owner] for owner in sorted(of & known.keys())]  # perhaps they are gone
                meta = ObjectMeta(name=name, namespace="default", owner_references=owned_by(*found))
                new = await slow.objects.create(ConfigMap(metadata=meta))
                known[name] = new
                owners[new.metadata.uid] = {one.metadata.uid for one in found}
            elif what != "make" and name in there:
                wished_away.add(there[name].metadata.uid)
                await slow.objects.delete(ConfigMap, name, "default", wish=Deletion(what))  # type: ignore[arg-type]
        await slow.rest()
        left = {one.metadata.uid: one for one in (await slow.all()).values()}
        for one in left.values():
            assert one.metadata.deletion_timestamp is None, "what is held is let go in the end"
            refs = {ref.uid for ref in one.metadata.owner_references}
            assert not refs or refs & left.keys(), "nobody owns it"
        for uid, theirs in owners.items():
            if uid not in wished_away and (not theirs or theirs & left.keys()):
                assert uid in left, "somebody owns it still"
        assert not wished_away & left.keys()
        writes = slow.store.writes
        for uid in mixed(slow.collector._graph.all_owned(), dice):
            await slow.collector._reconcile(uid)
        assert slow.store.writes == writes, "looked at again, nothing is left to do"

    asyncio.run(body())


def _at_once(slow: Slow):  # type: ignore[no-untyped-def]
    async def is_current() -> bool:
        return slow.news.revision >= await slow.store.revision()

    return is_current
