"""Patterns of schemas, matched in a time that grows with the text alone: a hostile pattern holds up nobody.

They are read by Python's own parser and mean what they do in Kubernetes (RE2): `$` is the end of the text, and `\\d`,
`\\s` and `\\w` are ASCII. A pattern becomes an automaton whose steps are remembered.
"""

import importlib
import re
import warnings
from functools import lru_cache
from typing import Any

Ranges = tuple[tuple[int, int], ...]

_MAX_NODES = 4000
_MAX_KEPT = 200_000  # nodes in all that is remembered
_MAX_WORK = 150_000  # visits of nodes for one text: half a second
_LAST = 0x10FFFF
_CATEGORIES: dict[str, Ranges] = {
    "DIGIT": ((48, 57),),
    "SPACE": ((9, 13), (32, 32)),
    "WORD": ((48, 57), (65, 90), (95, 95), (97, 122)),
}
_parser: Any = importlib.import_module("re._parser")


class _NotKnownError(Exception):
    """The pattern has what no automaton does, or is too large."""


class _Node:
    """A place in a pattern: reads a character of `ranges`, or goes on `only` at the start or end, or always."""

    __slots__ = ("only", "ranges", "then")

    def __init__(self, then: tuple["_Node", ...], *, ranges: Ranges | None = None, only: str = "") -> None:
        self.then, self.ranges, self.only = then, ranges, only


class _State:
    """The places where one can be after some text, and where each character leads from there."""

    __slots__ = ("done", "ends", "nodes", "steps")

    def __init__(self, nodes: frozenset[_Node], *, done: bool, ends: bool) -> None:
        self.nodes, self.done, self.ends = nodes, done, ends
        self.steps: dict[str, _State] = {}


class Matcher:
    """One pattern, searched for in texts."""

    def __init__(self, tree: Any) -> None:
        self._count, self._end = 0, _Node(())
        self._first = self._sequence(tree, self._end)
        self._forget()

    def _forget(self) -> None:
        self._states: dict[tuple[bool, frozenset[_Node]], _State] = {}
        self._known = 0
        self._start = self._state({self._first}, at_start=True)

    def matches(self, text: str) -> bool | None:
        """Whether the pattern is somewhere in the text; None when it would take too long to know."""
        state, work = self._start, 0
        for char in text:
            if state.done:
                return True
            found = state.steps.get(char)
            if found is None:
                work += len(state.nodes) + 1
                if work > _MAX_WORK:
                    return None
                if self._known >= _MAX_KEPT:
                    self._forget()
                found = self._step(state, char)
            state = found
        return state.done or state.ends

    def _step(self, state: _State, char: str) -> _State:
        code = ord(char)
        reached = {self._first}  # the pattern may also begin here
        for node in state.nodes:
            if node.ranges is not None and any(low <= code <= high for low, high in node.ranges):
                reached.update(node.then)
        state.steps[char] = found = self._state(reached, at_start=False)
        self._known += len(found.nodes) + 1
        return found

    def _state(self, nodes: set[_Node], *, at_start: bool) -> _State:
        seen = _closure(nodes, at_start=at_start, at_end=False)
        key = (
            at_start,
            frozenset(node for node in seen if node.ranges is not None or node.only == "end" or not node.then),
        )
        if key not in self._states:
            readers = frozenset(node for node in seen if node.ranges is not None)
            ends = self._end in _closure(nodes, at_start=at_start, at_end=True)
            self._states[key] = _State(readers, done=self._end in seen, ends=ends)
        return self._states[key]

    # --- out of the parser's tree ---

    def _node(self, then: tuple[_Node, ...], *, ranges: Ranges | None = None, only: str = "") -> _Node:
        self._count += 1
        if self._count > _MAX_NODES:
            raise _NotKnownError
        return _Node(then, ranges=ranges, only=only)

    def _sequence(self, items: Any, then: _Node) -> _Node:
        for op, value in reversed(list(items)):
            then = self._one(op.name, value, then)
        return then

    def _one(self, op: str, value: Any, then: _Node) -> _Node:
        match op:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                return self._node((then,), ranges=_ranges(op, value))
            case "BRANCH":
                return self._node(tuple(self._sequence(option, then) for option in value[1]))
            case "SUBPATTERN" if not value[1] and not value[2]:  # flags of its own
                return self._sequence(value[3], then)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, items = value
                return self._repeat(least, most, items, then)
            case "AT" if value.name in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
                return self._node((then,), only="start")
            case "AT" if value.name in ("AT_END", "AT_END_STRING"):
                return self._node((then,), only="end")
        raise _NotKnownError

    def _repeat(self, least: int, most: Any, items: Any, then: _Node) -> _Node:
        if most == _parser.MAXREPEAT:
            found = self._node(())
            found.then = (self._sequence(items, found), then)
        else:
            found = then
            for _ in range(min(int(most) - least, _MAX_NODES)):
                found = self._node((self._sequence(items, found), then))
        for _ in range(min(least, _MAX_NODES)):
            found = self._node((self._sequence(items, found),))
        return found


def _closure(nodes: set[_Node], *, at_start: bool, at_end: bool) -> set[_Node]:
    """The nodes with all that one comes to without reading."""
    seen, left = set(nodes), list(nodes)
    while left:
        node = left.pop()
        blocked = (node.only == "start" and not at_start) or (node.only == "end" and not at_end)
        if node.ranges is not None or blocked:
            continue
        for one in node.then:
            if one not in seen:
                seen.add(one)
                left.append(one)
    return seen


def _ranges(op: str, value: Any) -> Ranges:
    match op:
        case "LITERAL":
            return ((value, value),)
        case "NOT_LITERAL":
            return _others(((value, value),))
        case "ANY":
            return _others(((10, 10),))
        case "RANGE":
            return (tuple(value),)
        case "CATEGORY":
            word = value.name.removeprefix("CATEGORY_")
            found = _CATEGORIES[word.removeprefix("NOT_")]
            return _others(found) if word.startswith("NOT_") else found
    items = [(inner.name, part) for inner, part in value]  # IN
    negated = items[0][0] == "NEGATE"
    found = tuple(one for inner, part in items[negated:] for one in _ranges(inner, part))
    return _others(found) if negated else found


def _others(ranges: Ranges) -> Ranges:
    """All characters but these."""
    found, after = [], 0
    for low, high in sorted(ranges):
        if low > after:
            found.append((after, low - 1))
        after = max(after, high + 1)
    return (*found, (after, _LAST)) if after <= _LAST else tuple(found)


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> Matcher | None:
    """The pattern, ready to be searched for; None for one that is not understood."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # such as [[:alpha:]], which is no class here
            tree = _parser.parse(pattern, re.ASCII)
        return Matcher(tree) if not tree.state.flags & ~re.ASCII else None
    except (re.error, FutureWarning, RecursionError, OverflowError, _NotKnownError):
        return None
