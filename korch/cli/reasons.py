"""What each reason in a status or an event means, and what to do: the table `reasons.txt`, read.

`docs/REASONS.md` is made from it: python -c "from korch.cli import reasons as r; print(r.docs(), end='')" >FILE
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from korch.errors import NotFoundError

_HEAD = """# Reasons

Every reason that korch writes into a status or an event: what it means, and what to do. The message beside a reason
names the object and the cause. Where nothing is to be done, the last column is empty. `korch why REASON` says the same
in a terminal.

This file is made from `korch/cli/reasons.txt`; a test holds it and the code together.
"""


@dataclass(frozen=True, slots=True)
class Reason:
    """A word, where it is found, what it means. `cure` is empty when nothing is to be done."""

    place: str
    name: str
    means: str
    cure: str


@dataclass(frozen=True, slots=True)
class Section:
    """The reasons of one place, with what holds for all of them."""

    place: str
    note: str
    reasons: tuple[Reason, ...]


@cache
def sections() -> tuple[Section, ...]:
    """The whole table, in its order."""
    text = (files("korch.cli") / "reasons.txt").read_text()
    return tuple(_section(part) for part in text.removeprefix("# ").split("\n# "))


def _section(text: str) -> Section:
    place, *lines = text.strip().splitlines()
    note = " ".join(line.removeprefix("> ") for line in lines if line.startswith("> "))
    cells = ((*line.split(" |"), "", "") for line in lines if line and not line.startswith("> "))
    reasons = (Reason(place, name, means.strip(), cure.strip()) for name, means, cure, *_ in cells)
    return Section(place, note, tuple(reasons))


def known() -> frozenset[str]:
    """Every reason of the table."""
    return frozenset(one.name for section in sections() for one in section.reasons)


def about(name: str) -> tuple[Reason, ...]:
    """What it means in each place where it is found. Case is forgiven; `NotFoundError` for another word."""
    found = tuple(one for section in sections() for one in section.reasons if one.name.lower() == name.lower())
    if not found:
        import difflib

        close = difflib.get_close_matches(name, known(), n=1, cutoff=0.6)
        hint = f"Did you mean {close[0]}?" if close else "docs/REASONS.md lists them all."
        raise NotFoundError(f'"{name}" is no reason that korch writes', hint=hint)
    return found


def told(name: str) -> str:
    """The same for people."""
    return "\n\n".join(
        f"{one.name} ({one.place})\n  {one.means}\n  " + (f"What to do: {one.cure}" if one.cure else "Nothing to do.")
        for one in about(name)
    )


def pointer(words: Iterable[str]) -> str:
    """Where more is to be read, when the table knows one of these words; else ""."""
    word = next((word for word in words if word in known()), "")
    return f"What such a word means, and what to do: korch why {word}" if word else ""


def docs() -> str:
    """The text of `docs/REASONS.md`."""
    return "\n".join([_HEAD, *("\n".join(_table(section)) for section in sections())])


def _table(section: Section) -> Iterator[str]:
    yield f"## {section.place}\n"
    if section.note:
        yield f"{section.note}\n"
    yield from ("| reason | means | what to do |", "|---|---|---|")
    yield from (f"| {one.name} | {one.means} | {one.cure} |" for one in section.reasons)
    yield ""
