"""The loop around the scheduler: what goes on record, who makes room, and when it stops."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from korch.controllers import scheduling
from korch.controllers.deployment import set_from
from korch.controllers.replicaset import pod_from
from korch.controllers.scheduling import AWAY_S, SchedulingController
from korch.errors import ConflictError, FencedError
from korch.master.background import background
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.annotations import DECISION, STOP_FIRST
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, Object
from korch.resources.misc import Event
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Container, ContainerPort, Pod
from korch.resources.podstate import unschedulable
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment, ReplicaSet
from tests.unit.controllers.cluster import deployment
from tests.unit.nodes.virtual_loop import run_virtually
from tests.unit.objects.memory_store import MemoryStore
from tests.unit.scheduler.world import NOW, load, node


class FixedClock:
    """Stands still, until it is told to go on."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> float:
        return NOW + self.passed_s


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.objects = Objects(self.store, clock=FixedClock())  # type: ignore[arg-type]
        self.view = View(self.objects, (Deployment, ReplicaSet, Pod, Node, NodeLoad))
        self.allowed: frozenset[str] | None = None
        self.away: frozenset[str] = frozenset()
        self.clock = FixedClock()
        self.controller = SchedulingController(
            self.view,
            self.clock,
            allowed=lambda: self.allowed,
            away=lambda: self.away,
            mine=lambda pod: "theirs" not in pod.metadata.name,
        )

    async def put(self, obj: Object) -> None:
        await self.objects.restore(obj)

    async def add_node(self, name: str) -> None:
        await self.put(node(name))
        await self.put(with_meta(load(), name=name))
        await asyncio.sleep(0.1)

    async def replicas(self, image: str, *names: str, on: str = "") -> None:
        """Pods of the revision with that image; they want node port 8080."""
        wish = deployment(image)
        port = ContainerPort(container_port=80, host_port=8080, protocol="TCP")
        main = Container(name="web", image=image, ports=(port,))
        template = replace(wish.spec.template, spec=replace(wish.spec.template.spec, containers=(main,)))
        made = with_meta(set_from(replace(wish, spec=replace(wish.spec, template=template)), 1), uid=f"set-{image}")
        for owner in (wish, made):
            if await self.objects.find(type(owner), owner.metadata.name) is None:
                await self.put(owner)
        for name in names:
            pod = pod_from(made, name)
            await self.objects.create(replace(pod, spec=replace(pod.spec, node_name=on)))
        await asyncio.sleep(0.1)

    async def pod(self, name: str) -> Pod:
        return await self.objects.get(Pod, name)


def with_world(body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        async with background() as group:
            await world.view.start(group)
            await body(world)

    run_virtually(main)


def test_a_pod_is_bound_with_the_reasons_on_record() -> None:
    async def body(world: World) -> None:
        await world.add_node("n1")
        await world.replicas("web:1", "a")
        assert await world.controller.reconcile("all") is None
        bound = await world.pod("a")
        assert bound.spec.node_name == "n1"
        assert bound.metadata.annotations[DECISION]
        (event,) = (await world.objects.list(Event)).items
        assert event.reason == "Scheduled"

    with_world(body)


def test_a_pod_that_fits_nowhere_says_why_once() -> None:
    async def body(world: World) -> None:
        await world.add_node("n1")
        await world.replicas("other:1", "old", on="n1")
        await world.replicas("web:1", "a")
        await world.objects.modify(Pod, "old", "default", lambda pod: with_meta(pod, labels={"app": "other"}))
        await asyncio.sleep(0.1)
        assert await world.controller.reconcile("all") == 2.0
        pod = await world.pod("a")
        assert "8080" in unschedulable(pod)
        assert STOP_FIRST not in pod.metadata.annotations
        writes = world.store.writes
        assert await world.controller.reconcile("all") == 2.0
        assert world.store.writes == writes, "the same again is no news"

    with_world(body)


def test_the_old_pod_that_stands_in_the_way_is_named_until_it_is_gone() -> None:
    async def body(world: World) -> None:
        await world.add_node("n1")
        await world.replicas("web:1", "old", on="n1")
        await world.replicas("web:2", "new")
        await world.controller.reconcile("all")
        assert (await world.pod("new")).metadata.annotations[STOP_FIRST] == "old"
        await world.objects.finish_delete(await world.pod("old"))
        await asyncio.sleep(0.1)
        await world.controller.reconcile("all")
        assert (await world.pod("new")).spec.node_name == "n1"

    with_world(body)


def test_nothing_is_stopped_for_a_pod_that_fits_on_a_node_which_is_away_for_a_moment() -> None:
    async def body(world: World) -> None:
        await world.add_node("n1")
        await world.replicas("web:1", "old", on="n1")
        await world.add_node("n2")
        down = Condition(
            type="Ready", status="False", reason="EngineDown", last_transition_time=rfc3339(NOW), message="restarting"
        )
        fine = (await world.objects.get(Node, "n2", "")).status
        await world.objects.modify(
            Node, "n2", "", lambda node: replace(node, status=replace(fine, conditions=(down,))), status=True
        )
        world.allowed, world.away = frozenset({"n1"}), frozenset({"n2"})
        await world.replicas("web:2", "new")
        for _ in range(2):
            await world.controller.reconcile("all")
            assert STOP_FIRST not in (await world.pod("new")).metadata.annotations
            world.clock.passed_s += 5
        await world.objects.modify(Node, "n2", "", lambda node: replace(node, status=fine), status=True)
        await asyncio.sleep(0.1)
        world.allowed, world.away = frozenset({"n1", "n2"}), frozenset()
        await world.controller.reconcile("all")
        assert (await world.pod("new")).spec.node_name == "n2"

    with_world(body)


@pytest.mark.parametrize(
    ("reason", "passed_s"),
    [pytest.param("Ready", AWAY_S + 1, id="it does not come back"), pytest.param("", 0.0, id="it was away before")],
)
def test_a_node_that_does_not_come_back_is_not_waited_for(reason: str, passed_s: float) -> None:
    async def body(world: World) -> None:
        await world.add_node("n1")
        await world.replicas("web:1", "old", on="n1")
        await world.put(node("n2", state=reason or "EngineDown"))
        await world.put(with_meta(load(), name="n2"))
        await asyncio.sleep(0.1)
        world.allowed, world.away = frozenset({"n1"}), frozenset({"n2"})
        await world.replicas("web:2", "new")
        await world.controller.reconcile("all")
        assert (STOP_FIRST in (await world.pod("new")).metadata.annotations) == (not passed_s)
        world.clock.passed_s += passed_s
        await world.controller.reconcile("all")
        assert (await world.pod("new")).metadata.annotations[STOP_FIRST] == "old"

    with_world(body)


def test_who_fits_on_no_node_that_is_away_either_does_not_wait() -> None:
    async def body(world: World) -> None:
        for name in ("n1", "n2"):
            await world.add_node(name)
            await world.replicas("web:1", f"old-{name}", on=name)
        world.allowed, world.away = frozenset({"n1"}), frozenset({"n2"})
        await world.replicas("web:2", "new")
        await world.controller.reconcile("all")
        assert (await world.pod("new")).metadata.annotations[STOP_FIRST] == "old-n1"

    with_world(body)


def test_others_pods_are_seen_and_not_placed() -> None:
    async def body(world: World) -> None:
        await world.add_node("n1")
        await world.replicas("web:1", "theirs")
        assert await world.controller.reconcile("all") is None
        assert (await world.pod("theirs")).spec.node_name == ""

    with_world(body)


def test_pods_of_a_deployment_that_was_deleted_are_not_placed() -> None:
    async def body(world: World) -> None:
        await world.replicas("web:1", "a")
        await world.objects.delete(Deployment, "web")
        await world.add_node("n1")
        assert await world.controller.reconcile("all") is not None
        assert (await world.pod("a")).spec.node_name == ""
        await world.put(with_meta(deployment("web:1"), uid="another"))
        await asyncio.sleep(0.1)
        await world.controller.reconcile("all")
        assert (await world.pod("a")).spec.node_name == ""

    with_world(body)


def test_who_makes_room_is_tried_once_for_pods_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    real = scheduling.schedule

    def counted(*args, **more):
        tried.append(1)
        return real(*args, **more)

    async def body(world: World) -> None:
        for number in range(3):
            await world.add_node(f"n{number}")
            await world.replicas("other:1", f"x{number}", on=f"n{number}")
        await world.replicas("web:1", *(f"old{number:02}" for number in range(30)), on="n0")
        await world.replicas("web:2", *(f"new{number:02}" for number in range(40)))
        await world.controller.reconcile("all")
        assert len(tried) <= 1 + scheduling.RIVALS_TRIED, "not old pods times new pods"

    monkeypatch.setattr(scheduling, "schedule", counted)
    with_world(body)


@pytest.mark.parametrize(("error", "ends"), [(FencedError("another leads"), True), (ConflictError("changed"), False)])
def test_only_a_lost_lead_ends_it(error: Exception, ends: bool) -> None:
    async def body(world: World) -> None:
        await world.add_node("n1")
        await world.replicas("web:1", "a")

        async def bind(*_: object) -> Pod:
            raise error

        world.view.bind = bind  # type: ignore[method-assign]
        if ends:
            with pytest.raises(FencedError):
                await world.controller.reconcile("all")
        else:
            await world.controller.reconcile("all")

    with_world(body)
