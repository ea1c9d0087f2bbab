"""No custom kind leads to what the cluster keeps for itself, however its definition came into the store."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from korch.api import registry
from korch.api.security.credentials import PREFIX
from korch.controllers.collector import Collector
from korch.resources import kinds
from korch.resources.codec import from_dict
from korch.resources.crd import CustomResourceDefinition
from korch.resources.customs import custom
from korch.resources.kinds import CONFIGMAP, CRD, Kind
from korch.resources.meta import Object
from tests.unit.api.security.test_whole import Site, whole

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROLES = "/apis/rbac.authorization.k8s.io/v1"
RECORD = ("id", "user", "groups", "created", "expires", "digest")
APPROVED = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/x/pull/1"}


ANY = {"x-kubernetes-preserve-unknown-fields": True}


def definition(name: str, schema: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    plural, _, group = name.partition(".")
    schema = schema or {"type": "object", "properties": dict.fromkeys(RECORD, ANY)}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": plural, "singular": plural.removesuffix("s"), "kind": "token"}
    spec = {"group": group, "scope": "Cluster", "names": names, "versions": [version]}
    return {"kind": "CustomResourceDefinition", "metadata": {"name": name, **meta}, "spec": spec}


def stored(name: str, **meta: Any) -> CustomResourceDefinition:
    data = {"apiVersion": CRD.api_version, **definition(name, uid=f"uid-{name}", **meta)}
    found = from_dict(CRD, data)
    assert isinstance(found, CustomResourceDefinition)
    return found


async def forge(site: Site) -> int:
    """What somebody does who may write definitions and objects of one of them: the status of a request as an admin."""
    rules = [{"apiGroups": ["korch.dev"], "resources": ["credentials"], "verbs": ["*"]}]
    rules.append({"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["*"]})
    bound = {"name": "x", "kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io"}
    subjects = [{"kind": "User", "name": "tom", "apiGroup": "rbac.authorization.k8s.io"}]
    async with await site.client("admin") as admin:
        await admin.post(f"{ROLES}/clusterroles", json={"metadata": {"name": "x"}, "rules": rules})
        binding = {"metadata": {"name": "x"}, "roleRef": bound, "subjects": subjects}
        await admin.post(f"{ROLES}/clusterrolebindings", json=binding)
    async with await site.client("view", "shop") as http:
        await http.post(CRDS, json=definition("credentials.korch.dev"))
        id_, secret = "0123456789ab", "5" * 64
        record = {"id": id_, "user": "eve", "groups": ["system:masters"], "created": 0, "expires": 9e9}
        record |= {"kind": "token", "apiVersion": "korch.dev/v1", "metadata": {"name": id_}}
        record["digest"] = hashlib.sha256(secret.encode()).hexdigest()
        await http.post("/apis/korch.dev/v1/credentials", json=record)
        await http.get("/apis/korch.dev/v1/credentials")
        http.headers["Authorization"] = f"Bearer korch_{id_}_{secret}"
        return (await http.get("/api/v1/secrets")).status_code


@pytest.mark.parametrize("restored", [False, True])
def test_nobody_makes_a_credential_as_an_object(tmp_path: Path, restored: bool) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site:
            if restored:
                await site.objects.restore(stored("credentials.korch.dev"))
            assert await forge(site) == 401
            async with await site.client("admin") as admin:
                assert (await admin.get("/apis/korch.dev/v1/credentials")).status_code == 404

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "meta", "problem"),
    [
        ("credentials.korch.dev", {}, "korch.dev"),
        ("wishes.korch.dev", {}, "korch.dev"),
        ("nodeloads.korch.dev", {}, "korch.dev"),
        ("ingresses.networking.k8s.io", {"annotations": APPROVED}, "networking.k8s.io"),
        ("gadgets.rbac.authorization.k8s.io", {"annotations": APPROVED}, "rbac"),
        ("selfsubjectaccessreviews.authorization.k8s.io", {"annotations": APPROVED}, "authorization"),
        ("pods.metrics.k8s.io", {"annotations": APPROVED}, "metrics"),
        ("gateways.gateway.networking.k8s.io", {}, "api-approved.kubernetes.io"),
        ("gateways.gateway.networking.k8s.io", {"annotations": {"api-approved.kubernetes.io": "me"}}, "api-approved"),
        ("gateways.gateway.networking.k8s.io", {"annotations": APPROVED}, ""),
        (
            "volumesnapshots.snapshot.storage.k8s.io",
            {"annotations": {"api-approved.kubernetes.io": "unapproved, experimental-only"}},
            "",
        ),
        ("things.k8s.io", {}, "api-approved.kubernetes.io"),
        ("things.kubernetes.io", {}, "api-approved.kubernetes.io"),
        ("queues.kueue.x-k8s.io", {}, ""),
        ("things.ops.korch.dev", {}, ""),
        ("pods.core", {}, "needs a dot"),
    ],
)
def test_groups_that_are_taken_are_refused(tmp_path: Path, name: str, meta: dict[str, Any], problem: str) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin") as http:
            answer = await http.post(CRDS, json=definition(name, **meta))
            assert answer.status_code == (422 if problem else 201), answer.text
            assert problem in answer.json().get("message", "")

    asyncio.run(main())


def test_no_definition_stands_for_a_group_that_the_api_answers_in() -> None:
    taken = {group for group in registry.groups() if group}
    assert len(taken) > 10
    for group in taken:
        assert custom(stored(f"things.{group}")) is None, group
        with pytest.raises(ValueError, match="group"):
            kinds.registered(group, "things", 0, lambda group=group: Kind(group, "v1", "Thing", "things", True, Object))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("group", "plural"), [("korch.dev", "credentials"), ("korch.dev/leads", "x"), ("x.io", "a/b"), ("x.io", "..")]
)
def test_no_kind_has_a_key_outside_of_its_own(group: str, plural: str) -> None:
    with pytest.raises(ValueError, match="no kind"):
        Kind(group, "v1", "Thing", plural, True, Object)


def test_what_cannot_be_read_stops_no_collector(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a damaged object, nor a definition that was stored before its group was refused."""

    async def main() -> None:
        async with whole(tmp_path) as site:
            await site.objects.restore(stored("credentials.korch.dev"))
            await site.store.put(CONFIGMAP.key("shop", "broken"), b"{}", expect=0)
            await site.store.put(CRD.key("", "things.x.io"), b"{}", expect=0)
            await site.objects.restore(stored("odd.x.io", schema={"type": "object", "properties": 5}))
            collector = asyncio.create_task(Collector(site.objects, site.store).run())
            async with await site.client("admin") as admin, await site.client("view") as viewer:
                spaces = "/api/v1/namespaces"
                await site.store.put(CONFIGMAP.key("shop", "other"), b"[]", expect=0)
                await admin.post(spaces, json={"metadata": {"name": "gone"}})
                await admin.post(f"{spaces}/gone/configmaps", json={"metadata": {"name": "x"}})
                await admin.delete(f"{spaces}/gone")
                await admin.delete(f"{CRDS}/credentials.korch.dev")
                async with asyncio.timeout(20):
                    for path in (f"{spaces}/gone", f"{CRDS}/credentials.korch.dev"):
                        while (await admin.get(path)).status_code != 404:
                            assert not collector.done()
                            await asyncio.sleep(0.02)
                assert (await viewer.get(spaces)).status_code == 200, "the credentials are still there"
            assert len((await site.store.list(PREFIX)).records) == 2
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)

    asyncio.run(main())
    assert "configmaps/shop/broken" in caplog.text
    assert "configmaps/shop/other" in caplog.text


def test_a_definition_that_goes_takes_no_objects_of_a_built_in_kind_along(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site:
            await site.objects.restore(stored("clusterroles.rbac.authorization.k8s.io"))
            collector = asyncio.create_task(Collector(site.objects, site.store).run())
            async with await site.client("admin") as admin:
                role = {
                    "metadata": {"name": "x"},
                    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
                }
                await admin.post(f"{ROLES}/clusterroles", json=role)
                await admin.delete(f"{CRDS}/clusterroles.rbac.authorization.k8s.io")
                async with asyncio.timeout(20):
                    while (await admin.get(f"{CRDS}/clusterroles.rbac.authorization.k8s.io")).status_code != 404:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                assert (await admin.get(f"{ROLES}/clusterroles/x")).status_code == 200
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)

    asyncio.run(main())


def test_whether_a_custom_kind_is_in_namespaces_counts_for_who_may_what(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("edit", "shop") as http:
            async with await site.client("admin") as admin:
                assert (await admin.post(CRDS, json=definition("things.x.io"))).status_code == 201
            asked = {"verb": "create", "group": "x.io", "resource": "things", "namespace": "shop"}
            review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            answer = await http.post(review, json={"spec": {"resourceAttributes": asked}})
            assert answer.json()["status"] == {"allowed": False}
            for path in ("/apis/x.io/v1/things", "/apis/x.io/v1/namespaces/shop/things"):
                assert (await http.post(path, json={"metadata": {"name": "t"}})).status_code == 403

    asyncio.run(main())
