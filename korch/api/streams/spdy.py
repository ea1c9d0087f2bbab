"""The frames of SPDY/3.1 that a port-forward uses, from bytes and to bytes. Pure.

Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/ sections 2.2 and 2.6. Whatever bytes come,
a `Reader` gives frames or raises `SpdyError`, and holds no more than one frame of `MOST_FRAME_BYTES`.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

MOST_FRAME_BYTES = 1 << 20
MOST_HEADER_BYTES = 1 << 16
FIN = 0x01
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_VERSION = 0x8003  # of a control frame
_LAST_31_BITS = 0x7FFFFFFF

_DICTIONARY_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_DICTIONARY_END = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


class SpdyError(Exception):
    """These bytes are no SPDY/3.1, or more than is taken."""


@dataclass(frozen=True, slots=True)
class Opened:
    """SYN_STREAM: the other side opens a stream."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `fin`: its last ones."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """RST_STREAM: a stream is over in both directions."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The other side opens no more streams."""


Frame = Opened | Data | Reset | Ping | GoAway


@cache
def dictionary() -> bytes:
    """Section 2.6.10.1: with what the compression of headers begins."""
    words = (word.replace("_", " ").encode() for word in _DICTIONARY_WORDS.split())
    return b"".join(struct.pack(">I", len(word)) + word for word in words) + _DICTIONARY_END.encode()


class Reader:
    """Bytes as they arrive, in whatever pieces, to frames."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._inflate = zlib.decompressobj(zdict=dictionary())

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now; those that mean nothing here are left out. Raises `SpdyError`."""
        self._held += data
        while len(self._held) >= 8:
            head, rest = struct.unpack_from(">II", self._held)
            size = rest & 0xFFFFFF
            if size > MOST_FRAME_BYTES:
                raise SpdyError(f"a frame of {size} bytes is more than is taken")
            if len(self._held) < 8 + size:
                return
            body = bytes(self._held[8 : 8 + size])
            del self._held[: 8 + size]
            if (frame := self._frame(head, rest >> 24, body)) is not None:
                yield frame

    def _frame(self, head: int, flags: int, body: bytes) -> Frame | None:
        if not head >> 31:
            return Data(head, body, bool(flags & FIN))
        if head >> 16 != _VERSION:
            raise SpdyError(f"version {head >> 16 & 0x7FFF} is not spoken here")
        match head & 0xFFFF:
            case 1:
                if len(body) < 10:
                    raise SpdyError("a SYN_STREAM is cut short")
                return Opened(_number(body), self._headers(body[10:]), bool(flags & FIN))
            case 2 | 8:  # SYN_REPLY, HEADERS: read for the sake of the compression's state
                self._headers(body[4:])
                return None
            case 3:
                return Reset(_number(body))
            case 6:
                return Ping(_number(body, bits=0xFFFFFFFF))
            case 7:
                return GoAway()
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, MOST_HEADER_BYTES)
        except zlib.error as error:
            raise SpdyError(f"headers that cannot be read: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError("headers are larger than is taken")
        words = list(_words(plain))
        return dict(zip(words[::2], words[1::2], strict=True))


def _words(plain: bytes) -> Iterator[str]:
    """Names and values in turn."""
    try:
        (count,) = struct.unpack_from(">I", plain)
        at = 4
        if count > len(plain) // 8:
            raise SpdyError("headers are cut short")
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">I", plain, at)
            at += 4
            if at + size > len(plain):
                raise SpdyError("headers are cut short")
            yield plain[at : at + size].decode("utf-8", "replace")
            at += size
    except struct.error as error:
        raise SpdyError("headers are cut short") from error


def _number(body: bytes, bits: int = _LAST_31_BITS) -> int:
    if len(body) < 4:
        raise SpdyError("a frame is cut short")
    return int.from_bytes(body[:4]) & bits


class Writer:
    """Frames to bytes, in the order in which they are sent: headers are compressed in one go from first to last."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=dictionary())

    def reply(self, stream: int) -> bytes:
        """SYN_REPLY without headers."""
        return _control(SYN_REPLY, 0, struct.pack(">I", stream) + self._block({}))

    def opened(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """SYN_STREAM."""
        body = struct.pack(">IIH", stream, 0, 0) + self._block(headers)
        return _control(SYN_STREAM, FIN if fin else 0, body)

    def _block(self, headers: Mapping[str, str]) -> bytes:
        plain = struct.pack(">I", len(headers))
        for pair in headers.items():
            for word in (text.encode() for text in pair):
                plain += struct.pack(">I", len(word)) + word
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def data(stream: int, payload: bytes, *, fin: bool = False) -> bytes:
    """DATA."""
    return struct.pack(">II", stream, (FIN << 24 if fin else 0) | len(payload)) + payload


def reset(stream: int, status: int) -> bytes:
    """RST_STREAM, with a code of section 2.6.3."""
    return _control(RST_STREAM, 0, struct.pack(">II", stream, status))


def ping(number: int) -> bytes:
    """PING."""
    return _control(PING, 0, struct.pack(">I", number))


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">HHI", _VERSION, kind, flags << 24 | len(body)) + body
