"""Events: what happened to objects, counted when it repeats, and never more than a bounded number of them."""

import hashlib
import logging
import uuid
from typing import Literal

from msgspec.structs import replace

from korch.errors import ConflictError, FencedError
from korch.objects.access import Access, expected
from korch.objects.values import Clock
from korch.resources.codec import with_meta
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import EVENT, kind_of
from korch.resources.meta import Object, ObjectMeta, ObjectReference
from korch.resources.misc import Event, EventSource
from korch.resources.times import parse_time, rfc3339

_log = logging.getLogger(__name__)

REPEAT_S = 3600.0  # the same again within this time is counted, later it is news
KEEP = 5000
PRUNE_EVERY = 100
_TRIES = 4


class EventRecorder:
    """Writes events; loses one rather than disturb the work that it reports on."""

    def __init__(self, access: Access, clock: Clock, *, keep: int = KEEP, prune_every: int = PRUNE_EVERY) -> None:
        self._access = access
        self._clock = clock
        self._keep = keep
        self._prune_every = prune_every
        self._written = uuid.uuid4().int % prune_every  # so that short-lived processes prune in their turn too

    async def record(
        self, about: Object, *, type_: Literal["Normal", "Warning"], reason: str, message: str, component: str
    ) -> None:
        """Write or count one event."""
        fresh = _event(about, type_, reason, message, component, rfc3339(self._clock.now()))
        for _ in range(_TRIES):
            try:
                await self._write(fresh)
                break
            except FencedError:  # the new leader reports for itself
                return
            except ConflictError:  # counted by someone else at the same time
                continue
        else:
            _log.debug("event %s of %s was not written: conflicts", reason, about.metadata.name)
            return
        self._written += 1
        if self._written % self._prune_every == 0:
            await self.prune()

    async def _write(self, fresh: Event) -> None:
        old = await self._access.find(Event, fresh.metadata.name, fresh.metadata.namespace)
        if old is None:
            await self._access.save(fresh, expect=0)
        elif self._clock.now() - parse_time(old.last_timestamp or "1970-01-01T00:00:00Z") <= REPEAT_S:
            again = replace(old, count=old.count + 1, last_timestamp=fresh.last_timestamp)
            await self._access.save(again, expect=expected(old))
        else:
            await self._access.save(with_meta(fresh, uid=old.metadata.uid), expect=expected(old))

    async def prune(self) -> None:
        """Remove the oldest events above the bound."""
        listing = await self._access.store.list(EVENT.prefix())
        if len(listing.records) <= self._keep:
            return
        events = [self._access.read(Event, record) for record in listing.records]
        events.sort(key=lambda event: (event.last_seen, event.metadata.name))
        for event in events[: len(events) - self._keep]:
            try:
                await self._access.remove(event)
            except FencedError:
                return
            except ConflictError:  # it happened again just now
                continue


def _event(about: Object, type_: str, reason: str, message: str, component: str, now: str) -> Event:
    kind, meta = kind_of(about), about.metadata
    identity = "\0".join((meta.uid, kind.name, type_, reason, message, component))
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Event(
        api_version=EVENT.api_version,
        kind=EVENT.name,
        metadata=ObjectMeta(
            name=f"{meta.name[:230]}.{suffix}",
            namespace=meta.namespace or DEFAULT_NAMESPACE,
            uid=str(uuid.uuid4()),
            creation_timestamp=now,
        ),
        involved_object=ObjectReference(
            api_version=kind.api_version, kind=kind.name, namespace=meta.namespace, name=meta.name, uid=meta.uid
        ),
        reason=reason,
        message=message,
        type=type_,
        count=1,
        first_timestamp=now,
        last_timestamp=now,
        source=EventSource(component=component),
    )
