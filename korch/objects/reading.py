"""Objects as the store has them: one, all of a kind, and what changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from korch.errors import NotFoundError
from korch.objects import prepare
from korch.objects.access import Access, at_revision
from korch.objects.values import Change, ObjectList
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import kind_of_type
from korch.resources.meta import LabelSelector, Object
from korch.resources.selectors import matches, parse_selector
from korch.store.base import Event

T = TypeVar("T", bound=Object)

_SUGGEST_FROM = 500  # names looked at for "did you mean"


class Reader:
    """Reads typed objects."""

    def __init__(self, access: Access) -> None:
        self._access, self._store = access, access.store

    async def find(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T | None:
        """The object, or None."""
        return await self._access.find(type_, name, namespace)

    async def get(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T:
        """The object; `NotFoundError` suggests a name that looks like it."""
        found = await self.find(type_, name, namespace)
        if found is None:
            hint = await self._suggestion(type_, name, namespace)
            raise NotFoundError(prepare.named(type_, name, namespace, " not found"), hint=hint)
        return found

    async def list(
        self, type_: type[T], namespace: str = "", *, selector: str | LabelSelector | None = None
    ) -> ObjectList[T]:
        """Objects of one kind, sorted by namespace and name; namespace "" = all."""
        wanted = parse_selector(selector) if isinstance(selector, str) else selector
        listing = await self._store.list(kind_of_type(type_).prefix(namespace))
        found = (self._access.read(type_, record) for record in listing.records)
        return ObjectList(tuple(obj for obj in found if matches(wanted, obj.metadata.labels)), listing.revision)

    @asynccontextmanager
    async def watch(
        self, type_: type[T], namespace: str = "", *, after: int
    ) -> AsyncIterator[AsyncIterator[Change[T]]]:
        """Every change after a revision, in order, without end; `ExpiredError` when it is too old: list again."""
        async with self._store.watch(kind_of_type(type_).prefix(namespace), after=after) as events:
            yield self._changes(type_, events)

    async def _changes(self, type_: type[T], events: AsyncIterator[Event]) -> AsyncIterator[Change[T]]:
        async for event in events:
            old = self._access.read(type_, event.previous) if event.previous else None
            if event.record is not None:
                new = self._access.read(type_, event.record)
                yield Change("MODIFIED" if old else "ADDED", new, old, event.revision)
            elif old is not None:
                yield Change("DELETED", at_revision(old, event.revision), old, event.revision)

    async def _suggestion(self, type_: type[Object], name: str, namespace: str) -> str:
        kind = kind_of_type(type_)
        prefix = kind.prefix(namespace)
        names = [r.key.removeprefix(prefix) for r in (await self._store.list(prefix, limit=_SUGGEST_FROM)).records]
        return prepare.not_found_hint(kind, namespace, name, names)
