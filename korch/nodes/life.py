"""Whether a node is alive, from the signs that it gives and what other nodes say of it. Pure: times are the caller's.

A sign is any byte on the node's session, or its sshd's greeting on a new connection. Between two signs of a healthy
session lies up to `PULSE_S`, so a stall of `STALL_S` can look that much longer. What tells the two apart is a greeting
that was begun after both: a node that only stalled answers it. A node that does not is lost when at least one other
node was asked lately, and none of those asked reaches it. Where others are heard and none of them can tell (they never
reach one another), much longer silence decides alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

PULSE_S = 1  # a session speaks so often
STALL_S = 5.2  # that long may a node, or the network, be away: nothing moves
QUIET_AFTER_S = 1.7
ASK_AFTER_S = 4.0  # others are asked, so that their answers are there when they are needed
DECIDE_AFTER_S = PULSE_S + STALL_S  # a greeting that is begun after so much silence decides
ANSWER_S = 0.6  # the time that it has
LOST_AFTER_S = DECIDE_AFTER_S + ANSWER_S
OPINION_FRESH_S = 4.0
OPINIONS = 2  # of other nodes on whether they reach the silent one
UNTOLD_AFTER_S = 30.0  # of silence without anybody's word
LOSS_WINDOW_S = 60.0
GREET_EVERY_S = 0.5
ASK_EVERY_S = 1.0
LONG_SILENT_S = 60.0  # a machine that is off for longer is looked at less often, and so are those asked about it
LONG_EVERY_S = 5.0

Verdict = Literal["alive", "quiet", "doubted", "lost"]


@dataclass(slots=True)
class Life:
    """The signs of one node. `opinions`: who was asked whether it reaches the node → (when, whether)."""

    last_sign: float
    opinions: dict[str, tuple[float, bool]] = field(default_factory=dict)
    unanswered_since: float | None = None  # the beginning of the first greeting that decides

    def sign(self, now: float) -> None:
        """It lives."""
        self.last_sign = now
        self.unanswered_since = None
        self.opinions.clear()

    def greet(self, now: float) -> None:
        """A greeting begins; the answer is a sign."""
        if self.unanswered_since is None and self.silent_s(now) >= DECIDE_AFTER_S:
            self.unanswered_since = now

    def silent_s(self, now: float) -> float:
        """Seconds without a sign."""
        return now - self.last_sign

    def hear(self, opinions: Mapping[str, bool], now: float) -> None:
        """What other nodes said."""
        self.opinions |= {witness: (now, reached) for witness, reached in opinions.items()}

    def verdict(self, now: float, *, others_heard: bool = False) -> Verdict:
        """ "quiet": try to greet it; "doubted": ask others too; "lost": others do not reach it either.

        `others_heard`: whether the caller hears any other node, so that it is not its own network that is away.
        """
        silent = self.silent_s(now)
        if silent < QUIET_AFTER_S:
            return "alive"
        if silent < ASK_AFTER_S:
            return "quiet"
        fresh = [reached for at, reached in self.opinions.values() if now - at <= OPINION_FRESH_S]
        unanswered = self.unanswered_since is not None and now - self.unanswered_since >= ANSWER_S
        if unanswered and fresh:
            return "doubted" if any(fresh) else "lost"
        untold = others_heard and not any(reached for _, reached in self.opinions.values())
        return "lost" if unanswered and untold and silent >= UNTOLD_AFTER_S else "doubted"


def greet_every_s(silent_s: float) -> float:
    """Seconds between greetings of a silent node."""
    return GREET_EVERY_S if silent_s < LONG_SILENT_S else LONG_EVERY_S


def ask_every_s(silent_s: float) -> float:
    """Seconds between questions about a silent node to others."""
    return ASK_EVERY_S if silent_s < LONG_SILENT_S else LONG_EVERY_S


@dataclass(frozen=True, slots=True)
class Sight:
    """One node for the mass-loss rule. `lost_for_s` None: it is not lost; `was_ready`: before it was lost."""

    name: str
    lost_for_s: float | None
    was_ready: bool


def is_mass_loss(sights: Sequence[Sight]) -> bool:
    """More than half (at least two) of the nodes that were Ready a minute ago were lost within that minute."""
    before = [
        found for found in sights if found.was_ready and (found.lost_for_s is None or found.lost_for_s <= LOSS_WINDOW_S)
    ]
    lost = [found for found in before if found.lost_for_s is not None]
    return len(lost) >= 2 and len(lost) * 2 > len(before)
