"""Which masters run: those that show themselves; who leads is what the lease says."""

import asyncio
from typing import Any

from korch.master.presence import BEAT_S, FRESH_S, PREFIX, Presence, masters_of
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

CLOCK = LoopClock()


def test_those_that_wait_are_seen_until_they_end_or_are_silent() -> None:
    async def main() -> None:
        store: Any = MemoryStore()

        async def seen(lead: str = "a/1") -> list[tuple[str, bool]]:
            return [(one.identity, one.leads) for one in await masters_of(store, lead, CLOCK.now())]

        shown = {name: Presence(store, name, CLOCK) for name in ("a/1", "b/2", "c/3")}
        tasks = {name: asyncio.create_task(presence.run()) for name, presence in shown.items()}
        for name, presence in shown.items():
            presence.show(leads=name == "a/1")
        await asyncio.sleep(1)
        assert await seen() == [("a/1", True), ("b/2", False), ("c/3", False)]
        since = {one.identity: one.since for one in await masters_of(store, "a/1", CLOCK.now())}
        await asyncio.sleep(600)
        shown["b/2"].show(leads=False)
        found = await masters_of(store, "a/1", CLOCK.now())
        assert {one.identity: one.since for one in found} == since

        tasks["b/2"].cancel()
        await asyncio.gather(tasks["b/2"], return_exceptions=True)
        assert await seen() == [("a/1", True), ("c/3", False)], "it took its record along"

        store.delete = None  # killed: nothing tidies up
        tasks["c/3"].cancel()
        await asyncio.gather(tasks["c/3"], return_exceptions=True)
        del store.delete
        assert ("c/3", False) in await seen()
        await asyncio.sleep(FRESH_S + BEAT_S)
        assert await seen() == [("a/1", True)]
        assert list(store.records) == [PREFIX + "a_1"], "others have tidied up"

        assert await seen(lead="d/4") == [], "it does not know yet that it was replaced"
        tasks["a/1"].cancel()
        await asyncio.gather(tasks["a/1"], return_exceptions=True)

    run_virtually(main)


def test_records_of_another_korch_harm_nobody() -> None:
    async def main() -> None:
        store: Any = MemoryStore()
        await store.put(PREFIX + "x", b"what?")
        await store.put(PREFIX + "y", b'{"identity": "y", "leads": false, "since": "", "seen": "some day"}')
        assert await masters_of(store, "", CLOCK.now()) == ()

    run_virtually(main)
