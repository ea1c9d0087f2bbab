"""SPDY/3.1, as far as a port-forward needs it."""

import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.api.streams import spdy

STREAMS = st.integers(1, 2**31 - 1)
HEADERS = st.dictionaries(st.text(max_size=9), st.text(max_size=30), max_size=4)
FRAMES = st.one_of(
    st.builds(spdy.Opened, STREAMS, HEADERS, st.booleans()),
    st.builds(spdy.Data, STREAMS, st.binary(max_size=300), st.booleans()),
    st.builds(spdy.Reset, STREAMS),
    st.builds(spdy.Ping, st.integers(0, 2**32 - 1)),
)


def encoded(writer: spdy.Writer, frame: spdy.Frame) -> bytes:
    match frame:
        case spdy.Opened(stream, headers, fin):
            return writer.opened(stream, headers, fin=fin)
        case spdy.Data(stream, data, fin):
            return spdy.data(stream, data, fin=fin)
        case spdy.Reset(stream):
            return spdy.reset(stream, 5)
        case spdy.Ping(number):
            return spdy.ping(number)
    raise AssertionError(frame)


def read(reader: spdy.Reader, *pieces: bytes) -> list[spdy.Frame]:
    return [frame for piece in pieces for frame in reader.feed(piece)]


def test_the_dictionary_is_the_one_that_everybody_has() -> None:
    assert len(spdy.dictionary()) == 1423
    assert zlib.adler32(spdy.dictionary()) == 0xE3C6A7C2  # stands in the first bytes of every SPDY/3 header block


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_frames_come_back_however_they_are_cut(frames: list[spdy.Frame], sizes: list[int]) -> None:
    writer = spdy.Writer()
    whole = b"".join(encoded(writer, frame) for frame in frames)
    pieces: list[bytes] = []
    at = 0
    while at < len(whole):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(whole[at : at + size])
        at += size
    assert read(spdy.Reader(), *pieces) == frames


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_noise_is_refused_or_means_nothing(pieces: list[bytes]) -> None:
    with suppress(spdy.SpdyError):
        assert len(read(spdy.Reader(), *pieces)) <= sum(map(len, pieces)) // 8


@given(st.lists(FRAMES, min_size=1, max_size=4), st.data())
def test_a_spoilt_byte_is_refused_or_means_something_else(frames: list[spdy.Frame], draw: st.DataObject) -> None:
    writer = spdy.Writer()
    whole = bytearray(b"".join(encoded(writer, frame) for frame in frames))
    whole[draw.draw(st.integers(0, len(whole) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(spdy.SpdyError):
        assert len(read(spdy.Reader(), bytes(whole))) <= len(whole) // 8


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">HHI", 0x8002, 1, 10) + bytes(10),
        struct.pack(">II", 1, spdy.MOST_FRAME_BYTES + 1),
        struct.pack(">HHI", 0x8003, 1, 4) + bytes(4),
        struct.pack(">HHI", 0x8003, 3, 0),
        struct.pack(">HHI", 0x8003, 1, 20) + bytes(20),
    ],
    ids=["version", "too large", "short", "empty reset", "no headers"],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(spdy.SpdyError):
        read(spdy.Reader(), data)


def test_headers_that_swell_are_refused() -> None:
    swollen = spdy.Writer().opened(1, {"a": "x" * 2 * spdy.MOST_HEADER_BYTES})
    assert len(swollen) < 2000
    with pytest.raises(spdy.SpdyError, match="larger"):
        read(spdy.Reader(), swollen)


def test_what_means_nothing_here_is_left_out() -> None:
    reader = spdy.Reader()
    settings = struct.pack(">HHI", 0x8003, spdy.SETTINGS, 4) + bytes(4)
    window = struct.pack(">HHI", 0x8003, spdy.WINDOW_UPDATE, 8) + bytes(8)
    assert read(reader, settings + window + spdy.Writer().reply(3)) == []
