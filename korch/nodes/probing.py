"""When a container's checks are due, and what their results mean. Pure: times come from the caller's clock.

The meaning is Kubernetes' (core/v1 Probe): a startup probe holds the other two back, thresholds count results in a row,
checks come every period without drift. Beyond it, what waits for its first pass is asked between the beats too: such an
extra check can only bring good news.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from korch.nodes.podstatus import Readiness
from korch.resources.pod import Container, Probe

ProbeKind = Literal["startup", "readiness", "liveness"]

PROBE_KINDS: Final[tuple[ProbeKind, ...]] = ("startup", "readiness", "liveness")
HURRY_S: Final = 1.0  # between extra checks, at first
HURRY_SHARE: Final = 0.1  # of the time that a pass has been waited for: who waits long is asked less often
TOGETHER_S: Final = 0.1  # checks of one endpoint that are due within this time share one request


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: "" or a problem. Not `known`: nobody can tell, so it counts for and against nothing."""

    problem: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True)
class Course:
    """How one probe of one run of a container goes. `verdict` is "" until enough checks in a row agree."""

    beat: float  # the next check that counts in full
    due: float  # the next check: the beat, or an extra one before it
    waiting_since: float  # for a pass
    passes: int = 0
    failures: int = 0
    verdict: Literal["", "passed", "failed"] = ""
    message: str = ""


def phase_of(uid: str) -> float:
    """0 to 1, the same for the same pod: spreads the checks of many pods that are met at once."""
    return zlib.crc32(uid.encode()) / 2**32


def begin(probe: Probe, now: float, *, running_s: float, phase: float = 0.0, passed: bool = False) -> Course:
    """The course of a container that has run for so long. `passed`: it is well until a check says otherwise."""
    delay_s = probe.initial_delay_seconds or 0
    first = now + max(delay_s - running_s, phase * _period_s(probe) if passed and running_s > delay_s else 0.0)
    return Course(first, first, now, verdict="passed" if passed else "")


def count(probe: Probe, course: Course, found: Finding, now: float, *, hurry: bool) -> Course:
    """The course after the check that was due. `hurry`: ask between the beats while a pass is waited for."""
    beat, on_beat = course.beat, course.due >= course.beat
    course = _counted(probe, course, found, on_beat=on_beat)
    if course.verdict == "passed":
        course = replace(course, waiting_since=now)
    if on_beat and now >= beat:
        period_s = _period_s(probe)
        beat += period_s * (math.floor((now - beat) / period_s) + 1)
    due = beat
    if hurry and course.verdict != "passed" and _needed(probe) == 1:
        due = min(beat, now + max(HURRY_S, (now - course.waiting_since) * HURRY_SHARE))
    return replace(course, beat=beat, due=due)


def _counted(probe: Probe, course: Course, found: Finding, *, on_beat: bool) -> Course:
    if not found.known:
        return replace(course, message=found.problem or course.message)
    if not found.problem:
        passes = course.passes + 1
        verdict = "passed" if passes >= _needed(probe) else course.verdict
        return replace(course, passes=passes, failures=0, verdict=verdict, message="")
    failures = course.failures + on_beat
    verdict = "failed" if failures >= (probe.failure_threshold or 3) else course.verdict
    return replace(course, passes=0, failures=failures, verdict=verdict, message=found.problem)


def _period_s(probe: Probe) -> int:
    return probe.period_seconds or 10


def _needed(probe: Probe) -> int:
    return probe.success_threshold or 1


@dataclass(frozen=True, slots=True)
class Health:
    """All that the checks say of one run of a container. A probe that is held back has no course yet."""

    container: Container
    running_since: float
    phase: float = 0.0
    courses: Mapping[ProbeKind, Course] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether the startup probe, if there is one, has passed."""
        startup = self.courses.get("startup")
        return startup is None or startup.verdict == "passed"

    @property
    def readiness(self) -> Readiness:
        """What to say of the pod."""
        if not self.started:
            return Readiness(message=self.courses["startup"].message, started=False)
        course = self.courses.get("readiness")
        if course is None:
            return Readiness(passing=True)
        return Readiness(course.verdict == "passed", course.verdict == "failed", course.message)

    @property
    def sick(self) -> tuple[ProbeKind, str] | None:
        """The probe for which the container is to be ended, with its words."""
        failed = [kind for kind, course in self.courses.items() if kind != "readiness" and course.verdict == "failed"]
        return (failed[0], self.courses[failed[0]].message) if failed else None

    def due(self, kinds: Sequence[ProbeKind]) -> float | None:
        """When the next check of one of `kinds` is due; None while all are held back, or done for this run."""
        times = [course.due for kind, course in self.courses.items() if kind in kinds and not self._done(kind)]
        return min(times, default=None)

    def _done(self, kind: ProbeKind) -> bool:
        return kind == "startup" and self.started


def probe_of(container: Container, kind: ProbeKind) -> Probe | None:
    """The container's probe of one kind."""
    by_kind = {
        "startup": container.startup_probe,
        "readiness": container.readiness_probe,
        "liveness": container.liveness_probe,
    }
    return by_kind[kind]


def shared_checks(container: Container) -> tuple[tuple[ProbeKind, ...], ...]:
    """The container's probes, those together that ask the same in the same rhythm: one request serves them."""
    groups: dict[object, list[ProbeKind]] = {}
    for kind in PROBE_KINDS:
        probe = probe_of(container, kind)
        if probe is not None:
            asks = (probe.http_get, probe.tcp_socket, probe.exec, probe.timeout_seconds, probe.period_seconds)
            groups.setdefault(asks, []).append(kind)
    return tuple(tuple(kinds) for kinds in groups.values())


def health_of(
    container: Container,
    now: float,
    *,
    running_s: float = 0.0,
    phase: float = 0.0,
    was_started: bool = False,
    was_ready: bool = False,
) -> Health:
    """What is known of a run at its beginning, or when it is met. What was on record of this very run goes on."""
    fresh = Health(container, now - running_s, phase)
    startup = container.startup_probe
    if startup is not None and not was_started:
        return replace(fresh, courses={"startup": begin(startup, now, running_s=running_s)})
    return _go_on(fresh, now, was_ready=was_ready)


def _go_on(health: Health, now: float, *, was_ready: bool = False) -> Health:
    """The two probes that the startup probe held back begin; nobody waits for the first answer of a liveness probe."""
    courses = dict(health.courses)
    going_on: tuple[tuple[ProbeKind, bool], ...] = (("readiness", was_ready), ("liveness", True))
    for kind, passed in going_on:
        probe = probe_of(health.container, kind)
        if probe is not None and kind not in courses:
            running_s = now - health.running_since
            courses[kind] = begin(probe, now, running_s=running_s, phase=health.phase, passed=passed)
    return replace(health, courses=courses)


def checked(health: Health, kinds: Sequence[ProbeKind], found: Mapping[ProbeKind, Finding], now: float) -> Health:
    """The health after one check that was made for those of `kinds` that are due."""
    due = health.due(kinds)
    courses = dict(health.courses)
    for kind in kinds:
        course, probe = courses.get(kind), probe_of(health.container, kind)
        if course is None or probe is None or due is None or course.due > due + TOGETHER_S:
            continue
        courses[kind] = count(probe, course, found[kind], now, hurry=kind != "liveness")
    after = replace(health, courses=courses)
    return _go_on(after, now) if after.started and not health.started else after
