"""The only writer of objects: defaults, validation, identity, generation, the split of spec and status, deletion.

Every write is a compare-and-set under the caller's fence, so that any number of processes may use one store at a time.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from korch.errors import AlreadyExistsError, ConflictError, FencedError, ForbiddenError, InvalidError, NotFoundError
from korch.objects import apply as applying
from korch.objects import prepare
from korch.objects.access import Access, at_revision, expected, key_of, put
from korch.objects.events import KEEP, EventRecorder
from korch.objects.namespaces import check_empty, check_may_go, given_keys, home_of
from korch.objects.prepare import Track
from korch.objects.reading import Reader
from korch.objects.tombstones import KEEP_S, find_tombstone, prune_tombstones, tombstone_for
from korch.objects.values import DELETION, Change, Clock, Deletion, ObjectList, SystemClock, Tombstone
from korch.resources.codec import typed, with_meta
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import every_kind, kind_of
from korch.resources.meta import Object, ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.pod import Pod
from korch.resources.templates import safe_digits
from korch.store.base import Check, Delete, Op, Store

__all__ = ["Change", "Clock", "Deletion", "ObjectList", "Objects", "SystemClock", "Tombstone"]

T = TypeVar("T", bound=Object)

_TRIES = 16  # of a read-change-write before the conflict is the caller's
_AT_ONCE = 100  # objects in one transaction; a store takes 128 operations
_SUGGEST_FROM = 500  # names looked at for "did you mean"


class Objects(Reader):
    """Typed objects in a store. `fence` gives the lease's Check, or None while this process holds no lease.

    `track` keeps the owners of fields where somebody began to, at writes that do not say themselves whose they are.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        fence: Callable[[], Check | None] | None = None,
        event_limit: int = KEEP,
        track: Track | None = None,
    ) -> None:
        super().__init__(Access(store, fence))
        self._clock = clock or SystemClock()
        self._track = track
        self._events = EventRecorder(self._access, self._clock, keep=event_limit)

    # --- writing ---

    async def create(self, obj: T, *, track: Track | None = None, dry_run: bool = False) -> T:
        """The new object with uid, time and defaults; its status starts empty. `AlreadyExistsError`.

        `track` says who owns its fields. `dry_run`: all checks are made, and nothing is written.
        """
        if not obj.metadata.namespace:
            obj = with_meta(obj, namespace=home_of(obj))
        for _ in range(_TRIES):
            name = obj.metadata.name or self._generated_name(obj)
            ready = prepare.for_create(obj, name=name, uid=str(uuid.uuid4()), now=self._clock.now())
            ready = prepare.tracked(ready, None, track)
            try:
                return await (self._check_insert(ready) if dry_run else self._insert(ready))
            except AlreadyExistsError:
                if obj.metadata.name:
                    raise
        raise AlreadyExistsError(f'no free name was found for "{obj.metadata.generate_name}"', hint="Try it again.")

    async def restore(self, obj: T) -> T:
        """An object from a backup or from what a node holds: uid, times and status stay as they are."""
        return await self._insert(with_meta(typed(obj), resource_version=""))

    async def restore_together(self, objs: Sequence[Object]) -> None:
        """Objects as `restore` writes them, all or none (by the hundred): for what means little by halves."""
        ready = [with_meta(typed(obj), resource_version="") for obj in objs]
        for start in range(0, len(ready), _AT_ONCE):
            await self._access.write([put(obj, 0) for obj in ready[start : start + _AT_ONCE]])

    async def _insert(self, ready: T) -> T:
        for _ in range(_TRIES):
            home = await self._namespace_check(ready)
            try:
                return await self._access.save(ready, *home, expect=0)
            except FencedError:
                raise
            except ConflictError as error:
                if await self._store.get(key_of(ready)) is not None:
                    raise prepare.exists_already(ready) from error
        raise ConflictError(f'namespace "{ready.metadata.namespace}" changes all the time', hint="Try it again.")

    async def _check_insert(self, ready: T) -> T:
        """What `_insert` would give, for a dry run."""
        await self._namespace_check(ready)
        if await self._store.get(key_of(ready)) is not None:
            raise prepare.exists_already(ready)
        return ready

    async def _namespace_check(self, obj: Object) -> tuple[Op, ...]:
        """Nothing is created into a namespace that is missing or goes; "default" is always there."""
        name = obj.metadata.namespace
        if not kind_of(obj).namespaced or name == DEFAULT_NAMESPACE:
            return ()
        namespace = await self.find(Namespace, name)
        if namespace is None:
            manifest = f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"
            raise NotFoundError(
                f'namespace "{name}" not found', hint=f"Make it first: echo '{manifest}' | korch apply -f -"
            )
        if namespace.metadata.deletion_timestamp is not None:
            raise ForbiddenError(f'namespace "{name}" is being deleted', hint="Use another namespace.")
        return (Check(key_of(namespace), expected(namespace)),)

    def _generated_name(self, obj: Object) -> str:
        if not obj.metadata.generate_name:
            raise InvalidError(
                f"a {kind_of(obj).name} needs a name", hint="Give metadata.name or metadata.generateName."
            )
        return obj.metadata.generate_name[:58] + safe_digits(uuid.uuid4().int, 5)

    async def ensure_default_namespace(self) -> None:
        """Make the namespace "default", once, when a cluster is created."""
        if await self.find(Namespace, DEFAULT_NAMESPACE) is None:
            try:
                await self.create(Namespace(metadata=ObjectMeta(name=DEFAULT_NAMESPACE)))
            except AlreadyExistsError:
                return

    async def update(self, obj: T) -> T:
        """The object with new labels, annotations, owners, finalizers and spec; status and identity stay as stored.

        `obj` carries the resourceVersion it was read at: `ConflictError` when it has changed since. The generation
        grows when the spec changed; nothing is written when nothing did.
        """
        stored = await self._read_for(obj)
        new = prepare.tracked(prepare.for_update(obj, stored), stored, self._tracker(stored))
        return await self._replace(new, stored)

    def _tracker(self, stored: Object) -> Track | None:
        """Whose writes these are, for an object of which owners are known: others cost nothing."""
        return self._track if stored.metadata.managed_fields else None

    async def update_status(self, obj: T) -> T:
        """The object with a new status and nothing else new; compare-and-set as in `update`."""
        stored = await self._read_for(obj)
        return await self._replace(prepare.for_status(obj, stored), stored)

    async def _read_for(self, obj: T) -> T:
        if not obj.metadata.resource_version:
            raise InvalidError(
                f"{prepare.subject(obj)}: an update needs the resourceVersion that was read",
                hint="Read it, then change it.",
            )
        stored = await self.get(type(obj), obj.metadata.name, obj.metadata.namespace)
        prepare.check_identity(obj, stored)
        if stored.metadata.resource_version != obj.metadata.resource_version:
            raise _changed(obj)
        return stored

    async def _replace(self, new: T, stored: T, *, dry_run: bool = False) -> T:
        if new == stored:
            return stored
        if dry_run:
            return new
        if prepare.released(new):  # the last finalizer went
            return at_revision(new, await self._remove(stored))
        return await self._access.save(new, expect=expected(stored))

    async def modify(
        self,
        type_: type[T],
        name: str,
        namespace: str,
        change: Callable[[T], T | None],
        *,
        status: bool = False,
        track: Track | None = None,
        dry_run: bool = False,
    ) -> T:
        """The object after `change`, which is called again on what is there now when somebody else was faster.

        `change` gives the new object, or None to leave it. `status` = it changed the status, else the rest. `track`
        and `dry_run` as in `create`.
        """
        prepared = prepare.for_status if status else prepare.for_update

        async def once(stored: T) -> T:
            wanted = change(stored)
            if wanted is None:
                return stored
            owners = track or (None if status else self._tracker(stored))
            new = prepare.tracked(prepared(wanted, stored), stored, owners)
            return await self._replace(new, stored, dry_run=dry_run)

        return await self._retried(type_, name, namespace, once)

    async def _retried(self, type_: type[T], name: str, namespace: str, once: Callable[[T], Awaitable[T]]) -> T:
        for attempt in range(_TRIES):
            stored = await self.get(type_, name, namespace)
            try:
                return await once(stored)
            except FencedError:
                raise
            except ConflictError:
                if attempt == _TRIES - 1 or not await self._changed(stored):
                    raise
        raise AssertionError("unreachable")

    async def _changed(self, stored: Object) -> bool:
        """Whether a conflict came from another writer; a refusal by the change itself would only repeat."""
        record = await self._store.get(key_of(stored))
        return record is None or record.revision != expected(stored)

    async def apply(self, obj: T) -> tuple[T, Literal["created", "configured", "unchanged"]]:
        """Declare an object: it is created, or gets what the manifest says and loses what an earlier one said.

        What others set (replicas of a scaler, labels of a controller) stays, as with `kubectl apply`.
        """
        return await applying.apply_to(self, obj, home_of(obj))

    async def would_apply(self, obj: T) -> T:
        """What `apply` would leave in the store; nothing is written."""
        namespace = home_of(obj)
        stored = await self.find(type(obj), obj.metadata.name, namespace)
        if stored is not None:
            return prepare.for_update(applying.merged(obj, stored), stored)
        new = with_meta(applying.declared(obj), namespace=namespace)
        return prepare.for_create(new, name=obj.metadata.name, uid="new", now=self._clock.now())

    async def bind(self, pod: Pod, node: str, decision_json: str, *, dry_run: bool = False) -> Pod:
        """The pod on its node, with the decision on record; `ConflictError` when it is bound elsewhere, or goes."""

        async def once(stored: Pod) -> Pod:
            prepare.check_identity(pod, stored)
            if stored.spec.node_name == node:
                return stored
            if stored.spec.node_name:
                raise ConflictError(f'{prepare.subject(stored)} is bound to node "{stored.spec.node_name}" already')
            if stored.metadata.deletion_timestamp is not None:
                raise ConflictError(f"{prepare.subject(stored)} is being deleted")
            placed = prepare.bound(stored, node, decision_json, self._clock.now())
            return placed if dry_run else await self._access.save(placed, expect=expected(stored))

        return await self._retried(Pod, pod.metadata.name, pod.metadata.namespace, once)

    # --- deleting ---

    async def delete(
        self,
        type_: type[T],
        name: str,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        uid: str | None = None,
        grace_s: int | None = None,
        wish: Deletion = DELETION,
    ) -> T | None:
        """None when the object is gone; the marked object when a keeper or a finalizer's owner has to end it first.

        A bound pod is only marked: `finish_delete` removes it when its containers are gone. What the object owns is
        removed by the garbage collector. `uid` guards against deleting a successor of the same name.
        """
        gone = False

        async def once(stored: T) -> T:
            nonlocal gone
            await self._check_deletable(stored, uid, wish)
            held = prepare.held(stored, wish)
            if prepare.lingers(held) and not (wish.force and not held.metadata.finalizers):
                marked = prepare.marked(held, grace_s, self._clock.now())
                return await self._replace(marked, stored, dry_run=wish.dry_run)
            if not wish.dry_run:
                await self._remove(stored)
            gone = True
            return stored

        left = await self._retried(type_, name, namespace, once)
        return None if gone else left

    async def _check_deletable(self, stored: Object, uid: str | None, wish: Deletion) -> None:
        if uid is not None and uid != stored.metadata.uid:
            raise ConflictError(f"{prepare.subject(stored)} is another one now: uid {stored.metadata.uid}, not {uid}")
        if wish.revision and wish.revision != stored.metadata.resource_version:
            raise _changed(stored)
        if not isinstance(stored, Namespace):
            return
        name = stored.metadata.name
        check_may_go(name)
        for kind in () if wish.contents else every_kind():
            if kind.namespaced:
                records = (await self._store.list(kind.prefix(name), limit=2)).records
                check_empty(name, kind, (record.key for record in records))

    async def finish_delete(self, pod: Pod) -> Pod | None:
        """Remove a pod whose containers are gone, and leave a tombstone, in one transaction. Repeating it is safe.

        None when it is gone; the pod while finalizers hold it.
        """
        for _ in range(_TRIES):
            stored = await self.find(Pod, pod.metadata.name, pod.metadata.namespace)
            if stored is None or stored.metadata.uid != pod.metadata.uid:
                return None
            try:
                if stored.metadata.finalizers:
                    return await self._replace(prepare.ended(stored, self._clock.now()), stored)
                await self._remove(stored)
            except FencedError:
                raise
            except ConflictError:
                continue
            return None
        raise ConflictError(f"{prepare.subject(pod)} changes all the time", hint="Try it again.")

    async def _remove(self, stored: Object) -> int:
        """Remove now; a pod that may have left containers behind gets its tombstone with it.

        With a namespace goes what every namespace is given.
        """
        more: tuple[Op, ...] = ()
        if isinstance(stored, Pod) and stored.spec.node_name:
            more = (tombstone_for(stored, self._clock.now()),)
        elif isinstance(stored, Namespace):
            more = tuple(Delete(key) for key in given_keys(stored.metadata.name))
        return await self._access.remove(stored, *more)

    async def tombstone(self, uid: str) -> Tombstone | None:
        """The proof that the pod of this uid has ended, kept 30 days; None when there is none."""
        return await find_tombstone(self._access, uid)

    async def prune_tombstones(self, older_than_s: float = KEEP_S) -> int:
        """Forget the older ones; how many."""
        return await prune_tombstones(self._access, self._clock.now(), older_than_s)

    # --- events ---

    async def record_event(
        self,
        about: Object,
        *,
        type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        component: str,
    ) -> None:
        """Note what happened to an object. The same again within an hour is counted; the oldest above 5000 go."""
        await self._events.record(about, type_=type, reason=reason, message=message, component=component)


def _changed(obj: Object) -> ConflictError:
    return ConflictError(f"{prepare.subject(obj)} has changed since it was read", hint="Read it again.")
