"""Tables (meta.k8s.io): the rows that kubectl prints, kind by kind."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from korch.api.wire.cells import AGE, NAME, Json, Sheet, age_of, name_of
from korch.api.wire.othercells import OTHERS
from korch.api.wire.podcells import POD_COLUMNS, pod_cells
from korch.api.wire.printercolumns import sheet_of
from korch.api.wire.workcells import WORKLOADS


class Named(Protocol):
    """A kind, as far as tables know it."""

    @property
    def group(self) -> str:
        """`apps`, or "" for the core group."""
        ...

    @property
    def name(self) -> str:
        """`Deployment`."""
        ...


def table(
    kind: Named,
    objects: Iterable[Json],
    *,
    now: float,
    include: str = "Metadata",
    version: str = "v1",
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> Json:
    """A Table with a row for each object, in their order; `now` in Unix seconds.

    `include` says what comes with each row: its Metadata, the Object, or None. `columns`: additionalPrinterColumns of a
    custom kind. Give the list's own metadata to the result.
    """
    sheet = sheet_of(columns) if columns else _SHEETS.get((kind.group, kind.name), _PLAIN)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": {},
        "columnDefinitions": [column.definition() for column in sheet.columns],
        "rows": [{"cells": sheet.cells(obj, now), "object": _included(obj, include, version)} for obj in objects],
    }


def _included(obj: Json, include: str, version: str) -> Json | None:
    match include:
        case "Object":
            return obj
        case "None":
            return None
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj.get("metadata", {}),
    }


_PLAIN = Sheet((NAME, AGE), lambda obj, now: [name_of(obj), age_of(obj, now)])
_SHEETS: dict[tuple[str, str], Sheet] = {("", "Pod"): Sheet(POD_COLUMNS, pod_cells), **WORKLOADS, **OTHERS}
