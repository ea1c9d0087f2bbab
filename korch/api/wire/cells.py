"""What tables are made of: columns, and short texts for parts of objects (plain dicts; anything may be absent).

Words and forms are those that kubectl's users know from Kubernetes' own server.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from korch.errors import InvalidError
from korch.resources.meta import LabelSelector
from korch.resources.selectors import selector_text
from korch.resources.times import format_age, parse_time

Json = dict[str, Any]

NONE, UNKNOWN, UNSET = "<none>", "<unknown>", "<unset>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `wide` ones are shown with `-o wide` only."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0

    def definition(self) -> Json:
        """As Tables describe it."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class Sheet:
    """The columns of one kind, and the cells of an object (at a time in Unix seconds) in the same order."""

    columns: tuple[Column, ...]
    cells: Callable[[Json, float], list[Any]]


NAME = Column("Name", format="name", description="Name of the object, unique among its kind in its namespace.")
AGE = Column("Age", description="How long ago the object was created.")


def columns(text: str) -> tuple[Column, ...]:
    """`Name, Ready:int, Age, Node+` as columns: `+` marks wide ones."""
    return tuple(_column(word.strip()) for word in text.split(","))


def _column(word: str) -> Column:
    name, _, type_ = word.removesuffix("+").partition(":")
    known = NAME if name == "Name" else AGE if name == "Age" else Column(name, "integer" if type_ else "string")
    return replace(known, priority=int(word.endswith("+")))


def part(obj: Any, *names: str) -> Any:
    """What stands at a path, or None."""
    for name in names:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(name)
    return obj


def items(obj: Any, *names: str) -> list[Any]:
    """The list at a path; [] when there is none."""
    found = part(obj, *names)
    return found if isinstance(found, list) else []


def number(obj: Any, *names: str) -> int:
    """The number at a path; 0 when there is none."""
    found = part(obj, *names)
    return found if isinstance(found, int) else 0


def text(obj: Any, *names: str, default: str = NONE) -> str:
    """The text at a path, or what stands for none."""
    found = part(obj, *names)
    return str(found) if found not in (None, "") else default


def name_of(obj: Json) -> str:
    """The object's name."""
    return text(obj, "metadata", "name", default="")


def age(timestamp: Any, now: float, default: str = UNKNOWN) -> str:
    """How long ago a time was; `default` without one."""
    if not isinstance(timestamp, str) or not timestamp:
        return default
    try:
        return format_age(now - parse_time(timestamp))
    except InvalidError:
        return "<invalid>"


def age_of(obj: Json, now: float) -> str:
    """How long ago the object was created."""
    return age(part(obj, "metadata", "creationTimestamp"), now)


def span(start: Any, end: Any) -> str:
    """The time between two times; "" when one is missing."""
    try:
        return format_age(parse_time(end) - parse_time(start))
    except (InvalidError, TypeError):
        return ""


def joined(words: Iterable[Any], default: str = NONE) -> str:
    """With commas; `default` for no words."""
    return ",".join(str(word) for word in words) or default


def limited(words: list[str], most: int, default: str) -> str:
    """At most so many, and how many more there are."""
    more = f" + {len(words) - most} more..." if len(words) > most else ""
    return joined(words[:most], default) + more


def pairs(found: Any) -> str:
    """`a=1,b=2`, as a map selects by labels."""
    return joined(f"{key}={value}" for key, value in sorted(found.items())) if isinstance(found, dict) else NONE


def selector(found: Any) -> str:
    """A label selector in its text form."""
    try:
        return selector_text(msgspec.convert(found or {}, LabelSelector)) or NONE
    except msgspec.ValidationError:
        return "<error>"


def condition(obj: Json, type_: str) -> Json:
    """The condition of one type in the status; empty when there is none."""
    return next((c for c in items(obj, "status", "conditions") if part(c, "type") == type_), {})


def holds(obj: Json, type_: str) -> bool:
    """Whether the condition is there and true."""
    return bool(part(condition(obj, type_), "status") == "True")
