"""The machines that answer, one by one; and leaving early when some never do."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from korch.master.fleet import Fleet
from korch.objects.objects import ObjectList
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.node import Node, NodeStatus
from tests.unit.master.fleet_world import Box, a_fleet
from tests.unit.nodes.virtual_loop import run_virtually

OFF = float("inf")


@pytest.mark.parametrize("names", [("n2",), ("n1", "n2")], ids=["nobody answers", "at work on one"])
def test_who_leaves_early_does_not_wait_for_the_silent_ones(tmp_path: Path, names: tuple[str, ...]) -> None:
    async def scenario() -> None:
        fleet = a_fleet(tmp_path, *(Box(name, after_s=OFF if name == "n2" else 0.0) for name in names))
        began: list[str] = []

        async def use() -> None:
            async for machine in fleet.usable():
                began.append(machine.host)
                await asyncio.Event().wait()

        task = asyncio.create_task(use())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await fleet.close()
        assert began == [name for name in names if name == "n1"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert fleet.boxes["n2"].events == ["n2 dial"]  # and nobody waited until it failed

    run_virtually(scenario)


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
