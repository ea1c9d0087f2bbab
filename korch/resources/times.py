"""Times as objects hold them: RFC 3339 text in UTC, from and to Unix seconds."""

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
