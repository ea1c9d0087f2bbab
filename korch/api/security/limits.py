"""How much one client may ask for at a time, and one request: so that none keeps the others waiting."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from korch.errors import InvalidError

_MOST_CLIENTS = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the API: of one request, of one user's requests, and of logins that fail, by address."""

    body_bytes: int = 3 * 1024 * 1024  # Kubernetes' own
    request_s: float = 60.0
    work_s: float = 600.0  # of what korch's own client has done on nodes, such as pulling an image
    at_once: int = 100
    streams: int = 1000  # watches, followed logs, exec and the like, of one user
    rate_per_s: float = 1000.0
    burst: float = 2000.0
    failures_per_s: float = 5.0
    failures_burst: float = 50.0
    recheck_s: float = 5.0  # how soon a stream notices that its credential or its role was taken away


class BodyTooLargeError(InvalidError):
    """The body of a request is larger than it may be."""

    http_status, reason = 413, "RequestEntityTooLarge"


class BodyCutOffError(InvalidError):
    """The client went in the middle of a body."""

    http_status, reason = 400, "BadRequest"


class TooManyError(Exception):
    """The client has to wait."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """So many events a second for each key, with a reserve of `burst`."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: str, now: float) -> bool:
        """Whether one more is allowed; it is counted if so."""
        bucket = self._filled(key, now)
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def _filled(self, key: str, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _MOST_CLIENTS:
                self._forget_full(now)
            bucket = self._buckets[key] = _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        return bucket

    def _forget_full(self, now: float) -> None:
        """Those that have rested long enough are as good as unknown; if all are busy, the oldest half goes."""
        full_after_s = self._burst / self._rate
        kept = {key: one for key, one in self._buckets.items() if now - one.at < full_after_s}
        if len(kept) >= _MOST_CLIENTS:
            newest = sorted(kept.items(), key=lambda item: item[1].at)[_MOST_CLIENTS // 2 :]
            kept = dict(newest)
        self._buckets = kept


@dataclass(slots=True)
class Open:
    """What one client has open."""

    requests: int = 0
    streams: int = 0


@dataclass(slots=True)
class Turnstile:
    """Counts what each client has open."""

    limits: Limits
    open: dict[str, Open] = field(default_factory=lambda: defaultdict(Open))
    _rates: Buckets = field(init=False)

    def __post_init__(self) -> None:
        self._rates = Buckets(self.limits.rate_per_s, self.limits.burst)

    @contextmanager
    def passing(self, client: str, now: float, *, stream: bool) -> Iterator[None]:
        """A block in which one request of the client is open. Raises `TooManyError` instead when it has to wait."""
        mine = self.open[client]
        too_many = mine.streams >= self.limits.streams if stream else mine.requests >= self.limits.at_once
        if too_many or not self._rates.take(client, now):
            self._forget(client)
            raise TooManyError
        mine.streams += stream
        mine.requests += not stream
        try:
            yield
        finally:
            mine.streams -= stream
            mine.requests -= not stream
            self._forget(client)

    def _forget(self, client: str) -> None:
        mine = self.open[client]
        if not mine.streams and not mine.requests:
            del self.open[client]
