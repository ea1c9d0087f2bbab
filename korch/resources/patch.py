"""Declarative apply: what a manifest says now, what it said before, and what others have set since, merged.

Modelled on `kubectl apply`: keys that the manifest dropped are removed, keys that it has win, all others stay.
Lists of named things merge by their key, other lists are replaced whole.
"""

from collections.abc import Callable, Hashable
from typing import Any

# Merge keys of core/v1 (patchMergeKey in the API types). Ports count with their protocol: 53/tcp and 53/udp are two.
_MERGE_KEYS: dict[str, Callable[[dict[str, Any]], Hashable]] = {
    "containers": lambda item: item.get("name"),
    "initContainers": lambda item: item.get("name"),
    "env": lambda item: item.get("name"),
    "volumes": lambda item: item.get("name"),
    "imagePullSecrets": lambda item: item.get("name"),
    "volumeMounts": lambda item: item.get("mountPath"),
    "ports": lambda item: (item.get("containerPort"), item.get("protocol") or "TCP"),
    "topologySpreadConstraints": lambda item: (item.get("topologyKey"), item.get("whenUnsatisfiable")),
    "ownerReferences": lambda item: item.get("uid"),
}


def three_way_merge(before: dict[str, Any], wanted: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """`current` changed by the difference between `before` and `wanted`. All are plain data; none is mutated."""
    dropped = {key for key in before if key not in wanted}
    merged = {key: value for key, value in current.items() if key not in dropped}
    for key, value in wanted.items():
        merged[key] = _merge_value(key, before.get(key), value, current.get(key))
    return merged


def _merge_value(key: str, before: Any, wanted: Any, current: Any) -> Any:
    if isinstance(wanted, dict) and isinstance(current, dict):
        return three_way_merge(before if isinstance(before, dict) else {}, wanted, current)
    if key in _MERGE_KEYS and isinstance(wanted, list) and isinstance(current, list):
        return _merge_list(_MERGE_KEYS[key], before if isinstance(before, list) else [], wanted, current)
    return wanted


def _merge_list(
    key_of: Callable[[dict[str, Any]], Hashable], before: list[Any], wanted: list[Any], current: list[Any]
) -> list[Any]:
    """In the manifest's order; what others added stands behind it."""
    if len({key_of(item) for item in wanted}) < len(wanted):
        return wanted  # twice the same key: validation says so, merging would hide it
    old = {key_of(item): item for item in before}
    there = {key_of(item): item for item in current}
    mine = {key_of(item): item for item in wanted}
    merged = [three_way_merge(old.get(key, {}), item, there.get(key, {})) for key, item in mine.items()]
    others = [item for key, item in there.items() if key not in mine and key not in old]
    return merged + others
