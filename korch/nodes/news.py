"""What a node's session tells, read from the lines of its script. Pure.

Facts and pulses come on stdout; the engine's events come on stderr, as the engine's own client prints them: two
programs that write to one pipe would cut each other's lines.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from korch.engines.events import EngineEvent, parse_event
from korch.nodes.facts import Facts, parse_facts
from korch.nodes.report import disk_space

LINE_LIMIT_BYTES: Final = 1 << 20  # of a line that does not end: it is thrown away


@dataclass(frozen=True, slots=True)
class Pulse:
    """The node lives; nothing else is new."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The node lives, and this is its load. `facts` holds the numbers that change, and `cpu_count`."""

    facts: Facts
    disk_total_bytes: int = 0  # of the engine's data folder, about once a minute; 0 until known
    disk_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EngineWatch:
    """Whether the engine's events are heard from now on. Time for a fresh look: what happened before was missed."""

    up: bool


News = Pulse | Sample | EngineEvent | EngineWatch


@dataclass(slots=True)
class NewsReader:
    """Takes the two output streams of the script in pieces, gives what they tell."""

    has_begun: bool = False
    _unread: dict[int, bytes] = field(default_factory=dict)
    _cpu_count: int = 1
    _facts: list[str] = field(default_factory=list)
    _disk: tuple[int, int] = (0, 0)

    def feed(self, stream: int, data: bytes) -> list[News]:
        """The news in `data` and what was held back before; `stream`: 1 = stdout, 2 = stderr."""
        *lines, rest = (self._unread.get(stream, b"") + data).split(b"\n")
        self._unread[stream] = rest if len(rest) <= LINE_LIMIT_BYTES else b""
        read = self._line if stream == 1 else parse_event
        found = (read(line.decode("utf-8", "replace").rstrip("\r")) for line in lines)
        return [news for news in found if news is not None]

    def _line(self, line: str) -> News | None:
        if line == ".":
            return self._beat()
        if line.startswith("/proc/"):
            self._facts.append(line)
            return None
        word, _, rest = line.partition(" ")
        match word:
            case "events":
                return EngineWatch(rest == "up")
            case "disk":
                if (space := disk_space((rest,)))[0]:
                    self._disk = space
            case "@korch" if rest.startswith("session"):
                count = rest.removeprefix("session").strip()
                self.has_begun, self._cpu_count = True, int(count) if count.isdecimal() and count != "0" else 1
        return None

    def _beat(self) -> Pulse | Sample:
        lines, self._facts = self._facts, []
        if not lines:
            return Pulse()
        try:
            facts = parse_facts(lines)
        except ValueError:  # a line was damaged; the node lives
            return Pulse()
        return Sample(replace(facts, cpu_count=self._cpu_count), *self._disk)
