"""Objects over the Kubernetes API, as `korch.objects` has them in the store."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Literal, TypeVar

import msgspec

from korch.client import kube
from korch.client.requests import FIRST_REST_S, Requests
from korch.client.wire import ApiUnreachableError, Call
from korch.errors import AlreadyExistsError, ConflictError, KorchError, NotFoundError
from korch.objects import apply as applying
from korch.objects.namespaces import check_empty, check_may_go, home_of
from korch.objects.prepare import exists_already, named, not_found_hint
from korch.objects.values import Change, ObjectList
from korch.resources.codec import encode, with_meta
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import KINDS, kind_of, kind_of_type
from korch.resources.meta import LabelSelector, Object
from korch.resources.misc import Namespace
from korch.resources.selectors import matches, parse_selector

T = TypeVar("T", bound=Object)

_WATCH_S = 1800
_TRIES = 16
_SUGGEST_FROM = 500


class RemoteObjects:
    """Reads and writes objects with the requests that it is given."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests

    async def get(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T:
        """One object."""
        found = await self.find(type_, name, namespace)
        if found is None:
            raise NotFoundError(
                named(type_, name, namespace, " not found"), hint=await self._hint(type_, namespace, name)
            )
        return found

    async def find(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T | None:
        """The object, or None."""
        if not kube.is_name(name):
            return None
        try:
            answer = await self.requests.ask(Call("GET", kube.path_of(kind_of_type(type_), namespace, name)))
        except NotFoundError:
            return None
        return kube.typed(type_, answer.body)

    async def _hint(self, type_: type[Object], namespace: str, name: str) -> str:
        kind = kind_of_type(type_)
        try:
            call = Call("GET", kube.path_of(kind, namespace), (("limit", str(_SUGGEST_FROM)),))
            there = kube.listing(type_, (await self.requests.ask(call)).body).items
        except KorchError:
            return ""
        return not_found_hint(kind, namespace, name, [item.metadata.name for item in there])

    async def list(
        self, type_: type[T], namespace: str = "", *, selector: str | LabelSelector | None = None
    ) -> ObjectList[T]:
        """Objects of one kind."""
        wanted = parse_selector(selector) if isinstance(selector, str) else selector
        query = (("labelSelector", selector),) if isinstance(selector, str) and selector else ()
        answer = await self.requests.ask(Call("GET", kube.path_of(kind_of_type(type_), namespace), query))
        found: kube.Listing[T] = kube.listing(type_, answer.body)
        items = (item for item in found.items if matches(wanted, item.metadata.labels))
        return ObjectList(tuple(items), int(found.metadata.resource_version))

    @asynccontextmanager
    async def watch(
        self, type_: type[T], namespace: str = "", *, after: int
    ) -> AsyncIterator[AsyncIterator[Change[T]]]:
        """Changes after a revision; `previous` is known of what this watch has told of."""
        async with aclosing(self._changes(type_, namespace, after)) as changes:
            yield changes

    async def _changes(self, type_: type[T], namespace: str, after: int) -> AsyncGenerator[Change[T], None]:
        known: dict[tuple[str, str], T] = {}
        while True:
            call = self._watching(type_, namespace, after)
            lines = await self.requests.patiently(partial(self.requests.lines, call))
            try:
                async for line in lines:
                    event = msgspec.json.decode(line, type=kube.Event)
                    if event.type == "ERROR":
                        raise self.requests.error_in(kube.code_in(event.object), bytes(event.object))
                    obj = kube.typed(type_, bytes(event.object))
                    after = int(obj.metadata.resource_version or after)
                    if event.type == "BOOKMARK":
                        continue
                    key = (obj.metadata.namespace, obj.metadata.name)
                    previous = known.pop(key, None)
                    if event.type != "DELETED":
                        known[key] = obj
                    yield Change(event.type, obj, previous, after)
            except ApiUnreachableError:
                pass
            finally:
                await lines.aclose()
            await asyncio.sleep(FIRST_REST_S)  # a server that goes ends each watch at once

    def _watching(self, type_: type[T], namespace: str, after: int) -> Call:
        query = {"watch": "true", "resourceVersion": after, "allowWatchBookmarks": "true", "timeoutSeconds": _WATCH_S}
        path = kube.path_of(kind_of_type(type_), namespace)
        return Call("GET", path, tuple((key, str(value)) for key, value in query.items()))

    async def modify(self, type_: type[T], name: str, namespace: str, change: Callable[[T], T | None]) -> T:
        """Read, change, write; again on conflict."""
        for attempt in range(_TRIES):
            stored = await self.get(type_, name, namespace)
            wanted = change(stored)
            if wanted is None or wanted == stored:
                return stored
            path = kube.path_of(kind_of_type(type_), namespace, name)
            try:
                answer = await self.requests.ask(Call("PUT", path, kube.AS, kube.body_of(wanted, stored)))
                return kube.typed(type_, answer.body)
            except ConflictError:
                now = await self.find(type_, name, namespace)
                same = now is not None and now.metadata.resource_version == stored.metadata.resource_version
                if same or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def create(self, obj: T) -> T:
        """A new object."""
        obj = with_meta(obj, namespace=home_of(obj))
        path = kube.path_of(kind_of(obj), obj.metadata.namespace)
        try:
            answer = await self.requests.ask(Call("POST", path, kube.AS, encode(obj)))
        except AlreadyExistsError as error:
            raise exists_already(obj) from error
        return kube.typed(type(obj), answer.body)

    async def apply(self, obj: Object) -> tuple[Object, Literal["created", "configured", "unchanged"]]:
        """Declare an object, as `Objects.apply` does."""
        return await applying.apply_to(self, obj, home_of(obj))

    async def delete(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Remove an object; a namespace only when it is empty, as everywhere in korch."""
        found = await self.get(type_, name, namespace)
        if isinstance(found, Namespace):
            await self._check_empty(name)
        try:
            await self.requests.ask(Call("DELETE", kube.path_of(kind_of_type(type_), namespace, name)))
        except NotFoundError:
            return  # it is gone: by this very request, when the answer to it was lost

    async def _check_empty(self, name: str) -> None:
        check_may_go(name)
        for kind in KINDS:
            if kind.namespaced:
                found = (await self.list(kind.type, name)).items
                check_empty(name, kind, (kind.key(name, obj.metadata.name) for obj in found))
