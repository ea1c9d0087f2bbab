"""YAML (and JSON) as a tree that knows on which line everything stands, without YAML's traps.

Plain `yes`, `on`, `12:30`, `0755` and `2024-01-01` are text here, as they look; `true`, `12`, `1.5` are what they
are in JSON. Scalars remember how they were written. A key given twice is an error. Bounded, whatever aliases say.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from korch.errors import InvalidError

Scalar = str | int | float | bool | None

_MAX_NODES = 200_000
_MAX_DEPTH = 64
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})", re.ASCII)
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?", re.ASCII)
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_STR_TAGS = ("!", "tag:yaml.org,2002:str")
_TAGS = {None, *_STR_TAGS, *(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null", "map", "seq"))}
_ESCAPE = re.compile(r"\\(?:(u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}|.)", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Tree(msgspec.Struct, frozen=True):
    """A value and its line. `text` is a scalar as written, without quotes; `lines` has the line of each key."""

    value: "dict[str, Tree] | list[Tree] | Scalar"
    line: int
    text: str = ""
    lines: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it is, in the words of a message."""
        match self.value:
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case bool():
                return "a boolean"
            case int() | float():
                return "a number"
            case None:
                return "nothing"
            case _:
                return "text"


def load_trees(text: str, source: str) -> list[Tree]:
    """The documents of a text; `InvalidError` says FILE:LINE. Empty documents are left out."""
    try:
        trees = list(_Builder(yaml.parse(_json_as_yaml(text), Loader=_Loader), source).documents())
    except yaml.YAMLError as error:
        raise InvalidError(
            _syntax_message(error, source), hint="Mind the indentation, and quote special text."
        ) from error
    return [tree for tree in trees if tree.value is not None]


def plain(tree: Tree) -> Any:
    """The value without lines: dicts, lists, scalars."""
    match tree.value:
        case dict() as mapping:
            return {key: plain(item) for key, item in mapping.items()}
        case list() as items:
            return [plain(item) for item in items]
        case scalar:
            return scalar


def line_of(tree: Tree, path: str) -> int:
    """The line of `spec.containers[0].name`, or of the nearest thing above it that is there."""
    line = tree.line
    for index, key in _steps(path):
        if index is not None and isinstance(tree.value, list) and index < len(tree.value):
            tree = tree.value[index]
            line = tree.line
        elif key is not None and isinstance(tree.value, dict) and key in tree.value:
            line = tree.lines[key]
            tree = tree.value[key]
        else:
            break
    return line


def _steps(path: str) -> Iterator[tuple[int | None, str | None]]:
    for found in _STEP.finditer(path):
        yield (int(found[1]), None) if found[1] is not None else (None, found[2])


def _json_as_yaml(text: str) -> str:
    """JSON may have tabs between tokens and may write one character as two escapes (`\\ud83d\\ude00`); YAML may not.

    Line numbers stay as they are. JSON's strings have no raw tabs, so each tab can become a space.
    """
    if text.lstrip()[:1] not in ("{", "[") or not ("\t" in text or "\\u" in text):
        return text
    try:
        json.loads(text)
    except ValueError:
        return text
    return _ESCAPE.sub(lambda found: json.loads(f'"{found[0]}"') if found[1] else found[0], text).replace("\t", " ")


def _syntax_message(error: yaml.YAMLError, source: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "this is not YAML"
    return f"{source}:{mark.line + 1}: {problem}" if mark else f"{source}: {problem}"


def _height(tree: Tree) -> int:
    below = tree.value.values() if isinstance(tree.value, dict) else tree.value if isinstance(tree.value, list) else ()
    return 1 + max((_height(item) for item in below), default=0)


class _Builder:
    """Builds from the parser's events, so that depth and size are bounded before anything is built."""

    def __init__(self, events: Iterator[yaml.Event], source: str) -> None:
        self._events = events
        self._source = source
        self._count = 0
        self._anchors: dict[str, tuple[Tree, int, int]] = {}  # with number and depth of the nodes below

    def documents(self) -> Iterator[Tree]:
        """The trees of all documents."""
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                yield self._node(next(self._events), 0)

    def _fail(self, line: int, message: str, hint: str = "") -> InvalidError:
        return InvalidError(f"{self._source}:{line}: {message}", hint=hint)

    def _node(self, event: Any, depth: int) -> Tree:
        line = event.start_mark.line + 1
        before = self._count
        self._grow(1, line, depth)
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(str(event.anchor), line, depth)
        if event.tag not in _TAGS:
            raise self._fail(line, f"the tag {event.tag} is not known", "Remove it.")
        match event:
            case yaml.MappingStartEvent():
                tree = self._mapping(line, depth)
            case yaml.SequenceStartEvent():
                tree = Tree([self._node(e, depth + 1) for e in self._until(yaml.SequenceEndEvent)], line)
            case _:
                tree = Tree(self._scalar(event, line), line, str(event.value))
        if event.anchor:
            self._anchors[event.anchor] = tree, self._count - before, _height(tree)
        return tree

    def _grow(self, nodes: int, line: int, depth: int) -> None:
        self._count += nodes
        if self._count > _MAX_NODES or depth > _MAX_DEPTH:
            raise self._fail(line, "this is too large or too deep", "Do aliases repeat themselves?")

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _aliased(self, anchor: str, line: int, depth: int) -> Tree:
        if anchor not in self._anchors:
            raise self._fail(line, f"the alias *{anchor} has no anchor before it")
        tree, size, height = self._anchors[anchor]
        self._grow(size, line, depth + height)
        return tree

    def _scalar(self, event: Any, line: int) -> Scalar:
        text, tag = str(event.value), event.tag
        if event.style or tag in _STR_TAGS:
            return self._whole(text, line)
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else self._whole(text, line)

    def _whole(self, text: str, line: int) -> str:
        """JSON writes a character beyond U+FFFF as two escapes; they become one again."""
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise self._fail(line, "this text is not valid Unicode") from error

    def _mapping(self, line: int, depth: int) -> Tree:
        own: dict[str, Tree] = {}
        lines: dict[str, int] = {}
        merged: list[Tree] = []
        key_event: Any
        for key_event in self._until(yaml.MappingEndEvent):
            key_line = key_event.start_mark.line + 1
            if not isinstance(key_event, yaml.ScalarEvent):
                raise self._fail(key_line, "a key must be a single word")
            key = self._whole(str(key_event.value), key_line)
            value = self._node(next(self._events), depth + 1)
            if key == "<<" and not key_event.style:
                merged += value.value if isinstance(value.value, list) else [value]
            elif key in own:
                raise self._fail(key_line, f'"{key}" stands here a second time (first: line {lines[key]})')
            else:
                own[key], lines[key] = value, key_line
        for other in merged:
            if not isinstance(other.value, dict):
                raise self._fail(line, "<< takes a mapping")
            for key in other.value.keys() - own.keys():
                own[key], lines[key] = other.value[key], other.lines[key]
        return Tree(own, line, lines=lines)
