import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from korch.errors import FencedError, KorchError, StoreError
from korch.store.base import Check, KeyConflictError, Op, Put
from korch.store.lease import Holder, Lead, Seen, Watchdog
from korch.store.leasefile import LeaseFile
from korch.store.sqlite import SqliteStore, open_sqlite
from tests.unit.store.virtual_time import VirtualClock, VirtualTime

TTL_S = 10.0


class World:
    """Two masters, a and b, on one store, in virtual time."""

    def __init__(self, store: SqliteStore, folder: Path) -> None:
        self.store, self.folder, self.time = store, folder, VirtualTime()
        self.clocks: dict[str, VirtualClock] = {}

    def lead(self, identity: str, lock: str | None = None) -> Lead:
        clock = self.clocks[identity] = VirtualClock(self.time)
        lock_file = self.folder / lock if lock else None
        return Lead(
            self.store, identity=identity, ttl_s=TTL_S, lock_file=lock_file, clock=clock, note={"url": identity}
        )


def in_world(folder: Path, body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await open_sqlite(folder / "state.db")
        try:
            async with asyncio.timeout(30):
                await body(World(store, folder))
        finally:
            await store.close()

    asyncio.run(main())


def test_one_holds_it_and_the_other_does_not_get_it_while_it_beats(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b")
        assert await a.acquire()
        assert (a.held, a.epoch) == (True, 1)
        waiting = asyncio.create_task(b.acquire(wait_s=100))
        await asyncio.sleep(0.01)
        await world.time.advance(90)
        assert a.held
        assert not waiting.done()
        assert not b.held
        await world.time.advance(20)
        assert await waiting is False
        await a.release()

    in_world(tmp_path, body)


def test_released_it_passes_on_at_once_with_a_higher_epoch(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b")
        assert await a.acquire()
        assert not await b.acquire()
        await a.release()
        await a.release()
        assert not a.held
        await a.wait_lost()
        assert await b.acquire()
        assert b.epoch == 2
        await b.release()
        assert await a.acquire()
        assert a.epoch == 3
        await a.release()

    in_world(tmp_path, body)


def test_a_frozen_holder_loses_it_after_its_ttl_and_knows_it_when_it_wakes(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b")
        assert await a.acquire()
        old_fence = a.fence()
        world.clocks["a"].frozen = True
        waiting = asyncio.create_task(b.acquire(wait_s=None))
        await asyncio.sleep(0.01)
        await world.time.advance(TTL_S * 0.9)
        assert not waiting.done()
        await world.time.advance(TTL_S * 0.2)
        assert await waiting
        assert b.epoch == 2
        # a wakes: before its renewal runs it must not believe that it leads, and a write begun before does not pass
        assert not a.held
        with pytest.raises(FencedError):
            a.fence()
        with pytest.raises(KeyConflictError):
            await world.store.txn([Put("/pods/x", b"from a"), old_fence])
        assert await world.store.get("/pods/x") is None
        await world.store.txn([Put("/pods/x", b"from b"), b.fence()])
        world.clocks["a"].frozen = False
        await world.time.advance(TTL_S)
        await a.wait_lost()
        assert b.held
        await b.release()

    in_world(tmp_path, body)


def test_a_whole_machine_asleep_keeps_its_leader(tmp_path: Path) -> None:
    """Rule: dead is a record unchanged for TTL while the observer was awake to see it change."""

    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b")
        assert await a.acquire()
        waiting = asyncio.create_task(b.acquire(wait_s=None))
        await asyncio.sleep(0.01)
        await world.time.advance(1)
        world.time.seconds += 3600  # boot time goes on while nobody runs
        assert not a.held
        await world.time.advance(TTL_S)  # both wake
        assert a.held
        assert not waiting.done()
        waiting.cancel()
        await a.release()

    in_world(tmp_path, body)


def test_a_holder_that_cannot_write_stops_to_hold_and_goes_on_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(world: World) -> None:
        a = world.lead("a")
        assert await a.acquire()
        real = world.store.txn

        async def full(ops: list[Op]) -> int:
            raise StoreError("no space left")

        monkeypatch.setattr(world.store, "txn", full)
        await world.time.advance(TTL_S * 1.1)
        assert not a.held
        with pytest.raises(FencedError):
            a.fence()
        monkeypatch.setattr(world.store, "txn", real)
        await world.time.advance(TTL_S / 2)
        assert (a.held, a.epoch) == (True, 1)
        await a.release()

    in_world(tmp_path, body)


def test_a_holder_that_renews_just_before_it_would_be_replaced_keeps_it(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b")
        assert await a.acquire()
        seen = await b._look()
        await world.time.advance(TTL_S / 2)
        assert await b._take_over(seen) is False
        assert a.held
        assert await b._take_over(await b._look()) is True
        await b.release()

    in_world(tmp_path, body)


def test_the_fence_stays_the_same_over_renewals(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a = world.lead("a")
        with pytest.raises(FencedError):
            a.fence()
        assert await a.acquire()
        fence = a.fence()
        for _ in range(5):
            await world.time.advance(TTL_S / 2)
            assert a.fence() == fence
            await world.store.txn([Put("/x", b""), fence])
        await a.release()
        with pytest.raises(KeyConflictError):
            await world.store.txn([Put("/x", b""), fence])

    in_world(tmp_path, body)


def test_the_epoch_can_be_raised_and_never_falls(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b")
        with pytest.raises(FencedError):
            await a.raise_epoch(3)
        assert await a.acquire()
        before = a.fence()
        assert await a.raise_epoch(40) == 40
        assert await a.raise_epoch(7) == 40
        assert a.held
        assert a.fence() != before
        await world.store.txn([Put("/x", b""), a.fence()])
        await world.time.advance(TTL_S)
        assert a.held
        await a.release()
        assert await b.acquire()
        assert b.epoch == 41
        assert await a.acquire(steal=True)
        assert a.epoch == 42
        with pytest.raises(FencedError):
            await b.raise_epoch(100)
        await a.release()

    in_world(tmp_path, body)


def test_epoch_grows_with_raises_beside_renewals(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a = world.lead("a")
        assert await a.acquire()
        for epoch in range(10, 40):
            advance = asyncio.create_task(world.time.advance(TTL_S / 3))
            assert await a.raise_epoch(epoch) == epoch
            await advance
            assert a.held
        await a.release()

    in_world(tmp_path, body)


def test_of_many_that_try_at_once_one_gets_it(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        leads = [world.lead(f"m{n}") for n in range(8)]
        won = await asyncio.gather(*(lead.acquire() for lead in leads))
        assert sum(won) == 1
        assert [lead.held for lead in leads] == won
        await asyncio.gather(*(lead.release() for lead in leads))

    in_world(tmp_path, body)


def test_a_fallen_flock_frees_it_at_once(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a", "lead.lock"), world.lead("b", "lead.lock")
        assert await a.acquire()
        world.clocks["a"].frozen = True
        assert not await b.acquire()
        assert await b.holder() == Holder("a", 1, TTL_S, {"url": "a"})
        a._file.drop()  # what the kernel does when the process dies
        assert await b.holder() is None
        assert await b.acquire()
        assert b.epoch == 2
        await b.release()

    in_world(tmp_path, body)


def test_the_flock_of_another_file_proves_nothing(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a", "lead.lock"), world.lead("b", "other.lock")
        assert await a.acquire()
        assert not await b.acquire()
        (tmp_path / "lead.lock").unlink()  # and neither does a file made again under the same name
        c = world.lead("c", "lead.lock")
        assert not await c.acquire()
        assert a.held
        await a.release()

    in_world(tmp_path, body)


def test_who_took_it_from_a_frozen_one_picks_the_flock_up_later(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b, c = (world.lead(name, "lead.lock") for name in "abc")
        assert await a.acquire()
        world.clocks["a"].frozen = True
        waiting = asyncio.create_task(b.acquire(wait_s=None))
        await asyncio.sleep(0.01)
        await world.time.advance(TTL_S * 1.1)
        assert await waiting
        assert b._file.identity == ""
        assert not await c.acquire()
        world.clocks["a"].frozen = False
        await world.time.advance(0.1)  # a learns that it lost
        assert not a.held
        await world.time.advance(0.3)  # long before the next beat is due
        assert b._file.identity != ""
        assert b.held
        b._file.drop()
        world.clocks["b"].frozen = True
        assert await c.acquire()
        await c.release()

    in_world(tmp_path, body)


def test_a_process_that_holds_it_can_ask_and_acquire_again(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a = world.lead("a", "lead.lock")
        assert await a.holder() is None
        assert await a.acquire()
        assert await a.acquire()
        assert a.epoch == 1
        holder = await a.holder()
        assert holder is not None
        assert holder.identity == "a"
        await a.release()
        assert await a.holder() is None

    in_world(tmp_path, body)


def test_a_damaged_record_is_an_error_and_not_a_free_lease(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        await world.store.put("/korch.dev/leads/master/holder", b"{")
        with pytest.raises(StoreError, match=r"/korch\.dev/leads/master/holder"):
            await world.lead("a", "lead.lock").acquire()
        await world.store.put("/korch.dev/leads/master/holder", json.dumps({"identity": "x"}).encode())
        with pytest.raises(StoreError, match="epoch"):
            await world.lead("a").acquire()
        file = LeaseFile(tmp_path / "lead.lock")
        assert file.take()  # nobody kept it
        file.drop()

    in_world(tmp_path, body)


def test_cancelled_while_waiting_it_leaves_nothing_held(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b", "b.lock")
        assert await a.acquire()
        waiting = asyncio.create_task(b.acquire(wait_s=None))
        await asyncio.sleep(0.01)
        waiting.cancel()
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
        assert b._file.identity == ""
        await a.release()

    in_world(tmp_path, body)


def test_a_lost_lead_is_noticed_by_who_waits_for_it(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a, b = world.lead("a"), world.lead("b")
        assert await a.acquire()
        lost = asyncio.create_task(a.wait_lost())
        assert await b.acquire(steal=True)
        await world.time.advance(TTL_S / 2)
        await lost
        assert not a.held
        assert isinstance(FencedError("x"), KorchError)
        await b.release()

    in_world(tmp_path, body)


def seen(beat: int, holder: int = 1) -> Seen:
    return Seen(Holder("a", 1, TTL_S), holder, beat, "")


@pytest.mark.parametrize(
    ("looks", "silent_s"),
    [
        pytest.param([(0, 1), (3, 1), (6, 1), (9, 1)], 9, id="no sign"),
        pytest.param([(0, 1), (4, 1), (8, 2), (9, 2)], 1, id="a beat"),
        pytest.param([(0, 1), (4, 1), (9.5, 1), (10, 1)], 0.5, id="the observer slept"),
        pytest.param([(0, 1)], 0, id="first look"),
    ],
)
def test_watchdog_counts_from_the_last_sign_of_life(looks: list[tuple[float, int]], silent_s: float) -> None:
    dog = Watchdog()
    assert [dog.silent_s(seen(beat), 1e6 + now) for now, beat in looks][-1] == pytest.approx(silent_s)


def test_a_fence_is_a_check_of_the_holder_key(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        a = world.lead("a")
        assert await a.acquire()
        record = await world.store.get("/korch.dev/leads/master/holder")
        assert record is not None
        assert a.fence() == Check(record.key, record.revision)
        await a.release()

    in_world(tmp_path, body)


def test_lease_files_exclude_each_other_and_vanish_with_their_name(tmp_path: Path) -> None:
    one, two = LeaseFile(tmp_path / "l"), LeaseFile(tmp_path / "l")
    assert one.take()
    assert one.take()
    assert not two.take()
    one.drop()
    one.drop()
    assert one.identity == ""
    assert two.take()
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
    two.drop()
    assert not LeaseFile(None).take()
    assert not LeaseFile(Path("/proc/nowhere/l")).take()
