import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from korch.errors import ExpiredError, InvalidError, NotFoundError, StoreError
from korch.store import files
from korch.store.backup import REVISION_GAP, restore
from korch.store.sqlite import SqliteStore, open_sqlite


def with_store(path: Path, body: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await open_sqlite(path)
        try:
            async with asyncio.timeout(60):
                await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def keys_of(path: Path) -> tuple[set[str], int]:
    found: list[tuple[set[str], int]] = []

    async def body(store: SqliteStore) -> None:
        listing = await store.list("")
        found.append(({record.key for record in listing.records}, listing.revision))

    with_store(path, body)
    return found[0]


def make(path: Path, backup: Path) -> int:
    """A store with /old in it and in the backup, then /new: the revision of the backup."""
    revisions = []

    async def body(store: SqliteStore) -> None:
        revisions.append(await store.put("/old", b"1"))
        await store.backup(backup)
        for _ in range(3):
            await store.put("/new", b"2")

    with_store(path, body)
    return int(revisions[0])


def test_restore_goes_back_and_moves_the_revision_beyond_all_that_was_seen(tmp_path: Path) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    make(path, backup)
    _, revision_before = keys_of(path)
    restored = asyncio.run(restore(backup, path))
    assert restored.revision == revision_before + REVISION_GAP
    assert restored.kept_as is not None
    assert keys_of(path) == ({"/old"}, restored.revision)
    assert keys_of(restored.kept_as)[0] == {"/old", "/new"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "state.db.new").exists()

    async def body(store: SqliteStore) -> None:
        record = await store.get("/old")
        assert record is not None
        assert await store.put("/old", b"3", expect=record.revision) == restored.revision + 1
        async with store.watch("/", after=revision_before) as changes:
            with pytest.raises(ExpiredError):
                await anext(changes)
        await store.check()

    with_store(path, body)


def test_restore_twice_keeps_both_former_files(tmp_path: Path) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    make(path, backup)
    first = asyncio.run(restore(backup, path))
    second = asyncio.run(restore(backup, path))
    assert second.revision == first.revision + REVISION_GAP
    assert first.kept_as != second.kept_as
    assert first.kept_as is not None
    assert first.kept_as.exists()


def test_restore_where_nothing_was(tmp_path: Path) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    revision = make(path, backup)
    fresh = tmp_path / "new" / "state.db"
    restored = asyncio.run(restore(backup, fresh))
    assert (restored.kept_as, restored.revision) == (None, revision + REVISION_GAP)
    assert keys_of(fresh)[0] == {"/old"}


def test_restore_replaces_a_damaged_file_and_keeps_it_with_its_log(tmp_path: Path) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    make(path, backup)
    path.write_bytes(b"garbage" * 1000)
    (tmp_path / "state.db-wal").write_bytes(b"its log")
    restored = asyncio.run(restore(backup, path))
    assert keys_of(path) == ({"/old"}, restored.revision)
    assert restored.kept_as is not None
    assert restored.kept_as.read_bytes() == b"garbage" * 1000
    assert files.companions(restored.kept_as)[1].read_bytes() == b"its log"


def test_a_state_file_copied_by_hand_with_its_log_is_a_backup_too(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy" / "state.db"
    copy.parent.mkdir()

    async def body(store: SqliteStore) -> None:
        await store.put("/in the log", b"")
        for there, here in list(zip(files.companions(path), files.companions(copy), strict=True))[:2]:
            here.write_bytes(there.read_bytes())

    with_store(path, body)
    before = copy.read_bytes()
    asyncio.run(restore(copy, tmp_path / "restored.db"))
    assert keys_of(tmp_path / "restored.db")[0] == {"/in the log"}
    assert copy.read_bytes() == before


def cut(backup: Path) -> None:
    os.truncate(backup, backup.stat().st_size // 2)


def overwrite(backup: Path) -> None:
    with backup.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8000)


def other(backup: Path) -> None:
    backup.unlink()
    conn = sqlite3.connect(backup)
    conn.execute("CREATE TABLE t (x)")
    conn.close()


def text(backup: Path) -> None:
    backup.write_text("hello")


def empty(backup: Path) -> None:
    os.truncate(backup, 0)


@pytest.mark.parametrize("damage", [cut, overwrite, other, text, empty])
def test_a_damaged_backup_is_refused_with_everything_as_it_was(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    make(path, backup)
    before = keys_of(path)
    damage(backup)
    with pytest.raises(StoreError, match=r"backup\.db is damaged or not a korch state file"):
        asyncio.run(restore(backup, path))
    assert keys_of(path) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"state.db", "state.db.lock", "backup.db"}


def test_a_backup_of_a_newer_korch_is_refused(tmp_path: Path) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    make(path, backup)
    conn = sqlite3.connect(backup)
    conn.execute("PRAGMA user_version = 99")
    conn.close()
    with pytest.raises(StoreError, match=r"backup\.db has schema 99"):
        asyncio.run(restore(backup, path))


def test_no_such_backup(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing-here"):
        asyncio.run(restore(tmp_path / "nothing-here", tmp_path / "state.db"))


def test_restore_under_a_running_process_is_refused(tmp_path: Path) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    make(path, backup)

    async def body(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match="is locked by"):
            await restore(backup, path)
        await store.put("/still", b"works")

    with_store(path, body)


def test_backup_while_writing_is_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def body(store: SqliteStore) -> None:
        writes = [asyncio.create_task(store.put(f"/{n:04}", b"x" * 500)) for n in range(2000)]
        for number in range(3):
            await asyncio.sleep(0)
            await store.backup(tmp_path / f"{number}.db")
        await asyncio.gather(*writes)

    with_store(path, body)
    for number in range(3):
        keys, revision = keys_of(tmp_path / f"{number}.db")
        assert keys == {f"/{n:04}" for n in range(revision)}


def test_a_backup_replaces_the_last_one_whole(tmp_path: Path) -> None:
    path, backup = tmp_path / "state.db", tmp_path / "backup.db"
    make(path, backup)
    make(path, backup)
    assert keys_of(backup)[0] == {"/old", "/new"}
    assert not (tmp_path / "backup.db.new").exists()


def test_the_state_is_no_place_for_its_backup(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        await store.put("/a", b"")
        for name in ("state.db", "state.db-wal", "state.db.lock"):
            with pytest.raises(InvalidError, match="is the state itself"):
                await store.backup(tmp_path / name)
        assert await store.get("/a") is not None

    with_store(tmp_path / "state.db", body)


def test_a_backup_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    async def body(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match="taken"):
            await store.backup(tmp_path / "taken")
        assert not (tmp_path / "taken.new").exists()

    with_store(tmp_path / "state.db", body)
