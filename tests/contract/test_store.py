"""What every store promises (korch/store/base.py). A new store joins by one more entry in `STORES`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from korch.errors import ConflictError, ExpiredError, InvalidError, StoreError
from korch.store.base import (
    MAX_TXN_BYTES,
    MAX_TXN_OPS,
    Check,
    Delete,
    Event,
    KeyConflictError,
    Put,
    Record,
    Store,
)
from korch.store.keyring import Keyring
from korch.store.sealed import SealedStore
from korch.store.sqlite import open_sqlite

OpenStore = Callable[[], Awaitable[Store]]


def sqlite_opener(folder: Path) -> OpenStore:
    return lambda: open_sqlite(folder / "state.db")


def sealed_opener(folder: Path) -> OpenStore:
    """Most values sealed, which makes them 44 bytes longer: not the biggest ones."""

    async def open_sealed() -> Store:
        keyring = Keyring(folder / "secrets.key")
        return SealedStore(await open_sqlite(folder / "state.db"), keyring, ("/a", "/d", "/k", "/p"))

    return open_sealed


STORES: dict[str, Callable[[Path], OpenStore]] = {"sqlite": sqlite_opener, "sealed": sealed_opener}


@pytest.fixture(params=sorted(STORES))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens one and the same store as often as it is called, as several processes would."""
    return STORES[request.param](tmp_path)


@asynccontextmanager
async def opened(open_store: OpenStore) -> AsyncIterator[Store]:
    store = await open_store()
    try:
        yield store
    finally:
        await store.close()


def with_store(open_store: OpenStore, body: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(open_store) as store, asyncio.timeout(30):
            await body(store)

    asyncio.run(main())


async def take(changes: AsyncIterator[Event], count: int) -> list[Event]:
    return [await anext(changes) for _ in range(count)]


def test_an_empty_store_is_at_some_revision_with_nothing_in_it(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        listing = await store.list("")
        assert listing.records == ()
        assert listing.revision == await store.revision()
        assert await store.get("/a") is None

    with_store(open_store, body)


def test_put_gives_a_growing_revision_and_get_reads_it_back(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/b", b"")
        third = await store.put("/a", b"\0\xff")
        assert first < second < third == await store.revision()
        assert await store.get("/a") == Record("/a", b"\0\xff", third, first)
        assert await store.get("/b") == Record("/b", b"", second, second)

    with_store(open_store, body)


def test_a_key_made_again_after_removal_is_a_new_one(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        await store.put("/a", b"1")
        removed = await store.delete("/a")
        assert await store.get("/a") is None
        again = await store.put("/a", b"2")
        assert again > removed
        assert await store.get("/a") == Record("/a", b"2", again, again)

    with_store(open_store, body)


@pytest.mark.parametrize("keys", [("/p/a", "/p/b", "/p/é", "/p/\U0001f600", "/q/a", "/p", "/p0")], ids=["mixed"])
def test_list_gives_the_prefix_in_key_order(open_store: OpenStore, keys: tuple[str, ...]) -> None:
    async def body(store: Store) -> None:
        for key in reversed(keys):
            await store.put(key, key.encode())
        for prefix in ("", "/", "/p", "/p/", "/p/\U0001f600", "/nothing"):
            listing = await store.list(prefix)
            assert [record.key for record in listing.records] == sorted(k for k in keys if k.startswith(prefix))
            assert listing.revision == await store.revision()
            assert not listing.more

    with_store(open_store, body)


def test_list_in_pages(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        for number in range(5):
            await store.put(f"/p/{number}", b"")
        first = await store.list("/p/", limit=2)
        assert ([r.key for r in first.records], first.more) == (["/p/0", "/p/1"], True)
        second = await store.list("/p/", after="/p/1", limit=3)
        assert ([r.key for r in second.records], second.more) == (["/p/2", "/p/3", "/p/4"], False)
        assert (await store.list("/p/", after="/p/4")).records == ()

    with_store(open_store, body)


def test_expect_compares_and_a_conflict_changes_nothing(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        first = await store.put("/a", b"1", expect=0)
        for attempt in (
            store.put("/a", b"x", expect=0),
            store.put("/a", b"x", expect=first + 1),
            store.put("/b", b"x", expect=first),
            store.delete("/a", expect=first + 1),
            store.delete("/b", expect=first),
        ):
            with pytest.raises(ConflictError, match=r"/[ab]") as caught:
                await attempt
            assert isinstance(caught.value, KeyConflictError)
        assert await store.revision() == first
        second = await store.put("/a", b"2", expect=first)
        await store.delete("/a", expect=second)
        assert (await store.list("")).records == ()

    with_store(open_store, body)


def test_a_conflict_tells_key_and_revisions(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        first = await store.put("/a", b"1")
        with pytest.raises(KeyConflictError) as caught:
            await store.txn([Put("/b", b""), Check("/a", 0)])
        assert (caught.value.key, caught.value.expected, caught.value.actual) == ("/a", 0, first)

    with_store(open_store, body)


def test_removing_what_is_not_there_does_nothing(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        before = await store.put("/a", b"1")
        assert await store.delete("/b") == before
        assert await store.delete("/b", expect=0) == before
        assert await store.txn([]) == before
        assert await store.txn([Check("/a", before), Delete("/c")]) == before
        with pytest.raises(KeyConflictError):
            await store.delete("/a", expect=0)
        assert await store.revision() == before

    with_store(open_store, body)


def test_a_transaction_happens_at_one_revision_or_not_at_all(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        first = await store.put("/old", b"1")
        ops = [Put("/a", b"a", 0), Put("/b", b"b", 0), Delete("/old", first), Check("/c", 0)]
        revision = await store.txn(ops)
        assert (await store.list("")).records == (
            Record("/a", b"a", revision, revision),
            Record("/b", b"b", revision, revision),
        )
        for ops in ([Put("/a", b"x"), Put("/n", b"x", 7)], [Delete("/a"), Put("/b", b"x"), Check("/b", revision + 1)]):
            with pytest.raises(KeyConflictError):
                await store.txn(ops)
        assert (await store.list("")).records[0].value == b"a"
        assert await store.revision() == revision

    with_store(open_store, body)


def test_expectations_of_a_transaction_look_at_what_stood_before_it(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.txn([Put("/a", b"2"), Check("/a", first)])
        assert await store.get("/a") == Record("/a", b"2", second, first)

    with_store(open_store, body)


@pytest.mark.parametrize(
    "ops",
    [
        pytest.param([Put("", b"")], id="empty key"),
        pytest.param([Put("/a\0b", b"")], id="NUL"),
        pytest.param([Put("/\ud800", b"")], id="half a character"),
        pytest.param([Put("/" + "k" * 2000, b"")], id="long key"),
        pytest.param([Put("/a", b"1"), Put("/a", b"2")], id="written twice"),
        pytest.param([Put("/a", b"1"), Delete("/a")], id="written and removed"),
        pytest.param([Put("/a", b"x" * (MAX_TXN_BYTES + 1))], id="too big"),
        pytest.param([Put(f"/{n}", b"") for n in range(MAX_TXN_OPS + 1)], id="too many"),
    ],
)
def test_impossible_transactions_are_refused_before_anything_happens(open_store: OpenStore, ops: list[Put]) -> None:
    async def body(store: Store) -> None:
        before = await store.revision()
        with pytest.raises(InvalidError):
            await store.txn(ops)
        assert await store.revision() == before

    with_store(open_store, body)


def test_the_biggest_transaction_fits(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        await store.put("/big", b"x" * (MAX_TXN_BYTES - 4))
        await store.txn([Put(f"/{n}", b"") for n in range(MAX_TXN_OPS)])
        assert len((await store.list("")).records) == MAX_TXN_OPS + 1

    with_store(open_store, body)


def test_watch_tells_each_change_with_value_before_and_after(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()
        r1 = await store.put("/p/a", b"1")
        async with store.watch("/p/", after=start) as changes:
            r2 = await store.put("/p/a", b"2")
            await store.put("/q", b"elsewhere")
            r3 = await store.delete("/p/a")
            one, two = Record("/p/a", b"1", r1, r1), Record("/p/a", b"2", r2, r1)
            assert await take(changes, 3) == [
                Event("/p/a", r1, one, None),
                Event("/p/a", r2, two, one),
                Event("/p/a", r3, None, two),
            ]

    with_store(open_store, body)


def test_watch_starts_exactly_after_the_revision_of_a_list(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        for number in range(10):
            await store.put(f"/p/{number}", b"")
        listing = await store.list("/p/")
        new = await store.put("/p/new", b"")
        async with store.watch("/p/", after=listing.revision) as changes:
            assert [(e.key, e.revision) for e in await take(changes, 1)] == [("/p/new", new)]

    with_store(open_store, body)


def test_events_of_one_transaction_share_its_revision(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()
        async with store.watch("/", after=start) as changes:
            revision = await store.txn([Put("/b", b""), Put("/a", b"")])
            next_one = await store.put("/c", b"")
            events = await take(changes, 3)
        assert {e.key for e in events[:2]} == {"/a", "/b"}
        assert [e.revision for e in events] == [revision, revision, next_one]

    with_store(open_store, body)


def test_the_revision_of_a_watch_never_runs_ahead_of_what_was_handed_out(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()
        async with store.watch("/p/", after=start) as changes:
            assert changes.revision == start
            both = await store.txn([Put("/p/a", b""), Put("/p/b", b"")])
            await anext(changes)
            assert changes.revision < both
            await anext(changes)
            assert changes.revision >= both

    with_store(open_store, body)


def test_many_watchers_on_many_prefixes(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()

        async def follow(prefix: str) -> list[str]:
            async with store.watch(prefix, after=start) as changes:
                return [event.key for event in await take(changes, 20)]

        prefixes = [f"/{n}/" for n in range(8)]
        followers = [asyncio.create_task(follow(prefix)) for prefix in prefixes]
        await asyncio.gather(*(store.put(f"/{n % 8}/{n:03}", b"") for n in range(160)))
        for prefix, keys in zip(prefixes, await asyncio.gather(*followers), strict=True):
            assert sorted(keys) == [f"{prefix}{n:03}" for n in range(160) if f"/{n % 8}/" == prefix]

    with_store(open_store, body)


def test_a_slow_watcher_misses_nothing(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()
        async with store.watch("/", after=start) as changes:
            await store.put("/first", b"")
            await anext(changes)
            for _ in range(30):
                await asyncio.gather(*(store.put(f"/{n}", b"x") for n in range(100)))
            revisions = [event.revision for event in await take(changes, 3000)]
        assert revisions == list(range(start + 2, start + 3002))

    with_store(open_store, body)


def test_another_opener_sees_writes_and_changes(open_store: OpenStore) -> None:
    async def body(mine: Store) -> None:
        async with opened(open_store) as theirs:
            start = await theirs.revision()
            async with theirs.watch("/", after=start) as changes:
                revision = await mine.put("/a", b"1")
                assert await theirs.get("/a") == Record("/a", b"1", revision, revision)
                assert [e.revision for e in await take(changes, 1)] == [revision]
                with pytest.raises(KeyConflictError):
                    await theirs.put("/a", b"2", expect=0)
                await theirs.put("/a", b"2", expect=revision)
            assert (await mine.list("/")).records[0].value == b"2"

    with_store(open_store, body)


def test_what_stands_survives_closing(open_store: OpenStore) -> None:
    async def write(store: Store) -> None:
        await store.put("/a", b"1")
        await store.put("/b", b"1")
        await store.delete("/a")

    async def read(store: Store) -> None:
        assert [record.key for record in (await store.list("")).records] == ["/b"]
        async with store.watch("", after=await store.revision() - 3) as changes:
            assert [event.key for event in await take(changes, 3)] == ["/a", "/b", "/a"]

    with_store(open_store, write)
    with_store(open_store, read)


def test_compaction_forgets_history_and_keeps_what_stands(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()
        revisions = [await store.put(f"/{n}", b"") for n in range(5)]
        await store.compact(revisions[2])
        assert len((await store.list("")).records) == 5
        async with store.watch("/", after=start) as changes:
            with pytest.raises(ExpiredError):
                await anext(changes)
        async with store.watch("/", after=revisions[1]) as changes:
            with pytest.raises(ExpiredError):
                await anext(changes)
        async with store.watch("/", after=revisions[2]) as changes:
            assert [event.revision for event in await take(changes, 2)] == revisions[3:]
        assert await store.revision() == revisions[-1]

    with_store(open_store, body)


def test_compacting_twice_or_backwards_changes_nothing(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        revisions = [await store.put(f"/{n}", b"") for n in range(4)]
        await store.compact(revisions[2])
        await store.compact(revisions[2])
        await store.compact(revisions[0])
        async with store.watch("/", after=revisions[2]) as changes:
            assert (await anext(changes)).revision == revisions[3]

    with_store(open_store, body)


def test_a_watcher_that_has_read_everything_does_not_mind_compaction(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        first = await store.put("/a", b"")
        async with store.watch("/", after=first - 1) as changes:
            await anext(changes)
            await store.compact(first)
            second = await store.put("/a", b"")
            assert (await anext(changes)).revision == second

    with_store(open_store, body)


def test_counters_incremented_at_once_lose_nothing(open_store: OpenStore) -> None:
    async def increment(store: Store) -> None:
        while True:
            record = await store.get("/n")
            value, revision = (int(record.value), record.revision) if record else (0, 0)
            try:
                await store.put("/n", b"%d" % (value + 1), expect=revision)
            except KeyConflictError:
                continue
            return

    async def body(mine: Store) -> None:
        async with opened(open_store) as theirs:
            await asyncio.gather(*(increment(store) for store in (mine, theirs) for _ in range(25)))
            record = await mine.get("/n")
            assert record is not None
            assert record.value == b"50"

    with_store(open_store, body)


def test_a_cancelled_write_happened_whole_or_not_at_all(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()
        tasks = [asyncio.create_task(store.txn([Put(f"/a/{n}", b""), Put(f"/b/{n}", b"")])) for n in range(100)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await store.put("/end", b"")
        a = {record.key.removeprefix("/a/") for record in (await store.list("/a/")).records}
        b = {record.key.removeprefix("/b/") for record in (await store.list("/b/")).records}
        assert a == b
        assert a >= {str(n) for n, result in enumerate(results) if isinstance(result, int)}
        assert all(isinstance(result, int) for result in results[1::2])
        async with store.watch("/", after=start) as changes:
            assert len(await take(changes, 2 * len(a) + 1)) == 2 * len(a) + 1

    with_store(open_store, body)


def test_a_cancelled_step_of_a_watch_loses_no_event(open_store: OpenStore) -> None:
    async def body(store: Store) -> None:
        start = await store.revision()
        seen: list[int] = []
        async with store.watch("/", after=start) as changes:
            for number in range(20):
                step = asyncio.create_task(anext(changes))  # type: ignore[arg-type]
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                await store.put("/a", b"")
                if not step.cancel():
                    seen.append(step.result().revision)
                else:
                    seen += [
                        e.revision for e in await asyncio.gather(step, return_exceptions=True) if isinstance(e, Event)
                    ]
            seen += [event.revision for event in await take(changes, 20 - len(seen))]
        assert seen == list(range(start + 1, start + 21))

    with_store(open_store, body)


def test_closing_finishes_what_was_asked_and_refuses_the_rest(open_store: OpenStore) -> None:
    async def main() -> None:
        store = await open_store()
        writes = [asyncio.create_task(store.put(f"/{n}", b"")) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.gather(store.close(), store.close())
        assert all(isinstance(result, int) for result in await asyncio.gather(*writes))
        await store.close()
        with pytest.raises(StoreError):
            await store.put("/late", b"")
        with pytest.raises(StoreError):
            await store.get("/0")
        async with opened(open_store) as again:
            assert len((await again.list("/")).records) == 50

    asyncio.run(main())


def test_closing_ends_a_waiting_watch(open_store: OpenStore) -> None:
    async def main() -> None:
        store = await open_store()
        async with asyncio.timeout(30), store.watch("/mine", after=await store.revision()) as changes:
            step = asyncio.create_task(anext(changes))  # type: ignore[arg-type]
            await store.put("/other", b"")
            await store.close()
            with pytest.raises(StoreError):
                await step
            with pytest.raises(StoreError):
                await anext(changes)

    asyncio.run(main())
