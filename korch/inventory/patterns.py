"""Ansible's host patterns: `web:db`, `node0?`, `web,!node3`, `web:&rack1`, `web[0:2]`, `~node\\d+`."""

import fnmatch
import re
from collections.abc import Mapping, Sequence

from korch.errors import InvalidError
from korch.inventory.hostnames import is_ipv6
from korch.inventory.tree import did_you_mean

_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?\d+)|(\d+):(\d*))\]", re.DOTALL)
_COLON_PARTS = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")
_GLOB = re.compile(r"[*?\[]")


def split_pattern(text: str) -> list[str]:
    """Parts of a pattern. Commas separate; without a comma colons do, but not those of [1:3] or of an IPv6 address."""
    if "," in text:
        parts = text.split(",")
    elif text.startswith("~") or is_ipv6(text.lstrip("!&")):
        parts = [text]
    else:
        parts = _COLON_PARTS.findall(text)
    return [part.strip() for part in parts if part.strip()]


def select_hosts(pattern: str, hosts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """The hosts that a pattern means; plain parts are joined first, then `&` cuts, then `!` takes away.

    A part that matches nothing is a mistake (Ansible only warns): `InvalidError`. An empty pattern means all.
    """
    parts = split_pattern(pattern)
    plain = [part for part in parts if part[0] not in "!&"] or ["all"]
    chosen: set[str] = set()
    for part in plain:
        chosen.update(_matches(part, hosts, groups))
    for part in parts:
        if part[0] == "&":
            chosen.intersection_update(_matches(part[1:], hosts, groups))
    for part in parts:
        if part[0] == "!":
            chosen.difference_update(_matches(part[1:], hosts, groups))
    return frozenset(chosen)


def _matches(part: str, hosts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    if part in hosts:
        return [part]
    subscript = None if part.startswith("~") else _SUBSCRIPT.fullmatch(part)
    word = subscript[1] if subscript else part
    found, known = _named(word, hosts, groups)
    if not known:
        raise InvalidError(
            f'"{part}" matches no host and no group{did_you_mean(word, [*groups, *hosts])}',
            hint=f"Groups: {_shown(groups)}. Hosts: {_shown(hosts)}.",
        )
    return found if subscript is None else _subscripted(found, subscript, part)


def _named(word: str, hosts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> tuple[list[str], bool]:
    """Hosts of the groups that match and, for patterns or when no group does, the hosts that match themselves."""
    matcher = _matcher(word)
    matching = [name for name in groups if matcher.match(name)]
    found = dict.fromkeys(host for name in matching for host in groups[name])
    if not matching or word.startswith("~") or "." in word or _GLOB.search(word):
        found.update(dict.fromkeys(host for host in hosts if matcher.match(host)))
    return list(found), bool(found) or bool(matching)


def _matcher(word: str) -> re.Pattern[str]:
    if not word or word == "~":
        raise InvalidError("a host pattern is empty", hint="Examples: web, node*, web:!node3, 'web:&rack1'.")
    try:
        return re.compile(word[1:] if word.startswith("~") else fnmatch.translate(word))
    except re.error as error:
        raise InvalidError(f'"{word}" is not a regular expression: {error}') from error


def _subscripted(found: list[str], subscript: re.Match[str], part: str) -> list[str]:
    _word, index, begin, end = subscript.groups()
    picked: list[str]
    if index is not None:
        at = int(index)
        picked = [found[at]] if -len(found) <= at < len(found) else []
    else:
        picked = found[int(begin) : int(end) + 1 if end else None]
    if not picked:
        raise InvalidError(f'"{part}" picks no host: the group has {len(found)}', hint="The first host is [0].")
    return picked


def _shown(names: Sequence[str] | Mapping[str, Sequence[str]]) -> str:
    shown = list(names)[:10]
    return ", ".join(shown) + (" …" if len(names) > len(shown) else "")
