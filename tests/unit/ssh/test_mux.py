"""OpenSSH's ControlMaster protocol: messages as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.ssh import mux

FIELDS = st.lists(st.one_of(st.integers(0, 2**32 - 1), st.text()), max_size=6)


def test_a_session_request_is_laid_out_as_the_protocol_says() -> None:
    body = (
        b"\x10\x00\x00\x02"  # MUX_C_NEW_SESSION
        b"\0\0\0\1"  # request
        b"\0\0\0\0"  # reserved
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # terminal, X11, agent, subsystem
        b"\xff\xff\xff\xff"  # no escape character
        b"\0\0\0\0"  # no terminal type
        b"\0\0\0\2id"
    )
    assert mux.session_request("id", tty=False) == len(body).to_bytes(4, "big") + body


def test_a_forward_request_names_address_and_port() -> None:
    assert mux.forward_request("::1", 80)[-11:] == b"\0\0\0\3::1\0\0\0\x50"


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), FIELDS), max_size=4), st.data())
def test_messages_survive_any_cutting(messages: list[tuple[int, list[int | str]]], data: st.DataObject) -> None:
    wire = b"".join(mux.packed(kind, *fields) for kind, fields in messages)
    buffer, found = bytearray(), []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        buffer += wire[:size]
        wire = wire[size:]
        while (message := mux.unpack(buffer)) is not None:
            found.append(message)
    assert [message.kind for message in found] == [kind for kind, _ in messages]
    assert [mux.packed(message.kind)[4:] + message.body for message in found] == [
        mux.packed(kind, *fields)[4:] for kind, fields in messages
    ]
    assert buffer == b""


@pytest.mark.parametrize("size", [0, 3, mux.LONGEST_BYTES + 1])
def test_a_length_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(mux.MuxError, match=str(size)):
        mux.unpack(bytearray(size.to_bytes(4, "big") + bytes(8)))


def test_a_refusals_reason_is_read() -> None:
    message = mux.unpack(bytearray(mux.packed(mux.FAILURE, 1, "Session open refused by peer")))
    assert message is not None
    assert message.reason == "Session open refused by peer"
