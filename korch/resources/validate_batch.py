"""Whether a Job or CronJob is legal."""

from korch.resources.batch import CronJob, CronJobSpec, Job, JobSpec
from korch.resources.names import check_annotations, check_labels
from korch.resources.problems import Problems
from korch.resources.schedule import schedule_problem, time_zone_problem
from korch.resources.selectors import matches
from korch.resources.validate_pod import check_pod_spec, check_publish, check_selector

_CRON_NAME_LENGTH = 52  # jobs are called NAME-MINUTE, and pods JOB-XXXXX, at most 63 together
_MOST_INDEXES = 100_000  # Kubernetes' limit for indexed jobs


def check_job(job: Job, problems: Problems) -> None:
    """Note everything that is wrong with a job."""
    check_job_spec(job.spec, "spec", problems)
    spec = job.spec
    if spec.manual_selector and (spec.selector is None or not matches(spec.selector, spec.template.metadata.labels)):
        problems.add("spec.selector", "does not match the labels of the template")


def check_job_spec(spec: JobSpec, path: str, problems: Problems) -> None:
    """The same for its spec, also inside a CronJob."""
    for name, value in (
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ):
        if value is not None and not 0 <= value < 2**31:
            problems.add(f"{path}.{name}", f"{value} is less than 0" if value < 0 else f"{value} is too large")
    deadline_s = spec.active_deadline_seconds
    if deadline_s is not None and not 1 <= deadline_s < 2**31:
        problems.add(f"{path}.activeDeadlineSeconds", f"{deadline_s} is not between 1 and 2147483647")
    if spec.completion_mode not in ("NonIndexed", "Indexed"):
        problems.add(f"{path}.completionMode", f'"{spec.completion_mode}" is not NonIndexed or Indexed')
    elif spec.completion_mode == "Indexed" and spec.completions is None:
        problems.add(f"{path}.completions", "is needed with completionMode Indexed")
    elif spec.completion_mode == "Indexed" and (spec.completions or 0) > _MOST_INDEXES:
        problems.add(f"{path}.completions", f"{spec.completions} is more than {_MOST_INDEXES}")
    _check_template(spec, path, problems)


def _check_template(spec: JobSpec, path: str, problems: Problems) -> None:
    meta, where = spec.template.metadata, f"{path}.template"
    check_labels(meta.labels, f"{where}.metadata.labels", problems)
    check_annotations(meta.annotations, f"{where}.metadata.annotations", problems)
    if meta.name or meta.generate_name or meta.namespace:
        problems.add(f"{where}.metadata", "name and namespace of the pods are not given in a template")
    if spec.selector is not None:
        check_selector(spec.selector, f"{path}.selector", problems)
    check_pod_spec(spec.template.spec, f"{where}.spec", problems, template=True, ends=True)
    check_publish(meta.annotations, spec.template.spec, f"{where}.metadata", problems)


def check_cron_job(found: CronJob, problems: Problems) -> None:
    """Note everything that is wrong with a CronJob."""
    spec: CronJobSpec = found.spec
    if len(found.metadata.name) > _CRON_NAME_LENGTH:
        problems.add("metadata.name", f"is longer than {_CRON_NAME_LENGTH} characters")
    problems.check("spec.schedule", schedule_problem(spec.schedule))
    if "TZ=" in spec.schedule:
        problems.add("spec.schedule", "the time zone belongs into timeZone")
    if spec.time_zone is not None:
        problems.check("spec.timeZone", time_zone_problem(spec.time_zone))
    if spec.concurrency_policy not in ("Allow", "Forbid", "Replace"):
        problems.add("spec.concurrencyPolicy", f'"{spec.concurrency_policy}" is not Allow, Forbid or Replace')
    for name, value in (
        ("startingDeadlineSeconds", spec.starting_deadline_seconds),
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ):
        if value is not None and value < 0:
            problems.add(f"spec.{name}", f"{value} is less than 0")
    if spec.job_template.spec.manual_selector or spec.job_template.spec.selector is not None:
        problems.add("spec.jobTemplate.spec.selector", "each job gets its own")
    check_labels(spec.job_template.metadata.labels, "spec.jobTemplate.metadata.labels", problems)
    check_annotations(spec.job_template.metadata.annotations, "spec.jobTemplate.metadata.annotations", problems)
    check_job_spec(spec.job_template.spec, "spec.jobTemplate.spec", problems)
