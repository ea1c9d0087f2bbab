"""One-shot runs with all parts but the nodes: what is done, what is left alone, when they end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from korch.client.base import Outcome, Progress, Workload
from korch.engines.images import ImageInfo
from korch.errors import HostUnreachableError, KorchError, RolloutFailedError
from korch.master.oneshot import OneShot
from korch.nodes.errors import EngineCallError
from korch.objects.objects import Objects
from korch.resources.codec import with_meta
from korch.resources.meta import LabelSelector, Object, ObjectMeta
from korch.resources.node import Node, Taint
from korch.resources.pod import Container, HTTPGetAction, Pod, PodSpec, Probe
from korch.resources.workload import Deployment, DeploymentStrategy, PodTemplateSpec, ReplicaSet, ReplicaSetSpec
from korch.scheduler.taints import NOT_READY, UNREACHABLE
from korch.store.lease import Lead
from tests.unit.controllers.cluster import deployment
from tests.unit.nodes.fake_machine import CLUSTER, FakeMachine
from tests.unit.nodes.virtual_loop import run_virtually
from tests.unit.objects.memory_store import MemoryStore
from tests.unit.scheduler.world import NOW, load, node

PROBE = Probe(http_get=HTTPGetAction(path="/", port=80), period_seconds=1)


class WallClock:
    def now(self) -> float:
        return NOW + asyncio.get_running_loop().time()


class LoopLeaseClock:
    """The lease's clock, in virtual time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Machine(FakeMachine):
    """Also keeps wishes and images."""

    async def write_wish(self, namespace: str, workload: str, content: bytes, *, epoch: int) -> None:
        await self._call("wish", f"{namespace}/{workload}")

    async def prune(self, keep: object, *, epoch: int) -> tuple[str, ...]:
        return ()


class FakeFleet:
    """All nodes answer the first look."""

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self.machines = dict(machines)
        self.lost: dict[str, KorchError] = {}
        self.surveys = 0
        self.fetched: dict[str, frozenset[str]] = {}
        self.awaited: frozenset[str] = frozenset()

    @property
    def problems(self) -> dict[str, KorchError]:
        return dict(self.lost)

    @property
    def listed(self) -> frozenset[str]:
        return self.placeable

    @property
    def placeable(self) -> frozenset[str]:
        return frozenset(self.machines.keys() - self.lost.keys())

    async def contacts(self, *, claim: bool, hurried: bool = False) -> dict[str, Any]:
        return {
            name: SimpleNamespace(
                machine=machine,
                address=f"10.0.0.{number}",
                images=frozenset(),
                report=SimpleNamespace(containers=tuple(machine.held.values()), epoch=0, state="Ready"),
            )
            for number, (name, machine) in enumerate(sorted(self.machines.items()), 1)
            if name not in self.lost
        }

    async def look_anew(self) -> None:
        self.surveys += 1

    async def late(self) -> AsyncGenerator[str, None]:
        return
        yield

    async def record_images(self, name: str, fetched: Mapping[str, ImageInfo]) -> None:
        self.fetched[name] = frozenset(fetched)

    def mark_lost(self, name: str, error: KorchError) -> None:
        self.lost[name] = error

    def mark_found(self, name: str) -> None:
        self.lost.pop(name, None)


class World:
    def __init__(self, folder: Path, nodes: int = 3) -> None:
        self.store = MemoryStore()
        self.objects = Objects(self.store, clock=WallClock())  # type: ignore[arg-type]
        self.machines = {f"n{number}": Machine(f"n{number}") for number in range(1, nodes + 1)}
        self.fleet = FakeFleet(self.machines)
        self.folder = folder
        self.steps: list[Progress] = []
        self.cluster: Any = SimpleNamespace(
            store=self.store,
            objects=self.objects,
            clock=WallClock(),
            settings=SimpleNamespace(cluster_dir=folder),
            record=CLUSTER,
        )

    async def set_up(self) -> None:
        for name in self.machines:
            await self.objects.restore(node(name))
            await self.objects.restore(with_meta(load(), name=name))

    async def wish(self, obj: Object) -> Object:
        return (await self.objects.apply(obj))[0]

    async def run(self, *workloads: str, timeout_s: float = 60.0, since: int = 0) -> tuple[Outcome, ...]:
        names = tuple(Workload("default", name) for name in workloads)
        one = OneShot(
            self.cluster,
            self.fleet,  # type: ignore[arg-type]
            names,
            since=dict.fromkeys(names, since),
            on_progress=self.steps.append,
        )
        one._lead._clock = LoopLeaseClock()
        return await one.run(timeout_s)

    async def deploy(self, obj: Deployment, **more: Any) -> Outcome:
        made = await self.wish(obj)
        (outcome,) = await self.run(made.metadata.name, since=made.metadata.generation, **more)
        return outcome

    async def pods(self) -> list[Pod]:
        return list((await self.objects.list(Pod)).items)

    @property
    def containers(self) -> int:
        return sum(len(machine.held) for machine in self.machines.values())


def in_world(tmp_path: Path, body: Callable[[World], Awaitable[None]], **more: Any) -> None:
    async def main() -> None:
        world = World(tmp_path, **more)
        await world.set_up()
        await body(world)

    run_virtually(main)


def app(
    name: str = "web", image: str = "web:1", replicas: int = 3, *, auto: bool = True, **container: Any
) -> Deployment:
    found = deployment(image, replicas, auto=auto)
    labels = {"app": name}
    main = replace(found.spec.template.spec.containers[0], **container)
    template = PodTemplateSpec(metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=(main,)))
    spec = replace(found.spec, selector=LabelSelector(match_labels=labels), template=template)
    notes = found.metadata.annotations
    return Deployment(metadata=ObjectMeta(name=name, namespace="default", annotations=notes), spec=spec)


def ok(outcome: Outcome) -> None:
    assert outcome.error is None, str(outcome.error)


def failed(outcome: Outcome) -> str:
    assert isinstance(outcome.error, RolloutFailedError)
    return str(outcome.error)


# --- what comes true ---


def test_a_deploy_runs_spread_out_and_the_second_time_changes_nothing(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        first = await world.deploy(app())
        ok(first)
        assert first.changed
        assert sorted(pod.spec.node_name for pod in first.pods) == ["n1", "n2", "n3"]
        writes = world.store.writes
        again = await world.deploy(app())
        ok(again)
        assert not again.changed
        assert world.store.writes - writes < 10
        assert [machine.count("start") for machine in world.machines.values()] == [1, 1, 1]

    in_world(tmp_path, body)


def test_a_node_that_a_former_master_had_lost_and_that_works_takes_pods(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        taints = tuple(Taint(key=key, effect="NoExecute") for key in (UNREACHABLE, NOT_READY))
        for name in world.machines:
            await world.objects.modify(
                Node, name, "", lambda found: replace(found, spec=replace(found.spec, taints=taints))
            )
        ok(await world.deploy(app()))
        assert [found.spec.taints for found in (await world.objects.list(Node)).items] == [()] * 3

    in_world(tmp_path, body)


def test_images_that_came_go_on_record_at_the_end(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app()))
        assert set(world.fleet.fetched) == {"n1", "n2", "n3"}
        assert len({frozenset(images) for images in world.fleet.fetched.values()}) == 1

    in_world(tmp_path, body)


def test_only_the_workload_that_is_named_is_touched(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        await world.wish(app("web-a"))
        ok(await world.deploy(app("web")))
        assert {pod.metadata.labels["app"] for pod in await world.pods()} == {"web"}
        (late,) = await world.run("web-a")
        ok(late)
        assert world.containers == 6

    in_world(tmp_path, body)


def test_no_replicas(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app(replicas=0)))
        ok(await world.deploy(app(replicas=2)))
        ok(await world.deploy(app(replicas=0)))
        assert (world.containers, await world.pods()) == (0, [])

    in_world(tmp_path, body)


def test_a_set_of_its_own_with_dashes_in_its_name(tmp_path: Path) -> None:
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels={"a": "b"}), spec=PodSpec(containers=(Container(name="x", image="x:1"),))
    )
    alone = ReplicaSet(
        metadata=ObjectMeta(name="my-old-app", namespace="default"),
        spec=ReplicaSetSpec(replicas=2, selector=LabelSelector(match_labels={"a": "b"}), template=template),
    )

    async def body(world: World) -> None:
        await world.wish(alone)
        (outcome,) = await world.run("my-old-app")
        ok(outcome)
        assert world.containers == 2

    in_world(tmp_path, body)


def test_a_pod_of_its_own_that_does_its_work_and_one_that_fails(tmp_path: Path) -> None:
    def job(name: str) -> Pod:
        spec = PodSpec(containers=(Container(name="job", image="job:1"),), restart_policy="Never")
        return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)

    async def body(world: World) -> None:
        for name, code in (("good", 0), ("bad", 3)):
            for machine in world.machines.values():
                machine.ends_with = code
            await world.wish(job(name))
            (outcome,) = await world.run(name)
            assert (outcome.error is None) == (code == 0)
            (again,) = await world.run(name)
            assert (again.error is None) == (code == 0)

    in_world(tmp_path, body)


def test_a_pod_of_its_own_gets_another_image_within_the_run(tmp_path: Path) -> None:
    def pod(image: str) -> Pod:
        return Pod(
            metadata=ObjectMeta(name="one", namespace="default"),
            spec=PodSpec(containers=(Container(name="main", image=image),)),
        )

    async def body(world: World) -> None:
        await world.wish(pod("one:1"))
        ok((await world.run("one"))[0])
        await world.wish(pod("one:2"))
        ok((await world.run("one"))[0])
        assert [found.image for machine in world.machines.values() for found in machine.held.values()] == ["one:2"]
        for machine in world.machines.values():
            machine.faults["pull"] = EngineCallError("n1: no such image", host="n1", pod_reason="ErrImagePull")
        await world.wish(pod("typo:1"))
        assert "still has the image that it had before" in failed((await world.run("one"))[0])
        assert [found.image for machine in world.machines.values() for found in machine.held.values()] == ["one:2"]

    in_world(tmp_path, body)


def test_fifty_workloads_at_once(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        names = [f"app-{number}" for number in range(50)]
        for name in names:
            await world.wish(app(name, replicas=2))
        outcomes = await world.run(*names)
        for outcome in outcomes:
            ok(outcome)
        assert [outcome.workload.name for outcome in outcomes] == names
        assert world.containers == 100
        assert world.store.writes < 25 * 100

    in_world(tmp_path, body)


def test_recreate_and_a_deployment_that_is_made_anew(tmp_path: Path) -> None:
    def recreate(image: str) -> Deployment:
        found = app(image=image)
        return replace(found, spec=replace(found.spec, strategy=DeploymentStrategy(type="Recreate")))

    async def body(world: World) -> None:
        ok(await world.deploy(recreate("web:1")))
        ok(await world.deploy(recreate("web:2")))
        assert {pod.spec.containers[0].image for pod in await world.pods()} == {"web:2"}
        await world.objects.delete(Deployment, "web")
        ok(await world.deploy(recreate("web:2")))  # same name, same template, another deployment
        (found,) = (await world.objects.list(Deployment)).items
        sets = (await world.objects.list(ReplicaSet)).items
        assert {owner.uid for one in sets for owner in one.metadata.owner_references} == {found.metadata.uid}
        assert world.containers == len(await world.pods()) == 3

    in_world(tmp_path, body)


# --- what changes meanwhile ---


def test_a_deployment_that_is_deleted_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        for machine in world.machines.values():
            machine.delays["pull"] = 300
        await world.wish(app())
        running = asyncio.create_task(world.run("web"))
        await asyncio.sleep(5)
        await world.objects.delete(Deployment, "web")
        (outcome,) = await running
        ok(outcome)
        assert (await world.pods(), world.containers) == ([], 0)
        assert (await world.objects.list(ReplicaSet)).items == ()
        assert asyncio.get_running_loop().time() < 30

    in_world(tmp_path, body)


def test_templates_that_flip_back_and_forth_end_as_last_wished(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app()))
        for machine in world.machines.values():
            machine.delays["start"] = 0.5
        await world.wish(app(image="web:2"))
        running = asyncio.create_task(world.run("web"))
        for number in range(7):
            await asyncio.sleep(0.3)
            await world.wish(app(image=f"web:{2 + number % 3}"))
        (outcome,) = await running
        ok(outcome)
        images = {pod.spec.containers[0].image for pod in await world.pods()}
        assert images == {"web:2"}
        assert world.containers == 3

    in_world(tmp_path, body)


def test_a_failed_revision_goes_back_and_a_wish_meanwhile_is_followed(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app()))
        for machine in world.machines.values():
            machine.answer = ConnectionRefusedError("down")
        text = failed(await world.deploy(app(image="web:bad", readiness_probe=PROBE)))
        assert "the health check failed" in text
        assert {pod.spec.containers[0].image for pod in await world.pods()} == {"web:1"}
        ok(await world.deploy(app(image="web:3")))

    in_world(tmp_path, body)


# --- time ---


def test_what_never_becomes_ready_ends_with_the_time_given(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        slow = replace(PROBE, failure_threshold=10_000)
        for machine in world.machines.values():
            machine.answer = ConnectionRefusedError("down")
        text = failed(await world.deploy(app(auto=False, readiness_probe=slow), timeout_s=20))
        assert "not finished after 20 s" in text
        assert 20 <= asyncio.get_running_loop().time() < 22, "objects of Kubernetes do not go back: no more time"

    in_world(tmp_path, body)


def test_a_revision_that_may_go_back_gets_the_time_for_it(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app()))
        slow = replace(PROBE, failure_threshold=10_000)
        for machine in world.machines.values():
            machine.answer = ConnectionRefusedError("down")
        text = failed(await world.deploy(app(image="web:2", readiness_probe=slow), timeout_s=60))
        assert "Rolled back to revision 1" in text
        assert {pod.spec.containers[0].image for pod in await world.pods()} == {"web:1"}

    in_world(tmp_path, body)


# --- nodes and masters that go away ---


def test_replicas_that_never_ran_on_a_lost_node_start_elsewhere(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        world.machines["n3"].cut()
        outcome = await world.deploy(app())
        ok(outcome)
        assert {pod.spec.node_name for pod in outcome.pods} == {"n1", "n2"}
        assert any(note.startswith("n3: ") for note in outcome.notes)

    in_world(tmp_path, body)


def test_replicas_on_a_silent_node_stay_and_are_no_success(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app()))
        world.fleet.lost["n3"] = HostUnreachableError("n3: no route", host="n3")
        text = failed((await world.run("web"))[0])
        assert "no answer from n3" in text
        assert len(await world.pods()) == 3
        world.fleet.lost.clear()
        ok((await world.run("web"))[0])

    in_world(tmp_path, body)


def test_a_node_that_comes_back_within_the_run_counts_again(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app()))
        for machine in world.machines.values():
            machine.delays["pull"] = 40
        await world.wish(app(image="web:2"))
        running = asyncio.create_task(world.run("web", timeout_s=600))
        await asyncio.sleep(5)
        away = next(pod.spec.node_name for pod in await world.pods() if pod.status.phase == "Running")
        world.machines[away].cut()
        await asyncio.sleep(15)
        world.machines[away].heal()
        (outcome,) = await running
        ok(outcome)
        assert {pod.spec.containers[0].image for pod in outcome.pods} == {"web:2"}

    in_world(tmp_path, body)


def test_one_that_loses_the_lead_stops_follows_and_goes_on_when_it_is_free(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        for machine in world.machines.values():
            machine.delays["pull"] = 5
        await world.wish(app())
        running = asyncio.create_task(world.run("web", timeout_s=300))
        await asyncio.sleep(2)
        other = Lead(world.store, clock=LoopLeaseClock())  # type: ignore[arg-type]
        assert await other.acquire(steal=True)
        await asyncio.sleep(30)
        starts = sum(machine.count("start") for machine in world.machines.values())
        assert not running.done()
        await asyncio.sleep(30)
        assert sum(machine.count("start") for machine in world.machines.values()) == starts, "it only follows"
        await other.release()
        (outcome,) = await running
        ok(outcome)
        assert world.containers == 3
        assert world.fleet.surveys >= 1, "the nodes are looked at anew"

    in_world(tmp_path, body)


def test_a_run_that_is_cancelled_gives_the_lead_back(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        for machine in world.machines.values():
            machine.delays["pull"] = 100
        await world.wish(app())
        running = asyncio.create_task(world.run("web"))
        await asyncio.sleep(3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        other = Lead(world.store, clock=LoopLeaseClock())  # type: ignore[arg-type]
        assert await other.acquire()
        await other.release()
        for machine in world.machines.values():
            machine.delays.clear()
        (outcome,) = await world.run("web")
        ok(outcome)

    in_world(tmp_path, body)


# --- leaving ---


def test_a_scale_is_brought_to_the_nodes_that_hold_the_wish(tmp_path: Path) -> None:
    async def body(world: World) -> None:
        ok(await world.deploy(app(replicas=2)))
        ok(await world.deploy(app(replicas=1)))
        assert sum(machine.count("wish") for machine in world.machines.values()) == 1

    in_world(tmp_path, body)
