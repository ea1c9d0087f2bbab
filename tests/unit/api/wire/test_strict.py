"""Bodies of all formats, bombs among them, and strict field validation."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.wire.strict import (
    MAX_BODY_BYTES,
    MAX_YAML_BYTES,
    PROTOBUF,
    duplicate_keys,
    parse_body,
    parse_patch,
    unknown_fields,
)
from korch.errors import InvalidError, MalformedError, TooLargeError, UnsupportedMediaTypeError
from korch.resources.misc import Secret
from korch.resources.pod import Pod
from korch.resources.workload import Deployment

APPLY = "application/apply-patch+yaml"


@pytest.mark.parametrize("content_type", ["", "application/json", "Application/JSON; charset=utf-8"])
def test_json_is_what_is_taken_without_a_type(content_type: str) -> None:
    assert parse_body(b'{"a": [1, true, null]}\n', content_type) == {"a": [1, True, None]}


def test_yaml_words_are_text_as_they_look() -> None:
    wanted = {"a": "yes", "b": [1, "0755"]}
    assert parse_body(b"# hello\na: yes\nb: [1, 0755]\n", "application/yaml") == wanted
    assert parse_patch(b"a: yes\nb: [1, 0755]\n", APPLY) == wanted


def test_apply_takes_json_and_yaml() -> None:
    assert parse_patch(b'{"a":"\\u00e9"}', APPLY) == {"a": "é"}
    assert parse_patch(b"{a: b, c: }", APPLY) == {"a": "b", "c": None}


def test_json_patches_may_be_lists() -> None:
    assert parse_patch(b'[{"op":"remove","path":"/a"}]', "application/json-patch+json") == [
        {"op": "remove", "path": "/a"}
    ]


def test_protobuf_is_read() -> None:
    recorded = json.loads((Path(__file__).parent / "kubectl_bodies.json").read_text())[0]
    assert parse_body(bytes.fromhex(recorded["body"]), PROTOBUF) == recorded["object"]


@pytest.mark.parametrize("content_type", ["application/cbor", "text/plain", "application/x-www-form-urlencoded"])
def test_other_types_are_refused(content_type: str) -> None:
    for parse in (parse_body, parse_patch):
        with pytest.raises(UnsupportedMediaTypeError, match="accepted media types include"):
            parse(b"{}", content_type)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", ""),
        (b" \n", ""),
        (b"[]", ""),
        (b"1", "application/json"),
        (b'{"a":1', ""),
        (b'{"a":NaN}', ""),
        (b'{"a":1e999}', ""),
        (b'{"a":9223372036854775808}', ""),
        (b'{"a":"\xff"}', ""),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", ""),
        (b'{"a":' * 90_000, ""),
        (b"[" * 100_000, "application/yaml"),
        (b"a: 9999999999999999999", "application/yaml"),
        (b"a: 1\na: 2", "application/yaml"),
        (b"a: 1\n---\nb: 1", "application/yaml"),
        (b"a: !!python/object:os.system x", "application/yaml"),
        (b"a: *nothing", "application/yaml"),
        (b"- 1", "application/yaml"),
        (b"\xff\xfe", "application/yaml"),
        (b"a: b: c", APPLY),
        (b"", APPLY),
        (b"just text", APPLY),
    ],
)
def test_what_cannot_be_read_is_a_bad_request(body: bytes, content_type: str) -> None:
    with pytest.raises(MalformedError) as caught:
        (parse_patch if content_type == APPLY else parse_body)(body, content_type)
    assert caught.value.http_status == 400


def test_bombs_are_refused() -> None:
    levels = "\n".join(f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 9))
    with pytest.raises(InvalidError, match="too large or too deep"):
        parse_body(f"a0: &a0 [x]\n{levels}".encode(), "application/yaml")
    with pytest.raises(TooLargeError):
        parse_body(b'{"a":"' + b"x" * MAX_BODY_BYTES + b'"}', "")
    with pytest.raises(TooLargeError):
        parse_body(b"a: " + b"x" * MAX_YAML_BYTES, "application/yaml")
    with pytest.raises(TooLargeError):
        parse_body(b'{"a":[' + b"0," * 600_000 + b"0]}", "")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["", "application/yaml", PROTOBUF, APPLY]))
def test_noise_is_an_object_or_a_clear_error(body: bytes, content_type: str) -> None:
    with contextlib.suppress(InvalidError):
        json.dumps((parse_patch if content_type == APPLY else parse_body)(body, content_type))


@settings(max_examples=200, deadline=None)
@given(st.text("ab:{}[],&*-?|>!%@'\"\n #0<~", max_size=40))
def test_odd_yaml_is_an_object_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(InvalidError):
        json.dumps(parse_body(text.encode(), "application/yaml"))


# --- strict validation ---


def test_fields_that_nobody_knows_are_named_with_their_path() -> None:
    container = {"name": "a", "imagee": "b", "ports": [{"containerPort": 80, "prot": "TCP"}]}
    data: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "labels": {"any": "thing"}, "lables": {}, "creationTimestamp": None},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [container]}}, "strateggy": {}},
        "status": {"whatever": 1},
        "extra": 1,
    }
    assert unknown_fields(data, Deployment) == [
        "metadata.lables",
        "spec.template.spec.containers[0].imagee",
        "spec.template.spec.containers[0].ports[0].prot",
        "spec.strateggy",
        "extra",
    ]


def test_fields_with_a_rule_are_known() -> None:
    spec = {"dnsPolicy": "None", "priority": 7, "hostNetwork": True, "volumes": [{"name": "v", "nfs": {"server": "a"}}]}
    assert unknown_fields({"metadata": {"uid": "x"}, "spec": spec}, Pod) == []
    inside = {"spec": {"status": 1, "containers": [{"securityContext": {"fsGroup": 1}}]}}
    assert unknown_fields(inside, Pod) == ["spec.status", "spec.containers[0].securityContext.fsGroup"]


def test_values_of_maps_have_no_fields_of_their_own() -> None:
    assert unknown_fields({"data": {"any": "x"}, "stringData": {"y": "z"}}, Secret) == []
    assert unknown_fields({"dataa": {}}, Secret) == ["dataa"]


def test_values_of_the_wrong_type_are_not_its_matter() -> None:
    assert unknown_fields({"spec": "text", "metadata": 7}, Pod) == []
    assert unknown_fields({"spec": {"containers": {"a": 1}}}, Pod) == []


def test_keys_given_twice_are_named_with_their_path() -> None:
    raw = b'{"spec":{"a":1,"a":2,"list":[{"b":1,"c":{"d":1,"d":2},"b":2}],"a":3},"spec":{}}'
    assert duplicate_keys(raw) == ["spec.a", "spec.list[0].c.d", "spec.list[0].b", "spec"]
    assert duplicate_keys(b'{"a":1,"b":{"a":1}}') == []
    assert duplicate_keys(b"not json") == []
    assert duplicate_keys(b"[" * 100_000) == []
