"""JSON values: equality that tells `1` from `true`, copies, and bounds on depth and size."""

from collections.abc import Hashable, Iterator
from typing import Any

from korch.errors import MalformedError, TooLargeError

MAX_DEPTH = 100
MAX_NODES = 500_000
_INT64 = 2**63


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, but no number equals a boolean."""
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(same(value, right[key]) for key, value in left.items())
        )
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def ident(value: Any) -> Hashable:
    """Something to look the value up by: equal for values that are `same`."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return ("map", frozenset((key, ident(item)) for key, item in value.items()))
    return ("list", tuple(map(ident, value))) if isinstance(value, list) else value


def copied(value: Any) -> Any:
    """A value that shares nothing changeable with this one."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def extent(value: Any) -> tuple[int, int]:
    """How many values there are, itself included, and how many levels lie below it."""
    sizes = [len(level) for level in _levels(value)]
    return sum(sizes), len(sizes) - 1


def check_bounds(value: Any, what: str) -> None:
    """Raise when the value is too deep, too large, or holds whole numbers that no field can hold (64 bits)."""
    count = 0
    for depth, level in enumerate(_levels(value)):
        count += len(level)
        if depth > MAX_DEPTH:
            raise MalformedError(f"{what} is nested deeper than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise TooLargeError(f"{what} has more than {MAX_NODES:,} values")
        for item in level:
            if isinstance(item, int) and not -_INT64 <= item < _INT64:
                raise MalformedError(f"{what} has the number {str(item)[:40]}, which needs more than 64 bits")


def _levels(value: Any) -> Iterator[list[Any]]:
    """All values, by depth."""
    level = [value]
    while level:
        yield level
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below
