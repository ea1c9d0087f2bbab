"""How many handshakes at once, and when again."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import HostUnreachableError
from korch.ssh.governor import HANDSHAKES_PER_SSHD, LONGEST_HOLD_S, Breaker, Governor, retry_pause_s
from korch.ssh.hostkeys import KnownHosts
from korch.ssh.login import Shared, with_retries
from korch.ssh.options import SshOptions
from tests.unit.nodes.virtual_loop import run_virtually


@given(st.integers(1, 50), st.floats(0, 1))
def test_pauses_grow_and_stay_bounded(attempt: int, dice: float) -> None:
    assert 0.1 <= retry_pause_s(attempt, dice) <= 3.0
    assert retry_pause_s(attempt, dice) <= retry_pause_s(attempt + 1, dice)


def test_the_first_failures_hold_nothing_up() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(100.0)
    assert breaker.wait_s(100.0) == 0


@given(st.integers(4, 10_000))
def test_later_failures_hold_for_a_bounded_time(failures: int) -> None:
    breaker = Breaker()
    for _ in range(failures):
        breaker.failed(100.0)
    assert 0 < breaker.wait_s(100.0) <= LONGEST_HOLD_S
    assert breaker.wait_s(100.0 + LONGEST_HOLD_S) == 0
    breaker.succeeded()
    assert breaker.wait_s(100.0) == 0


@pytest.mark.parametrize(
    ("doors", "most"), [(["a"] * 30, 3), (["a", "b"] * 20, 6), ([str(n) for n in range(40)], 5)], ids=str
)
def test_no_more_than_allowed_at_once(doors: list[str], most: int) -> None:
    governor = Governor(per_sshd=3, at_once=5)
    inside = {"now": 0, "most": 0, "logins": 0, "most_logins": 0}

    async def shake(door: str) -> None:
        async with governor.door(door):
            inside["now"] += 1
            inside["most"] = max(inside["most"], inside["now"])
            await asyncio.sleep(0)
            async with governor.login():
                inside["logins"] += 1
                inside["most_logins"] = max(inside["most_logins"], inside["logins"])
                await asyncio.sleep(0.001)
                inside["logins"] -= 1
            inside["now"] -= 1

    async def everyone() -> None:
        await asyncio.gather(*(shake(door) for door in doors))

    asyncio.run(everyone())
    assert inside["most_logins"] <= 5
    if len(set(doors)) < 10:
        assert inside["most"] <= most
    assert inside["now"] == 0


def test_dead_hosts_behind_a_proxy_do_not_keep_live_ones_waiting(tmp_path: Path) -> None:
    shared = Shared(KnownHosts(tmp_path / "known"))
    inside = {"now": 0, "most": 0}

    async def connect(number: int, *, is_alive: bool) -> float:
        options = SshOptions(f"n{number}", f"n{number}", 22, "ann", proxy_template="ssh -W %h:%p door")

        async def once() -> None:
            if not is_alive:
                await asyncio.sleep(10.0)
                raise HostUnreachableError("no answer", host=f"n{number}")
            inside["now"] += 1
            inside["most"] = max(inside["most"], inside["now"])
            await asyncio.sleep(0.3)
            inside["now"] -= 1

        await with_retries(f"n{number}", options, shared, None, 10.0, once)
        return asyncio.get_running_loop().time()

    async def everyone() -> None:
        ends = await asyncio.gather(
            *(connect(number, is_alive=number >= 20) for number in range(50)), return_exceptions=True
        )
        assert all(isinstance(end, HostUnreachableError) for end in ends[:20])
        assert max(end for end in ends[20:] if not isinstance(end, BaseException)) < 10.0  # virtual seconds
        assert inside == {"now": 0, "most": HANDSHAKES_PER_SSHD}

    try:
        run_virtually(everyone)
    finally:
        shared.close()
