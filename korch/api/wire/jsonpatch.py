"""JSON Patch (RFC 6902), as Kubernetes reads it: a failing `test` refuses all of it, an unset member is as null."""

from dataclasses import dataclass
from typing import Any

from korch.api.wire.tree import MAX_DEPTH, MAX_NODES, copied, extent, same
from korch.errors import InvalidError, MalformedError, TooLargeError

_MAX_OPERATIONS = 10_000


def json_patched(patch: Any, live: Any) -> Any:
    """`live` after all operations; `InvalidError` names the one that cannot be done."""
    if not isinstance(patch, list) or not all(isinstance(one, dict) for one in patch):
        raise MalformedError("a JSON patch is a list of operations")
    if len(patch) > _MAX_OPERATIONS:
        raise TooLargeError(f"the patch has {len(patch):,} operations; {_MAX_OPERATIONS:,} are allowed")
    document, budget = copied(live), _Budget()
    for index, operation in enumerate(patch):
        try:
            document = _apply(operation, document, budget)
        except InvalidError as error:
            raise type(error)(f"operation {index} of the patch: {error}", hint=error.hint) from error
    return document


@dataclass(slots=True)
class _Budget:
    """What operations may still add: copies of copies grow fast."""

    nodes: int = MAX_NODES

    def take(self, value: Any, path: list[str]) -> Any:
        """The value, which will stand at the path; raise when that is too much or too deep."""
        count, height = extent(value)
        self.nodes -= count
        if self.nodes < 0 or height + len(path) > MAX_DEPTH:
            raise TooLargeError("this makes the object too large or too deep")
        return value


def _apply(operation: dict[str, Any], document: Any, budget: _Budget) -> Any:
    """The document, changed in place where it can be."""
    path = _pointer(operation, "path")
    match operation.get("op"):
        case "add":
            return _add(document, path, copied(budget.take(_value(operation), path)))
        case "replace":  # also of a member that is not set: an object leaves out what is empty
            return _set(document, path, copied(budget.take(_value(operation), path)))
        case "remove":
            return _remove(document, path)
        case "test":
            _test(document, path, operation.get("value"))
            return document
        case "copy":
            return _add(document, path, copied(budget.take(_get(document, _pointer(operation, "from")), path)))
        case "move":
            source = _pointer(operation, "from")
            if path[: len(source)] == source and len(path) > len(source):
                raise InvalidError(f"{_shown(source)} cannot be moved into itself")
            value = budget.take(_get(document, source), path)
            return _add(_remove(document, source), path, value)
        case other:
            raise MalformedError(f'"{other}" is no operation', hint="add, remove, replace, move, copy, test")


def _pointer(operation: dict[str, Any], name: str) -> list[str]:
    """The steps of a JSON pointer (RFC 6901)."""
    text = operation.get(name)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise MalformedError(f'"{name}" must be a pointer such as /metadata/labels/app')
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise MalformedError('"value" is missing')
    return operation["value"]


def _shown(path: list[str]) -> str:
    return "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in path) or "the whole"


def _index(items: list[Any], step: str, path: list[str], *, end: int) -> int:
    """The place in a list; negative ones count from its end, as Kubernetes takes them."""
    digits = step.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and (digits == "0" or not digits.startswith("0"))
    index = int(step) if plain and len(step) < 10 else None
    if index is not None and index < 0:
        index += end
    if index is None or not 0 <= index < end:
        raise InvalidError(f"{_shown(path)}: a list of {len(items)} has no place {step[:20]}")
    return index


def _get(document: Any, path: list[str]) -> Any:
    for depth, step in enumerate(path):
        if isinstance(document, dict):
            if step not in document:
                raise InvalidError(f"{_shown(path[: depth + 1])} does not exist")
            document = document[step]
        elif isinstance(document, list):
            document = document[_index(document, step, path[: depth + 1], end=len(document))]
        else:
            raise InvalidError(f"{_shown(path[:depth])} has nothing in it")
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if path and isinstance(parent := _get(document, path[:-1]), list):
        step = path[-1]
        parent.insert(len(parent) if step == "-" else _index(parent, step, path, end=len(parent) + 1), value)
        return document
    return _set(document, path, value)


def _set(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        parent[_index(parent, path[-1], path, end=len(parent))] = value
    else:
        raise InvalidError(f"{_shown(path[:-1])} has nothing in it")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    _get(document, path)
    if not path:
        return None
    parent = _get(document, path[:-1])
    del parent[_index(parent, path[-1], path, end=len(parent)) if isinstance(parent, list) else path[-1]]
    return document


def _test(document: Any, path: list[str], wanted: Any) -> None:
    try:
        found = _get(document, path)
    except InvalidError:
        if wanted is None:
            return  # an unset field and null are one
        raise
    if not same(found, wanted):
        raise InvalidError(f"{_shown(path)} is not what the test expects", hint="Read the object again.")
