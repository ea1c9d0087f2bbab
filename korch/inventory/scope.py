"""The variables of one host, read with an eye on mistakes: every error names file, line, variable and host."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from korch.errors import InvalidError
from korch.inventory.marked import Marked, Place, fault
from korch.inventory.templates import resolve
from korch.inventory.tree import Entry, did_you_mean

C = TypeVar("C", bound=str)

SSH_OPTIONS = "korch ssh options"  # set by vagrant.py only; no inventory can write a name with spaces


class Scope(msgspec.Struct, frozen=True):
    """The variables of one host and what `{{ … }}` may name besides."""

    entry: Entry
    variables: Mapping[str, Marked]

    def place(self, name: str) -> Place:
        """Where the variable was given."""
        return self.variables[name].place

    def value(self, *names: str) -> tuple[str, object]:
        """(name, value) of the last of `names` that is set; ("", None) when none is. null means not set."""
        for name in reversed(names):
            if name in self.variables:
                value = resolve(name, self.variables, self._builtins())
                if value is not None:
                    return name, value
        return "", None

    def fault(self, name: str, message: str, *, hint: str = "") -> InvalidError:
        """An error that names file, line, variable and host."""
        return fault(self.place(name), f'{name} of host "{self.entry.name}" {message}', hint=hint)

    def _builtins(self) -> dict[str, str]:
        own = {"inventory_hostname": self.entry.name, "inventory_hostname_short": self.entry.name.split(".")[0]}
        if self.entry.source is not None:
            own |= {"inventory_dir": str(self.entry.source.parent), "inventory_file": str(self.entry.source)}
        return own


def word(scope: Scope, *names: str) -> str | None:
    """A name for ssh: one word that ssh cannot take for an option."""
    name, value = scope.value(*names)
    if value is None:
        return None
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if not text or text.startswith("-") or any(char.isspace() or not char.isprintable() for char in text):
        raise scope.fault(
            name, f"is {value!r}, which is not one word", hint="It must not begin with - nor hold spaces."
        )
    return text


def whole_number(scope: Scope, name: str, value: object, low: int, high: int) -> int:
    """The value as a number within these bounds."""
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value.strip()) else value
    if type(number) is not int or not low <= number <= high:
        raise scope.fault(name, f"is {value!r}, not a whole number from {low} to {high}")
    return number


def flag(scope: Scope, name: str) -> bool | None:
    """A switch, in any of Ansible's words; None when it is not set."""
    _name, value = scope.value(name)
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "yes", "on", "1", "y", "t"}:
        return True
    if text in {"false", "no", "off", "0", "n", "f"}:
        return False
    raise scope.fault(name, f"is {value!r}, neither true nor false")


def choice(scope: Scope, name: str, choices: tuple[C, ...]) -> C | None:
    """One of these words; None when it is not set."""
    _name, value = scope.value(name)
    for allowed in choices:
        if value == allowed:
            return allowed
    if value is None:
        return None
    hint = f"Use {' or '.join(choices)}, or leave it out."
    raise scope.fault(name, f"is {value!r}{did_you_mean(str(value), choices)}", hint=hint)


def text_map(scope: Scope, variable: str, check: Callable[[str, str], str]) -> dict[str, str]:
    """A map of names to text. `check` says what is wrong with one entry; whole numbers may stand without quotes."""
    _name, value = scope.value(variable)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise scope.fault(variable, f"is {value!r}, not a map", hint=f"Write it as {variable}: {{name: value}}.")
    marked = scope.variables[variable].mapping() or {}
    checked: dict[str, str] = {}
    for key, item in value.items():
        entry = marked.get(key)
        place = entry.place if entry else scope.place(variable)
        written = entry.raw if entry and entry.raw else str(item)
        where = f'{variable} of host "{scope.entry.name}": key "{key}"'
        if not isinstance(key, str) or not (isinstance(item, str) or (type(item) is int and written == str(item))):
            raise fault(place, f"{where}: {key!r}: {item!r} must be text", hint="Put it into quotes.")
        wrong = check(key, str(item))
        if wrong:
            raise fault(place, f"{where} {wrong}")
        checked[key] = str(item)
    return checked
