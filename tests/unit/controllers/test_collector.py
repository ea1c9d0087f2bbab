"""What loses its owner goes; owners are held until what they own is gone, or has forgotten them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from korch.controllers.collector import Collector, Graph, Thing
from korch.errors import NotFoundError
from korch.objects.objects import Objects
from korch.objects.values import Deletion
from korch.resources.codec import with_meta
from korch.resources.config import ConfigMap
from korch.resources.kinds import CONFIGMAP
from korch.resources.meta import Object, ObjectMeta, OwnerReference
from korch.resources.misc import Namespace, Secret
from korch.store.sqlite import SqliteStore, open_sqlite

T = TypeVar("T")


def owned_by(*owners: Object) -> tuple[OwnerReference, ...]:
    return tuple(
        OwnerReference(api_version=one.api_version, kind=one.kind, name=one.metadata.name, uid=one.metadata.uid)
        for one in owners
    )


class World:
    def __init__(self, store: SqliteStore) -> None:
        self.store, self.objects = store, Objects(store)

    async def make(self, name: str, *owners: Object, namespace: str = "default") -> ConfigMap:
        meta = ObjectMeta(name=name, namespace=namespace, owner_references=owned_by(*owners))
        return await self.objects.create(ConfigMap(metadata=meta))

    async def gone(self, *names: str) -> None:
        """Wait until these are gone; the test's own deadline fails it otherwise."""
        async with self.store.watch(CONFIGMAP.prefix(), after=0) as events:
            left = set(names)
            async for event in events:
                name = event.key.rpartition("/")[2]
                if event.record is None:
                    left.discard(name)
                elif name in names:
                    left.add(name)
                if not left and not await self._there(names):
                    return

    async def _there(self, names: tuple[str, ...]) -> bool:
        return any([await self.objects.find(ConfigMap, name) is not None for name in names])


def run(tmp_path: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            store = await open_sqlite(tmp_path / "state.db")
            collecting = asyncio.create_task(Collector(Objects(store), store).run())
            try:
                await test(World(store))
            finally:
                collecting.cancel()
                await asyncio.gather(collecting, return_exceptions=True)
                await store.close()

    asyncio.run(main())


def test_what_loses_its_last_owner_goes_and_so_on(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        top, other = await world.make("top"), await world.make("other")
        child = await world.make("child", top)
        await world.make("grandchild", child)
        await world.make("shared", top, other)
        await world.objects.delete(ConfigMap, "top")
        await world.gone("child", "grandchild")
        assert await world.objects.find(ConfigMap, "shared") is not None
        await world.objects.delete(ConfigMap, "other")
        await world.gone("shared")

    run(tmp_path, check)


def test_an_owner_that_never_was_counts_as_gone_and_one_of_an_unknown_kind_does_not(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        ghost = OwnerReference(api_version="v1", kind="ConfigMap", name="ghost", uid="u1")
        stranger = OwnerReference(api_version="x.io/v1", kind="Thing", name="t", uid="u2")
        for name, owner in (("kept", stranger), ("lost", ghost)):
            await world.objects.create(ConfigMap(metadata=ObjectMeta(name=name, owner_references=(owner,))))
        await world.gone("lost")
        assert await world.objects.find(ConfigMap, "kept") is not None

    run(tmp_path, check)


def test_an_owner_is_known_by_any_of_its_versions(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        scaler = OwnerReference(api_version="autoscaling/v1", kind="HorizontalPodAutoscaler", name="gone", uid="u1")
        await world.objects.create(ConfigMap(metadata=ObjectMeta(name="lost", owner_references=(scaler,))))
        await world.gone("lost")

    run(tmp_path, check)


def test_nothing_owns_what_is_in_another_namespace(tmp_path: Path) -> None:
    """Who knows the uid of somebody else's object neither holds it up by that, nor gets anything kept."""

    async def check(world: World) -> None:
        await world.objects.create(Namespace(metadata=ObjectMeta(name="x")))
        top = await world.make("top")
        meta = ObjectMeta(name="far", namespace="x", owner_references=owned_by(top), finalizers=("x.io/f",))
        await world.objects.create(ConfigMap(metadata=meta))
        await until(lambda: world.objects.get(ConfigMap, "far", "x"), lambda one: one.metadata.deletion_timestamp)
        await world.objects.delete(ConfigMap, "top", wish=Deletion("Foreground"))
        await world.gone("top")

    run(tmp_path, check)


def test_in_the_foreground_what_is_owned_goes_first(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        top = await world.make("top")
        child = await world.make("child", top)
        held = await world.objects.create(
            Secret(metadata=ObjectMeta(name="held", owner_references=owned_by(child), finalizers=("x.io/f",)))
        )
        await world.objects.delete(ConfigMap, "top", wish=Deletion("Foreground"))
        marked = await until(lambda: world.objects.get(Secret, "held"), lambda one: one.metadata.deletion_timestamp)
        assert await world.objects.find(ConfigMap, "top") is not None
        assert marked.metadata.uid == held.metadata.uid
        await world.objects.update(with_meta(marked, finalizers=()))
        await world.gone("child", "top")

    run(tmp_path, check)


async def until(read: Callable[[], Awaitable[T]], fits: Callable[[T], object]) -> T:
    while not fits(found := await read()):  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.01)
    return found


def test_orphans_stay_without_their_owner(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        top, other = await world.make("top"), await world.make("other")
        await world.make("child", top, other)
        await world.objects.delete(ConfigMap, "top", wish=Deletion("Orphan"))
        await world.gone("top")
        child = await world.objects.get(ConfigMap, "child")
        assert child.metadata.owner_references == owned_by(other)

    run(tmp_path, check)


def test_a_namespace_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.objects.create(Namespace(metadata=ObjectMeta(name="x")))
        for name in ("a", "b"):
            await world.make(name, namespace="x")
        await world.make("elsewhere")
        await world.objects.delete(Namespace, "x", wish=Deletion(contents=True))

        async def there() -> bool:
            try:
                await world.objects.get(Namespace, "x")
            except NotFoundError:
                return False
            return True

        await until(there, lambda found: not found)
        assert not (await world.objects.list(ConfigMap, "x")).items
        assert await world.objects.find(ConfigMap, "elsewhere") is not None

    run(tmp_path, check)


def test_what_was_left_by_a_master_that_was_killed_is_done_by_the_next(tmp_path: Path) -> None:
    async def before() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        world = World(store)
        top = await world.make("top")
        await world.make("child", top)
        await world.objects.delete(ConfigMap, "top")
        await store.close()

    asyncio.run(before())

    async def check(world: World) -> None:
        await world.gone("child")

    run(tmp_path, check)


NAMES = st.sampled_from("abcdef")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, st.one_of(st.none(), st.frozensets(NAMES, max_size=3))), max_size=30))
def test_the_graph_knows_who_owns_what_after_any_history(steps: list[tuple[str, frozenset[str] | None]]) -> None:
    graph, world = Graph(), dict[str, frozenset[str]]()
    for name, owners in steps:
        if owners is None:
            world.pop(name, None)
            graph.drop(name)
            continue
        refs = tuple(OwnerReference(api_version="v1", kind="ConfigMap", name=o, uid=o) for o in sorted(owners))
        world[name] = owners
        graph.put(name, Thing(CONFIGMAP, ObjectMeta(name=name, uid=name, owner_references=refs)))
    for owner in "abcdef":
        found = [thing.meta.name for thing in graph.owned(owner)]
        assert found == sorted(name for name, owners in world.items() if owner in owners)
