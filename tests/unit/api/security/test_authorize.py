"""Who may do what: roles over verbs, kinds and namespaces."""

import itertools

import pytest

from korch.api.requestinfo import RequestInfo
from korch.api.security.authorize import Authorizer, refusal
from korch.api.security.users import AUTHENTICATED, MASTERS, Grant, User, describe_groups, grants_of, group_for

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
READS = frozenset(VERBS[:3])
RESOURCES = (  # group, resource, subresource, namespaced
    ("", "pods", "", True),
    ("apps", "deployments", "", True),
    ("apps", "deployments", "scale", True),
    ("apps", "deployments", "status", True),
    ("batch", "jobs", "", True),
    ("example.com", "widgets", "", True),
    ("", "secrets", "", True),
    ("", "configmaps", "", True),
    ("", "resourcequotas", "", True),
    ("", "pods", "log", True),
    ("", "pods", "exec", True),
    ("", "pods", "portforward", True),
    ("", "pods", "eviction", True),
    ("", "pods", "attach", True),
    ("", "pods", "proxy", True),
    ("", "pods", "binding", True),
    ("", "pods", "status", True),
    ("example.com", "pods", "status", True),
    ("", "pods", "ephemeralcontainers", True),
    ("", "serviceaccounts", "token", True),
    ("apps", "replicasets", "scale", True),
    ("", "pods", "nonsense", True),
    ("", "nodes", "", False),
    ("", "nodes", "status", False),
    ("", "namespaces", "", False),
    ("korch.dev", "nodeloads", "", False),
    ("apiextensions.k8s.io", "customresourcedefinitions", "", False),
    ("rbac.authorization.k8s.io", "rolebindings", "", True),
    ("rbac.authorization.k8s.io", "roles", "", True),
    ("rbac.authorization.k8s.io", "clusterroles", "", False),
    ("authentication.k8s.io", "tokenreviews", "", False),
    ("authorization.k8s.io", "subjectaccessreviews", "", False),
    ("authorization.k8s.io", "localsubjectaccessreviews", "", True),
    ("metrics.k8s.io", "pods", "", True),
)
WHO = {
    "nobody": (),
    "admin": (group_for("admin"),),
    "admin-shop": (group_for("admin", "shop"),),
    "edit": (group_for("edit"),),
    "edit-shop": (group_for("edit", "shop"),),
    "view": (group_for("view"),),
    "view-shop": (group_for("view", "shop"),),
    "made-up": ("korch:root", "korch:", "korch:edit:", "korch::shop", "system:mastersx", "admin", "korch:editor:shop"),
}
CASES = list(itertools.product(WHO, VERBS, RESOURCES, ("shop", "bank", "")))


def wanted(who: str, verb: str, resource: tuple[str, str, str, bool], namespace: str) -> bool:
    """The roles in other words than the program's."""
    group, plural, sub, namespaced = resource
    if who in {"nobody", "made-up"}:
        return False
    if who == "admin":
        return True
    role, _, only = who.partition("-")
    if not namespaced and plural != "namespaces":
        namespace = ""  # what is in no namespace is in none that somebody names
    if plural == "namespaces":
        reach = verb in READS and (not only or namespace == only)
    elif only:
        reach = namespaced and namespace == only
    else:
        reach = verb in READS or (namespaced and namespace != "")
    if not reach or (plural == "resourcequotas" and verb not in READS):
        return False
    if (group, plural) == ("", "pods") and sub in {"binding", "status"} and verb not in READS:
        return False
    if role == "admin":
        return True
    if group in {"rbac.authorization.k8s.io", "authorization.k8s.io"} or sub in {"nonsense", "binding"}:
        return False
    if role == "edit":
        return verb in READS or sub not in {"status", "log"}
    return verb in READS and plural != "secrets" and sub in {"", "scale", "status", "log"}


@pytest.mark.parametrize("who", WHO)
def test_the_matrix(who: str) -> None:
    user, seen = User("jane", (*WHO[who], AUTHENTICATED)), 0
    for case in CASES:
        _, verb, resource, namespace = case
        group, plural, sub, _ = resource
        if case[0] != who:
            continue
        name = namespace if plural == "namespaces" else ""
        info = RequestInfo(verb, "", group, "v1", plural, sub, namespace, name)
        assert Authorizer().allowed(user, info)[0] is wanted(*case), (case, info)
        seen += 1
    assert seen > 300


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("star", [("*", "", "pods"), ("get", "*", "pods"), ("get", "", "*"), ("delete", "*", "*")])
def test_all_of_something_is_what_only_an_admin_of_all_has(who: str, star: tuple[str, str, str]) -> None:
    verb, group, resource = star
    info = RequestInfo(verb, "", group, "v1", resource, namespace="shop")
    assert Authorizer().allowed(User("jane", WHO[who]), info)[0] is (who == "admin")


@pytest.mark.parametrize(
    ("path", "verb", "who", "allowed"),
    [
        ("/api", "get", "nobody", True),
        ("/apis/apps/v1", "get", "nobody", True),
        ("/openapi/v3", "get", "view-shop", True),
        ("/openapi", "post", "view-shop", False),
        ("/metrics", "get", "edit", False),
        ("/metrics", "get", "admin-shop", False),
        ("/metrics", "get", "admin", True),
        ("/apisecret", "get", "edit", False),
    ],
)
def test_paths(path: str, verb: str, who: str, allowed: bool) -> None:
    user = User("jane", (*WHO[who], AUTHENTICATED))
    assert Authorizer().allowed(user, RequestInfo(verb, path))[0] is allowed


@pytest.mark.parametrize("resource", ["selfsubjectaccessreviews", "selfsubjectrulesreviews"])
def test_everybody_may_ask_about_themselves(resource: str) -> None:
    info = RequestInfo("create", "", "authorization.k8s.io", "v1", resource)
    assert Authorizer().allowed(User("jane"), info)[0]
    assert not Authorizer().allowed(User("jane"), RequestInfo("create", "", "evil.example", "v1", resource))[0]


@pytest.mark.parametrize("who", WHO)
def test_the_rules_that_are_shown_are_those_that_count(who: str) -> None:
    user = User("jane", (*WHO[who], AUTHENTICATED))
    for rule in Authorizer().rules(user, "shop"):
        for verb, group, word in itertools.product(rule.verbs, rule.groups, rule.resources):
            plural, _, sub = word.partition("/")
            namespace = "" if plural in {"nodes", "namespaces", "nodeloads"} else "shop"
            info = RequestInfo(verb, "", group, "v1", plural, sub, namespace, "".join(rule.names))
            assert Authorizer().allowed(user, info)[0], (rule, info)
    shown = {word for rule in Authorizer().rules(user, "shop") for word in rule.resources}
    assert ("secrets" in shown or "*" in shown) is (who.partition("-")[0] in {"admin", "edit"})


def test_groups_and_roles() -> None:
    assert grants_of((MASTERS, "korch:view:shop", "x")) == (Grant("admin", ""), Grant("view", "shop"))
    assert describe_groups(("korch:edit:shop", "korch:view")) == "edit in shop, view"
    assert group_for("admin") == "system:masters"


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (
            RequestInfo("list", "", "", "v1", "pods", namespace="default"),
            'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"',
        ),
        (
            RequestInfo("patch", "", "apps", "v1", "deployments", "scale", "shop", "web"),
            'deployments.apps "web" is forbidden: User "jane" cannot patch resource "deployments/scale" in API group'
            ' "apps" in the namespace "shop"',
        ),
        (
            RequestInfo("list", "", "", "v1", "nodes"),
            'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope',
        ),
        (RequestInfo("get", "/metrics"), 'forbidden: User "jane" cannot get path "/metrics"'),
    ],
)
def test_a_refusal_in_kubernetes_words(info: RequestInfo, text: str) -> None:
    assert refusal(User("jane"), info) == text
