"""A work queue for reconcilers: repeats merge, one key is never with two workers, failures come back later.

Failures by kind (house rule): transient ones soon with jitter, other `KorchError`s with back-off to five minutes,
`InvalidError` only after a change, anything else is a bug: logged, and tried again slowly. One bad key stalls no other.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from korch.errors import ConflictError, FencedError, InvalidError, KorchError, TransientError

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)

MAX_BACKOFF_S = 300.0


def retry_after_s(error: Exception, failures: int) -> float | None:
    """Seconds until the next try after the `failures`-th failure in a row (from 1); None: wait for a change."""
    if isinstance(error, InvalidError):
        return None
    if isinstance(error, ConflictError):
        return 0.02 * failures
    if isinstance(error, TransientError):
        return float(min(0.5 * 2 ** min(failures - 1, 5), 15.0))
    first = 1.0 if isinstance(error, KorchError) else 10.0
    return float(min(first * 2 ** min(failures - 1, 10), MAX_BACKOFF_S))


class WorkQueue(Generic[K]):
    """Keys to reconcile. `reconcile` may return seconds after which it wants to look again."""

    def __init__(self, name: str, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        self.name = name
        self._reconcile = reconcile
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()  # in `_ready`
        self._working: set[K] = set()
        self._again: set[K] = set()  # added while being worked on
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._group: asyncio.TaskGroup | None = None
        self._too_many = 0  # workers beyond the wanted ones

    def add(self, key: K) -> None:
        """Reconcile `key` soon."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._drop_timer(key)
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: K, after_s: float) -> None:
        """Reconcile `key` after some seconds, or sooner when it is added before; the earliest time holds."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + after_s:
            return
        self._drop_timer(key)
        self._timers[key] = loop.call_later(after_s, self._fire, key)

    @property
    def idle(self) -> bool:
        """Nothing is ready or being worked on (timers may wait)."""
        return not (self._waiting or self._working or self._again)

    async def run(self, workers: int = 4) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for number in range(workers):
                    group.create_task(self._work(), name=f"{self.name}-{number}")
        finally:
            self._group = None
            for timer in self._timers.values():
                timer.cancel()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While it lasts, another worker takes the place of the one that waits here."""
        if self._group is None:
            yield
            return
        if self._too_many:
            self._too_many -= 1
        else:
            self._group.create_task(self._work(), name=f"{self.name}-more")
        try:
            yield
        finally:
            self._too_many += 1

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._working.add(key)
            try:
                await self._one(key)
            finally:
                self._working.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
            if self._too_many:
                self._too_many -= 1
                return

    async def _one(self, key: K) -> None:
        try:
            again_s = await self._reconcile(key)
        except FencedError:
            raise  # another one leads: this process must stop acting
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            after_s = retry_after_s(error, failures)
            if not isinstance(error, KorchError):
                log.exception("%s %s failed; this is a bug in korch", self.name, key)
            elif not isinstance(error, ConflictError):
                log.info("%s %s: %s", self.name, key, error)
            if after_s is not None:
                self.add_later(key, after_s * random.uniform(0.8, 1.2))  # noqa: S311 (jitter, not a secret)
            return
        self._failures.pop(key, None)
        if again_s is not None:
            self.add_later(key, again_s)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _drop_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
