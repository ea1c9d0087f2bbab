"""JSON patch, merge patch, strategic merge patch."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.wire.patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, apply_patch
from korch.errors import InvalidError, MalformedError, TooLargeError, UnsupportedMediaTypeError

DEPLOYMENT = ("apps", "Deployment")
POD = ("", "Pod")

SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab/~", max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.text("ab/~", max_size=2), VALUES, max_size=4)


def strategic(patch: Any, live: dict[str, Any], kind: tuple[str, str] = POD) -> dict[str, Any]:
    return apply_patch(STRATEGIC_PATCH, patch, live, kind)


def json_patch(live: dict[str, Any], *operations: dict[str, Any]) -> dict[str, Any]:
    return apply_patch(JSON_PATCH, list(operations), live, POD)


def pods(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), **spec}}


# --- JSON patch ---


@pytest.mark.parametrize(
    ("live", "operation", "wanted"),
    [
        ({}, {"op": "add", "path": "/a", "value": 1}, {"a": 1}),
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/-1"}, {"a": [1]}),
        ({"a": 1}, {"op": "replace", "path": "/a", "value": None}, {"a": None}),
        ({"a": {}}, {"op": "replace", "path": "/a/unset", "value": 1}, {"a": {"unset": 1}}),
        ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": "/c"}, {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, {"op": "copy", "from": "/a", "path": "/c"}, {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "m~n": 2}, {"op": "remove", "path": "/a~1b"}, {"m~n": 2}),
        ({"m~n": 2}, {"op": "replace", "path": "/m~0n", "value": 3}, {"m~n": 3}),
        ({"a": 1}, {"op": "replace", "path": "", "value": {"b": 2}}, {"b": 2}),
        ({"a": 1}, {"op": "test", "path": "/b", "value": None}, {"a": 1}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": 1.0}, {"a": 1}),
    ],
)
def test_an_operation(live: dict[str, Any], operation: dict[str, Any], wanted: dict[str, Any]) -> None:
    before = copy.deepcopy(live)
    assert json_patch(live, operation) == wanted
    assert live == before


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"op": "test", "path": "/metadata/resourceVersion", "value": "4"}, "not what the test expects"),
        ({"op": "test", "path": "/flag", "value": 1}, "not what the test expects"),
        ({"op": "remove", "path": "/nothing"}, "/nothing does not exist"),
        ({"op": "replace", "path": "/nothing/b", "value": 1}, "/nothing does not exist"),
        ({"op": "replace", "path": "/list/1", "value": 1}, "no place 1"),
        ({"op": "add", "path": "/nothing/b", "value": 1}, "/nothing does not exist"),
        ({"op": "add", "path": "/list/9", "value": 1}, "no place 9"),
        ({"op": "add", "path": "/list/01", "value": 1}, "no place 01"),
        ({"op": "add", "path": "/flag/x", "value": 1}, "has nothing in it"),
        ({"op": "move", "from": "/list", "path": "/list/0"}, "into itself"),
    ],
)
def test_an_operation_that_cannot_be_done_is_invalid(operation: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message) as caught:
        json_patch({"metadata": {"resourceVersion": "5"}, "list": [1], "flag": True}, operation)
    assert caught.value.http_status == 422


@pytest.mark.parametrize(
    "patch",
    [
        {"op": "add"},
        [1],
        [{"op": "add", "path": "/a"}],
        [{"op": "jump", "path": "/a"}],
        [{"op": "remove", "path": "a"}],
    ],
)
def test_what_is_no_json_patch_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(MalformedError):
        apply_patch(JSON_PATCH, patch, {}, POD)


def test_a_json_patch_cannot_blow_the_object_up() -> None:
    double = [{"op": "copy", "from": "/a", "path": f"/a/{i}"} for i in range(60)]
    with pytest.raises(TooLargeError):
        apply_patch(JSON_PATCH, double, {"a": {"x": 1}}, POD)
    deepen = [{"op": "move", "from": f"/{i}", "path": f"/{i + 1}/x"} for i in range(300)]
    with pytest.raises(TooLargeError):
        apply_patch(JSON_PATCH, deepen, {str(i): {} for i in range(301)}, POD)


@settings(max_examples=150, deadline=None)
@given(
    MAPS,
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": st.text("/a0-~1", max_size=6),
            },
            optional={"from": st.text("/ab0", max_size=4), "value": VALUES},
        ),
        max_size=4,
    ),
)
def test_any_json_patch_gives_an_object_or_a_clear_error(live: dict[str, Any], patch: list[Any]) -> None:
    before = copy.deepcopy((live, patch))
    with contextlib.suppress(InvalidError):
        assert isinstance(apply_patch(JSON_PATCH, patch, live, POD), dict)
    assert (live, patch) == before


# --- merge patch ---


@pytest.mark.parametrize(
    ("live", "patch", "wanted"),
    [  # the table of RFC 7386, appendix A, as far as it speaks of objects
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(live: dict[str, Any], patch: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert apply_patch(MERGE_PATCH, patch, live, POD) == wanted


def _difference(before: Any, after: Any) -> Any:
    """The merge patch from one to the other, when neither has nulls."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    gone = {key: None for key in before if key not in after}
    return gone | {key: _difference(before.get(key), after[key]) for key in after}


NULLLESS = st.recursive(
    st.booleans() | st.integers(-3, 3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), NULLLESS, max_size=3)


@settings(max_examples=150, deadline=None)
@given(OBJECTS, OBJECTS)
def test_a_difference_merged_gives_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    patch = _difference(before, after)
    kept = copy.deepcopy((before, patch))
    for content_type in (MERGE_PATCH, STRATEGIC_PATCH):
        once = apply_patch(content_type, patch, before, POD)
        assert json.dumps(once, sort_keys=True) == json.dumps(after, sort_keys=True)
        assert apply_patch(content_type, patch, once, POD) == once
    assert (before, patch) == kept


def test_a_result_shares_nothing_with_the_patch() -> None:
    patch = {"spec": {"tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}}}
    for content_type in (MERGE_PATCH, STRATEGIC_PATCH):
        result = apply_patch(content_type, patch, {}, POD)
        result["spec"]["tolerations"][0]["key"] = "changed"
        result["spec"]["nodeSelector"]["a"] = "changed"
    assert patch == {"spec": {"tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}}}


# --- strategic merge patch ---


def test_items_merge_by_their_key() -> None:
    live = pods({"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "2"})
    patch = pods({"name": "a", "image": "3", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "4"})
    env = [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]  # new ones come first, as in Kubernetes
    wanted = pods({"name": "a", "image": "3", "env": env}, {"name": "c", "image": "4"}, {"name": "b", "image": "2"})
    assert strategic(patch, live) == wanted


def test_the_template_of_a_deployment_merges_as_a_pod_does() -> None:
    live = {"spec": {"template": pods({"name": "web", "image": "a", "args": ["x"]})}}
    patch = {"spec": {"template": pods({"name": "web", "image": "b"})}}
    wanted = {"spec": {"template": pods({"name": "web", "image": "b", "args": ["x"]})}}
    assert strategic(patch, live, DEPLOYMENT) == wanted


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        ({"containers": [{"name": "a", "$patch": "delete"}]}, {"containers": [{"name": "b"}]}),
        ({"containers": [{"$patch": "replace"}, {"name": "z"}]}, {"containers": [{"name": "z"}]}),
        ({"$patch": "replace", "hostname": "h"}, {"hostname": "h"}),
        ({"$patch": "delete"}, {}),
        ({"$patch": "merge", "hostname": "h"}, {"containers": [{"name": "a"}, {"name": "b"}], "hostname": "h"}),
        ({"containers": None}, {}),
        (
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
            {"containers": [{"name": "b"}, {"name": "a"}]},
        ),
        (
            {
                "containers": [{"name": "c"}],
                "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
            },
            {"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]},
        ),
        (
            {"containers": [{"name": "c"}], "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}]},
            {"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]},  # `a` stays where it was: before `b`
        ),
    ],
)
def test_directives(patch: dict[str, Any], wanted: dict[str, Any]) -> None:
    live = pods({"name": "a"}, {"name": "b"})
    assert strategic({"spec": patch}, live) == {"spec": wanted}


def test_lists_of_scalars_are_united() -> None:
    live = {"metadata": {"finalizers": ["a", "b"]}}
    assert strategic({"metadata": {"finalizers": ["c", "a"]}}, live) == {"metadata": {"finalizers": ["c", "a", "b"]}}
    gone = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic(gone, live) == {"metadata": {"finalizers": ["b"]}}
    both = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["d"]}}
    assert strategic(both, live) == {"metadata": {"finalizers": ["d", "b"]}}


def test_retain_keys_drops_the_other_members() -> None:
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic(patch, live, DEPLOYMENT) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_lists_without_a_key_are_replaced() -> None:
    live = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    assert strategic({"spec": {"taints": []}}, live, ("", "Node")) == {"spec": {"taints": []}}
    assert strategic({"spec": {"command": ["b"]}}, {"spec": {"command": ["a"]}}) == {"spec": {"command": ["b"]}}


def test_ports_of_a_service_merge_by_port_and_of_a_container_by_container_port() -> None:
    service = {"spec": {"ports": [{"port": 80, "name": "http"}]}}
    assert strategic({"spec": {"ports": [{"port": 80, "nodePort": 3}]}}, service, ("", "Service")) == {
        "spec": {"ports": [{"port": 80, "name": "http", "nodePort": 3}]}
    }
    dns = [{"containerPort": 53, "name": "tcp"}, {"containerPort": 53, "protocol": "UDP", "name": "udp"}]
    patch = pods({"name": "a", "ports": [{"containerPort": 53, "protocol": "UDP", "hostPort": 5353}]})
    wanted = [dns[0], {**dns[1], "hostPort": 5353}]
    assert strategic(patch, pods({"name": "a", "ports": dns})) == pods({"name": "a", "ports": wanted})


def test_the_selector_of_a_budget_is_replaced() -> None:
    live = {"spec": {"selector": {"matchLabels": {"a": "1"}}}}
    patch = {"spec": {"selector": {"matchLabels": {"b": "1"}}}}
    assert strategic(patch, live, ("policy", "PodDisruptionBudget")) == patch


@pytest.mark.parametrize(
    "patch",
    [
        [1],
        pods({"image": "no name"}),
        {"spec": {"$patch": "explode"}},
        {"spec": {"$unknown": 1}},
        {"spec": {"$retainKeys": 7}},
        {"spec": {"$setElementOrder/containers": "a"}},
        {"spec": {"$retainKeys": ["a"], "b": 1}},
    ],
)
def test_a_wrong_strategic_patch_is_refused(patch: Any) -> None:
    with pytest.raises(InvalidError):
        strategic(patch, pods({"name": "a"}))


def test_custom_kinds_take_no_strategic_patch_and_unknown_types_are_named() -> None:
    with pytest.raises(UnsupportedMediaTypeError, match="accepted media types include") as caught:
        apply_patch(STRATEGIC_PATCH, {}, {}, ("example.com", "Widget"))
    assert caught.value.http_status == 415
    with pytest.raises(UnsupportedMediaTypeError):
        apply_patch("application/xml", {}, {}, POD)
    assert apply_patch(f"{MERGE_PATCH}; charset=utf-8", {"a": 1}, {}, POD) == {"a": 1}


RECORDED = json.loads((Path(__file__).parent / "kubectl_patches.json").read_text())  # `kubectl patch --local`, 1.37


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        cleaned = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in cleaned.items() if item not in ({}, [], None, "")}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("recorded", RECORDED)
def test_the_result_is_the_one_of_kubernetes(recorded: dict[str, Any]) -> None:
    assert _without_empty(strategic(recorded["patch"], recorded["live"], DEPLOYMENT)) == recorded["result"]


NAMES = st.sampled_from(["a", "b", "c", "d"])
ITEMS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"image": st.sampled_from(["1", "2"])}),
    max_size=4,
    unique_by=lambda item: item["name"],
)


@settings(max_examples=150, deadline=None)
@given(ITEMS, ITEMS, st.permutations(["a", "b", "c", "d"]))
def test_the_order_wished_for_is_the_order_there(live: Any, patch: Any, order: list[str]) -> None:
    body = {"containers": patch, "$setElementOrder/containers": [{"name": name} for name in order]}
    result = [item["name"] for item in strategic({"spec": body}, pods(*live))["spec"]["containers"]]
    assert result == [name for name in order if name in {item["name"] for item in [*live, *patch]}]


@settings(max_examples=200, deadline=None)
@given(
    MAPS,
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "$patch",
                        "$retainKeys",
                        "$setElementOrder/containers",
                        "containers",
                        "name",
                        "spec",
                        "metadata",
                        "finalizers",
                        "$deleteFromPrimitiveList/finalizers",
                    ]
                ),
                inner,
                max_size=3,
            )
        ),
    ),
)
def test_any_strategic_patch_gives_an_object_or_a_clear_error(live: dict[str, Any], patch: Any) -> None:
    before = copy.deepcopy((live, patch))
    with contextlib.suppress(InvalidError):
        assert not any(key.startswith("$") for key in strategic(patch, live) if key not in live)
    assert (live, patch) == before
