"""The lead lease: at most one process acts for a cluster, and one that has lost it cannot write.

Two keys. The *holder* key is written when the lease changes hands, and every write under the lease is a transaction
that also compares its revision. The *beat* key is renewed every third of the TTL. So the fence is a plain `Check` that
stays the same while the lease is held, on any store.
"""

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from korch.errors import FencedError, KorchError, StoreError
from korch.store.base import Check, KeyConflictError, Put, Record, Store
from korch.store.clock import BootClock, LeaseClock
from korch.store.leasefile import LeaseFile

LEAD_TTL_S = 10.0
_FLOCK_RETRY_S = 0.2
_PREFIX = "/korch.dev/leads"


class Holder(msgspec.Struct, frozen=True):
    """Who leads: `identity` is "" when the lease is free; `epoch` counts the times it changed hands."""

    identity: str
    epoch: int
    ttl_s: float
    note: Mapping[str, str] = msgspec.field(default_factory=dict)


class Seen(msgspec.Struct, frozen=True):
    """The lease's two records at one moment. `lock` is the identity of the flock that the holder holds, or ""."""

    holder: Holder
    holder_revision: int
    beat_revision: int
    lock: str


class Watchdog:
    """Judges on the observer's own clock how long a lease has shown no sign of life."""

    def __init__(self) -> None:
        self._sign: tuple[int, int] | None = None
        self._since = self._looked = 0.0

    def silent_s(self, seen: Seen, now: float) -> float:
        """Seconds for which the lease has looked like this.

        Counted anew after a pause of half a TTL in looking: this process or the whole machine was asleep, perhaps the
        holder too, and it deserves its chance to renew.
        """
        sign = (seen.holder_revision, seen.beat_revision)
        if sign != self._sign or now - self._looked > seen.holder.ttl_s / 2:
            self._sign, self._since = sign, now
        self._looked = now
        return now - self._since


def default_identity() -> str:
    """A name for this process that no other has: host, pid and a random part."""
    return f"{socket.gethostname()}/{os.getpid()}/{os.urandom(4).hex()}"


class Lead:
    """This process's grip on the lease `name`. One event loop; `acquire` starts the renewal, `release` ends it.

    `lock_file` (beside the state file) lets a lease of this machine pass on at once when its holder dies. `note` is
    for those who ask who leads.
    """

    def __init__(
        self,
        store: Store,
        name: str = "master",
        *,
        identity: str = "",
        ttl_s: float = LEAD_TTL_S,
        lock_file: Path | None = None,
        note: Mapping[str, str] | None = None,
        clock: LeaseClock | None = None,
    ) -> None:
        self._store, self._ttl_s, self._note = store, ttl_s, dict(note or {})
        self.identity = identity or default_identity()
        self._name = name
        self._holder_key, self._beat_key = f"{_PREFIX}/{name}/holder", f"{_PREFIX}/{name}/beat"
        self._clock = clock or BootClock()
        self._file = LeaseFile(lock_file)
        self._revision = 0  # of the holder key as written by us; 0 = not ours
        self._epoch = 0
        self._valid_until = float("-inf")
        self._renewal: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._watchdog = Watchdog()
        self._writing = asyncio.Lock()  # a renewal beside a change of our own record would look like a loss

    @property
    def held(self) -> bool:
        """Whether this process may act now: the lease is its own, and was renewed less than a TTL ago."""
        return bool(self._revision) and self._clock.now() < self._valid_until

    @property
    def epoch(self) -> int:
        """The epoch of the current or last time that this process held the lease; 0 = never."""
        return self._epoch

    def fence(self) -> Check:
        """The operation to add to every transaction under the lease. `FencedError` when it is not held."""
        if not self.held:
            raise FencedError(
                f"{self.identity} does not lead this cluster (any more); nothing was written",
                hint="Run the command again: it follows the new master.",
            )
        return Check(self._holder_key, self._revision)

    async def wait_lost(self) -> None:
        """Return when the lease has passed to another, or was released."""
        await self._lost.wait()

    async def holder(self) -> Holder | None:
        """Who holds the lease, as the store has it; None when it is free, or its holder on this machine is dead."""
        probe = LeaseFile(self._file.path)
        try:
            seen = await self._look()
            alone = bool(seen.lock) and not self._revision and probe.take()
            if alone:
                seen = await self._look()
            dead = alone and seen.lock == probe.identity
        finally:
            probe.drop()
        return None if dead or not seen.holder.identity else seen.holder

    async def acquire(self, *, wait_s: float | None = 0.0, poll_s: float = 0.2, steal: bool = False) -> bool:
        """Whether the lease is held; tries for `wait_s` seconds (None = without end).

        Takes a lease that is free, whose holder's flock has fallen, or that showed no sign of life for its TTL; with
        `steal` any. Each time the epoch grows.
        """
        if self.held:
            return True
        await self._stop_renewal()
        deadline = None if wait_s is None else self._clock.now() + wait_s
        while not await self._try(steal=steal):
            if deadline is not None and self._clock.now() >= deadline:
                return False
            await self._clock.sleep(poll_s)
        self._renewal = asyncio.create_task(self._renew_for_good(), name=f"lead-{self._name}")
        return True

    async def raise_epoch(self, at_least: int) -> int:
        """The epoch, made `at_least` that; for taking over nodes that have seen higher ones. `FencedError` if lost."""
        async with self._writing:
            check = self.fence()
            if at_least > self._epoch:
                started = self._clock.now()
                try:
                    revision = await self._store.txn([self._claim(at_least, check.expect), self._beat(None)])
                except KeyConflictError as error:
                    self._give_up()
                    raise FencedError(f"{self.identity} lost the lead meanwhile") from error
                self._hold(at_least, revision, started)
            return self._epoch

    async def release(self) -> None:
        """Give the lease up so that others need not wait; twice is fine, and so is one that is already lost."""
        await self._stop_renewal()
        if revision := self._revision:
            self._give_up(keep_file=True)
            free = Holder("", self._epoch, self._ttl_s)
            # Either it was taken by another; or it cannot be written, and then it falls with the flock or the TTL.
            try:
                with suppress(KorchError):
                    await self._store.txn([Put(self._holder_key, _encode(free), expect=revision)])
            finally:
                self._file.drop()

    async def _try(self, *, steal: bool) -> bool:
        """One attempt. Whether the flock has fallen is judged by a look after it was taken: no older record will do."""
        taken = False
        try:
            seen = await self._look()
            # The flock of a holder that says it has none is left alone: it may be about to take it.
            flock = bool(seen.lock or not seen.holder.identity) and self._file.take()
            if flock:
                seen = await self._look()
            fallen = flock and seen.lock == self._file.identity
            silent = self._watchdog.silent_s(seen, self._clock.now()) >= seen.holder.ttl_s
            if steal or fallen or silent or not seen.holder.identity:
                taken = await self._take_over(seen)
        finally:
            if not taken:
                self._file.drop()
        return taken

    async def _take_over(self, seen: Seen) -> bool:
        """Write ourselves in, if the lease still is as it was seen: a holder that just renewed keeps it."""
        started, epoch = self._clock.now(), max(seen.holder.epoch, self._epoch) + 1
        ops = [self._claim(epoch, seen.holder_revision), self._beat(seen.beat_revision)]
        try:
            revision = await self._store.txn(ops)
        except KeyConflictError:
            return False
        self._hold(epoch, revision, started)
        return True

    async def _look(self) -> Seen:
        listing = await self._store.list(f"{_PREFIX}/{self._name}/")
        records = {record.key: record for record in listing.records}
        holder, beat = records.get(self._holder_key), records.get(self._beat_key)
        return Seen(
            holder=_decode_holder(holder) if holder else Holder("", 0, self._ttl_s),
            holder_revision=holder.revision if holder else 0,
            beat_revision=beat.revision if beat else 0,
            lock=str(_fields(beat).get("lock", "")) if beat else "",
        )

    def _claim(self, epoch: int, expect: int) -> Put:
        mine = Holder(self.identity, epoch, self._ttl_s, self._note)
        return Put(self._holder_key, _encode(mine), expect)

    def _beat(self, expect: int | None) -> Put:
        return Put(self._beat_key, _encode({"holder": self.identity, "lock": self._file.identity}), expect)

    def _hold(self, epoch: int, revision: int, started: float) -> None:
        self._epoch, self._revision = epoch, revision
        self._valid_until = started + self._ttl_s
        self._lost.clear()

    def _give_up(self, *, keep_file: bool = False) -> None:
        self._revision, self._valid_until = 0, float("-inf")
        self._lost.set()
        if not keep_file:
            self._file.drop()

    async def _renew_for_good(self) -> None:
        """Beat until the lease is another's. What the disk refuses is tried again: until then `held` turns false."""
        due = self._clock.now() + self._ttl_s / 3
        while self._revision:
            # Taken without the flock, say from a frozen process that kept it: beat as soon as we have it, since until
            # then our death would not be noticed before the TTL.
            bare = self._file.missing
            pause = due - self._clock.now()
            await self._clock.sleep(min(pause, _FLOCK_RETRY_S) if bare else pause)
            if self._clock.now() >= due or (bare and self._file.take()):
                async with self._writing:
                    await self._renew()
                due = self._clock.now() + self._ttl_s / 3

    async def _renew(self) -> None:
        """One beat. Counted from before the write: an observer can only have seen it later."""
        self._file.take()
        started = self._clock.now()
        try:
            await self._store.txn([Check(self._holder_key, self._revision), self._beat(None)])
        except KeyConflictError:
            self._give_up()
        except KorchError:
            return
        else:
            self._valid_until = started + self._ttl_s

    async def _stop_renewal(self) -> None:
        task, self._renewal = self._renewal, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _decode_holder(record: Record) -> Holder:
    value = _fields(record)
    try:
        return Holder(str(value["identity"]), int(value["epoch"]), float(value["ttl_s"]), dict(value["note"]))
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError(f"record {record.key} cannot be read: {error!r}", hint="Restore a backup.") from error


def _fields(record: Record) -> dict[str, Any]:
    try:
        return dict(json.loads(record.value))
    except (ValueError, TypeError) as error:
        raise StoreError(f"record {record.key} cannot be read: {error}", hint="Restore a backup.") from error
