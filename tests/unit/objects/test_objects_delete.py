import asyncio

import pytest
from msgspec.structs import replace

from korch.errors import ConflictError, ForbiddenError, NotFoundError
from korch.objects.tombstones import PREFIX
from korch.objects.values import Deletion
from korch.resources.codec import with_meta
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment
from tests.unit.objects.things import START, World, deployment, pod, run

DAY_S = 24 * 3600.0


async def bound_pod(world: World, node: str = "n1") -> Pod:
    return await world.objects.bind(await world.objects.create(pod()), node, '{"why": "best"}')


def test_bind_sets_the_node_the_reasons_and_the_condition():
    async def check(world: World) -> None:
        made = await bound_pod(world)
        assert made.spec.node_name == "n1"
        assert made.metadata.annotations["korch.dev/decision"] == '{"why": "best"}'
        assert [(c.type, c.status) for c in made.status.conditions] == [("PodScheduled", "True")]
        assert made == await world.objects.get(Pod, "web-1")

    run(check)


def test_a_pod_is_bound_once():
    async def check(world: World) -> None:
        made = await bound_pod(world)
        writes = world.store.writes
        assert await world.objects.bind(made, "n1", "{}") == made
        assert world.store.writes == writes
        with pytest.raises(ConflictError, match='bound to node "n1" already'):
            await world.objects.bind(made, "n2", "{}")

    run(check)


def test_two_schedulers_bind_a_pod_once():
    async def check(world: World) -> None:
        made = await world.objects.create(pod())

        async def other() -> None:
            await world.objects.bind(made, "n2", "{}")

        world.store.before_txn = other
        with pytest.raises(ConflictError, match='bound to node "n2" already'):
            await world.objects.bind(made, "n1", "{}")

    run(check)


def test_a_successor_of_the_same_name_is_not_bound():
    async def check(world: World) -> None:
        first = await world.objects.create(pod())
        await world.objects.delete(Pod, "web-1")
        await world.objects.create(pod())
        with pytest.raises(ConflictError, match="another one now"):
            await world.objects.bind(first, "n1", "{}")

    run(check)


def test_a_bound_pod_is_marked_and_stays_until_its_containers_are_gone():
    async def check(world: World) -> None:
        made = await bound_pod(world)
        marked = await world.objects.delete(Pod, "web-1")
        assert marked.metadata.deletion_timestamp == rfc3339(START + 30)
        assert marked.metadata.deletion_grace_period_seconds == 30
        assert await world.objects.get(Pod, "web-1") == marked
        assert await world.objects.tombstone(made.metadata.uid) is None
        await world.objects.finish_delete(marked)
        assert await world.objects.find(Pod, "web-1") is None

    run(check)


def test_a_marked_pod_can_only_get_less_time():
    async def check(world: World) -> None:
        await bound_pod(world)
        first = await world.objects.delete(Pod, "web-1", grace_s=20)
        writes = world.store.writes
        assert await world.objects.delete(Pod, "web-1", grace_s=60) == first
        assert world.store.writes == writes
        shorter = await world.objects.delete(Pod, "web-1", grace_s=5)
        assert shorter.metadata.deletion_timestamp == rfc3339(START + 5)
        assert shorter.metadata.deletion_grace_period_seconds == 5

    run(check)


def test_grace_zero_still_leaves_a_bound_pod_to_its_keeper():
    async def check(world: World) -> None:
        await bound_pod(world)
        marked = await world.objects.delete(Pod, "web-1", grace_s=0)
        assert marked.metadata.deletion_grace_period_seconds == 1

    run(check)


def test_an_unbound_pod_and_other_kinds_go_at_once():
    async def check(world: World) -> None:
        await world.objects.create(pod())
        await world.objects.create(deployment())
        assert await world.objects.delete(Pod, "web-1") is None
        assert await world.objects.delete(Deployment, "web") is None
        assert world.store.records == {}

    run(check)


def test_a_pod_that_is_bound_while_it_is_deleted_is_marked():
    async def check(world: World) -> None:
        made = await world.objects.create(pod())

        async def scheduler() -> None:
            await world.objects.bind(made, "n1", "{}")

        world.store.before_txn = scheduler
        marked = await world.objects.delete(Pod, "web-1")
        assert marked is not None
        assert marked.spec.node_name == "n1"
        assert marked.metadata.deletion_timestamp is not None

    run(check)


def test_a_pod_that_goes_is_not_bound():
    async def check(world: World) -> None:
        made = await world.objects.create(pod(finalizers=("korch.dev/hold",)))
        await world.objects.delete(Pod, "web-1")
        with pytest.raises(ConflictError, match="is being deleted"):
            await world.objects.bind(made, "n1", "{}")

    run(check)


def test_deleting_what_is_not_there_says_so():
    async def check(world: World) -> None:
        with pytest.raises(NotFoundError):
            await world.objects.delete(Pod, "web-1")

    run(check)


def test_the_uid_guards_a_successor():
    async def check(world: World) -> None:
        await world.objects.create(deployment())
        with pytest.raises(ConflictError, match="another one now"):
            await world.objects.delete(Deployment, "web", uid="old")
        assert await world.objects.find(Deployment, "web") is not None

    run(check)


def test_the_tombstone_is_written_with_the_removal_or_not_at_all():
    async def check(world: World) -> None:
        made = await bound_pod(world)
        marked = await world.objects.delete(Pod, "web-1")
        before = world.store.newest
        await world.objects.finish_delete(marked)
        removed = [e for e in world.store.history if e.revision > before]
        assert sorted(e.key for e in removed) == ["/core/pods/default/web-1", PREFIX + made.metadata.uid]
        assert len({e.revision for e in removed}) == 1
        stone = await world.objects.tombstone(made.metadata.uid)
        assert (stone.name, stone.namespace, stone.node_name) == ("web-1", "default", "n1")
        await world.objects.finish_delete(marked)  # again: nothing
        assert world.store.newest == before + 1

    run(check)


def test_finishing_follows_a_status_written_meanwhile():
    async def check(world: World) -> None:
        await bound_pod(world)
        marked = await world.objects.delete(Pod, "web-1")

        async def keeper() -> None:
            await world.objects.update_status(replace(marked, status=replace(marked.status, phase="Failed")))

        world.store.before_txn = keeper
        await world.objects.finish_delete(marked)
        assert await world.objects.find(Pod, "web-1") is None

    run(check)


def test_finishing_leaves_a_successor_alone():
    async def check(world: World) -> None:
        first = await bound_pod(world)
        await world.objects.finish_delete(first)
        second = await world.objects.create(pod())
        await world.objects.finish_delete(first)
        assert await world.objects.get(Pod, "web-1") == second

    run(check)


def test_finalizers_hold_an_object_until_the_last_is_gone():
    async def check(world: World) -> None:
        await world.objects.create(deployment(finalizers=("korch.dev/a", "korch.dev/b")))
        held = await world.objects.delete(Deployment, "web")
        assert held.metadata.deletion_timestamp == rfc3339(START)
        held = await world.objects.update(with_meta(held, finalizers=("korch.dev/b",)))
        await world.objects.update(with_meta(held, finalizers=()))
        assert await world.objects.find(Deployment, "web") is None

    run(check)


def test_finalizers_hold_a_pod_whose_containers_are_gone():
    async def check(world: World) -> None:
        made = await world.objects.bind(await world.objects.create(pod(finalizers=("korch.dev/a",))), "n1", "{}")
        await world.objects.delete(Pod, "web-1")
        await world.objects.finish_delete(made)
        held = await world.objects.get(Pod, "web-1")
        assert held.metadata.deletion_grace_period_seconds == 0
        await world.objects.update(with_meta(held, finalizers=()))
        assert await world.objects.find(Pod, "web-1") is None
        assert await world.objects.tombstone(made.metadata.uid) is not None

    run(check)


def test_removing_finalizers_of_a_running_pod_does_not_remove_it():
    async def check(world: World) -> None:
        await world.objects.bind(await world.objects.create(pod(finalizers=("korch.dev/a",))), "n1", "{}")
        marked = await world.objects.delete(Pod, "web-1")
        await world.objects.update(with_meta(marked, finalizers=()))
        assert await world.objects.find(Pod, "web-1") is not None

    run(check)


def test_tombstones_are_kept_thirty_days():
    async def check(world: World) -> None:
        made = await bound_pod(world)
        await world.objects.finish_delete(made)
        world.clock.time_s += 30 * DAY_S
        assert await world.objects.prune_tombstones() == 0
        assert await world.objects.tombstone(made.metadata.uid) is not None
        world.clock.time_s += 1
        assert await world.objects.prune_tombstones() == 1
        assert await world.objects.tombstone(made.metadata.uid) is None
        assert await world.objects.tombstone("") is None

    run(check)


def test_a_namespace_with_something_in_it_is_not_deleted():
    async def check(world: World) -> None:
        await world.objects.create(Namespace(metadata=ObjectMeta(name="prod")))
        await world.objects.create(pod(namespace="prod"))
        with pytest.raises(ForbiddenError, match="still holds pods"):
            await world.objects.delete(Namespace, "prod")
        await world.objects.delete(Pod, "web-1", "prod")
        assert await world.objects.delete(Namespace, "prod") is None

    run(check)


def test_watch_tells_every_change_with_before_and_after():
    async def check(world: World) -> None:
        await world.objects.create(Node(metadata=ObjectMeta(name="n1")))
        start = (await world.objects.list(Pod)).revision
        made = await bound_pod(world)
        await world.objects.create(Namespace(metadata=ObjectMeta(name="other")))
        await world.objects.create(pod(namespace="other"))
        await world.objects.finish_delete(made)
        async with world.objects.watch(Pod, "default", after=start) as changes:
            found = [await anext(changes) for _ in range(3)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(changes), 0.01)
        assert [c.type for c in found] == ["ADDED", "MODIFIED", "DELETED"]
        assert found[0].previous is None
        assert found[1].previous == found[0].object
        assert found[1].object == made
        assert found[2].previous == made
        assert found[2].object.metadata.resource_version == str(found[2].revision)

    run(check)


def test_foreground_and_orphan_hold_the_owner_until_they_are_taken_off():
    async def check(world: World) -> None:
        for name, policy, finalizer in (("a", "Foreground", "foregroundDeletion"), ("b", "Orphan", "orphan")):
            await world.objects.create(deployment(name))
            left = await world.objects.delete(Deployment, name, wish=Deletion(policy))
            assert left is not None
            assert left.metadata.finalizers == (finalizer,)
            again = await world.objects.delete(Deployment, name, wish=Deletion(policy))
            assert again == left
            await world.objects.update(with_meta(left, finalizers=()))
            assert await world.objects.find(Deployment, name) is None

    run(check)


def test_a_dry_deletion_only_checks():
    async def check(world: World) -> None:
        made = await bound_pod(world)
        writes = world.store.writes
        left = await world.objects.delete(Pod, "web-1", wish=Deletion(dry_run=True))
        assert left is not None
        assert left.metadata.deletion_timestamp is not None
        with pytest.raises(ConflictError, match="has changed since it was read"):
            await world.objects.delete(Pod, "web-1", wish=Deletion(revision="1", dry_run=True))
        assert world.store.writes == writes
        assert await world.objects.get(Pod, "web-1") == made

    run(check)


def test_a_forced_deletion_of_a_bound_pod_leaves_its_tombstone():
    async def check(world: World) -> None:
        made = await bound_pod(world)
        assert await world.objects.delete(Pod, "web-1", wish=Deletion(force=True)) is None
        assert await world.objects.find(Pod, "web-1") is None
        assert await world.objects.tombstone(made.metadata.uid) is not None

    run(check)


def test_a_namespace_with_its_contents_stays_until_it_is_empty():
    async def check(world: World) -> None:
        await world.objects.create(Namespace(metadata=ObjectMeta(name="x")))
        await world.objects.create(pod(namespace="x"))
        left = await world.objects.delete(Namespace, "x", wish=Deletion(contents=True))
        assert left is not None
        assert (left.status.phase, left.metadata.finalizers) == ("Terminating", ("kubernetes",))
        with pytest.raises(ForbiddenError, match="is being deleted"):
            await world.objects.create(pod("other", namespace="x"))

    run(check)
