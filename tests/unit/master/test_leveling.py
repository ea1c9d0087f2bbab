"""What a master does for `korch rebalance --auto`."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from korch.client.base import ContainerUsage
from korch.master.background import background
from korch.master.controlling import KINDS
from korch.master.leveling import is_auto, level, set_auto
from korch.objects.objects import Objects, SystemClock
from korch.objects.view import View
from korch.resources.annotations import EVICT, EVICT_WHY
from korch.resources.pod import Pod
from korch.store.sqlite import open_sqlite
from tests.unit.cli.test_rebalance import lopsided
from tests.unit.cli.world import World


class Machine:
    async def usage(self) -> tuple[ContainerUsage, ...]:
        return ()


def test_off_until_somebody_wants_it(tmp_path: Path) -> None:
    async def go() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        assert not await is_auto(store)
        await set_auto(store, True)
        assert await is_auto(store)
        await set_auto(store, False)
        assert not await is_auto(store)
        await store.close()

    asyncio.run(go())


def test_one_of_two_replicas_on_a_busy_node_is_marked(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.path.parent.mkdir(parents=True)
    lopsided(world)
    world.put(*(one.load for one in world.seen if one.load is not None))

    async def go() -> list[dict[str, str]]:
        store = await open_sqlite(world.path)
        objects, clock = Objects(store, clock=SystemClock()), SystemClock()
        view = View(objects, KINDS)
        contacts: Any = {name: SimpleNamespace(machine=Machine()) for name in ("n1", "n2")}
        cluster: Any = SimpleNamespace(objects=objects, clock=clock, store=store)
        async with background() as group:
            await view.start(group)
            await level(cluster, view, contacts)
            await level(cluster, view, contacts)  # what is under way counts
        pods = (await objects.list(Pod)).items
        await store.close()
        return [pod.metadata.annotations for pod in pods]

    marked = [notes for notes in asyncio.run(go()) if EVICT in notes]
    assert len(marked) == 1
    assert marked[0][EVICT] == "start-first"
    assert marked[0][EVICT_WHY] == "rebalance"
