"""What a script printed, cut at its `@korch WORD ...` lines. Pure.

Whatever stands before `@korch begin` (banners, login scripts) is no part of the answer.
"""

from dataclasses import dataclass

_MARK = "@korch "


@dataclass(frozen=True, slots=True)
class Section:
    """One marked line, and the lines up to the next mark."""

    word: str
    rest: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Answer:
    """The sections in their order; empty when the script never began."""

    sections: tuple[Section, ...]

    def first(self, *words: str) -> Section | None:
        """The first section with one of these words."""
        return next((section for section in self.sections if section.word in words), None)

    def every(self, word: str) -> tuple[Section, ...]:
        """All sections with this word."""
        return tuple(section for section in self.sections if section.word == word)


def parse_answer(text: str) -> Answer:
    """The sections of a script's output."""
    heads: list[tuple[str, str]] = []
    bodies: list[list[str]] = []
    for line in text.split("\n"):
        if line.startswith(_MARK) and (heads or line.rstrip() == "@korch begin"):
            word, _, rest = line[len(_MARK) :].rstrip().partition(" ")
            heads.append((word, rest))
            bodies.append([])
        elif heads:
            bodies[-1].append(line.rstrip("\r"))
    return Answer(tuple(Section(word, rest, _trim(body)) for (word, rest), body in zip(heads, bodies, strict=True)))


def _trim(lines: list[str]) -> tuple[str, ...]:
    """Without the empty line that the end of a text leaves."""
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)
