"""CronJob: a job at each time of a schedule. The plan is pure; the loop only carries it out.

A job is named after its minute, so that a start that is repeated meets the first one. Of several times that were missed
only the latest is made up for.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from korch.controllers.job import is_finished
from korch.errors import AlreadyExistsError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.batch import CronJob, CronJobStatus, Job
from korch.resources.kinds import JOB
from korch.resources.meta import ObjectMeta, ObjectReference
from korch.resources.podstate import owner_reference
from korch.resources.schedule import last_time, next_time
from korch.resources.times import parse_time, rfc3339

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
LOOK_AT_LEAST_EVERY_S = 60.0  # clocks are set, and machines sleep


class CronPlan(msgspec.Struct, frozen=True):
    """Jobs to delete, the time (Unix seconds) whose job is to be made, and the status to write.

    `skipped`: why a time passes without a job.
    """

    status: CronJobStatus
    delete: tuple[Job, ...] = ()
    start: int | None = None
    skipped: str = ""
    again_s: float | None = None


def plan_cron(cron: CronJob, jobs: Sequence[Job], now: float) -> CronPlan:
    """What the schedule asks for now; `jobs` are all that it owns. Order of input is irrelevant."""
    jobs = sorted(jobs, key=lambda job: (_began(job), job.metadata.name))
    running = [job for job in jobs if not is_finished(job) and job.metadata.deletion_timestamp is None]
    old = _old_jobs(cron, jobs)
    wins = [job.status.completion_time for job in jobs if job.status.completion_time]
    last_win = max((*wins, cron.status.last_successful_time or ""), default="")
    status = replace(cron.status, active=tuple(map(_reference, running)), last_successful_time=last_win or None)
    if cron.metadata.deletion_timestamp is not None or cron.spec.suspend:
        return CronPlan(status, delete=old)
    after = next_time(cron.spec.schedule, cron.spec.time_zone, now)
    again_s = LOOK_AT_LEAST_EVERY_S if after is None else min(after - now, LOOK_AT_LEAST_EVERY_S)
    due = _due(cron, now)
    if due is None:
        return CronPlan(status, delete=old, again_s=again_s)
    if running and cron.spec.concurrency_policy == "Forbid":
        why = "the job before it still runs, and concurrencyPolicy is Forbid"
        return CronPlan(status, delete=old, skipped=why, again_s=again_s)
    replaced = tuple(running) if cron.spec.concurrency_policy == "Replace" else ()
    status = replace(status, last_schedule_time=rfc3339(due), active=() if replaced else status.active)
    return CronPlan(status, delete=(*old, *replaced), start=int(due), again_s=again_s)


def _due(cron: CronJob, now: float) -> float | None:
    """The latest time that has come, has no job, and is not too long ago."""
    last = last_time(cron.spec.schedule, cron.spec.time_zone, now)
    since = cron.status.last_schedule_time or cron.metadata.creation_timestamp
    if last is None or (since is not None and last <= parse_time(since)):
        return None
    deadline_s = cron.spec.starting_deadline_seconds
    return None if deadline_s is not None and now - last > deadline_s else last


def _old_jobs(cron: CronJob, jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Jobs that have ended, beyond those that are kept: the oldest of each sort."""
    ended = [job for job in jobs if is_finished(job) and job.metadata.deletion_timestamp is None]
    won = [job for job in ended if job.status.completion_time]
    lost = [job for job in ended if not job.status.completion_time]
    keep_won = cron.spec.successful_jobs_history_limit
    keep_lost = cron.spec.failed_jobs_history_limit
    return (*won[: max(0, len(won) - (keep_won or 0))], *lost[: max(0, len(lost) - (keep_lost or 0))])


def _began(job: Job) -> str:
    return job.status.start_time or job.metadata.creation_timestamp or ""


def _reference(job: Job) -> ObjectReference:
    meta = job.metadata
    return ObjectReference(
        api_version=JOB.api_version, kind=JOB.name, namespace=meta.namespace, name=meta.name, uid=meta.uid
    )


def job_from(cron: CronJob, time_s: int) -> Job:
    """The job of one time of the schedule."""
    template = cron.spec.job_template
    meta = ObjectMeta(
        name=f"{cron.metadata.name}-{time_s // 60}",
        namespace=cron.metadata.namespace,
        labels=template.metadata.labels,
        annotations={**template.metadata.annotations, SCHEDULED: rfc3339(time_s)},
        owner_references=(owner_reference(cron),),
    )
    return Job(metadata=meta, spec=template.spec)


class CronJobController:
    """Carries out `plan_cron` for one CronJob at a time."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view, self._clock = view, clock

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Do what the schedule of one CronJob (namespace, name) asks for now."""
        cron = self._view.find(CronJob, key[1], key[0])
        if cron is None:
            return None
        plan = plan_cron(cron, self._view.owned(Job, cron.metadata.uid, key[0]), self._clock.now())
        for job in plan.delete:
            await self._view.delete(job)
        status = plan.status
        if plan.start is not None:
            made = await self._start(cron, plan.start)
            if made is not None:
                status = replace(status, active=(*status.active, _reference(made)))
        if plan.skipped:
            await self._event(cron, "JobAlreadyActive", f"not started: {plan.skipped}")
        if status != cron.status:
            await self._view.update_status(replace(cron, status=status))
        return plan.again_s

    async def _start(self, cron: CronJob, time_s: int) -> Job | None:
        """The new job; None when there is one of that name: of an earlier try, or somebody else's."""
        new = job_from(cron, time_s)
        try:
            made = await self._view.create(new)
        except AlreadyExistsError:
            return None
        await self._event(cron, "SuccessfulCreate", f"Created job {made.metadata.name}")
        return made

    async def _event(self, cron: CronJob, reason: str, message: str) -> None:
        await self._view.objects.record_event(
            cron, type="Normal", reason=reason, message=message, component="cronjob-controller"
        )
