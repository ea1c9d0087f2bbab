"""Bodies of requests as plain data, and what strict validation finds wrong in them. Bounded, whatever comes in."""

import json
from typing import Any

import msgspec
from msgspec import inspect

from korch.api.wire.patches import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, media_type
from korch.api.wire.protobuf import decode
from korch.api.wire.tree import check_bounds
from korch.errors import InvalidError, MalformedError, TooLargeError, UnsupportedMediaTypeError
from korch.resources.fields import context_of, rule_for, struct_fields
from korch.resources.meta import Object
from korch.resources.yamltree import load_trees, plain

MAX_BODY_BYTES = 3 * 1024 * 1024
MAX_YAML_BYTES = 512 * 1024  # half a second of reading; as JSON it would be milliseconds, and clients send that

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


def parse_body(body: bytes, content_type: str) -> dict[str, Any]:
    """The object in a body; a missing content type means JSON.

    `MalformedError` (400) when there is none, `UnsupportedMediaTypeError` (415) when its format is not known.
    """
    match media_type(content_type):
        case "application/vnd.kubernetes.protobuf":
            _check_size(body, MAX_BODY_BYTES)
            found: Any = decode(body)
        case "" | "application/json":
            found = _from_json(body)
        case "application/yaml" | "application/x-yaml":
            found = _from_yaml(body)
        case _:
            raise _unknown_format(JSON, YAML, PROTOBUF)
    if not isinstance(found, dict):
        raise MalformedError("the body is no object")
    return found


def parse_patch(body: bytes, content_type: str) -> Any:
    """What a PATCH body holds: a list of operations, or a mapping."""
    match media_type(content_type):
        case "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json":
            return _from_json(body)
        case "application/apply-patch+yaml":
            found = _from_yaml(body)
            if not isinstance(found, dict):
                raise MalformedError("the body is no object")
            return found
    raise _unknown_format(JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)


def duplicate_keys(raw: bytes) -> list[str]:
    """Paths of keys that a JSON body gives twice, in order. In YAML that is a mistake which `parse_body` refuses."""
    twice = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal twice
        twice = twice or len(dict(pairs)) < len(pairs)

    try:
        json.loads(raw, object_pairs_hook=look)
        found = json.loads(raw, object_pairs_hook=_Pairs) if twice else None
    except (ValueError, RecursionError):
        return []
    return list(dict.fromkeys(_repeated(found, "")))


def unknown_fields(data: dict[str, Any], type_: type[msgspec.Struct]) -> list[str]:
    """Paths of fields that neither the type nor a rule for its fields knows: misspelled ones, most likely."""
    found: list[str] = []
    _look_at_struct(data, type_, type_.__name__, "", found)
    return found


# --- bodies ---


def _unknown_format(*accepted: str) -> UnsupportedMediaTypeError:
    names = ", ".join(accepted)
    return UnsupportedMediaTypeError(
        f"the body of the request was in an unknown format - accepted media types include: {names}"
    )


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise TooLargeError(f"the body has {len(body):,} bytes; {limit:,} are allowed")
    if not body.strip():
        raise MalformedError("the body is empty")


def _from_json(body: bytes) -> Any:
    _check_size(body, MAX_BODY_BYTES)
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise MalformedError("the body is nested too deep") from error
    check_bounds(found, "the body")
    return found


def _from_yaml(body: bytes) -> Any:
    """YAML; JSON is read as such, which is a hundred times faster."""
    if body.lstrip()[:1] == b"{":
        try:
            return _from_json(body)
        except MalformedError:
            pass  # a mapping in YAML's own flow style
    _check_size(body, MAX_YAML_BYTES)
    try:
        trees = load_trees(body.decode(), "body")
    except (InvalidError, UnicodeDecodeError) as error:
        raise MalformedError(f"the body is not YAML: {error}") from error
    if len(trees) != 1:
        raise MalformedError(f"the body has {len(trees) or 'no'} documents; one is wanted")
    found = plain(trees[0])
    check_bounds(found, "the body")
    return found


# --- strict validation ---


class _Pairs:
    """A JSON mapping as written: keys may come twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _repeated(value: Any, path: str) -> list[str]:
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _repeated(item, f"{path}[{index}]")]
    if not isinstance(value, _Pairs):
        return []
    seen: set[str] = set()
    found: list[str] = []
    for key, item in value.pairs:
        where = f"{path}.{key}" if path else key
        if key in seen:
            found.append(where)
        seen.add(key)
        found += _repeated(item, where)
    return found


def _look_at_struct(data: Any, type_: type[msgspec.Struct], context: str, path: str, found: list[str]) -> None:
    if not isinstance(data, dict):
        return  # a value of the wrong type is not this function's matter
    fields = struct_fields(type_)
    for name, value in data.items():
        where = f"{path}.{name}" if path else name
        if name == "status" and issubclass(type_, Object):
            continue  # what is in it is the server's
        if name in fields:
            _look_at(value, fields[name].type, (context, name), where, found)
        elif name == "status" or rule_for(context, name) is None:
            found.append(where)


def _look_at(value: Any, type_: inspect.Type, holder: tuple[str, str], path: str, found: list[str]) -> None:
    match type_:
        case inspect.UnionType():
            for option in type_.types:
                _look_at(value, option, holder, path, found)
        case inspect.StructType():
            _look_at_struct(value, type_.cls, context_of(*holder, type_.cls), path, found)
        case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
            for index, item in enumerate(value):
                _look_at(item, type_.item_type, holder, f"{path}[{index}]", found)
        case inspect.DictType() if isinstance(value, dict):
            for key, item in value.items():
                _look_at(item, type_.value_type, holder, f"{path}.{key}", found)
        case _:
            return
