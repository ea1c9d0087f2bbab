"""The door and the app behind it read every path that is let through in the same way."""

import string
from urllib.parse import unquote

from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from korch.api.call import info_of
from korch.api.requestinfo import request_info
from korch.api.security.authorize import Authorizer
from korch.api.security.guard import path_problem
from korch.api.security.users import User, group_for

_PIECES = st.sampled_from(
    (
        *(
            "/",
            "api",
            "apis",
            "v1",
            "namespaces",
            "shop",
            "bank",
            "secrets",
            "pods",
            "watch",
            ".",
            "..",
            "//",
            "?",
            "#",
        ),
        *(
            "%2f",
            "%2F",
            "%2e",
            "%252e",
            "%3f",
            "%23",
            "%00",
            "%0a",
            "%73ecrets",
            "%c3%a9",
            "%5c",
            "\\",
            "%ff",
            "x",
            ";",
        ),
    )
)
_RAW = st.one_of(
    st.lists(_PIECES, max_size=12).map(lambda parts: "/" + "/".join(parts)),
    st.lists(_PIECES, max_size=12).map(lambda parts: "/" + "".join(parts)),
    st.text(string.printable, max_size=30).map(lambda text: "/" + text),
)


def _scope(target: str) -> dict[str, object]:
    """As uvicorn makes it of a request's target."""
    raw, _, query = target.encode("ascii", "ignore").partition(b"?")
    return {
        "type": "http",
        "method": "GET",
        "path": unquote(raw.decode("ascii")),
        "raw_path": raw,
        "query_string": query,
        "headers": [(b"host", b"x")],
        "server": ("127.0.0.1", 6443),
        "scheme": "https",
        "root_path": "",
    }


@settings(max_examples=500, deadline=None)
@given(_RAW)
@example("/api/v1/namespaces/shop/secrets%3Fx")
@example("/api/v1/namespaces/shop/pods/%2e%2e/secrets")
@example("/api/v1/namespaces/shop%2fsecrets/pods")
@example("//api/v1/namespaces/shop/secrets")
def test_one_path_one_meaning(target: str) -> None:
    scope = _scope(target)
    if path_problem(scope):
        return
    at_the_door = request_info("GET", str(scope["path"]), {})
    behind_it = info_of(Request(scope), {})
    assert at_the_door == behind_it
    assert info_of(Request({**scope, "headers": [(b"host", b"x/api/v1/secrets?")]}), {}) == at_the_door
    assert info_of(Request({**scope, "state": {"info": at_the_door}, "path": "/other"}), {}) is at_the_door
    viewer = User("vic", (group_for("view", "shop"),))
    if Authorizer().allowed(viewer, at_the_door)[0]:
        assert behind_it.resource != "secrets"
        assert behind_it.namespace == "shop" or behind_it.resource == "" or behind_it.name == "shop"


def test_names_of_objects_are_let_through() -> None:
    for name in ("web-1", "sh.helm.release.v1.web.v1", "system:controller:x", "widgets.example.com", "v1+x"):
        assert path_problem(_scope(f"/api/v1/namespaces/shop/pods/{name}")) == ""
