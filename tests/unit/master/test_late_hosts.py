"""Hosts that let all others wait: nobody waits for them, and they are taken in when they answer after all."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from korch.client.base import Outcome
from korch.errors import InvalidError
from korch.resources.codec import with_meta
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.podstate import condition
from tests.unit.master.fleet_world import Box, BoxFleet, a_cluster, a_fleet
from tests.unit.master.test_oneshot import WallClock, World, app, ok
from tests.unit.nodes.virtual_loop import run_virtually
from tests.unit.scheduler.world import load, node

OFF = float("inf")


class LateWorld(World):
    """Deploys over a real fleet on boxes; each run is another process."""

    def __init__(self, folder: Path, boxes: Sequence[Box]) -> None:
        super().__init__(folder, nodes=0)
        self.boxes = {box.name: box for box in boxes}
        self.cluster = a_cluster(folder, [box.name for box in boxes], store=self.store)
        self.cluster.clock, self.cluster.objects = WallClock(), self.objects

    async def set_up(self) -> None:
        for name in self.boxes:
            await self.objects.restore(node(name))
            await self.objects.restore(with_meta(load(), name=name))

    async def run(self, *workloads: str, **more: object) -> tuple[Outcome, ...]:
        self.fleet = BoxFleet(self.cluster, self.boxes)  # type: ignore[assignment]
        try:
            return await super().run(*workloads, **more)  # type: ignore[arg-type]
        finally:
            await self.fleet.close()  # type: ignore[attr-defined]

    def starts(self) -> list[str]:
        return [name for name, box in self.boxes.items() for call in box.machine.calls if call.startswith("start")]

    async def ready(self, name: str) -> str:
        found = condition((await self.objects.get(Node, name, "")).status.conditions, "Ready")
        assert found is not None
        return found.status


def test_the_first_start_does_not_wait_for_a_host_that_is_off(tmp_path: Path) -> None:
    async def body() -> None:
        world = LateWorld(tmp_path, [Box("n1", "t1"), Box("n2", "t2"), Box("n3", "t3", after_s=OFF)])
        await world.set_up()
        events: list[str] = []
        for box in world.boxes.values():
            box.events = events
        outcome = await world.deploy(app(replicas=2))
        ok(outcome)
        assert events.index("n3 dial") < min(events.index("n1 start"), events.index("n2 start"))
        assert "n3 silent" not in events[: events.index("n1 start")]
        assert any("n3 has not answered yet" in note for note in outcome.notes)
        assert await world.ready("n3") == "Unknown"

    run_virtually(body)


def test_one_that_answers_late_is_kept_like_the_others_and_nothing_is_doubled(tmp_path: Path) -> None:
    async def body() -> None:
        world = LateWorld(tmp_path, [Box("n1", "t1"), Box("n2", "t2"), Box("n3", "t3")])
        await world.set_up()
        ok(await world.deploy(app(replicas=3)))
        assert sorted(world.starts()) == ["n1", "n2", "n3"]
        world.boxes["n3"].after_s = 5.0
        again = await world.deploy(app(replicas=3))
        ok(again)
        assert sorted(world.starts()) == ["n1", "n2", "n3"]
        fewer = await world.deploy(app(replicas=0))  # done elsewhere before it answers
        ok(fewer)
        assert [len(box.machine.held) for box in world.boxes.values()] == [0, 0, 0]
        assert not [note for note in fewer.notes if "n3" in note]
        assert await world.ready("n3") == "True"

    run_virtually(body)


def test_what_stands_on_a_host_that_stays_silent_is_neither_doubled_nor_given_up(tmp_path: Path) -> None:
    async def body() -> None:
        world = LateWorld(tmp_path, [Box("n1", "t1"), Box("n2", "t2"), Box("n3", "t3")])
        await world.set_up()
        ok(await world.deploy(app(replicas=3)))
        before = {pod.metadata.uid: pod.spec.node_name for pod in (await world.objects.list(Pod)).items}
        world.boxes["n3"].after_s = OFF
        for _ in range(2):  # the second time it is known to be silent
            await world.deploy(app(replicas=3))
        assert {pod.metadata.uid: pod.spec.node_name for pod in (await world.objects.list(Pod)).items} == before
        assert sorted(world.starts()) == ["n1", "n2", "n3"]

    run_virtually(body)


def test_whoever_needs_all_hosts_waits_for_all(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = a_fleet(tmp_path, Box("n1"), Box("n2", after_s=5), Box("n3", after_s=OFF))
        assert sorted(await fleet.contacts(claim=False, hurried=True)) == ["n1"]
        assert fleet.awaited == {"n2", "n3"}
        assert sorted(await fleet.contacts(claim=False)) == ["n1", "n2"]
        assert "did not answer for 10 s" in str(fleet.problems["n3"])

    run_virtually(body)


def test_when_nobody_answers_all_are_waited_for(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = a_fleet(tmp_path, Box("n1", after_s=OFF), Box("n2", after_s=6))
        assert sorted(await fleet.contacts(claim=False, hurried=True)) == ["n2"]

    run_virtually(body)


def test_a_late_host_tells_itself_that_it_is_no_twin(tmp_path: Path) -> None:
    async def body() -> None:
        a, b = Box("n1", "ta"), Box("n2", "tb")
        fleet = a_fleet(tmp_path, a, b)
        await fleet.survey()
        a.after_s = 5
        swapped = BoxFleet(fleet._cluster, {"n1": b, "n2": a})
        assert sorted(await swapped.contacts(claim=False, hurried=True)) == ["n1", "n2"]

    run_virtually(body)


def test_a_late_name_for_a_machine_that_is_known_is_left_out(tmp_path: Path) -> None:
    async def body() -> None:
        box, slow = Box("n1", "t1"), Box("n2", "t1", after_s=5)
        fleet = a_fleet(tmp_path, box, slow)
        assert sorted(await fleet.contacts(claim=True, hurried=True)) == ["n1"]
        assert [name async for name in fleet.late()] == ["n2"]
        assert sorted(await fleet.contacts(claim=True, hurried=True)) == ["n1"]
        with pytest.raises(InvalidError, match="the same machine"):
            raise fleet.problems["n2"]

    run_virtually(body)


def test_one_that_answers_while_the_others_go_on_record_is_not_forgotten(tmp_path: Path) -> None:
    class Slow(BoxFleet):
        async def _record_all(self, *args: Any) -> Any:
            await asyncio.sleep(3)
            return await super()._record_all(*args)

    async def body() -> None:
        boxes = {box.name: box for box in (Box("n1"), Box("n2", after_s=4))}
        fleet = Slow(a_cluster(tmp_path, list(boxes)), boxes)
        assert sorted(await fleet.contacts(claim=False, hurried=True)) == ["n1"]
        assert fleet.awaited == {"n2"}
        assert [name async for name in fleet.late()] == ["n2"]
        assert sorted(await fleet.contacts(claim=False, hurried=True)) == ["n1", "n2"]

    run_virtually(body)
