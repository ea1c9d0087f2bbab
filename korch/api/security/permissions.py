"""Authorization by what stands in the store now: who has a role of korch's own is never made to wait for it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from korch.api.requestinfo import RequestInfo
from korch.api.security.authorize import Authorizer, Rule
from korch.api.security.rbac import Binding, Policy, Who
from korch.errors import InvalidError
from korch.resources.codec import decode
from korch.resources.kinds import kind_of_type
from korch.resources.meta import Object
from korch.resources.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from korch.store.base import Record, Store

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)
Check = Callable[[Object, Object | None], None]

_KINDS: tuple[type[Object], ...] = (Role, ClusterRole, RoleBinding, ClusterRoleBinding)


class Permissions:
    """Asks the Roles and bindings as they are at the moment of the question."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revision = -1
        self._seen: tuple[tuple[str, int], ...] = ()
        self._current = Authorizer()

    async def allowed(self, user: Who, info: RequestInfo) -> tuple[bool, str]:
        """Whether the user may do it, and by which role."""
        found = Authorizer().allowed(user, info)
        return found if found[0] else (await self.current()).allowed(user, info)

    async def rules(self, user: Who, namespace: str) -> tuple[Rule, ...]:
        """All that they may in a namespace."""
        return (await self.current()).rules(user, namespace)

    async def check(self, user: Who) -> Check:
        """What refuses a Role or binding, new and old, that would give more than the user has."""
        authorizer = await self.current()
        return lambda new, old: authorizer.check_grant(user, new, old)

    async def current(self) -> Authorizer:
        """By the newest Roles and bindings, read again after any write and understood again when they changed."""
        revision = await self._store.revision()
        if revision == self._revision:
            return self._current
        records = [(await self._store.list(kind_of_type(type_).prefix(""))).records for type_ in _KINDS]
        roles, cluster_roles, bindings, cluster_bindings = records
        seen = tuple((record.key, record.revision) for found in records for record in found)
        if seen != self._seen:
            both: list[Binding] = [*_read(RoleBinding, bindings), *_read(ClusterRoleBinding, cluster_bindings)]
            policy = Policy(_read(Role, roles), _read(ClusterRole, cluster_roles), both)
            self._current, self._seen = Authorizer(policy), seen
        self._revision = revision
        return self._current


def _read(type_: type[T], records: Sequence[Record]) -> Iterator[T]:
    """The objects; one that is damaged grants nothing."""
    for record in records:
        try:
            obj = decode(kind_of_type(type_), record.value)
        except InvalidError as error:
            log.error("record %s cannot be read: %s", record.key, error)
            continue
        assert isinstance(obj, type_)
        yield obj
