"""`/openapi/v3`: one document for each group and version, with everything that can be asked there.

`/openapi/v2` names nothing: kubectl wants one to look up kinds that no path of v3 takes a patch of (`List`, reviews).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from korch.api import registry
from korch.api.customs import schema_of
from korch.api.registry import Subresource, Virtual
from korch.api.schemas import Schemas, ref
from korch.api.versions import Version
from korch.api.wire.shapes import is_built_in
from korch.resources import kinds
from korch.resources.kinds import Kind

Customs = Sequence[Version]
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_TEXT = {"type": "string"}
_YES = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_WRITE = {
    "dryRun": {"type": "string", "enum": ["All"]},
    "fieldManager": {"type": "string", "maxLength": 128},
    "fieldValidation": {"type": "string", "enum": ["Strict", "Warn", "Ignore"]},
}
_LIST = {
    **dict.fromkeys(("labelSelector", "fieldSelector", "resourceVersion", "continue"), _TEXT),
    "resourceVersionMatch": {"type": "string", "enum": ["Exact", "NotOlderThan"]},
    "limit": _COUNT,
    "timeoutSeconds": _COUNT,
    "watch": _YES,
    "allowWatchBookmarks": _YES,
    "sendInitialEvents": _YES,
}
_DELETE = {
    "dryRun": _WRITE["dryRun"],
    "gracePeriodSeconds": _COUNT,
    "propagationPolicy": {"type": "string", "enum": ["Background", "Foreground", "Orphan"]},
}
_STATUS = "dev.korch.Status"
_SHAPED = ("binding", "eviction", "scale")
_CHOICE = {name: _LIST[name] for name in ("labelSelector", "fieldSelector")}
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # not as it is asked for: "@" stands in none
_V2 = {"swagger": "2.0", "info": {"title": "korch", "version": "v1"}, "paths": {}, "definitions": {}}


def second(accept: str) -> tuple[bytes, str]:
    """`/openapi/v2` and its media type: a document without paths, for kubectl in protobuf."""
    if "proto-openapi.spec.v2" not in accept:
        return msgspec.json.encode(_V2) + b"\n", JSON
    info = _bytes(1, b"korch") + _bytes(2, b"v1")
    return _bytes(1, b"2.0") + _bytes(2, info) + _bytes(8, b"") + _bytes(9, b""), V2_PROTOBUF


def _bytes(number: int, value: bytes) -> bytes:
    """A field of a protobuf message with at most 127 bytes."""
    return bytes([number << 3 | 2, len(value)]) + value


def index(customs: Customs = ()) -> dict[str, Any]:
    """`/openapi/v3`: where the documents are; the hash in an address changes with the document."""
    paths = {}
    for group, versions in registry.groups(customs).items():
        for version in versions:
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(document(group, version, customs) or b"").hexdigest()[:32].upper()
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={digest}"}
    return {"paths": paths}


def document(group: str, version: str, customs: Customs = ()) -> bytes | None:
    """The document of a group and version, or None when there is no such thing."""
    if version not in registry.groups(customs).get(group, ()):
        return None
    return _document(group, version, tuple(customs))


@lru_cache(maxsize=128)
def _document(group: str, version: str, customs: tuple[Version, ...]) -> bytes:
    schemas = Schemas()
    paths: dict[str, Any] = {}
    for found in registry.resources_of(group, version, customs):
        if isinstance(found, Virtual):
            _add_answered(paths, schemas, found)
            continue
        schema = next((schema_of(one) for one in customs if one.shown == found), None)
        _add_kind(paths, schemas, found, schema)
        _add_parts(paths, schemas, found)
    schemas.found[_STATUS] = {
        "type": "object",
        "description": "The result of a call, or why it failed.",
        "properties": {
            **dict.fromkeys(("kind", "apiVersion", "status", "message", "reason"), _TEXT),
            "code": _COUNT,
        },
    }
    whole = {
        "openapi": "3.0.0",
        "info": {"title": "korch", "version": "v1"},
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.found.items()))},
    }
    return msgspec.json.encode(whole) + b"\n"


def _add_kind(paths: dict[str, Any], schemas: Schemas, kind: Kind, schema: Mapping[str, Any] | None) -> None:
    name = schemas.add(kind) if kind in kinds.KINDS else schemas.add_free(kind, schema)
    verbs = registry.verbs_of(kind)
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = "/namespaces/{namespace}" if kind.namespaced else ""
    make = _Operations(kind, name)
    collection = {"get": make.listing()}
    if "create" in verbs:
        collection["post"] = make.write("post", 201)
    if "deletecollection" in verbs:
        collection["delete"] = make.delete("deletecollection", _LIST)
    paths[f"{base}{space}/{kind.plural}"] = {**collection, **make.shared(named=False)}
    if kind.namespaced:
        paths[f"{base}/{kind.plural}"] = {"get": make.listing()}
    one = f"{base}{space}/{kind.plural}/{{name}}"
    item: dict[str, Any] = {"get": make.operation("get", {}, {"200": name})}
    if "update" in verbs:
        item["put"] = make.write("put", 200)
        item["patch"] = make.patch()
    if "delete" in verbs:
        item["delete"] = make.delete("delete", {})
    paths[one] = {**item, **make.shared(named=True)}
    if kind.has_status:
        part = {"get": make.operation("get", {}, {"200": name}), "put": make.write("put", 200), "patch": make.patch()}
        paths[f"{one}/status"] = {**part, **make.shared(named=True)}


def _add_answered(paths: dict[str, Any], schemas: Schemas, found: Virtual) -> None:
    """What is answered and not stored: reviews and metrics."""
    make = _Operations(found, schemas.add_answered(found.group, found.version, found.name))
    space = "/namespaces/{namespace}" if found.namespaced else ""
    path = f"/apis/{found.group}/{found.version}{space}/{found.plural}"
    if "create" in found.verbs:
        paths[path] = {"post": make.write("post", 201), **make.shared(named=False)}
        return
    paths[path] = {"get": make.operation("list", _CHOICE, {"200": make.schema}), **make.shared(named=False)}
    paths[f"{path}/{{name}}"] = {"get": make.operation("get", {}, {"200": make.schema}), **make.shared(named=True)}


def _add_parts(paths: dict[str, Any], schemas: Schemas, kind: Kind) -> None:
    """Parts of a kind with a shape of their own; those that are streams have none."""
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = "/namespaces/{namespace}" if kind.namespaced else ""
    for part in registry.subresources(kind):
        if part.name not in _SHAPED:
            continue
        make = _Operations(part, schemas.add_answered(part.group, part.version, part.kind), kind)
        path: dict[str, Any] = {"post": make.write("post", 201)} if "create" in part.verbs else {}
        if "update" in part.verbs:
            path |= {"get": make.operation("get", {}, {"200": make.schema})}
            path |= {"put": make.write("put", 200), "patch": make.patch()}
        paths[f"{base}{space}/{kind.plural}/{{name}}/{part.name}"] = {**path, **make.shared(named=True)}


class _Operations:
    """The operations of one kind, or of what is only answered (of `holder`, when it is a part of that)."""

    def __init__(self, kind: Kind | Virtual | Subresource, schema: str, holder: Kind | None = None) -> None:
        self.schema = schema
        at = kind if holder is None and not isinstance(kind, Subresource) else holder
        self._namespaced, self._group = at is not None and at.namespaced, at.group if at is not None else ""
        name = kind.kind if isinstance(kind, Subresource) else kind.name
        self._returned = isinstance(kind, Kind) and kind.returned
        self._gvk = {"group": kind.group, "version": kind.version, "kind": name}

    def shared(self, *, named: bool) -> dict[str, Any]:
        """The parameters of the path."""
        names = [*(["namespace"] if self._namespaced else []), *(["name"] if named else [])]
        found = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
        return {"parameters": found} if found else {}

    def operation(self, action: str, query: dict[str, Any], answers: dict[str, str]) -> dict[str, Any]:
        """One operation without a body; `answers`: code → schema."""
        parameters = [{"name": name, "in": "query", "schema": schema} for name, schema in query.items()]
        failed = {"default": _answer(_STATUS)}
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self._gvk,
            "parameters": parameters,
            "responses": {**{code: _answer(schema) for code, schema in answers.items()}, **failed},
        }

    def listing(self) -> dict[str, Any]:
        """GET of the collection."""
        return self.operation("list", _LIST, {"200": f"{self.schema}List"})

    def write(self, action: str, code: int) -> dict[str, Any]:
        """POST or PUT."""
        made = self.operation(action, _WRITE, {"200": self.schema, str(code): self.schema})
        content = {media: {"schema": {"$ref": ref(self.schema)}} for media in (JSON, YAML)}
        return {**made, "requestBody": {"required": True, "content": content}}

    def patch(self) -> dict[str, Any]:
        """PATCH. By `fieldValidation` kubectl knows that the server validates; it sends what is offered here."""
        made = self.operation("patch", {**_WRITE, "force": _YES}, {"200": self.schema, "201": self.schema})
        offered = [media for media in PATCHES if "strategic" not in media or is_built_in(self._group)]
        content = {media: {"schema": {"type": "array" if "json-patch" in media else "object"}} for media in offered}
        return {**made, "requestBody": {"required": True, "content": content}}

    def delete(self, action: str, more: dict[str, Any]) -> dict[str, Any]:
        """DELETE."""
        answer = self.schema if self._returned and action == "delete" else _STATUS
        if action == "deletecollection":
            answer = f"{self.schema}List"
        return self.operation(action, {**_DELETE, **more}, {"200": answer})


def _answer(schema: str) -> dict[str, Any]:
    return {"description": "the answer", "content": {JSON: {"schema": {"$ref": ref(schema)}}}}
