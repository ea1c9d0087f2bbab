"""Kubernetes manifests as typed objects: every mistake with its file, line and path; nothing ignored in silence."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import inspect

from korch.errors import InvalidError
from korch.resources.codec import from_dict, with_meta
from korch.resources.defaults import DEFAULT_NAMESPACE, with_defaults
from korch.resources.fields import META_RULES, Rule, context_of, known_fields, rule_for, struct_fields
from korch.resources.kinds import EVENT, LEASE, NODE, NODELOAD, Kind, kind_for
from korch.resources.meta import Object
from korch.resources.notices import kind_notice
from korch.resources.validation import problems_of
from korch.resources.yamltree import Tree, line_of, load_trees, plain

_NOT_BY_HAND = (NODE, NODELOAD, EVENT, LEASE)
_INSTEAD = {
    "StatefulSet": "Use a Deployment with a named volume (csi, driver volumes.korch.dev).",
    "PersistentVolumeClaim": "Use a csi volume with driver volumes.korch.dev: a named volume of the node's engine.",
    "PersistentVolume": "Use a csi volume with driver volumes.korch.dev: a named volume of the node's engine.",
}


class Loaded(msgspec.Struct, frozen=True):
    """Objects as written, without defaults, each with its FILE:LINE; warnings are whole sentences for people."""

    objects: tuple[tuple[Object, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    """One file being read."""

    source: str
    subject: str = ""
    objects: list[tuple[Object, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def mistake(self, line: int, path: str, message: str) -> None:
        self.mistakes.append(self._line(line, path, message))

    def warning(self, line: int, path: str, message: str) -> None:
        self.warnings.append(self._line(line, path, message))

    def _line(self, line: int, path: str, message: str) -> str:
        return ": ".join(part for part in (f"{self.source}:{line}", self.subject, path, message) if part)


def load_manifests(text: str, source: str) -> Loaded:
    """The objects of a file with one or more documents; `InvalidError` lists all mistakes as FILE:LINE."""
    return objects_of(load_trees(text, source), source)


def objects_of(trees: Iterable[Tree], source: str) -> Loaded:
    """As `load_manifests`, from documents that are parsed already."""
    reading = _Reading(source)
    for tree in trees:
        _read_document(tree, reading)
    _check_once(reading)
    raise_mistakes(source, reading.mistakes)
    return Loaded(tuple(reading.objects), tuple(reading.warnings))


def raise_mistakes(source: str, mistakes: list[str]) -> None:
    """Raise `InvalidError` with all of them, one a line."""
    if len(mistakes) == 1:
        raise InvalidError(mistakes[0])
    if mistakes:
        raise InvalidError(f"{source}: {len(mistakes)} mistakes\n" + "\n".join(f"  {line}" for line in mistakes))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "replicas"?`, or "" when nothing is near."""
    names = sorted(known)
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f'; did you mean "{folded[close[0]]}"?' if close else ""


def _read_document(tree: Tree, reading: _Reading) -> None:
    reading.subject = ""
    if not isinstance(tree.value, dict):
        reading.mistake(tree.line, "", f"a manifest is a mapping with apiVersion and kind, not {tree.kind}")
        return
    words = {name: tree.value[name].text if name in tree.value else "" for name in ("apiVersion", "kind")}
    if words["kind"].endswith("List") and "items" in tree.value:
        items = tree.value["items"].value
        for item in items if isinstance(items, list) else ():
            _read_document(item, reading)
        return
    for name, word in words.items():
        if not word:
            reading.mistake(tree.line, name, "is missing")
    if not all(words.values()):
        return
    kind = _kind(words["apiVersion"], words["kind"], tree, reading)
    if kind is not None:
        _read_object(tree, kind, reading)


def _kind(api_version: str, name: str, tree: Tree, reading: _Reading) -> Kind | None:
    line = tree.lines["kind"]
    try:
        kind = kind_for(api_version, name)
    except InvalidError as error:
        reading.mistake(line, "", f"{error}. {_INSTEAD.get(name, error.hint)}".strip())
        return None
    if kind in _NOT_BY_HAND:
        advice = "nodes come from the inventory" if kind is NODE else "korch makes them itself"
        reading.mistake(line, "", f"a {name} is not given in a manifest: {advice}")
        return None
    return kind


def _read_object(tree: Tree, kind: Kind, reading: _Reading) -> None:
    assert isinstance(tree.value, dict)
    before = len(reading.mistakes)
    reading.subject = f'{kind.name} "{_name_in(tree)}"'
    data = _struct(tree, kind.type, kind.type.__name__, "", reading)
    if len(reading.mistakes) > before:
        return
    try:
        obj = from_dict(kind, data)
    except InvalidError as error:
        reading.mistake(tree.line, "", str(error))
        return
    name = obj.metadata.name or (f"{obj.metadata.generate_name}x" if obj.metadata.generate_name else "")
    for problem in problems_of(with_defaults(with_meta(obj, name=name))):
        reading.mistake(line_of(tree, problem.path), problem.path, problem.message)
    notice = kind_notice(kind, plain(tree))
    if notice:
        reading.warning(tree.line, "", notice)
    reading.objects.append((obj, f"{reading.source}:{tree.line}"))


def _name_in(tree: Tree) -> str:
    meta = tree.value.get("metadata") if isinstance(tree.value, dict) else None
    found = meta.value if meta else None
    names = [found[key].text for key in ("name", "generateName") if key in found] if isinstance(found, dict) else []
    return names[0] if names else ""


def _check_once(reading: _Reading) -> None:
    seen: dict[tuple[str, str, str], str] = {}
    for obj, where in reading.objects:
        meta = obj.metadata
        key = (obj.kind, meta.namespace or DEFAULT_NAMESPACE, meta.name)
        if meta.name and key in seen:
            reading.mistakes.append(f'{where}: {obj.kind} "{meta.name}" stands in {seen[key]} already')
        seen.setdefault(key, where)


# --- reading by type ---


def _struct(tree: Tree, type_: Any, context: str, path: str, reading: _Reading) -> dict[str, Any]:
    """Plain data of a mapping that should be a `type_`: known fields only, each of the right type."""
    if not isinstance(tree.value, dict):
        reading.mistake(tree.line, path, f"must be a mapping, not {tree.kind}")
        return {}
    fields = struct_fields(type_)
    data: dict[str, Any] = {}
    for name, item in tree.value.items():
        where, line = f"{path}.{name}" if path else name, tree.lines[name]
        rule = rule_for(context, name)
        if rule is not None and not _accepted(rule, item, where, line, reading):
            continue
        if rule is not None and (name not in fields or rule is META_RULES.get(name) or name == "status"):
            continue  # told, and left out
        if name not in fields:
            hint = did_you_mean(name, known_fields(type_, context))
            reading.mistake(line, where, f"is not a field that korch knows{hint}")
        elif item.value is not None:  # `key:` without a value is as if it was not there
            data[name] = _value(item, fields[name].type, (context, name), where, reading)
    for name, info in fields.items():
        if info.required and name not in data and name not in tree.value:
            reading.mistake(tree.line, f"{path}.{name}" if path else name, "is missing")
    return data


def _accepted(rule: Rule, item: Tree, path: str, line: int, reading: _Reading) -> bool:
    if not rule.applies(plain(item)):
        return True
    if rule.treatment == "refused":
        reading.mistake(line, path, f"is refused: {rule.why}")
        return False
    reading.warning(line, path, rule.why)
    return True


def _value(tree: Tree, type_: inspect.Type, holder: tuple[str, str], path: str, reading: _Reading) -> Any:
    options = (
        [t for t in type_.types if not isinstance(t, inspect.NoneType)]
        if isinstance(type_, inspect.UnionType)
        else [type_]
    )
    first = options[0]
    match first:
        case inspect.StructType():
            return _struct(tree, first.cls, context_of(*holder, first.cls), path, reading)
        case inspect.VarTupleType() | inspect.ListType():
            return _list(tree, first.item_type, holder, path, reading)
        case inspect.DictType():
            return _dict(tree, first.value_type, holder, path, reading)
        case inspect.AnyType():
            return plain(tree)
        case _:
            return _scalar(tree, options, path, reading)


def _list(tree: Tree, item_type: inspect.Type, holder: tuple[str, str], path: str, reading: _Reading) -> list[Any]:
    if not isinstance(tree.value, list):
        reading.mistake(tree.line, path, f"must be a list, not {tree.kind}")
        return []
    return [_value(item, item_type, holder, f"{path}[{index}]", reading) for index, item in enumerate(tree.value)]


def _dict(
    tree: Tree, value_type: inspect.Type, holder: tuple[str, str], path: str, reading: _Reading
) -> dict[str, Any]:
    if not isinstance(tree.value, dict):
        reading.mistake(tree.line, path, f"must be a mapping, not {tree.kind}")
        return {}
    return {key: _value(item, value_type, holder, f"{path}.{key}", reading) for key, item in tree.value.items()}


_NAMES = {
    inspect.StrType: "text",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
}


def _scalar(tree: Tree, options: list[inspect.Type], path: str, reading: _Reading) -> Any:
    value = tree.value
    for option in options:
        match option:
            case inspect.BoolType() if isinstance(value, bool):
                return value
            case inspect.IntType() if isinstance(value, int) and not isinstance(value, bool):
                return value
            case inspect.FloatType() if isinstance(value, int | float) and not isinstance(value, bool):
                return value
            case inspect.StrType() if isinstance(value, str):
                return value
            case _:
                continue
    wanted = " or ".join(_NAMES[type(option)] for option in options if type(option) in _NAMES)
    scalar = isinstance(value, bool | int | float)
    quoted = (
        f'; write it in quotes: "{tree.text}"'
        if scalar and any(isinstance(o, inspect.StrType) for o in options)
        else ""
    )
    reading.mistake(tree.line, path, f"must be {wanted}, not {tree.kind}{quoted}")
    return None
