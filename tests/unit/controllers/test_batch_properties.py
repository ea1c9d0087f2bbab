"""Jobs, cron jobs and autoscalers from any state: order of input is irrelevant, and what was carried out stays done."""

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.cronjob import CronPlan, plan_cron
from korch.controllers.job import INDEX, JobPlan, NewPod, plan_job, pod_from, pod_name
from korch.controllers.jobcount import TRACKED
from korch.controllers.scaling import Past, decide
from korch.resources.batch import CronJob, Job, UncountedTerminatedPods
from korch.resources.codec import with_meta
from korch.resources.times import rfc3339
from tests.unit.controllers.test_cronjob import at, cron, made
from tests.unit.controllers.test_job import Toy, job
from tests.unit.controllers.test_scaling import metric, pod, spec, used
from tests.unit.planners import DICE, NOW, STATES, mixed, mixed_keys, steady

JOB_STATES = [*STATES, "good", "failed", "succeeded"]


@st.composite
def jobs(draw: st.DrawFn) -> Toy:
    """A job that was left anywhere, with pods that were counted, are being counted, or are new to it."""
    indexed = draw(st.booleans())
    completions = draw(st.integers(1, 4)) if indexed else draw(st.one_of(st.none(), st.integers(0, 4)))
    wish = job(
        policy=draw(st.sampled_from(["Never", "OnFailure"])),
        completions=completions,
        parallelism=draw(st.integers(0, 3)),
        completion_mode="Indexed" if indexed else "NonIndexed",
        backoff_limit=draw(st.integers(0, 3)),
        suspend=draw(st.integers(0, 5)) == 0,
        active_deadline_seconds=draw(st.sampled_from([None, None, 50, 5000])),
        ttl_seconds_after_finished=draw(st.sampled_from([None, 0, 60])),
    )
    toy = Toy(wish, now=NOW)
    noted: list[str] = []
    for number in range(draw(st.integers(0, 5))):
        index = draw(st.integers(0, 4)) if indexed else None
        name = pod_name(wish, "" if index is None else f"-{index}", number)
        new = with_meta(pod_from(wish, NewPod(name, index)), uid=f"u{number}")
        new = STATES[draw(st.sampled_from(JOB_STATES))](new)
        if draw(st.integers(0, 3)) == 0:
            new = with_meta(new, finalizers=())
        elif new.status.phase == "Failed" and draw(st.booleans()):
            noted.append(new.metadata.uid)
        if new.status.phase == "Failed" and draw(st.booleans()):
            new = replace(new, status=replace(new.status, reason="NodeLost"))
        toy.pods[name] = new
    before = UncountedTerminatedPods(failed=tuple(noted)) if noted else None
    status = replace(wish.status, start_time=rfc3339(NOW - 100), uncounted_terminated_pods=before)
    toy.job = replace(wish, status=status) if draw(st.booleans()) else wish
    return toy


@steady(150)
@given(jobs(), DICE)
def test_a_job_is_planned_alike_in_any_order_and_comes_to_rest(toy: Toy, dice: random.Random) -> None:
    late = 0
    for _ in range(60):
        plan = toy.plan()
        assert plan_job(toy.job, mixed(toy.pods.values(), dice), toy.now) == plan
        active = toy.active()
        gone = {pod.metadata.name for pod in plan.delete}
        assert len(set(active) - gone) + len(plan.create) <= max(toy.job.spec.parallelism or 0, len(active))
        assert not {new.name for new in plan.create} & set(toy.pods), "no pod is made twice"
        taken = [toy.pods[name].metadata.annotations.get(INDEX) for name in active if name not in gone]
        made_for = [str(new.index) for new in plan.create if new.index is not None]
        assert not set(made_for) & set(taken), "one pod an index"
        toy.carry_out(plan)
        if plan == JobPlan(toy.job.status, remove=plan.remove, again_s=plan.again_s):
            if late == 2:
                break
            late, toy.now = late + 1, toy.now + 400  # what waits after failures goes on
        for name in [name for name, one in toy.pods.items() if one.metadata.deletion_timestamp]:
            if TRACKED not in toy.pods[name].metadata.finalizers:
                del toy.pods[name]
            else:
                toy.pods[name] = with_meta(toy.pods[name], deletion_grace_period_seconds=0)
    again = toy.plan()
    assert again == JobPlan(toy.job.status, remove=again.remove, again_s=again.again_s)


# --- cron jobs ---


def carried_out(found: CronJob, plan: CronPlan, jobs: list[Job]) -> tuple[CronJob, list[Job]]:
    """What stands once the controller has done it."""
    left = [one for one in jobs if one not in plan.delete]
    status = plan.status
    if plan.start is not None:
        new = made(found, plan.start)
        left.append(new)
        status = plan_cron(replace(found, status=status), left, plan.start + 0.5).status
    return replace(found, status=status), left


@steady(200)
@given(
    states=st.lists(st.sampled_from(["", "", "Complete", "Failed", "going", "gone"]), max_size=8),
    policy=st.sampled_from(["Allow", "Forbid", "Replace"]),
    won=st.integers(0, 3),
    lost=st.integers(0, 2),
    last=st.sampled_from([None, "11:20:00", "11:30:00"]),
    dice=DICE,
)
def test_a_cron_job_is_planned_alike_in_any_order_and_what_is_done_stays_done(
    states: list[str], policy: str, won: int, lost: int, last: str | None, dice: random.Random
) -> None:
    limits = {"successful_jobs_history_limit": won, "failed_jobs_history_limit": lost}
    found = cron(last=at(last) if last else None, concurrency_policy=policy, **limits)
    jobs = []
    for number, state in enumerate(states):
        words = {"going": "", "gone": "Complete"}
        one = made(found, at("10:10:00") + 600 * number, state=words.get(state, state))
        jobs.append(with_meta(one, deletion_timestamp=rfc3339(NOW)) if state in words else one)
    now = at("11:30:05")
    plan = plan_cron(found, jobs, now)
    assert plan_cron(found, mixed(jobs, dice), now) == plan
    running = {name for name in (one.metadata.name for one in jobs) if _runs(jobs, name)}
    assert policy == "Replace" or not running & {one.metadata.name for one in plan.delete}, "none that runs is ended"
    assert policy != "Forbid" or not running or plan.start is None
    assert not any(one.metadata.deletion_timestamp for one in plan.delete), "once is enough"
    found, jobs = carried_out(found, plan, jobs)
    again = plan_cron(found, mixed(jobs, dice), now)
    assert again == CronPlan(found.status, skipped=again.skipped, again_s=again.again_s)
    assert sum(bool(one.status.completion_time) for one in jobs if not one.metadata.deletion_timestamp) <= won


def _runs(jobs: list[Job], name: str) -> bool:
    one = next(one for one in jobs if one.metadata.name == name)
    return not one.status.conditions and one.metadata.deletion_timestamp is None


# --- autoscalers ---


@steady(200)
@given(
    count=st.integers(1, 10),
    figures=st.lists(st.integers(0, 400), min_size=10, max_size=10),
    unready=st.integers(0, 3),
    bare=st.sets(st.integers(0, 9), max_size=2),
    dice=DICE,
)
def test_the_order_of_pods_and_figures_does_not_matter(
    count: int, figures: list[int], unready: int, bare: set[int], dice: random.Random
) -> None:
    pods = [pod(number, ready=number >= unready, request="" if number in bare else "100m") for number in range(count)]
    measured = used(*figures[:count])
    wish = spec(metric(), metric("memory", value="16Mi"))
    found = decide(wish, count, pods, measured, Past(), NOW)
    assert decide(wish, count, mixed(pods, dice), mixed_keys(measured, dice), Past(), NOW) == found


@steady(200)
@given(
    load=st.integers(0, 3000),
    count=st.integers(1, 12),
    least=st.integers(1, 4),
    more=st.integers(0, 10),
    percent=st.integers(20, 150),
)
def test_a_steady_load_finds_its_number_and_keeps_it(
    load: int, count: int, least: int, more: int, percent: int
) -> None:
    wish, past, now, seen = spec(metric(percent=percent), least=least, most=least + more), Past(), NOW, []
    for _ in range(45):
        shares = [load // count + (number < load % count) for number in range(count)]
        found = decide(wish, count, [pod(number) for number in range(count)], used(*shares), past, now)
        past, count, now = found.past, found.replicas, now + 15
        assert least <= count <= least + more
        seen.append(count)
    assert len(set(seen[-20:])) == 1, "it goes up and down"
