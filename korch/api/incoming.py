"""Bodies of requests as objects: what the URL says is filled in, field rules are applied, mistakes told by path."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import inspect

from korch.api.answers import Refusal, bad_request, invalid
from korch.api.wire import strict, structural
from korch.api.wire.structural import Structure
from korch.errors import InvalidError
from korch.resources.codec import from_dict
from korch.resources.fields import META_RULES, context_of, rule_for, struct_fields
from korch.resources.kinds import CRD, Kind
from korch.resources.meta import Object, ObjectMeta
from korch.resources.notices import kind_notice
from korch.resources.problems import Problem

Validation = Literal["Strict", "Warn", "Ignore"]

_MISTAKES = 100  # that are told at a time

# Quantities may be written as numbers; they are kept as text.
_QUANTITIES: dict[str, tuple[str, ...]] = {
    "ResourceRequirements": ("limits", "requests"),
    "EmptyDirVolumeSource": ("sizeLimit",),
    "ResourceQuotaSpec": ("hard",),
    "LimitRangeItem": ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"),
    "MetricTarget": ("value", "averageValue"),
    "NodeStatus": ("capacity", "allocatable"),
}


@dataclass(frozen=True, slots=True)
class Incoming:
    """An object from a client. `warnings`: what korch does not do with it, and what it does not know."""

    obj: Object
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Looked:
    """What was found on the way through plain data."""

    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def parsed(body: bytes, content_type: str, validation: Validation) -> tuple[dict[str, Any], list[str]]:
    """The object in a body, and the paths of keys that are given twice."""
    data = strict.parse_body(body, content_type)
    return data, [] if validation == "Ignore" else strict.duplicate_keys(body)


def addressed(kind: Kind, data: dict[str, Any], namespace: str, name: str) -> dict[str, Any]:
    """The data with the apiVersion, kind, namespace and name of the URL; 400 when it says something else."""
    said, version = data.get("kind") or kind.name, data.get("apiVersion") or kind.api_version
    if said != kind.name:
        raise bad_request(
            f'{said} in version "{kind.version}" cannot be handled as a {kind.name}: converting '
            f"({kind.version}.{said}) to ({kind.group or 'core'}.{kind.name}): unknown conversion"
        )
    if version != kind.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    meta = data.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise not_handled(kind, "metadata must be a mapping")
    meta = dict(meta or {})
    if kind.namespaced and meta.get("namespace") not in (None, "", namespace):
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if name and meta.get("name") not in (None, "", name):
        raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
    meta |= {"namespace": namespace} if kind.namespaced else {}
    meta |= {"name": name} if name else {}
    if not kind.namespaced:
        meta.pop("namespace", None)
    return {**data, "apiVersion": kind.api_version, "kind": kind.name, "metadata": meta}


def typed(
    kind: Kind,
    data: dict[str, Any],
    validation: Validation,
    *,
    duplicates: list[str] | None = None,
    known: tuple[str, ...] = (),
    structure: Structure | None = None,
) -> Incoming:
    """The typed object; `known` are warnings that its earlier state had too, which are not told again."""
    if structure is not None:
        return _custom(kind, data, validation, duplicates or [], structure)
    wrong = [] if validation == "Ignore" else strict.unknown_fields(data, kind.type)
    said = _told(kind, validation, wrong, duplicates or [])
    looked = _Looked()
    ready = _struct(data, kind.type, kind.type.__name__, "", looked)
    name = str(ready.get("metadata", {}).get("name", ""))
    if looked.problems:
        raise invalid(kind, name, looked.problems)
    try:
        obj = from_dict(kind, ready)
    except InvalidError as error:
        raise not_handled(kind, str(error).removeprefix(f"{kind.name}: ")) from error
    told = [text for text in (*_notice(kind, data), *looked.warnings) if text not in known]
    return Incoming(obj, (*said, *told))


def wish(
    kind: Kind, data: dict[str, Any], validation: Validation, duplicates: list[str], structure: Structure | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What an applier says, as it would be stored, and the warnings of it. Of a custom object it may be any part."""
    if structure is None:
        return normal(kind, data), typed(kind, data, validation, duplicates=duplicates).warnings
    pruned, wrong = _pruned(data, structure)
    return pruned, _told(kind, validation, wrong, duplicates)


def _pruned(data: dict[str, Any], structure: Structure) -> tuple[dict[str, Any], list[str]]:
    """A custom object without what its schema and metadata do not know, and the paths of that."""
    pruned, wrong = structure.pruned(data)
    meta = data.get("metadata") or {}
    return pruned, [*(f"metadata.{path}" for path in strict.unknown_fields(meta, ObjectMeta)), *wrong]


def _told(kind: Kind, validation: Validation, unknown: list[str], duplicates: list[str]) -> tuple[str, ...]:
    """The warnings of fields that nobody knows, or that are given twice; 400 when validation is strict."""
    if validation == "Ignore":
        return ()
    said = [f'unknown field "{path}"' for path in unknown] + [f'duplicate field "{path}"' for path in duplicates]
    if said and validation == "Strict":
        rest = [f"and {len(said) - _MISTAKES} more"] if len(said) > _MISTAKES else []
        raise not_handled(kind, "strict decoding error: " + ", ".join((*said[:_MISTAKES], *rest)))
    return tuple(said)


def _custom(
    kind: Kind, data: dict[str, Any], validation: Validation, duplicates: list[str], structure: Structure
) -> Incoming:
    """A custom object: what its schema does not know is dropped, what is missing is filled in, the rest is checked."""
    pruned, wrong = _pruned(data, structure)
    said = _told(kind, validation, wrong, duplicates)
    ready = structure.filled(pruned)
    problems = structure.problems(ready)
    if problems:
        raise invalid(kind, str(ready.get("metadata", {}).get("name", "")), problems)
    meta = _struct(ready.get("metadata") or {}, ObjectMeta, "ObjectMeta", "metadata", _Looked())
    try:
        return Incoming(from_dict(kind, {**ready, "metadata": meta}), said)
    except InvalidError as error:
        raise not_handled(kind, str(error).removeprefix(f"{kind.name}: ")) from error


def warnings_of(kind: Kind, data: dict[str, Any]) -> tuple[str, ...]:
    """What korch would warn of in this data."""
    looked = _Looked()
    _struct(data, kind.type, kind.type.__name__, "", looked)
    return (*_notice(kind, data), *looked.warnings)


def _notice(kind: Kind, data: dict[str, Any]) -> tuple[str, ...]:
    text = kind_notice(kind, data)
    unchecked = structural.unchecked(data) if kind is CRD else ()
    return (*([text] if text else ()), *unchecked)


def normal(kind: Kind, data: dict[str, Any]) -> dict[str, Any]:
    """The data as it would be stored: without nulls, quantities as text."""
    found: dict[str, Any] = _struct(data, kind.type, kind.type.__name__, "", _Looked())
    return found


def not_handled(kind: Kind, why: str) -> Refusal:
    """400: the body is not what it should be."""
    return bad_request(f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {why}')


# --- by type ---


def _struct(data: Any, type_: Any, context: str, path: str, looked: _Looked) -> Any:
    """The data without nulls, quantities as text; warnings and refusals of field rules are noted."""
    if not isinstance(data, dict):
        return data
    fields = struct_fields(type_)
    quantities = _QUANTITIES.get(type_.__name__, ())
    ready: dict[str, Any] = {}
    for name, value in data.items():
        if value is None:
            continue
        where = f"{path}.{name}" if path else name
        _judge(context, name, value, where, looked, known=name in fields)
        if name in quantities:
            ready[name] = _quantities(value)
        elif name in fields:
            ready[name] = _value(value, fields[name].type, (context, name), where, looked)
    return ready


def _judge(context: str, name: str, value: Any, where: str, looked: _Looked, *, known: bool) -> None:
    rule = rule_for(context, name)
    if rule is None or rule is META_RULES.get(name) or name == "status" or not rule.applies(value):
        return
    if rule.treatment == "warned":
        looked.warnings.append(f"{where}: {rule.why}")
    elif not known:  # a refused field of a type is found when the object is validated
        looked.problems.append(Problem(where, f"is refused: {rule.why}"))


def _value(value: Any, type_: inspect.Type, holder: tuple[str, str], path: str, looked: _Looked) -> Any:
    for option in _options(type_):
        match option:
            case inspect.StructType():
                return _struct(value, option.cls, context_of(*holder, option.cls), path, looked)
            case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
                return [
                    _value(item, option.item_type, holder, f"{path}[{index}]", looked)
                    for index, item in enumerate(value)
                ]
            case inspect.DictType() if isinstance(value, dict):
                return {
                    key: _value(item, option.value_type, holder, f"{path}.{key}", looked)
                    for key, item in value.items()
                    if item is not None
                }
    return value


def _options(type_: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(type_, inspect.UnionType):
        yield from type_.types
    else:
        yield type_


def _quantities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _quantities(item) for key, item in value.items() if item is not None}
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if number and isinstance(value, float) else str(value) if number else value
