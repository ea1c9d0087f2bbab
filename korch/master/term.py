"""The time for which one process leads: controllers, scheduler, lifecycle and a watch for each node, until it ends."""

import asyncio
import dataclasses
import logging

from korch.errors import FencedError, KorchError
from korch.master.background import background
from korch.master.chores import Chores
from korch.master.cluster import Cluster
from korch.master.controlling import KINDS, Controllers, Scope
from korch.master.fencing import FencingHook
from korch.master.fleet import Fleet
from korch.master.lifecycle import Lifecycle
from korch.master.nodewatch import NodeWatch, Post
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.pod import Pod
from korch.store.lease import Lead

log = logging.getLogger(__name__)

FENCE_EVERY_S = 0.5


class Term:
    """One term of a lead that is held. Everything it writes carries the lead's fence; a new term begins afresh."""

    def __init__(self, cluster: Cluster, lead: Lead, *, hook: FencingHook | None = None) -> None:
        self._lead, self._hook = lead, hook
        objects = Objects(cluster.store, clock=cluster.clock, fence=lead.fence)
        self._cluster = dataclasses.replace(cluster, objects=objects)
        self._fleet = Fleet(self._cluster)
        self._view = View(objects, KINDS)
        self._watches: dict[str, NodeWatch] = {}
        self._lifecycle: Lifecycle | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Lead until `stop` is set. Raises `FencedError` when the lead is lost."""
        try:
            async with background() as group:
                await self._view.start(group)
                self._start(group)
                while not stop.is_set():
                    self._lead.fence()
                    try:
                        async with asyncio.timeout(FENCE_EVERY_S):
                            await stop.wait()
                    except TimeoutError:
                        continue
        finally:
            await self._fleet.close()

    def _start(self, group: asyncio.TaskGroup) -> None:
        scope = Scope(None)
        post = Post(self._fleet, self._view, self._cluster.clock, self._lead, scope, self._epoch)
        self._watches = {name: NodeWatch(name, post) for name in self._fleet.node_names}
        self._lifecycle = Lifecycle(post, self._watches, hook=self._hook)
        controllers = Controllers(self._view, self._cluster.clock, scope, allowed=self._allowed, wake=self._wake)
        controllers.start(group)
        for name, watch in self._watches.items():
            group.create_task(watch.run(group), name=f"watch-{name}")
        group.create_task(self._lifecycle.run(), name="lifecycle")
        group.create_task(self._forget_others(), name="left-inventory")
        chores = Chores(self._cluster, self._fleet, self._view, self._watches, self._epoch)
        group.create_task(chores.run(), name="chores")

    def _epoch(self) -> int:
        """For acts on nodes: `FencedError` once the lead is lost, also when this process slept through it."""
        self._lead.fence()
        return self._lead.epoch

    def _allowed(self) -> frozenset[str]:
        """Nodes that can be worked with now."""
        lost = self._lifecycle.lost if self._lifecycle is not None else frozenset()
        return self._fleet.placeable - lost - {name for name, watch in self._watches.items() if not watch.attached}

    def _wake(self, pod: Pod) -> None:
        watch = self._watches.get(pod.spec.node_name)
        if watch is not None and watch.keeper is not None:
            watch.keeper.wake(pod)

    async def _forget_others(self) -> None:
        """Nodes that the inventory no longer has are closed to new pods."""
        try:
            await self._fleet.close_unlisted()
        except FencedError:
            raise
        except KorchError as error:
            log.warning("nodes that left the inventory: %s", error)
