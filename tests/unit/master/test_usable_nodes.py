"""The machines that answer, one by one; and leaving early when some never do."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from korch.master.fleet import Fleet
from korch.objects.objects import ObjectList
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.node import Node, NodeStatus


class SilentFleet(Fleet):
    """One host answers at once, the look at the others never ends."""

    def __init__(self) -> None:
        self._contacts, self.errors, self._arrivals, self._looking = {}, {}, [], None
        self.gave_up = False

    def machine(self, node: str) -> Any:
        return node

    async def contacts(self, *, claim: bool) -> Any:
        for queue in self._arrivals:
            queue.put_nowait(Node(metadata=ObjectMeta(name="n1")))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.gave_up = True
            raise


def test_who_is_cancelled_while_nobody_answers_does_not_wait_for_the_silent_ones() -> None:
    async def scenario() -> None:
        fleet = SilentFleet()

        async def use() -> None:
            async for _ in fleet.usable():
                continue  # and on to the next, which never comes

        task = asyncio.create_task(use())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert fleet.gave_up

    asyncio.run(scenario())


def test_who_is_cancelled_at_work_on_one_can_leave_too() -> None:
    async def scenario() -> None:
        fleet = SilentFleet()

        async def use() -> None:
            machines = fleet.usable()
            assert await anext(machines) == "n1"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                fleet.stop_looking()
                raise
            finally:
                await machines.aclose()

        task = asyncio.create_task(use())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert fleet.gave_up

    asyncio.run(scenario())


class RecordedFleet(Fleet):
    """Nodes on record; only their names matter."""

    def __init__(self, nodes: Sequence[Node], hosts: Sequence[str]) -> None:
        async def listed(_: object) -> Any:
            return ObjectList(tuple(nodes), 1)

        clock = SimpleNamespace(now=lambda: 0.0)
        self._cluster: Any = SimpleNamespace(objects=SimpleNamespace(list=listed), clock=clock)
        self._hosts = dict.fromkeys(hosts, None)  # type: ignore[assignment]

    def machine(self, node: str) -> Any:
        return node


def test_of_what_a_master_keeps_only_ready_nodes_of_the_inventory_are_asked() -> None:
    def node(name: str, ready: str) -> Node:
        status = NodeStatus(conditions=(Condition(type="Ready", status=ready),))
        return Node(metadata=ObjectMeta(name=name), status=status)

    async def scenario() -> list[Any]:
        fleet = RecordedFleet([node("n1", "False"), node("n2", "True"), node("gone", "True")], ["n1", "n2"])
        return [machine async for machine in fleet.recorded()]

    assert asyncio.run(scenario()) == ["n2"]
