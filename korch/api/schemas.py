"""OpenAPI schemas made from korch's own types: what `kubectl explain` shows is what korch knows.

A field's text is the one of `explained.txt`, or the sentence of its type's docstring that names it, and what the field
rules say of it. Fields that korch only warns of or refuses are shown too, so that their treatment can be read.
"""

import inspect as python
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import inspect

from korch.api.shapes import REQUIRED
from korch.api.wire.shapes import PLAIN, Shape, shape_of
from korch.resources.fields import META_RULES, RULES, context_of, struct_fields
from korch.resources.kinds import KINDS, Kind
from korch.resources.meta import ObjectMeta

Schema = dict[str, Any]
_PREFIX = "#/components/schemas/"
_ANY: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_SENTENCE = re.compile(r"(?<=[.;])\s+(?=[`A-Z])")
_SCALARS: tuple[tuple[type, Schema], ...] = (
    (inspect.BoolType, {"type": "boolean"}),
    (inspect.IntType, {"type": "integer", "format": "int64"}),
    (inspect.FloatType, {"type": "number", "format": "double"}),
    (inspect.StrType, {"type": "string"}),
)


def ref(name: str) -> str:
    """A reference to a schema."""
    return _PREFIX + name


def schema_name(type_: type) -> str:
    """The schema's name: unique, and its last part is the type's."""
    return f"dev.{type_.__module__.replace('korch.resources.', 'korch.')}.{type_.__name__}"


class Schemas:
    """The schemas of some kinds with all that they refer to."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}
        self._shapes: dict[str, Shape] = {}

    def add(self, kind: Kind) -> str:
        """Add a kind and its list; the kind's schema name."""
        name = self._struct(kind.type, kind.type.__name__, shape_of(kind.group, kind.name))
        self._frame(kind, name)
        return name

    def _frame(self, kind: Kind, name: str) -> None:
        """Say which kind the schema is of, and add its list."""
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.name}
        self.found[name]["x-kubernetes-group-version-kind"] = [gvk]
        self.found[f"{name}List"] = {
            "type": "object",
            "description": f"{kind.list_name} is a list of {kind.name}.",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object", "properties": _list_meta()},
                "items": {"type": "array", "items": {"$ref": ref(name)}},
            },
            "x-kubernetes-group-version-kind": [{**gvk, "kind": kind.list_name}],
        }

    def add_answered(self, group: str, version: str, kind: str) -> str:
        """Add a kind that is answered and not stored; its schema name."""
        name = f"dev.korch.{group or 'core'}.{version}.{kind}"
        gvk = {"group": group, "version": version, "kind": kind}
        said, text = explained()["*"], f"{kind} is answered, and not stored."
        own = {word: {"type": "string", "description": said[word]} for word in ("apiVersion", "kind")}
        own["metadata"] = {"type": "object", "description": said["metadata"]}
        self.found[name] = {"type": "object", "description": text, "properties": own, **_ANY}
        self.found[name]["x-kubernetes-group-version-kind"] = [gvk]
        return name

    def add_free(self, kind: Kind, schema: Mapping[str, Any] | None = None) -> str:
        """Add a kind with a schema of its own, or with fields that are not told; its schema name."""
        name = f"dev.korch.{kind.group}.{kind.version}.{kind.name}"
        said = explained()["*"]
        own: Schema = {word: {"type": "string", "description": said[word]} for word in ("apiVersion", "kind")}
        shape = shape_of(kind.group, kind.name).child("metadata")
        own["metadata"] = _described({"$ref": ref(self._struct(ObjectMeta, "ObjectMeta", shape))}, said["metadata"])
        stored = next((one.api_version for one in KINDS if one.name == kind.name), "")
        text = f"{kind.name} in version {kind.version}" + (f": another form of the one in {stored}." if stored else ".")
        described = {"type": "object", "description": text, **(schema or _ANY)}
        self.found[name] = {**described, "properties": {**described.get("properties", {}), **own}}
        self._frame(kind, name)
        return name

    def _struct(self, type_: type[msgspec.Struct], context: str, shape: Shape) -> str:
        name = schema_name(type_)
        if name in self.found and (shape == PLAIN or self._shapes[name] == shape):
            return name
        self.found.setdefault(name, {})
        self._shapes[name] = shape
        text = " ".join((python.getdoc(type_) or "").split())
        notes = {**_notes(text), **explained().get("*", {}), **explained().get(type_.__name__, {})}
        rules = RULES.get(context, {})
        properties: dict[str, Schema] = {}
        for field, info in struct_fields(type_).items():
            child = shape.child(field)
            said = [notes.get(field, ""), _treatment(rules, field)]
            schema = _extended(self._of(info.type, (context, field), child), child)
            properties[field] = _described(schema, " ".join(part for part in said if part))
        for field in rules:
            if field not in properties:
                properties[field] = {**_ANY, "description": _treatment(rules, field) or notes.get(field, "")}
        required = [field for field, info in struct_fields(type_).items() if info.required]
        required += [field for field in REQUIRED.get(type_.__name__, {}) if field in properties]
        made: Schema = {"type": "object", "description": text, "properties": properties}
        if required and not _filled(type_):
            made["required"] = sorted(set(required))
        kept = self.found[name].get("x-kubernetes-group-version-kind")
        self.found[name] = {**made, **({"x-kubernetes-group-version-kind": kept} if kept else {})}
        return name

    def _of(self, type_: inspect.Type, holder: tuple[str, str], shape: Shape) -> Schema:
        match type_:
            case inspect.StructType():
                return {"$ref": ref(self._struct(type_.cls, context_of(*holder, type_.cls), shape))}
            case inspect.VarTupleType() | inspect.ListType():
                items = self._of(type_.item_type, holder, _items(shape))
                return {"type": "array", "items": items}
            case inspect.TupleType():
                return {"type": "array", "items": self._of(type_.item_types[0], holder, PLAIN)}
            case inspect.DictType():
                return {"type": "object", "additionalProperties": self._of(type_.value_type, holder, PLAIN)}
            case inspect.UnionType():
                return self._union(type_, holder, shape)
        return next((dict(schema) for known, schema in _SCALARS if isinstance(type_, known)), dict(_ANY))

    def _union(self, type_: inspect.UnionType, holder: tuple[str, str], shape: Shape) -> Schema:
        options = [option for option in type_.types if not isinstance(option, inspect.NoneType)]
        if len(options) == 1:
            return self._of(options[0], holder, shape)
        return {"oneOf": [self._of(option, holder, shape) for option in options], "format": "int-or-string"}


def _items(shape: Shape) -> Shape:
    return Shape(fields=shape.fields, rest=shape.rest)


def _filled(type_: type) -> bool:
    """Whether clients may leave out what answers always have: everything but what a status holds."""
    return not (type_.__name__.endswith("Status") or type_.__name__ == "NodeSystemInfo")


def _extended(schema: Schema, shape: Shape) -> Schema:
    """With what clients make their patches by."""
    more: Schema = {}
    if schema.get("type") == "array":
        strategy = ["merge"] if shape.merges or shape.merge_key else []
        strategy += ["retainKeys"] if shape.retains else []
        if strategy:
            more["x-kubernetes-patch-strategy"] = ",".join(strategy)
        if shape.merge_key:
            more["x-kubernetes-patch-merge-key"] = shape.merge_key
        if shape.keys:
            more |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(shape.keys)}
        else:
            more["x-kubernetes-list-type"] = "set" if shape.unique else "atomic"
    else:
        if shape.retains or shape.replaced:
            more["x-kubernetes-patch-strategy"] = "retainKeys" if shape.retains else "replace"
        if shape.atomic:
            more["x-kubernetes-map-type"] = "atomic"
    return {**schema, **more} if "$ref" not in schema else ({"allOf": [schema], **more} if more else schema)


def _described(schema: Schema, text: str) -> Schema:
    if not text:
        return schema
    return {"allOf": [schema], "description": text} if "$ref" in schema else {**schema, "description": text}


def _treatment(rules: Any, field: str) -> str:
    rule = rules.get(field)
    if rule is None or rule is META_RULES.get(field):
        return ""
    verb = "Accepted with a warning" if rule.treatment == "warned" else "Refused"
    return f"{verb}: {rule.why}."


@cache
def explained() -> dict[str, dict[str, str]]:
    """Type → field → what it is, from the file that says so; `*` is for fields that mean the same everywhere."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in (files("korch.api") / "explained.txt").read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            field, _, text = line.partition(" ")
            section[field] = text
    return found


def _notes(text: str) -> dict[str, str]:
    """Field (as spelled in manifests) → the sentence that begins with it."""
    found = {}
    for sentence in _SENTENCE.split(text):
        named = re.match(r"`(\w+)`", sentence)
        if named:
            found[_camel(named[1])] = sentence
    return found


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _list_meta() -> Schema:
    text = {"type": "string"}
    return {"resourceVersion": text, "continue": text, "remainingItemCount": {"type": "integer", "format": "int64"}}
