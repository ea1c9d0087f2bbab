"""A wall clock that is set while somebody waits: rollouts, settling pods and tolerations have their time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from korch.controllers.deployment import DeploymentController
from korch.controllers.rollout import plan_rollout
from korch.master.background import background
from korch.master.samples import changes_score
from korch.master.steady import SteadyClock, follow_steps
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.batch import Job, JobSpec, JobStatus
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.node import Node, NodeLoad, NodeSpec, Taint
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.podstate import condition, is_available, with_condition
from korch.resources.times import parse_time, rfc3339
from korch.resources.workload import DaemonSet, Deployment, PodTemplateSpec, ReplicaSet
from tests.unit.controllers.cluster import deployment
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

STEPS = [3600.0, -3600.0, 86_400.0 * 365]


class StepClock(LoopClock):
    """Can be set."""

    step_s = 0.0

    def now(self) -> float:
        return super().now() + self.step_s


class World:
    def __init__(self) -> None:
        self.wall = StepClock()
        self.clock = SteadyClock(self.wall)
        self.objects = Objects(MemoryStore(), clock=self.clock)  # type: ignore[arg-type]
        self.view = View(self.objects, (Deployment, ReplicaSet, DaemonSet, Job, Pod, Node))


def with_world(body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        async with background() as group:
            await world.view.start(group)
            group.create_task(follow_steps(world.clock, world.view))
            await body(world)

    run_virtually(main)


def test_a_step_is_held_back_until_it_is_accepted() -> None:
    at = {"wall": 1000.0, "steady": 5.0}

    class Wall:
        def now(self) -> float:
            return at["wall"]

    clock = SteadyClock(Wall(), lambda: at["steady"])
    at["wall"] += 10
    at["steady"] += 10
    assert (clock.now(), clock.step_s) == (1010.0, 0.0)
    at["wall"] += 1.5
    assert (clock.now(), clock.step_s) == (1011.5, 0.0), "slewing is no step"
    at["wall"] += 3600
    assert (clock.now(), clock.step_s) == (1011.5, 3600.0)
    at["wall"] += 1
    at["steady"] += 1
    assert clock.now() == 1012.5
    clock.accept(3600.0)
    assert (clock.now(), clock.step_s) == (4612.5, 0.0)
    at["wall"] -= 3600
    assert (clock.now(), clock.step_s) == (4612.5, -3600.0)


@pytest.mark.parametrize("step_s", STEPS)
def test_a_rollout_keeps_its_deadline(step_s: float) -> None:
    async def body(world: World) -> None:
        wish = replace(deployment("web:1", 1), status=deployment().status)
        await world.objects.create(wish)
        await asyncio.sleep(0.1)
        controller = DeploymentController(world.view, world.clock)
        for _ in range(3):
            await controller.reconcile(("default", "web"))
            await asyncio.sleep(10)
        world.wall.step_s = step_s

        async def failed() -> bool:
            await controller.reconcile(("default", "web"))
            found = condition((await world.objects.get(Deployment, "web")).status.conditions, "RolledBack")
            return found is not None

        for _ in range(5):
            assert not await failed(), "its 60 s are not over"
            await asyncio.sleep(5)
        await asyncio.sleep(30)
        assert await failed(), "and then they are"
        assert abs(world.clock.now() - world.wall.now()) < 1, "new times are those of the wall"

    with_world(body)


@pytest.mark.parametrize("step_s", STEPS)
def test_a_pod_has_to_stay_ready_for_as_long_as_before(step_s: float) -> None:
    async def body(world: World) -> None:
        await world.objects.create(replace(deployment("web:1", 1, min_ready=50), status=deployment().status))

        async def make(name: str) -> None:
            await world.objects.create(
                Pod(metadata=ObjectMeta(name=name), spec=PodSpec(containers=(Container(name="c", image="w"),)))
            )
            ready = with_condition((), Condition(type="Ready", status="True"), rfc3339(world.clock.now()))
            await world.objects.modify(
                Pod,
                name,
                "default",
                lambda pod: replace(pod, status=replace(pod.status, phase="Running", conditions=ready)),
                status=True,
            )

        async def available(name: str) -> bool:
            return is_available(await world.objects.get(Pod, name), 50, world.clock.now())

        await make("old")
        await asyncio.sleep(1000)
        await make("new")
        await asyncio.sleep(30)
        world.wall.step_s = step_s
        for _ in range(4):
            assert await available("old"), "what was settled stays so"
            assert not await available("new")
            await asyncio.sleep(5)
        await asyncio.sleep(15)
        assert await available("new")

    with_world(body)


@pytest.mark.parametrize("step_s", STEPS)
def test_taints_are_as_old_as_before(step_s: float) -> None:
    async def body(world: World) -> None:
        taint = Taint(key="k", effect="NoExecute", time_added=rfc3339(world.clock.now()))
        await world.objects.create(Node(metadata=ObjectMeta(name="n1"), spec=NodeSpec(taints=(taint,))))
        await asyncio.sleep(100)
        world.wall.step_s = step_s
        await asyncio.sleep(10)
        (found,) = (await world.objects.get(Node, "n1", "")).spec.taints
        assert 108 <= world.clock.now() - parse_time(found.time_added or "") <= 112

    with_world(body)


@pytest.mark.parametrize("step_s", STEPS)
def test_a_job_has_run_for_as_long_as_before(step_s: float) -> None:
    async def body(world: World) -> None:
        pod = PodSpec(containers=(Container(name="c", image="w"),), restart_policy="Never")
        for name, limit in (("limited", 60), ("patient", None)):
            spec = JobSpec(template=PodTemplateSpec(spec=pod), active_deadline_seconds=limit)
            await world.objects.create(Job(metadata=ObjectMeta(name=name), spec=spec))
            status = JobStatus(start_time=rfc3339(world.clock.now()))
            await world.objects.modify(
                Job, name, "default", lambda job, to=status: replace(job, status=to), status=True
            )
        await asyncio.sleep(30)
        world.wall.step_s = step_s
        await asyncio.sleep(5)
        began = parse_time((await world.objects.get(Job, "limited")).status.start_time or "")
        assert 34 <= world.clock.now() - began <= 36
        assert (await world.objects.get(Job, "patient")).status.start_time == status.start_time

    with_world(body)


def test_a_sample_from_before_a_clock_was_set_back_is_replaced() -> None:
    old = NodeLoad(metadata=ObjectMeta(name="n1"), sampled_at=rfc3339(5000.0))
    assert changes_score(old, replace(old, sampled_at=rfc3339(1400.0)))
    assert not changes_score(old, replace(old, sampled_at=rfc3339(5005.0)))
    assert not changes_score(old, replace(old, sampled_at=rfc3339(5030.0))), "nothing has changed"


def test_times_without_a_step_are_left_alone() -> None:
    async def body(world: World) -> None:
        await world.objects.create(replace(deployment("web:1", 1), status=deployment().status))
        await asyncio.sleep(0.1)
        before = await world.objects.list(Deployment)
        await asyncio.sleep(3600)
        assert await world.objects.list(Deployment) == before
        found = before.items[0]
        assert plan_rollout(found, (), {}, world.clock.now()).create_revision == 1

    with_world(body)
