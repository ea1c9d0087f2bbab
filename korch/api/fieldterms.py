"""The text of a field selector, read in one way for the door, which may allow a name, and for what is listed."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_TERM = re.compile(r"(?P<field>[^=!]+?)(?P<sign>!=|==|=)(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One condition on one field."""

    field: str
    value: str
    equal: bool


def field_terms(text: str) -> Iterator[FieldTerm]:
    """Its conditions, which must all hold. `ValueError` with the part that is none."""
    for part in re.split(r"(?<!\\),", text):  # commas that no backslash stands before
        if not part.strip():
            continue
        found = _TERM.fullmatch(part.strip())
        if found is None:
            raise ValueError(part)
        value = re.sub(r"\\([\\,=])", r"\1", found["value"].strip())
        yield FieldTerm(found["field"].strip(), value, found["sign"] != "!=")


def name_in(terms: Iterable[FieldTerm]) -> str:
    """The one name that they ask for, or ""."""
    return next((term.value for term in terms if term.field == "metadata.name" and term.equal), "")
