"""Structural schemas of custom kinds: what an object lacks is filled in, what the schema does not know is dropped, what
it does not allow is told. Pure; follows Kubernetes' rules for CustomResourceDefinitions (apiextensions.k8s.io/v1).
"""

import copy
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from korch.resources.problems import Problem

Schema = Mapping[str, Any]
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_OBJECT = ("apiVersion", "kind", "metadata")  # of every object, whatever the schema says
_DEPTH = 64


def completed(data: Any, schema: Schema) -> Any:
    """The data with the schema's defaults; the data itself is not changed."""
    if isinstance(data, dict):
        properties = _map(schema, "properties")
        made = {key: completed(value, _child(schema, key)) for key, value in data.items()}
        for key, inner in properties.items():
            if key not in made and isinstance(inner, Mapping) and "default" in inner:
                made[key] = completed(copy.deepcopy(inner["default"]), inner)
        return made
    if isinstance(data, list):
        return [completed(item, _map(schema, "items")) for item in data]
    return data


def unknown(data: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Paths of fields that the schema does not know, and that are dropped."""
    if isinstance(data, dict):
        for key, value in data.items():
            where = f"{path}.{key}" if path else key
            if not path and key in _OBJECT:
                continue
            if _knows(schema, key):
                yield from unknown(value, _child(schema, key), where)
            else:
                yield where
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from unknown(item, _map(schema, "items"), f"{path}[{index}]")


def pruned(data: Any, schema: Schema, *, top: bool = True) -> Any:
    """The data without what the schema does not know."""
    if isinstance(data, dict):
        return {
            key: value if top and key in _OBJECT else pruned(value, _child(schema, key), top=False)
            for key, value in data.items()
            if (top and key in _OBJECT) or _knows(schema, key)
        }
    if isinstance(data, list):
        return [pruned(item, _map(schema, "items"), top=False) for item in data]
    return data


def problems(data: Any, schema: Schema, path: str = "", depth: int = 0) -> Iterator[Problem]:
    """Everything that the schema does not allow."""
    if depth > _DEPTH:
        yield Problem(path, "is nested too deep")
        return
    if data is None:
        if path and not schema.get("nullable"):
            yield Problem(path, "must not be null")
        return
    wrong = _type_problem(data, schema)
    if wrong:
        yield Problem(path, wrong)
        return
    yield from (Problem(path, text) for text in _bounds(data, schema))
    if isinstance(data, dict):
        for key in schema.get("required") or ():
            if key not in data:
                yield Problem(f"{path}.{key}" if path else str(key), "Required value")
        for key, value in data.items():
            if path or key not in _OBJECT:
                yield from problems(value, _child(schema, key), f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from problems(item, _map(schema, "items"), f"{path}[{index}]", depth + 1)
    yield from _combined(data, schema, path, depth)


def _combined(data: Any, schema: Schema, path: str, depth: int) -> Iterator[Problem]:
    for inner in _list(schema, "allOf"):
        yield from problems(data, inner, path, depth + 1)
    for word in ("anyOf", "oneOf"):
        options = _list(schema, word)
        count = sum(not any(problems(data, inner, path or "spec", depth + 1)) for inner in options)
        if options and (count == 0 or (word == "oneOf" and count > 1)):
            yield Problem(path, f"must fit {'one' if word == 'oneOf' else 'any'} of {len(options)} schemas")
    banned = _map(schema, "not")
    if banned and not any(problems(data, banned, path or "spec", depth + 1)):
        yield Problem(path, "must not fit the schema")


def _type_problem(data: Any, schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(data, str) or _is_int(data)
        return "" if fits else "must be an integer or a string"
    wanted = schema.get("type")
    fits = {
        "object": isinstance(data, dict),
        "array": isinstance(data, list),
        "string": isinstance(data, str),
        "boolean": isinstance(data, bool),
        "integer": _is_int(data) or (isinstance(data, float) and data.is_integer()),
        "number": _is_int(data) or isinstance(data, float),
    }.get(str(wanted), True)
    return "" if fits else f"must be of type {wanted}"


def _bounds(data: Any, schema: Schema) -> Iterator[str]:
    values = schema.get("enum")
    if isinstance(values, list) and data not in values:
        yield f"Unsupported value: {data!r}: supported values: " + ", ".join(map(repr, values))
    if isinstance(data, int | float) and not isinstance(data, bool):
        low, high, step = (_number(schema, key) for key in ("minimum", "maximum", "multipleOf"))
        if low is not None and (data <= low if schema.get("exclusiveMinimum") is True else data < low):
            yield f"must be at least {low}"
        if high is not None and (data >= high if schema.get("exclusiveMaximum") is True else data > high):
            yield f"must be at most {high}"
        if step and data % step:
            yield f"must be a multiple of {step}"
    for kind, word in ((str, "Length"), (list, "Items"), (dict, "Properties")):
        if isinstance(data, kind):
            low, high = _number(schema, f"min{word}"), _number(schema, f"max{word}")
            if low is not None and len(data) < low:
                yield f"is too short: at least {low}"
            if high is not None and len(data) > high:
                yield f"is too long: at most {high}"
    pattern = schema.get("pattern")
    if isinstance(data, str) and isinstance(pattern, str) and not _matches(pattern, data):
        yield f"must match {pattern}"


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:
        return None  # a pattern of RE2 that Python does not read: it is not checked


def _matches(pattern: str, text: str) -> bool:
    found = _compiled(pattern)
    return found is None or len(text) > 4096 or found.search(text) is not None


def _is_int(data: Any) -> bool:
    return isinstance(data, int) and not isinstance(data, bool)


def _number(schema: Schema, key: str) -> int | float | None:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _map(schema: Schema, key: str) -> Schema:
    found = schema.get(key)
    return found if isinstance(found, Mapping) else {}


def _list(schema: Schema, key: str) -> list[Schema]:
    found = schema.get(key)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _child(schema: Schema, key: str) -> Schema:
    return _map(_map(schema, "properties"), key) or _map(schema, "additionalProperties")


def _knows(schema: Schema, key: str) -> bool:
    if schema.get(_PRESERVE) is True or key in _map(schema, "properties"):
        return True
    if schema.get("additionalProperties"):
        return True
    embedded = schema.get("x-kubernetes-embedded-resource") is True
    return not schema or (embedded and key in _OBJECT)
