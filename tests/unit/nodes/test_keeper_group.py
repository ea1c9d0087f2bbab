"""A keeper's life with pods of several containers: order, faults, hooks, statuses, and their end."""

import asyncio

from korch.engines.images import ImageInfo
from korch.engines.names import SANDBOX
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from korch.resources.pod import (
    ConfigMapVolumeSource,
    Container,
    ExecAction,
    Lifecycle,
    LifecycleHandler,
    Pod,
    PodSpec,
    SleepAction,
    Volume,
)
from korch.resources.podstate import condition, failure_of, is_ready, statuses_of
from korch.ssh.base import Result
from tests.unit.nodes.fake_machine import FakeMachine
from tests.unit.nodes.test_keeper import PROBE, World, refused, with_keeper


async def duo(world: World, *, init: bool = True, log: Container | None = None, **spec: object) -> Pod:
    """A pod with two containers, the first of which is checked, and an init container."""
    made = PodSpec(
        containers=(
            Container(name="web", image="web:1", readiness_probe=PROBE),
            log or Container(name="log", image="log:1"),
        ),
        init_containers=(Container(name="first", image="first:1"),) if init else (),
        node_name="n1",
        **spec,  # type: ignore[arg-type]
    )
    world.machine.ends_at_once.setdefault("first", 0)
    return await world.objects.create(Pod(metadata=ObjectMeta(name="web-1", namespace="default"), spec=made))


def starts(machine: FakeMachine) -> list[str]:
    return [call.partition("/")[2] for call in machine.calls if call.startswith("start ")]


def states(pod: Pod) -> dict[str, str]:
    found = {}
    for status in statuses_of(pod):
        state = status.state
        found[status.name] = (
            f"{state.terminated.reason}" if state.terminated else state.waiting.reason if state.waiting else "running"
        )
    return found


def test_the_sandbox_comes_first_then_init_containers_then_all_others() -> None:
    async def body(world: World) -> None:
        made = await duo(world)
        await asyncio.sleep(3)
        assert starts(world.machine) == [SANDBOX, "first", "web", "log"]
        pod = await world.now()
        assert states(pod) == {"first": "Completed", "web": "running", "log": "running"}
        assert (pod.status.phase, is_ready(pod), pod.status.pod_ip) == ("Running", True, "172.17.0.2")
        assert condition(pod.status.conditions, "Initialized").status == "True"  # type: ignore[union-attr]
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(2)
        assert (await world.gone(), world.machine.held) == (True, {})
        assert world.machine.count("remove") == 1, "one call ends all of it"
        assert await world.objects.tombstone(made.metadata.uid) is not None

    with_keeper(body)


def test_a_single_container_has_no_sandbox_and_costs_two_calls() -> None:
    async def body(world: World) -> None:
        await world.pod()
        await asyncio.sleep(0.3)
        assert [call.split()[0] for call in world.machine.calls if not call.startswith("look")] == ["pull", "start"]

    with_keeper(body)


def test_an_init_container_that_fails_is_tried_with_back_off_and_the_others_wait() -> None:
    async def body(world: World) -> None:
        world.machine.ends_at_once["first"] = 3
        await duo(world)
        await asyncio.sleep(8)
        pod = await world.now()
        assert states(pod) == {"first": "CrashLoopBackOff", "web": "PodInitializing", "log": "PodInitializing"}
        first = pod.status.init_container_statuses[0]
        assert (pod.status.phase, first.restart_count) == ("Pending", 3)
        assert first.last_state.terminated is not None
        assert first.last_state.terminated.exit_code == 3
        world.machine.ends_at_once["first"] = 0
        await asyncio.sleep(15)
        assert is_ready(await world.now())

    with_keeper(body)


def test_a_pod_that_is_never_restarted_fails_with_its_init_container_and_rests() -> None:
    async def body(world: World) -> None:
        world.machine.ends_at_once["first"] = 3
        await duo(world, restart_policy="Never")
        await asyncio.sleep(3)
        pod = await world.now()
        assert (pod.status.phase, states(pod)["first"]) == ("Failed", "Error")
        assert {found.state for found in world.machine.held.values()} == {"exited"}, "the sandbox too"
        assert starts(world.machine) == [SANDBOX, "first"]

    with_keeper(body)


def test_a_job_of_two_ends_when_both_have() -> None:
    async def body(world: World) -> None:
        made = await duo(world, init=False, restart_policy="OnFailure")
        await asyncio.sleep(2)
        world.machine.end(f"{made.metadata.uid}/log", 0)
        await asyncio.sleep(2)
        pod = await world.now()
        assert (pod.status.phase, states(pod)) == ("Running", {"web": "running", "log": "Completed"})
        world.machine.end(f"{made.metadata.uid}/web", 1)
        await asyncio.sleep(2)
        pod = await world.now()
        assert (pod.status.phase, pod.status.container_statuses[0].restart_count) == ("Running", 1)
        assert pod.status.container_statuses[1].restart_count == 0, "who is done is not started again"
        world.machine.end(f"{made.metadata.uid}/web", 0)
        await asyncio.sleep(2)
        assert (await world.now()).status.phase == "Succeeded"
        assert {found.state for found in world.machine.held.values()} == {"exited"}

    with_keeper(body)


def test_one_that_goes_on_serves_a_job_to_its_end_and_is_ended_then() -> None:
    async def body(world: World) -> None:
        beside = Container(name="proxy", image="proxy:1", restart_policy="Always", startup_probe=PROBE)
        spec = PodSpec(
            containers=(Container(name="work", image="work:1"),),
            init_containers=(beside, Container(name="first", image="first:1")),
            restart_policy="OnFailure",
            node_name="n1",
        )
        world.machine.ends_at_once["first"] = 0
        made = await world.objects.create(Pod(metadata=ObjectMeta(name="web-1", namespace="default"), spec=spec))
        await asyncio.sleep(4)
        assert starts(world.machine) == [SANDBOX, "proxy", "first", "work"]
        pod = await world.now()
        assert (is_ready(pod), condition(pod.status.conditions, "Initialized").status) == (True, "True")  # type: ignore[union-attr]
        world.machine.end(f"{made.metadata.uid}/proxy", 0)
        await asyncio.sleep(2)
        assert starts(world.machine)[4:] == ["proxy"]
        world.machine.end(f"{made.metadata.uid}/work", 0)
        await asyncio.sleep(2)
        assert (await world.now()).status.phase == "Succeeded"
        assert {found.state for found in world.machine.held.values()} == {"exited"}

    with_keeper(body)


def test_those_that_go_on_end_after_the_others() -> None:
    async def body(world: World) -> None:
        beside = Container(name="proxy", image="proxy:1", restart_policy="Always")
        spec = PodSpec(containers=(Container(name="web", image="web:1"),), init_containers=(beside,), node_name="n1")
        await world.objects.create(Pod(metadata=ObjectMeta(name="web-1", namespace="default"), spec=spec))
        await asyncio.sleep(2)
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(3)
        ends = [call.split()[0] for call in world.machine.calls if call.split()[0] in {"stop", "remove"}]
        assert ends == ["stop", "remove"], "first what it is beside of, then all"
        assert await world.gone()

    with_keeper(body)


def test_a_container_that_dies_is_started_again_alone() -> None:
    async def body(world: World) -> None:
        made = await duo(world)
        await asyncio.sleep(2)
        world.machine.end(f"{made.metadata.uid}/log", 1)
        await asyncio.sleep(2)
        assert starts(world.machine)[4:] == ["log"]
        pod = await world.now()
        assert [status.restart_count for status in pod.status.container_statuses] == [0, 1]
        assert is_ready(pod)

    with_keeper(body)


def test_a_restart_counts_once_however_often_a_neighbour_is_checked_meanwhile() -> None:
    async def body(world: World) -> None:
        made = await duo(world)
        await asyncio.sleep(2)
        world.machine.delays["start"] = 20.0
        world.machine.end(f"{made.metadata.uid}/log", 1)
        await asyncio.sleep(30)
        assert [status.restart_count for status in (await world.now()).status.container_statuses] == [0, 1]

    with_keeper(body)


def test_one_that_crashes_on_and_on_holds_up_no_other() -> None:
    async def body(world: World) -> None:
        world.machine.ends_at_once["log"] = 1
        made = await duo(world)
        await asyncio.sleep(30)
        assert states(await world.now())["log"] == "CrashLoopBackOff"
        assert not is_ready(await world.now())
        world.machine.end(f"{made.metadata.uid}/web", 1)
        await asyncio.sleep(2)
        assert states(await world.now())["web"] == "running"

    with_keeper(body)


def test_without_its_sandbox_a_pod_is_ended_and_begun_anew() -> None:
    async def body(world: World) -> None:
        made = await duo(world)
        await asyncio.sleep(2)
        world.machine.end(f"{made.metadata.uid}/{SANDBOX}", 137)
        await asyncio.sleep(4)
        assert starts(world.machine)[4:] == [SANDBOX, "first", "web", "log"]
        assert world.machine.count("stop") == 1
        pod = await world.now()
        assert is_ready(pod)
        assert [status.restart_count for status in statuses_of(pod)] == [1, 1, 1]

    with_keeper(body)


def test_a_sandbox_that_ends_on_and_on_is_started_with_back_off() -> None:
    async def body(world: World) -> None:
        world.machine.ends_at_once[SANDBOX] = 1
        await duo(world)
        await asyncio.sleep(60)
        assert starts(world.machine) == [SANDBOX] * 5  # three at once, then after 10 s and 20 s
        del world.machine.ends_at_once[SANDBOX]
        await asyncio.sleep(100)
        assert is_ready(await world.now())

    with_keeper(body)


def test_an_image_that_cannot_be_pulled_holds_up_no_other_and_is_said_of_its_container() -> None:
    async def body(world: World) -> None:
        pull, broken = world.machine.pull, ["log:1"]

        async def pull_most(image: str, **how: object) -> ImageInfo:
            if image in broken:
                raise refused()
            return await pull(image, **how)  # type: ignore[arg-type]

        world.machine.pull = pull_most  # type: ignore[method-assign]
        made = await duo(world)
        await asyncio.sleep(3)
        assert states(await world.now()) == {"first": "Completed", "web": "running", "log": "ImageNotFound"}
        assert "container log: " in condition((await world.now()).status.conditions, "Ready").message  # type: ignore[union-attr]
        world.machine.end(f"{made.metadata.uid}/web", 1)
        await asyncio.sleep(3)
        assert states(await world.now())["web"] == "running", "nobody waits for the one that is broken"
        broken.clear()
        await asyncio.sleep(30)
        assert is_ready(await world.now())

    with_keeper(body)


def test_a_sandbox_that_does_not_start_is_said_of_all_that_wait_for_it() -> None:
    async def body(world: World) -> None:
        world.machine.faults["start"] = refused("PortTaken")
        await duo(world)
        await asyncio.sleep(2)
        assert states(await world.now()) == dict.fromkeys(("first", "web", "log"), "PortTaken")
        assert "PortTaken" in failure_of(await world.now())
        del world.machine.faults["start"]
        await asyncio.sleep(10)
        assert is_ready(await world.now())
        assert failure_of(await world.now()) == ""

    with_keeper(body)


def test_a_keeper_that_was_killed_half_way_is_gone_on_from() -> None:
    async def body(world: World) -> None:
        world.machine.delays["start"] = 1.0
        await duo(world)
        await asyncio.sleep(2.5)  # the sandbox and the init container stand
        before = starts(world.machine)
        world.keeper._ward.seen.clear()
        world.keeper.adopt(tuple(world.machine.held.values()), frozenset())
        await asyncio.sleep(8)
        assert before == starts(world.machine)[: len(before)]
        assert starts(world.machine).count(SANDBOX) == starts(world.machine).count("first") == 1
        assert is_ready(await world.now())

    with_keeper(body)


def test_hooks_run_after_the_start_and_before_the_end_of_their_container() -> None:
    async def body(world: World) -> None:
        hooks = Lifecycle(
            post_start=LifecycleHandler(exec=ExecAction(command=("warm", "up"))),
            pre_stop=LifecycleHandler(sleep=SleepAction(seconds=5)),
        )
        await duo(world, log=Container(name="log", image="log:1", lifecycle=hooks))
        await asyncio.sleep(3)
        assert [call for call in world.machine.calls if call.startswith("exec")] == [
            next(f"exec {found.name}" for key, found in world.machine.held.items() if key.endswith("/log"))
        ]
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(2)
        assert [hook for _, hook in world.machine.endings] == [("sleep", "5"), ()]
        assert await world.gone()

    with_keeper(body)


def test_a_container_whose_hook_after_the_start_fails_is_started_again() -> None:
    async def body(world: World) -> None:
        failing = True

        async def exec_probe(name: str, argv: tuple[str, ...], timeout_s: float) -> Result:
            return Result(1 if failing else 0, b"", b"not warm")

        world.machine.exec_probe = exec_probe  # type: ignore[method-assign]
        hooks = Lifecycle(post_start=LifecycleHandler(exec=ExecAction(command=("warm",))))
        await world.pod(lifecycle=hooks)  # alone: the engine would start it without its hook
        await asyncio.sleep(3)
        assert world.machine.count("stop") >= 2
        assert not is_ready(await world.now())
        failing = False
        await asyncio.sleep(30)
        pod = await world.now()
        assert is_ready(pod)
        assert pod.status.container_statuses[0].restart_count >= 2

    with_keeper(body)


def test_files_are_brought_up_to_date_for_all_of_a_pod() -> None:
    async def body(world: World) -> None:
        conf = ConfigMap(metadata=ObjectMeta(name="conf", namespace="default"), data={"a": "old"})
        await world.objects.create(conf)
        volume = Volume(name="v", config_map=ConfigMapVolumeSource(name="conf"))
        made = await duo(world, volumes=(volume,))
        await asyncio.sleep(2)
        assert world.machine.placed == {}
        await world.objects.apply(ConfigMap(metadata=ObjectMeta(name="conf", namespace="default"), data={"a": "new"}))
        world.keeper.wake(await world.now())
        await asyncio.sleep(2)
        assert world.machine.placed == {made.metadata.uid: {"a": b"new"}}

    with_keeper(body)
