"""The queue under the reconcilers: merging, one worker a key, failures by kind."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from korch.errors import (
    CommandFailedError,
    ConflictError,
    FencedError,
    HostUnreachableError,
    InvalidError,
)
from korch.master.background import background
from korch.workqueue import WorkQueue, retry_after_s
from tests.unit.nodes.virtual_loop import run_virtually


def with_queue(
    reconcile: Callable[[str], Awaitable[float | None]], body: Callable[[WorkQueue[str]], Awaitable[None]]
) -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue("test", reconcile)
        async with background() as group:
            group.create_task(queue.run(workers=3))
            await body(queue)

    run_virtually(main)


class Calls:
    """Notes its calls; `takes` seconds each; raises the errors that are queued for it."""

    def __init__(self, *errors: Exception, takes: float = 0.0, again_s: float | None = None) -> None:
        self.errors, self.takes, self.again_s = list(errors), takes, again_s
        self.at: list[tuple[float, str]] = []
        self.inside: set[str] = set()

    async def __call__(self, key: str) -> float | None:
        assert key not in self.inside, "never with two workers"
        self.at.append((asyncio.get_running_loop().time(), key))
        self.inside.add(key)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.inside.discard(key)
        if self.errors:
            raise self.errors.pop(0)
        return self.again_s


def test_repeats_merge_and_what_comes_during_work_is_done_once_more() -> None:
    calls = Calls(takes=1.0)

    async def body(queue: WorkQueue[str]) -> None:
        for _ in range(5):
            queue.add("a")
        await asyncio.sleep(0.5)
        for _ in range(5):
            queue.add("a")
        await asyncio.sleep(5)
        assert [key for _, key in calls.at] == ["a", "a"]
        assert queue.idle

    with_queue(calls, body)


def test_one_key_that_takes_long_holds_up_no_other() -> None:
    calls = Calls(takes=100.0)

    async def body(queue: WorkQueue[str]) -> None:
        queue.add("slow")
        await asyncio.sleep(1)
        queue.add("other")
        await asyncio.sleep(1)
        assert [key for _, key in calls.at] == ["slow", "other"]
        assert not queue.idle

    with_queue(calls, body)


@pytest.mark.parametrize(
    ("error", "first_s", "most_s"),
    [
        pytest.param(ConflictError("changed"), 0.02, 300.0, id="a conflict: at once"),
        pytest.param(HostUnreachableError("away", host="n1"), 0.5, 15.0, id="transient: soon"),
        pytest.param(CommandFailedError("no", host="n1"), 1.0, 300.0, id="others: with back-off"),
        pytest.param(RuntimeError("a bug"), 10.0, 300.0, id="a bug: slowly"),
    ],
)
def test_failures_come_back_by_kind(error: Exception, first_s: float, most_s: float) -> None:
    delays = [retry_after_s(error, failures) for failures in range(1, 40)]
    assert delays[0] == first_s
    assert delays == sorted(delays)
    assert max(delays) <= most_s


def test_a_failure_is_tried_again_and_a_success_forgets_it() -> None:
    calls = Calls(*(CommandFailedError("no", host="n1") for _ in range(4)))

    async def body(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(60)
        gaps = [later[0] - sooner[0] for sooner, later in zip(calls.at, calls.at[1:], strict=False)]
        assert len(gaps) == 4
        for gap, expected in zip(gaps, (1, 2, 4, 8), strict=True):
            assert 0.8 * expected <= gap <= 1.2 * expected + 0.1
        assert queue._failures == {}
        assert queue._timers == {}

    with_queue(calls, body)


def test_invalid_input_waits_for_a_change() -> None:
    calls = Calls(InvalidError("wrong"))

    async def body(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(1000)
        assert len(calls.at) == 1
        queue.add("a")
        await asyncio.sleep(1)
        assert len(calls.at) == 2

    with_queue(calls, body)


def test_a_change_does_not_wait_for_the_back_off_and_no_timer_stays() -> None:
    calls = Calls(RuntimeError("a bug"))

    async def body(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("a")
        await asyncio.sleep(100)
        assert len(calls.at) == 2

    with_queue(calls, body)


def test_the_earliest_time_holds() -> None:
    calls = Calls()

    async def body(queue: WorkQueue[str]) -> None:
        queue.add_later("a", 10)
        queue.add_later("a", 3)
        queue.add_later("a", 20)
        assert queue.idle
        await asyncio.sleep(60)
        assert calls.at == [(3.0, "a")]

    with_queue(calls, body)


def test_a_look_again_is_one_timer() -> None:
    calls = Calls(again_s=2.0)

    async def body(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(9)
        assert [round(when) for when, _ in calls.at] == [0, 2, 4, 6, 8]

    with_queue(calls, body)


def test_when_another_leads_all_of_it_ends() -> None:
    calls = Calls(FencedError("another leads"))

    async def body(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(10)

    with pytest.raises(FencedError):
        with_queue(calls, body)


def test_whoever_steps_aside_is_replaced_for_so_long() -> None:
    busy = most = 0

    async def reconcile(key: str) -> None:
        nonlocal busy, most
        if key.startswith("slow"):
            with queues[0].aside():
                await asyncio.sleep(100)
            return
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(1)
        busy -= 1

    queues: list[WorkQueue[str]] = []

    async def body(queue: WorkQueue[str]) -> None:
        nonlocal most
        queues.append(queue)
        for turn in range(3):
            for number in range(20):
                queue.add(f"slow-{number}")
            await asyncio.sleep(1)
            for number in range(9):
                queue.add(f"quick-{number}")
            await asyncio.sleep(3.5)
            assert (most, busy) == (3, 0), "three work on, beside all that wait"
            await asyncio.sleep(100)
            assert queue.idle, turn
        most = 0
        for number in range(30):
            queue.add(f"quick-{number}")
        await asyncio.sleep(30)
        for number in range(30):
            queue.add(f"quick-{number}")
        most = 0
        await asyncio.sleep(11)
        assert (most, queue.idle) == (3, True), "and no more of them are left over"

    with_queue(reconcile, body)
