"""What a master does now and then: wishes are brought to the nodes that run them, and what nobody needs goes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from korch.client.base import Workload
from korch.errors import FencedError, KorchError
from korch.master.cluster import Cluster
from korch.master.contacts import Contact
from korch.master.fleet import Fleet
from korch.master.leveling import is_auto, level
from korch.master.nodewatch import NodeWatch
from korch.master.pruning import prune_images
from korch.master.wishes import keep_wishes
from korch.objects.values import Change
from korch.objects.view import View
from korch.resources.meta import Object
from korch.resources.pod import Pod
from korch.resources.podstate import workload_name
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

log = logging.getLogger(__name__)

WISHES_EVERY_S = 3.0
PRUNE_AFTER_S = 60.0  # of quiet: what a rollout leaves goes when it is over
PRUNE_LATEST_S = 600.0  # where it is never quiet, because a pod crashes again and again
LEVEL_EVERY_S = 60.0
TIDY_EVERY_S = 3600.0


class Chores:
    """Runs beside the controllers. A chore that fails is tried again in the next round."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        view: View,
        watches: Mapping[str, NodeWatch],
        epoch: Callable[[], int],
    ) -> None:
        self._cluster, self._fleet, self._view, self._watches, self._epoch = cluster, fleet, view, watches, epoch
        self._changed: set[Workload] = set()
        self._here: frozenset[str] = frozenset()  # nodes that could be worked with in the last round
        self._unpruned_since: float | None = None
        self._prune_at = 0.0  # while there is such a moment
        view.listen(self._note)

    def _note(self, change: Change[Object]) -> None:
        obj = change.object
        if isinstance(obj, Deployment | ReplicaSet | DaemonSet | Pod):
            self._changed.add(Workload(obj.metadata.namespace, workload_name(obj)))
        if isinstance(obj, ReplicaSet | DaemonSet):
            now = asyncio.get_running_loop().time()
            self._unpruned_since = now if self._unpruned_since is None else self._unpruned_since
            self._prune_at = min(now + PRUNE_AFTER_S, self._unpruned_since + PRUNE_LATEST_S)

    async def run(self) -> None:
        """Go round until cancelled."""
        loop = asyncio.get_running_loop()
        for type_ in (Deployment, ReplicaSet, DaemonSet, Pod):
            for obj in self._view.all(type_):
                self._changed.add(Workload(obj.metadata.namespace, workload_name(obj)))
        tidy_at = loop.time() + PRUNE_AFTER_S
        level_at = loop.time() + LEVEL_EVERY_S
        while True:
            await asyncio.sleep(WISHES_EVERY_S)
            await self._attempt(self._keep_wishes)
            if self._unpruned_since is not None and loop.time() >= self._prune_at:
                self._unpruned_since = None
                await self._attempt(self._prune)
            if loop.time() >= level_at:
                level_at = loop.time() + LEVEL_EVERY_S
                await self._attempt(self._level)
            if loop.time() >= tidy_at:
                tidy_at = loop.time() + TIDY_EVERY_S
                await self._attempt(self._tidy)

    async def _attempt(self, chore: Callable[[], Awaitable[None]]) -> None:
        try:
            await chore()
        except FencedError:
            raise
        except KorchError as error:
            log.info("%s", error)
        except Exception:
            log.exception("a chore failed; this is a bug in korch")

    def _contacts(self) -> dict[str, Contact]:
        return {
            name: found
            for name, found in self._fleet.answering.items()
            if (watch := self._watches.get(name)) is not None and watch.attached
        }

    async def _keep_wishes(self) -> None:
        contacts = self._contacts()
        self._note_arrivals(frozenset(contacts))
        changed, self._changed = sorted(self._changed, key=str), set()
        if not changed:
            return
        recorded = {name: watch.keeper.recorded for name, watch in self._watches.items() if watch.keeper is not None}
        try:
            problems = await keep_wishes(self._cluster, contacts, self._epoch(), changed, recorded)
        except KorchError:
            self._changed.update(changed)
            raise
        for problem in problems:
            log.info("%s", problem)

    def _note_arrivals(self, here: frozenset[str]) -> None:
        """What changed while a node was away is brought there now."""
        came, self._here = here - self._here, here
        for pod in self._view.all(Pod) if came else ():
            if pod.spec.node_name in came:
                self._changed.add(Workload(pod.metadata.namespace, workload_name(pod)))

    async def _prune(self) -> None:
        await prune_images(self._cluster, self._contacts(), self._epoch())

    async def _level(self) -> None:
        if await is_auto(self._cluster.store):
            await level(self._cluster, self._view, self._contacts())

    async def _tidy(self) -> None:
        await self._cluster.objects.prune_tombstones()
