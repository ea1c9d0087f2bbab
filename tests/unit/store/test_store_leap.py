"""A state that takes the place of a lost one starts beyond every revision that was ever handed out."""

import asyncio
from pathlib import Path

import pytest

from korch.errors import ExpiredError
from korch.store.sqlite import open_sqlite


def test_after_a_leap_no_old_revision_comes_again(tmp_path: Path) -> None:
    async def main() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        first = await store.put("/a", b"1")
        assert await store.leap(1_000_000) == 1_000_000
        assert await store.leap(5) == 1_000_000, "never backwards"
        assert await store.put("/b", b"2") == 1_000_001
        record = await store.get("/a")
        assert record is not None
        assert (record.value, record.revision) == (b"1", first), "what stands stays"
        with pytest.raises(ExpiredError):
            async with store.watch("/", after=first) as changes:
                await anext(changes)
        await store.close()
        again = await open_sqlite(tmp_path / "state.db")
        assert await again.revision() == 1_000_001
        await again.close()

    asyncio.run(main())


def test_a_watch_that_is_open_lists_again(tmp_path: Path) -> None:
    async def main() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        other = await open_sqlite(tmp_path / "state.db")
        before = await store.put("/a", b"1")
        async with asyncio.timeout(30), other.watch("/", after=before) as changes:
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.1)
            await store.leap(1_000_000)
            await store.put("/b", b"2")
            with pytest.raises(ExpiredError):
                await waiting
        await store.close()
        await other.close()

    asyncio.run(main())
