"""Custom objects against the schema of their definition (structural OpenAPI v3): pruned, filled with defaults, judged.

The words of a problem are those of Kubernetes. Rules in CEL (x-kubernetes-validations) are not looked at.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from korch.api.wire.fieldsets import children
from korch.api.wire.patterns import matcher
from korch.api.wire.shapes import Shape, shape_of_schema
from korch.api.wire.tree import copied, ident, same
from korch.errors import InvalidError
from korch.resources.problems import Problem
from korch.resources.times import parse_time

Schema = Mapping[str, Any]

_OPEN = "x-kubernetes-preserve-unknown-fields"
_ROOT = ("apiVersion", "kind", "metadata")
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_INTEGERS = {"int32": 2**31, "int64": 2**63}
_MOST_TOLD = 5


class Structure:
    """One version of a custom kind: make it once for its schema. `shape` tells how lists of its objects merge."""

    def __init__(self, schema: Schema) -> None:
        known = {name: one for name, one in _properties(schema).items() if name not in _ROOT}
        required = [name for name in _names(schema, "required") if name not in _ROOT]
        self._schema: Schema = {**schema, "properties": known, "required": required}
        self.shape = shape_of_schema(schema)

    def pruned(self, data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The object without fields that the schema does not know, and their paths."""
        unknown: list[str] = []
        body = _pruned(_body(data), self._schema, "", unknown)
        return {**_head(data), **body}, unknown

    def filled(self, data: dict[str, Any]) -> dict[str, Any]:
        """The object with the schema's defaults for what it lacks."""
        return {**_head(data), **_filled(_body(data), self._schema)}

    def problems(self, data: dict[str, Any]) -> list[Problem]:
        """What is wrong with the object, by path."""
        body = _body(data)
        return [*_judged(body, self._schema, ""), *_alike_items(body, self.shape, "")]


def unchecked(definition: Mapping[str, Any]) -> list[str]:
    """What a CustomResourceDefinition asks for and nobody will check, with the path of each; a few of them."""
    found: list[str] = []
    spec = definition.get("spec")
    versions = spec.get("versions") if isinstance(spec, dict) else None
    for index, version in enumerate(versions if isinstance(versions, list) else ()):
        schema = version.get("schema") if isinstance(version, dict) else None
        root = schema.get("openAPIV3Schema") if isinstance(schema, dict) else None
        found += _unchecked(root, f"spec.versions[{index}].schema.openAPIV3Schema")
    more = [f"and {len(found) - _MOST_TOLD} more of that kind"] if len(found) > _MOST_TOLD else []
    return found[:_MOST_TOLD] + more


def _unchecked(schema: Any, path: str) -> Iterator[str]:
    if isinstance(schema, list):
        for index, one in enumerate(schema):
            yield from _unchecked(one, f"{path}[{index}]")
    if not isinstance(schema, dict):
        return
    if schema.get("x-kubernetes-validations"):
        yield f"{path}: rules in CEL (x-kubernetes-validations) are not checked"
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and matcher(pattern) is None:
        yield f"{path}.pattern: is not checked, as it is no pattern that korch reads"
    for name in ("items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"):
        yield from _unchecked(schema.get(name), f"{path}.{name}")
    for name, one in _properties(schema).items():
        yield from _unchecked(one, f"{path}.properties.{name}")


def _head(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in _ROOT if name in data}


def _body(data: dict[str, Any]) -> dict[str, Any]:
    """All but what every object has, which is not the schema's matter."""
    return {name: value for name, value in data.items() if name not in _ROOT}


# --- reading schemas, which are data of users ---


def _properties(schema: Any) -> dict[str, Any]:
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, dict) else {}


def _names(schema: Schema, key: str) -> list[str]:
    found = schema.get(key)
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _inner(schema: Schema, key: str) -> Schema | None:
    found = schema.get(key)
    return found if isinstance(found, Mapping) else None


def _member(schema: Schema, name: str) -> Schema | None:
    """The schema of one member of a map; None when there is none."""
    found = _properties(schema).get(name)
    return found if isinstance(found, Mapping) else _inner(schema, "additionalProperties")


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# --- pruning and defaults ---


def _pruned(value: Any, schema: Schema, path: str, unknown: list[str]) -> Any:
    items = _inner(schema, "items")
    if isinstance(value, list) and items is not None:
        return [_pruned(item, items, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    free = bool(schema.get(_OPEN)) or schema.get("additionalProperties") is True
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    result = {}
    for name, item in value.items():
        where, known = _under(path, name), _member(schema, name)
        if known is not None:
            result[name] = _pruned(item, known, where, unknown)
        elif free or (embedded and name in _ROOT):
            result[name] = item
        else:
            unknown.append(where)
    return result


def _filled(value: Any, schema: Schema) -> Any:
    """With the defaults of what is missing; a null that may not be one counts as missing."""
    items = _inner(schema, "items")
    if isinstance(value, list) and items is not None:
        return [_filled(item, items) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for name, item in value.items():
        known = _member(schema, name)
        if item is None and known is not None and "default" in known and not known.get("nullable"):
            continue
        result[name] = item if known is None else _filled(item, known)
    for name, one in _properties(schema).items():
        if name not in result and isinstance(one, Mapping) and one.get("default") is not None:
            result[name] = _filled(copied(one["default"]), one)
    return result


# --- judging ---


def _judged(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    if value is None:
        if not schema.get("nullable") and "type" in schema:
            yield _wrong_type(value, str(schema["type"]), path)
        return
    wrong = _type_problem(value, schema, path)
    if wrong is not None:
        yield wrong
        return
    yield from _value_problems(value, schema, path)
    if isinstance(value, dict):
        yield from _map_problems(value, schema, path)
    elif isinstance(value, list):
        yield from _list_problems(value, schema, path)
    yield from _alternatives(value, schema, path)


def _type_problem(value: Any, schema: Schema, path: str) -> Problem | None:
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, int | str) and not isinstance(value, bool)
        return None if fits else _wrong_type(value, "integer,string", path)
    wanted = schema.get("type")
    if not isinstance(wanted, str) or wanted not in _TYPES:
        return None
    whole = wanted == "integer" and isinstance(value, float) and value.is_integer()
    fits = isinstance(value, _TYPES[wanted]) and isinstance(value, bool) == (wanted == "boolean")
    return None if fits or whole else _wrong_type(value, wanted, path)


def _wrong_type(value: Any, wanted: str, path: str) -> Problem:
    kinds = (("boolean", bool), ("integer", int), ("number", float), ("string", str), ("array", list), ("object", dict))
    is_ = next((name for name, type_ in kinds if isinstance(value, type_)), "null")
    return Problem(path, f'Invalid value: "{is_}": {path} in body must be of type {wanted}: "{is_}"')


def _invalid(value: Any, path: str, why: str) -> Problem:
    return Problem(path, f"Invalid value: {_shown(value)}: {path} in body {why}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= 100 else f"{text[:100]}..."


def _value_problems(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    allowed = schema.get("enum")
    if isinstance(allowed, list) and not any(same(value, one) for one in allowed):
        yield Problem(path, f"Unsupported value: {_shown(value)}: supported values: {', '.join(map(_shown, allowed))}")
    if isinstance(value, str):
        yield from _text_problems(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number_problems(value, schema, path)


def _limit(schema: Schema, name: str) -> Any:
    found = schema.get(name)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _text_problems(value: str, schema: Schema, path: str) -> Iterator[Problem]:
    least, most, pattern = _limit(schema, "minLength"), _limit(schema, "maxLength"), schema.get("pattern")
    if least is not None and len(value) < least:
        yield _invalid(value, path, f"should be at least {least} chars long")
    if most is not None and len(value) > most:
        yield Problem(path, f"Too long: may not be more than {most} bytes")
    found = matcher(pattern) if isinstance(pattern, str) else None
    fits = found is None or found.matches(value)
    if not fits:
        why = "is too long to be checked: it" if fits is None else ""
        yield _invalid(value, path, f"{why} should match '{pattern}'".strip())
    if schema.get("format") == "date-time" and not _is_time(value):
        yield _invalid(value, path, f"must be of type date-time: {_shown(value)}")


def _is_time(text: str) -> bool:
    try:
        parse_time(text)
    except InvalidError:
        return False
    return "T" in text.upper()


def _number_problems(value: float, schema: Schema, path: str) -> Iterator[Problem]:
    least, most, step = (_limit(schema, name) for name in ("minimum", "maximum", "multipleOf"))
    size = _INTEGERS.get(str(schema.get("format")))
    if least is not None and (value < least or (schema.get("exclusiveMinimum") is True and value == least)):
        or_equal = "" if schema.get("exclusiveMinimum") is True else " or equal to"
        yield _invalid(value, path, f"should be greater than{or_equal} {least}")
    if most is not None and (value > most or (schema.get("exclusiveMaximum") is True and value == most)):
        or_equal = "" if schema.get("exclusiveMaximum") is True else " or equal to"
        yield _invalid(value, path, f"should be less than{or_equal} {most}")
    if step and not float(value / step).is_integer():
        yield _invalid(value, path, f"should be a multiple of {step}")
    if size is not None and not -size <= value < size:
        yield _invalid(value, path, f"must be of type {schema['format']}: {_shown(value)}")


def _map_problems(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Problem]:
    for name in _names(schema, "required"):
        if value.get(name) is None and not (name in value and (_member(schema, name) or {}).get("nullable")):
            yield Problem(_under(path, name), "Required value")
    least, most = _limit(schema, "minProperties"), _limit(schema, "maxProperties")
    if least is not None and len(value) < least:
        yield _invalid(value, path, f"should have at least {least} properties")
    if most is not None and len(value) > most:
        yield _invalid(value, path, f"should have at most {most} properties")
    for name, item in value.items():
        known = _member(schema, name)
        if known is not None and not (item is None and name in _names(schema, "required")):
            yield from _judged(item, known, _under(path, name))


def _list_problems(value: list[Any], schema: Schema, path: str) -> Iterator[Problem]:
    least, most, items = _limit(schema, "minItems"), _limit(schema, "maxItems"), _inner(schema, "items")
    if least is not None and len(value) < least:
        yield _invalid(len(value), path, f"should have at least {least} items")
    if most is not None and len(value) > most:
        yield Problem(path, f"Too many: {len(value)}: must have at most {most} items")
    for index, item in enumerate(value) if items is not None else ():
        yield from _judged(item, items or {}, f"{path}[{index}]")


def _alternatives(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    def fitting(key: str) -> list[bool] | None:
        options = schema.get(key)
        if not isinstance(options, list):
            return None
        return [next(_judged(value, one, path), None) is None for one in options if isinstance(one, Mapping)]

    every, some, one = fitting("allOf"), fitting("anyOf"), fitting("oneOf")
    if every is not None and not all(every):
        yield _invalid(value, path, "must validate all the schemas (allOf)")
    if some is not None and not any(some):
        yield _invalid(value, path, "must validate at least one schema (anyOf)")
    if one is not None and sum(one) != 1:
        yield _invalid(value, path, "must validate one and only one schema (oneOf)")
    excluded = _inner(schema, "not")
    if excluded is not None and next(_judged(value, excluded, path), None) is None:
        yield _invalid(value, path, "must not validate the schema (not)")


def _alike_items(value: Any, shape: Shape, path: str) -> Iterator[Problem]:
    """Items of sets and of lists with keys that cannot be told apart."""
    below = children(value, shape)
    if isinstance(value, list) and (shape.keys or shape.unique) and below is None:
        yield from _duplicates(value, shape, path)
        return
    for number, (element, (item, inner)) in enumerate((below or {}).items()):
        where = _under(path, element.removeprefix("f:")) if element.startswith("f:") else f"{path}[{number}]"
        yield from _alike_items(item, inner, where)


def _duplicates(items: list[Any], shape: Shape, path: str) -> Iterator[Problem]:
    seen = set()
    for index, item in enumerate(items):
        if shape.keys and not isinstance(item, dict):
            return  # told already: it is of the wrong type
        key = {name: item.get(name, shape.defaults.get(name)) for name in shape.keys} if shape.keys else item
        if shape.keys and None in key.values():
            missing = next(name for name in shape.keys if key[name] is None)
            yield Problem(f"{path}[{index}].{missing}", "Required value")
        elif ident(key) in seen:
            yield Problem(f"{path}[{index}]", f"Duplicate value: {_shown(key)}")
        seen.add(ident(key))
