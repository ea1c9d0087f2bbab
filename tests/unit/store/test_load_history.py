import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from korch.errors import StoreError
from korch.store.history import LoadHistory, Sample


def with_history(path: Path, body: Callable[[LoadHistory], Awaitable[None]], **bounds: int) -> None:
    async def main() -> None:
        history = LoadHistory(path, **bounds)
        try:
            async with asyncio.timeout(60):
                await body(history)
        finally:
            await history.close()
            await history.close()

    asyncio.run(main())


def sample(node: str, at: float) -> Sample:
    return Sample(node, at, {"load1": at / 10, "memory_free_bytes": 5e9})


def test_recent_gives_the_newest_oldest_first(tmp_path: Path) -> None:
    async def write(history: LoadHistory) -> None:
        for at in range(10):
            await history.append(sample("n1", at), sample("n2", at + 100))
        await history.append()

    async def read(history: LoadHistory) -> None:
        assert await history.recent("n1", 3) == tuple(sample("n1", at) for at in (7, 8, 9))
        assert len(await history.recent("n2", 100)) == 10
        assert await history.recent("unknown", 3) == ()

    with_history(tmp_path / "folder" / "load.db", write)
    with_history(tmp_path / "folder" / "load.db", read)
    assert (tmp_path / "folder" / "load.db").stat().st_mode & 0o777 == 0o600


def test_each_node_keeps_its_newest_samples_only(tmp_path: Path) -> None:
    async def body(history: LoadHistory) -> None:
        for at in range(23):
            await history.append(sample("n1", at))
        await history.append(sample("n2", 0))
        assert [one.at for one in await history.recent("n1", 100)] == [18, 19, 20, 21, 22]
        assert len(await history.recent("n2", 100)) == 1

    with_history(tmp_path / "load.db", body, per_node=5)
    conn = sqlite3.connect(tmp_path / "load.db")
    assert conn.execute("SELECT count(*) FROM slots").fetchone() == (6,)
    conn.close()


def test_the_nodes_silent_longest_are_dropped_when_there_are_too_many(tmp_path: Path) -> None:
    async def body(history: LoadHistory) -> None:
        for at, node in enumerate(["a", "b", "c", "a", "d"]):
            await history.append(sample(node, at))
        assert [len(await history.recent(node, 9)) for node in "abcd"] == [2, 0, 1, 1]
        await history.forget("a")
        assert await history.recent("a", 9) == ()

    with_history(tmp_path / "load.db", body, max_nodes=3)


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000], ids=["text", "cut"])
def test_a_damaged_file_is_begun_anew_and_kept_aside(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "load.db"
    path.write_bytes(garbage)

    async def body(history: LoadHistory) -> None:
        await history.append(sample("n1", 1))
        assert await history.recent("n1", 9) == (sample("n1", 1),)

    with_history(path, body)
    assert (tmp_path / "load.db.damaged").read_bytes() == garbage


def test_a_full_disk_is_an_error_that_names_the_file_and_passes(tmp_path: Path) -> None:
    async def body(history: LoadHistory) -> None:
        await history.append(sample("n1", 1))
        assert history._conn is not None
        history._conn.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match=r"load\.db: no space left"):
            await history.append(*(sample("n1", at) for at in range(1000)))
        await history.append(sample("n1", 5000))
        assert (await history.recent("n1", 1))[0].at == 5000

    with_history(tmp_path / "load.db", body)


def test_several_openers_share_a_file(tmp_path: Path) -> None:
    async def body(history: LoadHistory) -> None:
        others = [LoadHistory(tmp_path / "load.db") for _ in range(4)]
        await asyncio.gather(*(other.append(sample("n", at)) for other in others for at in range(20)))
        assert len(await history.recent("n", 1000)) == 80
        await asyncio.gather(*(other.close() for other in others))
        with pytest.raises(StoreError, match="closed"):
            await others[0].recent("n", 1)

    with_history(tmp_path / "load.db", body)
