"""The state file as a file: places, rights, damage, schema, fullness."""

import asyncio
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from korch.errors import StoreError
from korch.store import failures, files, places, sql
from korch.store.base import KeyConflictError, Put
from korch.store.sqlite import SqliteStore, open_sqlite
from korch.store.upkeep import Limits, Upkeep

RESCUE = r"korch restore.*korch adopt"


def with_store(path: Path, body: Callable[[SqliteStore], Awaitable[None]], **options: float) -> None:
    async def main() -> None:
        store = await open_sqlite(path, **options)
        try:
            async with asyncio.timeout(60):
                await body(store)
        finally:
            await store.close()

    asyncio.run(main())


async def fill(store: SqliteStore) -> None:
    for number in range(50):
        await store.put(f"/{number}", b"x" * 3000)


async def nothing(store: SqliteStore) -> None:
    await store.revision()


@contextmanager
def raises_store_error(message: str, hint: str) -> Iterator[None]:
    with pytest.raises(StoreError, match=message) as caught:
        yield
    assert_match(hint, caught.value.hint)


def assert_match(pattern: str, text: str) -> None:
    assert re.search(pattern, text, re.DOTALL), text


@pytest.fixture
def strange_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("umask", [0, 0o777, 0o022])
def test_folder_0700_and_files_0600_whatever_the_umask(tmp_path: Path, strange_umask: None, umask: int) -> None:
    path = tmp_path / "home" / "clusters" / "lab" / "state.db"
    tmp_path.chmod(0o755)
    os.umask(umask)

    async def body(store: SqliteStore) -> None:
        await fill(store)
        names = {entry.name for entry in path.parent.iterdir()}
        assert names == {"state.db", "state.db-wal", "state.db-shm", "state.db.lock"}
        for entry in path.parent.iterdir():
            assert stat.S_IMODE(entry.stat().st_mode) & 0o177 == 0, entry
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await store.backup(tmp_path / "copies" / "backup.db")
        assert stat.S_IMODE((tmp_path / "copies" / "backup.db").stat().st_mode) & 0o177 == 0

    with_store(path, body)
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_rights_that_were_widened_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with_store(path, fill)
    path.chmod(0o644)
    with_store(path, nothing)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


MOUNTS = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
30 21 0:40 / /vagrant rw,nodev shared:7 - vboxsf vagrant rw
31 21 0:41 / /home/with\040space rw - nfs4 server:/home rw
32 21 0:42 / /mnt/sshfs rw - fuse.sshfs me@there:/ rw
33 30 0:43 / /vagrant/local rw - ext4 /dev/vdb rw
34 21 0:44 / /over rw - nfs server:/x rw
35 21 0:45 / /over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/root/.korch/state.db", "ext4"),
        ("/vagrant", "vboxsf"),
        ("/vagrant/.korch/state.db", "vboxsf"),
        ("/vagrant2/state.db", "ext4"),
        ("/vagrant/local/state.db", "ext4"),
        ("/home/with space/state.db", "nfs4"),
        ("/mnt/sshfs/a/b", "fuse.sshfs"),
        ("/over/state.db", "tmpfs"),
    ],
)
def test_file_system_of_a_path(path: str, kind: str) -> None:
    assert places.file_system_of(MOUNTS, path) == kind


def test_file_system_of_nonsense_is_unknown() -> None:
    assert places.file_system_of("", "/a") == ""
    assert places.file_system_of("garbage - \n\n1 2 3 / ", "/a") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "vboxsf", "9p", "fuse.sshfs", "virtiofs"])
def test_shared_file_systems_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(places, "file_system_of", lambda mounts, path: kind)
    with raises_store_error(f"is on {kind}, a network or shared-folder file system", "KORCH_HOME.*local disk"):
        with_store(tmp_path / "new" / "state.db", nothing)
    assert not (tmp_path / "new").exists()


def test_a_symlink_to_another_file_system_is_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(places, "file_system_of", lambda mounts, path: asked.append(path) or "ext4")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with_store(tmp_path / "link" / "state.db", nothing)
    assert asked == [str(tmp_path.resolve() / "real" / "state.db")]


def truncate_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def truncate_to_header(path: Path) -> None:
    os.truncate(path, 100)


def make_empty(path: Path) -> None:
    os.truncate(path, 0)


def make_text(path: Path) -> None:
    path.write_text("this is no database\n" * 500)


def make_other_database(path: Path) -> None:
    path.unlink()
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE t (x)")
    conn.close()


@pytest.mark.parametrize("damage", [truncate_half, truncate_to_header, make_empty, make_text, make_other_database])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "state.db"
    with_store(path, fill)
    damage(path)
    before = path.read_bytes()
    with raises_store_error(r"state\.db is damaged or not a korch state file", RESCUE):
        with_store(path, nothing)
    assert path.read_bytes() == before
    assert not (tmp_path / "state.db-wal").exists() or (tmp_path / "state.db-wal").stat().st_size == 0


def test_damage_inside_is_found_by_check(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with_store(path, fill)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 20_000)

    async def body(store: SqliteStore) -> None:
        with raises_store_error("damaged", RESCUE):
            await store.check()

    with_store(path, body)


def test_a_sound_file_passes_the_check(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        await fill(store)
        await store.check()

    with_store(tmp_path / "state.db", body)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StoreError, match=r"state\.db"):
        with_store(tmp_path / "state.db", nothing)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "clusters").write_text("")
    with raises_store_error("clusters", "KORCH_HOME"):
        with_store(tmp_path / "clusters" / "lab" / "state.db", nothing)


def test_a_missing_file_with_its_wal_left_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with_store(path, fill)
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "state.db-wal").write_bytes(b"x" * 5000)
    with raises_store_error("is missing, but state.db-wal", "Put the file back"):
        with_store(path, nothing)
    assert not path.exists()


def test_a_file_removed_while_in_use_is_noticed_at_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def body(store: SqliteStore) -> None:
        await store.put("/a", b"")
        path.rename(tmp_path / "moved")
        with raises_store_error("moved, removed or replaced while in use", "Put the file back"):
            await store.put("/b", b"")
        (tmp_path / "moved").rename(path)
        await store.put("/b", b"")

    with_store(path, body)


def test_a_half_made_file_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "state.db.new").write_bytes(b"half")
    with_store(tmp_path / "state.db", fill)
    assert not (tmp_path / "state.db.new").exists()


def as_user(path: Path, mode: str) -> subprocess.CompletedProcess[str]:
    """Open the store as a user who is not root; tells the error and its hint."""
    code = f"""
import asyncio, os, sys
from korch.errors import StoreError
from korch.store.sqlite import open_sqlite
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
async def main():
    store = await open_sqlite({str(path)!r})
    if {mode!r} == "write":
        await store.put("/x", b"")
    await store.close()
try:
    asyncio.run(main())
except StoreError as error:
    print(error, "|", error.hint)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A folder that the user nobody can reach."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        if folder.stat().st_uid == os.geteuid() and str(folder) != "/tmp":
            folder.chmod(0o755)
    return tmp_path


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@needs_root
def test_no_permission_for_the_folder(open_to_all: Path) -> None:
    closed = open_to_all / "closed"
    closed.mkdir(mode=0o700)
    done = as_user(closed / "state.db", "read")
    assert "state.db cannot be opened: no permission" in done.stdout, done.stderr
    assert "KORCH_HOME" in done.stdout


@needs_root
@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o755, 0o600), (0o777, 0o444)], ids=["folder", "file"])
def test_a_read_only_folder_or_file(open_to_all: Path, folder_mode: int, file_mode: int) -> None:
    path = open_to_all / "s" / "state.db"
    with_store(path, fill)
    path.parent.chmod(folder_mode)
    path.chmod(file_mode)
    files.lock_path(path).chmod(0o666 if file_mode == 0o444 else 0o600)
    done = as_user(path, "write")
    assert "state.db cannot be" in done.stdout, (done.stdout, done.stderr)
    assert "KORCH_HOME" in done.stdout


def test_a_full_disk_fails_the_write_that_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    """A page limit stands in for the disk: SQLite gives the same SQLITE_FULL."""

    async def body(store: SqliteStore) -> None:
        await store.put("/small", b"1")
        conn = store._writer._conn
        assert conn is not None
        (pages,) = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {pages + 20}")
        big, *small = await asyncio.gather(
            store.txn([Put("/first", b"1"), Put("/big", b"x" * 500_000)]),
            *(store.put(f"/s/{n}", b"1") for n in range(5)),
            return_exceptions=True,
        )
        assert isinstance(big, StoreError)
        assert_match("no space left on the disk; nothing was changed", str(big))
        assert_match("Free some space", big.hint)
        assert all(isinstance(result, int) for result in small)
        assert await store.get("/first") is None
        conn.execute(f"PRAGMA max_page_count = {pages + 20_000}")
        await store.put("/big", b"x" * 500_000)
        await store.check()

    with_store(tmp_path / "state.db", body)


def test_an_error_in_the_middle_of_a_commit_undoes_it_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: SqliteStore) -> None:
        before = await store.put("/a", b"1")
        with monkeypatch.context() as broken:

            def fail(conn: sqlite3.Connection, revision: int) -> None:
                conn.execute("SELECT * FROM nowhere")

            broken.setattr(sql, "set_revision", fail)
            with pytest.raises(StoreError, match="nowhere"):
                await store.put("/a", b"2")
        record = await store.get("/a")
        assert record is not None
        assert record.value == b"1"
        assert await store.put("/a", b"3") == before + 1

    with_store(tmp_path / "state.db", body)


@pytest.mark.lab
@needs_root
def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", disk], check=True)
    try:

        async def body(store: SqliteStore) -> None:
            written = 0
            with raises_store_error("no space left on the disk", "Free some space"):
                for written in range(100):
                    await store.put(f"/{written}", b"x" * 50_000)
            assert written > 3
            assert len((await store.list("/")).records) == written
            with raises_store_error("no space left on the disk", "Free some space"):
                await store.put("/another", b"x" * 50_000)
            await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=20M", disk], check=True)
            await store.put("/another", b"x" * 50_000)
            await store.check()

        with_store(disk / "state.db", body)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.lab
@needs_root
def test_a_new_cluster_on_a_full_or_read_only_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=True)
    try:
        with raises_store_error("no space left on the disk", "Free some space"):
            with_store(disk / "lab" / "state.db", nothing)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with raises_store_error("read-only", "writable"):
            with_store(disk / "other" / "state.db", nothing)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_pages_are_given_back_when_no_other_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def much_then_little(store: SqliteStore) -> None:
        for number in range(20):
            await store.put(f"/{number}", b"x" * 200_000)
        for number in range(20):
            await store.delete(f"/{number}")
        await store.compact(await store.revision())

    with_store(path, much_then_little)
    before = path.stat().st_size
    ours = files.connect(path, busy_s=0.0, write=True)
    other = files.connect(path, busy_s=0.0, write=True)
    try:
        other.execute("BEGIN IMMEDIATE")
        Upkeep.give_back(ours)
        other.execute("ROLLBACK")
        assert not ours.in_transaction
        Upkeep.give_back(ours)
        ours.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert path.stat().st_size < before
    finally:
        ours.close()
        other.close()


def test_locked_too_long_names_the_process(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with_store(path, fill)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
            "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"

        async def body(store: SqliteStore) -> None:
            with raises_store_error(rf"is locked by pid {holder.pid} \(.*python", "Wait for it to end"):
                await store.put("/a", b"")
            assert await store.get("/1") is not None
            holder.communicate()
            await store.put("/a", b"")

        with_store(path, body, busy_s=0.1)
    finally:
        holder.kill()
        holder.communicate()


LOCKS = """\
1: POSIX  ADVISORY  WRITE 100 fe:00:77 120 120
2: POSIX  ADVISORY  READ 101 fe:00:77 123 127
2: -> POSIX  ADVISORY  WRITE 102 fe:00:77 120 120
3: POSIX  ADVISORY  WRITE 103 fe:00:78 0 EOF
4: FLOCK  ADVISORY  WRITE 104 fe:00:77 0 EOF
5: POSIX  ADVISORY  WRITE -1 fe:00:77 0 EOF
6: POSIX  ADVISORY  WRITE 105 fe:00:77 0 EOF
"""


@pytest.mark.parametrize(("kind", "byte", "pids"), [("POSIX", 120, [100, 105]), ("FLOCK", 0, [104]), ("OFD", 0, [])])
def test_lock_holders_are_read_from_the_kernels_table(kind: str, byte: int, pids: list[int]) -> None:
    assert failures.lock_pids(LOCKS, 77, kind, byte) == pids


OLD = files.MIGRATIONS
NEW = (*OLD, "ALTER TABLE records ADD COLUMN note TEXT", "CREATE TABLE extra (x)")
BROKEN = (*OLD, "CREATE TABLE extra (x)", "ALTER TABLE nowhere ADD COLUMN x")


def tables(path: Path) -> tuple[int, set[str]]:
    conn = sqlite3.connect(path)
    try:
        (version,) = conn.execute("PRAGMA user_version").fetchone()
        return version, {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        conn.close()


def test_an_older_schema_is_brought_forward_with_its_data(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with_store(path, fill)
    os.close(files.open_state(path, wait_s=1, migrations=NEW))
    assert tables(path)[0] == len(NEW)
    assert "extra" in tables(path)[1]
    conn = sqlite3.connect(path)
    assert conn.execute("SELECT count(*), count(note) FROM records").fetchone() == (50, 0)
    conn.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    os.close(files.open_state(path, wait_s=1, migrations=NEW))
    with raises_store_error(f"has schema {len(NEW)}, this korch knows up to {len(OLD)}", "newer korch"):
        with_store(path, nothing)


def test_a_migration_that_fails_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with_store(path, fill)
    with pytest.raises(StoreError):
        files.open_state(path, wait_s=1, migrations=BROKEN)
    assert tables(path)[0] == len(OLD)
    assert "extra" not in tables(path)[1]

    async def body(store: SqliteStore) -> None:
        assert len((await store.list("/")).records) == 50

    with_store(path, body)


def test_no_migration_under_a_running_process(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def body(store: SqliteStore) -> None:
        with raises_store_error("is locked by", "Wait for it to end"):
            files.open_state(path, wait_s=0, migrations=NEW)
        await store.put("/a", b"")

    with_store(path, body)
    os.close(files.open_state(path, wait_s=0, migrations=NEW))


def test_many_processes_may_begin_a_cluster_at_once(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom korch.store.sqlite import open_sqlite\n"
        "async def main():\n"
        "    store = await open_sqlite(sys.argv[1])\n"
        "    await store.put('/' + sys.argv[2], b'')\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "deep" / "state.db"
    started = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(6)]
    assert [process.wait(60) for process in started] == [0] * 6

    async def body(store: SqliteStore) -> None:
        assert len((await store.list("/")).records) == 6

    with_store(path, body)


def test_a_forked_child_is_refused_and_leaves_the_parents_store_alone(tmp_path: Path) -> None:
    async def body(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        await store.put("/a", b"")
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            with raises_store_error("opened before a fork", "Open it again"):
                await store.get("/a")
            await store.close()
        assert await store.get("/a") is not None

    with_store(tmp_path / "state.db", lambda store: body(store, pytest.MonkeyPatch()))


def test_history_and_file_stay_bounded(tmp_path: Path) -> None:
    limits = Limits(revisions=600, least_revisions=200, age_s=3600)
    path = tmp_path / "state.db"

    async def main() -> None:
        store = await open_sqlite(path, limits=limits)
        try:
            sizes = []
            for _ in range(12):
                await asyncio.gather(*(store.put(f"/{n % 20}", b"x" * 4000) for n in range(500)))
                sizes.append(await store.size())
            assert all(size.revisions <= 600 + 2 * 256 for size in sizes[2:])
            assert sizes[-1].used_bytes <= sizes[3].used_bytes * 1.5
            assert len((await store.list("/")).records) == 20
            await store.check()
        finally:
            await store.close()

    asyncio.run(main())
    assert path.stat().st_size < 30_000_000


def test_short_processes_keep_it_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def main() -> None:
        for _ in range(12):
            store = await open_sqlite(path, limits=Limits(file_bytes=2_000_000, least_revisions=10))
            await asyncio.gather(*(store.put(f"/{n}", b"x" * 100_000) for n in range(10)))
            size = await store.size()
            await store.close()
        assert size.used_bytes < 9_000_000
        assert size.revisions <= 40

    asyncio.run(main())


def test_freed_space_goes_back_to_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async def body(store: SqliteStore) -> None:
        for _ in range(4):
            await asyncio.gather(*(store.put(f"/{n}", b"x" * 20_000) for n in range(300)))
        await asyncio.gather(*(store.delete(f"/{n}") for n in range(300)))
        before = await store.size()
        for _ in range(60):
            await store.compact(await store.revision())
        after = await store.size()
        assert before.used_bytes > 40_000_000
        assert after.used_bytes < 5_000_000

    with_store(path, body)
    assert path.stat().st_size < 10_000_000


def test_a_conflict_is_no_reason_to_grow(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        await store.put("/a", b"")
        before = await store.revision()
        results = await asyncio.gather(*(store.put("/a", b"", expect=99) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, KeyConflictError) for result in results)
        assert await store.revision() == before

    with_store(tmp_path / "state.db", body)
