"""Which masters run, for `korch status`: each shows itself now and then; what is not shown any more was ended.

This is for people. Who leads is told by the lease alone.
"""

import asyncio
import contextlib
import logging

import msgspec

from korch.client.base import MasterSeen
from korch.errors import KorchError
from korch.objects.values import Clock
from korch.resources.times import parse_time, rfc3339
from korch.store.base import Store

log = logging.getLogger(__name__)

PREFIX = "/korch.dev/masters/"
BEAT_S = 15.0
FRESH_S = 45.0
SHOWN = 20


class Presence:
    """This master's record. `show` takes effect at once, `run` keeps it fresh and tidies up after others."""

    def __init__(self, store: Store, identity: str, clock: Clock) -> None:
        self._store, self._identity, self._clock = store, identity, clock
        self._key = PREFIX + identity.replace("/", "_")
        self._shown: MasterSeen | None = None
        self._news = asyncio.Event()

    def show(self, *, leads: bool) -> None:
        """It leads, or waits, from now on."""
        if self._shown is None or self._shown.leads != leads:
            self._shown = MasterSeen(self._identity, leads, rfc3339(self._clock.now()))
            self._news.set()

    async def run(self) -> None:
        """Until cancelled; then the record goes."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await self._news.wait()
                self._news.clear()
                try:
                    await self._beat()
                except KorchError as error:
                    log.debug("this master could not show itself: %s", error)
        finally:
            with contextlib.suppress(KorchError):
                await self._store.delete(self._key)

    async def _beat(self) -> None:
        if self._shown is None:
            return
        now = self._clock.now()
        self._shown = msgspec.structs.replace(self._shown, seen=rfc3339(now))
        await self._store.put(self._key, msgspec.json.encode(self._shown))
        for record in (await self._store.list(PREFIX)).records:
            if not _is_fresh(_read(record.value), now):
                await self._store.delete(record.key, expect=record.revision)


async def masters_of(store: Store, lead: str, now: float) -> tuple[MasterSeen, ...]:
    """Those that run; the one that leads, as the lease has it, first."""
    records = (await store.list(PREFIX, limit=SHOWN)).records
    found = [one for record in records if (one := _read(record.value)) is not None and _is_fresh(one, now)]
    right = [one for one in found if one.leads == (one.identity == lead)]  # others change just now, or are dead
    return tuple(sorted(right, key=lambda one: (not one.leads, one.since, one.identity)))


def _read(value: bytes) -> MasterSeen | None:
    try:
        return msgspec.json.decode(value, type=MasterSeen)
    except msgspec.MsgspecError:
        return None


def _is_fresh(found: MasterSeen | None, now: float) -> bool:
    """Whether it showed itself lately. A clock that was set back says nothing against it."""
    if found is None:
        return False
    try:
        return now - parse_time(found.seen) < FRESH_S
    except KorchError:
        return False
