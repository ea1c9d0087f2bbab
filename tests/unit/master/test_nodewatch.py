"""One node as a master keeps it, in virtual time: what is told of it, and what a part that hangs takes with it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer
from korch.errors import CommandTimeoutError, EngineDownError, KorchError
from korch.master.background import background
from korch.master.controlling import Scope
from korch.master.nodewatch import NodeWatch, Post
from korch.nodes.errors import EngineCallError
from korch.nodes.machine import Ended
from korch.nodes.news import Pulse
from korch.nodes.register import failed_status
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.config import ConfigMap
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.misc import Event, Secret
from korch.resources.node import Node, NodeLoad, Taint
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.podstate import condition, is_ready, with_condition
from korch.resources.service import EndpointSlice
from korch.resources.times import rfc3339
from korch.resources.workload import ReplicaSet
from korch.scheduler.taints import UNREACHABLE
from tests.unit.nodes.fake_machine import FakeMachine
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

KINDS = (Node, NodeLoad, Pod, ReplicaSet, EndpointSlice, ConfigMap, Secret)


class Machine(FakeMachine):
    """With a session that says nothing, as long as nobody breaks it."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = asyncio.Event()
        self.stuck: set[str] = set()  # pods whose containers cannot be removed
        self.removing = self.removing_at_most = 0

    @asynccontextmanager
    async def session(self, *, every_s: int):
        self.broken.clear()

        async def news():
            while not self.broken.is_set():
                yield Pulse()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every_s):
                        await self.broken.wait()

        yield news()

    async def remove(self, identity: Identity, **words: Any) -> Ended:
        self.removing += 1
        self.removing_at_most = max(self.removing, self.removing_at_most)
        try:
            if identity.pod in self.stuck:
                await asyncio.sleep(40)
                raise EngineCallError("n1: tried to kill container, but did not receive an exit event", host="n1")
            await asyncio.sleep(30)
            return await super().remove(identity, **words)
        finally:
            self.removing -= 1

    async def set_epoch(self, epoch: int) -> int:
        return epoch


class World:
    """One node that greets all the time. It stands for the fleet, too."""

    def __init__(self) -> None:
        self.machine_there = Machine()
        self.hangs: KorchError | None = None  # what comes of each attempt to work there
        self.attached = 0
        self.greets = True
        self.objects = Objects(MemoryStore(), clock=LoopClock())  # type: ignore[arg-type]
        self.view = View(self.objects, KINDS)
        lead: Any = SimpleNamespace(raise_epoch=self.raise_epoch)
        post = Post(self, self.view, LoopClock(), lead, Scope(None), lambda: 1)  # type: ignore[arg-type]
        self.watch = NodeWatch("n1", post)

    async def raise_epoch(self, epoch: int) -> int:
        return max(1, epoch)

    # As a fleet

    def machine(self, name: str) -> Machine:
        return self.machine_there

    async def attach(self, name: str) -> Any:
        await asyncio.sleep(10 if self.hangs else 0.1)
        if self.hangs:
            await self.record_failure(name, self.hangs)  # as a look does
            raise self.hangs
        self.attached += 1
        await self.objects.modify(Node, "n1", "", _ready, status=True)
        report = SimpleNamespace(epoch=1, containers=await self.machine_there.containers())
        return SimpleNamespace(report=report, machine=self.machine_there, address="10.0.0.1", images=frozenset())

    async def record_failure(self, name: str, error: KorchError) -> None:
        now = LoopClock().now()
        await self.objects.modify(
            Node, name, "", lambda node: replace(node, status=failed_status(node, error, now)), status=True
        )

    # What stands

    async def start(self, group: asyncio.TaskGroup) -> None:
        await self.objects.create(Node(metadata=ObjectMeta(name="n1")))
        await self.view.start(group)
        self.view.listen(self._wake)  # type: ignore[arg-type]
        if self.greets:
            group.create_task(self._greet())
        group.create_task(self.watch.run(group))
        await asyncio.sleep(2)

    def _wake(self, change: Any) -> None:
        if isinstance(change.object, Pod):
            self.watch.wake(change.object)

    async def _greet(self) -> None:
        while True:
            self.watch.life.sign(asyncio.get_running_loop().time())
            await asyncio.sleep(1)

    async def ready(self) -> Condition:
        found = condition((await self.objects.get(Node, "n1", "")).status.conditions, "Ready")
        assert found is not None
        return found

    async def events(self) -> list[str]:
        return [event.reason for event in (await self.objects.list(Event)).items]

    async def pod(self, name: str, node: str = "n1") -> Pod:
        spec = PodSpec(containers=(Container(name="web", image="web:1"),), node_name=node)
        return await self.objects.create(Pod(metadata=ObjectMeta(name=name), spec=spec))

    async def is_ready(self, name: str) -> bool:
        return is_ready(await self.objects.get(Pod, name))


def _ready(node: Node) -> Node:
    ready = Condition(type="Ready", status="True", reason="Ready")
    return replace(node, status=replace(node.status, conditions=with_condition((), ready, rfc3339(0.0))))


def watched(body: Callable[[World], Awaitable[None]], *, greets: bool = True) -> None:
    async def main() -> None:
        world = World()
        world.greets = greets
        async with background() as group:
            await world.start(group)
            await body(world)

    run_virtually(main)


def hung() -> CommandTimeoutError:
    return CommandTimeoutError("n1: the login did not end within 10 s", host="n1")


# --- a node that greets and does nothing else ---


def test_a_node_that_greets_and_lets_nobody_in_is_told_of_until_it_does() -> None:
    async def body(world: World) -> None:
        assert (await world.ready()).status == "True"
        world.hangs = hung()
        world.machine_there.broken.set()
        await asyncio.sleep(9)
        assert (await world.ready()).status == "True", "a short hang is no news"
        await asyncio.sleep(200)
        ready = await world.ready()
        assert (ready.status, ready.reason) == ("Unknown", "NotResponding")
        assert "the login did not end" in ready.message
        assert "korch node lost n1" in ready.message
        assert (await world.events()).count("NodeNotResponding") == 1
        read = []
        for _ in range(100):
            await asyncio.sleep(1)
            read.append((await world.ready()).reason)
        assert read.count("NotResponding") > 80, "whatever each further attempt says"

        gone = Taint(key=UNREACHABLE, effect="NoExecute")
        given_up = lambda node: replace(node, spec=replace(node.spec, taints=(gone,)))  # noqa: E731
        await world.objects.modify(Node, "n1", "", given_up)
        await asyncio.sleep(100)
        assert (await world.ready()).reason == "Unreachable", "a node that was given up is told of by others"
        assert not world.watch.attached, "nothing new is placed there"

        world.hangs = None
        world.watch.hurry()
        await asyncio.sleep(15)
        assert (await world.ready()).status == "True"
        assert (await world.events()).count("NodeResponding") == 1

    watched(body)


def test_a_node_that_answers_why_it_does_not_work_keeps_that_reason() -> None:
    async def body(world: World) -> None:
        world.hangs = EngineDownError("n1: docker does not answer", host="n1")
        world.machine_there.broken.set()
        await asyncio.sleep(200)
        assert (await world.ready()).reason == "EngineDown"

    watched(body)


# --- surplus that stays ---


def surplus(machine: Machine, pod: Pod) -> None:
    """A container of a pod that is bound to another node."""
    meta = pod.metadata
    identity = Identity("c1", meta.namespace, meta.name, meta.uid, "web", "web", 1, "h")
    machine.held[meta.uid] = ObservedContainer(
        identity=identity, id=meta.uid, name=f"korch_{meta.name}", image="i", image_id="", state="running"
    )


def test_a_container_that_cannot_be_removed_holds_up_neither_its_node_nor_the_others() -> None:
    async def main() -> None:
        world = World()
        machine = world.machine_there
        async with background() as group:
            moved = [await world.pod(f"moved-{number}", "n2") for number in range(3)]
            for pod in moved:
                surplus(machine, pod)
            machine.stuck = {"moved-0"}
            await world.pod("web-1")
            await world.start(group)
            await asyncio.sleep(48)
            assert machine.removing_at_most == 3, "side by side, and the node is back when the slowest is through"
            assert machine.held.keys() & {pod.metadata.uid for pod in moved} == {moved[0].metadata.uid}
            assert world.watch.attached
            assert await world.is_ready("web-1")
            assert (await world.events()).count("FailedKillPod") == 1
            machine.stuck.clear()
            await asyncio.sleep(150)
            assert moved[0].metadata.uid not in machine.held, "it is tried again"

    run_virtually(main)


def test_the_session_is_heard_while_surplus_is_removed() -> None:
    async def body(world: World) -> None:
        machine = world.machine_there
        moved = await world.pod("moved-0", "n2")
        surplus(machine, moved)
        machine.stuck = {"moved-0"}
        heard = []
        for _ in range(500):
            if machine.removing:
                heard.append(world.watch.life.silent_s(asyncio.get_running_loop().time()))
            await asyncio.sleep(1)
        assert len(heard) >= 30
        assert max(heard) < 2

    watched(body, greets=False)


def test_what_a_pod_leaves_behind_that_was_deleted_by_force_goes_soon() -> None:
    async def body(world: World) -> None:
        pod = await world.pod("web-1")
        await asyncio.sleep(5)
        assert pod.metadata.uid in world.machine_there.held
        await world.objects.delete(Pod, "web-1", grace_s=0)
        await asyncio.sleep(35)  # the end itself takes this machine 30 s
        assert pod.metadata.uid not in world.machine_there.held
        assert world.attached == 1, "no look at the node is needed for it"

    watched(body)


# --- an engine that hangs ---


def test_a_node_whose_engine_hangs_while_its_session_goes_on_takes_nothing_new_until_a_look_succeeds() -> None:
    async def body(world: World) -> None:
        await world.pod("web-1")
        await asyncio.sleep(5)
        assert world.watch.attached
        machine, down = world.machine_there, EngineDownError("n1: docker did not answer within 20 s", host="n1")
        machine.faults["look"], machine.delays["look"] = down, 20
        await asyncio.sleep(70)
        assert not world.watch.attached
        world.hangs = down
        await asyncio.sleep(60)
        assert world.watch.engine_is_down
        assert (await world.ready()).reason == "EngineDown"
        assert world.attached <= 3, "the keeper's failing looks do not break up each attempt"

        machine.faults.clear()
        machine.delays.clear()
        world.hangs = None
        await asyncio.sleep(20)
        assert world.watch.attached
        await world.pod("web-2")
        await asyncio.sleep(5)
        assert await world.is_ready("web-2")

    watched(body)


def test_looks_that_fail_for_a_moment_end_no_session() -> None:
    async def body(world: World) -> None:
        await world.pod("web-1")
        await asyncio.sleep(5)
        machine, attached = world.machine_there, world.attached
        machine.faults["look"] = EngineDownError("n1: docker is being restarted", host="n1")
        assert world.watch.keeper is not None
        world.watch.keeper.glance()
        await asyncio.sleep(6)
        machine.faults.clear()
        await asyncio.sleep(100)
        assert world.watch.attached
        assert world.attached == attached

    watched(body)
