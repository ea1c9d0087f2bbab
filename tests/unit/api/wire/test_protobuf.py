"""Protobuf bodies: as real clients sent them, as written by hand, and as nobody should send them."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.wire.protobuf import decode
from korch.errors import InvalidError, MalformedError, TooLargeError, UnsupportedMediaTypeError

RECORDED = json.loads((Path(__file__).parent / "kubectl_bodies.json").read_text())  # sent by kubectl 1.37 and 1.32


def number(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def part(field: int, value: Any) -> bytes:
    """A field of a message: a number, text, bytes or the parts of a message."""
    if isinstance(value, int):
        return number(field << 3) + number(value)
    data = b"".join(value) if isinstance(value, list) else value.encode() if isinstance(value, str) else value
    return number(field << 3 | 2) + number(len(data)) + data


def body(api_version: str, kind: str, *parts: bytes) -> bytes:
    return b"k8s\x00" + part(1, [part(1, api_version), part(2, kind)]) + part(2, [*parts]) + part(3, "") + part(4, "")


def pod(*spec: bytes) -> dict[str, Any]:
    spec_of: dict[str, Any] = decode(body("v1", "Pod", part(2, [*spec]))).get("spec", {})
    return spec_of


def container(*parts: bytes) -> dict[str, Any]:
    found: dict[str, Any] = pod(part(2, [*parts]))["containers"][0]
    return found


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: one["object"]["kind"])
def test_what_kubectl_sent(recorded: dict[str, Any]) -> None:
    assert decode(bytes.fromhex(recorded["body"])) == recorded["object"]


def test_zero_stays_where_set_means_set() -> None:
    found = decode(body("apps/v1", "Deployment", part(2, [part(1, 0), part(5, 0), part(7, 0)])))
    assert found["spec"] == {"replicas": 0}
    assert pod(part(5, 0), part(11, 0), part(16, ""), part(30, 0)) == {
        "activeDeadlineSeconds": 0,
        "enableServiceLinks": False,
    }


def test_an_empty_selector_is_a_selector() -> None:
    assert decode(body("policy/v1", "PodDisruptionBudget", part(2, [part(2, b"")])))["spec"] == {"selector": {}}


def test_negative_numbers_times_and_owner_references() -> None:
    meta = [
        *(part(1, "a"), part(7, -3), part(8, [part(1, 1700000000), part(2, 0)]), part(9, b"")),
        part(13, [part(1, "Job"), part(3, "j"), part(6, 1), part(7, 0)]),
        part(14, "x"),
        part(14, "y"),
        part(17, [part(1, "m"), part(7, [part(1, '{"f:spec":{}}')])]),
    ]
    assert decode(body("v1", "Pod", part(1, meta)))["metadata"] == {
        "name": "a",
        "generation": -3,
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "ownerReferences": [{"kind": "Job", "name": "j", "controller": True, "blockOwnerDeletion": False}],
        "finalizers": ["x", "y"],
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
    }


def test_micro_times() -> None:
    found = decode(body("coordination.k8s.io/v1", "Lease", part(2, [part(4, [part(1, 1), part(2, 5000)])])))
    assert found["spec"] == {"renewTime": "1970-01-01T00:00:01.000005Z"}


def test_members_of_inlined_messages_stand_in_their_holder() -> None:
    assert container(part(7, [part(1, "X"), part(3, [part(4, [part(1, [part(1, "s")]), part(2, "k")])])])) == {
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    }
    probe = [part(1, [part(2, [part(1, "/h"), part(2, [part(1, 0), part(2, 80), part(3, "")])])]), part(4, 5)]
    assert container(part(10, probe)) == {"livenessProbe": {"httpGet": {"path": "/h", "port": 80}, "periodSeconds": 5}}
    assert pod(part(1, [part(1, "tmp"), part(2, [part(2, b"")])]))["volumes"] == [{"name": "tmp", "emptyDir": {}}]


def test_quantities_and_numbers_or_text() -> None:
    limits = [part(1, "cpu"), part(2, [part(1, "250m")])]
    assert container(part(8, [part(1, limits)])) == {"resources": {"limits": {"cpu": "250m"}}}
    surge = [
        part(1, "RollingUpdate"),
        part(2, [part(1, [part(1, 0), part(2, 0)]), part(2, [part(1, 1), part(3, "25%")])]),
    ]
    found = decode(body("apps/v1", "Deployment", part(2, [part(4, surge)])))
    rolling = {"maxUnavailable": 0, "maxSurge": "25%"}
    assert found["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}


def test_empty_items_of_lists_and_maps_stay() -> None:
    assert container(part(4, ""), part(4, "a")) == {"args": ["", "a"]}
    assert decode(body("v1", "ConfigMap", part(2, [part(1, "k")])))["data"] == {"k": ""}
    assert decode(body("v1", "Secret", part(2, [part(1, "k"), part(2, b"\xff")])))["data"] == {"k": "/w=="}


def test_numbers_may_be_packed() -> None:
    assert pod(part(14, [part(4, number(5) + number(600))])) == {"securityContext": {"supplementalGroups": [5, 600]}}
    assert pod(part(14, [part(4, 5), part(4, 600)])) == {"securityContext": {"supplementalGroups": [5, 600]}}


def test_unknown_fields_are_skipped() -> None:
    fixed = number(900 << 3 | 1) + b"8 bytes!" + number(901 << 3 | 5) + b"four"
    assert pod(part(999, "new"), part(998, 7), fixed, part(16, "h")) == {"hostname": "h"}


def test_options_of_deletions_come_under_any_version() -> None:
    options = [part(1, 0), part(2, [part(1, "u")]), part(4, "Orphan"), part(5, "All")]
    wanted = {"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan", "dryRun": ["All"]}
    for version in ("v1", "policy/v1"):
        assert (
            decode(body(version, "DeleteOptions", *options))
            == {"apiVersion": version, "kind": "DeleteOptions"} | wanted
        )


def test_kinds_that_are_not_read_are_an_unsupported_type() -> None:
    with pytest.raises(
        UnsupportedMediaTypeError, match="unknown format - accepted media types include: application/json"
    ):
        decode(body("v1", "Widget"))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"k8s",
        b'{"kind":"Pod"}',
        body("v1", "Pod", part(2, 7)),  # a number where a message stands
        body("v1", "Pod", part(2, [part(5, "text")])),
        body("v1", "Pod", part(1, [part(1, b"\xff\xfe")])),
        body("v1", "Pod", part(1, [part(8, [part(1, 1 << 62)])])),
        body("v1", "Pod", part(1, [part(8, [part(1, 1), part(2, 1 << 40)])])),
        body("v1", "Pod", part(1, [part(17, [part(7, [part(1, "{")])])])),
        body("v1", "Pod", part(1, [part(17, [part(7, [part(1, "[" * 500 + "]" * 500)])])])),
        body("v1", "Pod", b"\x0b"),  # wire type 3
        body("v1", "Pod", b"\x02\x00"),  # field 0
        body("v1", "Pod", b"\xff" * 11),
        body("v1", "Pod", part(2, "x"))[:-1] + b"\x7f",
        b"k8s\x00" + part(1, [part(1, "v1"), part(2, "Pod")]) + part(3, "gzip"),
    ],
)
def test_what_cannot_be_read_is_a_bad_request(wrong: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        decode(wrong)
    assert caught.value.http_status == 400


def test_a_bomb_of_empty_messages_is_too_large() -> None:
    with pytest.raises(TooLargeError):
        decode(body("v1", "Pod", part(2, part(2, b"") * 250_000)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(RECORDED), st.data())
def test_damaged_bodies_are_an_object_or_a_clear_error(recorded: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray.fromhex(recorded["body"])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidError):
        json.dumps(decode(bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["Pod", "Secret", "Event", "DeleteOptions"]), st.binary(max_size=60))
def test_noise_is_an_object_or_a_clear_error(kind: str, noise: bytes) -> None:
    with contextlib.suppress(InvalidError):
        json.dumps(decode(body("v1", kind, noise)))
