import json

import pytest
from msgspec.structs import replace

from korch.errors import InvalidError, NotFoundError
from korch.objects.apply import LAST_APPLIED
from korch.resources.codec import with_meta
from korch.resources.manifests import load_manifests
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Secret
from korch.resources.pod import EnvVar
from korch.resources.workload import Deployment, DeploymentStatus
from tests.unit.objects.things import World, deployment, run, with_replicas


def manifest(env: str = "[{name: A, value: x}]", *, more: str = "", labels: str = "{team: red}") -> Deployment:
    text = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {labels}}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  {more}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: web:1
        env: {env}
        ports: [{{containerPort: 53}}, {{containerPort: 53, protocol: UDP}}]
"""
    ((obj, _),) = load_manifests(text, "web.yml").objects
    return obj


def container(obj: Deployment):
    return obj.spec.template.spec.containers[0]


def test_created_unchanged_configured():
    async def check(world: World) -> None:
        first, how = await world.objects.apply(manifest())
        assert how == "created"
        writes = world.store.writes
        assert await world.objects.apply(manifest()) == (first, "unchanged")
        assert world.store.writes == writes
        changed, how = await world.objects.apply(manifest(more="replicas: 4"))
        assert (how, changed.spec.replicas, changed.metadata.generation) == ("configured", 4, 2)

    run(check)


def test_what_the_manifest_drops_goes_and_what_others_set_stays():
    async def check(world: World) -> None:
        first, _ = await world.objects.apply(
            manifest("[{name: A, value: x}, {name: B, value: y}]", more="minReadySeconds: 5")
        )
        env = (*container(first).env, EnvVar(name="INJECTED", value="z"))
        spec = replace(first.spec.template.spec, containers=(replace(container(first), env=env),))
        other = replace(first, spec=replace(first.spec, template=replace(first.spec.template, spec=spec)))
        other = with_meta(other, labels={**first.metadata.labels, "scaler": "on"})
        await world.objects.update(with_replicas(other, 7))
        again, _ = await world.objects.apply(manifest("[{name: B, value: new}]", labels="{}"))
        assert [(e.name, e.value) for e in container(again).env] == [("B", "new"), ("INJECTED", "z")]
        assert again.spec.replicas == 7
        assert again.spec.min_ready_seconds == 0
        assert again.metadata.labels == {"scaler": "on"}

    run(check)


def test_a_variable_may_turn_from_a_reference_into_a_value():
    async def check(world: World) -> None:
        await world.objects.apply(manifest("[{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]"))
        changed, _ = await world.objects.apply(manifest("[{name: A, value: x}]"))
        assert container(changed).env == (EnvVar(name="A", value="x"),)

    run(check)


def test_ports_of_one_number_and_two_protocols_stay_two():
    async def check(world: World) -> None:
        made, _ = await world.objects.apply(manifest())
        again, how = await world.objects.apply(manifest("[]"))
        assert how == "configured"
        assert container(made).ports == container(again).ports
        assert [(p.container_port, p.protocol) for p in container(again).ports] == [(53, "TCP"), (53, "UDP")]

    run(check)


def test_apply_keeps_status_identity_and_owners():
    async def check(world: World) -> None:
        made, _ = await world.objects.apply(manifest())
        await world.objects.update_status(replace(made, status=DeploymentStatus(ready_replicas=3)))
        again, _ = await world.objects.apply(manifest(more="replicas: 3"))
        assert again.metadata.uid == made.metadata.uid
        assert again.status.ready_replicas == 3

    run(check)


def test_an_object_made_otherwise_can_be_applied_to():
    async def check(world: World) -> None:
        await world.objects.create(deployment(replicas=5, labels={"mine": "yes"}))
        changed, how = await world.objects.apply(manifest())
        assert how == "configured"
        assert changed.spec.replicas == 5
        assert changed.metadata.labels == {"mine": "yes", "team": "red"}

    run(check)


def test_what_get_printed_can_be_applied():
    async def check(world: World) -> None:
        made, _ = await world.objects.apply(manifest())
        again, how = await world.objects.apply(made)
        assert again.spec == made.spec
        third, how = await world.objects.apply(again)
        assert how == "unchanged"
        assert LAST_APPLIED not in json.loads(third.metadata.annotations[LAST_APPLIED])

    run(check)


def test_a_secret_leaves_no_value_in_its_annotation():
    async def check(world: World) -> None:
        secret = Secret(metadata=ObjectMeta(name="s"), string_data={"A": "geheim"}, data={"B": "Z2VoZWlt"})
        made, _ = await world.objects.apply(secret)
        note = made.metadata.annotations[LAST_APPLIED]
        assert "geheim" not in note
        assert "Z2VoZWlt" not in note
        assert made.data == {"A": "Z2VoZWlt", "B": "Z2VoZWlt"}
        assert (await world.objects.apply(secret))[1] == "unchanged"
        fewer, _ = await world.objects.apply(replace(secret, data={}))
        assert set(fewer.data) == {"A"}

    run(check)


def test_a_key_of_string_data_that_is_dropped_goes():
    async def check(world: World) -> None:
        secret = Secret(metadata=ObjectMeta(name="s"), string_data={"A": "x", "B": "y"})
        await world.objects.apply(secret)
        changed, _ = await world.objects.apply(replace(secret, string_data={"A": "x"}))
        assert set(changed.data) == {"A"}

    run(check)


def test_two_appliers_at_once_both_succeed():
    async def check(world: World) -> None:
        async def other() -> None:
            await world.objects.apply(manifest(more="replicas: 3"))

        world.store.before_txn = other
        made, how = await world.objects.apply(manifest(more="minReadySeconds: 2"))
        assert how == "configured"
        assert made.spec.min_ready_seconds == 2

    run(check)


def test_apply_refuses_what_is_invalid_and_writes_nothing():
    async def check(world: World) -> None:
        await world.objects.apply(manifest())
        writes = world.store.writes
        with pytest.raises(InvalidError, match="replicas: -1 is less than 0"):
            await world.objects.apply(with_replicas(manifest(), -1))
        assert world.store.writes == writes

    run(check)


def test_apply_into_a_namespace_that_is_missing_says_how_to_make_it():
    async def check(world: World) -> None:
        with pytest.raises(NotFoundError, match='namespace "staging" not found') as caught:
            await world.objects.apply(with_meta(manifest(), namespace="staging"))
        assert "kind: Namespace, metadata: {name: staging}" in caught.value.hint

    run(check)
