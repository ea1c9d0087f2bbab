import asyncio
import json

import pytest
from msgspec.structs import replace

from korch.errors import AlreadyExistsError, ConflictError, ForbiddenError, InvalidError, NotFoundError, StoreError
from korch.objects.objects import Objects
from korch.resources.codec import with_meta
from korch.resources.images import with_images
from korch.resources.kinds import POD
from korch.resources.meta import LabelSelector, ObjectMeta, OwnerReference
from korch.resources.misc import Event, Namespace, Secret
from korch.resources.node import Node
from korch.resources.pod import Pod, PodStatus, Toleration
from korch.resources.workload import Deployment, DeploymentStatus
from korch.store.sqlite import open_sqlite
from tests.unit.objects.things import World, deployment, pod, run, with_image, with_replicas

NOW = "2023-11-14T22:13:20Z"


def test_create_gives_identity_defaults_and_no_status():
    async def check(world: World) -> None:
        made = await world.objects.create(replace(pod(uid="mine", generation=7), status=PodStatus(phase="Running")))
        assert made.metadata.namespace == "default"
        assert (made.metadata.creation_timestamp, made.metadata.generation) == (NOW, 1)
        assert len(made.metadata.uid) == 36
        assert made.metadata.resource_version == "1"
        assert made.status == PodStatus(phase="Pending")
        assert made.spec.restart_policy == "Always"
        assert (made.api_version, made.kind) == ("v1", "Pod")
        assert await world.objects.get(Pod, "web-1") == made

    run(check)


def test_the_resource_version_is_not_part_of_the_stored_value():
    async def check(world: World) -> None:
        await world.objects.create(pod())
        stored = json.loads((await world.store.get("/core/pods/default/web-1")).value)
        assert "resourceVersion" not in stored["metadata"]

    run(check)


def test_create_twice_is_refused():
    async def check(world: World) -> None:
        await world.objects.create(pod())
        with pytest.raises(AlreadyExistsError, match='pod "web-1" in namespace "default" exists already'):
            await world.objects.create(pod())

    run(check)


def test_two_uids_are_never_the_same_and_generated_names_differ():
    async def check(world: World) -> None:
        made = [
            await world.objects.create(replace(pod(), metadata=ObjectMeta(generate_name="web-"))) for _ in range(20)
        ]
        assert len({p.metadata.uid for p in made}) == 20
        assert len({p.metadata.name for p in made}) == 20
        assert all(p.metadata.name.startswith("web-") and len(p.metadata.name) == 9 for p in made)

    run(check)


def test_a_long_generated_name_is_still_a_dns_label():
    async def check(world: World) -> None:
        made = await world.objects.create(replace(pod(), metadata=ObjectMeta(generate_name="w" * 70 + "-")))
        assert len(made.metadata.name) == 63

    run(check)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        pytest.param(Pod(metadata=ObjectMeta()), "needs a name", id="no name"),
        pytest.param(pod("Web"), '"Web" is not a DNS label', id="name"),
        pytest.param(pod(resource_version="4"), "resourceVersion", id="resourceVersion"),
        pytest.param(Node(metadata=ObjectMeta(name="n1", namespace="x")), "belongs to no namespace", id="namespace"),
    ],
)
def test_create_refuses(obj, message):
    async def check(world: World) -> None:
        with pytest.raises(InvalidError, match=message):
            await world.objects.create(obj)
        assert world.store.writes == 0

    run(check)


def test_a_missing_object_is_named_with_what_looks_like_it():
    async def check(world: World) -> None:
        await world.objects.create(deployment("frontend"))
        with pytest.raises(NotFoundError) as caught:
            await world.objects.get(Deployment, "fronted")
        assert str(caught.value) == 'deployment "fronted" not found in namespace "default"'
        assert caught.value.hint == 'Did you mean "frontend"? `korch get deployments` lists what there is.'
        with pytest.raises(NotFoundError) as caught:
            await world.objects.get(Node, "n1")
        assert str(caught.value) == 'node "n1" not found'
        assert await world.objects.find(Pod, "nothing") is None

    run(check)


def test_list_is_sorted_filtered_and_true_at_its_revision():
    async def check(world: World) -> None:
        await world.objects.create(Namespace(metadata=ObjectMeta(name="a")))
        for name, namespace in (("z", ""), ("b", "a"), ("y", "")):
            await world.objects.create(pod(name, namespace, labels={"app": name, "tier": "x"}))
        everything = await world.objects.list(Pod)
        assert [p.metadata.name for p in everything.items] == ["b", "y", "z"]
        assert everything.revision == 4
        assert [p.metadata.name for p in (await world.objects.list(Pod, "default")).items] == ["y", "z"]
        by_text = await world.objects.list(Pod, selector="app in (z,b)")
        by_object = await world.objects.list(Pod, selector=LabelSelector(match_labels={"app": "y"}))
        assert [p.metadata.name for p in by_text.items] == ["b", "z"]
        assert [p.metadata.name for p in by_object.items] == ["y"]

    run(check)


def test_a_namespace_is_not_listed_by_the_beginning_of_its_name():
    async def check(world: World) -> None:
        for name in ("a", "ab"):
            await world.objects.create(Namespace(metadata=ObjectMeta(name=name)))
            await world.objects.create(pod("p", name))
        assert [p.metadata.namespace for p in (await world.objects.list(Pod, "a")).items] == ["a"]

    run(check)


def test_nothing_is_created_into_a_missing_namespace():
    async def check(world: World) -> None:
        with pytest.raises(NotFoundError, match='namespace "prod" not found'):
            await world.objects.create(pod(namespace="prod"))

    run(check)


def test_nothing_is_created_into_a_namespace_that_goes_meanwhile():
    async def check(world: World) -> None:
        await world.objects.create(Namespace(metadata=ObjectMeta(name="prod")))

        async def delete_it() -> None:
            await world.objects.delete(Namespace, "prod")

        world.store.before_txn = delete_it
        with pytest.raises(NotFoundError, match='namespace "prod" not found'):
            await world.objects.create(pod(namespace="prod"))
        assert (await world.objects.list(Pod)).items == ()

    run(check)


def test_the_default_namespace_is_made_once_and_stays():
    async def check(world: World) -> None:
        await world.objects.ensure_default_namespace()
        await world.objects.ensure_default_namespace()
        assert world.store.writes == 1
        with pytest.raises(ForbiddenError, match="always exists"):
            await world.objects.delete(Namespace, "default")

    run(check)


# --- update ---


def test_update_changes_the_wish_and_keeps_identity_and_status():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        seen = await world.objects.update_status(replace(made, status=DeploymentStatus(ready_replicas=2)))
        forged = with_meta(seen, creation_timestamp="1999-01-01T00:00:00Z", generation=99, labels={"a": "b"})
        changed = await world.objects.update(
            replace(with_replicas(forged, 5), status=DeploymentStatus(ready_replicas=0))
        )
        assert changed.spec.replicas == 5
        assert changed.metadata.labels == {"a": "b"}
        assert changed.metadata.uid == made.metadata.uid
        assert changed.metadata.creation_timestamp == NOW
        assert changed.metadata.generation == 2
        assert changed.status.ready_replicas == 2

    run(check)


def test_the_generation_counts_changes_of_the_spec_only():
    async def check(world: World) -> None:
        obj = await world.objects.create(deployment())
        obj = await world.objects.update(with_meta(obj, annotations={"x": "y"}))
        obj = await world.objects.update_status(replace(obj, status=DeploymentStatus(replicas=1)))
        owner = OwnerReference(api_version="v1", kind="Pod", name="x", uid="u")
        obj = await world.objects.update(with_meta(obj, owner_references=(owner,)))
        assert obj.metadata.generation == 1
        obj = await world.objects.update(with_image(obj, "web:2"))
        assert obj.metadata.generation == 2

    run(check)


def test_an_update_that_changes_nothing_writes_nothing():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        writes = world.store.writes
        assert await world.objects.update(made) == made
        assert await world.objects.update(with_replicas(made, 2)) == made
        assert await world.objects.update_status(made) == made
        assert world.store.writes == writes

    run(check)


def test_status_updates_leave_the_spec_alone():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        status = DeploymentStatus(replicas=9)
        changed = await world.objects.update_status(replace(with_replicas(made, 7), status=status))
        assert (changed.spec.replicas, changed.status.replicas) == (2, 9)

    run(check)


def test_a_kind_without_status_has_no_status_update():
    async def check(world: World) -> None:
        secret = await world.objects.create(Secret(metadata=ObjectMeta(name="s")))
        with pytest.raises(InvalidError, match="no status"):
            await world.objects.update_status(secret)

    run(check)


@pytest.mark.parametrize("write", ["update", "update_status"])
def test_a_stale_write_conflicts(write):
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        newer = await world.objects.update(with_replicas(made, 3))
        stale = replace(with_replicas(made, 4), status=DeploymentStatus(replicas=4))
        with pytest.raises(ConflictError, match="has changed"):
            await getattr(world.objects, write)(stale)
        assert await world.objects.get(Deployment, "web") == newer

    run(check)


def test_a_write_that_loses_the_race_conflicts():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())

        async def other() -> None:
            await world.objects.update(with_replicas(made, 3))

        world.store.before_txn = other
        with pytest.raises(ConflictError):
            await world.objects.update(with_replicas(made, 4))
        assert (await world.objects.get(Deployment, "web")).spec.replicas == 3

    run(check)


def test_an_update_needs_the_version_it_was_read_at():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        with pytest.raises(InvalidError, match="resourceVersion"):
            await world.objects.update(with_meta(made, resource_version=""))

    run(check)


def test_a_successor_of_the_same_name_is_not_written_over():
    async def check(world: World) -> None:
        first = await world.objects.create(deployment())
        await world.objects.delete(Deployment, "web")
        second = await world.objects.create(deployment())
        forged = with_meta(first, resource_version=second.metadata.resource_version)
        with pytest.raises(ConflictError, match="another one now"):
            await world.objects.update(forged)

    run(check)


def test_selector_and_pod_spec_cannot_change():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        labels = {"app": "other"}
        template = replace(made.spec.template, metadata=ObjectMeta(labels=labels))
        spec = replace(made.spec, selector=LabelSelector(match_labels=labels), template=template)
        with pytest.raises(InvalidError, match=r"spec.selector: cannot change"):
            await world.objects.update(replace(made, spec=spec))
        single = await world.objects.create(pod())
        changed = replace(single.spec.containers[0], working_dir="/elsewhere")
        with pytest.raises(InvalidError, match=r"of a pod cannot change.*kubectl replace --force"):
            await world.objects.update(replace(single, spec=replace(single.spec, containers=(changed,))))
        owner = OwnerReference(api_version="apps/v1", kind="ReplicaSet", name="web-1", uid="u", controller=True)
        owned = await world.objects.create(pod("owned", owner_references=(owner,)))
        with pytest.raises(InvalidError, match="it was made by ReplicaSet web-1"):
            await world.objects.update(replace(owned, spec=replace(owned.spec, containers=(changed,))))
        with pytest.raises(InvalidError, match="of a pod cannot change"):
            await world.objects.update(replace(single, spec=replace(single.spec, node_name="n1")))
        more = replace(single.spec, tolerations=(Toleration(key="a", operator="Exists"),))
        single = await world.objects.update(replace(single, spec=more))
        assert single.metadata.generation == 2
        for image in ("", "WEB:2"):
            with pytest.raises(InvalidError, match=r"spec.containers\[0\].image: "):
                await world.objects.update(replace(single, spec=with_images(single.spec, {"web": image})))
        single = await world.objects.update(replace(single, spec=with_images(single.spec, {"web": "web:2"})))
        assert (single.metadata.generation, single.spec.containers[0].image) == (3, "web:2")

    run(check)


def test_an_immutable_secret_stays():
    async def check(world: World) -> None:
        secret = await world.objects.create(
            Secret(metadata=ObjectMeta(name="s"), string_data={"A": "geheim"}, immutable=True)
        )
        assert secret.data == {"A": "Z2VoZWlt"}
        with pytest.raises(InvalidError, match="immutable") as caught:
            await world.objects.update(replace(secret, data={"A": "bmV1"}))
        assert "Z2VoZWlt" not in str(caught.value)
        await world.objects.update(with_meta(secret, labels={"a": "b"}))

    run(check)


def test_modify_tries_again_on_what_is_there_now():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())

        async def other() -> None:
            await world.objects.update(with_meta(made, labels={"seen": "yes"}))

        world.store.before_txn = other
        seen = []

        def change(obj: Deployment) -> Deployment:
            seen.append(obj.metadata.labels)
            return with_replicas(obj, 6)

        changed = await world.objects.modify(Deployment, "web", "default", change)
        assert seen == [{}, {"seen": "yes"}]
        assert (changed.spec.replicas, changed.metadata.labels) == (6, {"seen": "yes"})

    run(check)


def test_modify_may_leave_it_and_may_change_the_status():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        assert await world.objects.modify(Deployment, "web", "default", lambda _: None) == made
        changed = await world.objects.modify(
            Deployment, "web", "default", lambda d: replace(d, status=DeploymentStatus(replicas=1)), status=True
        )
        assert (changed.status.replicas, changed.metadata.generation) == (1, 1)

    run(check)


def test_modify_gives_up_at_last():
    async def check(world: World) -> None:
        await world.objects.create(deployment())
        count = 0

        def change(obj: Deployment) -> Deployment:
            nonlocal count
            count += 1
            world.store.before_txn = disturb
            return with_replicas(obj, 50)

        async def disturb() -> None:
            world.store.before_txn = None
            current = await world.objects.get(Deployment, "web")
            await world.objects.update(with_meta(current, labels={"n": str(count)}))

        with pytest.raises(ConflictError):
            await world.objects.modify(Deployment, "web", "default", change)
        assert count == 16

    run(check)


def test_concurrent_counters_lose_nothing():
    async def check(world: World) -> None:
        await world.objects.create(deployment(replicas=0))

        async def add() -> None:
            await world.objects.modify(Deployment, "web", "default", lambda d: with_replicas(d, d.spec.replicas + 1))

        await asyncio.gather(*(add() for _ in range(8)))
        assert (await world.objects.get(Deployment, "web")).spec.replicas == 8

    run(check)


def test_restore_keeps_uid_times_and_status():
    async def check(world: World) -> None:
        made = await world.objects.create(pod())
        bound = await world.objects.bind(made, "n1", "{}")
        other = World()
        back = await other.objects.restore(bound)
        assert with_meta(back, resource_version="") == with_meta(bound, resource_version="")
        with pytest.raises(AlreadyExistsError):
            await other.objects.restore(bound)

    run(check)


def test_a_damaged_record_is_named():
    async def check(world: World) -> None:
        await world.store.put(POD.key("default", "x"), b'{"spec":7}')
        with pytest.raises(StoreError, match="/core/pods/default/x"):
            await world.objects.get(Pod, "x")

    run(check)


def test_secrets_do_not_show_in_texts_of_objects():
    secret = Secret(metadata=ObjectMeta(name="s"), data={"A": "Z2VoZWlt"}, string_data={"B": "geheim"})
    assert "Z2VoZWlt" not in repr(secret)
    assert "geheim" not in f"{secret}"


def test_events_of_all_kinds_are_objects_too():
    async def check(world: World) -> None:
        await world.objects.record_event(pod(), type="Normal", reason="A", message="b", component="test")
        assert len((await world.objects.list(Event)).items) == 1

    run(check)


def test_a_whole_life_on_sqlite(tmp_path):
    async def main() -> None:
        async with asyncio.timeout(30):
            store = await open_sqlite(tmp_path / "state.db")
            try:
                objects = Objects(store)
                await objects.apply(deployment())
                _, how = await objects.apply(deployment(replicas=4))
                assert how == "configured"
                made = await objects.bind(await objects.create(pod()), "n1", "{}")
                start = (await objects.list(Pod)).revision
                await objects.finish_delete(await objects.delete(Pod, "web-1"))
                assert (await objects.tombstone(made.metadata.uid)).node_name == "n1"
                async with objects.watch(Pod, after=start) as changes:
                    kinds = [(await anext(changes)).type for _ in range(2)]
                assert kinds == ["MODIFIED", "DELETED"]
            finally:
                await store.close()

    asyncio.run(main())


def test_owners_of_fields_are_kept_and_told():
    owners = ({"manager": "kubectl", "operation": "Update"},)

    async def check(world: World) -> None:
        made = await world.objects.create(deployment(), track=lambda before, after: owners if before is None else ())
        assert made.metadata.managed_fields == owners
        again = await world.objects.modify(Deployment, "web", "default", lambda old: with_replicas(old, 5))
        assert again.metadata.managed_fields == owners
        same = await world.objects.modify(Deployment, "web", "default", lambda old: old, track=lambda *_: ())
        assert same == again

    run(check)


def test_a_dry_run_makes_all_checks_and_writes_nothing():
    async def check(world: World) -> None:
        made = await world.objects.create(deployment())
        writes = world.store.writes
        with pytest.raises(AlreadyExistsError):
            await world.objects.create(deployment(), dry_run=True)
        assert (await world.objects.create(deployment("other"), dry_run=True)).metadata.uid
        changed = await world.objects.modify(
            Deployment, "web", "default", lambda old: with_replicas(old, 5), dry_run=True
        )
        assert (changed.spec.replicas, changed.metadata.generation) == (5, 2)
        assert world.store.writes == writes
        assert await world.objects.get(Deployment, "web") == made

    run(check)
