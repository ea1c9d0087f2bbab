"""Objects to JSON and back: the one place where wire dicts and typed objects meet."""

from typing import Any, TypeVar

import msgspec

from korch.errors import InvalidError
from korch.resources.kinds import Kind, kind_of
from korch.resources.meta import Object, ObjectMeta

T = TypeVar("T", bound=Object)


def encode(obj: Object) -> bytes:
    """Compact JSON, with apiVersion and kind filled in."""
    return msgspec.json.encode(typed(obj))


def typed(obj: T) -> T:
    """The object with its apiVersion and kind filled in."""
    kind = kind_of(obj)
    if obj.api_version == kind.api_version and obj.kind == kind.name:
        return obj
    return msgspec.structs.replace(obj, api_version=kind.api_version, kind=kind.name)


def decode(kind: Kind, data: bytes) -> Object:
    """A stored object; unknown fields are dropped (a newer korch may have written them)."""
    try:
        return msgspec.json.decode(data, type=kind.type)
    except msgspec.MsgspecError as error:
        raise InvalidError(f"{kind.name}: {error}") from error


def to_dict(obj: Object) -> dict[str, Any]:
    """Plain dicts, lists and scalars, as in a manifest."""
    result: dict[str, Any] = msgspec.json.decode(encode(obj))  # to_builtins would leave tuples
    return result


def from_dict(kind: Kind, data: dict[str, Any]) -> Object:
    """A typed object from plain data; `InvalidError` names the path of a value of the wrong type."""
    try:
        return msgspec.convert(data, type=kind.type)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{kind.name}: {error}") from error


def with_meta(obj: T, **changes: Any) -> T:
    """The object with some fields of its metadata replaced."""
    meta: ObjectMeta = msgspec.structs.replace(obj.metadata, **changes)
    return msgspec.structs.replace(obj, metadata=meta)
