"""Frames of exec and attach."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.api.streams.channels import (
    V4,
    V5,
    Data,
    End,
    Size,
    choose_protocol,
    decode,
    encode,
    exit_frame,
    failure_frame,
)


@given(st.integers(0, 3), st.binary(min_size=1))
def test_what_is_encoded_is_decoded(channel: int, data: bytes) -> None:
    assert decode(encode(channel, data)) == Data(channel, data)


@given(st.binary())
def test_any_bytes_mean_something_or_nothing(message: bytes) -> None:
    assert decode(message) is None or len(message) > 1


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        (b"", None),
        (b"\x00", None),
        (b"\x00x", Data(0, b"x")),
        (b"\xff\x00", End(0)),
        (b'\x04{"Width":80,"Height":24}', Size(80, 24)),
        (b'\x04{"Width":0,"Height":24}', None),
        (b'\x04{"Width":true,"Height":24}', None),
        (b'\x04{"Width":99999999999,"Height":24}', None),
        (b'\x04{"Width":80}', None),
        (b"\x04[1,2]", None),
        (b"\x04" + b"[" * 100_000, None),
        (b"\x04\xff\xfe", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_clients_say(message: bytes, meaning: object) -> None:
    assert decode(message) == meaning


def test_one_of_the_offered_protocols_is_chosen_and_never_another() -> None:
    assert choose_protocol([V4, V5]) == V5
    assert choose_protocol([V4]) == V4
    assert choose_protocol([]) == ""
    assert choose_protocol(["base64.channel.k8s.io"]) is None


def test_the_last_frame_says_how_it_ended() -> None:
    assert exit_frame(0) == b'\x03{"metadata":{},"status":"Success"}'
    failed = json.loads(exit_frame(7)[1:])
    assert failed["reason"] == "NonZeroExitCode"
    assert failed["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert json.loads(failure_frame('a "b"')[1:])["message"] == 'a "b"'
