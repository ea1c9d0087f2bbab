"""Columns that a custom kind defines for itself (additionalPrinterColumns): a JSONPath each.

The part of JSONPath that definitions use: `.a.b`, `['a.b']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`, `\\.` in a name.
A path that is not understood, or leads nowhere, is an empty cell.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from korch.api.wire.cells import NAME, Column, Json, Sheet, age, name_of

Step = tuple[str, str, str]  # (kind, name or place, wanted value)

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\\])+)
      | \[\s*(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\s*\]
      | \[(?P<index>-?\d{1,9})\]
      | \.?\[?(?P<all>\*)\]?
      | \[\?\(\s*@\.(?P<key>[^=!<>\s]+)\s*==\s*(?P<wanted>"[^"]*"|'[^']*'|[^)\s]+)\s*\)\]
    """,
    re.VERBOSE,
)
_MAX_RESULTS = 100


def sheet_of(columns: Sequence[Mapping[str, Any]]) -> Sheet:
    """The name, and what the definition says."""
    defined = [(_column(one), _steps(str(one.get("jsonPath", "")))) for one in columns]

    def cells(obj: Json, now: float) -> list[Any]:
        return [name_of(obj), *(_cell(column, values_at(obj, steps), now) for column, steps in defined)]

    return Sheet((NAME, *(column for column, _ in defined)), cells)


def _column(one: Mapping[str, Any]) -> Column:
    priority = one.get("priority")
    return Column(
        name=str(one.get("name", "")),
        type=str(one.get("type", "string")),
        format=str(one.get("format", "")),
        description=str(one.get("description", "")),
        priority=priority if isinstance(priority, int) else 0,
    )


@lru_cache(maxsize=512)
def _steps(path: str) -> tuple[Step, ...] | None:
    """The steps of a path; None when it is not understood."""
    path = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    found, at = [], 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return None
        found.append(_step(step))
        at = step.end()
    return tuple(found)


def _step(found: re.Match[str]) -> Step:
    if found["all"]:
        return "all", "", ""
    if found["index"]:
        return "index", found["index"], ""
    if found["key"]:
        return "where", found["key"], found["wanted"].strip("\"'")
    name = found["quoted"] if found["quoted"] is not None else found["name"]
    return "name", re.sub(r"\\(.)", r"\1", name), ""


def values_at(obj: Any, steps: tuple[Step, ...] | None) -> list[Any]:
    """All values that the path leads to."""
    found = [obj] if steps is not None else []
    for kind, name, wanted in steps or ():
        found = [value for one in found for value in _below(one, kind, name, wanted)][:_MAX_RESULTS]
    return [value for value in found if value is not None]


def _below(value: Any, kind: str, name: str, wanted: str) -> list[Any]:
    match kind:
        case "name":
            return [value[name]] if isinstance(value, dict) and name in value else []
        case "index":
            fits = isinstance(value, list) and -len(value) <= int(name) < len(value)
            return [value[int(name)]] if fits else []
        case "all":
            return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    items = value if isinstance(value, list) else []
    steps = _steps(f".{name}")
    return [item for item in items if any(_text(one) == wanted for one in values_at(item, steps))]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _cell(column: Column, values: list[Any], now: float) -> Any:
    """Of the column's type; None when there is nothing to show."""
    if not values:
        return None
    first = values[0]
    match column.type:
        case "date":
            return age(first, now)
        case "integer":
            return first if isinstance(first, int) and not isinstance(first, bool) else None
        case "number":
            return first if isinstance(first, int | float) and not isinstance(first, bool) else None
        case "boolean":
            return first if isinstance(first, bool) else None
    return " ".join(map(_text, values))
