"""What the API says of itself: discovery in both forms, schemas, reviews, versions."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from korch.api import discovery, openapi, registry
from korch.api.requestinfo import RequestInfo
from korch.api.schemas import explained
from korch.api.services import Nobody, Services
from korch.resources.fields import RULES, struct_fields
from korch.resources.kinds import KINDS, Kind
from tests.unit.api.serving import World, run

AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


def test_both_forms_name_every_kind(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        for path, core in (("/api", True), ("/apis/", False)):
            answer = await world.http.get(path, headers={"accept": AGGREGATED})
            assert answer.headers["content-type"] == discovery.AGGREGATED
            for group in answer.json()["items"]:
                name = group["metadata"].get("name", "")
                assert (name == "") is core
                for version in group["versions"]:
                    base = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                    legacy = {entry["name"]: entry for entry in (await world.get(base))["resources"]}
                    for resource in version["resources"]:
                        entry = legacy.pop(resource["resource"])
                        assert entry["verbs"] == resource["verbs"]
                        assert entry["namespaced"] is (resource["scope"] == "Namespaced")
                        for part in resource.get("subresources", ()):
                            other = legacy.pop(f"{resource['resource']}/{part['subresource']}")
                            assert other["kind"] == part["responseKind"]["kind"]
                    assert not legacy
        plain = await world.get("/apis")
        assert {group["name"] for group in plain["groups"]} == {kind.group for kind in KINDS if kind.group} | {
            "authorization.k8s.io",
            "events.k8s.io",
            "authentication.k8s.io",
            "metrics.k8s.io",
        }
        assert (await world.get("/api/"))["versions"] == ["v1"]
        assert (await world.get("/apis/apps"))["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
        assert (await world.http.get("/apis/no.such")).text == "404 page not found\n"
        assert (await world.http.get("/apis/apps/v9")).status_code == 404

    run(tmp_path, check)


def test_evictions_are_found_the_way_that_drain_looks_for_them(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        resources = (await world.get("/api/v1"))["resources"]
        found = next(entry for entry in resources if entry["name"] == "pods/eviction")
        assert (found["group"], found["version"], found["kind"]) == ("policy", "v1", "Eviction")

    run(tmp_path, check)


def test_stable_versions_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(["v1beta1", "v1", "v2"], key=registry._age) == ["v2", "v1", "v1beta1"]


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_references(item) for item in value.values()))
    return set().union(*(_references(item) for item in value)) if isinstance(value, list) else set()


def test_schemas(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        index = (await world.get("/openapi/v3"))["paths"]
        gvks = set()
        for place, address in index.items():
            document = await world.get(address["serverRelativeURL"])
            schemas = document["components"]["schemas"]
            assert _references(document) <= {f"#/components/schemas/{name}" for name in schemas}
            for schema in schemas.values():
                gvks |= {
                    (gvk["group"], gvk["version"], gvk["kind"])
                    for gvk in schema.get("x-kubernetes-group-version-kind", ())
                }
            assert place.startswith(("api/", "apis/"))
        assert {(kind.group, kind.version, kind.name) for kind in KINDS} <= gvks
        second = await world.http.get("/openapi/v2")
        assert (second.json()["swagger"], second.headers["content-type"]) == ("2.0", "application/json")
        asked = {"accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
        second = await world.http.get("/openapi/v2", headers=asked)
        assert (second.content[:5], second.headers["content-type"]) == (b"\x0a\x032.0", openapi.V2_PROTOBUF)
        assert (await world.get("/openapi/v3")) == {"paths": index}

    run(tmp_path, check)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "patch" in registry.verbs_of(kind)], ids=lambda kind: kind.plural
)
def test_kubectl_learns_that_the_server_validates(kind: Kind) -> None:
    document = json.loads(openapi.document(kind.group, kind.version) or b"")
    operations = [
        path["patch"]
        for place, path in document["paths"].items()
        if "patch" in path and place.endswith(f"/{kind.plural}/{{name}}")
    ]
    assert len(operations) == 1
    assert "fieldValidation" in {parameter["name"] for parameter in operations[0]["parameters"]}
    assert "application/strategic-merge-patch+json" in operations[0]["requestBody"]["content"]


def test_documents_name_parts_and_what_is_only_answered() -> None:
    def paths(group: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(openapi.document(group, "v1") or b"")["paths"]
        return found

    one = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    scale = paths("apps")[f"{one}/scale"]
    assert scale["patch"]["x-kubernetes-group-version-kind"] == {
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
    }
    assert {"get", "put", "patch"} <= scale.keys()
    assert list(scale["patch"]["requestBody"]["content"]) == list(openapi.PATCHES)
    assert "post" in paths("")["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]
    assert "post" in paths("authorization.k8s.io")["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"]


def test_lists_with_keys_say_so() -> None:
    schemas = json.loads(openapi.document("apps", "v1") or b"")["components"]["schemas"]
    spec = next(schema for name, schema in schemas.items() if name.endswith(".PodSpec"))
    containers = spec["properties"]["containers"]
    assert (containers["x-kubernetes-patch-merge-key"], containers["x-kubernetes-patch-strategy"]) == ("name", "merge")
    assert "Refused" in spec["properties"]["hostPID"]["description"]


def types_of(kinds: Iterable[Kind]) -> dict[str, type[msgspec.Struct]]:
    """Every type that objects of these kinds are made of, by name."""
    found: dict[str, type[msgspec.Struct]] = {}

    def walk(type_: Any) -> None:
        if isinstance(type_, inspect.StructType):
            if type_.cls.__name__ in found:
                return
            found[type_.cls.__name__] = type_.cls
            for field in struct_fields(type_.cls).values():
                walk(field.type)
        for inner in (*getattr(type_, "types", ()), *getattr(type_, "item_types", ())):
            walk(inner)
        for name in ("item_type", "value_type"):
            if hasattr(type_, name):
                walk(getattr(type_, name))

    for kind in kinds:
        walk(inspect.type_info(kind.type))
    return found


def test_explain_has_a_sentence_for_every_field() -> None:
    for group, versions in registry.groups().items():
        for version in versions:
            document = json.loads(openapi.document(group, version) or b"")
            for name, schema in document["components"]["schemas"].items():
                if name.endswith(("List", ".Status")):
                    continue
                assert schema["description"], name
                silent = [field for field, found in schema["properties"].items() if not found.get("description")]
                assert not silent, f"api/explained.txt has no line for {name.rpartition('.')[2]}: {silent}"


def test_nothing_is_explained_that_is_not_there() -> None:
    types = types_of(KINDS)
    for name, fields in explained().items():
        of = types.values() if name == "*" else [types[name]]
        known = {field for type_ in of for field in (*struct_fields(type_), *RULES.get(type_.__name__, ()))}
        assert set(fields) <= known, f"[{name}] of api/explained.txt: {sorted(set(fields) - known)}"
        assert all(text.endswith(".") and not text[0].isspace() for text in fields.values()), name


def test_health_and_version(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        for path in ("/healthz", "/livez", "/readyz", "/readyz/ping"):
            assert (await world.http.get(path)).text == "ok"
        assert (await world.http.get("/livez?verbose")).text == "[+]store ok\nlivez check passed\n"
        for path in ("/version", "/version/"):
            found = await world.get(path)
            assert all(isinstance(value, str) for value in found.values())
            assert found["gitVersion"].startswith(f"v{found['major']}.{found['minor']}")
        assert (await world.http.post("/version")).status_code == 404
        assert (await world.http.get("/nowhere")).status_code == 404

    run(tmp_path, check)


class OnlyPods:
    async def allowed(self, user: Any, info: RequestInfo) -> tuple[bool, str]:
        return info.resource == "pods" and user.name in ("system:admin", "eve"), "a rule"

    async def rules(self, user: Any, namespace: str) -> tuple[Any, ...]:
        class Rule:
            verbs, groups, resources, paths, names = ("get",), ("",), ("pods",), (), ()

        return (Rule(),)

    async def check(self, user: Any) -> Any:
        raise AssertionError("nobody writes roles here")


async def _whose(token: str) -> Nobody | None:
    return Nobody("eve", ("g",)) if token == "good" else None


def test_reviews(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async def ask(group: str, plural: str, spec: dict[str, Any]) -> Any:
            answer = await world.http.post(f"/apis/{group}/v1/{plural}", json={"spec": spec})
            assert answer.status_code == 201, answer.text
            return answer.json()["status"]

        for resource, allowed in (("pods", True), ("secrets", False)):
            asked = {"resourceAttributes": {"verb": "get", "resource": resource, "namespace": "default"}}
            status = await ask("authorization.k8s.io", "selfsubjectaccessreviews", asked)
            assert status["allowed"] is allowed
            status = await ask("authorization.k8s.io", "subjectaccessreviews", {**asked, "user": "mallory"})
            assert status["allowed"] is False
        rules = await ask("authorization.k8s.io", "selfsubjectrulesreviews", {"namespace": "default"})
        assert rules == {
            "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
            "nonResourceRules": [],
            "incomplete": False,
        }
        me = await ask("authentication.k8s.io", "selfsubjectreviews", {})
        assert me["userInfo"]["username"] == "system:admin"
        good = await ask("authentication.k8s.io", "tokenreviews", {"token": "good"})
        assert (good["authenticated"], good["user"]["username"]) == (True, "eve")
        assert (await ask("authentication.k8s.io", "tokenreviews", {"token": "bad"}))["authenticated"] is False
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert (await world.http.post(path, json={"spec": {}})).status_code == 400
        assert (await world.http.get(path)).status_code == 405

    run(tmp_path, check, Services(authorizer=OnlyPods(), user_of_token=_whose))
