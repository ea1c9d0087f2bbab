"""Strategic merge patch: lists of named things merge by their key, and `$` words in the patch say what else to do.

`$patch` (replace, delete, merge), `$retainKeys`, `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`; null removes
a key. Lists without a key in `shapes` are replaced. Described in Kubernetes' API conventions.
"""

from collections import deque
from collections.abc import Hashable
from typing import Any

from korch.api.wire.shapes import Shape
from korch.api.wire.tree import copied, ident, same
from korch.errors import InvalidError, MalformedError

_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def strategic_merged(patch: dict[str, Any], live: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """`live` after the patch; neither is changed."""
    return _merged_map(patch, live, shape, "")


def _merged_map(patch: dict[str, Any], live: dict[str, Any], shape: Shape, path: str) -> dict[str, Any]:
    match patch.get("$patch"):
        case "replace":
            return _new_map({key: value for key, value in patch.items() if key != "$patch"}, shape, path)
        case "delete":
            return {}
        case None | "merge":
            pass
        case other:
            raise MalformedError(f'{path or "patch"}: "$patch" is "{other}", not replace, delete or merge')
    result = _retained(patch, live, path)
    for key, value in patch.items():
        if key.startswith("$"):
            _check_directive(key, value, path)
            continue
        where = f"{path}.{key}" if path else key
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(patch, key, value, result.get(key), shape.child(key), where)
    for key in patch:
        _untouched_list(patch, key, result, shape)
    return result


def _new_map(patch: dict[str, Any], shape: Shape, path: str) -> dict[str, Any]:
    """What a map of a patch says where there is nothing yet: itself, without words for the patching."""
    return _merged_map(patch, {}, shape, path)


def _retained(patch: dict[str, Any], live: dict[str, Any], path: str) -> dict[str, Any]:
    keep = patch.get("$retainKeys")
    if keep is None:
        return dict(live)
    if not isinstance(keep, list) or not all(isinstance(key, str) for key in keep):
        raise MalformedError(f"{path or 'patch'}: $retainKeys is a list of names")
    stray = [key for key, value in patch.items() if not key.startswith("$") and key not in keep and value is not None]
    if stray:
        raise InvalidError(f"{path or 'patch'}: {stray[0]} is set and is not in $retainKeys")
    return {key: value for key, value in live.items() if key in keep}


def _check_directive(key: str, value: Any, path: str) -> None:
    if key in ("$patch", "$retainKeys"):
        return
    if not key.startswith((_ORDER, _DELETE)):
        raise MalformedError(f'{path or "patch"}: "{key}" is not a word for patching')
    if not isinstance(value, list):
        raise MalformedError(f"{path or 'patch'}: {key} is a list")


def _merged(patch: dict[str, Any], key: str, value: Any, live: Any, shape: Shape, where: str) -> Any:
    if isinstance(value, dict):
        whole = shape.replaced or not isinstance(live, dict)
        return _merged_map(value, {} if whole else live, shape, where)
    if not isinstance(value, list):
        return value
    old = live if isinstance(live, list) else []
    if shape.merges:
        dropped = patch.get(_DELETE + key)
        united = list({ident(item): item for item in [*old, *copied(value)]}.values())
        merged = _ordered(united, old, value, "")
        kept = _without(merged, dropped) if isinstance(dropped, list) else merged
        return _ordered(kept, old, patch.get(_ORDER + key), "")
    if shape.merge_key:
        return _merged_list(patch, key, value, old, shape, where)
    return copied(value)


def _untouched_list(patch: dict[str, Any], key: str, result: dict[str, Any], shape: Shape) -> None:
    """Words about a list that the patch itself does not have: take out of it, put it in order."""
    for word in (_DELETE, _ORDER):
        name = key.removeprefix(word)
        if not key.startswith(word) or name in patch or not isinstance(items := result.get(name), list):
            continue
        if word is _DELETE:
            result[name] = _without(items, patch[key])
        else:
            result[name] = _ordered(items, items, patch[key], shape.child(name).merge_key)


def _merged_list(
    patch: dict[str, Any], key: str, items: list[Any], old: list[Any], shape: Shape, where: str
) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in items):
        rest = [item for item in items if not (isinstance(item, dict) and item.get("$patch") == "replace")]
        return [_new_map(item, shape, where) if isinstance(item, dict) else item for item in rest]
    result: dict[int, Any] = dict(enumerate(old))
    places: dict[Hashable, list[int]] = {}
    for index, item in enumerate(old):
        places.setdefault(_key_of(item, shape.merge_key), []).append(index)
    for index, item in enumerate(items):
        if not isinstance(item, dict) or shape.merge_key not in item:
            raise InvalidError(f"{where}[{index}] has no {shape.merge_key}, by which items of this list are found")
        found = places.setdefault(_key_of(item, shape.merge_key), [])
        if item.get("$patch") == "delete":
            for place in found:
                del result[place]
            found.clear()
            continue
        if not found:
            found.append(len(old) + index)
        place = _place(found, result, item, shape)
        live = result.get(place)
        result[place] = _merged_map(item, live if isinstance(live, dict) else {}, shape, f"{where}[{index}]")
    merged = _ordered([result[place] for place in sorted(result)], old, items, shape.merge_key)
    return _ordered(merged, old, patch.get(_ORDER + key), shape.merge_key)


def _place(found: list[int], items: dict[int, Any], wanted: dict[str, Any], shape: Shape) -> int:
    """Where the item stands; of several with its key (53/tcp, 53/udp) the one that is like it in the other keys."""
    if len(found) == 1:
        return found[0]
    full = (place for place in found if all(_alike(items[place], wanted, key, shape) for key in shape.keys))
    return next(full, found[0])


def _alike(left: dict[str, Any], right: dict[str, Any], key: str, shape: Shape) -> bool:
    default = shape.defaults.get(key)
    return same(left.get(key, default), right.get(key, default))


def _key_of(item: Any, merge_key: str) -> Hashable:
    """What the item is found by; a scalar is its own key."""
    return ident(item.get(merge_key) if merge_key and isinstance(item, dict) else item)


def _ordered(items: list[Any], before: list[Any], order: Any, merge_key: str) -> list[Any]:
    """The items in an order (a list of them or of their keys); others stand before what they stood before already."""
    if not isinstance(order, list):
        return items
    wanted = {_key_of(one, merge_key): index for index, one in reversed(list(enumerate(order)))}
    named = deque(item for item in items if _key_of(item, merge_key) in wanted)
    named = deque(sorted(named, key=lambda item: wanted[_key_of(item, merge_key)]))
    others = deque(item for item in items if _key_of(item, merge_key) not in wanted)
    old = {_key_of(item, merge_key): index for index, item in reversed(list(enumerate(before)))}
    result: list[Any] = []
    while named and others:
        mine, theirs = old.get(_key_of(named[0], merge_key)), old.get(_key_of(others[0], merge_key))
        later = mine is not None and theirs is not None and theirs < mine
        result.append(others.popleft() if later else named.popleft())
    return [*result, *named, *others]


def _without(items: list[Any], dropped: list[Any]) -> list[Any]:
    gone = set(map(ident, dropped))
    return [item for item in items if ident(item) not in gone]
