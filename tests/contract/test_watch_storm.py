"""Many watchers over a busy writer: each sees every change once and in order, or is told that it must list again.

`KORCH_TEST_CHANGES=10000` makes it the storm that releases are tried with; by default it takes seconds.
"""

import asyncio
import os
import random
from pathlib import Path

from korch.resources.codec import with_meta
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from tests.unit.api.serving import World, run, watching

WATCHERS, CHANGES, OBJECTS = 200, int(os.environ.get("KORCH_TEST_CHANGES", "400")), 10
PATH = "/api/v1/configmaps"


class Follower:
    """One watcher: a slow one (every tenth), one that comes and goes (every fifth), or a plain one."""

    def __init__(self, world: World, number: int, end: int) -> None:
        self.world, self.end = world, end
        self.slow, self.restless = number % 10 == 0, number % 5 == 1
        self.chance = random.Random(number)
        self.state: dict[str, int] = {}
        self.seen: list[int] = []
        self.listed = 0

    async def follow(self) -> None:
        last = await self.list()
        while last < self.end:
            async with watching(self.world, PATH, resourceVersion=last) as watcher:
                stay = self.chance.randrange(20, 200) if self.restless else self.end
                for number in range(stay):
                    event = await watcher.next()
                    if event is None or event["type"] == "ERROR" or watcher.status != 200:
                        last = await self.list()
                        break
                    meta = event["object"]["metadata"]
                    last = int(meta["resourceVersion"])
                    self.state[meta["name"]] = last
                    self.seen.append(last)
                    if last >= self.end:
                        break
                    if self.slow and number % 50 == 0:
                        await asyncio.sleep(0.05)

    async def list(self) -> int:
        """Begin anew, as clients do."""
        found = await self.world.get(PATH)
        self.state = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in found["items"]}
        self.seen = []
        self.listed = int(found["metadata"]["resourceVersion"])
        return self.listed


def test_each_sees_every_change_once_and_in_order(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = [await world.objects.create(ConfigMap(metadata=ObjectMeta(name=f"c{n}"))) for n in range(OBJECTS)]
        end = await world.store.revision() + CHANGES
        followers = [Follower(world, number, end) for number in range(WATCHERS)]
        following = [asyncio.create_task(one.follow()) for one in followers]
        for number in range(CHANGES):
            place = number % OBJECTS
            made[place] = await world.objects.update(with_meta(made[place], labels={"n": str(number)}))
        await asyncio.gather(*following)
        wanted = {one.metadata.name: int(one.metadata.resource_version) for one in made}
        for one in followers:
            assert one.seen == list(range(one.listed + 1, end + 1))
            assert one.state == wanted

    run(tmp_path, check, timeout_s=60 + CHANGES / 10)
