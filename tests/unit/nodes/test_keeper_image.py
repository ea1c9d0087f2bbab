"""A keeper's life while the image of a container that runs is changed."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.engines.names import SANDBOX
from korch.engines.observed import ObservedContainer
from korch.master.background import background
from korch.nodes.plan import Act, plan_pod
from korch.nodes.wish import identity_for
from korch.objects.prepare import for_update
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.images import FIRST_IMAGES, PINNED, containers_of, image_reference, made_hash, with_images
from korch.resources.misc import Event
from korch.resources.pod import (
    Container,
    ContainerState,
    ContainerStateWaiting,
    ContainerStatus,
    ExecAction,
    Lifecycle,
    LifecycleHandler,
    Pod,
    PodSpec,
)
from korch.resources.podstate import is_ready, main_status
from tests.unit.nodes.test_keeper import PROBE, World, refused, with_keeper
from tests.unit.nodes.test_keeper_group import duo, starts
from tests.unit.nodes.virtual_loop import run_virtually

HOOKED = Lifecycle(pre_stop=LifecycleHandler(exec=ExecAction(command=("drain",))))


async def changed(world: World, image: str, *, container: str = "web", name: str = "web-1") -> Pod:
    def change(found: Pod) -> Pod:
        return replace(found, spec=with_images(found.spec, {container: image}))

    return await world.objects.modify(Pod, name, "default", change)


async def told(world: World, reason: str) -> list[str]:
    return [event.message for event in (await world.objects.list(Event)).items if event.reason == reason]


def images(world: World) -> list[str]:
    return sorted(found.image for found in world.machine.held.values())


def words(world: World) -> list[str]:
    """What was asked of the machine but looks."""
    return [call for call in world.machine.calls if not call.startswith(("look", "logs"))]


def test_the_image_comes_first_then_one_takes_the_place_of_the_other() -> None:
    async def body(world: World) -> None:
        await world.pod(lifecycle=HOOKED, readiness_probe=PROBE)
        await asyncio.sleep(7)
        before = main_status(await world.now())
        world.machine.calls.clear()
        await changed(world, "web:2")
        await asyncio.sleep(10)
        assert [call for call in words(world) if "forward" not in call] == [
            "pull web:2",
            "stop web-1",
            "remove web-1",
            "start web-1",
        ]
        assert world.machine.endings == [(30, ("exec", "drain")), (0, ())]
        pod, after = await world.now(), main_status(await world.now())
        assert before is not None
        assert after is not None
        assert (before.restart_count, after.restart_count, after.image, is_ready(pod)) == (0, 1, "web:2", True)
        assert after.container_id != before.container_id
        assert await told(world, "Killing") == ["Container web definition changed, will be restarted"]
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(2)
        assert (await world.gone(), world.machine.held) == (True, {})

    with_keeper(body)


def test_while_the_image_does_not_come_the_old_one_serves_and_is_checked() -> None:
    async def body(world: World) -> None:
        await world.pod(readiness_probe=PROBE, liveness_probe=PROBE)
        await asyncio.sleep(7)
        ready: set[bool] = set()
        world.view.listen(lambda change: ready.add(is_ready(change.object)))  # type: ignore[arg-type]
        world.machine.faults["pull"] = refused("ErrImagePull")
        await changed(world, "typo:1")
        await asyncio.sleep(60)
        pod = await world.now()
        assert ready == {True}, "at all times"
        status = main_status(pod)
        assert status is not None
        assert (is_ready(pod), images(world), status.restart_count, status.image) == (True, ["web:1"], 0, "web:1")
        assert 2 <= world.machine.count("pull") < 12, "it waits longer from try to try"
        assert any("goes on with the image that it has" in text for text in await told(world, "ErrImagePull"))
        asked = world.machine.count("forward")
        await asyncio.sleep(10)
        assert world.machine.count("forward") > asked
        del world.machine.faults["pull"]
        await changed(world, "web:2")
        await asyncio.sleep(7)
        assert (images(world), is_ready(await world.now())) == (["web:2"], True)

    with_keeper(body)


def test_an_image_that_is_changed_back_leaves_the_container_alone() -> None:
    async def body(world: World) -> None:
        await world.pod()
        await asyncio.sleep(2)
        world.machine.faults["pull"] = refused("ErrImagePull")
        await changed(world, "typo:1")
        await asyncio.sleep(5)
        await changed(world, "web:1")
        del world.machine.faults["pull"]
        await asyncio.sleep(5)
        assert (world.machine.count("stop"), world.machine.count("start"), images(world)) == (0, 1, ["web:1"])

    with_keeper(body)


@pytest.mark.parametrize(("then", "ended"), [("web:2", 1), ("web:1", 0)])
def test_a_pull_of_an_image_that_is_not_wanted_any_more_holds_nobody_up(then: str, ended: int) -> None:
    async def body(world: World) -> None:
        await world.pod()
        await asyncio.sleep(2)
        world.machine.delays["pull"] = 500.0
        await changed(world, "slow:1")
        await asyncio.sleep(5)
        world.machine.delays["pull"] = 1.0
        await changed(world, then)
        await asyncio.sleep(5)
        assert (images(world), world.machine.count("stop")) == ([then], ended)

    with_keeper(body)


def test_a_start_that_failed_for_another_image_need_not_wait() -> None:
    async def body(world: World) -> None:
        world.machine.faults["pull"] = refused("ErrImagePull")
        await world.pod()
        await asyncio.sleep(120)
        tries = world.machine.count("pull")
        del world.machine.faults["pull"]
        await asyncio.sleep(1)
        assert world.machine.count("pull") == tries, "the next try is some time off"
        await changed(world, "web:2")
        await asyncio.sleep(2)
        assert (images(world), is_ready(await world.now())) == (["web:2"], True)

    with_keeper(body)


@asynccontextmanager
async def kept(world: World) -> AsyncIterator[World]:
    """The world while its keeper lives."""
    async with background() as group:
        await world.view.start(group)
        world.keeper.adopt(await world.machine.containers(), frozenset())
        group.create_task(world.keeper.run())
        yield world


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
@pytest.mark.parametrize("at", ["pull", "stop", "remove", "start"])
def test_it_goes_on_where_a_keeper_was_killed(at: str, policy: str) -> None:
    steps = ("pull", "stop", "remove", "start")

    async def main() -> None:
        async with kept(World()) as first:
            made = await first.pod(spec={"restart_policy": policy})
            await asyncio.sleep(2)
            first.machine.cut()
            for word in ("look", *steps[: steps.index(at)]):
                del first.machine.faults[word]
            await changed(first, "web:2")
            await asyncio.sleep(3)
            found = first.machine.held.get(made.metadata.uid)
            stands = {"pull": "running", "stop": "running", "remove": "exited", "start": "gone"}
            assert (found.state if found else "gone") == stands[at]
        first.machine.heal()
        async with kept(World(after=first)) as second:
            await asyncio.sleep(3)
            pod = await second.now()
            status = main_status(pod)
            assert status is not None
            assert (pod.status.phase, is_ready(pod)) == ("Running", True)
            assert (status.restart_count, status.image, images(second)) == (1, "web:2", ["web:2"])
            assert second.machine.serial == 2

    run_virtually(main)


def test_what_ends_by_itself_before_its_change_stays_ended_where_nothing_is_to_run_again() -> None:
    async def body(world: World) -> None:
        made = await duo(world, init=False, restart_policy="Never")
        await asyncio.sleep(3)
        world.machine.end(f"{made.metadata.uid}/log", 0)
        await asyncio.sleep(3)
        await changed(world, "log:2", container="log")
        await asyncio.sleep(5)
        assert starts(world.machine) == [SANDBOX, "web", "log"]
        assert (await world.now()).status.phase == "Running"

    with_keeper(body)


def test_of_several_containers_only_one_is_changed() -> None:
    async def body(world: World) -> None:
        made = await duo(world, log=Container(name="log", image="log:1", lifecycle=HOOKED))
        await asyncio.sleep(7)
        before = dict(world.machine.held)
        await changed(world, "log:2", container="log")
        await asyncio.sleep(7)
        await changed(world, "first:2", container="first")
        await asyncio.sleep(7)
        after, name = world.machine.held, f"{made.metadata.uid}/log"
        assert {key for key in before if after[key] != before[key]} == {name}
        assert (after[name].image, world.machine.endings) == ("log:2", [(30, ("exec", "drain")), (0, ())])
        world.machine.end(f"{made.metadata.uid}/web")
        await asyncio.sleep(7)
        assert starts(world.machine) == [SANDBOX, "first", "web", "log", "log", "web"], "it is the same one as before"
        assert after[f"{made.metadata.uid}/web"].id == before[f"{made.metadata.uid}/web"].id
        assert is_ready(await world.now())

    with_keeper(body)


def test_a_pod_that_is_deleted_while_its_old_container_ends_gets_no_other_one() -> None:
    async def body(world: World) -> None:
        await world.pod()
        await asyncio.sleep(2)
        world.machine.delays["stop"] = 10.0
        await changed(world, "web:2")
        await asyncio.sleep(2)
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(15)
        assert (await world.gone(), world.machine.count("start"), world.machine.held) == (True, 1, {})

    with_keeper(body)


def test_a_crash_loop_ends_with_another_image() -> None:
    async def body(world: World) -> None:
        world.machine.ends_with = 1
        await world.pod(lifecycle=Lifecycle(post_start=LifecycleHandler(exec=ExecAction(command=("warm",)))))
        await asyncio.sleep(60)
        assert await world.reason() == "CrashLoopBackOff"
        world.machine.ends_with = None
        await changed(world, "web:2")
        await asyncio.sleep(2)
        assert (images(world), is_ready(await world.now())) == (["web:2"], True)
        (uid,) = world.machine.held
        world.machine.end(uid)
        await asyncio.sleep(2)
        assert is_ready(await world.now()), "it fails for the first time, and is started at once"

    with_keeper(body)


# --- the record of a change, and what follows from it ---


def single(annotations: Mapping[str, str] | None = None) -> Pod:
    pod = with_defaults(Pod(spec=PodSpec(containers=(Container(name="web", image="web:1"),), node_name="n1")))
    return with_meta(pod, name="web-1", uid="u1", namespace="default", annotations=dict(annotations or {}))


def updated(old: Pod, image: str, **annotations: str) -> Pod:
    new = replace(old, spec=with_images(old.spec, {"web": image}))
    return for_update(with_meta(new, annotations={**new.metadata.annotations, **annotations}), old)


def seen(pod: Pod, state: str = "running") -> dict[str, ObservedContainer]:
    found = ObservedContainer(
        id="id1",
        name="x",
        image="i",
        image_id="",
        state=state,
        identity=identity_for(pod, "c1"),  # type: ignore[arg-type]
    )
    return {"web": found}


def test_an_exact_image_is_that_of_the_image_it_was_pinned_with() -> None:
    old = single({PINNED: "web@sha256:1"})
    changed = updated(old, "web:2")
    assert image_reference(changed) == "web:2"
    assert image_reference(updated(old, "web:2", **{PINNED: "web@sha256:2"})) == "web@sha256:2"
    assert image_reference(updated(old, "web:1")) == "web@sha256:1"
    several = replace(old.spec, containers=(*old.spec.containers, Container(name="log", image="log:1")))
    pinned = with_meta(with_defaults(replace(old, spec=several)), annotations={PINNED: "web=w@sha256:1,log=l@sha256:1"})
    assert updated(pinned, "web:2").metadata.annotations[PINNED] == "log=l@sha256:1"


def test_the_record_stays_when_a_manifest_leaves_it_out() -> None:
    changed = updated(single(), "web:2")
    assert changed.metadata.annotations == {FIRST_IMAGES: "web=web:1"}
    without = with_meta(replace(changed, spec=with_images(changed.spec, {"web": "web:3"})), annotations={})
    assert for_update(without, changed).metadata.annotations == {FIRST_IMAGES: "web=web:1"}
    assert for_update(with_meta(changed, annotations={}), changed) == changed


def test_only_a_change_on_record_makes_a_container_outdated() -> None:
    old = single()
    other = replace(old, spec=replace(old.spec, containers=(Container(name="web", image="web:1", tty=True),)))
    assert plan_pod(old, seen(other)) == (Act("watch", "web"),), "an adopted one, perhaps"
    assert plan_pod(old, seen(other, "restarting"), looping=("web",)) == (Act("calm", "web"),)
    changed = updated(old, "web:2")
    assert plan_pod(changed, seen(changed)) == (Act("watch", "web"),)
    assert plan_pod(changed, seen(old)) == (Act("watch", "web"), Act("change", "web"))
    assert plan_pod(changed, seen(old), sick=("web",)) == (Act("end", "web"),)
    for state in ("restarting", "exited", "created"):
        assert plan_pod(changed, seen(old, state), looping=("web",)) == (Act("change", "web"),)
    assert plan_pod(updated(changed, "web:1"), seen(old)) == (Act("watch", "web"),)
    assert plan_pod(updated(changed, "web:1"), seen(changed)) == (Act("watch", "web"), Act("change", "web"))


def test_a_change_is_finished_although_the_node_went_down_meanwhile() -> None:
    old = with_defaults(replace(single(), spec=replace(single().spec, restart_policy="Never")))
    several = replace(old, spec=replace(old.spec, init_containers=(Container(name="first", image="first:1"),)))
    pod = updated(with_defaults(several), "web:2")
    waits = ContainerStatus(name="web", state=ContainerState(waiting=ContainerStateWaiting(reason="Restarting")))
    pod = replace(pod, status=replace(pod.status, phase="Running", container_statuses=(waits,)))
    ended = {"web": seen(several, "exited")["web"]}
    assert plan_pod(pod, ended) == (Act("start", SANDBOX),)
    assert plan_pod(replace(pod, status=several.status), ended) == (), "it has ended by itself"


STEPS = st.lists(st.tuples(st.sampled_from(("first", "web", "log")), st.sampled_from("abc")), max_size=6)


@given(STEPS, STEPS)
@settings(max_examples=100, deadline=None)
def test_a_container_is_told_by_its_own_image_however_the_pod_came_to_it(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    names = ("first", "web", "log")
    first, web, log = (Container(name=name, image="a") for name in names)
    spec = PodSpec(containers=(web, log), init_containers=(first,), node_name="n1")
    start = with_meta(with_defaults(Pod(spec=spec)), name="web-1", uid="u1", namespace="default")

    def through(steps: list[tuple[str, str]]) -> Pod:
        pod = start
        for name, image in steps:
            pod = for_update(replace(pod, spec=with_images(pod.spec, {name: image})), pod)
        return pod

    left, right = through(one), through(other)
    for name in names:
        same = _image(left, name) == _image(right, name)
        assert (made_hash(left, name) == made_hash(right, name)) == same
        assert (made_hash(left, name) == made_hash(start, name)) == (_image(left, name) == "a")
    assert made_hash(left, SANDBOX) == made_hash(start, SANDBOX)


def _image(pod: Pod, name: str) -> str:
    return next(one.image for one in containers_of(pod.spec) if one.name == name)
