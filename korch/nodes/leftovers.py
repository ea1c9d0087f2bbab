"""Programs of checks that may run on in their containers after their time: no check begins beside one. No I/O."""

import re
from collections.abc import Iterable, Sequence

MARK = "KORCH_PROBE"  # in the environment of each check's program; see scripts/unprobe.sh
_CONTAINERS_AT_MOST = 200  # remembered; most of them are gone


class Leftovers:
    """What checks left on one node, by the container's name."""

    def __init__(self) -> None:
        self._left: dict[str, dict[str, str]] = {}  # name → mark → the program's words

    def add(self, name: str, mark: str, argv: Sequence[str]) -> None:
        """A check's time was over, or nobody waits for it any more."""
        self._left.setdefault(name, {})[mark] = _bare(" ".join(argv))
        while len(self._left) > _CONTAINERS_AT_MOST:
            del self._left[next(iter(self._left))]

    def marks(self, name: str) -> tuple[str, ...]:
        """Of the checks whose programs may run there still."""
        return tuple(self._left.get(name, ()))

    def looked(self, name: str, marks: Iterable[str], *, found: bool, programs: Iterable[str]) -> bool:
        """Whether one of them is there still, after a look. `programs`: lines `PID WORDS` of whatever runs there."""
        left = self._left.get(name, {})
        running = {_bare(line.strip().partition(" ")[2]) for line in programs}
        if found or any(left.get(mark) in running for mark in marks):
            return True
        for mark in marks:
            left.pop(mark, None)
        if not left:
            self._left.pop(name, None)
        return False


def _bare(words: str) -> str:
    """Without what `ps` shows otherwise than it was written."""
    return re.sub(r"[^A-Za-z0-9]+", "", words)
