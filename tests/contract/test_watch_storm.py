"""Many watchers over a busy writer: each sees every change once and in order, or is told that it must list again.

`python -m tests.chaos` does the same over TLS with 10,000 changes, and with watchers that stop reading.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from korch.resources.codec import with_meta
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from tests.contract.watchers import OBJECTS, PATH, WATCHERS, Events, Follower
from tests.unit.api.serving import World, run, watching

CHANGES = 400


class Here:
    """The API over ASGI."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def list(self) -> Any:
        return await self._world.get(PATH)

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncIterator[Events]:
        async with watching(self._world, PATH, resourceVersion=after) as watcher:
            yield watcher


def test_each_sees_every_change_once_and_in_order(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = [await world.objects.create(ConfigMap(metadata=ObjectMeta(name=f"c{n}"))) for n in range(OBJECTS)]
        end = await world.store.revision() + CHANGES
        followers = [Follower(Here(world), number, end) for number in range(WATCHERS)]
        following = [asyncio.create_task(one.follow()) for one in followers]
        changes = []
        for number in range(CHANGES):
            place = number % OBJECTS
            made[place] = await world.objects.update(with_meta(made[place], labels={"n": str(number)}))
            changes.append(int(made[place].metadata.resource_version))
        await asyncio.gather(*following)
        wanted = {one.metadata.name: int(one.metadata.resource_version) for one in made}
        for one in followers:
            one.check(changes, wanted)

    run(tmp_path, check, timeout_s=100)
