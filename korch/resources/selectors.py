"""Label selectors: the text form of the command line and the API, the object form of manifests, and matching.

One matching function serves labels of pods, labels of nodes (which also know Gt and Lt) and both forms of selector.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, cast

import msgspec

from korch.errors import InvalidError
from korch.resources.meta import LabelSelector

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_HINT = "Examples: app=web  tier!=db  zone in (a,b)  zone notin (c)  gpu  !gpu"
_WORD = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)
_SET = re.compile(r"(?P<key>\S+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARE = re.compile(r"(?P<key>[^=!<>\s]+)\s*(?P<sign>==|=|!=|>|<)\s*(?P<value>\S*)")
_SIGNS: dict[str, Operator] = {"=": "In", "==": "In", "!=": "NotIn", ">": "Gt", "<": "Lt"}


class Requirement(msgspec.Struct, frozen=True):
    """One condition on one label. `NotIn` and `DoesNotExist` hold for objects without the label, as in Kubernetes."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


class Selector(msgspec.Struct, frozen=True):
    """Conditions that must all hold; without any, everything matches."""

    requirements: tuple[Requirement, ...] = ()


def matches(selector: LabelSelector | Selector | None, labels: Mapping[str, str]) -> bool:
    """Whether the labels satisfy the selector. `None` means "no selector given" and matches everything."""
    if selector is None:
        return True
    if isinstance(selector, Selector):
        return all(requirement_matches(r.key, r.operator, r.values, labels) for r in selector.requirements)
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        requirement_matches(r.key, r.operator, r.values, labels) for r in selector.match_expressions
    )


def requirement_matches(key: str, operator: str, values: tuple[str, ...], labels: Mapping[str, str]) -> bool:
    """Whether one condition holds; also for node affinity, which adds Gt and Lt on whole numbers."""
    value = labels.get(key)
    match operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compare(operator, value, values)
    raise InvalidError(f'selector operator "{operator}" is not known', hint=f"Use one of {', '.join(_OPERATORS)}.")


def _compare(operator: str, value: str | None, values: tuple[str, ...]) -> bool:
    try:
        left, right = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False  # a label that is no number is neither greater nor less
    return left > right if operator == "Gt" else left < right


@lru_cache(maxsize=256)
def parse_selector(text: str) -> Selector:
    """The selector for `a=b,c!=d,e in (x,y),f notin (z),g,!h`; empty text selects everything."""
    return Selector(tuple(_parse_requirement(part, text) for part in _split(text)))


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside parentheses."""
    if not text.strip():
        return []
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _parse_requirement(part: str, text: str) -> Requirement:
    if found := _SET.fullmatch(part):
        values = tuple(value.strip() for value in found["values"].split(","))
        return _checked(Requirement(found["key"], "In" if found["word"] == "in" else "NotIn", values), text)
    if found := _COMPARE.fullmatch(part):
        return _checked(Requirement(found["key"], _SIGNS[found["sign"]], (found["value"],)), text)
    if part.startswith("!"):
        return _checked(Requirement(part[1:].strip(), "DoesNotExist"), text)
    return _checked(Requirement(part, "Exists"), text)


def _checked(requirement: Requirement, text: str) -> Requirement:
    problem = requirement_problem(requirement.key, requirement.operator, requirement.values)
    if problem:
        raise InvalidError(f'selector "{text}": {problem}', hint=_HINT)
    return requirement


def requirement_problem(key: str, operator: str, values: tuple[str, ...]) -> str:
    """Why this condition is not legal, or "" when it is."""
    if operator not in _OPERATORS:
        return f'operator "{operator}" is not one of {", ".join(_OPERATORS)}'
    if problem := label_key_problem(key):
        return problem
    if operator in ("In", "NotIn") and not values:
        return f'{operator} on "{key}" needs at least one value'
    if operator in ("Exists", "DoesNotExist") and values:
        return f'{operator} on "{key}" takes no values'
    if operator in ("Gt", "Lt"):
        fits = len(values) == 1 and re.fullmatch(r"-?[0-9]{1,18}", values[0], re.ASCII)
        return "" if fits else f'{operator} on "{key}" takes one whole number'
    return next((problem for value in values if (problem := label_value_problem(value))), "")


def label_key_problem(key: str) -> str:
    """Why this is no label key (`name` or `dns.prefix/name`), or ""."""
    prefix, slash, name = key.rpartition("/")
    if not _WORD.fullmatch(name) or (slash and not (len(prefix) <= 253 and _PREFIX.fullmatch(prefix))):
        return f'"{key}" is not a label key (letters, digits, "-", "_", "."; at most 63; maybe a DNS prefix and "/")'
    return ""


def label_value_problem(value: str) -> str:
    """Why this is no label value, or "" (the empty value is legal)."""
    if value and not _WORD.fullmatch(value):
        return f'"{value}" is not a label value (letters, digits, "-", "_", "."; at most 63)'
    return ""


def validate_selector(selector: LabelSelector, where: str) -> None:
    """Raise `InvalidError` naming `where` (a field's path) when a manifest's selector is not legal."""
    for key, value in selector.match_labels.items():
        if problem := label_key_problem(key) or label_value_problem(value):
            raise InvalidError(f"{where}.matchLabels: {problem}")
    for requirement in selector.match_expressions:
        problem = requirement_problem(requirement.key, requirement.operator, requirement.values)
        if not problem and requirement.operator in ("Gt", "Lt"):
            problem = f'operator "{requirement.operator}" is for node affinity only'
        if problem:
            raise InvalidError(f"{where}.matchExpressions: {problem}")


def selector_of(selector: LabelSelector | None) -> Selector:
    """The object form as conditions in a stable order, so that equal selectors compare equal."""
    if selector is None:
        return Selector()
    exact = [Requirement(key, "In", (value,)) for key, value in selector.match_labels.items()]
    more = [
        Requirement(r.key, cast("Operator", r.operator), tuple(sorted(r.values))) for r in selector.match_expressions
    ]
    return Selector(tuple(sorted({*exact, *more}, key=lambda r: (r.key, r.operator, r.values))))


def selector_text(selector: LabelSelector | Selector | None) -> str:
    """The selector as the command line writes it; `parse_selector` reads it back."""
    found = selector if isinstance(selector, Selector) else selector_of(selector)
    return ",".join(_requirement_text(r) for r in found.requirements)


def _requirement_text(requirement: Requirement) -> str:
    key, values = requirement.key, requirement.values
    match requirement.operator:
        case "In":
            return f"{key}={values[0]}" if len(values) == 1 else f"{key} in ({','.join(values)})"
        case "NotIn":
            return f"{key}!={values[0]}" if len(values) == 1 else f"{key} notin ({','.join(values)})"
        case "Exists":
            return key
        case "DoesNotExist":
            return f"!{key}"
        case "Gt":
            return f"{key}>{values[0]}"
        case "Lt":
            return f"{key}<{values[0]}"
