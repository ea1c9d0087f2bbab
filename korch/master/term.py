"""The time for which one process leads: controllers, scheduler, lifecycle and a watch for each node, until it ends."""

import asyncio
import contextlib
import logging

import msgspec.structs

from korch.api.owners import CONTROLLERS, owner
from korch.api.security.pki import certificate_of
from korch.controllers import aggregation, given, quota
from korch.controllers.collector import Collector
from korch.errors import FencedError, KorchError
from korch.master.background import background
from korch.master.chores import Chores
from korch.master.cluster import Cluster
from korch.master.controlling import KINDS, Controllers, Scope
from korch.master.fencing import FencingHook
from korch.master.fleet import Fleet
from korch.master.gauge import NodeGauge
from korch.master.handover import is_wanted
from korch.master.happenings import Happenings
from korch.master.lifecycle import Lifecycle
from korch.master.nodewatch import NodeWatch, Post
from korch.master.sources import LOOK_EVERY_S, Sources
from korch.master.steady import SteadyClock, follow_steps
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.pod import Pod
from korch.store.lease import Lead

log = logging.getLogger(__name__)

FENCE_EVERY_S = 0.5
CLOSE_S = 5.0  # for hanging up: a node that does not answer holds up nobody


class Term:
    """One term of a lead that is held. Everything it writes carries the lead's fence; a new term begins afresh."""

    def __init__(self, sources: Sources, lead: Lead, *, hook: FencingHook | None = None) -> None:
        self._sources, self._lead, self._hook = sources, lead, hook
        cluster = sources.cluster
        self._clock = clock = SteadyClock(cluster.clock)
        track = owner(CONTROLLERS, clock.now)
        objects = Objects(cluster.store, clock=clock, fence=lead.fence, track=track)
        self._cluster = msgspec.structs.replace(cluster, objects=objects, clock=clock)
        self._fleet = Fleet(self._cluster)
        self._view = View(objects, dict.fromkeys((*KINDS, *given.KINDS, *quota.KINDS, *aggregation.KINDS)))
        self._watches: dict[str, NodeWatch] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._post: Post | None = None
        self._lifecycle: Lifecycle | None = None

    @property
    def view(self) -> View:
        """What this term knows."""
        return self._view

    async def run(self, stop: asyncio.Event) -> None:
        """Lead until `stop` is set or a command wants the lead. Raises `FencedError` when the lead is lost."""
        try:
            async with background() as group:
                await self._view.start(group)
                self._start(group)
                while not stop.is_set() and not await is_wanted(self._cluster.store):
                    self._lead.fence()
                    try:
                        async with asyncio.timeout(FENCE_EVERY_S):
                            await stop.wait()
                    except TimeoutError:
                        continue
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._fleet.close()

    def _start(self, group: asyncio.TaskGroup) -> None:
        scope = Scope(None)
        self._post = post = Post(self._fleet, self._view, self._cluster.clock, self._lead, scope, self._epoch)
        for name in self._fleet.node_names:
            self._watch(name, group)
        self._lifecycle = Lifecycle(post, self._watches, hook=self._hook)
        gauge, clock = NodeGauge(self._fleet).pods, self._cluster.clock
        controllers = Controllers(
            *(self._view, clock, scope),
            allowed=self._allowed,
            away=self._away,
            wake=self._wake,
            gauge=gauge,
            collecting=False,
        )
        controllers.start(group)
        group.create_task(self._lifecycle.run(), name="lifecycle")
        group.create_task(follow_steps(self._clock, self._view), name="clock")
        group.create_task(Happenings(self._view, self._lead.identity).run(), name="happenings")
        chores = Chores(self._cluster, self._fleet, self._view, self._watches, self._epoch)
        group.create_task(chores.run(), name="chores")
        giving = given.Giving(self._view, certificate_of(self._cluster.settings.cluster_dir / "pki"))
        group.create_task(giving.run(), name="given")
        group.create_task(quota.Counting(self._view).run(), name="quota")
        group.create_task(aggregation.Aggregation(self._view).run(), name="aggregation")
        collector = Collector(self._cluster.objects, self._cluster.store)
        group.create_task(collector.run(), name="collector")
        group.create_task(self._follow_inventory(group), name="inventory")

    def _watch(self, name: str, group: asyncio.TaskGroup) -> None:
        assert self._post is not None
        watch = self._watches[name] = NodeWatch(name, self._post)
        self._watching[name] = group.create_task(watch.run(group), name=f"watch-{name}")

    async def _unwatch(self, name: str) -> None:
        self._watches.pop(name, None)
        task = self._watching.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _epoch(self) -> int:
        """For acts on nodes: `FencedError` once the lead is lost, also when this process slept through it."""
        self._lead.fence()
        return self._lead.epoch

    def _allowed(self) -> frozenset[str]:
        """Nodes that can be worked with now."""
        lost = self._lifecycle.lost if self._lifecycle is not None else frozenset()
        return self._fleet.placeable - lost - {name for name, watch in self._watches.items() if not watch.attached}

    def _away(self) -> frozenset[str]:
        """Nodes that may be worked with again in a moment."""
        lost = self._lifecycle.lost if self._lifecycle is not None else frozenset()
        return self._fleet.listed - lost - self._allowed()

    def _wake(self, pod: Pod) -> None:
        watch = self._watches.get(pod.spec.node_name)
        if watch is not None:
            watch.wake(pod)

    # The inventory

    async def _follow_inventory(self, group: asyncio.TaskGroup) -> None:
        """Nodes that the inventory no longer has are closed to new pods; new ones are taken up."""
        await self._close_unlisted()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                changed = await self._sources.look()
            except KorchError as error:
                log.warning("the inventory could not be looked at: %s", error)
                continue
            if changed is not None:
                await self._take_inventory(changed, group)

    async def _take_inventory(self, cluster: Cluster, group: asyncio.TaskGroup) -> None:
        before = set(self._fleet.node_names)
        for warning in cluster.hosts().warnings:
            log.warning("%s", warning)
        for name in sorted(self._fleet.differing(cluster)):
            await self._unwatch(name)  # before its transport goes
        self._cluster = cluster = msgspec.structs.replace(cluster, objects=self._cluster.objects, clock=self._clock)
        other = await self._fleet.renew(cluster)
        names = set(self._fleet.node_names)
        for name in sorted(names - self._watches.keys()):
            self._watch(name, group)
        for word, which in (("new", names - before), ("gone", before - names), ("changed", other & names)):
            if which:
                log.info("the inventory changed: %s: %s", word, ", ".join(sorted(which)))
        await self._close_unlisted()

    async def _close_unlisted(self) -> None:
        try:
            await self._fleet.close_unlisted()
        except FencedError:
            raise
        except KorchError as error:
            log.warning("nodes that left the inventory: %s", error)
