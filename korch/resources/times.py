"""Times as objects hold them, RFC 3339 text in UTC, from and to Unix seconds; durations as people read them."""

from datetime import UTC, datetime

from korch.errors import InvalidError


def rfc3339(unix_s: float) -> str:
    """Whole seconds, as `2026-01-02T03:04:05Z` (meta/v1 Time)."""
    return datetime.fromtimestamp(unix_s // 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(unix_s: float) -> str:
    """With microseconds, as `2026-01-02T03:04:05.000006Z` (meta/v1 MicroTime; leases)."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time; without a zone it is taken as UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidError(f'"{text}" is not a time', hint="Write it like 2026-01-02T03:04:05Z.") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def format_age(seconds: float) -> str:
    """A duration in at most two units, as kubectl shows ages: `45s`, `5m12s`, `3d2h`, `2y10d`."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    total = max(total, 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    # (below this many seconds, the bigger unit, what is left in the smaller one)
    for limit, big, small in (
        (120, f"{total}s", ""),
        (600, f"{minutes}m", f"{total % 60}s"),
        (3 * 3600, f"{minutes}m", ""),
        (8 * 3600, f"{hours}h", f"{minutes % 60}m"),
        (48 * 3600, f"{hours}h", ""),
        (8 * 86400, f"{days}d", f"{hours % 24}h"),
        (2 * 365 * 86400, f"{days}d", ""),
        (8 * 365 * 86400, f"{days // 365}y", f"{days % 365}d"),
    ):
        if total < limit:
            return big if small.startswith("0") else big + small
    return f"{days // 365}y"
