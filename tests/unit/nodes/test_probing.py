"""When checks are due, and what their results mean."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from korch.nodes.podstatus import Readiness
from korch.nodes.probing import (
    Course,
    Finding,
    Health,
    begin,
    checked,
    count,
    health_of,
    phase_of,
    shared_checks,
)
from korch.resources.pod import Container, HTTPGetAction, Probe, TCPSocketAction

GET = HTTPGetAction(port=80, path="/healthz")
GOOD, BAD, UNKNOWN = Finding(), Finding("broken"), Finding(known=False)
PROBES = st.builds(
    Probe,
    http_get=st.just(GET),
    initial_delay_seconds=st.integers(0, 20),
    period_seconds=st.integers(1, 20),
    success_threshold=st.integers(1, 3),
    failure_threshold=st.integers(1, 4),
)
FINDINGS = st.lists(st.tuples(st.sampled_from([GOOD, BAD, UNKNOWN]), st.floats(0.0, 30.0)), max_size=40)


def run(probe: Probe, course: Course, findings: list[tuple[Finding, float]], *, hurry: bool) -> list[Course]:
    """The courses after each check, which takes so many seconds."""
    courses = []
    for found, took_s in findings:
        course = count(probe, course, found, course.due + took_s, hurry=hurry)
        courses.append(course)
    return courses


def container(**probes: Probe) -> Container:
    return Container(name="web", **probes)


@given(PROBES, FINDINGS, st.booleans(), st.floats(0.0, 0.999))
def test_beats_keep_their_period_and_nothing_is_asked_in_the_past(
    probe: Probe, findings: list[tuple[Finding, float]], hurry: bool, phase: float
) -> None:
    course = begin(probe, 100.0, running_s=50.0, phase=phase, passed=True)
    first, period = course.beat, probe.period_seconds or 10
    assert 100.0 <= first < 100.0 + period
    before = course
    for after in run(probe, course, findings, hurry=hurry):
        steps = (after.beat - first) / period
        assert abs(steps - round(steps)) < 1e-6
        assert after.due <= after.beat
        assert after.due > before.due or after.due == after.beat
        assert after.beat >= before.beat
        before = after


@given(PROBES, FINDINGS, st.booleans())
def test_verdicts_need_as_many_results_in_a_row_as_the_thresholds_say(
    probe: Probe, findings: list[tuple[Finding, float]], hurry: bool
) -> None:
    course = begin(probe, 0.0, running_s=0.0)
    known: list[str] = []
    verdict = ""
    for found, took_s in findings:
        on_beat = course.due >= course.beat
        course = count(probe, course, found, course.due + took_s, hurry=hurry)
        if found.known and (not found.problem or on_beat):
            known.append(found.problem)
        needed, allowed = probe.success_threshold or 1, probe.failure_threshold or 3
        if known[-needed:] == [""] * needed and found == GOOD:
            verdict = "passed"
        elif len(known) >= allowed and all(known[-allowed:]) and found == BAD and on_beat:
            verdict = "failed"
        assert course.verdict == verdict


@given(PROBES, st.lists(st.floats(0.0, 30.0), max_size=30), st.booleans(), st.booleans())
def test_what_nobody_knows_changes_no_verdict(probe: Probe, times: list[float], hurry: bool, passed: bool) -> None:
    course = begin(probe, 0.0, running_s=100.0, passed=passed)
    for after in run(probe, course, [(UNKNOWN, took_s) for took_s in times], hurry=hurry):
        assert (after.verdict, after.passes, after.failures) == (course.verdict, 0, 0)


def test_extra_checks_bring_good_news_only_and_become_rare() -> None:
    probe = Probe(http_get=GET, period_seconds=60, failure_threshold=2)
    course = begin(probe, 0.0, running_s=0.0)
    asked = []
    while course.due < 60.0:
        asked.append(course.due)
        course = count(probe, course, BAD, course.due, hurry=True)
    assert course.failures == 1, "only the check on the beat counts"
    assert asked[:4] == [0.0, 1.0, 2.0, 3.0]
    assert 15 < len(asked) < 40
    assert count(probe, course, GOOD, 60.0, hurry=True).due == 120.0


def test_a_first_check_waits_for_its_delay_from_the_start_of_the_container() -> None:
    probe = Probe(http_get=GET, initial_delay_seconds=30, period_seconds=10)
    assert begin(probe, 100.0, running_s=0.0).due == 130.0
    assert begin(probe, 100.0, running_s=12.0).due == 118.0
    assert begin(probe, 100.0, running_s=50.0).due == 100.0, "somebody waits for it"
    assert begin(probe, 100.0, running_s=50.0, passed=True, phase=0.5).due == 105.0, "nobody does: spread them"


def test_many_pods_that_are_met_at_once_are_spread_over_the_period() -> None:
    phases = sorted(phase_of(f"uid-{number}") for number in range(100))
    assert 0.0 <= phases[0] < phases[-1] < 1.0
    assert max(b - a for a, b in pairwise(phases)) < 0.1


# --- all probes of a container ---


def told(health: Health, kind: str, found: Finding, now: float) -> Health:
    return checked(health, (kind,), {kind: found}, now)  # type: ignore[arg-type, dict-item]


def test_a_startup_probe_holds_the_others_back() -> None:
    probe = Probe(http_get=GET, period_seconds=5, failure_threshold=3)
    health = health_of(container(startup_probe=probe, readiness_probe=probe, liveness_probe=probe), 0.0)
    assert (health.due(("readiness",)), health.due(("liveness",))) == (None, None)
    assert (health.started, health.readiness) == (False, Readiness(started=False))
    health = told(health, "startup", BAD, 0.0)
    assert health.readiness == Readiness(message="broken", started=False)
    health = told(health, "startup", GOOD, 1.0)
    assert (health.started, health.due(("startup",)), health.due(("readiness",))) == (True, None, 1.0)
    assert not health.readiness.passing, "its own check comes first"
    assert told(health, "readiness", GOOD, 1.0).readiness == Readiness(passing=True)


def test_a_container_without_a_readiness_probe_is_ready_once_started() -> None:
    probe = Probe(http_get=GET)
    assert health_of(container(liveness_probe=probe), 0.0).readiness == Readiness(passing=True)
    health = health_of(container(startup_probe=probe), 0.0)
    assert not health.readiness.passing
    assert told(health, "startup", GOOD, 0.0).readiness == Readiness(passing=True)


def test_a_failed_startup_or_liveness_probe_makes_it_sick_a_readiness_probe_never() -> None:
    probe = Probe(http_get=GET, failure_threshold=1)
    for kind, sick in (("startup", True), ("liveness", True), ("readiness", False)):
        health = told(health_of(container(**{f"{kind}_probe": probe}), 0.0), kind, BAD, 0.0)
        assert health.sick == ((kind, "broken") if sick else None)
    readiness = told(health_of(container(readiness_probe=probe), 0.0), "readiness", BAD, 0.0).readiness
    assert readiness == Readiness(failed_for_good=True, message="broken")


def test_a_liveness_probe_that_passes_again_makes_it_well() -> None:
    probe = Probe(http_get=GET, failure_threshold=1)
    sick = told(health_of(container(liveness_probe=probe), 0.0), "liveness", BAD, 0.0)
    assert told(sick, "liveness", GOOD, 10.0).sick is None


def test_what_is_on_record_of_this_run_goes_on() -> None:
    probe = Probe(http_get=GET, period_seconds=10)
    box = container(startup_probe=probe, readiness_probe=probe, liveness_probe=probe)
    health = health_of(box, 100.0, running_s=50.0, phase=0.3, was_started=True, was_ready=True)
    assert (health.started, health.readiness) == (True, Readiness(passing=True))
    assert health.due(("readiness", "liveness")) == 103.0


def test_probes_that_ask_the_same_share_one_request() -> None:
    ready = Probe(http_get=GET, period_seconds=2)
    alive = Probe(http_get=GET, period_seconds=2, initial_delay_seconds=30, failure_threshold=5)
    other = Probe(tcp_socket=TCPSocketAction(port=80), period_seconds=2)
    assert shared_checks(container(readiness_probe=ready, liveness_probe=alive)) == (("readiness", "liveness"),)
    assert shared_checks(container(readiness_probe=ready, liveness_probe=other)) == (("readiness",), ("liveness",))
    assert shared_checks(container()) == ()
    kinds = ("readiness", "liveness")
    health = health_of(container(readiness_probe=ready, liveness_probe=alive), 0.0)
    now, asked = 0.0, 0
    while (due := health.due(kinds)) is not None and due < 60.0:  # type: ignore[arg-type]
        now, asked = due, asked + 1
        health = checked(health, kinds, dict.fromkeys(kinds, GOOD), now)  # type: ignore[arg-type]
    assert asked == 30
    assert health.courses["liveness"].passes == 15


@given(st.integers(0, 40), st.integers(1, 10), st.integers(0, 40))
def test_liveness_does_not_count_before_its_delay(delay_s: int, period_s: int, running_s: int) -> None:
    probe = Probe(http_get=GET, initial_delay_seconds=delay_s, period_seconds=period_s)
    due = health_of(container(liveness_probe=probe), 0.0, running_s=running_s, phase=0.5).due(("liveness",))
    assert due is not None
    assert max(0, delay_s - running_s) <= due <= max(0, delay_s - running_s) + period_s
