"""Roles and bindings as objects: what they grant, and that nobody grants what they have not."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.requestinfo import RequestInfo
from korch.api.security.authorize import Authorizer
from korch.api.security.rbac import GROUP, Binding, Policy, allows
from korch.api.security.users import AUTHENTICATED, ROLES, User, group_for
from korch.errors import ForbiddenError
from korch.resources.meta import LabelSelector, ObjectMeta
from korch.resources.rbac import (
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
    Subject,
)
from tests.unit.api.security.test_whole import Site, refused, whole

JANE = User("jane", (AUTHENTICATED, "team"))
SPACES = ("shop", "bank")
WORDS = {
    "verbs": ("get", "create", "*"),
    "api_groups": ("", "apps", "*"),
    "resources": ("pods", "secrets", "pods/log", "*", "*/log"),
    "resource_names": ("a",),
}


def some(words: tuple[str, ...], least: int = 1) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), min_size=least, max_size=2, unique=True).map(tuple)


RULES = st.lists(
    st.builds(PolicyRule, **{name: some(words, 0 if name == "resource_names" else 1) for name, words in WORDS.items()}),
    max_size=2,
).map(tuple)
ASKED = [
    RequestInfo(verb, "", group, "v1", *resource.partition("/")[::2], namespace, name)
    for verb, group, resource, namespace, name in itertools.product(
        ("get", "create", "delete"), ("", "apps"), ("pods", "pods/log", "secrets"), ("", *SPACES), ("", "a", "b")
    )
]


def meta(name: str, namespace: str = "", **labels: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace=namespace, labels=labels)


def bound(kind: str, name: str, namespace: str = "", subject: Subject | None = None) -> Binding:
    ref = RoleRef(kind=kind, name=name, api_group=GROUP)
    to = (subject or Subject(kind="User", name="jane"),)
    if namespace:
        return RoleBinding(metadata=meta("b", namespace), role_ref=ref, subjects=to)
    return ClusterRoleBinding(metadata=meta("b"), role_ref=ref, subjects=to)


@st.composite
def policies(draw: st.DrawFn) -> tuple[list[Role], list[ClusterRole], list[Binding]]:
    roles = [Role(metadata=meta("r", space), rules=draw(RULES)) for space in SPACES]
    cluster = [ClusterRole(metadata=meta(name), rules=draw(RULES)) for name in ("c", "d")]
    to = st.sampled_from(
        [
            Subject(kind="User", name="jane"),
            Subject(kind="Group", name="team"),
            Subject(kind="User", name="tom"),
            Subject(kind="ServiceAccount", name="jane", namespace="shop"),
        ]
    )
    places = st.sampled_from(
        [*(("Role", "r", space) for space in SPACES), *(("ClusterRole", "c", space) for space in ("", *SPACES))]
    )
    bindings = [bound(*draw(places), draw(to)) for _ in range(draw(st.integers(0, 3)))]
    return roles, cluster, bindings


def expected(parts: tuple[list[Role], list[ClusterRole], list[Binding]], info: RequestInfo) -> bool:
    """In other words than the program's."""
    roles, cluster, bindings = parts
    for binding in bindings:
        space = binding.metadata.namespace
        if space and space != info.namespace:
            continue
        if not any((s.kind, s.name) in {("User", "jane"), ("Group", "team")} for s in binding.subjects):
            continue
        where: list[Any] = cluster if binding.role_ref.kind == "ClusterRole" else roles
        for role in where:
            if role.metadata.name != binding.role_ref.name or role.metadata.namespace not in {"", space}:
                continue
            for rule in role.rules:
                whole_name = info.resource + (f"/{info.subresource}" if info.subresource else "")
                wanted = {whole_name, "*"} | ({"*/log"} if info.subresource == "log" else set())
                if (
                    {info.verb, "*"} & set(rule.verbs)
                    and {info.group, "*"} & set(rule.api_groups)
                    and wanted & set(rule.resources)
                    and (not rule.resource_names or info.name in rule.resource_names)
                ):
                    return True
    return False


@settings(max_examples=80, deadline=None)
@given(policies())
def test_what_is_granted_is_what_the_rules_say(parts: tuple[list[Role], list[ClusterRole], list[Binding]]) -> None:
    authorizer = Authorizer(Policy(*parts))
    for info in ASKED:
        assert authorizer.allowed(JANE, info)[0] is expected(parts, info), info


@settings(max_examples=30, deadline=None)
@given(policies(), st.sampled_from(["", "view", "edit"]))
def test_the_list_shows_what_is_allowed_and_nothing_else(
    parts: tuple[list[Role], list[ClusterRole], list[Binding]], own: str
) -> None:
    roles, cluster, bindings = parts
    more = [bound("ClusterRole", own, "shop")] if own else []
    authorizer = Authorizer(Policy(roles, cluster, [*bindings, *more]))
    shown = [
        PolicyRule(verbs=rule.verbs, api_groups=rule.groups, resources=rule.resources, resource_names=rule.names)
        for rule in authorizer.rules(JANE, "shop")
    ]
    for info in ASKED:
        if info.namespace == "shop" and not (
            own and info.group
        ):  # of roles of its own it shows the kinds that there are
            assert any(allows(rule, info) for rule in shown) is authorizer.allowed(JANE, info)[0], info


@settings(max_examples=120, deadline=None)
@given(policies(), RULES, st.sampled_from(["", *SPACES]), st.booleans())
def test_nobody_gains_by_what_they_may_write_themselves(
    parts: tuple[list[Role], list[ClusterRole], list[Binding]], rules: tuple[PolicyRule, ...], space: str, new: bool
) -> None:
    """Every Role and binding that passes the check leaves its writer with what they had."""
    roles, cluster, bindings = parts
    before = Authorizer(Policy(roles, cluster, bindings))
    wish: Role | ClusterRole
    if space:
        wish = Role(metadata=meta("r", space), rules=rules)
        roles = [*(role for role in roles if role.metadata.namespace != space), wish] if new else roles
    else:
        wish = ClusterRole(metadata=meta("c"), rules=rules)
        cluster = [wish, cluster[1]] if new else cluster
    try:
        if new:
            before.check_grant(JANE, wish, None)
        between = Authorizer(Policy(roles, cluster, bindings))
        mine = bound("Role" if space else "ClusterRole", "r" if space else "d", space)
        between.check_grant(JANE, mine, None)
    except ForbiddenError:
        return
    after = Authorizer(Policy(roles, cluster, [*bindings, mine]))
    gained = [info for info in ASKED if after.allowed(JANE, info)[0] and not before.allowed(JANE, info)[0]]
    assert not gained


@pytest.mark.parametrize("namespace", ["", "shop"])
@pytest.mark.parametrize("role", ["cluster-admin", *ROLES])
def test_the_names_that_everybody_binds_are_korchs_own_roles(role: str, namespace: str) -> None:
    authorizer = Authorizer(Policy(bindings=[bound("ClusterRole", role, namespace)]))
    own = Authorizer()
    same = User("x", (group_for("admin" if role == "cluster-admin" else role, namespace),))  # type: ignore[arg-type]
    asked = [*ASKED, *(RequestInfo(verb, "", "", "v1", "nodes") for verb in ("get", "delete"))]
    asked += [RequestInfo("get", "/metrics")]
    for info in asked:
        wanted = own.allowed(same, info)[0]
        if role == "admin" and not namespace:  # in every namespace, as in Kubernetes, and not of the cluster
            all_at_once = info.verb == "get" and not info.group and info.resource != "nodes"
            wanted = info.namespace != "" or (info.is_resource and all_at_once)
        assert authorizer.allowed(JANE, info)[0] is wanted, info


def test_a_namespaces_admin_gives_no_star_that_holds_its_quota() -> None:
    boss = User("boss", (group_for("admin", "shop"),))
    for words, fits in ((("pods", "secrets"), True), (("*",), False), (("resourcequotas",), False)):
        rule = PolicyRule(verbs=("get", "update"), api_groups=("",), resources=words)
        role = Role(metadata=meta("r", "shop"), rules=(rule,))
        if fits:
            Authorizer().check_grant(boss, role, None)
        else:
            with pytest.raises(ForbiddenError, match="more than they have"):
                Authorizer().check_grant(boss, role, None)


def test_who_may_bind_a_role_of_the_cluster_in_a_namespace_may_do_so_there_only() -> None:
    """As Kubernetes' documentation has it: a Role with the verb `bind` on clusterroles, and their names."""
    rule = PolicyRule(verbs=("bind",), api_groups=(GROUP,), resources=("clusterroles",), resource_names=("c",))
    nodes = PolicyRule(verbs=("get",), api_groups=("",), resources=("nodes",))
    given = [bound("Role", "r", "shop"), bound("ClusterRole", "d", "shop")]
    cluster = [ClusterRole(metadata=meta(name), rules=(nodes,)) for name in ("c", "d", "e")]
    authorizer = Authorizer(Policy([Role(metadata=meta("r", "shop"), rules=(rule,))], cluster, given))
    for name in ("c", "d"):  # one that they may bind, and one that they have
        authorizer.check_grant(JANE, bound("ClusterRole", name, "shop"), None)
    for name, space in (("c", "bank"), ("c", ""), ("e", "bank"), ("d", "bank"), ("d", "")):
        with pytest.raises(ForbiddenError):
            authorizer.check_grant(JANE, bound("ClusterRole", name, space), None)
    for space in ("", "shop"):
        assert not authorizer.allowed(JANE, RequestInfo("get", "", "", "v1", "nodes", "", space, "n"))[0]


def test_nobody_makes_a_role_that_is_more_than_theirs_a_part_of_theirs() -> None:
    """By its labels a ClusterRole gets into those that are put together."""
    rule = PolicyRule(verbs=("get",), api_groups=("",), resources=("secrets",))
    writer = PolicyRule(verbs=("update",), api_groups=(GROUP,), resources=("clusterroles",))
    by = AggregationRule(cluster_role_selectors=(LabelSelector(match_labels={"into": "all"}),))
    strong = ClusterRole(metadata=meta("strong"), rules=(rule,))
    mine = ClusterRole(metadata=meta("mine", into="all"), rules=(writer,))
    together = ClusterRole(metadata=meta("together"), aggregation_rule=by)
    authorizer = Authorizer(Policy((), (strong, mine, together), [bound("ClusterRole", "together")]))
    labelled = ClusterRole(metadata=meta("strong", into="all"), rules=(rule,))
    with pytest.raises(ForbiddenError, match="more than they have"):
        authorizer.check_grant(JANE, labelled, strong)
    noted = ClusterRole(metadata=ObjectMeta(name="strong", annotations={"a": "b"}), rules=(rule,))
    authorizer.check_grant(JANE, noted, strong)
    with pytest.raises(ForbiddenError, match="put together"):
        authorizer.check_grant(JANE, ClusterRole(metadata=meta("new"), aggregation_rule=by), None)


def test_roles_are_put_together_by_label_and_paths_are_granted() -> None:
    rule = PolicyRule(verbs=("get",), api_groups=("",), resources=("pods",))
    part = ClusterRole(metadata=meta("part", into="all"), rules=(rule,))
    by = AggregationRule(cluster_role_selectors=(LabelSelector(match_labels={"into": "all"}),))
    together = ClusterRole(metadata=meta("together"), aggregation_rule=by)
    paths = PolicyRule(verbs=("get",), non_resource_urls=("/metrics/*", "/logs"))
    seer = ClusterRole(metadata=meta("seer"), rules=(paths,))
    bindings = [bound("ClusterRole", "together"), bound("ClusterRole", "seer"), bound("ClusterRole", "none")]
    authorizer = Authorizer(Policy((), (part, together, seer), bindings))
    assert authorizer.allowed(JANE, RequestInfo("get", "", "", "v1", "pods", "", "shop"))[0]
    for path, allowed in (("/metrics/a", True), ("/logs", True), ("/logs/a", False), ("/metrics", False)):
        assert authorizer.allowed(JANE, RequestInfo("get", path))[0] is allowed
    here = Authorizer(Policy((), (seer,), [bound("ClusterRole", "seer", "shop")]))
    assert not here.allowed(JANE, RequestInfo("get", "/logs"))[0], "paths are of no namespace"


# --- over HTTP ---

ROLEBINDINGS = f"/apis/{GROUP}/v1/namespaces/shop/rolebindings"
LOOKER = {"metadata": {"name": "looker"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}


def binding(name: str, kind: str, role: str, subject: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
        "subjects": [subject],
    }


async def as_account(site: Site, name: str) -> Any:
    """A client with a token of a service account in shop."""
    async with await site.client("admin") as admin:
        accounts = "/api/v1/namespaces/shop/serviceaccounts"
        await admin.post(accounts, json={"metadata": {"name": name}})
        made = await admin.post(f"{accounts}/{name}/token", json={})
    http = await site.client("view")
    http.headers["Authorization"] = f"Bearer {made.json()['status']['token']}"
    return http


def test_a_service_account_has_what_is_bound_to_it_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin", "shop") as boss:
            bot = await as_account(site, "bot")
            pods = "/api/v1/namespaces/shop/pods"
            assert (await bot.get(f"{pods}/x")).status_code == 403
            made = await boss.post(ROLEBINDINGS.replace("rolebindings", "roles"), json=LOOKER)
            assert (made.status_code, "warning" in made.headers) == (201, False)
            subject = {"kind": "ServiceAccount", "name": "bot", "namespace": "shop"}
            await boss.post(ROLEBINDINGS, json=binding("b", "Role", "looker", subject))
            assert (await bot.get(f"{pods}/x")).status_code == 404, "at once"
            assert (await bot.get(pods)).status_code == 403
            assert (await bot.get(f"{pods.replace('shop', 'bank')}/x")).status_code == 403
            path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
            rules = (await bot.post(path, json={"spec": {"namespace": "shop"}})).json()["status"]["resourceRules"]
            assert {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]} in rules
            await boss.delete(f"{ROLEBINDINGS}/b")
            assert (await bot.get(f"{pods}/x")).status_code == 403
            await bot.aclose()

    asyncio.run(main())


def test_who_may_write_roles_gives_no_more_than_they_have(tmp_path: Path) -> None:
    """By no way of writing, in korch's own role `admin` of a namespace as with rules that were bound."""
    greedy = {"metadata": {"name": "r"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}
    modest = {"metadata": {"name": "r"}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]}
    path = f"/apis/{GROUP}/v1/namespaces/shop/roles"

    async def tries(http: Any, *roles: tuple[str, str]) -> None:
        patch = [{"op": "replace", "path": "/rules", "value": greedy["rules"]}]
        ways: list[tuple[str, str, str, Any]] = [
            ("POST", "", "application/json", {**greedy, "metadata": {"name": "new"}}),
            ("PUT", "/r", "application/json", greedy),
            ("PATCH", "/r", "application/json-patch+json", patch),
            ("PATCH", "/r", "application/merge-patch+json", {"rules": greedy["rules"]}),
            ("PATCH", "/r", "application/strategic-merge-patch+json", {"rules": greedy["rules"]}),
            ("PATCH", "/r?fieldManager=m&force=true", "application/apply-patch+yaml", greedy),
            ("PATCH", "/s?fieldManager=m", "application/apply-patch+yaml", {**greedy, "metadata": {"name": "s"}}),
        ]
        for method, tail, media, body in ways:
            answer = await http.request(method, path + tail, json=body, headers={"Content-Type": media})
            assert (answer.status_code, "grant more" in answer.text) == (403, True), (method, media, answer.text)
        mine = {"kind": "User", "name": "tom"}
        for kind, role in (("ClusterRole", "none"), ("Role", "none"), *roles):
            answer = await http.post(ROLEBINDINGS, json=binding("b", kind, role, mine))
            assert answer.status_code == 403, answer.text
        renamed = await http.patch(
            f"{path}/r",
            json={"metadata": {"labels": {"a": "b"}}},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert renamed.status_code == 200, "what grants nothing new may be written"

    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin") as root:
            await root.post(path, json=modest)
            writer = {"verbs": ["*"], "apiGroups": [GROUP], "resources": ["roles", "rolebindings"]}
            reader = {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}
            await root.post(path, json={"metadata": {"name": "writer"}, "rules": [writer, reader]})
            # `*` among its verbs holds `escalate` and `bind` too: name them one by one
            verbs = ["get", "create", "update", "patch", "delete"]
            await root.put(
                f"{path}/writer", json={"metadata": {"name": "writer"}, "rules": [{**writer, "verbs": verbs}, reader]}
            )
            subject = {"kind": "ServiceAccount", "name": "bot", "namespace": "shop"}
            assert (await root.post(ROLEBINDINGS, json=binding("w", "Role", "writer", subject))).status_code == 201
            bot = await as_account(site, "bot")
            await tries(bot, ("ClusterRole", "cluster-admin"), ("ClusterRole", "view"))
            assert (await bot.put(f"{path}/r", json=modest)).status_code == 200
            await bot.aclose()
            async with await site.client("admin", "shop") as boss:
                await tries(boss)
                jane = {"kind": "User", "name": "jane"}
                assert (
                    await boss.post(ROLEBINDINGS, json=binding("v", "ClusterRole", "view", jane))
                ).status_code == 201
            own = {"metadata": {"name": "view"}, "rules": []}
            assert (await root.post(f"/apis/{GROUP}/v1/clusterroles", json=own)).status_code == 403
            async with await site.client("edit", "shop") as other:
                assert refused(await other.post(ROLEBINDINGS, json={}))

    asyncio.run(main())


def test_who_may_only_change_makes_nothing_by_an_apply(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin", "shop") as boss:
            bot = await as_account(site, "bot")
            rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}
            role = {"metadata": {"name": "looker"}, "rules": [rule]}
            await boss.post(ROLEBINDINGS.replace("rolebindings", "roles"), json=role)
            subject = {"kind": "ServiceAccount", "name": "bot", "namespace": "shop"}
            assert (await boss.post(ROLEBINDINGS, json=binding("b", "Role", "looker", subject))).status_code == 201
            path = "/api/v1/namespaces/shop/configmaps/c"
            wish = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}
            how = {"headers": {"content-type": "application/apply-patch+yaml"}, "params": {"fieldManager": "m"}}
            answer = await bot.patch(path, json=wish, **how)
            assert (answer.status_code, "not create" in answer.json()["message"]) == (403, True)
            assert (await boss.get(path)).status_code == 404
            assert (await boss.patch(path, json=wish, **how)).status_code == 201
            wish["data"] = {"a": "c"}
            changed = await bot.patch(path, json=wish, **how)
            assert (changed.status_code, changed.json()["data"]) == (200, {"a": "c"})

    asyncio.run(main())
