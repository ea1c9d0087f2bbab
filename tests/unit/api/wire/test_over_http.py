"""Server-side apply as clients meet it: through the API, onto typed objects with defaults."""

import copy
from pathlib import Path
from typing import Any

import pytest

from ..serving import World, run

APPLY = {"content-type": "application/apply-patch+yaml"}
META = {"name": "web"}


def deployment() -> dict[str, Any]:
    container = {
        "name": "web",
        "image": "web:1",
        "resources": {"limits": {"cpu": 1, "memory": "64Mi"}},
        "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
        "env": [{"name": "A", "value": ""}, {"name": "B", "value": "b"}],
        "readinessProbe": {"httpGet": {"port": 80, "path": "/"}},
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "privileged": False},
    }
    spec = {
        "containers": [container],
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    }
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**META, "creationTimestamp": None},
        "spec": {
            "replicas": 0,
            "paused": False,
            "minReadySeconds": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "creationTimestamp": None}, "spec": spec},
        },
        "status": {},
    }


OBJECTS: list[tuple[str, dict[str, Any]]] = [
    ("/apis/apps/v1/namespaces/default/deployments", deployment()),
    (
        "/api/v1/namespaces/default/services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": META,
            "spec": {
                "ports": [{"port": 80, "name": "web"}, {"port": 53, "protocol": "UDP", "name": "dns"}],
                "selector": {"a": "b"},
            },
        },
    ),
    (
        "/api/v1/namespaces/default/secrets",
        {"apiVersion": "v1", "kind": "Secret", "metadata": META, "stringData": {"a": "b"}, "data": {"c": "ZA=="}},
    ),
    (
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": META,
            "spec": {
                "rules": [
                    {
                        "host": "h",
                        "http": {
                            "paths": [
                                {
                                    "path": "/",
                                    "pathType": "Prefix",
                                    "backend": {"service": {"name": "web", "port": {"number": 80}}},
                                }
                            ]
                        },
                    }
                ]
            },
        },
    ),
    (
        "/apis/batch/v1/namespaces/default/cronjobs",
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": META,
            "spec": {
                "schedule": "* * * * *",
                "suspend": False,
                "jobTemplate": {
                    "spec": {
                        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}
                    }
                },
            },
        },
    ),
    (
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": META,
            "addressType": "IPv4",
            "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}],  # filled with defaults as a whole
        },
    ),
    (
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": META,
            "spec": {"minAvailable": 0, "selector": {"matchLabels": {"a": "b"}}},
        },
    ),
]


@pytest.mark.parametrize(("path", "wish"), OBJECTS, ids=lambda one: one["kind"] if isinstance(one, dict) else "")
def test_an_apply_repeated_later_writes_nothing(tmp_path: Path, path: str, wish: dict[str, Any]) -> None:
    async def test(world: World) -> None:
        url = f"{path}/web?fieldManager=a"
        first = await world.http.patch(url, json=wish, headers=APPLY)
        assert first.status_code == 201, first.text
        world.clock.time_s += 100
        again = await world.http.patch(url, json=wish, headers=APPLY)
        assert again.status_code == 200, again.text
        assert again.json() == first.json()

    run(tmp_path, test)


def test_two_appliers_and_a_writer_share_a_deployment(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        path = "/apis/apps/v1/namespaces/default/deployments/web"
        assert (
            await world.http.patch(f"{path}?fieldManager=helm", json=deployment(), headers=APPLY)
        ).status_code == 201
        shared = await world.http.patch(f"{path}?fieldManager=other", json=deployment(), headers=APPLY)
        assert shared.status_code == 200, shared.text
        image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "web:2"}]
        kind = {"content-type": "application/json-patch+json"}
        await world.http.patch(f"{path}?fieldManager=kubectl-set", json=image, headers=kind)
        clash = await world.http.patch(f"{path}?fieldManager=helm", json=deployment(), headers=APPLY)
        assert clash.status_code == 409
        cause = clash.json()["details"]["causes"][0]
        assert cause == {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-set" using apps/v1',
            "field": '.spec.template.spec.containers[name="web"].image',
        }
        wish = copy.deepcopy(deployment())
        del wish["spec"]["template"]["spec"]["containers"][0]["image"]
        given_up = await world.http.patch(f"{path}?fieldManager=helm", json=wish, headers=APPLY)
        assert given_up.status_code == 200, given_up.text
        assert given_up.json()["spec"]["template"]["spec"]["containers"][0]["image"] == "web:2"

    run(tmp_path, test)


def test_a_key_of_a_secret_given_as_text_goes_when_it_is_dropped(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        url = "/api/v1/namespaces/default/secrets/s?fieldManager=a"
        wish = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "1", "b": "2"}}
        await world.http.patch(url, json=wish, headers=APPLY)
        found = await world.http.patch(url, json={**wish, "stringData": {"b": "3"}}, headers=APPLY)
        assert found.json()["data"] == {"b": "Mw=="}

    run(tmp_path, test)


def test_a_status_is_applied_on_its_own_path(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        path = "/apis/apps/v1/namespaces/default/deployments/web"
        await world.http.patch(f"{path}?fieldManager=a", json=deployment(), headers=APPLY)
        status = {"conditions": [{"type": "Checked", "status": "True"}]}
        wish = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": META, "status": status}
        found = (await world.http.patch(f"{path}/status?fieldManager=a", json=wish, headers=APPLY)).json()
        assert [one["type"] for one in found["status"]["conditions"]] == ["Checked"]
        owners = [(one["manager"], one.get("subresource")) for one in found["metadata"]["managedFields"]]
        assert owners == [("a", None), ("a", "status")]
        assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "web:1"

    run(tmp_path, test)


def test_a_patch_that_cannot_be_done_is_told_in_words_that_kubectl_shows(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        path = "/api/v1/namespaces/default/configmaps"
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
        await world.make(path, made)
        patch = [{"op": "test", "path": "/data/a", "value": "2"}, {"op": "remove", "path": "/data/a"}]
        kind = {"content-type": "application/json-patch+json"}
        found = await world.http.patch(f"{path}/c", json=patch, headers=kind)
        assert (found.status_code, found.json()["reason"]) == (422, "Invalid")
        assert "operation 0 of the patch: /data/a is not what the test expects" in found.json()["message"]
        assert "details" not in found.json()
        assert (await world.get(f"{path}/c"))["data"] == {"a": "1"}

    run(tmp_path, test)


def test_a_part_that_is_not_there_is_answered_with_details_as_kubectl_reads_them(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        path = "/api/v1/namespaces/default/pods/p/ephemeralcontainers"
        found = await world.http.patch(path, json={}, headers={"content-type": "application/merge-patch+json"})
        assert (found.status_code, found.json()["details"]) == (404, {})

    run(tmp_path, test)


def test_a_scale_whose_metadata_is_none_is_a_bad_request(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        path = "/apis/apps/v1/namespaces/default/deployments"
        await world.make(path, deployment())
        merge = {"content-type": "application/merge-patch+json"}
        found = await world.http.patch(f"{path}/web/scale", json={"metadata": 1.5}, headers=merge)
        assert (found.status_code, found.json()["reason"]) == (400, "BadRequest")

    run(tmp_path, test)
