"""Server-side apply: who owns which field, what goes, what conflicts."""

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.wire.fieldsets import from_fields, shown, to_fields
from korch.api.wire.ownership import ANCIENT, FIRST, MAX_UPDATERS, apply, same_but_times, track_update
from korch.api.wire.shapes import shape_of_schema
from korch.errors import ApplyConflictError, InvalidError, MalformedError

T1, T2, T3 = (f"2026-01-01T00:00:0{n}Z" for n in (1, 2, 3))

Json = dict[str, Any]


def config(name: str = "c", finalizers: list[str] | None = None, **data: str) -> Json:
    meta: Json = {"name": name, **({"finalizers": finalizers} if finalizers is not None else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, **({"data": data} if data else {})}


def deployment(*containers: Json, **spec: Any) -> Json:
    template = {"spec": {"containers": list(containers)}} if containers else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {**spec, **({"template": template} if template else {})},
    }


def applied(live: Json | None, wish: Json, manager: str = "kubectl", *, force: bool = False, now: str = T1) -> Json:
    before = copy.deepcopy((live, wish))
    result = apply(live, wish, manager=manager, force=force, now=now)
    assert (live, wish) == before
    return result


def containers(obj: Json) -> list[Json]:
    found: list[Json] = obj["spec"]["template"]["spec"]["containers"]
    return found


def owned(obj: Json, manager: str) -> Json:
    """What the manager owns, as FieldsV1."""
    entries = [entry for entry in obj["metadata"].get("managedFields", []) if entry["manager"] == manager]
    assert len(entries) <= 1
    return entries[0]["fieldsV1"] if entries else {}


# --- apply ---


def test_an_apply_that_creates_owns_what_it_says() -> None:
    found = applied(None, config(a="1"))
    assert found == {
        **config(a="1"),
        "metadata": {
            "name": "c",
            "managedFields": [
                {
                    "manager": "kubectl",
                    "operation": "Apply",
                    "apiVersion": "v1",
                    "time": T1,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:data": {"f:a": {}}},
                }
            ],
        },
    }


def test_a_field_that_the_next_apply_drops_goes() -> None:
    live = applied(None, config(a="1", b="2"))
    assert applied(live, config(b="2"))["data"] == {"b": "2"}
    assert "data" not in applied(live, config())


def test_a_field_that_somebody_else_owns_stays() -> None:
    live = applied(None, config(a="1", b="2"), "one")
    live = applied(live, config(a="1"), "two")  # the same value: shared
    found = applied(live, config(b="2"), "one")
    assert found["data"] == {"a": "1", "b": "2"}
    assert (owned(found, "one"), owned(found, "two")) == ({"f:data": {"f:b": {}}}, {"f:data": {"f:a": {}}})
    assert "a" not in applied(found, config(), "two")["data"]


def test_another_value_for_what_another_owns_is_a_conflict() -> None:
    live = applied(None, deployment(replicas=1), "hpa")
    with pytest.raises(ApplyConflictError) as caught:
        applied(live, deployment(replicas=3))
    assert str(caught.value) == 'Apply failed with 1 conflict: conflict with "hpa": .spec.replicas'
    assert caught.value.conflicts == (("hpa", "apps/v1", ".spec.replicas"),)
    assert caught.value.causes == ('conflict with "hpa"',)
    assert (caught.value.http_status, caught.value.reason) == (409, "Conflict")


def test_a_conflict_with_a_writer_names_its_version() -> None:
    made = track_update(None, deployment({"name": "a", "image": "1"}, replicas=1), manager="kubectl-create", now=T1)
    with pytest.raises(ApplyConflictError) as caught:
        applied(made, deployment(replicas=3))
    message = 'Apply failed with 1 conflict: conflict with "kubectl-create" using apps/v1: .spec.replicas'
    assert str(caught.value) == message
    with pytest.raises(ApplyConflictError) as caught:
        applied(made, deployment({"name": "a", "image": "2"}, replicas=3))
    assert str(caught.value) == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-create" using apps/v1:\n'
        '- .spec.replicas\n- .spec.template.spec.containers[name="a"].image'
    )
    assert len(caught.value.causes) == 2


def test_force_takes_the_field_over() -> None:
    live = applied(None, deployment(replicas=1, paused=True), "hpa")
    found = applied(live, deployment(replicas=3), force=True, now=T2)
    assert found["spec"] == {"replicas": 3, "paused": True}
    assert owned(found, "hpa") == {"f:spec": {"f:paused": {}}}
    assert owned(found, "kubectl") == {"f:spec": {"f:replicas": {}}}
    lost = applied(applied(None, config(a="1"), "one"), config(a="2"), "two", force=True)
    assert [entry["manager"] for entry in lost["metadata"]["managedFields"]] == ["two"]


def test_a_field_given_up_can_be_set_by_others() -> None:
    live = applied(None, deployment(replicas=1, paused=True), "one")
    live = applied(live, deployment(replicas=1), "two")
    live = applied(live, deployment(paused=True), "one")  # gives replicas up; two still owns it
    assert live["spec"]["replicas"] == 1
    assert applied(live, deployment(replicas=5), "two")["spec"]["replicas"] == 5


def test_items_of_lists_are_owned_one_by_one() -> None:
    live = applied(None, deployment({"name": "web", "image": "1"}), "one")
    live = applied(live, deployment({"name": "side", "image": "2"}), "two")
    assert [item["name"] for item in containers(live)] == ["side", "web"]
    assert owned(live, "two") == {
        "f:spec": {
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"side"}': {".": {}, "f:image": {}, "f:name": {}}}}}
        }
    }
    live = applied(live, deployment({"name": "web", "image": "3"}), "one")
    assert {item["name"]: item["image"] for item in containers(live)} == {"web": "3", "side": "2"}
    assert [item["name"] for item in containers(applied(live, deployment(replicas=1), "two"))] == ["web"]


def test_a_dropped_item_takes_its_defaults_along() -> None:
    live = applied(None, deployment({"name": "a", "image": "1"}, {"name": "b", "image": "2"}))
    for item in containers(live):
        item["imagePullPolicy"] = "IfNotPresent"  # a default of the server
    found = applied(live, deployment({"name": "a", "image": "1"}))
    assert containers(found) == [{"name": "a", "image": "1", "imagePullPolicy": "IfNotPresent"}]


def test_a_dropped_map_takes_its_defaults_along() -> None:
    probe = {"httpGet": {"port": 80}}
    live = applied(None, deployment({"name": "a", "image": "1", "livenessProbe": probe}))
    containers(live)[0]["livenessProbe"]["periodSeconds"] = 10
    assert containers(applied(live, deployment({"name": "a", "image": "1"}))) == [{"name": "a", "image": "1"}]


def test_ports_are_told_apart_by_number_and_protocol() -> None:
    ports = [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]
    live = applied(None, deployment({"name": "a", "ports": ports}))
    again = applied(live, deployment({"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}))
    assert containers(again)[0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_sets_unite() -> None:
    live = applied(None, config(finalizers=["a", "b"]), "one")
    live = applied(live, config(finalizers=["c", "b"]), "two")
    assert sorted(live["metadata"]["finalizers"]) == ["a", "b", "c"]
    assert owned(live, "two") == {"f:metadata": {"f:finalizers": {'v:"b"': {}, 'v:"c"': {}}}}
    assert live["metadata"]["finalizers"].index("c") < live["metadata"]["finalizers"].index("b")
    live = applied(live, config(), "one")
    assert sorted(live["metadata"]["finalizers"]) == ["b", "c"]


def test_lists_without_keys_and_atomic_maps_are_one_field() -> None:
    live = applied(None, deployment({"name": "a", "args": ["x", "y"]}, selector={"matchLabels": {"a": "1", "b": "2"}}))
    wish = deployment({"name": "a", "args": ["z"]}, selector={"matchLabels": {"c": "3"}})
    found = applied(live, wish)
    assert containers(found) == [{"name": "a", "args": ["z"]}]
    assert found["spec"]["selector"] == {"matchLabels": {"c": "3"}}
    assert owned(found, "kubectl")["f:spec"]["f:selector"] == {}
    with pytest.raises(ApplyConflictError, match=r"containers\[name=\"a\"\].args"):
        applied(found, deployment({"name": "a", "args": ["z", "z"]}), "other")


def test_what_the_server_gives_is_nobodys_and_stays() -> None:
    live = applied(None, config(a="1"))
    live["metadata"] |= {"uid": "u", "resourceVersion": "7", "creationTimestamp": T1, "namespace": "default"}
    wish = config(a="2")
    wish["metadata"] |= {"resourceVersion": "3", "creationTimestamp": None, "uid": "other", "labels": {"x": "y"}}
    found = applied(live, wish)
    assert {key: value for key, value in found["metadata"].items() if key != "managedFields"} == {
        "name": "c",
        "namespace": "default",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": T1,
        "labels": {"x": "y"},
    }
    assert owned(found, "kubectl") == {"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:x": {}}}}


def test_null_members_are_as_good_as_absent() -> None:
    wish = deployment({"name": "a", "image": None, "resources": {}})
    wish["spec"]["template"]["metadata"] = {"creationTimestamp": None, "labels": {"a": "b"}}
    live = applied(None, wish)
    assert containers(live) == [{"name": "a", "resources": {}}]
    assert live["spec"]["template"]["metadata"] == {"labels": {"a": "b"}}
    fields = owned(live, "kubectl")["f:spec"]["f:template"]
    assert fields["f:metadata"] == {"f:labels": {"f:a": {}}}
    assert fields["f:spec"]["f:containers"] == {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:resources": {}}}


def test_the_same_apply_again_changes_nothing() -> None:
    wish = deployment({"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, replicas=2, paused=False)
    live = applied(None, wish)
    assert applied(live, wish, now=T2) == live
    stored = copy.deepcopy(live)
    del stored["spec"]["paused"]  # false is what it is without it: typed objects do not keep it
    again = applied(stored, wish, now=T2)
    assert again["metadata"] == stored["metadata"]
    assert applied(stored, deployment(paused=False), "other")["spec"]["replicas"] == 2  # and nobody's conflict


def test_an_object_made_when_nobody_looked_has_an_owner_of_its_own() -> None:
    live = config(a="1", b="2")
    with pytest.raises(ApplyConflictError, match=FIRST):
        applied(live, config(a="5"))
    found = applied(live, config(a="1"))
    assert found["data"] == {"a": "1", "b": "2"}
    assert owned(found, FIRST) == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}
    assert applied(found, config())["data"] == {"a": "1", "b": "2"}


def test_an_apply_to_the_status_is_an_owner_of_its_own() -> None:
    wish: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"x": "1"}}}
    live = applied(None, {**wish, "status": {}, "spec": {"unschedulable": True}})
    found = apply(live, wish, manager="kubectl", force=False, now=T2, subresource="status")
    assert found["spec"] == {"unschedulable": True}
    assert [entry.get("subresource", "") for entry in found["metadata"]["managedFields"]] == ["", "status"]


@pytest.mark.parametrize(
    "wrong",
    [
        deployment({"image": "no name"}),
        deployment({"name": "a"}, {"name": "a"}),
        deployment({"name": {"x": 1}}),
        deployment({"name": "a", "env": ["text"]}),
        config(finalizers=["a", "a"]),
        config(finalizers=[{"x": "y"}]),  # type: ignore[list-item]
    ],
)
def test_items_that_cannot_be_told_apart_are_invalid(wrong: Json) -> None:
    with pytest.raises(InvalidError, match=r"\.(containers|finalizers|env)"):
        applied(None, wrong)


def test_an_apply_does_not_say_who_owns_what() -> None:
    wish = config(a="1")
    wish["metadata"]["managedFields"] = [{"manager": "x"}]
    with pytest.raises(MalformedError, match="managedFields must be nil"):
        applied(None, wish)
    with pytest.raises(MalformedError):
        applied(None, {**config(), "metadata": "text"})


def test_custom_objects_merge_as_their_schema_says() -> None:
    listed = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}}
    schema = {
        "properties": {
            "spec": {
                "properties": {
                    "rules": {**listed, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
                }
            }
        }
    }
    shape = shape_of_schema(schema)

    def widget(**spec: Any) -> Json:
        return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}

    one = widget(rules=[{"id": 1, "x": 1}], tags=["a"], whole={"a": 1}, any=[1])
    live = apply(None, one, manager="one", force=False, now=T1, shape=shape)
    two = widget(rules=[{"id": 2, "x": 2}], tags=["b"], whole={"a": 1}, other={"deep": 1})
    live = apply(live, two, manager="two", force=False, now=T1, shape=shape)
    assert sorted(rule["id"] for rule in live["spec"]["rules"]) == [1, 2]
    assert sorted(live["spec"]["tags"]) == ["a", "b"]
    assert live["spec"]["other"] == {"deep": 1}
    with pytest.raises(ApplyConflictError, match=r"\.spec\.any"):
        apply(live, widget(any=[2]), manager="two", force=False, now=T1)


# --- other writes ---


def test_a_creation_owns_everything() -> None:
    obj = deployment({"name": "a", "image": "1"}, replicas=1)
    obj["status"] = {"replicas": 1}
    found = track_update(None, obj, manager="kubectl-create", now=T1)
    assert found["metadata"]["managedFields"] == [
        {
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "time": T1,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:spec": {
                    "f:replicas": {},
                    "f:template": {
                        ".": {},
                        "f:spec": {
                            ".": {},
                            "f:containers": {".": {}, 'k:{"name":"a"}': {".": {}, "f:image": {}, "f:name": {}}},
                        },
                    },
                }
            },
        }
    ]


def test_a_write_takes_over_what_it_changes() -> None:
    live = applied(None, deployment({"name": "a", "image": "1"}, replicas=1), "helm")
    after = copy.deepcopy(live)
    containers(after)[0]["image"] = "2"
    after["metadata"]["labels"] = {"x": "y"}
    found = track_update(live, after, manager="kubectl-set", now=T2)
    assert "f:image" not in json.dumps(owned(found, "helm"))
    assert owned(found, "kubectl-set")["f:metadata"] == {"f:labels": {".": {}, "f:x": {}}}
    with pytest.raises(ApplyConflictError, match='"kubectl-set" using apps/v1'):
        applied(found, deployment({"name": "a", "image": "1"}, replicas=1), "helm")
    gone = copy.deepcopy(found)
    del gone["metadata"]["labels"]
    assert "f:metadata" not in owned(track_update(found, gone, manager="other", now=T3), "kubectl-set")


def test_a_write_that_changes_nothing_leaves_everything() -> None:
    live = track_update(None, config(a="1"), manager="one", now=T1)
    assert track_update(live, live, manager="one", now=T2) == live
    assert track_update(live, live, manager="two", now=T2) == live
    changed = track_update(live, {**live, "data": {"a": "2"}}, manager="one", now=T2)
    assert changed["metadata"]["managedFields"][0]["time"] == T2
    assert len(changed["metadata"]["managedFields"]) == 1


def test_a_write_without_managed_fields_keeps_them_and_one_empty_entry_clears_them() -> None:
    live = track_update(None, config(a="1"), manager="one", now=T1)
    plain = config(a="2")
    assert owned(track_update(live, plain, manager="two", now=T2), "two") == {"f:data": {"f:a": {}}}
    cleared = copy.deepcopy(live)
    cleared["metadata"]["managedFields"] = [{}]
    assert track_update(live, cleared, manager="two", now=T2) == config(a="1")
    changed = copy.deepcopy(live)
    changed["metadata"]["managedFields"][0]["manager"] = "renamed"
    assert owned(track_update(live, changed, manager="two", now=T2), "renamed") == owned(live, "one")
    broken = copy.deepcopy(live)
    broken["metadata"]["managedFields"][0]["fieldsV1"] = {"nonsense": 1}
    assert track_update(live, broken, manager="two", now=T2) == live


def test_status_is_owned_through_its_own_door() -> None:
    live = track_update(None, deployment(replicas=1), manager="one", now=T1)
    after = {**live, "status": {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}}
    found = track_update(live, after, manager="korch", subresource="status", now=T2)
    entry = found["metadata"]["managedFields"][1]
    assert entry["subresource"] == "status"
    assert set(entry["fieldsV1"]["f:status"]["f:conditions"]) == {".", 'k:{"type":"Available"}'}
    assert track_update(live, after, manager="korch", now=T2)["metadata"] == live["metadata"]


def test_writers_are_not_remembered_without_end() -> None:
    live = config(start="0")
    for number in range(MAX_UPDATERS + 5):
        after = {**live, "data": {**live["data"], f"k{number}": "1"}}
        live = track_update(live, after, manager=f"m{number:02}", now=f"2026-01-01T00:00:{number:02}Z")
    managers = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(managers) == MAX_UPDATERS
    assert ANCIENT in managers
    assert {"f:k0", "f:k1"} <= set(owned(live, ANCIENT)["f:data"])


def test_times_alone_are_no_change() -> None:
    one = track_update(None, config(a="1"), manager="one", now=T1)
    two = track_update(None, config(a="1"), manager="one", now=T2)
    assert same_but_times(one, two)
    assert not same_but_times(one, track_update(None, config(a="2"), manager="one", now=T1))
    assert not same_but_times(one, track_update(None, config(a="1"), manager="two", now=T1))


def test_paths_as_people_read_them() -> None:
    path = ("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:x")
    assert shown(path) == '.spec.ports[port=80,protocol="TCP"].x'
    assert shown(("f:metadata", "f:finalizers", 'v:"a"')) == '.metadata.finalizers[="a"]'


# --- properties ---

KEYS = st.sampled_from(["a", "b", "c"])
CONFIGS = st.dictionaries(KEYS, st.sampled_from(["1", "2"]), max_size=3)
ENV = st.lists(
    st.fixed_dictionaries({"name": KEYS}, optional={"value": st.sampled_from(["1", "2"])}),
    max_size=3,
    unique_by=lambda item: item["name"],
)
WISHES = st.builds(
    lambda data, env, replicas: deployment(
        {"name": "main", "env": env}, **({} if replicas is None else {"replicas": replicas}), extra=data
    ),
    CONFIGS,
    ENV,
    st.none() | st.integers(1, 2),
)
STEPS = st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), WISHES), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_after_an_apply_its_wish_holds_and_again_changes_nothing(steps: list[tuple[str, Json]]) -> None:
    live: Json | None = None
    last: dict[str, Json] = {}
    for manager, wish in steps:
        live = applied(live, wish, manager, force=True)
        last[manager] = wish
        assert applied(live, wish, manager, now=T2) == live  # neither force nor a change is needed
        _check_wish(live, wish)
    assert live is not None
    _check_nothing_unwanted(live, list(last.values()))


def _check_wish(live: Any, wish: Any) -> None:
    """All that the wish says is there."""
    if isinstance(wish, dict):
        for key, value in wish.items():
            _check_wish(live[key], value)
    elif isinstance(wish, list):
        named = {item["name"]: item for item in live}
        for item in wish:
            _check_wish(named[item["name"]], item)
    else:
        assert live == wish


def _check_nothing_unwanted(live: Json, wishes: list[Json]) -> None:
    """Nothing is left that no manager's last wish says."""
    env = [item["name"] for item in containers(live)[0].get("env", [])]
    assert set(env) <= {item["name"] for wish in wishes for item in containers(wish)[0]["env"]}
    assert set(live["spec"].get("extra", {})) <= {key for wish in wishes for key in wish["spec"]["extra"]}
    assert "replicas" not in live["spec"] or any("replicas" in wish["spec"] for wish in wishes)


@settings(max_examples=100, deadline=None)
@given(WISHES, WISHES)
def test_without_force_nothing_of_another_changes(one: Json, two: Json) -> None:
    live = applied(None, one, "one")
    try:
        found = applied(live, two, "two")
    except ApplyConflictError:
        assert applied(live, two, "two", force=True) != live
    else:
        _check_wish(found, one)
        _check_wish(found, two)


@settings(max_examples=100, deadline=None)
@given(WISHES, WISHES)
def test_tracking_never_changes_the_object_itself(before: Json, after: Json) -> None:
    kept = copy.deepcopy((before, after))
    made = track_update(None, before, manager="one", now=T1)
    changed = track_update(made, after, manager="two", now=T2)
    assert {key: value for key, value in changed["metadata"].items() if key != "managedFields"} == after["metadata"]
    assert {**changed, "metadata": 0} == {**after, "metadata": 0}
    assert (before, after) == kept
    _check_wish(applied(changed, before, "one", force=True), before)


PATHS = st.frozensets(
    st.lists(st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"']), min_size=1, max_size=4).map(tuple), max_size=8
)


@settings(max_examples=200, deadline=None)
@given(PATHS)
def test_sets_survive_their_stored_form(paths: frozenset[tuple[str, ...]]) -> None:
    assert from_fields(json.loads(json.dumps(to_fields(paths)))) == paths


@pytest.mark.parametrize("wrong", [1, [], {"x:a": {}}, {"f:a": 1}, {"f:a": {".": {}, "b": {}}}])
def test_what_is_no_set_is_none(wrong: Any) -> None:
    assert from_fields(wrong) is None


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text("ab", max_size=1),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "containers", "spec", "template", "metadata", "finalizers", "stringData", "data", "env"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
OBJECTS = st.builds(
    lambda kind, parts: {"apiVersion": kind[0], "kind": kind[1], **parts},
    st.sampled_from([("v1", "Pod"), ("v1", "Secret"), ("apps/v1", "Deployment"), ("x.y/v1", "Z"), ("v1", 7)]),
    st.dictionaries(st.sampled_from(["metadata", "spec", "data", "stringData"]), ODD, max_size=4),
)


@settings(max_examples=250, deadline=None)
@given(OBJECTS, OBJECTS, st.booleans())
def test_any_object_can_be_applied_or_is_refused_clearly(live: Json, wish: Json, force: bool) -> None:
    with contextlib.suppress(InvalidError, ApplyConflictError):
        made = applied(live, wish, force=force)
        json.dumps(made)
        assert applied(made, wish, force=True) == made
        json.dumps(track_update(live, made, manager="x", now=T1))
