"""What a keeper does for its pods' probes and hooks: who is ended when, in which order, and what the store says."""

import asyncio
import base64

import pytest

from korch.errors import EngineDownError, HostUnreachableError
from korch.objects.objects import Change
from korch.resources.config import ServiceAccount
from korch.resources.images import PINNED
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Event, Secret
from korch.resources.pod import (
    Container,
    ExecAction,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    LocalObjectReference,
    Pod,
    PodSpec,
    Probe,
    SleepAction,
)
from korch.resources.podstate import condition, is_ready, main_status
from korch.resources.validation import DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE
from tests.unit.nodes.fake_machine import OK
from tests.unit.nodes.test_keeper import World, with_keeper

ALIVE = Probe(http_get=HTTPGetAction(path="/alive", port=80), period_seconds=5, failure_threshold=2)
BROKEN = b"HTTP/1.1 500 Oh\r\n\r\nno database"


async def events(world: World, reason: str) -> list[str]:
    found = (await world.objects.list(Event)).items
    return [event.message for event in found if event.reason == reason]


def test_a_container_that_fails_its_liveness_probe_is_ended_and_started_again() -> None:
    async def body(world: World) -> None:
        await world.pod(liveness_probe=ALIVE)
        await asyncio.sleep(12)
        assert is_ready(await world.now())
        world.machine.answer = BROKEN
        await asyncio.sleep(6)
        world.machine.answer = OK
        await asyncio.sleep(20)
        assert world.machine.count("stop") == 0, "once is not as often in a row as is allowed"
        world.machine.answer = BROKEN
        await asyncio.sleep(9)
        world.machine.answer = OK
        await asyncio.sleep(5)
        status = main_status(await world.now())
        assert status is not None
        assert (world.machine.count("stop"), world.machine.count("start")) == (1, 2)
        assert (status.restart_count, status.ready) == (1, True)
        assert status.last_state.terminated is not None
        assert status.last_state.terminated.exit_code == 137
        assert status.last_state.terminated.message == "its last words"
        expected = "Liveness probe failed: GET /alive on port 80 answered 500: no database"
        assert await events(world, "Unhealthy") == [expected]

    with_keeper(body)


def test_an_app_that_never_lives_is_started_again_with_back_off() -> None:
    async def body(world: World) -> None:
        world.machine.answer = BROKEN
        await world.pod(liveness_probe=Probe(http_get=HTTPGetAction(port=80), period_seconds=1, failure_threshold=1))
        await asyncio.sleep(240)
        assert 4 <= world.machine.count("start") <= 10
        status = main_status(await world.now())
        assert status is not None
        assert status.restart_count == world.machine.count("start") - 1
        waiting = [status.state.waiting.reason] if status.state.waiting else []
        assert waiting in ([], ["CrashLoopBackOff"])

    with_keeper(body)


def test_a_startup_probe_gives_time_and_then_ends_it() -> None:
    async def body(world: World) -> None:
        world.machine.answer = ConnectionRefusedError("starting")
        slow = Probe(http_get=HTTPGetAction(port=80), period_seconds=10, failure_threshold=3)
        await world.pod(startup_probe=slow, liveness_probe=ALIVE)
        await asyncio.sleep(18)
        status = main_status(await world.now())
        assert status is not None
        assert (status.started, status.ready, world.machine.count("stop")) == (False, False, 0)
        await asyncio.sleep(4)
        assert world.machine.count("stop") == 1
        assert "Startup probe failed: " in (await events(world, "Unhealthy"))[0]
        world.machine.answer = OK
        await asyncio.sleep(5)
        status = main_status(await world.now())
        assert status is not None
        assert (status.started, status.ready) == (True, True)

    with_keeper(body)


@pytest.mark.parametrize("how", ["engine", "connection", "silence"])
def test_trouble_of_the_node_ends_no_container(how: str) -> None:
    async def body(world: World) -> None:
        strict = Probe(http_get=HTTPGetAction(port=80), period_seconds=1, failure_threshold=1)
        await world.pod(liveness_probe=strict)
        await asyncio.sleep(3)
        if how == "engine":  # its containers answer no more than it does
            world.machine.faults["look"] = world.machine.faults["stop"] = EngineDownError("n1: down", host="n1")
            await asyncio.sleep(1)
            world.machine.answer = ConnectionRefusedError("nobody there")
        else:
            world.machine.cut()
        if how == "silence":
            world.machine.faults.pop("forward")
            world.machine.silent = True
        await asyncio.sleep(60)
        assert world.machine.count("stop") == 0
        world.machine.heal()
        world.machine.answer, world.machine.silent = OK, False
        await asyncio.sleep(5)
        assert is_ready(await world.now())
        assert (world.machine.count("stop"), world.machine.count("start")) == (0, 1)

    with_keeper(body)


def test_a_restarted_keeper_goes_on_without_an_unready_moment() -> None:
    async def body(world: World) -> None:
        await world.pod(readiness_probe=ALIVE, startup_probe=ALIVE)
        await asyncio.sleep(3)
        assert is_ready(await world.now())
        unready: list[Pod] = []
        world.view.listen(lambda change: unready.append(change.object) if _is_unready(change) else None)  # type: ignore[arg-type]
        world.keeper._ward._memory.clear()
        world.machine.answer = HostUnreachableError("n1: no route", host="n1")
        await asyncio.sleep(5)
        assert unready == []

    with_keeper(body)


def _is_unready(change: Change[object]) -> bool:
    return isinstance(change.object, Pod) and not is_ready(change.object)


def test_many_checks_make_no_writes() -> None:
    async def body(world: World) -> None:
        for number in range(10):
            await world.pod(f"web-{number}", readiness_probe=ALIVE, liveness_probe=ALIVE)
        await asyncio.sleep(20)
        writes, asked, tasks = world.store.writes, world.machine.count("forward"), len(asyncio.all_tasks())
        await asyncio.sleep(100)
        assert world.store.writes == writes
        assert world.machine.count("forward") - asked == 10 * 20, "one request serves both probes, every period"
        assert len(asyncio.all_tasks()) == tasks

    with_keeper(body)


# --- hooks ---


def stops_with(**hook: object) -> dict[str, Lifecycle]:
    return {"lifecycle": Lifecycle(pre_stop=LifecycleHandler(**hook))}


def test_a_pod_is_unready_on_record_before_its_hook_runs() -> None:
    async def body(world: World) -> None:
        order: list[str] = []
        await world.pod(**stops_with(sleep=SleepAction(seconds=5)))
        await asyncio.sleep(2)

        def note(change: Change[object]) -> None:
            assert isinstance(change.object, Pod)
            found = condition(change.object.status.conditions, "Ready")
            if found is not None and found.status == "False":
                order.append(found.reason)

        world.view.listen(note)  # type: ignore[arg-type]
        end = world.machine.remove

        async def remove(*args: object, **words: object) -> object:
            order.append("remove")
            return await end(*args, **words)  # type: ignore[arg-type]

        world.machine.remove = remove  # type: ignore[method-assign, assignment]
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(2)
        assert await world.gone()
        assert order[:2] == ["Terminating", "remove"]
        assert world.machine.endings == [(30, ("sleep", "5"))]

    with_keeper(body)


def test_a_hook_over_http_counts_against_the_grace_time() -> None:
    async def body(world: World) -> None:
        await world.pod(**stops_with(http_get=HTTPGetAction(port=80, path="/drain", scheme="HTTP")))
        await asyncio.sleep(2)
        world.machine.delays["forward"] = 12.0
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(20)
        assert await world.gone()
        assert world.machine.tunnels[-1].sent.startswith(b"GET /drain ")
        assert world.machine.endings == [(18, ())]

    with_keeper(body)


def test_a_hook_that_fails_or_hangs_is_told_and_the_pod_goes_all_the_same() -> None:
    async def body(world: World) -> None:
        await world.pod(**stops_with(http_get=HTTPGetAction(port=80, path="/drain", scheme="HTTP")))
        await world.pod("web-2", **stops_with(exec=ExecAction(command=("drain",))))
        await asyncio.sleep(2)
        world.machine.silent, world.machine.hook_problem = True, "drain: ended with status 1"
        await world.objects.delete(Pod, "web-1", grace_s=10)
        await world.objects.delete(Pod, "web-2")
        await asyncio.sleep(15)
        assert await world.gone()
        assert await world.gone("web-2")
        assert sorted(world.machine.endings) == [(2, ()), (30, ("exec", "drain"))]
        told = await events(world, "FailedPreStopHook")
        assert any("GET /drain on port 80: no answer within 10 s" in text for text in told)
        assert all(text.startswith("preStop of web: ") for text in told)
        assert any("drain: ended with status 1" in text for text in told)

    with_keeper(body)


def test_a_failed_probe_may_have_its_own_grace_time() -> None:
    async def body(world: World) -> None:
        strict = Probe(
            http_get=HTTPGetAction(port=80), period_seconds=1, failure_threshold=1, termination_grace_period_seconds=3
        )
        await world.pod(liveness_probe=strict, **stops_with(exec=ExecAction(command=("drain",))))
        await asyncio.sleep(2)
        world.machine.answer = BROKEN
        await asyncio.sleep(2)
        assert world.machine.endings[0] == (3, ("exec", "drain"))

    with_keeper(body)


# --- pulling ---


def test_an_account_has_the_credentials_of_pods_that_name_none() -> None:
    async def body(world: World) -> None:
        for name in ("own", "shared"):
            data = {DOCKER_CONFIG_KEY: base64.b64encode(b'{"auths": {"%s": {}}}' % name.encode()).decode()}
            meta = ObjectMeta(name=name, namespace="default")
            await world.objects.create(Secret(metadata=meta, type=DOCKER_CONFIG_TYPE, data=data))
        for name in ("bot", "default"):
            account = ObjectMeta(name=name, namespace="default")
            refs = (LocalObjectReference(name="shared"),) if name == "bot" else ()
            await world.objects.create(ServiceAccount(metadata=account, image_pull_secrets=refs))
        own = {"image_pull_secrets": (LocalObjectReference(name="own"),)}
        for number, spec in enumerate(({}, {"service_account_name": "bot"}, {"service_account_name": "bot", **own})):
            await world.pod(f"web-{number}", image_pull_policy="Always", spec=spec)
            await asyncio.sleep(2)
        assert world.machine.auths == [None, b'{"auths": {"shared": {}}}', b'{"auths": {"own": {}}}']

    with_keeper(body)


def test_the_pull_policy_is_kept_and_an_exact_image_is_not_pulled_again() -> None:
    async def body(world: World) -> None:
        for name, policy in (("web-1", "Never"), ("web-2", "Always"), ("web-3", "Always")):
            await world.pod(name, image_pull_policy=policy)
            await asyncio.sleep(2)
        assert world.machine.policies == ["Never", "Always", "Always"]
        exact = Pod(
            metadata=ObjectMeta(name="exact", namespace="default", annotations={PINNED: "web@sha256:" + "a" * 64}),
            spec=PodSpec(containers=(Container(name="web", image="web", image_pull_policy="Always"),), node_name="n1"),
        )
        await world.objects.create(exact)
        await asyncio.sleep(2)
        assert world.machine.policies[3:] == ["IfNotPresent"]

    with_keeper(body)
