"""Custom objects against the schemas of their definitions."""

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.wire.structural import Structure, unchecked

Json = dict[str, Any]
SCHEMA: Json = {
    "type": "object",
    "required": ["spec", "metadata"],
    "properties": {
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9, "format": "int32"},
                "mode": {"type": "string", "enum": ["fast", "safe"], "default": "safe"},
                "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]+$"}},
                "rules": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
                    },
                },
                "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "since": {"type": "string", "format": "date-time", "nullable": True},
                "ratio": {"type": "number", "exclusiveMinimum": True, "minimum": 0, "multipleOf": 0.5},
                "either": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                           "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
                "nested": {"type": "object", "default": {}, "properties": {"on": {"type": "boolean", "default": True}}},
                "template": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {}},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}  # fmt: skip
WIDGETS = Structure(SCHEMA)


def widget(**spec: Any) -> Json:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1, **spec}}


def wrong(**spec: Any) -> dict[str, str]:
    return {problem.path: problem.message for problem in WIDGETS.problems(widget(**spec))}


def test_unknown_fields_go_and_defaults_come() -> None:
    given_ = widget(sise=2, rules=[{"name": "a", "wait": 1}], free={"any": {"thing": 1}}, labels={"x": "y"})
    given_ |= {"extra": 1, "status": {"c": {"ok": 1}}}
    before = copy.deepcopy(given_)
    pruned, unknown = WIDGETS.pruned(given_)
    found = WIDGETS.filled(pruned)
    assert given_ == before
    assert unknown == ["spec.sise", "spec.rules[0].wait", "extra"]
    spec = {"rules": [{"name": "a", "weight": 1}], "free": {"any": {"thing": 1}}, "labels": {"x": "y"}}
    assert found == widget(**spec, mode="safe", nested={"on": True}) | {"status": {"c": {"ok": 1}}}


def test_nulls_give_way_to_defaults_unless_they_may_be() -> None:
    found = WIDGETS.filled(widget(mode=None, since=None))
    assert (found["spec"]["mode"], found["spec"]["since"]) == ("safe", None)
    assert WIDGETS.problems(found) == []
    assert wrong(size=None) == {"spec.size": "Required value"}
    assert wrong(tags=None) == {"spec.tags": 'Invalid value: "null": spec.tags in body must be of type array: "null"'}


def test_an_embedded_object_keeps_what_every_object_has() -> None:
    inner = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "other": 1}
    found, unknown = WIDGETS.pruned(widget(template=inner))
    assert found["spec"]["template"] == {key: inner[key] for key in ("apiVersion", "kind", "metadata")}
    assert unknown == ["spec.template.other"]


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"size": "1"}, "spec.size", 'Invalid value: "string": spec.size in body must be of type integer: "string"'),
        ({"size": True}, "spec.size", 'Invalid value: "boolean": spec.size in body must be of type integer: "boolean"'),
        ({"size": 0}, "spec.size", "Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 10}, "spec.size", "Invalid value: 10: spec.size in body should be less than or equal to 9"),
        ({"mode": "slow"}, "spec.mode", 'Unsupported value: "slow": supported values: "fast", "safe"'),
        ({"tags": ["ok", "No"]}, "spec.tags[1]", "Invalid value: \"No\": spec.tags[1] in body should match '^[a-z]+$'"),
        ({"tags": ["a", "b", "c"]}, "spec.tags", "Too many: 3: must have at most 2 items"),
        ({"rules": [{"weight": 1}]}, "spec.rules[0].name", "Required value"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "spec.rules[1]", 'Duplicate value: {"name":"a"}'),
        ({"labels": {"a": "long"}}, "spec.labels.a", "Too long: may not be more than 3 bytes"),
        (
            {"port": 1.5},
            "spec.port",
            'Invalid value: "number": spec.port in body must be of type integer,string: "number"',
        ),
        (
            {"since": "noon"},
            "spec.since",
            'Invalid value: "noon": spec.since in body must be of type date-time: "noon"',
        ),
        ({"ratio": 0}, "spec.ratio", "Invalid value: 0: spec.ratio in body should be greater than 0"),
        ({"ratio": 0.7}, "spec.ratio", "Invalid value: 0.7: spec.ratio in body should be a multiple of 0.5"),
        (
            {"either": {"a": "1", "b": "2"}},
            "spec.either",
            'Invalid value: {"a":"1","b":"2"}: spec.either in body must validate one and only one schema (oneOf)',
        ),
        ({"free": [1]}, "spec.free", 'Invalid value: "array": spec.free in body must be of type object: "array"'),
    ],
)
def test_a_mistake_is_told_with_its_path(spec: Json, path: str, message: str) -> None:
    assert wrong(**spec) == {path: message}


def test_what_fits_has_no_problems() -> None:
    rules = [{"name": "a"}, {"name": "b", "weight": 2}]
    good = widget(rules=rules, port="http", since="2026-01-01T00:00:00Z", ratio=1.5, either={"a": "x"}, tags=["ab"])
    assert WIDGETS.problems(good) == []
    assert WIDGETS.problems(widget(port=80, size=2.0)) == []


def test_what_is_missing_at_the_root() -> None:
    assert [str(problem) for problem in WIDGETS.problems({"metadata": {"name": "w"}})] == ["spec: Required value"]


def test_the_alternatives() -> None:
    schema: Json = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]},
            "b": {"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 9}]},
            "c": {"type": "integer", "not": {"enum": [3]}},
            "d": {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": True},
            "e": {"type": "array", "minItems": 1, "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        },
    }
    found = Structure(schema)
    assert found.problems({"a": 7, "b": 7, "c": 4, "d": {"x": 1}, "e": ["a"]}) == []
    bad = {"a": 3, "b": 3, "c": 3, "d": {}, "e": []}
    assert [problem.path for problem in found.problems(bad)] == ["a", "b", "c", "d", "e"]
    assert [problem.path for problem in found.problems({"e": ["a", "a"]})] == ["e[1]"]


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)b", "[[:alpha:]]"])
def test_patterns_that_mean_something_else_here_are_left_alone(pattern: str) -> None:
    found = Structure({"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}})
    assert found.problems({"x": "a" * 200 + "!"}) == []


def test_patterns_count_for_texts_of_any_length() -> None:
    assert wrong(tags=["a" * 3000]) == {}
    for text in ("A" * 300, "abc\n"):
        assert "should match '^[a-z]+$'" in wrong(tags=[text])["spec.tags[0]"]
    found = Structure({"type": "object", "properties": {"x": {"type": "string", "pattern": "(a|b)*a(a|b){400}c"}}})
    (problem,) = found.problems({"x": "".join(random.Random(7).choices("ab", k=100_000))})
    assert "x in body is too long to be checked: it should match" in problem.message


SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", 7]),
            "default": st.none() | st.integers(0, 2) | st.just({}) | st.just("x"),
            "nullable": st.booleans(),
            "enum": st.lists(st.integers(0, 2), max_size=2) | st.just("x"),
            "minimum": st.integers(0, 2) | st.just("x"),
            "pattern": st.sampled_from(["^a", "(", "a*b*"]),
            "required": st.lists(st.sampled_from("ab"), max_size=1) | st.just(7),
            "x-kubernetes-list-type": st.sampled_from(["map", "set", "atomic"]),
            "x-kubernetes-list-map-keys": st.just(["a"]),
            "x-kubernetes-preserve-unknown-fields": st.booleans(),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array"]),
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2) | st.just([1]),
            "items": inner,
            "additionalProperties": inner | st.booleans(),
            "oneOf": st.lists(inner, max_size=2),
            "not": inner,
        },
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.floats(0, 1) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=250, deadline=None)
@given(SCHEMAS, st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3))
def test_any_schema_and_object_have_an_answer(schema: Json, data: Json) -> None:
    kept = copy.deepcopy((schema, data))
    structure = Structure(schema)
    found = structure.filled(structure.pruned(data)[0])
    again, unknown = structure.pruned(found)
    assert unknown == []
    assert json.dumps(structure.filled(again)) == json.dumps(found)
    structure.problems(data)
    assert (schema, data) == kept


def test_what_nobody_will_check_is_told() -> None:
    text = {"type": "string", "pattern": "(?=a)b"}
    spec = {
        "type": "object",
        "x-kubernetes-validations": [{"rule": "self.a > 1"}],
        "properties": {"list": {"items": text}},
    }
    version = {"schema": {"openAPIV3Schema": {"properties": {"spec": spec}}}}
    root = "spec.versions[0].schema.openAPIV3Schema.properties.spec"
    first, second = unchecked({"spec": {"versions": [version]}})
    assert first == f"{root}: rules in CEL (x-kubernetes-validations) are not checked"
    assert second.startswith(f"{root}.properties.list.items.pattern: is not checked")
    assert unchecked({"spec": {"versions": [{"schema": {"openAPIV3Schema": SCHEMA}}]}}) == []
    assert unchecked({"spec": {"versions": [version] * 4}})[-1] == "and 3 more of that kind"
    for odd in ({}, {"spec": 1}, {"spec": {"versions": [1, {"schema": []}]}}):
        assert unchecked(odd) == []
