"""korch's own roles as ClusterRoles: what they say is what is let through, and nobody writes them."""

import asyncio
import itertools
from pathlib import Path

import pytest

from korch.api import registry
from korch.api.requestinfo import RequestInfo
from korch.api.security.authorize import Authorizer
from korch.api.security.ownroles import own_roles
from korch.api.security.rbac import GROUP, OWN, Policy
from korch.api.security.users import AUTHENTICATED, User
from korch.resources.meta import LabelSelector, ObjectMeta
from korch.resources.rbac import AggregationRule, ClusterRole
from tests.unit.api.security.test_rbac import bound
from tests.unit.api.security.test_whole import whole
from tests.unit.api.test_customs import definition

JANE = User("jane", (AUTHENTICATED,))
ROLES = {role.metadata.name: role for role in own_roles()}
PATHS = ("/version", "/metrics", "/api")
CLUSTERROLES = f"/apis/{GROUP}/v1/clusterroles"


def asked() -> list[RequestInfo]:
    """All that can be asked for: with a name, and in all namespaces where that can be."""
    found = [RequestInfo("get", path) for path in PATHS]
    for served, space in itertools.product(registry.everything(), ("", "shop", "bank")):
        for verb in served.verbs:
            if space and not served.namespaced:
                continue
            if served.namespaced and not space and verb not in {"list", "watch"}:
                continue
            names = ("", "shop", "x") if served.plural == "namespaces" else ("x",)
            for name in names:
                found.append(RequestInfo(verb, "", served.group, "v1", served.plural, served.part, space, name))
    return found


PLACES = [(name, space) for name in sorted(OWN) for space in ("", "shop") if (name, space) != ("cluster-admin", "shop")]


@pytest.mark.parametrize(("name", "space"), PLACES)
def test_a_role_with_these_rules_is_that_role(name: str, space: str) -> None:
    """Bound everywhere, and in one namespace; there `cluster-admin` is `admin`, as it says of itself."""
    copy = ClusterRole(metadata=ObjectMeta(name="copy"), rules=ROLES[name].rules)
    real = Authorizer(Policy(bindings=[bound("ClusterRole", name, space)]))
    told = Authorizer(Policy(cluster_roles=[copy], bindings=[bound("ClusterRole", "copy", space)]))
    everything = asked()
    assert len(everything) > 600
    for info in everything:
        assert told.allowed(JANE, info)[0] is real.allowed(JANE, info)[0], info


def test_none_of_them_becomes_a_part_of_another() -> None:
    """Roles are put together by labels, and these have one."""
    every = AggregationRule(cluster_role_selectors=(LabelSelector(),))
    mine = ClusterRole(metadata=ObjectMeta(name="mine"), aggregation_rule=every)
    policy = Policy(cluster_roles=[*ROLES.values(), mine], bindings=[bound("ClusterRole", "mine")])
    assert not Authorizer(policy).allowed(JANE, RequestInfo("get", "", "", "v1", "nodes"))[0]


def test_they_are_read_like_others_and_nobody_writes_them(tmp_path: Path) -> None:
    own = sorted(OWN)

    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin") as http:
            made = {"metadata": {"name": "mine"}, "rules": []}
            assert (await http.post(CLUSTERROLES, json=made)).status_code == 201
            listed = (await http.get(CLUSTERROLES)).json()["items"]
            assert [one["metadata"]["name"] for one in listed] == sorted([*own, "mine"])
            view = (await http.get(f"{CLUSTERROLES}/view")).json()
            assert view in [{"kind": "ClusterRole", "apiVersion": f"{GROUP}/v1", **one} for one in listed]
            chosen = (await http.get(CLUSTERROLES, params={"fieldSelector": "metadata.name=edit"})).json()["items"]
            assert [one["metadata"]["name"] for one in chosen] == ["edit"]
            watched = await http.get(CLUSTERROLES, params={"watch": "1", "timeoutSeconds": "1"})
            assert watched.text.count('"ADDED"') == 5
            for method, body in (
                ("PUT", view),
                ("PATCH", {"metadata": {"labels": {"a": "b"}}}),
                ("DELETE", {}),
            ):
                answer = await http.request(method, f"{CLUSTERROLES}/view", json=body)
                assert answer.status_code == 403
                assert "can be bound, and not be written" in answer.json()["message"], (method, answer.text)
            again = await http.post(CLUSTERROLES, json={"metadata": {"name": "view"}, "rules": []})
            assert again.status_code == 403
            assert "can be bound, and not be written" in again.json()["message"]
            gone = (await http.delete(CLUSTERROLES)).json()["items"]
            assert [one["metadata"]["name"] for one in gone] == ["mine"]
            left = (await http.get(CLUSTERROLES)).json()["items"]
            assert [one["metadata"]["name"] for one in left] == own

    asyncio.run(main())


def test_custom_kinds_are_in_them_from_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin") as http:
            before = (await http.get(f"{CLUSTERROLES}/view")).json()["rules"]
            made = await http.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition())
            assert made.status_code == 201, made.text
            after = (await http.get(f"{CLUSTERROLES}/view")).json()["rules"]
            assert (await http.get(CLUSTERROLES)).json()["items"][-1]["rules"] == after
            new = [rule for rule in after if rule not in before]
            assert new
            assert {group for rule in new for group in rule["apiGroups"]} == {definition()["spec"]["group"]}

    asyncio.run(main())


def test_in_all_namespaces_at_once_an_admin_of_each_of_them_may_look() -> None:
    authorizer = Authorizer(Policy(bindings=[bound("ClusterRole", "admin")]))
    for verb, resource, wanted in (
        *(("list", "pods", True), ("list", "namespaces", True), ("deletecollection", "pods", False)),
        *(("list", "nodes", False), ("list", "nodeloads", False), ("get", "looks", False), ("create", "acts", False)),
    ):
        group = "korch.dev" if resource in {"nodeloads", "looks", "acts"} else ""
        assert authorizer.allowed(JANE, RequestInfo(verb, "", group, "v1", resource))[0] is wanted, resource
