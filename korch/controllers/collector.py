"""Removes what has lost its owner, and holds back owners that are to go after or without what they own.

Works on all kinds alike and on metadata only, straight from the store: what may own what is not known beforehand.
Kubernetes' rules: an object goes when none of its owners is left; `foregroundDeletion` holds an owner until all that it
owns is gone; `orphan` holds it until all that it owns has forgotten it; a namespace goes when it is empty.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from korch.errors import ConflictError, ExpiredError, FencedError, ForbiddenError, InvalidError, NotFoundError
from korch.objects.objects import Objects
from korch.objects.prepare import CLEANUP, CONTENTS, FINALIZERS
from korch.objects.values import Deletion
from korch.resources import kinds
from korch.resources.codec import decode, with_meta
from korch.resources.crd import CustomResourceDefinition
from korch.resources.customs import custom
from korch.resources.kinds import CRD, EVENT, LEASE, NAMESPACE, NODELOAD, Kind
from korch.resources.meta import Object, ObjectMeta, OwnerReference
from korch.store.base import Changes, Event, Record, Store
from korch.workqueue import WorkQueue

log = logging.getLogger(__name__)

FOREGROUND, ORPHAN = FINALIZERS["Foreground"], FINALIZERS["Orphan"]
_LEAVES = (EVENT, NODELOAD, LEASE)  # change all the time, own nothing and are owned by nobody
_AGAIN_S, _STUCK_S = 0.2, 60.0
_LOOKS, _LOOK_S = 50, 0.01
_WORKERS = 4


class _Head(msgspec.Struct):
    """The part of a record that is looked at."""

    metadata: ObjectMeta


class Thing(msgspec.Struct, frozen=True):
    """One object as the collector knows it."""

    kind: Kind
    meta: ObjectMeta

    @property
    def held_by(self) -> frozenset[str]:
        """The finalizers on it that are taken off here, once it is marked for deletion."""
        if self.meta.deletion_timestamp is None:
            return frozenset()
        return frozenset(self.meta.finalizers) & {FOREGROUND, ORPHAN, CONTENTS, CLEANUP}


class Graph:
    """Who owns what, by uid. Pure."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self._by_key: dict[str, str] = {}
        self._owned: dict[str, set[str]] = {}

    def put(self, key: str, thing: Thing) -> frozenset[str]:
        """Know an object; the uids that have to be looked at now."""
        touched = self.drop(key) if self._by_key.get(key) not in (None, thing.meta.uid) else frozenset()
        uid = thing.meta.uid
        old = self.things.get(uid)
        self.things[uid], self._by_key[key] = thing, uid
        before = {ref.uid for ref in old.meta.owner_references} if old is not None else set()
        after = {ref.uid for ref in thing.meta.owner_references}
        for owner in before - after:
            self._owned.get(owner, set()).discard(uid)
        for owner in after - before:
            self._owned.setdefault(owner, set()).add(uid)
        orphaned = bool(after) and not any(self.owns(owner, thing) for owner in after)
        return touched | (before - after) | ({uid} if orphaned or thing.held_by else frozenset())

    def drop(self, key: str) -> frozenset[str]:
        """Forget what is gone; the uids that have to be looked at now: what it owned, and what owned it."""
        uid = self._by_key.pop(key, "")
        thing = self.things.pop(uid, None)
        if thing is None:
            return frozenset()
        owners = {ref.uid for ref in thing.meta.owner_references}
        for owner in owners:
            self._owned.get(owner, set()).discard(uid)
        return frozenset(owners | self._owned.get(uid, set()))

    def owns(self, uid: str, thing: Thing) -> bool:
        """Whether the owner that a thing names is there. Nothing in another namespace owns it, whoever says so."""
        owner = self.things.get(uid)
        return owner is not None and owner.meta.namespace in {"", thing.meta.namespace}

    def stays(self, thing: Thing) -> bool:
        """Whether one of its owners is there and does not take it along."""
        owners = (ref.uid for ref in thing.meta.owner_references if self.owns(ref.uid, thing))
        return any(FOREGROUND not in self.things[uid].held_by for uid in owners)

    def owned(self, uid: str) -> list[Thing]:
        """What it owns, sorted."""
        named = [self.things[other] for other in self._owned.get(uid, ()) if other in self.things]
        found = [thing for thing in named if uid not in self.things or self.owns(uid, thing)]
        return sorted(found, key=lambda thing: (thing.kind.plural, thing.meta.namespace, thing.meta.name))

    def all_owned(self) -> list[str]:
        """The uids of everything that names an owner or is held."""
        return [uid for uid, thing in self.things.items() if thing.meta.owner_references or thing.held_by]


class Collector:
    """Follows the store and carries out what the graph says; every act is checked against the store first."""

    def __init__(self, objects: Objects, store: Store) -> None:
        self._objects, self._store = objects, store
        self._graph = Graph()
        self._changes: Changes | None = None
        self._queue: WorkQueue[str] = WorkQueue("collector", self._reconcile)

    async def run(self) -> None:
        """Work until cancelled. Raises `FencedError` when the lead is lost."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(_WORKERS), name="collector-work")
            group.create_task(self._follow(), name="collector-watch")

    # Following

    async def _follow(self) -> None:
        while True:
            after = await self._load()
            try:
                async with self._store.watch("", after=after) as changes:
                    self._changes = changes
                    async for event in changes:
                        await self._apply(event)
            except ExpiredError:
                log.info("the history was compacted: listing again")

    async def _load(self) -> int:
        self._graph = Graph()
        after = await self._store.revision()
        await self._learn()
        for kind in kinds.every_kind():
            if kind not in _LEAVES:
                await self._load_kind(kind)
        for uid in self._graph.all_owned():
            self._queue.add(uid)
        return after

    async def _load_kind(self, kind: Kind) -> None:
        for number, record in enumerate((await self._store.list(kind.prefix())).records):
            if (thing := _thing(kind, record)) is not None:
                self._graph.put(record.key, thing)
            if number % 500 == 499:
                await asyncio.sleep(0)

    async def _learn(self) -> frozenset[Kind]:
        """Know the custom kinds; those that are new."""
        before = set(kinds.every_kind())
        found = [_defined(record) for record in (await self._store.list(CRD.prefix())).records]
        return frozenset(kind for kind in found if kind is not None) - before

    async def _apply(self, event: Event) -> None:
        if event.key.startswith(CRD.prefix()) and event.record is not None:
            for new in await self._learn():
                await self._load_kind(new)
        kind = _kind_at(event.key)
        if kind is None or kind in _LEAVES:
            return
        thing = None if event.record is None else _thing(kind, event.record)
        touched = self._graph.drop(event.key) if thing is None else self._graph.put(event.key, thing)
        for uid in touched:
            self._queue.add(uid)

    # Acting

    async def _reconcile(self, uid: str) -> float | None:
        """Look at one object; seconds until it has to be looked at again."""
        thing = self._graph.things.get(uid)
        if thing is None:
            return None
        held = thing.held_by
        if held & {ORPHAN, FOREGROUND} and not await self._is_current():
            return _AGAIN_S
        if ORPHAN in held:
            return await self._orphan(thing)
        if FOREGROUND in held:
            return await self._foreground(thing)
        if CONTENTS in held and thing.kind is NAMESPACE:
            spaces = [kind.prefix(thing.meta.name) for kind in kinds.every_kind() if kind.namespaced]
            return await self._empty(thing, CONTENTS, spaces)
        if CLEANUP in held and thing.kind is CRD:
            plural, _, group = thing.meta.name.partition(".")
            return await self._empty(thing, CLEANUP, [] if kinds.is_taken(group) else [f"/{group}/{plural}/"])
        if thing.meta.owner_references and thing.meta.deletion_timestamp is None and not await self._has_owner(thing):
            await self._delete(thing.kind, thing.meta)
        return None

    async def _has_owner(self, thing: Thing) -> bool:
        """Whether one of its owners is there, or may be: of a kind that is not known nothing can be said."""
        for ref in thing.meta.owner_references:
            kind = _kind_of(ref)
            if kind is None or self._graph.owns(ref.uid, thing):
                return True
            namespace = thing.meta.namespace if kind.namespaced else ""
            record = await self._store.get(kind.key(namespace, ref.name))
            there = None if record is None else _thing(kind, record)
            if record is not None and (there is None or there.meta.uid == ref.uid):
                return True
        return False

    async def _is_current(self) -> bool:
        """Whether all is known that was written up to now: what was made a moment ago is owned too."""
        revision = await self._store.revision()
        for _ in range(_LOOKS):
            if self._changes is not None and self._changes.revision >= revision:
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def _orphan(self, owner: Thing) -> float | None:
        for thing in self._graph.owned(owner.meta.uid):
            await self._modify(thing, lambda obj: _without_owner(obj, owner.meta.uid))
        await self._release(owner, ORPHAN)
        return None

    async def _foreground(self, owner: Thing) -> float | None:
        left = self._graph.owned(owner.meta.uid)
        for thing in left:
            if self._graph.stays(thing):
                await self._modify(thing, lambda obj: _without_owner(obj, owner.meta.uid))
            elif thing.meta.deletion_timestamp is None:
                await self._delete(thing.kind, thing.meta, deep=bool(self._graph.owned(thing.meta.uid)))
        if left:
            return _AGAIN_S
        await self._release(owner, FOREGROUND)
        return None

    async def _empty(self, owner: Thing, finalizer: str, prefixes: list[str]) -> float | None:
        """Delete all that is stored under these, then let the owner go."""
        left = stuck = 0
        for prefix in prefixes:
            for record in (await self._store.list(prefix)).records:
                left += 1
                kind = _kind_at(record.key)
                if kind is None:
                    log.warning("%s stays: nobody knows its kind", record.key)
                thing = None if kind is None else _thing(kind, record)
                if thing is None:
                    stuck += 1
                elif thing.meta.deletion_timestamp is None:
                    await self._delete(thing.kind, thing.meta)
        if left:
            return _AGAIN_S if left > stuck else _STUCK_S
        await self._release(owner, finalizer)
        return None

    async def _delete(self, kind: Kind, meta: ObjectMeta, *, deep: bool = False) -> None:
        """Delete this very object; gone already is fine."""
        wish = Deletion("Foreground" if deep else "Background")
        try:
            await self._objects.delete(kind.type, meta.name, meta.namespace, uid=meta.uid, wish=wish)
        except FencedError:
            raise
        except (NotFoundError, ConflictError):
            return
        except ForbiddenError as error:
            log.info("%s %s stays: %s", kind.plural, meta.name, error)

    async def _release(self, thing: Thing, finalizer: str) -> None:
        await self._modify(thing, lambda obj: _without_finalizer(obj, finalizer))

    async def _modify(self, thing: Thing, change: Callable[[Object], Object]) -> None:
        def same(obj: Object) -> Object | None:
            return change(obj) if obj.metadata.uid == thing.meta.uid else None

        try:
            await self._objects.modify(thing.kind.type, thing.meta.name, thing.meta.namespace, same)
        except NotFoundError:
            return


def _without_owner(obj: Object, uid: str) -> Object:
    return with_meta(obj, owner_references=tuple(ref for ref in obj.metadata.owner_references if ref.uid != uid))


def _without_finalizer(obj: Object, finalizer: str) -> Object:
    return with_meta(obj, finalizers=tuple(found for found in obj.metadata.finalizers if found != finalizer))


def _defined(record: Record) -> Kind | None:
    """The kind that a stored definition makes; None when it makes none."""
    try:
        crd = decode(CRD, record.value)
        made = custom(crd) if isinstance(crd, CustomResourceDefinition) else None
    except (InvalidError, TypeError, ValueError) as error:
        log.warning("the definition %s makes no kind: %s", record.key, error)
        return None
    return None if made is None else made.kind


def _thing(kind: Kind, record: Record) -> Thing | None:
    """What a record says of itself; None when it cannot be read: one such record stops nothing else."""
    try:
        return Thing(kind, msgspec.json.decode(record.value, type=_Head).metadata)
    except msgspec.MsgspecError as error:
        log.warning("record %s cannot be read and is left alone: %s", record.key, error)
        return None


def _kind_of(ref: OwnerReference) -> Kind | None:
    """The kind of an owner, by any of its versions: which of them is stored is nobody's business."""
    group = ref.api_version.rpartition("/")[0]
    return next((kind for kind in kinds.every_kind() if (kind.name, kind.group) == (ref.kind, group)), None)


def _kind_at(key: str) -> Kind | None:
    """The kind of a key, or None."""
    _, group, plural, *_ = [*key.split("/", 3), "", ""]
    for kind in kinds.every_kind():
        if kind.plural == plural and (kind.group or "core") == group:
            return kind
    return None
