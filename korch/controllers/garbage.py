"""Removes what has lost its owner in a one-shot run: sets without a deployment, pods without a set.

Such a run touches its own workloads only, and knows them all. A master has `collector.py` instead, for all kinds.
"""

from korch.errors import NotFoundError
from korch.objects.view import View
from korch.resources.kinds import kind_for
from korch.resources.meta import Object, OwnerReference
from korch.resources.podstate import controller_of


class GarbageCollector:
    """Looks at one object at a time; the owner's absence is checked in the store, never only in the view."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def reconcile(self, key: tuple[type[Object], str, str]) -> float | None:
        """Delete the object (type, namespace, name) when its controlling owner is gone."""
        type_, namespace, name = key
        obj = self._view.find(type_, name, namespace)
        if obj is None or obj.metadata.deletion_timestamp is not None:
            return None
        owner = controller_of(obj)
        if owner is not None and not await self._exists(owner, namespace):
            await self._view.delete(obj)
        return None

    async def _exists(self, owner: OwnerReference, namespace: str) -> bool:
        kind = kind_for(owner.api_version, owner.kind)
        try:
            found = await self._view.objects.get(kind.type, owner.name, namespace)
        except NotFoundError:
            return False
        return found.metadata.uid == owner.uid
