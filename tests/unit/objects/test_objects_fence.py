import pytest
from msgspec.structs import replace

from korch.errors import ConflictError, FencedError
from korch.resources.pod import Pod
from korch.resources.workload import Deployment, DeploymentStatus
from korch.store.base import Check
from tests.unit.objects.things import World, deployment, pod, run, with_replicas

LEASE = "/korch/lease"


async def _every_write(world: World, made: Pod, wish: Deployment):
    """Each kind of write, as (name, coroutine function)."""
    objects = world.objects
    return {
        "create": lambda: objects.create(pod("other")),
        "restore": lambda: objects.restore(pod("other", "default")),
        "update": lambda: objects.update(with_replicas(wish, 9)),
        "update_status": lambda: objects.update_status(replace(wish, status=DeploymentStatus(replicas=1))),
        "modify": lambda: objects.modify(Deployment, "web", "default", lambda d: with_replicas(d, 9)),
        "apply": lambda: objects.apply(deployment(replicas=9)),
        "apply new": lambda: objects.apply(deployment("other")),
        "bind": lambda: objects.bind(made, "n1", "{}"),
        "delete": lambda: objects.delete(Deployment, "web"),
        "finish_delete": lambda: objects.finish_delete(made),
    }


def test_rule_leader_fencing_no_write_of_a_deposed_leader_lands():
    """Rule (leader fencing): every write made under a lease also compares the lease."""

    async def check(world: World) -> None:
        made, wish = await world.objects.create(pod()), await world.objects.create(deployment())
        world.fence = Check(LEASE, await world.store.put(LEASE, b"me"))
        await world.store.put(LEASE, b"somebody else")
        before = dict(world.store.records)
        for name, write in (await _every_write(world, made, wish)).items():
            with pytest.raises(FencedError):
                await write()
            assert world.store.records == before, name

    run(check)


def test_the_leader_writes_and_its_check_is_in_every_transaction():
    async def check(_: World) -> None:
        for name in await _every_write(World(), pod(), deployment()):
            world = World()
            made, wish = await world.objects.create(pod()), await world.objects.create(deployment())
            world.fence = Check(LEASE, await world.store.put(LEASE, b"me"))
            seen = await _watched_transactions(world)
            await (await _every_write(world, made, wish))[name]()
            assert seen, name
            assert all(world.fence in ops for ops in seen), name

    run(check)


async def _watched_transactions(world: World) -> list:
    seen, inner = [], world.store.txn

    async def txn(ops):
        seen.append(ops)
        return await inner(ops)

    world.store.txn = txn
    return seen


def test_a_conflict_under_an_intact_lease_is_an_ordinary_one():
    async def check(world: World) -> None:
        wish = await world.objects.create(deployment())
        world.fence = Check(LEASE, await world.store.put(LEASE, b"me"))

        async def other() -> None:
            await world.objects.update(with_replicas(wish, 3))

        world.store.before_txn = other
        with pytest.raises(ConflictError) as caught:
            await world.objects.update(with_replicas(wish, 4))
        assert not isinstance(caught.value, FencedError)

    run(check)


def test_the_own_renewal_of_the_lease_does_not_fence():
    async def check(world: World) -> None:
        wish = await world.objects.create(deployment())
        world.fence = Check(LEASE, await world.store.put(LEASE, b"me"))

        async def renewal() -> None:
            world.fence = Check(LEASE, await world.store.put(LEASE, b"me, later"))

        world.store.before_txn = renewal
        assert (await world.objects.update(with_replicas(wish, 4))).spec.replicas == 4

    run(check)


def test_a_lease_that_went_fences():
    async def check(world: World) -> None:
        wish = await world.objects.create(deployment())
        world.fence = Check(LEASE, await world.store.put(LEASE, b"me"))
        await world.store.delete(LEASE)
        with pytest.raises(FencedError, match="another master leads"):
            await world.objects.update(with_replicas(wish, 4))

    run(check)


def test_events_of_a_deposed_leader_are_dropped_without_noise():
    async def check(world: World) -> None:
        world.fence = Check(LEASE, 77)
        await world.objects.record_event(pod(), type="Normal", reason="A", message="b", component="test")
        assert world.store.records == {}

    run(check)
