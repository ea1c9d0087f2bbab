"""A keeper's life with its node: faults, slowness, loss, and what the store is told."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from msgspec.structs import replace

from korch.errors import FencedError, KorchError
from korch.master.background import background
from korch.nodes.errors import EngineCallError
from korch.nodes.keeper import Keeper
from korch.nodes.slots import PULLS_AT_ONCE, SLOW_AT_ONCE
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.codec import with_meta
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Secret
from korch.resources.pod import (
    ConfigMapVolumeSource,
    Container,
    EnvVar,
    EnvVarSource,
    ExecAction,
    HTTPGetAction,
    Pod,
    PodSpec,
    Probe,
    SecretKeySelector,
    Volume,
)
from korch.resources.podstate import condition, is_ready, main_status
from korch.resources.service import EndpointSlice
from korch.resources.workload import ReplicaSet
from tests.unit.nodes.fake_machine import OK, FakeMachine
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

PROBE = Probe(http_get=HTTPGetAction(path="/healthz", port=80), period_seconds=5, failure_threshold=3)


class World:
    """One node with its keeper, on a store in memory; `after` another keeper of the same node."""

    def __init__(self, *, stays: bool = False, after: "World | None" = None) -> None:
        self.store = after.store if after else MemoryStore()
        self.machine = after.machine if after else FakeMachine()
        self.heard: list[str] = []
        self.objects = Objects(self.store, clock=LoopClock())  # type: ignore[arg-type]
        self.view = View(self.objects, (Pod, ReplicaSet, EndpointSlice, ConfigMap, Secret))
        self.keeper = Keeper(
            "n1",
            self.machine,  # type: ignore[arg-type]
            self.view,
            LoopClock(),
            address="10.0.0.1",
            epoch=lambda: 1,
            mine=lambda pod: pod.metadata.labels.get("mine") != "no",
            on_contact=lambda node, error: self.heard.append(f"{node} {'lost' if error else 'back'}"),
        )
        self.keeper.stays = stays
        self.view.listen(lambda change: self.keeper.wake(change.object))  # type: ignore[arg-type]

    async def pod(self, name: str = "web-1", *, namespace: str = "default", **container: object) -> Pod:
        spec = container.pop("spec", {})
        pod = Pod(
            metadata=ObjectMeta(name=name, namespace=namespace),
            spec=PodSpec(containers=(Container(name="web", image="web:1", **container),), node_name="n1", **spec),
        )
        return await self.objects.create(pod)

    async def now(self, name: str = "web-1") -> Pod:
        return await self.objects.get(Pod, name)

    async def reason(self, name: str = "web-1") -> str:
        """Why it is not ready; "" when it is."""
        pod = await self.now(name)
        found = condition(pod.status.conditions, "Ready")
        return "" if is_ready(pod) else (found.reason if found else "unknown")

    async def gone(self, name: str = "web-1") -> bool:
        return await self.objects.find(Pod, name) is None


def with_keeper(body: Callable[[World], Awaitable[None]], *, stays: bool = False) -> None:
    async def main() -> None:
        world = World(stays=stays)
        async with background() as group:
            await world.view.start(group)
            group.create_task(world.keeper.run())
            await body(world)

    run_virtually(main)


def refused(reason: str = "ImageNotFound") -> EngineCallError:
    return EngineCallError("n1: no such image", host="n1", pod_reason=reason)


# --- starting and removing ---


def test_a_pod_is_started_reported_and_removed_with_a_tombstone() -> None:
    async def body(world: World) -> None:
        made = await world.pod()
        await asyncio.sleep(2)
        pod = await world.now()
        assert (pod.status.phase, pod.status.host_ip, is_ready(pod)) == ("Running", "10.0.0.1", True)
        assert (world.machine.count("pull"), world.machine.count("start")) == (1, 1)
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(2)
        assert await world.gone()
        assert world.machine.held == {}
        assert await world.objects.tombstone(made.metadata.uid) is not None

    with_keeper(body)


def test_pods_of_the_same_name_in_two_namespaces_are_two() -> None:
    async def body(world: World) -> None:
        await world.objects.create(_namespace("other"))
        await world.pod()
        other = await world.pod(namespace="other")
        await asyncio.sleep(2)
        assert len(world.machine.held) == 2
        await world.objects.delete(Pod, "web-1", "default")
        await asyncio.sleep(2)
        assert list(world.machine.held) == [other.metadata.uid]

    with_keeper(body)


def _namespace(name: str):
    from korch.resources.misc import Namespace

    return Namespace(metadata=ObjectMeta(name=name))


def test_what_fails_is_tried_again_with_back_off_however_often_the_node_is_looked_at() -> None:
    async def body(world: World) -> None:
        world.machine.faults["pull"] = refused()
        await world.pod()
        await asyncio.sleep(62)
        assert 4 <= world.machine.count("pull") <= 7
        assert world.machine.count("look") > 100
        assert world.store.writes < 60, "a failure that stays the same is not written again and again"
        status = main_status(await world.now())
        assert status is not None
        assert status.state.waiting is not None
        world.machine.faults.clear()
        await asyncio.sleep(70)
        assert await world.reason() == ""

    with_keeper(body)


def test_a_pod_that_could_not_start_goes_at_once() -> None:
    async def body(world: World) -> None:
        world.machine.faults["start"] = refused("PortTaken")
        await world.pod()
        await asyncio.sleep(60)
        assert await world.reason() == "PortTaken"
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(1)
        assert await world.gone()

    with_keeper(body)


def test_a_pod_that_is_deleted_while_its_image_comes_is_never_started() -> None:
    async def body(world: World) -> None:
        world.machine.delays["pull"] = 500
        await world.pod()
        await asyncio.sleep(5)
        assert await world.reason() == "Pulling"
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(3)
        assert await world.gone(), "nobody waits for an image that is not wanted"
        await asyncio.sleep(600)
        assert world.machine.count("start") == 0

    with_keeper(body)


def test_a_successor_of_the_same_name_is_another_pod() -> None:
    async def body(world: World) -> None:
        world.machine.delays["start"] = 20
        old = await world.pod()
        await asyncio.sleep(5)
        await world.objects.finish_delete(old)
        new = await world.pod()
        await asyncio.sleep(60)
        assert is_ready(await world.now())
        assert new.metadata.uid in world.machine.held
        assert world.machine.calls.count("start web-1") == 2

    with_keeper(body)


def test_a_missing_secret_may_come_later() -> None:
    async def body(world: World) -> None:
        source = EnvVarSource(secret_key_ref=SecretKeySelector(name="late", key="K"))
        await world.pod(env=(EnvVar(name="K", value_from=source),))
        await asyncio.sleep(30)
        (status,) = (await world.now()).status.container_statuses
        assert status.state.waiting is not None
        assert status.state.waiting.reason == "CreateContainerConfigError"
        assert 'no Secret "late" in namespace default (Create it' in status.state.waiting.message
        await world.objects.create(
            Secret(metadata=ObjectMeta(name="late", namespace="default"), string_data={"K": "v"})
        )
        await asyncio.sleep(10)
        assert is_ready(await world.now())

    with_keeper(body)


def test_a_pod_that_a_finalizer_holds_is_ended_once() -> None:
    async def body(world: World) -> None:
        made = await world.pod()
        await world.objects.modify(
            Pod, "web-1", "default", lambda pod: with_meta(pod, finalizers=("example.com/wait",))
        )
        await asyncio.sleep(2)
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(2)
        writes = world.store.writes
        await asyncio.sleep(60)
        assert world.machine.held == {}
        assert (world.store.writes, world.machine.count("remove")) == (writes, 1)
        assert not await world.gone()
        await world.objects.modify(Pod, "web-1", "default", lambda pod: with_meta(pod, finalizers=()))
        assert await world.gone()
        assert await world.objects.tombstone(made.metadata.uid) is not None

    with_keeper(body)


def test_nothing_is_remembered_of_pods_that_are_gone() -> None:
    async def body(world: World) -> None:
        world.machine.faults["start"] = refused("PortTaken")
        for number in range(20):
            pod = await world.pod(f"web-{number}", readiness_probe=PROBE)
            await asyncio.sleep(1)
            await world.objects.finish_delete(pod)  # by somebody else
        await asyncio.sleep(2)
        assert world.keeper._ward.remembered() == set()

    with_keeper(body)


# --- looking ---


def test_a_look_that_overlaps_a_start_does_not_report_it_gone() -> None:
    async def body(world: World) -> None:
        await world.pod("first")
        await asyncio.sleep(1)
        world.machine.delays |= {"look": 3.0, "start": 0.4}  # an answer that is old when it comes
        reasons: set[str] = set()
        world.view.listen(lambda change: reasons.add(_reason_of(change.object)))
        await world.pod()
        await asyncio.sleep(20)
        assert world.machine.count("start") == 2
        assert "ContainerGone" not in reasons
        assert is_ready(await world.now())

    with_keeper(body)


def _reason_of(pod: object) -> str:
    assert isinstance(pod, Pod)
    found = condition(pod.status.conditions, "Ready")
    return found.reason if found else ""


def test_a_crash_beside_a_long_pull_is_seen() -> None:
    async def body(world: World) -> None:
        first = await world.pod("first", spec={"restart_policy": "Never"})
        await asyncio.sleep(2)
        world.machine.delays["pull"] = 400
        slow = await world.pod("slow")
        world.keeper._ward.images.clear()
        await world.objects.modify(
            Pod, slow.metadata.name, "default", lambda pod: with_meta(pod, labels={"again": "1"})
        )
        await asyncio.sleep(2)
        world.machine.end(first.metadata.uid, 3)
        await asyncio.sleep(5)
        assert (await world.now("first")).status.phase == "Failed"

    with_keeper(body)


def test_an_image_that_somebody_removed_is_pulled_at_once_and_no_failure() -> None:
    async def body(world: World) -> None:
        await world.pod("first")
        await asyncio.sleep(2)
        world.machine.faults["start"] = EngineCallError("it is not there", host="n1", pod_reason="ErrImageNeverPull")
        await world.pod("second")
        await asyncio.sleep(0.2)
        assert is_ready(await world.now("second"))
        assert world.machine.count("pull") == 2

    with_keeper(body)


def test_somebody_removed_the_container_it_is_made_anew() -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await asyncio.sleep(2)
        del world.machine.held[pod.metadata.uid]
        await asyncio.sleep(3)
        assert world.machine.count("start") == 2
        assert is_ready(await world.now())

    with_keeper(body)


def test_the_news_of_a_removal_needs_no_look_and_old_news_does_no_harm() -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await asyncio.sleep(2)
        uid = pod.metadata.uid
        first = world.machine.held[uid].id
        world.machine.delays["look"] = 100  # an engine that is busy with the removal answers late
        del world.machine.held[uid]
        world.keeper.glance(uid, gone=first)
        await asyncio.sleep(0.1)
        second = world.machine.held[uid].id
        assert second != first
        world.keeper.glance(uid, gone=first)  # told twice
        await asyncio.sleep(0.1)
        assert world.machine.held[uid].id == second
        assert world.machine.count("start") == 2

    with_keeper(body)


def test_pods_that_are_not_of_this_run_are_left_alone() -> None:
    async def body(world: World) -> None:
        pod = Pod(
            metadata=ObjectMeta(name="theirs", namespace="default", labels={"mine": "no"}),
            spec=PodSpec(containers=(Container(name="web", image="web:1"),), node_name="n1"),
        )
        await world.objects.create(pod)
        await asyncio.sleep(10)
        assert world.machine.calls == []

    with_keeper(body)


# --- ending again and again ---


def test_what_the_engine_does_not_restart_is_started_again_with_back_off() -> None:
    async def body(world: World) -> None:
        pod = await world.pod(spec={"restart_policy": "OnFailure"})
        await asyncio.sleep(2)
        for _ in range(240):
            if world.machine.held[pod.metadata.uid].state == "running":
                world.machine.end(pod.metadata.uid)
            await asyncio.sleep(1)
        assert 4 <= world.machine.count("start") <= 10
        assert world.machine.count("logs") <= world.machine.count("start")
        assert world.store.writes < 12 * world.machine.count("start"), "waiting is not written again and again"
        found = main_status(await world.now())
        assert found is not None
        assert found.last_state.terminated is not None
        assert found.last_state.terminated.exit_code == 1

    with_keeper(body)


async def _dying(world: World, uid: str, *, after_s: float, for_s: float) -> list[float]:
    """An app that dies so long after each start, and is started again by its engine at once; when it was begun anew."""
    loop, begun, last = asyncio.get_running_loop(), [], -1.0
    until = loop.time() + for_s
    while loop.time() < until:
        found = world.machine.held[uid]
        if found.state == "running" and found.started_at is not None:
            if found.started_at != last:
                begun.append(last := found.started_at)
            if loop.time() - found.started_at >= after_s:
                world.machine.restart(uid)
                world.keeper.glance(uid)
        await asyncio.sleep(0.25)
    return begun


def test_what_the_engine_starts_again_and_again_is_taken_over_with_back_off() -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await asyncio.sleep(2)
        begun = await _dying(world, pod.metadata.uid, after_s=11, for_s=1300)
        assert len(begun) <= 22, "without it there would be 118"
        found = main_status(await world.now())
        assert found is not None
        assert found.state.waiting is not None
        assert found.state.waiting.reason == "CrashLoopBackOff"
        assert found.last_state.terminated is not None
        assert "last words" in found.last_state.terminated.message
        assert max(after - before for before, after in pairwise(begun)) >= 300
        assert len(begun) - 1 <= found.restart_count <= 2 * len(begun), "also those that the engine made in between"

        await asyncio.sleep(310)
        await _dying(world, pod.metadata.uid, after_s=100_000, for_s=610)
        assert await world.reason() == "", "it has recovered"
        world.machine.restart(pod.metadata.uid)
        world.keeper.glance(pod.metadata.uid)
        await asyncio.sleep(3)
        assert world.machine.held[pod.metadata.uid].state == "running", "the engine's own restarts are enough again"
        assert await world.reason() == ""

    with_keeper(body, stays=True)


def test_a_run_that_does_not_stay_leaves_restarts_to_the_engine() -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await asyncio.sleep(2)
        assert len(await _dying(world, pod.metadata.uid, after_s=11, for_s=300)) > 20
        assert world.machine.count("stop") == 0, "nobody would be there to start it"

    with_keeper(body)


def test_three_deaths_are_the_engines_to_heal() -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await asyncio.sleep(2)
        await _dying(world, pod.metadata.uid, after_s=20, for_s=65)
        await asyncio.sleep(100)
        assert world.machine.held[pod.metadata.uid].restart_count == 3
        assert world.machine.count("stop") == 0
        assert await world.reason() == ""

    with_keeper(body, stays=True)


def test_each_run_is_counted_however_short_it_is() -> None:
    async def body(world: World) -> None:
        world.machine.ends_with = 1
        await world.pod(spec={"restart_policy": "OnFailure"})
        await asyncio.sleep(60)
        found = main_status(await world.now())
        assert found is not None
        assert found.restart_count == world.machine.count("start") - 1 >= 3

    with_keeper(body)


def test_files_follow_their_values_without_a_restart() -> None:
    async def body(world: World) -> None:
        config = await world.objects.create(ConfigMap(metadata=ObjectMeta(name="m"), data={"a": "1"}))
        volume = Volume(name="v", config_map=ConfigMapVolumeSource(name="m"))
        pod = await world.pod(spec={"volumes": (volume,)})
        uid = pod.metadata.uid
        await asyncio.sleep(30)
        assert world.machine.count("place") == 0, "they came with the start"
        await world.objects.update(replace(config, data={"a": "2", "b": "3"}))
        await asyncio.sleep(10)
        assert world.machine.placed[uid] == {"a": b"2", "b": b"3"}
        assert (world.machine.count("place"), world.machine.count("start")) == (1, 1)
        await world.objects.delete(ConfigMap, "m")
        await asyncio.sleep(30)
        assert (world.machine.count("place"), world.machine.count("start")) == (1, 1), "what is there stays"

    with_keeper(body)


def test_a_pod_waits_for_values_that_are_missing() -> None:
    async def body(world: World) -> None:
        volume = Volume(name="v", config_map=ConfigMapVolumeSource(name="m"))
        await world.pod(spec={"volumes": (volume,)})
        await asyncio.sleep(20)
        assert world.machine.count("start") == 0
        found = main_status(await world.now())
        assert found is not None
        assert found.state.waiting is not None
        assert 'no ConfigMap "m"' in found.state.waiting.message
        await world.objects.create(ConfigMap(metadata=ObjectMeta(name="m"), data={"a": "1"}))
        await asyncio.sleep(10)
        assert is_ready(await world.now())

    with_keeper(body)


def test_a_killed_container_is_started_at_once() -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await asyncio.sleep(2)
        world.machine.end(pod.metadata.uid, 137)
        await asyncio.sleep(2)
        assert world.machine.count("start") == 2
        assert is_ready(await world.now())

    with_keeper(body)


def test_a_program_that_has_done_its_work_is_left_in_peace() -> None:
    async def body(world: World) -> None:
        pod = await world.pod(spec={"restart_policy": "OnFailure"})
        await asyncio.sleep(2)
        world.machine.end(pod.metadata.uid, 0)
        await asyncio.sleep(30)
        assert (await world.now()).status.phase == "Succeeded"
        assert world.machine.count("start") == 1

    with_keeper(body)


# --- checks ---


def test_a_check_decides_when_a_pod_is_ready() -> None:
    async def body(world: World) -> None:
        world.machine.answer = ConnectionRefusedError("not yet")
        await world.pod(readiness_probe=PROBE)
        await asyncio.sleep(1.5)
        assert not is_ready(await world.now())
        world.machine.answer = OK
        await asyncio.sleep(2)
        assert is_ready(await world.now())

    with_keeper(body)


def test_an_app_that_does_not_answer_fails_for_good_with_its_last_lines() -> None:
    async def body(world: World) -> None:
        world.machine.silent = True
        await world.pod(readiness_probe=PROBE)
        await asyncio.sleep(15)
        assert await world.reason() == "ProbeFailed"
        kept = condition((await world.now()).status.conditions, "korch.dev/LastLog")
        assert kept is not None
        assert kept.message == "its last words"

    with_keeper(body)


@pytest.mark.parametrize("silent", [True, False], ids=["packets are lost", "the connection broke"])
def test_a_cut_of_the_network_is_no_fault_of_the_app(silent: bool) -> None:
    async def body(world: World) -> None:
        await world.pod(readiness_probe=PROBE)
        await asyncio.sleep(5)
        assert is_ready(await world.now())
        world.machine.cut()
        if silent:
            world.machine.faults.pop("forward")
            world.machine.silent = True
        await asyncio.sleep(60)
        assert await world.reason() == ""
        world.machine.heal()
        world.machine.silent = False
        await asyncio.sleep(10)
        assert await world.reason() == ""

    with_keeper(body)


def test_a_container_that_was_started_again_has_to_pass_anew() -> None:
    async def body(world: World) -> None:
        pod = await world.pod(readiness_probe=PROBE)
        await asyncio.sleep(5)
        assert is_ready(await world.now())
        world.machine.answer = ConnectionRefusedError("starting")
        world.machine.restart(pod.metadata.uid)
        await asyncio.sleep(1.5)
        assert not is_ready(await world.now())
        world.machine.answer = OK
        await asyncio.sleep(3)
        assert is_ready(await world.now())

    with_keeper(body)


def test_a_check_that_trips_over_a_bug_spoils_nothing_else() -> None:
    async def body(world: World) -> None:
        world.machine.answer = RuntimeError("a bug")
        await world.pod("bad", readiness_probe=PROBE)
        await asyncio.sleep(5)
        await world.pod("good")
        await asyncio.sleep(2)
        assert is_ready(await world.now("good"))
        assert not is_ready(await world.now("bad"))

    with_keeper(body)


def test_a_check_by_command() -> None:
    async def body(world: World) -> None:
        await world.pod(readiness_probe=Probe(exec=ExecAction(command=("true",)), period_seconds=1))
        await asyncio.sleep(3)
        assert is_ready(await world.now())

    with_keeper(body)


# --- the node goes, another leads, something is wrong with korch ---


def test_pods_that_never_ran_leave_a_lost_node_and_the_others_stay() -> None:
    async def body(world: World) -> None:
        await world.pod("ran")
        await asyncio.sleep(2)
        world.machine.cut()
        await world.pod("new")
        await asyncio.sleep(20)
        assert (await world.now("new")).status.reason == "NodeUnreachable"
        assert (await world.now("new")).status.phase == "Failed"
        assert is_ready(await world.now("ran")), "failing over is not decided here"
        assert world.heard[0] == "n1 lost"
        assert isinstance(world.keeper.given_up, KorchError)
        world.machine.heal()
        await asyncio.sleep(2)
        assert world.heard[-1] == "n1 back"
        assert world.keeper.given_up is None

    with_keeper(body)


def test_a_short_cut_moves_nothing() -> None:
    async def body(world: World) -> None:
        world.machine.cut()
        await world.pod()
        await asyncio.sleep(5)
        world.machine.heal()
        await asyncio.sleep(3)
        assert is_ready(await world.now())
        assert world.heard == []

    with_keeper(body)


@pytest.mark.parametrize("word", ["look", "start", "remove"])
def test_a_keeper_that_no_longer_leads_stops(word: str) -> None:
    async def body(world: World) -> None:
        await world.pod("first")
        await asyncio.sleep(1)
        world.machine.faults[word] = FencedError("n1 has seen a newer master")
        await world.pod()
        await asyncio.sleep(1)
        await world.objects.delete(Pod, "first")
        await asyncio.sleep(60)

    with pytest.raises(FencedError):
        with_keeper(body)


def test_a_look_that_trips_over_a_bug_is_tried_again() -> None:
    async def body(world: World) -> None:
        await world.pod()
        await asyncio.sleep(2)
        world.machine.faults["look"] = RuntimeError("a bug")
        await asyncio.sleep(5)
        looks = world.machine.count("look")
        world.machine.heal()
        await asyncio.sleep(20)
        assert world.machine.count("look") > looks

    with_keeper(body)


def test_a_status_that_somebody_else_has_written_meanwhile_stays() -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await asyncio.sleep(2)
        world.machine.delays["logs"] = 1.0  # the keeper is about to report an end ...
        world.machine.end(pod.metadata.uid)
        await asyncio.sleep(0.8)
        lost = await world.objects.modify(
            Pod,
            "web-1",
            "default",
            lambda found: replace(found, status=replace(found.status, phase="Failed", reason="NodeLost")),
            status=True,
        )
        await asyncio.sleep(10)
        assert (await world.now()).status == lost.status

    with_keeper(body)


# --- what has ended on record ---


@pytest.mark.parametrize("reason", ["NodeLost", "NodeUnreachable"])
def test_a_pod_that_was_given_up_does_not_run_on_when_its_node_is_reached_again(reason: str) -> None:
    async def body(world: World) -> None:
        pod = await world.pod()
        await world.pod("other")
        await asyncio.sleep(2)
        lost = await world.objects.modify(
            Pod,
            "web-1",
            "default",
            lambda found: replace(found, status=replace(found.status, phase="Failed", reason=reason)),
            status=True,
        )
        await asyncio.sleep(5)
        assert world.machine.held[pod.metadata.uid].state == "exited"
        assert (await world.now()).status == lost.status
        assert await world.reason("other") == ""
        assert world.machine.count("stop") == 1
        await asyncio.sleep(60)
        assert (world.machine.count("stop"), world.machine.count("start")) == (1, 2), "and it stays as it is"

    with_keeper(body)


def test_a_start_that_arrives_after_its_pod_was_given_up_is_undone() -> None:
    async def body(world: World) -> None:
        world.machine.delays["start"] = 30
        pod = await world.pod()
        await asyncio.sleep(10)
        await world.objects.modify(
            Pod,
            "web-1",
            "default",
            lambda found: replace(found, status=replace(found.status, phase="Failed", reason="NodeUnreachable")),
            status=True,
        )
        await asyncio.sleep(40)
        assert world.machine.held[pod.metadata.uid].state == "exited"
        assert (await world.now()).status.phase == "Failed"

    with_keeper(body)


# --- what is slow leaves room ---


async def _heals_within(world: World, pod: Pod, seconds: float) -> bool:
    world.machine.end(pod.metadata.uid)
    world.keeper.glance(pod.metadata.uid)
    await asyncio.sleep(seconds)
    return world.machine.held[pod.metadata.uid].state == "running"


def test_replicas_of_one_image_wait_for_one_pull() -> None:
    async def body(world: World) -> None:
        world.machine.delays["pull"] = 300
        for number in range(8):
            await world.pod(f"web-{number}")
        await asyncio.sleep(100)
        for number in range(8):
            assert await world.reason(f"web-{number}") == "Pulling"
        await world.objects.delete(Pod, "web-0")
        await asyncio.sleep(3)
        assert await world.gone("web-0"), "the one that began it need not stay"
        await asyncio.sleep(210)
        assert [await world.reason(f"web-{number}") for number in range(1, 8)] == [""] * 7
        assert (world.machine.count("pull"), world.machine.count("start")) == (1, 7)

    with_keeper(body)


def test_a_pull_that_fails_fails_for_all_that_wait_and_is_tried_again() -> None:
    async def body(world: World) -> None:
        world.machine.faults["pull"] = refused()
        await world.pod("web-1")
        await world.pod("web-2")
        await asyncio.sleep(1)
        assert [await world.reason(name) for name in ("web-1", "web-2")] == ["ImageNotFound"] * 2
        world.machine.faults.clear()
        await asyncio.sleep(30)
        assert [await world.reason(name) for name in ("web-1", "web-2")] == [""] * 2

    with_keeper(body)


def test_pulls_of_large_images_hold_up_neither_healing_nor_ends() -> None:
    async def body(world: World) -> None:
        serves, leaves = await world.pod("serves"), await world.pod("leaves")
        await asyncio.sleep(2)
        world.machine.delays["pull"] = 500
        for number in range(10):
            spec = PodSpec(containers=(Container(name="web", image=f"large:{number}"),), node_name="n1")
            await world.objects.create(Pod(metadata=ObjectMeta(name=f"large-{number}"), spec=spec))
        await asyncio.sleep(20)
        assert world.machine.count("pull") == 1 + PULLS_AT_ONCE
        assert await _heals_within(world, serves, 2)
        await world.objects.delete(Pod, "leaves")
        await asyncio.sleep(3)
        assert leaves.metadata.uid not in world.machine.held

    with_keeper(body)


def test_ends_that_take_their_grace_time_hold_up_no_healing() -> None:
    async def body(world: World) -> None:
        serves = await world.pod("serves")
        for number in range(10):
            await world.pod(f"leaves-{number}")
        await asyncio.sleep(2)
        world.machine.delays["remove"] = 60
        for number in range(10):
            await world.objects.delete(Pod, f"leaves-{number}")
        await asyncio.sleep(20)
        assert world.machine.count("remove") == SLOW_AT_ONCE
        for _ in range(3):
            assert await _heals_within(world, serves, 2)
        await asyncio.sleep(200)
        assert set(world.machine.held) == {serves.metadata.uid}

    with_keeper(body)
