"""NoExecute taints: who must leave, when, and how; and which nodes are tainted not-ready."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from korch.controllers.deployment import set_from
from korch.controllers.replicaset import pod_from
from korch.errors import AuthFailedError
from korch.master.background import background
from korch.master.tainting import HAND_OVER_S, TaintEvictions, due_taint
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.annotations import EVICT, EVICT_WHY, REPLACES
from korch.resources.codec import with_meta
from korch.resources.leaving import START_FIRST
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.misc import Event
from korch.resources.node import Node, NodeSpec, Taint
from korch.resources.pod import Container, Pod, PodSpec, Toleration
from korch.resources.podstate import with_condition
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment, ReplicaSet
from korch.scheduler.taints import NOT_READY, UNREACHABLE
from tests.unit.controllers.cluster import deployment
from tests.unit.master.test_lifecycle import World, lives
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

ILL = Taint(key=NOT_READY, effect="NoExecute")
OURS = Taint(key="what", value="ever", effect="NoExecute")


def tolerates(key: str = "", seconds: int | None = None) -> Toleration:
    return Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=seconds)


@pytest.mark.parametrize(
    ("tolerations", "taint", "expected"),
    [
        pytest.param((), OURS, True, id="not tolerated"),
        pytest.param((tolerates("what"),), OURS, False, id="tolerated for good"),
        pytest.param((tolerates("what", 99),), OURS, True, id="no longer"),
        pytest.param((tolerates("what", 101),), OURS, False, id="still"),
        pytest.param((tolerates(NOT_READY, 1),), OURS, True, id="another key"),
        pytest.param((), ILL, False, id="not-ready is tolerated by default"),
        pytest.param((tolerates(NOT_READY, 99),), ILL, True, id="not-ready for a time"),
        pytest.param((tolerates("", 99),), ILL, True, id="any taint for a time"),
        pytest.param((), Taint(key="what", effect="NoSchedule"), False, id="only new pods"),
        pytest.param((), Taint(key=UNREACHABLE, effect="NoExecute"), False, id="judged elsewhere"),
    ],
)
def test_who_must_leave_after_100_s(tolerations: tuple[Toleration, ...], taint: Taint, expected: bool) -> None:
    pod = Pod(spec=PodSpec(containers=(Container(name="web", image="w"),), tolerations=tolerations))
    assert (due_taint(pod, {taint: 1000.0}, 1100.0) == taint) is expected


class Tainted:
    """A view with a node n1, and pods of a Deployment on it."""

    def __init__(self) -> None:
        self.objects = Objects(MemoryStore(), clock=LoopClock())  # type: ignore[arg-type]
        self.view = View(self.objects, (Node, Pod, ReplicaSet, Deployment))
        self.evictions = TaintEvictions(self.view, LoopClock(), is_down=lambda _: False)

    async def taint(self, *taints: Taint) -> None:
        await self.objects.modify(Node, "n1", "", lambda node: replace(node, spec=NodeSpec(taints=taints)))
        await asyncio.sleep(0.1)

    async def look(self, after_s: float = 2.0) -> None:
        await asyncio.sleep(after_s)
        await self.evictions.look(frozenset())
        await asyncio.sleep(0.1)

    async def pod(self, name: str, *, node: str = "n1", **meta: Any) -> Pod:
        wish = replace(deployment("w"), metadata=replace(deployment("w").metadata, uid="d"))
        owner = with_meta(set_from(wish, 1), uid="s")
        for obj in (wish, owner):
            if await self.objects.find(type(obj), obj.metadata.name) is None:
                await self.objects.restore(obj)
        made = with_meta(pod_from(owner, name), **meta)
        await self.objects.create(replace(made, spec=replace(made.spec, node_name=node)))
        await asyncio.sleep(0.1)
        return await self.objects.get(Pod, name)

    async def why(self, name: str) -> str | None:
        found = await self.objects.find(Pod, name)
        return (
            "gone" if found is None or found.metadata.deletion_timestamp else found.metadata.annotations.get(EVICT_WHY)
        )


def with_taints(body: Any) -> None:
    async def main() -> None:
        world = Tainted()
        await world.objects.create(Node(metadata=ObjectMeta(name="n1")))
        async with background() as group:
            await world.view.start(group)
            await body(world)

    run_virtually(main)


def test_a_taint_of_a_person_lets_pods_hand_over_and_is_taken_back_with_it() -> None:
    async def body(world: Tainted) -> None:
        await world.pod("web-1")
        await world.look()
        assert await world.why("web-1") is None
        await world.taint(OURS)
        await world.look()
        assert await world.why("web-1") == "the taint what=ever:NoExecute of n1"
        assert (await world.objects.get(Pod, "web-1")).metadata.annotations[EVICT] == START_FIRST
        assert [event.reason for event in (await world.objects.list(Event)).items] == ["TaintManagerEviction"]
        await world.taint()
        await world.look()
        assert await world.why("web-1") is None

    with_taints(body)


def test_who_drains_a_node_keeps_its_own_mark() -> None:
    async def body(world: Tainted) -> None:
        await world.pod("web-1", annotations={EVICT: START_FIRST, EVICT_WHY: "drain"})
        await world.taint(OURS)
        await world.look()
        await world.taint()
        await world.look()
        assert await world.why("web-1") == "drain"

    with_taints(body)


def test_what_nobody_can_take_over_goes_without() -> None:
    async def body(world: Tainted) -> None:
        old = await world.pod("web-1")
        await world.objects.create(
            Pod(
                metadata=ObjectMeta(name="alone"),
                spec=PodSpec(containers=(Container(name="web", image="w"),), node_name="n1"),
            )
        )
        await world.taint(OURS)
        await world.look()
        assert await world.why("alone") == "gone", "nobody would make another one"
        assert await world.why("web-1") != "gone"
        await world.pod("web-2", node="", annotations={REPLACES: old.metadata.uid})
        nowhere = Condition(type="PodScheduled", status="False", reason="Unschedulable", message="no room")
        await world.objects.modify(
            Pod,
            "web-2",
            "default",
            lambda pod: replace(
                pod, status=replace(pod.status, conditions=with_condition((), nowhere, rfc3339(0)), phase="Pending")
            ),
            status=True,
        )
        await world.look()
        assert await world.why("web-1") == "gone", "its successor has no place"

    with_taints(body)


def test_a_successor_that_never_comes_up_is_not_waited_for_all_day() -> None:
    async def body(world: Tainted) -> None:
        await world.pod("web-1")
        await world.taint(OURS)
        await world.look()
        await world.look(HAND_OVER_S / 2)
        assert await world.why("web-1") != "gone"
        await world.look(HAND_OVER_S)
        assert await world.why("web-1") == "gone"

    with_taints(body)


def test_the_seconds_of_a_toleration_count_from_the_first_sight_of_the_taint() -> None:
    async def body(world: Tainted) -> None:
        made = await world.pod("web-1")
        patient = replace(made, spec=replace(made.spec, tolerations=(tolerates("what", 60),)))
        await world.objects.finish_delete(made)
        await world.objects.create(with_meta(patient, uid="", resource_version=""))
        await asyncio.sleep(100)
        await world.taint(OURS)
        await world.look()
        await world.look(50)
        assert await world.why("web-1") is None
        await world.look(12)
        assert (await world.why("web-1") or "").startswith("the taint")

    with_taints(body)


def test_a_node_whose_engine_is_down_is_tainted_and_only_who_said_so_leaves() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1", tolerations=(tolerates(NOT_READY, 30),))
        await world.pod("web-2", "n1")
        await world.pod("db-1", "n1", local=True, tolerations=(tolerates(NOT_READY, 30),))
        world.living = frozenset({"a" * 64})
        watch = world.watches["n1"]
        watch.engine_down_since = asyncio.get_running_loop().time()
        await asyncio.sleep(20)
        assert [taint.key for taint in (await world.node("n1")).spec.taints] == [NOT_READY]
        assert await world.phase("web-1") == "Running"
        await asyncio.sleep(100)
        assert [await world.phase(name) for name in ("web-1", "web-2", "db-1")] == ["Failed", "Running", "Running"]
        watch.engine_down_since = None
        await asyncio.sleep(3)
        assert (await world.node("n1")).spec.taints == ()


def test_a_node_that_refuses_the_login_is_never_tainted() -> None:
    @lives("n1", "n2", "n3")
    async def body(world: World) -> None:
        await world.pod("web-1", "n1", tolerations=(tolerates(NOT_READY, 1), tolerates(UNREACHABLE, 1)))
        watch = world.watches["n1"]
        watch.engine_down_since = asyncio.get_running_loop().time()
        await asyncio.sleep(0.6)
        watch.engine_down_since, watch.problem = None, AuthFailedError("n1: no key fits", host="n1")
        watch.run = None
        await asyncio.sleep(60)
        assert (await world.node("n1")).spec.taints == ()
        assert await world.phase("web-1") == "Running"
