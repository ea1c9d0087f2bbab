"""A drain in one-shot mode, with all parts but the nodes."""

import asyncio
from pathlib import Path

from msgspec.structs import replace

from korch.controllers.disruption import evict, world_of
from korch.controllers.drain import DRAIN, plan_drain
from korch.objects.objects import Change
from korch.resources.annotations import REPLACES
from korch.resources.disruption import PodDisruptionBudget, PodDisruptionBudgetSpec
from korch.resources.meta import LabelSelector, ObjectMeta
from korch.resources.node import Node
from korch.resources.pod import CSIVolumeSource, Pod, Volume
from korch.resources.podstate import is_ready
from korch.resources.workload import Deployment, DeploymentStrategy
from tests.unit.master.test_oneshot import World, app, in_world, ok


async def cordoned(world: World, *names: str, value: bool = True) -> None:
    def change(found: Node) -> Node:
        return replace(found, spec=replace(found.spec, unschedulable=value))

    for name in names:
        await world.objects.modify(Node, name, "", change)


async def drained(world: World, *names: str, force: bool = False) -> None:
    await cordoned(world, *names)
    plan = plan_drain(await world_of(world.objects), names, force=force)
    for move in plan.moves:
        await evict(world.objects, move.pod, DRAIN, stop_first=move.stop_first)


class Floor:
    """The fewest ready pods, and the most pods, that the store ever showed."""

    def __init__(self, world: World) -> None:
        self._world, self.fewest, self.most = world, 99, 0
        self._known: dict[str, Pod] = {}

    async def watch(self, after: int) -> None:
        async with self._world.objects.watch(Pod, after=after) as changes:
            async for change in changes:
                self._count(change)

    def _count(self, change: Change[Pod]) -> None:
        pod = change.object
        if change.type == "DELETED":
            self._known.pop(pod.metadata.uid, None)
        else:
            self._known[pod.metadata.uid] = pod
        self.fewest = min(self.fewest, sum(map(is_ready, self._known.values())))
        self.most = max(self.most, len(self._known))

    async def start(self) -> asyncio.Task[None]:
        listing = await self._world.objects.list(Pod)
        self._known = {pod.metadata.uid: pod for pod in listing.items}
        return asyncio.create_task(self.watch(listing.revision))


def test_every_pod_leaves_and_no_moment_serves_with_fewer(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        made = await world.wish(app(replicas=4))
        ok(await world.deploy(app(replicas=4)))
        await world.objects.create(
            PodDisruptionBudget(
                metadata=ObjectMeta(name="web", namespace="default"),
                spec=PodDisruptionBudgetSpec(min_available="100%", selector=LabelSelector(match_labels={"app": "web"})),
            )
        )
        floor = Floor(world)
        task = await floor.start()
        await drained(world, "n1", "n2")
        (outcome,) = await world.run("web", since=made.metadata.generation)
        ok(outcome)
        task.cancel()
        assert [pod.spec.node_name for pod in outcome.pods] == ["n3"] * 4
        assert not world.machines["n1"].held
        assert not world.machines["n2"].held
        assert floor.fewest >= 4
        assert floor.most <= 6, "one more, and one that is being stopped"
        budget = await world.objects.get(PodDisruptionBudget, "web")
        assert (budget.status.current_healthy, budget.status.disruptions_allowed) == (4, 0)
        writes = world.store.writes
        ok((await world.run("web"))[0])
        assert world.store.writes - writes < 10, "and again nothing"

    in_world(tmp_path, body)


def test_a_drain_without_room_elsewhere_says_so_and_stops_nothing(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app(replicas=2)))
        await drained(world, "n1", "n2", "n3")
        (outcome,) = await world.run("web")
        assert outcome.error is not None
        assert "3 cordoned" in str(outcome.error)
        assert sum(map(is_ready, await world.pods())) == 2
        assert world.containers == 2

    in_world(tmp_path, body)


def test_a_run_that_was_killed_between_is_finished_by_the_next(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app(replicas=3)))
        await drained(world, "n1")
        run = asyncio.create_task(world.run("web"))
        async with world.objects.watch(Pod, after=(await world.objects.list(Pod)).revision) as changes:
            async for change in changes:
                if REPLACES in change.object.metadata.annotations:
                    break
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        (outcome,) = await world.run("web")
        ok(outcome)
        assert {pod.spec.node_name for pod in outcome.pods} == {"n2", "n3"}
        assert world.containers == 3

    in_world(tmp_path, body)


def test_an_app_that_never_runs_twice_stops_before_it_starts_elsewhere(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        wish = app(replicas=1)
        wish = Deployment(metadata=wish.metadata, spec=replace(wish.spec, strategy=DeploymentStrategy(type="Recreate")))
        ok(await world.deploy(wish))
        (pod,) = await world.pods()
        floor = Floor(world)
        task = await floor.start()
        await drained(world, pod.spec.node_name)
        (outcome,) = await world.run("web")
        ok(outcome)
        task.cancel()
        assert outcome.pods[0].spec.node_name != pod.spec.node_name
        assert world.containers == 1
        assert floor.most == 1

    in_world(tmp_path, body)


def test_another_app_on_the_node_is_not_touched(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app("web", replicas=3)))
        ok(await world.deploy(app("db", replicas=3)))
        await drained(world, "n1")
        ok((await world.run("web"))[0])
        left = [pod for pod in await world.pods() if pod.spec.node_name == "n1"]
        assert [pod.metadata.labels["app"] for pod in left] == ["db"]

    in_world(tmp_path, body)


def test_an_app_with_a_named_volume_waits_for_its_node_and_never_starts_without_its_data(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        wish = app(replicas=1)
        data = Volume(name="data", csi=CSIVolumeSource(driver="volumes.korch.dev", volume_attributes={"name": "data"}))
        template = wish.spec.template
        template = replace(template, spec=replace(template.spec, volumes=(data,)))
        ok(await world.deploy(Deployment(metadata=wish.metadata, spec=replace(wish.spec, template=template))))
        (pod,) = await world.pods()
        node = pod.spec.node_name
        assert (await world.objects.get(Node, node, "")).status.volumes_in_use == ("default/data",)
        plan = plan_drain(await world_of(world.objects), (node,), force=False)
        assert [why for _, why in plan.refused] == ["volume data exists on this node only: it cannot run elsewhere"]
        await drained(world, node, force=True)
        (outcome,) = await world.run("web")
        assert outcome.error is not None
        assert world.containers == 0
        await world.objects.modify(
            Node, node, "", lambda found: replace(found, spec=replace(found.spec, unschedulable=False))
        )
        ok((await world.run("web"))[0])
        assert world.machines[node].held

    in_world(tmp_path, body)
