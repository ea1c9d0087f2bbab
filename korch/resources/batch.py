"""Work that ends: Job and CronJob. Shapes are Kubernetes' (batch/v1)."""

from korch.resources.meta import Condition, LabelSelector, Object, ObjectMeta, ObjectReference, Struct
from korch.resources.workload import PodTemplateSpec


class JobSpec(Struct, frozen=True, kw_only=True):
    """`completions` pods of the template shall succeed, `parallelism` at a time; None: the first success is enough.

    `completion_mode`: NonIndexed, or Indexed (each pod has a number, and each number succeeds once).
    """

    parallelism: int | None = None
    completions: int | None = None
    completion_mode: str = ""
    backoff_limit: int | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    suspend: bool | None = None
    selector: LabelSelector | None = None
    manual_selector: bool | None = None
    template: PodTemplateSpec = PodTemplateSpec()


class UncountedTerminatedPods(Struct, frozen=True, kw_only=True):
    """Pods that ended and are in no count yet, by uid."""

    succeeded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class JobStatus(Struct, frozen=True, kw_only=True):
    """Counts of its pods; conditions Complete, Failed, Suspended. `completed_indexes` such as `0-3,7`."""

    active: int = 0
    ready: int | None = None
    succeeded: int = 0
    failed: int = 0
    terminating: int | None = None
    completed_indexes: str = ""
    start_time: str | None = None
    completion_time: str | None = None
    conditions: tuple[Condition, ...] = ()
    uncounted_terminated_pods: UncountedTerminatedPods | None = None


class Job(Object, frozen=True, kw_only=True):
    """batch/v1 Job."""

    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class JobTemplateSpec(Struct, frozen=True, kw_only=True):
    """What new jobs look like."""

    metadata: ObjectMeta = ObjectMeta()
    spec: JobSpec = JobSpec()


class CronJobSpec(Struct, frozen=True, kw_only=True):
    """A job at each time of `schedule` (five fields of cron) in `time_zone`; None: UTC.

    `concurrency_policy`: what a job that still runs means for the next: Allow, Forbid or Replace.
    """

    schedule: str = ""
    time_zone: str | None = None
    starting_deadline_seconds: int | None = None
    concurrency_policy: str = ""
    suspend: bool | None = None
    job_template: JobTemplateSpec = JobTemplateSpec()
    successful_jobs_history_limit: int | None = None
    failed_jobs_history_limit: int | None = None


class CronJobStatus(Struct, frozen=True, kw_only=True):
    """Jobs that run, the last scheduled time that made one, the last success."""

    active: tuple[ObjectReference, ...] = ()
    last_schedule_time: str | None = None
    last_successful_time: str | None = None


class CronJob(Object, frozen=True, kw_only=True):
    """batch/v1 CronJob."""

    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()
