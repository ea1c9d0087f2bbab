"""Text out: plain tables as kubectl prints them, ages, JSON, YAML. Pure, and blind to where the values come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from korch.resources.times import format_age, parse_time

if TYPE_CHECKING:
    from korch.resources.meta import Object

OutputFormat = Literal["", "wide", "json", "yaml", "name"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BREAKS_ELSEWHERE = re.compile("[\r\x85\u2028\u2029\ufeff]")  # YAML 1.1 takes these for ends of lines
_NUMBER_ELSEWHERE = re.compile(r"[-+]?(\.\d+|\d[\d_]*(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+|[yYnN]")


def clean(text: str, *, keep_newlines: bool = False) -> str:
    """The text without anything that could move a terminal's cursor: control characters are shown as escapes.

    Messages carry words from containers and hosts, which must not be able to forge what a person sees.
    """
    pattern = _CONTROL_BUT_LINES if keep_newlines else _CONTROL
    return pattern.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def headline(text: str) -> str:
    """The first line, and a sign when there is more."""
    first, *more = text.strip().splitlines() or [""]
    return f"{first} ..." if more else first


def hanging_table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """As `table`, with the further lines of a last cell below its first one."""
    split: list[Sequence[object]] = []
    for *cells, last in rows:
        first, *more = str(last).strip().splitlines() or [""]
        split += [(*cells, first), *((*("" for _ in cells), line) for line in more)]
    return table(split, headers)


def table(rows: Iterable[Sequence[object]], headers: Sequence[str], *, widths: list[int] | None = None) -> str:
    """Left-aligned columns, three spaces apart, no trailing blanks; "" without rows. Cells are cleaned.

    `widths` is filled with the columns' widths; given again, it keeps the lines of a growing table aligned, and no
    header is printed any more.
    """
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if not cells:
        return ""
    widths = [] if widths is None else widths
    lines = cells if widths or not headers else [list(headers), *cells]
    floors = widths or [0] * len(lines[0])
    widths[:] = [max(floor, *(len(line[column]) for line in lines)) for column, floor in enumerate(floors)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def age(timestamp: str | None, now: float) -> str:
    """How long ago an RFC 3339 time was; `<unknown>` without one."""
    if not timestamp:
        return "<unknown>"
    return format_age(now - parse_time(timestamp))


def dump(data: Any, output: Literal["json", "yaml"]) -> str:
    """Plain data as indented JSON or as YAML, without a newline at the end."""
    if output == "json":
        import json

        text = json.dumps(data, indent=4, ensure_ascii=False)
        return _CONTROL_BUT_LINES.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    return to_yaml(data).rstrip("\n")


def to_yaml(data: Any) -> str:
    """YAML as people write manifests: block style, literal blocks for text of several lines, no aliases, keys in order.

    Strings that another reader (YAML 1.2, Go) would take for a number or a truth value are quoted.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        style = None
        if _BREAKS_ELSEWHERE.search(value):
            style = '"'
        elif "\n" in value:
            style = "|"
        elif _NUMBER_ELSEWHERE.fullmatch(value):
            style = "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)

    Dumper.add_representer(str, text)
    result: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=4096)
    return result


def render_objects(objects: Sequence[Object], output: Literal["json", "yaml", "name"], *, single: bool) -> str:
    """Objects for `-o json|yaml|name`; one alone as itself when it was asked for by name, else as a List."""
    from korch.resources.codec import to_dict

    if output == "name":
        return "\n".join(reference(obj) for obj in objects)
    items = [to_dict(obj) for obj in objects]
    if single and len(items) == 1:
        return dump(items[0], output)
    return dump({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}, output)


def reference(obj: Object) -> str:
    """`pod/web-1`, `deployment.apps/web`: what `-o name` prints and other commands accept."""
    from korch.resources.kinds import kind_of

    kind = kind_of(obj)
    return f"{kind.name.lower()}{'.' + kind.group if kind.group else ''}/{obj.metadata.name}"
