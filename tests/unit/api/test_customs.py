"""Custom kinds: defined, served at once in every way, checked by their schemas, and gone with their definition."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from korch.controllers.collector import Collector
from korch.resources.crd import CustomResourceDefinition
from tests.unit.api.serving import World, run, shown, watching

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
THINGS = "/apis/x.io/v1/namespaces/default/things"
MERGE = {"content-type": "application/merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}
SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "maxItems": 3},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "port": {"x-kubernetes-int-or-string": True},
        "rules": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}}},
        },
    },
}


def definition(**version: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": SPEC, "status": {"type": "object", **free()}}}
    return {
        "metadata": {"name": "things.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                    **version,
                },
                {"name": "v1beta1", "served": True, "storage": False, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


def free() -> dict[str, Any]:
    return {"x-kubernetes-preserve-unknown-fields": True}


def thing(name: str = "t", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {"size": 2, **spec}}


def test_a_kind_is_there_as_soon_as_it_is_defined(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        assert (await world.http.get(THINGS)).status_code == 404
        await world.make(CRDS, definition())
        crd = await world.get(f"{CRDS}/things.x.io")
        assert {one["type"]: one["status"] for one in crd["status"]["conditions"]} == {
            "NamesAccepted": "True",
            "Established": "True",
        }
        assert crd["status"]["storedVersions"] == ["v1"]
        made = await world.make(THINGS, thing(colour="blue"))
        assert (made["kind"], made["spec"], made["metadata"]["generation"]) == (
            "Thing",
            {"size": 2, "colour": "blue"},
            1,
        )
        entry = next(one for one in (await world.get("/apis/x.io/v1"))["resources"] if one["name"] == "things")
        assert (entry["kind"], entry["shortNames"], entry["namespaced"]) == ("Thing", ["th"], True)
        assert {"x.io"} <= {group["name"] for group in (await world.get("/apis"))["groups"]}
        document = await world.get((await world.get("/openapi/v3"))["paths"]["apis/x.io/v1"]["serverRelativeURL"])
        assert any("Thing" in name for name in document["components"]["schemas"])
        table = await world.http.get(THINGS, headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
        assert [row["cells"][:2] for row in table.json()["rows"]] == [["t", 2]]
        other = await world.get("/apis/x.io/v1beta1/namespaces/default/things/t")
        assert (other["apiVersion"], other["spec"]) == ("x.io/v1beta1", made["spec"])

    run(tmp_path, check)


def test_custom_objects_are_changed_in_every_way(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        async with watching(world, THINGS) as watcher:
            await world.make(THINGS, thing())
            patched = await world.http.patch(f"{THINGS}/t", json={"spec": {"size": 3}}, headers=MERGE)
            assert (patched.json()["spec"]["size"], patched.json()["metadata"]["generation"]) == (3, 2)
            status = await world.http.patch(f"{THINGS}/t/status", json={"status": {"ok": {"x": 1}}}, headers=MERGE)
            assert (status.json()["status"], status.json()["metadata"]["generation"]) == ({"ok": {"x": 1}}, 2)
            ignored = await world.http.patch(f"{THINGS}/t", json={"status": {"ok": None}}, headers=MERGE)
            assert ignored.json()["status"] == {"ok": {"x": 1}}
            await world.http.delete(f"{THINGS}/t")
            wanted = [("ADDED", "t"), ("MODIFIED", "t"), ("MODIFIED", "t"), ("DELETED", "t")]
            assert shown(await watcher.take(4)) == wanted
        applied = await world.http.patch(f"{THINGS}/a?fieldManager=m", json=thing("a", tags=["x"]), headers=APPLY)
        assert (applied.status_code, applied.json()["spec"]) == (201, {"size": 2, "tags": ["x"], "colour": "red"})
        again = await world.http.patch(f"{THINGS}/a?fieldManager=m", json=thing("a"), headers=APPLY)
        assert again.json()["spec"] == {"size": 2, "colour": "red"}
        strategic = {"content-type": "application/strategic-merge-patch+json"}
        assert (await world.http.patch(f"{THINGS}/a", json={}, headers=strategic)).status_code == 415

    run(tmp_path, check)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"size": 0}, "spec.size"),
        ({"size": "2"}, "spec.size"),
        ({"size": 2.5}, "spec.size"),
        ({"colour": "green"}, "spec.colour"),
        ({"tags": ["x", "Y"]}, "spec.tags[1]"),
        ({"tags": ["a", "b", "c", "d"]}, "spec.tags"),
        ({"free": []}, "spec.free"),
        ({"port": True}, "spec.port"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "spec.rules[1]"),
    ],
)
def test_what_a_schema_does_not_allow_is_told_by_field(tmp_path: Path, spec: dict[str, Any], field: str) -> None:
    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        answer = await world.http.post(THINGS, json=thing(**spec))
        assert (answer.status_code, answer.json()["details"]["causes"][0]["field"]) == (422, field)
        missing = await world.http.post(THINGS, json={"metadata": {"name": "t"}, "spec": {}})
        assert missing.json()["message"] == 'Thing.x.io "t" is invalid: spec.size: Required value'

    run(tmp_path, check)


def test_what_a_schema_does_not_know_is_dropped_or_refused(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        body = thing(extra=1, free={"any": {"thing": [1]}}, port="http")
        strict = await world.http.post(f"{THINGS}?fieldValidation=Strict", json=body)
        assert 'unknown field "spec.extra"' in strict.json()["message"]
        made = await world.http.post(THINGS, json=body)
        assert made.headers["warning"] == '299 - "unknown field \\"spec.extra\\""'
        assert made.json()["spec"] == {"size": 2, "free": {"any": {"thing": [1]}}, "port": "http", "colour": "red"}

    run(tmp_path, check)


def test_what_a_definition_says_of_its_names_fields_and_age_counts(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        made = definition(selectableFields=[{"jsonPath": ".spec.colour"}, {"jsonPath": ".spec.size"}])
        made["spec"]["names"] |= {"singular": "one-thing", "listKind": "Things"}
        made["spec"]["versions"][1] |= {"deprecated": True}
        await world.make(CRDS, made)
        for name, colour in (("r", "red"), ("b", "blue")):
            await world.make(THINGS, thing(name, colour=colour))
        found = await world.get(THINGS, fieldSelector="spec.colour=blue,spec.size!=3")
        assert (found["kind"], [one["metadata"]["name"] for one in found["items"]]) == ("Things", ["b"])
        assert (await world.http.get(THINGS, params={"fieldSelector": "spec.free=x"})).status_code == 400
        async with watching(world, THINGS, fieldSelector="spec.colour=red") as watcher:
            await world.http.patch(f"{THINGS}/b", json={"spec": {"colour": "red"}}, headers=MERGE)
            assert shown(await watcher.take(2)) == [("ADDED", "r"), ("ADDED", "b")]
        entry = next(one for one in (await world.get("/apis/x.io/v1"))["resources"] if one["name"] == "things")
        assert entry["singularName"] == "one-thing"
        old = await world.http.get(THINGS.replace("/v1/", "/v1beta1/"))
        assert old.headers["warning"] == '299 - "x.io/v1beta1 Thing is deprecated"'
        assert "warning" not in (await world.http.get(THINGS)).headers
        made["spec"]["versions"][1]["deprecationWarning"] = "take v1"
        assert (await world.http.put(f"{CRDS}/things.x.io", json=made)).status_code == 200
        await world.get("/apis")
        assert "take v1" in (await world.http.get(f"{THINGS.replace('/v1/', '/v1beta1/')}/b")).headers["warning"]
        made["spec"]["versions"][0]["selectableFields"] = [{"jsonPath": ".spec.rules[0].name"}]
        refused = await world.http.put(f"{CRDS}/things.x.io", json=made)
        assert refused.json()["details"]["causes"][0]["field"] == "spec.versions[0].selectableFields[0].jsonPath"

    run(tmp_path, check)


def test_misspelt_metadata_is_told_of_too(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        body = thing()
        body["metadata"] |= {"labelz": {"a": "b"}, "ownerReferences": [{"apiVersion": "v1", "kind": "X", "nam": "x"}]}
        for call, path in ((world.http.post, THINGS), (world.http.patch, f"{THINGS}/t")):
            query = {"fieldValidation": "Strict", "fieldManager": "m"}
            strict = await call(path, json=body, params=query, headers=APPLY if path != THINGS else None)
            assert strict.status_code == 400
            assert (
                'unknown field "metadata.labelz", unknown field "metadata.ownerReferences[0].nam"'
                in strict.text.replace("\\", "")
            )
        body["metadata"].pop("ownerReferences")
        made = await world.http.post(THINGS, json=body)
        assert (made.status_code, made.headers["warning"]) == (201, '299 - "unknown field \\"metadata.labelz\\""')

    run(tmp_path, check)


def test_objects_go_with_their_definition(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        collecting = asyncio.create_task(Collector(world.objects, world.store).run())
        await world.make(CRDS, definition())
        await world.make(THINGS, thing())
        async with watching(world, CRDS) as watcher:
            await world.http.delete(f"{CRDS}/things.x.io")
            while (event := await watcher.next()) is not None and event["type"] != "DELETED":
                pass
        assert not (await world.store.list("/x.io/")).records
        assert await world.objects.find(CustomResourceDefinition, "things.x.io") is None
        assert (await world.http.get(THINGS)).status_code == 404
        assert "x.io" not in {group["name"] for group in (await world.get("/apis"))["groups"]}
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)

    run(tmp_path, check)


def test_a_definition_may_grow(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        await world.make(THINGS, thing())
        grown = definition()
        grown["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["more"] = {"type": "string"}
        answer = await world.http.put(f"{CRDS}/things.x.io", json=grown)
        assert answer.status_code == 200, answer.text
        await world.get("/apis")  # a client asks what there is before it uses it
        patched = await world.http.patch(f"{THINGS}/t", json={"more": "x"}, headers=MERGE)
        assert patched.json()["more"] == "x"
        async with watching(world, THINGS) as watcher:
            assert (await watcher.take(1))[0]["object"]["more"] == "x"

    run(tmp_path, check)


def test_watchers_of_a_kind_begin_anew_when_its_definition_has_changed(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        await world.make(THINGS, thing())
        async with watching(world, THINGS) as watcher:
            assert shown(await watcher.take(1)) == [("ADDED", "t")]
            grown = definition()
            grown["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["more"] = {"type": "string"}
            await world.http.put(f"{CRDS}/things.x.io", json=grown)
            await world.get("/apis")
            await world.get(THINGS)
            event = (await watcher.take(1))[0]
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
            assert await watcher.next() is None

    run(tmp_path, check)


def test_appliers_share_a_custom_object_part_by_part(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        url = f"{THINGS}/t?fieldManager="
        made = await world.http.patch(f"{url}one", json=thing(rules=[{"name": "a", "weight": 1}]), headers=APPLY)
        assert made.status_code == 201, made.text
        rules = {"spec": {"rules": [{"name": "b", "weight": 2}], "extra": 1}}  # a part: `size` is somebody else's
        second = await world.http.patch(f"{url}two", json=rules, headers=APPLY)
        assert second.status_code == 200, second.text
        assert "spec.extra" in second.headers["warning"]
        assert second.json()["spec"]["rules"] == [{"name": "b", "weight": 2}, {"name": "a", "weight": 1}]
        assert "extra" not in str(second.json()["metadata"]["managedFields"])
        clash = await world.http.patch(f"{url}two", json={"spec": {"size": 5}}, headers=APPLY)
        assert clash.json()["details"]["causes"][0]["field"] == ".spec.size"
        strict = await world.http.patch(f"{url}two&fieldValidation=Strict", json=rules, headers=APPLY)
        assert strict.status_code == 400
        gone = await world.http.patch(f"{url}two", json={"spec": {}}, headers=APPLY)
        assert gone.json()["spec"]["rules"] == [{"name": "a", "weight": 1}]
        nothing = await world.http.patch(f"{THINGS}/u?fieldManager=two", json=rules, headers=APPLY)
        assert nothing.json()["message"] == 'Thing.x.io "u" is invalid: spec.size: Required value'

    run(tmp_path, check)


def test_a_custom_object_is_scaled_where_its_definition_says(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.seen.count"}
        parts = {"subresources": {"status": {}, "scale": {**scale, "labelSelectorPath": ".status.selector"}}}
        await world.make(CRDS, definition(**parts))
        names = [one["name"] for one in (await world.get("/apis/x.io/v1"))["resources"]]
        assert "things/scale" in names
        await world.make(THINGS, thing())
        status = {"status": {"seen": {"count": 1}, "selector": "a=b"}}
        await world.http.patch(f"{THINGS}/t/status", json=status, headers=MERGE)
        found = await world.get(f"{THINGS}/t/scale")
        assert (found["kind"], found["spec"], found["status"]) == (
            "Scale",
            {"replicas": 2},
            {"replicas": 1, "selector": "a=b"},
        )
        for beta in ("", "v1beta1"):
            path = f"{THINGS.replace('/v1/', f'/{beta}/') if beta else THINGS}/t/scale"
            done = await world.http.patch(path, json={"spec": {"replicas": 5}}, headers=MERGE)
            assert (done.status_code, done.json()["spec"]) == (200, {"replicas": 5})
        assert (await world.get(f"{THINGS}/t"))["spec"]["size"] == 5
        assert (await world.http.put(f"{THINGS}/t/scale", json=found)).status_code == 409, "an old state"
        wrong = await world.http.patch(f"{THINGS}/t/scale", json={"spec": {"replicas": 99}}, headers=MERGE)
        assert wrong.status_code == 422, "its schema says at most 9"
        assert (await world.http.get(f"{THINGS}/none/scale")).status_code == 404
        table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
        (row,) = (await world.http.get(f"{THINGS}/t/scale", headers=table)).json()["rows"]
        assert row["cells"][:3] == ["t", 5, 1]
        part = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
        found = (await world.http.get(f"{THINGS}/t/scale", headers=part)).json()
        assert (found["kind"], found["metadata"]["name"], "spec" in found) == ("PartialObjectMetadata", "t", False)

    run(tmp_path, check)


def test_kubectl_is_not_asked_for_strategic_patches_of_custom_kinds(tmp_path: Path) -> None:
    """With what the document offers it makes the patches of `apply`."""

    async def check(world: World) -> None:
        await world.make(CRDS, definition())
        paths = (await world.get("/openapi/v3/apis/x.io/v1"))["paths"]
        content = paths["/apis/x.io/v1/namespaces/{namespace}/things/{name}"]["patch"]["requestBody"]["content"]
        assert "application/merge-patch+json" in content
        assert "application/strategic-merge-patch+json" not in content
        body = {"spec": {"size": 3}}
        refused = await world.http.patch(
            f"{THINGS}/t", json=body, headers={"content-type": "application/strategic-merge-patch+json"}
        )
        assert refused.status_code in (404, 415)

    run(tmp_path, check)


def test_rules_that_nobody_checks_are_warned_of(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        crd = definition()
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = [
            {"rule": "has(self.spec)"}
        ]
        made = await world.http.post(CRDS, json=crd)
        assert made.status_code == 201, made.text
        assert "rules in CEL (x-kubernetes-validations) are not checked" in made.headers["warning"]

    run(tmp_path, check)
