"""Objects over HTTP: what is created, changed and deleted, and the words in which a refusal comes."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from korch.api.owners import CONTROLLERS, owner
from korch.objects.objects import Objects
from korch.resources.codec import with_meta
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.workload import Deployment
from tests.unit.api.serving import CONFIGMAPS, DEPLOYMENTS, PODS, World, configmap, deployment, pod, run

MERGE = {"content-type": "application/merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}


def test_a_new_object_has_identity_defaults_and_owners_of_its_fields(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        answer = await world.http.post(f"{DEPLOYMENTS}?fieldManager=kubectl-create", json=deployment(replicas=None))
        made = answer.json()
        assert answer.status_code == 201
        assert answer.headers["content-type"] == "application/json"
        assert answer.text.endswith("}\n")
        assert made["metadata"].keys() >= {"uid", "resourceVersion", "creationTimestamp", "generation"}
        assert (made["spec"]["replicas"], made["spec"]["progressDeadlineSeconds"]) == (1, 600)
        assert made["status"] == {}, "kr8s and others look into it at once"
        assert [entry["manager"] for entry in made["metadata"]["managedFields"]] == ["kubectl-create"]
        assert await world.get(f"{DEPLOYMENTS}/web") == made

    run(tmp_path, check)


def test_what_the_url_says_need_not_stand_in_the_body(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        answer = await world.http.post(
            PODS,
            content=b'{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i:1"}]},"status":{"phase":"Running"}}',
        )
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert (made["kind"], made["apiVersion"], made["metadata"]["namespace"]) == ("Pod", "v1", "default")
        assert made["status"] == {"phase": "Pending"}  # what a client says of it does not count

    run(tmp_path, check)


def test_a_name_can_be_generated(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        body = {"metadata": {"generateName": "job-"}, "data": {}}
        first, second = (await world.make(CONFIGMAPS, body) for _ in range(2)), await world.make(CONFIGMAPS, body)
        names = {made["metadata"]["name"] async for made in first} | {second["metadata"]["name"]}
        assert len(names) == 3
        assert all(name.startswith("job-") and len(name) == 9 for name in names)

    run(tmp_path, check)


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "reason", "message"),
    [
        ("GET", f"{PODS}/x", None, 404, "NotFound", 'pods "x" not found'),
        ("GET", f"{DEPLOYMENTS}/x", None, 404, "NotFound", 'deployments.apps "x" not found'),
        ("DELETE", f"{DEPLOYMENTS}/x", None, 404, "NotFound", 'deployments.apps "x" not found'),
        ("PUT", f"{CONFIGMAPS}/x", configmap("x"), 404, "NotFound", 'configmaps "x" not found'),
        ("GET", "/api/v1/things", None, 404, "NotFound", "the server could not find the requested resource"),
        (
            "GET",
            "/api/v1/namespaces/x/nodes",
            None,
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        ("POST", "/api/v1/namespaces/no/configmaps", configmap(), 404, "NotFound", 'namespaces "no" not found'),
        ("POST", CONFIGMAPS, configmap("there"), 409, "AlreadyExists", 'configmaps "there" already exists'),
        (
            "POST",
            CONFIGMAPS,
            {**configmap(), "kind": "Secret"},
            400,
            "BadRequest",
            'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): '
            "unknown conversion",
        ),
        (
            "POST",
            f"{CONFIGMAPS}?fieldValidation=Strict",
            {**configmap(), "dataa": {"a": "b"}},
            400,
            "BadRequest",
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dataa"',
        ),
        (
            "PUT",
            f"{CONFIGMAPS}/there",
            {"metadata": {"name": "there", "resourceVersion": "1"}},
            409,
            "Conflict",
            'Operation cannot be fulfilled on configmaps "there": the object has been modified; please apply your '
            "changes to the latest version and try again",
        ),
        (
            "PUT",
            f"{CONFIGMAPS}/there",
            configmap("other"),
            400,
            "BadRequest",
            "the name of the object (other) does not match the name on the URL (there)",
        ),
        ("GET", f"{PODS}?fieldSelector=a%3Db", None, 400, "BadRequest", None),
        ("GET", f"{PODS}?labelSelector=%21%21", None, 400, "BadRequest", None),
        ("GET", f"{PODS}?limit=x", None, 400, "BadRequest", None),
        ("GET", f"{PODS}?continue=x", None, 400, "BadRequest", None),
        ("POST", "/api/v1/nodes", {"metadata": {"name": "n"}}, 403, "Forbidden", None),
        ("POST", f"{CONFIGMAPS}/there", configmap(), 405, "MethodNotAllowed", None),
    ],
)
def test_refusals(tmp_path: Path, method: str, path: str, body: object, code: int, reason: str, message: str) -> None:
    async def check(world: World) -> None:
        await world.make(CONFIGMAPS, configmap("there"))
        before = await world.store.revision()
        answer = await world.http.request(method, path, json=body)
        status = answer.json()
        assert (answer.status_code, status["code"], status["reason"]) == (code, code, reason)
        assert message in (None, status["message"])
        assert [key for key in status if key != "details"] == [
            *("kind", "apiVersion", "metadata", "status", "message", "reason", "code")
        ]
        assert await world.store.revision() == before

    run(tmp_path, check)


def test_an_invalid_object_names_each_field(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        body = deployment(replicas=-1)
        body["spec"]["template"]["spec"]["containers"][0]["name"] = "Bad_Name"
        answer = await world.http.post(DEPLOYMENTS, json=body)
        status = answer.json()
        assert (answer.status_code, status["reason"]) == (422, "Invalid")
        assert status["message"].startswith('Deployment.apps "web" is invalid: [')
        assert {cause["field"] for cause in status["details"]["causes"]} >= {"spec.replicas"}
        assert status["details"] | {"causes": []} == {
            "name": "web",
            "group": "apps",
            "kind": "Deployment",
            "causes": [],
        }

    run(tmp_path, check)


def test_field_validation(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        body = {**configmap(), "dataa": {}}
        warned = await world.http.post(f"{CONFIGMAPS}?dryRun=All", json=body)
        assert (warned.status_code, warned.headers["warning"]) == (201, '299 - "unknown field \\"dataa\\""')
        ignored = await world.http.post(f"{CONFIGMAPS}?dryRun=All&fieldValidation=Ignore", json=body)
        assert (ignored.status_code, "warning" in ignored.headers) == (201, False)
        twice = await world.http.post(f"{CONFIGMAPS}?fieldValidation=Strict", content=b'{"data":{"a":"1","a":"2"}}')
        assert 'duplicate field "data.a"' in twice.json()["message"]

    run(tmp_path, check)


def test_what_is_not_honoured_is_warned_of_once(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = await world.http.post(PODS, json=pod("p", dnsPolicy="None"))
        assert made.headers["warning"].startswith('299 - "spec.dnsPolicy: ')
        again = await world.http.patch(f"{PODS}/p", json={"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
        assert (again.status_code, "warning" in again.headers) == (200, False)

    run(tmp_path, check)


def test_quantities_may_be_numbers(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        body = pod()
        body["spec"]["containers"][0]["resources"] = {"limits": {"cpu": 1, "memory": 8388608}, "requests": {"cpu": 0.5}}
        made = await world.make(PODS, body)
        resources = made["spec"]["containers"][0]["resources"]
        assert (resources["limits"], resources["requests"]["cpu"]) == ({"cpu": "1", "memory": "8388608"}, "0.5")

    run(tmp_path, check)


def test_a_replaced_object_keeps_its_status_and_grows_its_generation(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = await world.make(DEPLOYMENTS, deployment())
        status = {"metadata": {"name": "web"}, "status": {"observedGeneration": 1, "replicas": 2}}
        told = await world.http.put(f"{DEPLOYMENTS}/web/status", json=status)
        assert told.json()["status"]["replicas"] == 2
        assert told.json()["spec"] == made["spec"]
        wanted = {**deployment(replicas=5), "status": {"replicas": 9}}
        after = (await world.http.put(f"{DEPLOYMENTS}/web", json=wanted)).json()  # without a resourceVersion
        assert (after["spec"]["replicas"], after["status"]["replicas"]) == (5, 2)
        assert after["metadata"]["generation"] == 2

    run(tmp_path, check)


def test_patches(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = await world.make(CONFIGMAPS, configmap("c", a="1", b="2"))
        merged = await world.http.patch(f"{CONFIGMAPS}/c", json={"data": {"a": None, "d": "4"}}, headers=MERGE)
        assert merged.json()["data"] == {"b": "2", "d": "4"}
        operations = [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "add", "path": "/data/e", "value": "5"}]
        patched = await world.http.patch(f"{CONFIGMAPS}/c", json=operations, headers=JSON_PATCH)
        assert patched.json()["data"] == {"b": "2", "d": "4", "e": "5"}
        same = await world.http.patch(f"{CONFIGMAPS}/c", json={"data": {"e": "5"}}, headers=MERGE)
        assert same.json() == patched.json()  # nothing new, no new version
        stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"z": "1"}}
        assert (await world.http.patch(f"{CONFIGMAPS}/c", json=stale, headers=MERGE)).status_code == 409
        assert (await world.http.patch(f"{CONFIGMAPS}/x", json=stale, headers=MERGE)).status_code == 404
        other = {"content-type": "text/plain"}
        assert (await world.http.patch(f"{CONFIGMAPS}/c", json=stale, headers=other)).status_code == 415

    run(tmp_path, check)


def test_server_side_apply_creates_owns_and_takes_back(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        url = f"{CONFIGMAPS}/c"
        first = await world.http.patch(f"{url}?fieldManager=a", json=configmap("c", x="1", y="1"), headers=APPLY)
        assert (first.status_code, first.json()["data"]) == (201, {"x": "1", "y": "1"})
        second = await world.http.patch(f"{url}?fieldManager=a", json=configmap("c", x="1"), headers=APPLY)
        assert (second.status_code, second.json()["data"]) == (200, {"x": "1"})
        clash = await world.http.patch(f"{url}?fieldManager=b", json=configmap("c", x="2"), headers=APPLY)
        status = clash.json()
        assert (clash.status_code, status["reason"]) == (409, "Conflict")
        assert status["message"] == 'Apply failed with 1 conflict: conflict with "a": .data.x'
        assert status["details"]["causes"] == [
            {"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": ".data.x"}
        ]
        forced = await world.http.patch(f"{url}?fieldManager=b&force=true", json=configmap("c", x="2"), headers=APPLY)
        assert forced.json()["data"] == {"x": "2"}
        again = await world.http.patch(f"{url}?fieldManager=b&force=true", json=configmap("c", x="2"), headers=APPLY)
        assert again.json() == forced.json()
        nobody = await world.http.patch(f"{CONFIGMAPS}/new", json=configmap("new"), headers=APPLY)
        assert (nobody.status_code, nobody.json()["details"]["causes"][0]["field"]) == (422, "fieldManager")

    run(tmp_path, check)


def test_a_scale_is_applied_too(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.http.patch(f"{DEPLOYMENTS}/web?fieldManager=ann", json=deployment(replicas=None), headers=APPLY)
        url, wish = f"{DEPLOYMENTS}/web/scale", {"apiVersion": "autoscaling/v1", "kind": "Scale"}

        async def apply(replicas: int, by: str, **more: object) -> httpx.Response:
            body = {**wish, "spec": {"replicas": replicas}, **more}
            return await world.http.patch(f"{url}{by}", json=body, headers=APPLY)

        assert (await apply(3, "?fieldManager=hpa&dryRun=All")).json()["spec"] == {"replicas": 3}
        done = await apply(4, "?fieldManager=hpa&force=true")
        assert (done.status_code, done.json()["kind"], done.json()["spec"]) == (200, "Scale", {"replicas": 4})
        stored = await world.objects.get(Deployment, "web")
        assert stored.spec.replicas == 4
        assert stored.spec.template.spec.containers[0].image == "web:1"
        owners = {(one["manager"], one.get("subresource", "")) for one in stored.metadata.managed_fields}
        assert owners == {("ann", ""), ("hpa", "scale")}
        clash = await apply(5, "?fieldManager=other")
        assert (clash.status_code, clash.json()["details"]["causes"][0]["field"]) == (409, ".spec.replicas")
        assert (await apply(5, "")).status_code == 422
        assert (await apply(5, "?fieldManager=hpa", metadata={"name": "x"})).status_code == 400
        assert (await apply(5, "?fieldManager=hpa", metadata={"resourceVersion": "1"})).status_code == 409

    run(tmp_path, check)


def test_what_goes_gets_no_new_finalizers_and_a_negative_grace_is_no_force(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        held = configmap()
        held["metadata"]["finalizers"] = ["x.io/a", "x.io/b"]
        await world.make(CONFIGMAPS, held)
        await world.http.delete(f"{CONFIGMAPS}/c")
        for finalizers, code in ((["x.io/a", "x.io/b", "x.io/c"], 422), (["x.io/b"], 200), ([], 200)):
            body = {"metadata": {"finalizers": finalizers}}
            answer = await world.http.patch(f"{CONFIGMAPS}/c", json=body, headers=MERGE)
            assert answer.status_code == code, answer.text
        await world.make(PODS, pod(nodeName="n1", terminationGracePeriodSeconds=40))
        left = await world.http.delete(f"{PODS}/web-1?gracePeriodSeconds=-1")
        assert left.json()["metadata"]["deletionGracePeriodSeconds"] == 40

    run(tmp_path, check)


def test_the_type_of_a_secret_stays(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        secrets = "/api/v1/namespaces/default/secrets"
        await world.make(secrets, {"metadata": {"name": "s"}, "data": {"a": "eA=="}})
        changed = await world.http.patch(f"{secrets}/s", json={"type": "x.io/y"}, headers=MERGE)
        assert (changed.status_code, changed.json()["details"]["causes"][0]["field"]) == (422, "type")
        same = await world.http.patch(f"{secrets}/s", json={"type": "Opaque", "data": {"b": "eA=="}}, headers=MERGE)
        assert same.status_code == 200

    run(tmp_path, check)


def test_a_dry_run_answers_and_writes_nothing(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(DEPLOYMENTS, deployment())
        before = await world.store.revision()
        patch = {"spec": {"replicas": 7}}
        dry = await world.http.patch(f"{DEPLOYMENTS}/web?dryRun=All", json=patch, headers=MERGE)
        assert (dry.json()["spec"]["replicas"], dry.json()["metadata"]["generation"]) == (7, 2)
        gone = await world.http.request("DELETE", f"{DEPLOYMENTS}/web", json={"dryRun": ["All"]})
        assert gone.json()["status"] == "Success"
        made = await world.http.post(f"{PODS}?dryRun=All", json=pod())
        assert (made.status_code, "resourceVersion" in made.json()["metadata"]) == (201, False)
        assert await world.store.revision() == before
        assert (await world.http.post(f"{PODS}?dryRun=Some", json=pod())).status_code == 422

    run(tmp_path, check)


def test_some_kinds_answer_a_deletion_with_the_object(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = await world.make(PODS, pod())
        assert (await world.http.delete(f"{PODS}/web-1")).json()["metadata"]["uid"] == made["metadata"]["uid"]
        other = await world.make(CONFIGMAPS, configmap())
        status = (await world.http.delete(f"{CONFIGMAPS}/c")).json()
        assert status["status"] == "Success"
        assert status["details"] == {"name": "c", "kind": "configmaps", "uid": other["metadata"]["uid"]}

    run(tmp_path, check)


def test_a_bound_pod_is_marked_with_its_time(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(PODS, pod())
        found = await world.objects.get(Pod, "web-1")
        await world.objects.bind(found, "n1", "{}")
        left = (await world.http.delete(f"{PODS}/web-1?gracePeriodSeconds=5")).json()
        assert left["metadata"]["deletionGracePeriodSeconds"] == 5
        assert (await world.http.delete(f"{PODS}/web-1?gracePeriodSeconds=0")).status_code == 200
        assert (await world.http.get(f"{PODS}/web-1")).status_code == 404
        assert await world.objects.tombstone(found.metadata.uid) is not None

    run(tmp_path, check)


def test_finalizers_hold_any_object(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        body = configmap()
        body["metadata"]["finalizers"] = ["x.io/f"]
        await world.make(CONFIGMAPS, body)
        await world.http.delete(f"{CONFIGMAPS}/c")
        held = await world.get(f"{CONFIGMAPS}/c")
        assert held["metadata"]["deletionTimestamp"]
        operations = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": held["metadata"]["resourceVersion"]},
            {"op": "remove", "path": "/metadata/finalizers/0"},
        ]
        done = await world.http.patch(f"{CONFIGMAPS}/c", json=operations, headers=JSON_PATCH)
        assert done.status_code == 200, done.text
        assert (await world.http.get(f"{CONFIGMAPS}/c")).status_code == 404

    run(tmp_path, check)


def test_preconditions_of_a_deletion(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = await world.make(CONFIGMAPS, configmap())
        other = {"preconditions": {"uid": "no"}}
        refused = await world.http.request("DELETE", f"{CONFIGMAPS}/c", json=other)
        assert (refused.status_code, "UID in precondition: no" in refused.json()["message"]) == (409, True)
        stale = {"preconditions": {"resourceVersion": "1"}}
        assert (await world.http.request("DELETE", f"{CONFIGMAPS}/c", json=stale)).status_code == 409
        fits = {"preconditions": {"uid": made["metadata"]["uid"]}}
        assert (await world.http.request("DELETE", f"{CONFIGMAPS}/c", json=fits)).status_code == 200

    run(tmp_path, check)


def test_how_what_is_owned_goes(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
            await world.make(DEPLOYMENTS, deployment(policy.lower()))
            path = f"{DEPLOYMENTS}/{policy.lower()}"
            await world.http.request("DELETE", path, json={"propagationPolicy": policy})
            assert (await world.get(path))["metadata"]["finalizers"] == [finalizer]
        assert (await world.http.delete(f"{DEPLOYMENTS}/orphan?propagationPolicy=No")).status_code == 422

    run(tmp_path, check)


def test_a_collection_goes_by_selector(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        for name, label in (("a", "1"), ("b", "1"), ("c", "2")):
            body = configmap(name)
            body["metadata"]["labels"] = {"l": label}
            await world.make(CONFIGMAPS, body)
        gone = await world.http.delete(CONFIGMAPS, params={"labelSelector": "l=1"})
        assert [item["metadata"]["name"] for item in gone.json()["items"]] == ["a", "b"]
        assert gone.json()["kind"] == "ConfigMapList"
        left = await world.get(CONFIGMAPS)
        assert [item["metadata"]["name"] for item in left["items"]] == ["c"]

    run(tmp_path, check)


def test_a_namespace_with_contents_is_on_its_way_out(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make("/api/v1/namespaces", {"metadata": {"name": "x"}})
        await world.make("/api/v1/namespaces/x/configmaps", configmap())
        assert (await world.http.delete("/api/v1/namespaces/x")).status_code == 200
        assert (await world.get("/api/v1/namespaces/x"))["status"]["phase"] == "Terminating"
        refused = await world.http.post("/api/v1/namespaces/x/configmaps", json=configmap("d"))
        assert refused.status_code == 403
        found = await world.objects.get(Namespace, "x")
        await world.objects.update(with_meta(found, finalizers=()))
        assert (await world.http.get("/api/v1/namespaces/x")).status_code == 404
        assert (await world.http.delete("/api/v1/namespaces/default")).status_code == 403

    run(tmp_path, check)


def test_scale(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(DEPLOYMENTS, deployment())
        scale = await world.get(f"{DEPLOYMENTS}/web/scale")
        assert (scale["kind"], scale["spec"], scale["status"]) == (
            "Scale",
            {"replicas": 2},
            {"replicas": 0, "selector": "app=web"},
        )
        patched = await world.http.patch(f"{DEPLOYMENTS}/web/scale", json={"spec": {"replicas": 0}}, headers=MERGE)
        assert patched.json()["spec"] == {"replicas": 0}
        assert (await world.objects.get(Deployment, "web")).spec.replicas == 0
        stale = await world.http.put(f"{DEPLOYMENTS}/web/scale", json={**scale, "spec": {"replicas": 3}})
        assert stale.status_code == 409
        scale["metadata"].pop("resourceVersion")
        assert (await world.http.put(f"{DEPLOYMENTS}/web/scale", json=scale)).json()["spec"] == {"replicas": 2}
        minus = await world.http.patch(f"{DEPLOYMENTS}/web/scale", json={"spec": {"replicas": -1}}, headers=MERGE)
        assert minus.status_code == 422

    run(tmp_path, check)


def test_evictions_keep_to_budgets(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        body = pod()
        body["metadata"]["labels"] = {"app": "db"}
        await world.make(PODS, body)
        found = await world.objects.get(Pod, "web-1")
        await world.objects.bind(found, "n1", "{}")
        budget = {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "db"}}}, "metadata": {"name": "b"}}
        budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        await world.make(budgets, budget)
        held = await world.http.post(f"{PODS}/web-1/eviction", json={"metadata": {"name": "web-1"}})
        assert (held.status_code, "retry-after" in held.headers) == (429, False)
        assert held.json()["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
        await world.http.delete(f"{budgets}/b")
        gone = await world.http.post(f"{PODS}/web-1/eviction", json={"metadata": {"name": "web-1"}})
        assert (gone.status_code, gone.json()["status"]) == (201, "Success")
        marked = await world.objects.get(Pod, "web-1")
        assert marked.metadata.annotations["korch.dev/evict"] == "stop-first"
        assert (await world.http.post(f"{PODS}/no/eviction", json={})).status_code == 404

    run(tmp_path, check)


def test_a_pod_without_a_node_is_evicted_at_once(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(PODS, pod())
        assert (await world.http.post(f"{PODS}/web-1/eviction", json={})).status_code == 201
        assert (await world.http.get(f"{PODS}/web-1")).status_code == 404

    run(tmp_path, check)


def test_a_scheduler_of_somebody_elses_can_bind(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(PODS, pod())
        wish = {"metadata": {"name": "web-1"}, "target": {"kind": "Node", "name": "n1"}}
        assert (await world.http.post(f"{PODS}/web-1/binding", json=wish)).status_code == 201
        assert (await world.get(f"{PODS}/web-1"))["spec"]["nodeName"] == "n1"
        wish["target"]["name"] = "n2"
        assert (await world.http.post(f"{PODS}/web-1/binding", json=wish)).status_code == 409

    run(tmp_path, check)


def test_a_namespace_is_labelled_with_its_name(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        path = "/api/v1/namespaces"
        made = await world.make(path, {"metadata": {"name": "shop", "labels": {"a": "b"}}})
        assert made["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "shop"}
        less = await world.http.patch(f"{path}/shop", json={"metadata": {"labels": None}}, headers=MERGE)
        assert less.json()["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
        chosen = await world.get(path, labelSelector="kubernetes.io/metadata.name in (shop, default)")
        assert [one["metadata"]["name"] for one in chosen["items"]] == ["default", "shop"]

    run(tmp_path, check)


def test_what_a_controller_changes_is_its_own(tmp_path: Path) -> None:
    """So an applier of `replicas` hears of the autoscaler that moved them, and may leave them to it."""

    async def check(world: World) -> None:
        async def applied(replicas: int | None, **query: str) -> Any:
            params = {"fieldManager": "ann", **query}
            body = deployment(replicas=replicas)
            return await world.http.patch(f"{DEPLOYMENTS}/web", json=body, params=params, headers=APPLY)

        def scaled(found: Deployment) -> Deployment:
            return replace(found, spec=replace(found.spec, replicas=5))

        assert (await applied(2)).status_code == 201
        controllers = Objects(world.store, clock=world.clock, track=owner(CONTROLLERS, world.clock.now))
        await controllers.modify(Deployment, "web", "default", scaled)
        clash = await applied(2)
        assert clash.status_code == 409
        assert 'conflict with "korch-controller" using apps/v1: .spec.replicas' in clash.json()["message"]
        left = await applied(None)
        assert (left.status_code, left.json()["spec"]["replicas"]) == (200, 5)
        forced = await applied(3, force="true")
        assert forced.json()["spec"]["replicas"] == 3
        assert [one["manager"] for one in forced.json()["metadata"]["managedFields"]] == ["ann"]

        spec = PodSpec(containers=(Container(name="c", image="web:1"),))
        bare = await world.objects.create(Pod(metadata=ObjectMeta(name="bare"), spec=spec))
        await controllers.modify(Pod, "bare", "default", lambda found: with_meta(found, labels={"a": "b"}))
        assert not (await world.objects.get(Pod, "bare")).metadata.managed_fields, "nobody began to keep owners"
        assert not bare.metadata.managed_fields

    run(tmp_path, check)


def test_an_empty_security_context_is_shown_and_changes_nothing(tmp_path: Path) -> None:
    """`kubectl debug` takes for granted that there is one; what reads and writes all of it must not roll anything."""

    async def check(world: World) -> None:
        made = await world.make(DEPLOYMENTS, deployment())
        assert made["spec"]["template"]["spec"]["securityContext"] == {}
        answer = await world.http.put(f"{DEPLOYMENTS}/web", json=made)
        assert answer.json()["metadata"]["generation"] == 1
        assert answer.json()["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert (await world.make(PODS, pod()))["spec"]["securityContext"] == {}

    run(tmp_path, check)
