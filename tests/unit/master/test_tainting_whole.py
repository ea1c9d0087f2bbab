"""A NoExecute taint from the mark to the end: controllers, scheduler and evictions on one store."""

import asyncio
from typing import Any

from msgspec.structs import replace

from korch.master.background import background
from korch.master.controlling import KINDS, Controllers, Scope
from korch.master.tainting import TaintEvictions
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.annotations import EVICT
from korch.resources.codec import with_meta
from korch.resources.disruption import PodDisruptionBudget, PodDisruptionBudgetSpec
from korch.resources.meta import Condition, LabelSelector, ObjectMeta
from korch.resources.node import Node, Taint
from korch.resources.pod import Pod
from korch.resources.podstate import is_counted, is_ready, with_condition
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment
from tests.unit.controllers.cluster import deployment
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore
from tests.unit.scheduler.world import load, node


class Site:
    """Two nodes; pods that have one are ready a second later, and gone a second after their deletion."""

    def __init__(self) -> None:
        self.objects = Objects(MemoryStore(), clock=LoopClock())  # type: ignore[arg-type]
        self.view = View(self.objects, KINDS)
        self.evictions = TaintEvictions(self.view, LoopClock(), is_down=lambda _: False)
        self.names = frozenset({"n1", "n2"})
        self.fewest_ready = 99

    async def run(self, group: asyncio.TaskGroup) -> None:
        for name in sorted(self.names):
            await self.objects.restore(node(name))
            await self.objects.restore(with_meta(load(), name=name))
        await self.view.start(group)
        controllers = Controllers(self.view, LoopClock(), Scope(None), allowed=lambda: self.names, wake=lambda _: None)
        controllers.start(group)
        group.create_task(self._live())

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(1)
            for pod in (await self.objects.list(Pod)).items:
                if pod.metadata.deletion_timestamp is not None:
                    await self.objects.finish_delete(pod)
                elif pod.spec.node_name and not is_ready(pod):
                    await self.objects.modify(Pod, pod.metadata.name, "default", _ready, status=True)
            await self.evictions.look(frozenset())

    async def taint(self, name: str, *taints: Taint) -> None:
        await self.objects.modify(Node, name, "", lambda found: replace(found, spec=replace(found.spec, taints=taints)))

    async def watch(self, seconds: int) -> None:
        """Note how few replicas were ready meanwhile."""
        for _ in range(seconds * 4):
            await asyncio.sleep(0.25)
            pods = [pod for pod in self.view.all(Pod) if is_counted(pod) and is_ready(pod)]
            self.fewest_ready = min(self.fewest_ready, len(pods))

    def places(self) -> list[str]:
        return sorted(pod.spec.node_name for pod in self.view.all(Pod) if is_counted(pod))


def _ready(pod: Pod) -> Pod:
    now = rfc3339(LoopClock().now())
    ready = with_condition(pod.status.conditions, Condition(type="Ready", status="True"), now)
    return replace(pod, status=replace(pod.status, phase="Running", conditions=ready))


def on_site(body: Any) -> None:
    async def main() -> None:
        site = Site()
        async with background() as group:
            await site.run(group)
            await site.objects.create(deployment("web:1", 2))
            await asyncio.sleep(10)
            await body(site)

    run_virtually(main)


OURS = Taint(key="what", value="ever", effect="NoExecute")


def test_the_successor_runs_before_the_pod_goes() -> None:
    async def body(site: Site) -> None:
        assert site.places() == ["n1", "n2"]
        await site.taint("n1", OURS)
        await site.watch(30)
        assert site.places() == ["n2", "n2"]
        assert site.fewest_ready == 2

    on_site(body)


def test_where_there_is_no_room_elsewhere_the_pod_goes_all_the_same() -> None:
    async def body(site: Site) -> None:
        budget = PodDisruptionBudget(
            metadata=ObjectMeta(name="web", namespace="default"),
            spec=PodDisruptionBudgetSpec(min_available=2, selector=LabelSelector(match_labels={"app": "web"})),
        )
        await site.objects.create(budget)
        for name in ("n1", "n2"):
            await site.taint(name, OURS)
        await asyncio.sleep(60)
        assert site.places() == ["", ""], "budgets do not count, and nobody comes back"
        await site.taint("n2")
        await asyncio.sleep(10)
        assert site.places() == ["n2", "n2"]
        assert not any(EVICT in pod.metadata.annotations for pod in site.view.all(Pod))
        assert (await site.objects.get(Deployment, "web")).status.available_replicas == 2

    on_site(body)
