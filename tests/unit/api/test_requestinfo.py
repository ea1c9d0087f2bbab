"""What a request wants, from its method, path and query."""

import pytest

from korch.api.requestinfo import RequestInfo, request_info

CORE = "/api/v1"
APPS = "/apis/apps/v1"


@pytest.mark.parametrize(
    ("method", "path", "query", "wanted"),
    [
        ("GET", f"{CORE}/pods", {}, RequestInfo("list", f"{CORE}/pods", "", "v1", "pods")),
        ("GET", f"{CORE}/pods", {"watch": "1"}, RequestInfo("watch", f"{CORE}/pods", "", "v1", "pods")),
        ("GET", f"{CORE}/pods", {"watch": "True"}, RequestInfo("watch", f"{CORE}/pods", "", "v1", "pods")),
        ("GET", f"{CORE}/pods", {"watch": "false"}, RequestInfo("list", f"{CORE}/pods", "", "v1", "pods")),
        ("GET", f"{CORE}/nodes/a/", {}, RequestInfo("get", f"{CORE}/nodes/a", "", "v1", "nodes", name="a")),
        (
            "PATCH",
            f"{APPS}/namespaces/x/deployments/web/scale",
            {},
            RequestInfo(
                "patch", f"{APPS}/namespaces/x/deployments/web/scale", "apps", "v1", "deployments", "scale", "x", "web"
            ),
        ),
        (
            "DELETE",
            f"{APPS}/namespaces/x/deployments",
            {},
            RequestInfo(
                "deletecollection", f"{APPS}/namespaces/x/deployments", "apps", "v1", "deployments", namespace="x"
            ),
        ),
        (
            "DELETE",
            f"{CORE}/namespaces/x",
            {},
            RequestInfo("delete", f"{CORE}/namespaces/x", "", "v1", "namespaces", namespace="x", name="x"),
        ),
        (
            "PUT",
            f"{CORE}/namespaces/x/status",
            {},
            RequestInfo("update", f"{CORE}/namespaces/x/status", "", "v1", "namespaces", "status", "x", "x"),
        ),
        ("POST", f"{CORE}/namespaces", {}, RequestInfo("create", f"{CORE}/namespaces", "", "v1", "namespaces")),
        (
            "GET",
            f"{CORE}/namespaces/x/pods/p/exec",
            {},
            RequestInfo("create", f"{CORE}/namespaces/x/pods/p/exec", "", "v1", "pods", "exec", "x", "p"),
        ),
        (
            "GET",
            f"{CORE}/namespaces/x/pods",
            {"watch": "true", "fieldSelector": "metadata.name=p,metadata.namespace=x"},
            RequestInfo("watch", f"{CORE}/namespaces/x/pods", "", "v1", "pods", namespace="x", name="p"),
        ),
        ("GET", "/version/", {}, RequestInfo("get", "/version")),
        ("GET", "/apis/apps/v1", {}, RequestInfo("get", "/apis/apps/v1")),
        ("POST", "/", {}, RequestInfo("post", "/")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_request_info(method: str, path: str, query: dict[str, str], wanted: RequestInfo) -> None:
    assert request_info(method, path, query) == wanted


def test_a_coded_slash_does_not_make_another_resource() -> None:
    info = request_info("GET", f"{CORE}/namespaces/x/pods/a%2Fexec", {})
    assert (info.resource, info.name, info.subresource) == ("pods", "a/exec", "")
