"""What people are told about nodes and the lead."""

import asyncio

import pytest
from msgspec.structs import replace

from korch.master.background import background
from korch.master.happenings import Happenings, happenings
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.misc import Event
from korch.resources.node import Node, NodeSpec
from korch.resources.podstate import with_condition
from korch.resources.times import rfc3339
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore


def node(reason: str = "Ready", *, cordoned: bool = False, pressure: str = "") -> Node:
    status = {"Ready": "True", "Unreachable": "Unknown"}.get(reason, "False")
    conditions = with_condition(
        (), Condition(type="Ready", status=status, reason=reason, message=f"so: {reason}"), rfc3339(0)
    )
    if pressure:
        conditions = (*conditions, Condition(type=pressure, status="True", message="nearly full"))
    found = Node(metadata=ObjectMeta(name="n1"), spec=NodeSpec(unschedulable=cordoned))
    return replace(found, status=replace(found.status, conditions=conditions))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (node(), node("EngineDown"), [("Warning", "EngineDown")]),
        (node(), node("AuthFailed"), [("Warning", "AuthFailed")]),
        (node("AuthFailed"), node("HostKeyChanged"), [("Warning", "HostKeyChanged")]),
        (node("EngineDown"), node(), [("Normal", "NodeReady")]),
        (node(), node("Unreachable"), []),
        (node("Unreachable"), node(), []),
        (node(), node(cordoned=True), [("Normal", "NodeNotSchedulable")]),
        (node(cordoned=True), node(), [("Normal", "NodeSchedulable")]),
        (node(), node(pressure="DiskPressure"), [("Warning", "NodeHasDiskPressure")]),
        (node("EngineDown"), node("EngineDown"), []),
    ],
)
def test_what_a_change_of_a_node_is_to_people(before: Node, after: Node, expected: list[tuple[str, str]]) -> None:
    assert [(found.type, found.reason) for found in happenings(after, before)] == expected


def test_they_are_written_and_counted_and_the_lead_is_told() -> None:
    async def main() -> None:
        objects = Objects(MemoryStore(), clock=LoopClock())  # type: ignore[arg-type]
        view = View(objects, (Node,))
        await objects.create(Node(metadata=ObjectMeta(name="n1")))
        async with background() as group:
            await view.start(group)
            group.create_task(Happenings(view, "host/1/abc").run())
            for reason in ("Ready", "EngineDown", "Ready", "EngineDown"):
                status = node(reason).status
                await objects.modify(Node, "n1", "", lambda found, to=status: replace(found, status=to), status=True)
                await asyncio.sleep(1)
            events = (await objects.list(Event)).items
            assert {(found.involved_object.kind, found.reason, found.count) for found in events} == {
                ("Lease", "LeaderElection", 1),
                ("Node", "EngineDown", 2),
                ("Node", "NodeReady", 1),
            }
            assert any(found.message == "host/1/abc became leader" for found in events)

    run_virtually(main)
