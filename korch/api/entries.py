"""Objects as the API holds them: encoded once, with what they can be selected by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from korch.api import shapes
from korch.api.selecting import Selection, fields_of
from korch.errors import StoreError
from korch.resources.kinds import KINDS, Kind
from korch.store.base import Record

_WITH_STATUS = frozenset(kind.type for kind in KINDS if kind.has_status)
_MARK = b'"metadata":{'
EventType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One state of one object. `body` is its JSON without the resourceVersion, which belongs at `place`."""

    key: str
    namespace: str
    name: str
    labels: dict[str, str]
    fields: dict[str, str]
    body: bytes
    place: int
    revision: int

    def json(self, revision: int | None = None) -> bytes:
        """The object as JSON, with another revision if one is given (of a deletion, that of the deletion)."""
        shown = self.revision if revision is None else revision
        text = b'"resourceVersion":"%d",' % shown if shown else b""  # what was never written has none
        return self.body[: self.place] + text + self.body[self.place :]

    def plain(self, revision: int | None = None) -> dict[str, Any]:
        """The object as plain data."""
        found: dict[str, Any] = msgspec.json.decode(self.json(revision))
        return found

    def chosen(self, selection: Selection) -> bool:
        """Whether the selection means it."""
        return selection.has(self.namespace, self.labels, self.fields)


def entry_of(kind: Kind, record: Record) -> Entry:
    """A record's object; `StoreError` names the key of a damaged one."""
    try:
        return from_plain(kind, msgspec.json.decode(record.value), record.key, record.revision)
    except (ValueError, AttributeError, TypeError) as error:
        raise StoreError(f"record {record.key} cannot be read: {error}", hint="Restore a backup.") from error


def from_plain(kind: Kind, data: dict[str, Any], key: str, revision: int) -> Entry:
    """An object from plain data, which is filled with what answers must have."""
    meta = data.pop("metadata", {})
    meta.pop("resourceVersion", None)
    data.pop("apiVersion", None), data.pop("kind", None)
    # kind and apiVersion first: then nothing but them stands before the metadata
    whole = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": meta, **data}
    if kind.type in _WITH_STATUS and not whole.get("status"):
        whole["status"] = {}  # clients look into it before anything is there
    body = msgspec.json.encode(shapes.fill(kind.type, whole))
    name = meta.get("name", "")
    if not meta:
        raise ValueError(f"{key} has no metadata")
    return Entry(
        key=key,
        namespace=meta.get("namespace", ""),
        name=name,
        labels=meta.get("labels") or {},
        fields=fields_of(kind, whole),
        body=body,
        place=body.index(_MARK) + len(_MARK),
        revision=revision,
    )


@dataclass(slots=True, eq=False)
class Change:
    """One change of one object, shared by all that watch: what was made of it for one of them serves the others."""

    revision: int
    new: Entry | None
    old: Entry | None
    _lines: dict[object, bytes] = field(default_factory=dict)

    def type_for(self, selection: Selection) -> EventType | None:
        """What it is for one who watches a selection; None when it does not concern them."""
        now = self.new is not None and self.new.chosen(selection)
        before = self.old is not None and self.old.chosen(selection)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None

    def line(self, type_: EventType, form: object, render: Callable[[Entry, int], bytes]) -> bytes:
        """The line of a watch. `form` tells apart what `render` makes of an object."""
        key = (type_, form)
        line = self._lines.get(key)
        if line is None:
            shown = self.old if type_ == "DELETED" or self.new is None else self.new
            assert shown is not None
            line = self._lines[key] = event_line(type_, render(shown, self.revision))
        return line

    @property
    def size(self) -> int:
        """About how many bytes it holds that nothing newer does."""
        return len(self.old.body) if self.old is not None else 0


def event_line(type_: str, body: bytes) -> bytes:
    """One event of a watch as it stands on the wire."""
    return b'{"type":"%s","object":%s}\n' % (type_.encode(), body)
