"""A description of one object as aligned lines: `Key:   value`, values of several lines, nested parts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from korch.cli.output import clean


@dataclass(frozen=True, slots=True)
class Part:
    """Fields of its own, indented under their key."""

    fields: Sequence[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Block:
    """Finished lines, such as a table, indented under their key."""

    text: str


def render(fields: Sequence[tuple[str, object]], indent: int = 0) -> str:
    """The lines of a description. A value is text, a number, a sequence (a line each), a `Part` or a `Block`."""
    pad = " " * indent
    width = max((len(key) for key, value in fields if not isinstance(value, Part | Block)), default=0) + 3
    lines: list[str] = []
    for key, value in fields:
        match value:
            case Part():
                lines += [f"{pad}{key}:", render(value.fields, indent + 2)]
            case Block():
                lines += [f"{pad}{key}:", *(f"{pad}  {line}".rstrip() for line in value.text.splitlines())]
            case list() | tuple():
                entries = [clean(str(entry)) for entry in value] or ["<none>"]
                lines += [f"{pad}{(key + ':').ljust(width)}{entries[0]}"]
                lines += [f"{pad}{' ' * width}{entry}" for entry in entries[1:]]
            case _:
                first, *rest = clean(str(value), keep_newlines=True).rstrip("\n").split("\n")
                lines += [f"{pad}{(key + ':').ljust(width)}{first}".rstrip()]
                lines += [f"{pad}{' ' * width}{line}".rstrip() for line in rest]
    return "\n".join(lines)
