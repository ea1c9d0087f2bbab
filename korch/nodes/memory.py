"""What a keeper remembers of one pod between looks; losing it costs a look, nothing else. No I/O."""

import asyncio
from dataclasses import dataclass, field

from korch.engines.observed import ObservedContainer
from korch.errors import TransientError
from korch.nodes.podstatus import Readiness
from korch.workqueue import retry_after_s

RETRY_INVALID_S = 5.0  # a Secret that is missing may come, and nobody tells the keeper
RESTARTS_WINDOW_S = 300.0


@dataclass(slots=True)
class Memory:
    """One pod's checks, restarts and failed acts. Times are those of the caller's clocks."""

    readiness: Readiness = field(default_factory=Readiness)
    passes: int = 0
    failures: int = 0
    about: tuple[str, float | None] | None = None  # the very run (container, start) that the checks were of
    probing: "asyncio.Task[None] | None" = None
    restarts: list[float] = field(default_factory=list)
    backing_off: bool = False  # its container has ended, and is started again later
    tries: int = 0  # failed acts in a row
    removing: bool = False  # they were tries to remove it
    problem: str = ""  # what went wrong the last time
    not_before: float = 0.0  # on the event loop's clock: when the next act is due
    offline: bool = False  # the last act failed because the node could not be reached

    def observe(self, seen: ObservedContainer) -> None:
        """Forget what was checked when it is another run of the container, or none."""
        run = (seen.id, seen.started_at)
        if seen.state != "running" or (self.about is not None and self.about != run):
            self.unready()
        self.about = run

    def is_about(self, seen: ObservedContainer | None) -> bool:
        """Whether what is known of its checks is known of this run of the container."""
        return seen is not None and self.about == (seen.id, seen.started_at)

    def unready(self) -> None:
        """Nothing is known of its readiness."""
        self.readiness, self.passes, self.failures = Readiness(), 0, 0

    def count(self, problem: str, *, needed: int, allowed: int) -> None:
        """One more check: `needed` passes in a row make it ready, `allowed` failures in a row unready."""
        self.passes, self.failures = (0, self.failures + 1) if problem else (self.passes + 1, 0)
        if not problem and self.passes >= needed:
            self.readiness = Readiness(passing=True)
        elif problem:
            passing = self.readiness.passing and self.failures < allowed
            self.readiness = Readiness(passing, self.failures >= allowed, problem)

    def wait_s(self, now: float, *, removing: bool) -> float:
        """Seconds until an act may be tried again; a pod that is to go need not wait for what its start waits for."""
        return self.not_before - now if removing == self.removing else 0.0

    def failed(self, error: Exception, now: float, *, removing: bool) -> None:
        """An act failed: the next one of its kind waits, whoever asks for it."""
        self.tries = self.tries + 1 if removing == self.removing else 1
        self.removing = removing
        self.problem = str(error)
        after_s = retry_after_s(error, self.tries)
        self.not_before = now + (RETRY_INVALID_S if after_s is None else after_s)
        self.offline = isinstance(error, TransientError)

    def succeeded(self) -> None:
        """An act was carried out."""
        self.tries, self.problem, self.not_before, self.offline = 0, "", 0.0, False

    def online(self) -> None:
        """The node answers again: what failed for want of it need not wait."""
        if self.offline:
            self.succeeded()

    def recent_restarts(self, now: float) -> list[float]:
        """The keeper's restarts of the last minutes, oldest first; older ones are forgotten."""
        self.restarts = [then for then in self.restarts if now - then < RESTARTS_WINDOW_S]
        return self.restarts
