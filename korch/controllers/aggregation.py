"""ClusterRoles that are put together of others say what they grant, as in Kubernetes.

Whether something is allowed is asked of the parts themselves (`api/security/rbac.py`), so it never waits for this.
"""

from collections.abc import Iterable
from contextlib import suppress

from msgspec.structs import replace

from korch.errors import NotFoundError
from korch.objects.objects import Change
from korch.objects.view import View
from korch.resources.meta import Object
from korch.resources.rbac import ClusterRole, rules_of
from korch.workqueue import WorkQueue

KINDS = (ClusterRole,)


def plan_aggregation(role: ClusterRole, roles: Iterable[ClusterRole]) -> ClusterRole | None:
    """The role with the rules of its parts; None when it has them, or has no parts. Order of input is irrelevant."""
    rules = rules_of(role, roles)
    goes = role.metadata.deletion_timestamp is not None
    return None if goes or rules == role.rules else replace(role, rules=rules)


class Aggregation:
    """Carries out `plan_aggregation`, on a view that knows `KINDS`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._queue: WorkQueue[str] = WorkQueue("aggregation", self._reconcile)

    async def run(self) -> None:
        """Look at all roles, then at what changes, until cancelled."""
        self._view.listen(self._note)
        self._look()
        await self._queue.run(workers=1)

    def _note(self, change: Change[Object]) -> None:
        if isinstance(change.object, ClusterRole):
            self._look()

    def _look(self) -> None:
        for role in self._view.all(ClusterRole):
            if role.aggregation_rule is not None:
                self._queue.add(role.metadata.name)

    async def _reconcile(self, name: str) -> float | None:
        role = self._view.find(ClusterRole, name, "")
        changed = None if role is None else plan_aggregation(role, self._view.all(ClusterRole))
        if changed is not None:
            with suppress(NotFoundError):  # it is gone meanwhile
                await self._view.update(changed)
        return None
