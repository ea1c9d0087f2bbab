"""Protobuf bodies as clients send them, decoded to the JSON form of the object. Nothing is ever encoded.

Unknown fields are skipped, as the format asks; all that is wrong is one `MalformedError`, whatever the bytes are.
"""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from korch.api.wire.protobuf_table import Field, fields_of, message_of
from korch.api.wire.tree import check_bounds
from korch.errors import MalformedError, TooLargeError, UnsupportedMediaTypeError

_MAGIC = b"k8s\x00"
_MAX_VALUES = 200_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS = range(-62_135_596_800, 253_402_300_800)  # seconds of the years 1 to 9999


def decode(body: bytes) -> dict[str, Any]:
    """The object in a body of type application/vnd.kubernetes.protobuf, with its apiVersion and kind.

    `MalformedError` when it cannot be read, `UnsupportedMediaTypeError` for a kind that is read from JSON only.
    """
    if not body.startswith(_MAGIC):
        raise MalformedError("the body is not protobuf as Kubernetes wraps it")
    reader = _Reader(body)
    envelope = {number: value for number, value in reader.entries(len(_MAGIC), len(body)) if isinstance(value, range)}
    kind = {n: reader.text(v) for n, v in reader.entries_of(envelope.get(1)) if isinstance(v, range) and n in (1, 2)}
    if reader.text(envelope.get(3)):
        raise MalformedError("the body is compressed")
    api_version, name = kind.get(1, ""), kind.get(2, "")
    message = message_of(api_version, name)
    if message is None:
        raise UnsupportedMediaTypeError(
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml",
            hint=f'Send {name or "this"} ("{api_version}") as JSON.',
        )
    return {"apiVersion": api_version, "kind": name, **reader.message(message, envelope.get(2) or range(0))}


@dataclass(slots=True)
class _Reader:
    """One body; messages in it are ranges of its bytes."""

    data: bytes
    values: int = 0

    def message(self, type_: str, span: range) -> dict[str, Any]:
        """The JSON form of a message: fields in the order of the bytes, empty ones left out."""
        fields = fields_of(type_)
        assert fields is not None
        result: dict[str, Any] = {}
        for number, raw in self.entries_of(span):
            field = fields.get(number)
            if field is None:
                continue
            if field.repeated:
                result.setdefault(field.name, []).extend(self._items(field, raw))
            elif field.type.startswith("map"):
                key, value = self._entry(field, raw)
                result.setdefault(field.name, {})[key] = value
            else:
                self._put(result, field, self._value(field.type, raw))
        return result

    def _put(self, result: dict[str, Any], field: Field, value: Any) -> None:
        if not field.name:
            result.update(value)
        elif value or (field.kept and value is not None):
            result[field.name] = value
        else:
            result.pop(field.name, None)

    def _items(self, field: Field, raw: "int | range") -> list[Any]:
        if field.type == "int" and isinstance(raw, range):  # packed
            found, at = [], raw.start
            while at < raw.stop:
                number, at = self._varint(at, raw.stop)
                found.append(_signed(number))
                self._count()
            return found
        return [self._value(field.type, raw)]

    def _entry(self, field: Field, raw: "int | range") -> tuple[str, Any]:
        """A key and a value of a map."""
        type_ = field.type[4:-1] or "text"
        parts = dict(self.entries_of(self._span(raw)))
        value = parts.get(2)
        return self.text(parts.get(1)), self._value(type_, range(0) if value is None else value)

    def _value(self, type_: str, raw: "int | range") -> Any:
        match type_:
            case "int" | "bool":
                if isinstance(raw, range):
                    raise MalformedError("a number of the protobuf body is not written as one")
                return bool(raw) if type_ == "bool" else _signed(raw)
            case "text":
                return self.text(raw)
            case "bytes":
                return base64.b64encode(self._bytes(raw)).decode()
            case "json":
                return self._json(raw)
            case "Time" | "MicroTime":
                return self._time(self._span(raw), micro=type_ == "MicroTime")
            case "Quantity":
                return self.text(dict(self.entries_of(self._span(raw))).get(1))
            case "IntOrString":
                parts = dict(self.entries_of(self._span(raw)))
                return self.text(parts.get(3)) if parts.get(1) else self._value("int", parts.get(2, 0))
        return self.message(type_, self._span(raw))

    def _json(self, raw: "int | range") -> Any:
        text = self.text(dict(self.entries_of(self._span(raw))).get(1))
        try:
            found = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:
            raise MalformedError("fieldsV1 in the protobuf body is not JSON") from error
        check_bounds(found, "fieldsV1")
        return found

    def _time(self, span: range, *, micro: bool) -> str | None:
        """RFC 3339, or None for a time that is not set."""
        if not span:
            return None
        parts = dict(self.entries_of(span))
        seconds, nanos = (self._value("int", parts.get(number, 0)) for number in (1, 2))
        if seconds not in _YEARS or not 0 <= nanos < 1_000_000_000:
            raise MalformedError("a time of the protobuf body is out of range")
        found = _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
        return f"{found:%Y-%m-%dT%H:%M:%S.%fZ}".zfill(27) if micro else f"{found:%Y-%m-%dT%H:%M:%SZ}".zfill(20)

    def text(self, raw: "int | range | None") -> str:
        """The text of a field; "" for one that is not there."""
        if raw is None:
            return ""
        try:
            return self._bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise MalformedError("a text of the protobuf body is not UTF-8") from error

    def _bytes(self, raw: "int | range") -> bytes:
        span = self._span(raw)
        return self.data[span.start : span.stop]

    def _span(self, raw: "int | range") -> range:
        if not isinstance(raw, range):
            raise MalformedError("a field of the protobuf body is of the wrong type")
        return raw

    # --- the wire format ---

    def entries_of(self, span: range | None) -> "list[tuple[int, int | range]]":
        """As `entries`, for a range or nothing."""
        return self.entries(span.start, span.stop) if span else []

    def entries(self, start: int, end: int) -> "list[tuple[int, int | range]]":
        """Field numbers and values between two places: a number, or the range of what has a length."""
        found: list[tuple[int, int | range]] = []
        at = start
        while at < end:
            self._count()
            tag, at = self._varint(at, end)
            number, wire_type = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise MalformedError("the protobuf body has a field without a number")
            match wire_type:
                case 0:
                    value, at = self._varint(at, end)
                    found.append((number, value))
                    continue
                case 2:
                    length, at = self._varint(at, end)
                case 1 | 5:
                    length = 8 if wire_type == _FIXED64 else 4
                case _:
                    raise MalformedError(f"the protobuf body has wire type {wire_type}")
            if length > end - at:
                raise MalformedError("the protobuf body is cut short")
            if wire_type == _BYTES:
                found.append((number, range(at, at + length)))
            at += length
        return found

    def _count(self) -> None:
        self.values += 1
        if self.values > _MAX_VALUES:
            raise TooLargeError(f"the protobuf body has more than {_MAX_VALUES:,} values")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        result = shift = 0
        while True:
            if at >= end or shift > 63:
                raise MalformedError("the protobuf body is cut short")
            byte = self.data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & 0xFFFF_FFFF_FFFF_FFFF, at
            shift += 7


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
