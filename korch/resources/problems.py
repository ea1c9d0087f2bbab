"""What is wrong with an input: collected first, so that one error tells all of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from korch.errors import InvalidError


class Problem(msgspec.Struct, frozen=True):
    """One mistake. `path` is the field, as `spec.replicas`; `message` completes "PATH: ..."."""

    path: str
    message: str

    def __str__(self) -> str:
        """As one line."""
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass(slots=True)
class Problems:
    """A collector that knows which field is being looked at."""

    found: list[Problem] = field(default_factory=list)

    def add(self, path: str, message: str) -> None:
        """Note one mistake."""
        self.found.append(Problem(path, message))

    def check(self, path: str, problem: str) -> None:
        """Note a mistake unless `problem` is empty."""
        if problem:
            self.add(path, problem)


class ProblemsError(InvalidError):
    """An input with mistakes, each with its field: for whoever shows them one by one."""

    def __init__(self, message: str, problems: Sequence[Problem], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


def raise_problems(subject: str, problems: Sequence[Problem], *, hint: str = "") -> None:
    """Raise `InvalidError` for `subject` (such as `Deployment "web"`) when there are problems: one a line."""
    if not problems:
        return
    lines = [str(problem) for problem in problems]
    if len(lines) == 1:
        raise ProblemsError(f"{subject} is invalid: {lines[0]}", problems, hint=hint)
    text = "\n".join(f"  {line}" for line in lines)
    raise ProblemsError(f"{subject} is invalid:\n{text}", problems, hint=hint)
