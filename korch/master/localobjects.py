"""The objects of a cluster on this machine, as the API shows them: korch's own roles, which stand in no store, too."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypeVar, cast

from korch.errors import ForbiddenError
from korch.master.cluster import Cluster
from korch.objects.values import Change, ObjectList
from korch.resources.meta import LabelSelector, Object
from korch.resources.rbac import ClusterRole
from korch.resources.selectors import matches, parse_selector

T = TypeVar("T", bound=Object)


class LocalObjects:
    """Reads and writes objects without a master in between."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def get(self, type_: type[T], name: str, namespace: str = "default") -> T:
        """One object."""
        return _own_role(type_, name) or await self.cluster.objects.get(type_, name, namespace)

    async def list(
        self, type_: type[T], namespace: str = "", *, selector: str | LabelSelector | None = None
    ) -> ObjectList[T]:
        """Objects of one kind."""
        found = await self.cluster.objects.list(type_, namespace, selector=selector)
        return _with_own_roles(found, selector) if type_ is ClusterRole else found

    def watch(
        self, type_: type[T], namespace: str = "", *, after: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Change[T]]]:
        """Changes after a revision."""
        return self.cluster.objects.watch(type_, namespace, after=after)

    async def modify(self, type_: type[T], name: str, namespace: str, change: Callable[[T], T | None]) -> T:
        """Read, change, write."""
        _check_written(type_, name)
        return await self.cluster.objects.modify(type_, name, namespace, change)

    async def create(self, obj: T) -> T:
        """A new object."""
        _check_written(type(obj), obj.metadata.name)
        return await self.cluster.objects.create(obj)

    async def apply(self, obj: Object) -> tuple[Object, Literal["created", "configured", "unchanged"]]:
        """Declare an object."""
        _check_written(type(obj), obj.metadata.name)
        return await self.cluster.objects.apply(obj)

    async def delete(self, type_: type[T], name: str, namespace: str = "default") -> None:
        """Remove an object."""
        _check_written(type_, name)
        await self.cluster.objects.delete(type_, name, namespace)


def _own_role(type_: type[T], name: str) -> T | None:
    if type_ is not ClusterRole:
        return None
    from korch.api.security.ownroles import own_roles

    return next((cast("T", role) for role in own_roles() if role.metadata.name == name), None)


def _with_own_roles(found: ObjectList[T], selector: str | LabelSelector | None) -> ObjectList[T]:
    from korch.api.security.ownroles import own_roles

    wanted = parse_selector(selector) if isinstance(selector, str) else selector
    own = {role.metadata.name: role for role in own_roles()}
    chosen = [cast("T", role) for role in own.values() if matches(wanted, role.metadata.labels)]
    chosen += [obj for obj in found.items if obj.metadata.name not in own]
    return ObjectList(tuple(sorted(chosen, key=lambda obj: obj.metadata.name)), found.revision)


def _check_written(type_: type[Object], name: str) -> None:
    if _own_role(type_, name) is not None:
        raise ForbiddenError(f'clusterrole "{name}" is one of korch\'s own: it can be bound, and not be written')
