"""In which form an answer is wanted: plain JSON, a Table as kubectl prints it, or metadata alone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from korch.api.answers import Refusal
from korch.api.entries import Entry
from korch.api.versions import Version
from korch.api.wire import tables

As = Literal["", "Table", "PartialObjectMetadata"]
Include = Literal["Metadata", "Object", "None"]
_JSON = frozenset({"application/json", "application/*", "*/*", "", "application/yaml"})
_STEP = 50  # rows between two chances for others
_CHUNK_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Form:
    """The form asked for. `version`: of meta.k8s.io; `include`: what a row of a Table has beside its cells."""

    as_: As = ""
    version: str = "v1"
    include: Include = "Metadata"

    @property
    def content_type(self) -> str:
        """The answer's media type."""
        return "application/json"


PLAIN = Form()


def form_of(accept: str, query: Mapping[str, str]) -> Form:
    """The first form of an Accept header that can be given; 406 when none can."""
    for choice in accept.split(","):
        media, *params = [part.strip() for part in choice.split(";")]
        if media not in _JSON:
            continue
        found = dict(part.partition("=")[::2] for part in params)
        wanted = found.get("as", "").removesuffix("List")
        version = found.get("v", "v1")
        if not wanted:
            return PLAIN
        if found.get("g", "meta.k8s.io") != "meta.k8s.io" or version not in ("v1", "v1beta1"):
            continue
        if wanted == "Table":
            return Form("Table", version, _include(query.get("includeObject", "")))
        if wanted == "PartialObjectMetadata":
            return Form("PartialObjectMetadata", version)
    if accept and "protobuf" not in accept:
        message = "only the following media types are accepted: application/json"
        raise Refusal(406, message, {})
    return PLAIN  # who reads protobuf reads JSON too


def _include(text: str) -> Include:
    match text:
        case "" | "Metadata":
            return "Metadata"
        case "Object":
            return "Object"
        case "None":
            return "None"
    raise Refusal(400, f'unrecognized includeObject value: "{text}"')


def formed(group: str, data: dict[str, Any], form: Form, now: float) -> dict[str, Any]:
    """What is answered and not stored, such as a Scale, in a form."""
    match form.as_:
        case "Table":
            named = _Named(group, data["kind"])
            return tables.table(named, [data], now=now, include=form.include, version=form.version)
        case "PartialObjectMetadata":
            return _partial(form, data)
    return data


@dataclass(frozen=True, slots=True)
class _Named:
    group: str
    name: str


def _partial(form: Form, data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": form.as_, "apiVersion": f"meta.k8s.io/{form.version}", "metadata": data["metadata"]}


class Renderer:
    """Makes what is sent from objects of one kind, in one form."""

    def __init__(self, version: Version, form: Form, now: Callable[[], float]) -> None:
        self.version, self.kind, self.form, self._now = version, version.shown, form, now

    def one(self, entry: Entry, revision: int | None = None) -> bytes:
        """One object."""
        match self.form.as_:
            case "Table":
                return msgspec.json.encode(self._row_table(entry, revision))
            case "PartialObjectMetadata":
                return msgspec.json.encode(_partial(self.form, entry.plain(revision)))
        if self.version.outward is not None:
            return msgspec.json.encode(self.version.outward(entry.plain(revision)))
        return entry.json(revision)

    def row(self, entry: Entry, revision: int) -> bytes:
        """One object as a later event of a watch: a Table names its columns only once."""
        if self.form.as_ != "Table":
            return self.one(entry, revision)
        return msgspec.json.encode({**self._row_table(entry, revision), "columnDefinitions": []})

    def bookmark(self, revision: int, annotations: dict[str, str] | None = None) -> bytes:
        """The object of a BOOKMARK: nothing but a revision."""
        notes = {"annotations": annotations} if annotations else {}
        meta = {"resourceVersion": str(revision), "creationTimestamp": None, **notes}
        if self.form.as_ == "Table":
            row = {"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": self._meta, "metadata": meta}}
            return msgspec.json.encode(
                {
                    "kind": "Table",
                    "apiVersion": self._meta,
                    "metadata": {"resourceVersion": str(revision)},
                    "columnDefinitions": [],
                    "rows": [row],
                }
            )
        if self.form.as_ == "PartialObjectMetadata":
            return msgspec.json.encode({"kind": "PartialObjectMetadata", "apiVersion": self._meta, "metadata": meta})
        return msgspec.json.encode({"kind": self.kind.name, "apiVersion": self.kind.api_version, "metadata": meta})

    async def listing(self, entries: Sequence[Entry], meta: dict[str, Any]) -> AsyncIterator[bytes]:
        """A list, in pieces."""
        if self.form.as_ == "Table":
            yield await self._table_of(entries, meta)
            return
        kind, version = self.kind.list_name, self.kind.api_version
        if self.form.as_ == "PartialObjectMetadata":
            kind, version = "PartialObjectMetadataList", self._meta
        head = msgspec.json.encode({"kind": kind, "apiVersion": version, "metadata": meta})
        pieces, size = [head[:-1] + b',"items":['], 0
        for number, entry in enumerate(entries):
            piece = self.one(entry)
            pieces.append(b"," + piece if number else piece)
            size += len(piece)
            if size >= _CHUNK_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
                await asyncio.sleep(0)
        pieces.append(b"]}\n")
        yield b"".join(pieces)

    async def _table_of(self, entries: Sequence[Entry], meta: dict[str, Any]) -> bytes:
        whole = self._table([entry.plain() for entry in entries[:_STEP]])
        for start in range(_STEP, len(entries), _STEP):
            await asyncio.sleep(0)
            whole["rows"] += self._table([entry.plain() for entry in entries[start : start + _STEP]])["rows"]
        whole["metadata"] = meta
        return msgspec.json.encode(whole) + b"\n"

    def _row_table(self, entry: Entry, revision: int | None) -> dict[str, Any]:
        at = entry.revision if revision is None else revision
        return {**self._table([entry.plain(revision)]), "metadata": {"resourceVersion": str(at)}}

    def _table(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
        form, custom = self.form, self.version.custom
        return tables.table(
            self.version.kind,
            objects,
            now=self._now(),
            include=form.include,
            version=form.version,
            columns=custom.columns.get(self.kind.version) if custom is not None else None,
        )

    @property
    def _meta(self) -> str:
        return f"meta.k8s.io/{self.form.version}"
