"""The master beside its terms: what it does when the store refuses, and when it waits for the lead."""

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from korch.errors import KorchError, StoreError
from korch.master import master
from korch.objects.objects import SystemClock
from korch.store.failures import explain
from tests.unit.objects.memory_store import MemoryStore


def refusal(code: int) -> KorchError:
    """What the store says when SQLite ended with this code."""
    cause = sqlite3.OperationalError("refused")
    cause.sqlite_errorcode = code
    error = explain(cause, Path("/nowhere/state.db"))
    error.__cause__ = cause
    return error


class FullStore(MemoryStore):
    """Refuses writes while there is a `refusal`."""

    refusal: KorchError | None = None
    refused = 0

    def __init__(self) -> None:
        super().__init__()
        self.tried = asyncio.Event()

    async def txn(self, ops: Any) -> int:
        if self.refusal is not None:
            self.refused += 1
            self.tried.set()
            raise self.refusal
        return await super().txn(ops)


class Terms:
    """Stands for `Term`: counts its terms; each stops the master."""

    def __init__(self) -> None:
        self.led = 0
        self.view = None

    def __call__(self, *_: Any, **__: Any) -> "Terms":
        return self

    async def run(self, stop: asyncio.Event) -> None:
        self.led += 1
        stop.set()


async def no_seal(_: Any) -> int:
    return 0


@pytest.fixture
def terms(monkeypatch: pytest.MonkeyPatch) -> Terms:
    made = Terms()
    monkeypatch.setattr(master, "Term", made)
    monkeypatch.setattr(master, "Sources", lambda _: SimpleNamespace(look=lambda **_: asyncio.sleep(0)))
    monkeypatch.setattr(master, "seal_secrets", no_seal)
    monkeypatch.setattr(master, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(master, "STANDBY_POLL_S", 0.01)
    monkeypatch.setattr(master, "STEP_ASIDE_S", 0.0)
    return made


def cluster_on(store: MemoryStore, folder: Path) -> Any:
    return SimpleNamespace(
        store=store,
        settings=SimpleNamespace(cluster_dir=folder),
        hosts=lambda: (),
        record=SimpleNamespace(name="c"),
        clock=SystemClock(),
    )


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR])
def test_a_store_that_refuses_for_now_is_waited_for(
    code: int, terms: Terms, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FullStore()
    store.refusal = refusal(code)

    async def main() -> None:
        serving = asyncio.create_task(master.serve(cluster_on(store, tmp_path), asyncio.Event()))
        for _ in range(3):
            await asyncio.wait_for(store.tried.wait(), 30)
            store.tried.clear()
        store.refusal = None
        await asyncio.wait_for(serving, 30)

    asyncio.run(main())
    assert terms.led == 1
    told = [line for line in caplog.messages if "trying again until it can be used" in line]
    assert len(told) == 1, "once, not with every try"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StoreError("state.db was moved, removed or replaced"), id="replaced"),
        pytest.param(refusal(sqlite3.SQLITE_CORRUPT), id="damaged"),
        pytest.param(refusal(sqlite3.SQLITE_READONLY_DBMOVED), id="moved"),
    ],
)
def test_what_no_waiting_mends_ends_it(error: KorchError, terms: Terms, tmp_path: Path) -> None:
    store = FullStore()
    store.refusal = error
    with pytest.raises(StoreError):
        asyncio.run(asyncio.wait_for(master.serve(cluster_on(store, tmp_path), asyncio.Event()), 30))
    assert terms.led == 0


def test_a_master_that_waits_for_the_disk_can_be_stopped(terms: Terms, tmp_path: Path) -> None:
    store, stop = FullStore(), asyncio.Event()
    store.refusal = refusal(sqlite3.SQLITE_FULL)

    async def main() -> None:
        serving = asyncio.create_task(master.serve(cluster_on(store, tmp_path), stop))
        await store.tried.wait()
        stop.set()
        await asyncio.wait_for(serving, 30)

    asyncio.run(main())
    assert terms.led == 0
