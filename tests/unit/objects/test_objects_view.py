"""The cache under the reconcilers: never behind its own writes, never ahead of the store, never growing for ever."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from korch.errors import ExpiredError
from korch.master.background import background
from korch.objects import view as view_module
from korch.objects.objects import Change, Objects
from korch.objects.view import View
from korch.resources.codec import with_meta
from korch.resources.meta import Object, ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.objects = Objects(self.store, clock=LoopClock())  # type: ignore[arg-type]
        self.view = View(self.objects, (Pod,))
        self.heard: list[tuple[str, str]] = []
        self.view.listen(self._hear)

    def _hear(self, change: Change[Object]) -> None:
        self.heard.append((change.type, change.object.metadata.name))

    def names(self) -> list[str]:
        return [pod.metadata.name for pod in self.view.all(Pod)]


def with_view(body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        await world.objects.create(a_pod("before"))
        async with background() as group:
            await world.view.start(group)
            await asyncio.sleep(0.1)
            await body(world)

    run_virtually(main)


def a_pod(name: str, node: str = "") -> Pod:
    spec = PodSpec(containers=(Container(name="web", image="w:1"),), node_name=node)
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)


def test_what_stood_before_what_comes_and_what_goes_is_seen_once() -> None:
    async def body(world: World) -> None:
        await world.objects.create(a_pod("a"))
        await world.objects.modify(Pod, "a", "default", lambda pod: with_meta(pod, labels={"x": "y"}))
        await world.objects.delete(Pod, "before")
        await asyncio.sleep(1)
        assert world.heard == [("ADDED", "before"), ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "before")]
        assert world.names() == ["a"]

    with_view(body)


def test_own_writes_are_seen_at_once_and_told_once() -> None:
    async def body(world: World) -> None:
        made = await world.view.create(a_pod("a"))
        assert world.view.find(Pod, "a") == made
        changed = await world.view.modify(Pod, "a", "default", lambda pod: with_meta(pod, labels={"x": "y"}))
        assert world.view.find(Pod, "a") == changed
        await world.view.delete(changed)
        assert world.view.find(Pod, "a") is None
        await asyncio.sleep(1)
        assert world.heard[1:] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]

    with_view(body)


def test_a_successor_of_the_same_name_is_seen() -> None:
    async def body(world: World) -> None:
        first = await world.view.create(a_pod("a"))
        await world.view.delete(first)
        second = await world.objects.create(a_pod("a"))
        await asyncio.sleep(1)
        assert world.view.find(Pod, "a") == second
        await world.view.delete(first)  # late, and of another one
        assert world.view.find(Pod, "a") == second

    with_view(body)


def test_a_bound_pod_is_marked_and_goes_when_its_containers_are_gone() -> None:
    async def body(world: World) -> None:
        pod = await world.view.create(a_pod("a", node="n1"))
        await world.view.delete(pod)
        marked = world.view.find(Pod, "a")
        assert marked is not None
        assert marked.metadata.deletion_timestamp is not None
        await world.view.finish_delete(marked)
        assert world.view.find(Pod, "a") is None

    with_view(body)


def test_after_a_lost_history_all_of_it_is_listed_again() -> None:
    async def body(world: World) -> None:
        follow, failed = world.store._follow, []

        async def expired(prefix: str, after: int):
            if not failed:
                failed.append(after)
                await asyncio.sleep(1)
                raise ExpiredError("compacted")
            async for event in follow(prefix, after):
                yield event

        world.store._follow = expired  # type: ignore[method-assign]
        second = View(world.objects, (Pod,))
        async with background() as group:
            await second.start(group)
            await asyncio.sleep(0.5)
            await world.objects.delete(Pod, "before")
            await world.objects.create(a_pod("new"))
            await asyncio.sleep(5)
            assert [pod.metadata.name for pod in second.all(Pod)] == ["new"]
        assert failed

    with_view(body)


def test_what_is_remembered_of_the_dead_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(view_module, "GONE_KEPT", 10)

    async def body(world: World) -> None:
        for number in range(40):
            pod = await world.view.create(a_pod(f"p{number}"))
            await world.view.delete(pod)
        assert len(world.view._gone) <= 10
        assert world.names() == ["before"]

    with_view(body)


def test_lists_are_sorted_and_by_namespace_and_owner() -> None:
    async def body(world: World) -> None:
        for name in ("c", "a", "b"):
            await world.view.create(a_pod(name))
        assert world.names() == ["a", "b", "before", "c"]
        assert list(world.view.all(Pod, "other")) == []
        pod = world.view.find(Pod, "a")
        assert pod is not None
        await world.view.update(replace(pod, metadata=replace(pod.metadata, labels={"k": "v"})))
        assert world.view.owned(Pod, "nobody", "default") == ()

    with_view(body)
