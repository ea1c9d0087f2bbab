"""What silence comes to, in virtual time: nodes that fall silent, those asked about them, and what becomes of pods."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from korch.errors import EngineDownError, KorchError, StoreError
from korch.master.background import background
from korch.master.lifecycle import Lifecycle
from korch.master.marks import unreachable_taint
from korch.nodes.life import Life
from korch.nodes.register import failed_status
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.annotations import LOSSES, MASS_LOSS, NODE_LOST
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.node import Node
from korch.resources.pod import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateRunning,
    ContainerStatus,
    HostPathVolumeSource,
    Pod,
    PodSpec,
    PodStatus,
    Toleration,
    Volume,
)
from korch.resources.podstate import condition, is_ready, with_condition
from korch.resources.times import rfc3339
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

ID = "a" * 64


class FakeWatch:
    """A node's session: it speaks every second as long as the node is on and the master's cable is in."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.life = Life(asyncio.get_running_loop().time())
        self.problem: KorchError | None = None
        self.attached, self.hurried = True, 0
        self.engine_down_since: float | None = None

    @property
    def engine_is_down(self) -> bool:
        return self.engine_down_since is not None

    def hurry(self) -> None:
        self.hurried += 1

    def drop(self) -> None:
        self.attached = False

    async def run(self) -> None:
        while True:
            if self.world.hears(self.name):
                self.attached = self.engine_down_since is None
                self.life.sign(asyncio.get_running_loop().time())
            elif self.life.silent_s(asyncio.get_running_loop().time()) > 5:
                self.attached = False
            await asyncio.sleep(1)


class World:
    """Nodes that are on or off, and a master that hears some of them. It stands for the fleet, too."""

    def __init__(self, *names: str, hook: Any = None) -> None:
        self.names = names
        self.off: set[str] = set()
        self.cut: set[str] = set()  # off from the master's point of view only
        self.served: set[tuple[str, int]] = set()  # though sshd is gone
        self.greeted: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.living: frozenset[str] | None = frozenset()
        self.objects = Objects(MemoryStore(), clock=LoopClock())  # type: ignore[arg-type]
        self.view = View(self.objects, (Node, Pod))
        self.connector = self
        self.watches: dict[str, Any] = {name: FakeWatch(self, name) for name in names}
        post: Any = SimpleNamespace(fleet=self, view=self.view, clock=LoopClock())
        self.lifecycle = Lifecycle(post, self.watches, hook=hook)

    def hears(self, name: str) -> bool:
        return name not in self.off | self.cut

    # As a fleet

    def host(self, name: str) -> str:
        return name

    async def greets(self, host: str, *, timeout_s: float) -> bool:
        self.greeted.append(host)
        await asyncio.sleep(0.01 if self.hears(host) else timeout_s)
        return self.hears(host)

    async def options_for(self, host: str) -> Any:
        return SimpleNamespace(hostname=host, port=22)

    def transport(self, witness: str) -> Any:
        async def forward(address: str, port: int, *, timeout_s: float) -> Any:
            self.asked.append((witness, address))
            if not self.hears(witness):
                raise StoreError(f"{witness} is not heard")
            if address in self.off and (address, port) not in self.served:
                raise ConnectionRefusedError
            return SimpleNamespace(close=lambda: asyncio.sleep(0))

        return SimpleNamespace(forward=forward)

    def machine(self, name: str) -> Any:
        async def living(ids: set[str]) -> frozenset[str] | None:
            return self.living

        return SimpleNamespace(living=living)

    async def record_failure(self, name: str, error: KorchError) -> None:
        now = LoopClock().now()
        await self.objects.modify(
            Node, name, "", lambda node: replace(node, status=failed_status(node, error, now)), status=True
        )

    # What stands

    async def start(self, group: asyncio.TaskGroup) -> None:
        for name in self.names:
            await self.objects.create(Node(metadata=ObjectMeta(name=name)))
            await self.objects.modify(Node, name, "", _ready, status=True)
        await self.view.start(group)
        for watch in self.watches.values():
            group.create_task(watch.run())
        group.create_task(self.lifecycle.run())
        await asyncio.sleep(100)

    async def pod(self, name: str, node: str, *, local: bool = False, port: int = 0, **spec: Any) -> None:
        volumes = (Volume(name="v", host_path=HostPathVolumeSource(path="/data")),) if local else ()
        ports = (ContainerPort(container_port=80, host_port=port),) if port else ()
        container = Container(name="web", image="w", ports=ports)
        made = Pod(
            metadata=ObjectMeta(name=name),
            spec=PodSpec(containers=(container,), node_name=node, volumes=volumes, **spec),
        )
        await self.objects.create(made)
        await self.objects.modify(Pod, name, "default", _running, status=True)

    async def phase(self, name: str) -> str:
        return (await self.objects.get(Pod, name)).status.phase

    async def node(self, name: str) -> Node:
        return await self.objects.get(Node, name, "")

    async def reason(self, name: str) -> str:
        found = condition((await self.node(name)).status.conditions, "Ready")
        return f"{found.reason}: {found.message}" if found else ""


def _ready(node: Node) -> Node:
    ready = Condition(type="Ready", status="True", reason="Ready")
    return replace(node, status=replace(node.status, conditions=with_condition((), ready, rfc3339(0.0))))


def _running(pod: Pod) -> Pod:
    ready = Condition(type="Ready", status="True")
    state = ContainerState(running=ContainerStateRunning())
    status = ContainerStatus(name="web", image="w", ready=True, state=state, container_id=ID)
    conditions = with_condition((), ready, rfc3339(0.0))
    return replace(
        pod,
        status=PodStatus(
            phase="Running", host_ip=pod.spec.node_name, conditions=conditions, container_statuses=(status,)
        ),
    )


def lives(
    *names: str, hook: Any = None, world: type["World"] = World
) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run the body in a world of these nodes, all of them heard for a while."""

    def run(body: Callable[[World], Awaitable[None]]) -> None:
        async def main() -> None:
            made = world(*names, hook=hook)
            async with background() as group:
                await made.start(group)
                await body(made)

        run_virtually(main)

    return run


def test_a_node_that_is_off_is_lost_within_eight_seconds_and_its_pods_are_given_up() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        await world.pod("web-2", "n2")
        world.off.add("n1")
        await asyncio.sleep(7.6)
        assert (await world.phase("web-1"), await world.phase("web-2")) == ("Failed", "Running")
        assert world.lifecycle.lost == {"n1"}
        assert unreachable_taint(await world.node("n1")) is not None
        assert (await world.reason("n1")).startswith(
            "Unreachable: n1 gives no sign of life, and n2, n3 cannot reach it"
        )

        assert LOSSES in (await world.node("n1")).metadata.annotations, "it will be trusted less for a while"

        world.off.clear()
        await asyncio.sleep(4)
        assert world.lifecycle.lost == frozenset()
        assert unreachable_taint(await world.node("n1")) is None


def test_stalls_move_nothing() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        for turn in range(40):
            world.off.add("n1")
            await asyncio.sleep(5)
            world.off.clear()
            await asyncio.sleep(2 + turn / 13)
        assert await world.phase("web-1") == "Running"
        assert unreachable_taint(await world.node("n1")) is None


def test_a_node_that_others_reach_is_only_told_of(caplog: pytest.LogCaptureFixture) -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        world.cut.add("n1")
        await asyncio.sleep(600)
        assert await world.phase("web-1") == "Running"
        assert "n2 reaches it, so its pods stay" in await world.reason("n1")
        assert len([line for line in caplog.messages if "reaches it" in line]) == 1
        assert len(world.asked) < 2 * 200, "less and less often"

    assert caplog.get_records("call")


def test_a_node_whose_sshd_died_and_whose_pods_still_serve_is_not_lost() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1", port=8080)
        world.off.add("n1")
        world.served.add(("n1", 8080))
        await asyncio.sleep(60)
        assert await world.phase("web-1") == "Running"
        world.served.clear()
        await asyncio.sleep(10)
        assert await world.phase("web-1") == "Failed"


def test_nobody_is_lost_while_nobody_can_tell() -> None:
    @lives("n1")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        world.off.add("n1")
        await asyncio.sleep(60)
        assert await world.phase("web-1") == "Running"
        assert "korch node lost n1" in await world.reason("n1")


def test_when_most_fall_silent_nothing_moves_until_a_person_says_so(caplog: pytest.LogCaptureFixture) -> None:
    @lives("n1", "n2", "n3", "n4")
    async def body(world: World) -> None:
        for name in world.names:
            await world.pod(f"web-{name}", name)
        for name in ("n2", "n3", "n4"):  # their last signs are not of the same moment
            world.off.add(name)
            await asyncio.sleep(0.6)
        await asyncio.sleep(300)
        assert [await world.phase(f"web-{name}") for name in world.names] == ["Running"] * 4
        assert "looks like the master's own network" in await world.reason("n2")
        assert len([line for line in caplog.messages if "fell silent together" in line]) == 3

        await world.objects.modify(Node, "n3", "", lambda node: _with_note(node, NODE_LOST))
        await asyncio.sleep(2)
        assert [await world.phase(f"web-{name}") for name in world.names] == ["Running", "Running", "Failed", "Running"]

        world.off.clear()
        await asyncio.sleep(5)
        for name in world.names:
            node = await world.node(name)
            assert not {NODE_LOST, MASS_LOSS} & node.metadata.annotations.keys()
            assert unreachable_taint(node) is None


def _with_note(node: Node, key: str) -> Node:
    return replace(node, metadata=replace(node.metadata, annotations={**node.metadata.annotations, key: "now"}))


def test_the_next_master_remembers_a_mass_loss() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n3")
        await world.objects.modify(Node, "n3", "", lambda node: _with_note(node, MASS_LOSS))
        world.off.add("n3")
        world.watches["n3"].attached = False
        await asyncio.sleep(120)
        assert await world.phase("web-1") == "Running"


def test_this_process_was_asleep() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        loop: Any = asyncio.get_running_loop()
        world.off.add("n1")
        loop.selector.now += 30  # nothing ran meanwhile
        await asyncio.sleep(4)
        assert await world.phase("web-1") == "Running"
        await asyncio.sleep(5)
        assert await world.phase("web-1") == "Failed", "judged anew, it is as lost as before"


def test_tolerations_keep_a_pod_for_their_seconds_but_not_ready() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        patient = Toleration(
            key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute", toleration_seconds=60
        )
        await world.pod("web-1", "n1", tolerations=(patient,))
        world.off.add("n1")
        await asyncio.sleep(30)
        assert await world.phase("web-1") == "Running"
        assert not is_ready(await world.objects.get(Pod, "web-1"))
        await asyncio.sleep(45)
        assert await world.phase("web-1") == "Failed"


class FakeHook:
    """Succeeds when it is told to."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.done: Callable[[str], None] | None = None

    def start(self, node: str, done: Callable[[str], None]) -> None:
        self.called.append(node)
        self.done = done

    def forget(self, node: str) -> None: ...

    async def close(self) -> None: ...


def test_data_waits_for_the_hook() -> None:
    hook = FakeHook()

    @lives("n1", "n2", "n3", hook=hook)
    async def body(world: World) -> None:
        await world.pod("db-1", "n1", local=True)
        world.off.add("n1")
        await asyncio.sleep(60)
        assert await world.phase("db-1") == "Running"
        assert set(hook.called) == {"n1"}
        assert hook.done is not None
        hook.done("n1")
        await asyncio.sleep(1)
        assert await world.phase("db-1") == "Failed"


def test_a_hook_that_succeeds_after_the_node_is_back_says_nothing_of_the_next_loss() -> None:
    hook = FakeHook()

    @lives("n1", "n2", "n3", hook=hook)
    async def body(world: World) -> None:
        await world.pod("db-1", "n1", local=True)
        world.off.add("n1")
        await asyncio.sleep(12)
        world.off.clear()
        await asyncio.sleep(5)
        assert hook.done is not None
        hook.done("n1")
        world.off.add("n1")
        hook.done = None
        await asyncio.sleep(30)
        assert hook.done is not None, "it was called again"
        assert await world.phase("db-1") == "Running"


def test_what_was_to_be_deleted_on_a_node_that_was_given_up_is_gone() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        pod = await world.objects.get(Pod, "web-1")
        world.off.add("n1")
        await world.objects.delete(Pod, "web-1")
        await asyncio.sleep(20)
        assert await world.objects.find(Pod, "web-1") is not None, "it may still run there"
        await world.objects.modify(Node, "n1", "", lambda node: _with_note(node, NODE_LOST))
        await asyncio.sleep(2)
        assert await world.objects.find(Pod, "web-1") is None
        assert await world.objects.tombstone(pod.metadata.uid) is not None


@pytest.mark.parametrize(
    ("living", "phase"),
    [
        pytest.param(frozenset({ID}), "Running", id="its process lives"),
        pytest.param(None, "Running", id="nobody can see"),
        pytest.param(frozenset(), "Failed", id="it is dead"),
    ],
)
def test_an_engine_that_is_down_for_a_minute(living: frozenset[str] | None, phase: str) -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        await world.pod("db-1", "n1", local=True)
        world.living = living
        world.watches["n1"].engine_down_since = asyncio.get_running_loop().time()
        world.watches["n1"].problem = EngineDownError("n1: no engine", host="n1")
        await asyncio.sleep(55)
        assert await world.phase("web-1") == "Running"
        await asyncio.sleep(25)
        assert await world.phase("web-1") == phase
        assert await world.phase("db-1") == "Running", "its data is there"
        assert world.lifecycle.lost == frozenset()


def test_a_store_that_refuses_delays_the_judgement_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        works, world.view.modify = world.view.modify, _refuse  # type: ignore[method-assign,assignment]
        world.off.add("n1")
        await asyncio.sleep(20)
        assert await world.phase("web-1") == "Running"
        world.view.modify = works  # type: ignore[method-assign]
        await asyncio.sleep(2)
        assert await world.phase("web-1") == "Failed"

    assert caplog.text.count("the disk is full") == 1, "once, not with every look"


async def _refuse(*_: object, **__: object) -> None:
    raise StoreError("the disk is full")


def test_a_node_that_refuses_us_is_not_asked_more_often_for_being_alive() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        watch = world.watches["n1"]
        watch.problem = EngineDownError("n1: no engine", host="n1")
        world.off.add("n1")
        await asyncio.sleep(5)
        world.off.clear()
        await asyncio.sleep(5)
        assert watch.hurried == 0


def test_a_node_that_leaves_the_inventory_is_forgotten() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        world.off.add("n1")
        await asyncio.sleep(20)
        assert world.lifecycle.lost == {"n1"}
        del world.watches["n1"]
        await asyncio.sleep(1)
        assert world.lifecycle.lost == frozenset()
        world.greeted.clear()
        await asyncio.sleep(30)
        assert world.greeted == []


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
