"""The objects of some kinds as this process knows them: read without waiting, never older than its own writes.

List, then watch from that revision; a lost watch lists again (as Kubernetes' informers do). Own writes go through the
view, so that a reconciler which runs again at once already sees what it did.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

from korch.errors import ConflictError, ExpiredError, FencedError, NotFoundError
from korch.objects.objects import Objects
from korch.objects.prepare import released
from korch.objects.values import Change
from korch.resources.meta import Object
from korch.resources.pod import Pod

T = TypeVar("T", bound=Object)
Key = tuple[type[Object], str, str]
Listener = Callable[[Change[Object]], None]
log = logging.getLogger(__name__)

GONE_KEPT = 10_000  # deletions remembered: far more than answers can be under way


def key_of(obj: Object) -> Key:
    """(type, namespace, name)."""
    return (type(obj), obj.metadata.namespace, obj.metadata.name)


def _revision(obj: Object) -> int:
    return int(obj.metadata.resource_version or 0)


class View:
    """A cache of all objects of `types`, with listeners. Listeners are called once per change, on the event loop."""

    def __init__(self, objects: Objects, types: Iterable[type[Object]]) -> None:
        self.objects = objects
        self._types = tuple(types)
        self._known: dict[type[Object], dict[tuple[str, str], Object]] = {type_: {} for type_ in self._types}
        self._gone: dict[Key, int] = {}  # deleted at that revision, the latest last: an older answer may still come
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call `listener` for every later change."""
        self._listeners.append(listener)

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Load everything, then follow in a task per kind."""
        for type_ in self._types:
            revision = await self._load(type_)
            group.create_task(self._follow(type_, revision), name=f"watch-{type_.__name__}")

    def find(self, type_: type[T], name: str, namespace: str = "default") -> T | None:
        """The object as last seen, or None."""
        return cast("T | None", self._known[type_].get((namespace, name)))

    def all(self, type_: type[T], namespace: str = "") -> Iterator[T]:
        """Objects of one kind, sorted by namespace and name."""
        known = self._known[type_]
        for key in sorted(known) if not namespace else sorted(key for key in known if key[0] == namespace):
            yield cast("T", known[key])

    def owned(self, type_: type[T], uid: str, namespace: str) -> tuple[T, ...]:
        """Objects of one kind whose controller has this uid, sorted by name."""
        return tuple(
            obj
            for obj in self.all(type_, namespace)
            if any(ref.uid == uid and ref.controller for ref in obj.metadata.owner_references)
        )

    # Writing: as in `Objects`, and seen here at once.

    async def create(self, obj: T) -> T:
        """Create, and see it."""
        made = await self.objects.create(obj)
        self._observe(made)
        return made

    async def update(self, obj: T) -> T:
        """Update, and see it."""
        return self._written(await self.objects.update(obj))

    async def update_status(self, obj: T) -> T:
        """Update the status, and see it."""
        made = await self.objects.update_status(obj)
        self._observe(made)
        return made

    async def modify(
        self, type_: type[T], name: str, namespace: str, change: Callable[[T], T | None], *, status: bool = False
    ) -> T:
        """Read-change-write, and see it."""
        return self._written(await self.objects.modify(type_, name, namespace, change, status=status))

    def _written(self, made: T) -> T:
        """The object after a write: it is gone when its last finalizer went with it."""
        if released(made):
            self._forget(made)
        else:
            self._observe(made)
        return made

    async def bind(self, pod: Pod, node: str, decision_json: str) -> Pod:
        """Bind a pod, and see it."""
        made = await self.objects.bind(pod, node, decision_json)
        self._observe(made)
        return made

    async def delete(self, obj: Object, *, grace_s: int | None = None) -> None:
        """Delete this very object (by uid); gone already is fine, also when another one has its name now."""
        meta = obj.metadata
        try:
            left = await self.objects.delete(type(obj), meta.name, meta.namespace, uid=meta.uid, grace_s=grace_s)
        except FencedError:
            raise
        except NotFoundError:
            left = None
        except ConflictError:
            left = await self.objects.find(type(obj), meta.name, meta.namespace)
            if left is not None and left.metadata.uid == meta.uid:
                raise
        if left is None:
            self._forget(obj)
        else:
            self._observe(left)

    async def finish_delete(self, pod: Pod) -> None:
        """The pod's containers are gone: remove it for good."""
        left = await self.objects.finish_delete(pod)
        if left is None:
            self._forget(pod)
        else:
            self._observe(left)

    # Following

    async def _load(self, type_: type[Object]) -> int:
        listing = await self.objects.list(type_)
        present = {(obj.metadata.namespace, obj.metadata.name) for obj in listing.items}
        for obj in listing.items:
            self._observe(obj)
        for key, old in list(self._known[type_].items()):
            if key not in present and _revision(old) <= listing.revision:
                self._forget(old, listing.revision)
        return listing.revision

    async def _follow(self, type_: type[Object], after: int) -> None:
        while True:
            try:
                async with self.objects.watch(type_, after=after) as changes:
                    async for change in changes:
                        if change.type == "DELETED":
                            self._forget(change.object, change.revision)
                        else:
                            self._observe(change.object)
                        after = change.revision
            except ExpiredError:
                log.info("the history of %s was compacted: listing again", type_.__name__)
            after = await self._load(type_)

    def _observe(self, obj: Object) -> None:
        key, revision = key_of(obj), _revision(obj)
        known = self._known.get(key[0])
        if known is None:
            return
        old = known.get(key[1:])
        if revision <= self._gone.get(key, 0) or (old is not None and _revision(old) >= revision):
            return
        known[key[1:]] = obj
        self._tell(Change("MODIFIED" if old else "ADDED", obj, old, revision))

    def _forget(self, obj: Object, revision: int | None = None) -> None:
        key = key_of(obj)
        at = _revision(obj) if revision is None else revision
        old = self._known.get(key[0], {}).get(key[1:])
        if old is not None and _revision(old) > at:
            return
        self._gone[key] = max(at, self._gone.pop(key, 0))
        if len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        if old is not None:
            del self._known[key[0]][key[1:]]
            self._tell(Change("DELETED", old, old, at))

    def _tell(self, change: Change[Object]) -> None:
        for listener in self._listeners:
            listener(change)
