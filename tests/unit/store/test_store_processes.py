"""Several processes on one state file: nothing lost, nothing doubled, whoever dies whenever."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from korch.store.base import Store
from korch.store.lease import Lead
from korch.store.sqlite import SqliteStore, open_sqlite

ROOT = Path(__file__).parents[3]
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts `store_worker` processes, and ends them with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: object) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "tests.unit.store.store_worker", *map(str, words)]
        processes.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_counting_processes_lose_no_update_and_a_watcher_sees_every_revision(tmp_path: Path, spawn: Spawn) -> None:
    path, counters, times, workers = tmp_path / "state.db", 5, 40, 4
    total = counters * times * workers

    async def main() -> None:
        store = await open_sqlite(path)
        try:
            start = await store.revision()
            async with asyncio.timeout(120), store.watch("/count/", after=start) as changes:
                processes = [spawn("count", path, counters, times) for _ in range(workers)]
                seen = {f"/count/{n}": 0 for n in range(counters)}
                for step in range(1, total + 1):
                    event = await changes.__anext__()
                    assert event.revision == start + step
                    assert event.record is not None
                    assert int(event.record.value) == seen[event.key] + 1
                    assert (int(event.previous.value) if event.previous else 0) == seen[event.key]
                    seen[event.key] += 1
                assert seen == dict.fromkeys(seen, times * workers)
                await until(lambda: all(process.poll() == 0 for process in processes))
            assert await store.revision() == start + total
        finally:
            await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(4))
def test_after_kill_9_all_that_was_acknowledged_is_there_and_nothing_by_half(
    tmp_path: Path, spawn: Spawn, seed: int
) -> None:
    path = tmp_path / "state.db"
    names = ["a", "b"]
    processes = {name: spawn("write", path, name) for name in names}
    said: dict[str, list[str]] = {name: [line(process)] for name, process in processes.items()}
    time.sleep(random.Random(seed).uniform(0, 0.3))
    for process in processes.values():
        process.kill()
    for name, process in processes.items():
        said[name] += process.communicate()[0].split()

    async def main() -> None:
        store = await open_sqlite(path)
        try:
            await store.check()
            left = {record.key.removeprefix("/left/") for record in (await store.list("/left/")).records}
            right = {record.key.removeprefix("/right/") for record in (await store.list("/right/")).records}
            assert left == right
            assert left >= {f"{name}/{number}" for name in names for number in said[name]}
            assert await store.revision() == len(left)
            await store.put("/life", b"goes on")
        finally:
            await store.close()

    asyncio.run(main())


def with_store(path: Path, body: Callable[[SqliteStore], object]) -> None:
    async def main() -> None:
        store = await open_sqlite(path)
        try:
            async with asyncio.timeout(60):
                await body(store)  # type: ignore[misc]
        finally:
            await store.close()

    asyncio.run(main())


async def under(store: Store, epoch: int) -> bytes | None:
    record = await store.get(f"/under/{epoch}")
    return record.value if record else None


def test_kill_9_of_the_holder_frees_the_lead_at_once_by_the_flock(tmp_path: Path, spawn: Spawn) -> None:
    path, lock = tmp_path / "state.db", tmp_path / "lead.lock"
    holder = spawn("lead", path, 3600, lock)
    assert line(holder) == "acquired True epoch 1"

    async def body(store: SqliteStore) -> None:
        mine = Lead(store, ttl_s=3600, lock_file=lock)
        assert not await mine.acquire()
        found = await mine.holder()
        assert found is not None
        assert found.identity == f"pid {holder.pid}"
        holder.kill()
        await asyncio.to_thread(holder.wait)
        assert await mine.holder() is None
        assert await mine.acquire()  # no waiting, though its TTL is an hour
        assert mine.epoch == 2
        await mine.release()

    with_store(path, body)


def test_a_stopped_holder_is_replaced_after_its_ttl_and_refused_when_it_goes_on(tmp_path: Path, spawn: Spawn) -> None:
    path, lock = tmp_path / "state.db", tmp_path / "lead.lock"
    holder = spawn("lead", path, 3, lock)
    assert line(holder) == "acquired True epoch 1"

    async def body(store: SqliteStore) -> None:
        mine = Lead(store, ttl_s=3, lock_file=lock)
        await written_under(store, 1)
        await stop_outside_a_write(store, holder.pid)
        stood_at = await under(store, 1)
        assert not await mine.acquire(wait_s=0)  # it holds the flock still
        assert await mine.acquire(wait_s=None, poll_s=0.05)
        assert mine.epoch == 2
        os.kill(holder.pid, signal.SIGCONT)
        refused = await asyncio.to_thread(line, holder)
        # Either it saw by its own clock that its time is over, or the store refused what it had begun before.
        assert refused in {"refused: held False, FencedError", "refused: held True, KeyConflictError"}
        assert await asyncio.to_thread(line, holder) == "lost, held False"
        assert await under(store, 1) == stood_at
        assert mine.held
        await mine.release()

    with_store(path, body)


async def written_under(store: Store, epoch: int) -> None:
    """Return when the leader of that epoch has written something."""
    async with store.watch("/under/", after=0) as changes:
        while (await changes.__anext__()).key != f"/under/{epoch}":
            pass


async def flock_recorded(store: Store) -> None:
    """Return when the holder's record says that it has the flock: of several that begin at once it may come later."""
    while not json.loads((await store.list("/korch.dev/leads/master/beat")).records[0].value)["lock"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def stop_outside_a_write(store: SqliteStore, pid: int) -> None:
    """SIGSTOP a process, but not while it has the write lock of SQLite, which would stop us too."""
    store._writer._busy_s = 0.2
    while True:
        os.kill(pid, signal.SIGSTOP)
        try:
            await store.put("/probe", b"")
        except Exception:
            os.kill(pid, signal.SIGCONT)
        else:
            store._writer._busy_s = 10
            return


def test_one_of_many_processes_leads_at_a_time(tmp_path: Path, spawn: Spawn) -> None:
    path, lock = tmp_path / "state.db", tmp_path / "lead.lock"
    waiting = [spawn("lead", path, 3600, lock) for _ in range(4)]

    async def body(store: SqliteStore) -> None:
        for epoch in range(1, 5):
            await written_under(store, epoch)
            found = await Lead(store, lock_file=lock).holder()
            assert found is not None
            assert found.epoch == epoch
            await flock_recorded(store)
            leader = next(process for process in waiting if found.identity == f"pid {process.pid}")
            assert await asyncio.to_thread(line, leader) == f"acquired True epoch {epoch}"
            leader.kill()
            await asyncio.to_thread(leader.wait)
            waiting.remove(leader)

    with_store(path, body)
