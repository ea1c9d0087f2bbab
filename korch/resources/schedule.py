"""Cron schedules: five fields, or a word such as `@daily`, in a time zone. Reads the time zone's file, nothing else."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from korch.errors import InvalidError

_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST = 256
_PAST = datetime(1970, 1, 2, tzinfo=UTC)


def schedule_problem(schedule: str) -> str:
    """Why this is no schedule, or ""."""
    try:
        CronSim(_fields(schedule), _PAST)
    except (CronSimError, ValueError) as error:
        return f'"{schedule[:80]}" is not a schedule ({str(error).lower()}): minute hour day month weekday'
    return ""


def time_zone_problem(name: str) -> str:
    """Why this is no time zone, or ""."""
    try:
        _zone(name)
    except InvalidError as error:
        return str(error)
    return ""


def next_time(schedule: str, time_zone: str | None, after: float) -> float | None:
    """The first time after `after`, both in Unix seconds; None when there is none within decades."""
    return _step(schedule, time_zone, after, reverse=False)


def last_time(schedule: str, time_zone: str | None, until: float) -> float | None:
    """The latest time that is not after `until`."""
    return _step(schedule, time_zone, until + 1, reverse=True)


def _step(schedule: str, time_zone: str | None, at: float, *, reverse: bool) -> float | None:
    begin = (datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(at))).astimezone(_zone(time_zone))
    try:
        return next(CronSim(_fields(schedule), begin, reverse=reverse)).timestamp()
    except (StopIteration, OverflowError):
        return None


def _fields(schedule: str) -> str:
    text = _WORDS.get(schedule.strip(), schedule)
    words = ["*" if word == "?" else word for word in text.split()]
    if len(words) != 5 or len(schedule) > _LONGEST or not schedule.isascii():
        raise CronSimError("five fields are needed")
    return " ".join(words)


@lru_cache(maxsize=64)
def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, LookupError) as error:
        raise InvalidError(f'"{name}" is not a time zone such as Europe/Berlin') from error
