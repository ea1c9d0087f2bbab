"""Sets of fields: which an object has, in which two objects differ, and the form in which managedFields keep them.

A field is a path of elements as FieldsV1 writes them: `f:NAME` a member, `k:{"name":"web"}` an item of a list with
keys, `v:"x"` an item of a list of unique scalars. Lists without keys and atomic maps are one field each.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from korch.api.wire.shapes import PLAIN, Shape
from korch.api.wire.tree import same
from korch.errors import InvalidError

Path = tuple[str, ...]
Paths = frozenset[Path]

_KINDS = ("f:", "k:", "v:", "i:")
_MAX_DEPTH = 100
_LOOKED_AT_WHOLE = 4  # levels


def children(value: Any, shape: Shape) -> dict[str, tuple[Any, Shape]] | None:
    """What is owned one by one below a value, by element, each with its shape; None for what is owned as a whole.

    Null members count as absent. A list whose items cannot be told apart is one field.
    """
    if isinstance(value, dict):
        if shape.atomic:
            return None
        return {f"f:{name}": (item, shape.child(name)) for name, item in value.items() if item is not None}
    if not isinstance(value, list) or not (shape.keys or shape.unique):
        return None
    elements = [_element(item, shape) for item in value]
    if None in elements or len(set(elements)) < len(elements):
        return None
    below = shape if shape.keys else PLAIN
    return {element: (item, below) for element, item in zip(elements, value, strict=True) if element is not None}


def _element(item: Any, shape: Shape) -> str | None:
    """How an item of a list is called; None when it has no name."""
    if not shape.keys:
        return f"v:{_compact(item)}" if isinstance(item, str | int | float) else None
    if not isinstance(item, dict):
        return None
    keys = {key: shape.defaults.get(key) if item.get(key) is None else item[key] for key in shape.keys}
    scalars = all(isinstance(value, str | int | float) for value in keys.values())
    return f"k:{_compact(keys)}" if scalars else None


_compact = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def check_lists(value: Any, shape: Shape, where: str = "") -> None:
    """Raise `InvalidError` when a list that merges by keys has items without them, or two with the same."""
    below = children(value, shape)
    if isinstance(value, list) and (shape.keys or shape.unique) and below is None:
        what = f"its own {', '.join(shape.keys)}" if shape.keys else "a value of its own"
        raise InvalidError(f"{where}: each item must have {what}")
    for element, (item, inner) in (below or {}).items():
        check_lists(item, inner, shown((element,)) if not where else f"{where}{shown((element,))}")


def all_fields(value: Any, shape: Shape, at: Path = ()) -> Iterator[Path]:
    """Every field, those that hold others too."""
    if at:
        yield at
    for element, (item, inner) in (children(value, shape) or {}).items():
        yield from all_fields(item, inner, (*at, element))


def set_fields(value: Any, shape: Shape, at: Path = ()) -> Iterator[Path]:
    """The fields that somebody who wrote just this has set: values, empty maps and lists, and items of lists."""
    below = children(value, shape)
    if at and (not below or not at[-1].startswith("f:")):
        yield at
    for element, (item, inner) in (below or {}).items():
        yield from set_fields(item, inner, (*at, element))


@dataclass(slots=True)
class Changes:
    """In which fields two objects differ. `hollow`: those added whose value says no more than their absence."""

    added: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)
    hollow: set[Path] = field(default_factory=set)

    @property
    def telling(self) -> set[Path]:
        """The fields with another value now; not those that are gone."""
        return self.modified | (self.added - self.hollow)

    def __bool__(self) -> bool:
        return bool(self.telling or self.removed)


def changes(before: Any, after: Any, shape: Shape) -> Changes:
    """What became of `before`."""
    found = Changes()
    _compare(before, after, shape, (), found)
    return found


def _compare(before: Any, after: Any, shape: Shape, at: Path, found: Changes) -> None:
    if len(at) < _LOOKED_AT_WHOLE and msgspec.json.encode(before) == msgspec.json.encode(after):
        return  # most of an object, most of the time
    old, new = children(before, shape), children(after, shape)
    if old is None or new is None or isinstance(before, dict) != isinstance(after, dict):
        if not same(before, after):
            found.modified.add(at)
            found.removed.update(path for path in all_fields(before, shape, at) if path != at)
            found.added.update(path for path in all_fields(after, shape, at) if path != at)
        return
    for element in old.keys() | new.keys():
        path = (*at, element)
        if element not in new:
            found.removed.update(all_fields(*old[element], path))
        elif element not in old:
            item, inner = new[element]
            fields = set(all_fields(item, inner, path))
            found.added |= fields
            if _is_hollow(item):
                found.hollow |= fields
        else:
            _compare(old[element][0], new[element][0], new[element][1], path, found)


def _is_hollow(value: Any) -> bool:
    """Whether a field that is not set at all means the same: zero, false, empty."""
    return not value or (isinstance(value, dict) and all(map(_is_hollow, value.values())))


def with_holders(paths: Iterable[Path]) -> set[Path]:
    """The fields and the members (not the items of lists) that hold them."""
    found: set[Path] = set()
    for path in paths:
        found.add(path)
        found.update(path[:end] for end in range(1, len(path)) if path[end - 1].startswith("f:"))
    return found


# --- the forms of a set ---


def to_fields(paths: Iterable[Path]) -> dict[str, Any]:
    """FieldsV1: maps in maps, `.` where a field that holds others is meant itself."""
    root: dict[str, Any] = {}
    for path in sorted(paths):  # holders come before what they hold
        node = root
        for element in path[:-1]:
            if element not in node:
                node[element] = {}
            elif not node[element]:
                node[element]["."] = {}
            node = node[element]
        node.setdefault(path[-1], {})
    return root


def from_fields(fields: Any) -> Paths | None:
    """The set that FieldsV1 says; None when it is none."""
    found: set[Path] = set()
    waiting: list[tuple[Any, Path]] = [(fields, ())]
    while waiting:
        node, at = waiting.pop()
        if not isinstance(node, dict) or len(at) > _MAX_DEPTH:
            return None
        if at and (not node or "." in node):
            found.add(at)
        for element, below in node.items():
            if element != ".":
                if not element.startswith(_KINDS):
                    return None
                waiting.append((below, (*at, element)))
    return frozenset(found)


def shown(path: Path) -> str:
    """`.spec.containers[name="web"].image`."""
    return "".join(_shown_element(element) for element in path)


def _shown_element(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    try:
        keys = json.loads(text)
    except ValueError:
        return f"[{text}]"
    if kind == "k:" and isinstance(keys, Mapping):
        return "[" + ",".join(f"{key}={_compact(value)}" for key, value in sorted(keys.items())) + "]"
    return f"[={_compact(keys)}]" if kind == "v:" else f"[{text}]"
