"""How restarts are spaced: at once for three, then with growing pauses, until one of them has lasted."""

from hypothesis import given, settings
from hypothesis import strategies as st

from korch.nodes.memory import FORGIVEN_AFTER_S, Memory


def restarted(memory: Memory, number: int, now: float) -> tuple[float, float]:
    """(pause, when it was started) for a run that ended now; the keeper asks a few times."""
    began, run = now, ("id", float(number))
    for _ in range(1000):
        wait_s = memory.too_early_s(run, now)
        if wait_s <= 0:
            return now - began, now
        now += min(wait_s, 7.0)
    raise AssertionError("it is never started again")


def pauses(lasts_s: list[float]) -> list[float]:
    memory, now, found = Memory(), 0.0, []
    for number, lasted_s in enumerate(lasts_s):
        pause_s, now = restarted(memory, number, now)
        found.append(round(pause_s, 3))
        now += lasted_s
    return found


def test_pauses_double_up_to_five_minutes_however_long_a_short_run_is() -> None:
    for lasts_s in (0.1, 11.0, 290.0, 590.0):
        assert pauses([lasts_s] * 11) == [0, 0, 0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_run_that_lasts_makes_the_next_restart_immediate() -> None:
    assert pauses([1.0] * 7 + [FORGIVEN_AFTER_S, 1.0, 1.0, 1.0, 1.0])[7:] == [160, 0, 0, 0, 10]


def test_a_start_that_failed_is_no_other_restart() -> None:
    memory = Memory()
    for _ in range(20):
        assert memory.too_early_s(("id", 1.0), 5.0) == 0.0
    assert memory.restarts == 1


@given(lasts_s=st.lists(st.floats(0.0, 2000.0), max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_pause_is_longer_than_five_minutes_and_none_shrinks_without_a_good_run(lasts_s: list[float]) -> None:
    found = pauses(lasts_s)
    assert all(0.0 <= pause_s <= 300.001 for pause_s in found)
    for before, after, lasted_s in zip(found, found[1:], lasts_s, strict=False):
        assert after >= before - 0.001 or lasted_s >= FORGIVEN_AFTER_S
