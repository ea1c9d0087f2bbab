from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.resources.schedule import last_time, next_time, schedule_problem, time_zone_problem


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "wanted"),
    [
        ("*/5 * * * *", None, "2026-03-01T10:01:30", "2026-03-01T10:05:00"),
        ("*/5 * * * *", None, "2026-03-01T10:05:00", "2026-03-01T10:10:00"),
        ("@daily", None, "2026-03-01T10:00:00", "2026-03-02T00:00:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-01-01T10:00:00", "2026-01-02T01:30:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-07-01T10:00:00", "2026-07-02T00:30:00"),
        ("0 9 ? * MON", None, "2026-11-23T09:00:00", "2026-11-30T09:00:00"),
    ],
)
def test_the_next_time(schedule, zone, after, wanted):
    assert next_time(schedule, zone, at(after)) == at(wanted)


def test_a_time_that_the_clock_leaps_over_comes_once():
    first = next_time("30 2 * * *", "Europe/Berlin", at("2026-03-28T12:00:00"))  # 02:30 does not exist on the 29th
    assert first is not None
    second = next_time("30 2 * * *", "Europe/Berlin", first)
    assert second is not None
    assert first < at("2026-03-29T12:00:00") < second < at("2026-03-30T12:00:00")


@pytest.mark.parametrize(
    "schedule", ["", "* * * * * *", "60 * * * *", "a b c d e", "@every 5m", "*/0 * * * *", "0 0 31 2 *", "٣ * * * *"]
)
def test_no_schedules(schedule):
    assert schedule_problem(schedule)


@given(st.text(max_size=20))
def test_any_text_is_a_schedule_or_is_not(text):
    assert isinstance(schedule_problem(text), str)
    assert isinstance(time_zone_problem(text), str)


@given(
    st.sampled_from(["* * * * *", "*/7 3-5 * * *", "0 0 1 * *", "15 */6 * * 1,3"]),
    st.sampled_from([None, "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
    st.integers(1_700_000_000, 1_900_000_000),
)
def test_the_last_time_is_the_one_before_the_next(schedule, zone, now):
    last, after = last_time(schedule, zone, now), next_time(schedule, zone, now)
    assert last is not None
    assert after is not None
    assert last <= now < after
    assert last_time(schedule, zone, last) == last
