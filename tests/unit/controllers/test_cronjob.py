"""CronJobs: which time gets a job, which jobs are kept."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.cronjob import SCHEDULED, CronPlan, job_from, plan_cron
from korch.resources.batch import CronJob, CronJobSpec, Job
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.times import parse_time, rfc3339
from korch.resources.validation import problems_of
from tests.unit.controllers.test_job import job


def at(text: str) -> float:
    return datetime.fromisoformat(f"2026-05-04T{text}").replace(tzinfo=UTC).timestamp()


def cron(schedule: str = "*/10 * * * *", last: float | None = None, **spec: object) -> CronJob:
    template = CronJobSpec().job_template
    found = CronJob(
        metadata=ObjectMeta(name="c", namespace="default", uid="c1", creation_timestamp=rfc3339(at("10:05:00"))),
        spec=CronJobSpec(
            schedule=schedule, job_template=replace(template, spec=replace(job().spec, selector=None)), **spec
        ),
    )
    found = replace(found, status=replace(found.status, last_schedule_time=rfc3339(last) if last else None))
    return with_defaults(found)


def made(found: CronJob, time_s: float, *, state: str = "") -> Job:
    new = with_meta(job_from(found, int(time_s)), uid=f"j{int(time_s)}", creation_timestamp=rfc3339(time_s))
    done = (Condition(type=state, status="True"),) if state else ()
    completed = rfc3339(time_s + 5) if state == "Complete" else None
    return replace(new, status=replace(new.status, conditions=done, completion_time=completed))


def test_a_time_that_has_come_gets_its_job():
    plan = plan_cron(cron(), [], at("10:10:03"))
    assert plan.start == at("10:10:00")
    assert plan.status.last_schedule_time == rfc3339(at("10:10:00"))
    assert plan.again_s == 60.0
    new = with_defaults(job_from(cron(), plan.start))
    assert problems_of(new) == []
    assert new.metadata.name == f"c-{plan.start // 60}"
    assert new.metadata.annotations[SCHEDULED] == "2026-05-04T10:10:00Z"


def test_nothing_is_due_before_the_first_time_and_after_the_last_one():
    assert plan_cron(cron(), [], at("10:09:59")).start is None
    assert plan_cron(cron(last=at("10:10:00")), [], at("10:19:59")).start is None
    assert plan_cron(cron(last=at("10:10:00")), [], at("10:19:59")).again_s == 1.0


def test_of_the_times_that_were_missed_the_latest_is_made_up_for():
    assert plan_cron(cron(), [], at("15:35:00")).start == at("15:30:00")


def test_a_time_that_is_too_long_ago_passes():
    assert plan_cron(cron(starting_deadline_seconds=120), [], at("15:32:01")).start is None
    assert plan_cron(cron(starting_deadline_seconds=121), [], at("15:32:01")).start == at("15:30:00")


def test_suspended_nothing_starts():
    assert plan_cron(cron(suspend=True), [], at("15:35:00")) == CronPlan(cron().status)


def test_what_a_running_job_means_for_the_next():
    allow, forbid, swap = (
        cron(last=at("10:10:00"), concurrency_policy=word) for word in ("Allow", "Forbid", "Replace")
    )
    running = made(allow, at("10:10:00"))
    assert plan_cron(allow, [running], at("10:20:01")).start == at("10:20:00")
    plan = plan_cron(forbid, [running], at("10:20:01"))
    assert (plan.start, plan.delete) == (None, ())
    assert "concurrencyPolicy is Forbid" in plan.skipped
    assert plan.status.last_schedule_time == rfc3339(at("10:10:00"))
    assert plan_cron(forbid, [made(forbid, at("10:10:00"), state="Complete")], at("10:21:00")).start == at("10:20:00")
    plan = plan_cron(swap, [running], at("10:20:01"))
    assert (plan.start, plan.delete) == (at("10:20:00"), (running,))


def test_the_oldest_ended_jobs_go():
    found = cron(last=at("11:00:00"), successful_jobs_history_limit=1, failed_jobs_history_limit=0)
    won = [made(found, at(f"10:{minute}0:00"), state="Complete") for minute in (1, 2, 3)]
    lost, runs = made(found, at("10:40:00"), state="Failed"), made(found, at("10:50:00"))
    plan = plan_cron(found, [runs, lost, *reversed(won)], at("11:00:01"))
    assert [one.metadata.name for one in plan.delete] == [one.metadata.name for one in (*won[:2], lost)]
    assert [one.uid for one in plan.status.active] == [runs.metadata.uid]
    assert plan.status.last_successful_time == won[2].status.completion_time


@given(steps=st.lists(st.integers(1, 4000), max_size=30), policy=st.sampled_from(["Allow", "Forbid", "Replace"]))
def test_no_time_gets_two_jobs(steps, policy):
    found, now, started = cron(concurrency_policy=policy), at("10:05:00"), []
    jobs: list[Job] = []
    for step in steps:
        now += step
        plan = plan_cron(found, jobs, now)
        jobs = [one for one in jobs if one not in plan.delete]
        if plan.start is not None:
            started.append(plan.start)
            jobs.append(made(found, plan.start))
        found = replace(found, status=plan.status)
        jobs = [made(found, parse_time(one.metadata.annotations[SCHEDULED]), state="Complete") for one in jobs]
        again = plan_cron(found, jobs, now)
        assert again.start is None
    assert started == sorted(set(started))
