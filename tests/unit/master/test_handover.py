import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from korch.errors import ForbiddenError
from korch.master import handover
from korch.master.handover import is_wanted, take_lead
from korch.store.base import Store
from korch.store.lease import Lead
from korch.store.sqlite import open_sqlite


@asynccontextmanager
async def held(path: Path, doing: str) -> AsyncIterator[tuple[Store, Lead, Lead]]:
    """A store, the lead that holds, and another one that wants it."""
    store = await open_sqlite(path / "state.db")
    holder, other = (Lead(store, lock_file=path / "lead.lock", note={"doing": word}) for word in (doing, "pruning"))
    assert await holder.acquire()
    try:
        yield store, holder, other
    finally:
        await other.release()
        await holder.release()
        await store.close()


def test_a_master_steps_aside_for_a_command(tmp_path: Path) -> None:
    async def go() -> None:
        async with held(tmp_path, "master") as (store, master, command):
            assert not await is_wanted(store)
            taking = asyncio.create_task(take_lead(store, command))
            async with asyncio.timeout(5):
                while not await is_wanted(store):  # noqa: ASYNC110 (the master looks so, too)
                    await asyncio.sleep(0.01)
            assert not await is_wanted(store)  # told once
            await master.release()
            await taking
            assert command.held
            await command.release()
            assert await master.acquire()

    asyncio.run(go())


def test_another_command_is_only_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "WAIT_S", 0.3)

    async def go() -> None:
        async with held(tmp_path, "web") as (store, _, command):
            with pytest.raises(ForbiddenError, match="another korch leads"):
                await take_lead(store, command)
            assert not await is_wanted(store)

    asyncio.run(go())
