"""The state file of a busy day, compressed in time: it stays as small as it was in the morning."""

import asyncio
from pathlib import Path

from msgspec.structs import replace

from korch.objects.objects import Objects, SystemClock
from korch.resources.meta import ObjectMeta
from korch.resources.node import NodeLoad
from korch.resources.pod import Container, Pod, PodSpec
from korch.store.sqlite import open_sqlite
from korch.store.upkeep import Limits

NODES, ROUNDS = 20, 400  # samples; a day of 20 nodes has about 8,640 rounds when every sample would change a score
LIMITS = Limits(revisions=2_000)  # a fifth of the real ones, so that a fifth of the writes show the same


def test_a_busy_day_leaves_a_small_file(tmp_path: Path) -> None:
    path, sizes = tmp_path / "state.db", list[int]()

    async def day() -> None:
        store = await open_sqlite(path, limits=LIMITS)
        objects = Objects(store, clock=SystemClock())
        await objects.ensure_default_namespace()
        for number in range(NODES):
            await objects.create(NodeLoad(metadata=ObjectMeta(name=f"n{number}")))
        for turn in range(ROUNDS):
            await asyncio.gather(*(sample(objects, number, turn) for number in range(NODES)))
            if turn % 4 == 0:
                await replica_comes_and_goes(objects, turn)
            if turn % 40 == 39:
                sizes.append((await store.size()).used_bytes)
        await store.close()

    asyncio.run(day())
    assert max(sizes[5:]) < 1.3 * max(sizes[3:5])  # the evening is as the noon
    assert path.stat().st_size < 4_000_000


async def sample(objects: Objects, number: int, turn: int) -> None:
    await objects.modify(NodeLoad, f"n{number}", "", lambda old: replace(old, load1=turn + number / 100, cpu_busy=0.5))


async def replica_comes_and_goes(objects: Objects, turn: int) -> None:
    spec = PodSpec(containers=(Container(name="web", image="web:1"),))
    pod = await objects.create(Pod(metadata=ObjectMeta(name=f"web-{turn}", namespace="default"), spec=spec))
    await objects.record_event(pod, type="Normal", reason="Started", message=f"turn {turn}", component="keeper")
    await objects.delete(Pod, pod.metadata.name, grace_s=0)
