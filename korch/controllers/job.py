"""Job: runs pods until so many have succeeded. The plan is pure; the loop only carries it out.

Each pod is counted once, whatever crashes in between, with Kubernetes' own protocol: a finalizer holds a pod that has
ended until its uid is on record in the job's status, and the uid becomes a count once the finalizer is gone.
"""

import hashlib
from collections.abc import Sequence

import msgspec
import msgspec.structs
from msgspec.structs import replace

from korch.controllers.jobcount import (
    TRACKED,
    Counted,
    count,
    delay_s,
    index_of,
    indexes_text,
    is_active,
    is_tracked,
    restarts,
)
from korch.errors import AlreadyExistsError, ConflictError, NotFoundError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.batch import Job, JobStatus, UncountedTerminatedPods
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.pod import Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod
from korch.resources.podstate import condition, controller_of, is_ready, owner_reference, with_condition
from korch.resources.templates import safe_digits
from korch.resources.times import parse_time, rfc3339

INDEX = "batch.kubernetes.io/job-completion-index"
_NAME_LENGTH = 57  # of a job's name in those of its pods: with five characters more they are DNS labels
_AT_ONCE = 100  # pods made in one pass


class NewPod(msgspec.Struct, frozen=True):
    """A pod to make; `index` is its number in an indexed job."""

    name: str
    index: int | None = None


class JobPlan(msgspec.Struct, frozen=True):
    """In this order: the status to write, pods to let go of (counted), to delete (uncounted), and to make.

    `remove`: the job's time after its end is over. `again_s`: something happens by the passing of time alone.
    """

    status: JobStatus
    release: tuple[Pod, ...] = ()
    delete: tuple[Pod, ...] = ()
    create: tuple[NewPod, ...] = ()
    remove: bool = False
    again_s: float | None = None


def is_finished(job: Job) -> bool:
    """Whether it is complete, or has failed."""
    return any(found.type in ("Complete", "Failed") and found.status == "True" for found in job.status.conditions)


def plan_job(job: Job, pods: Sequence[Pod], now: float) -> JobPlan:
    """What brings the job nearer to its end; `pods` are all that it owns. Order of input is irrelevant.

    Pods that were lost with their node are deleted once they are counted: what may still run there is ended on its
    return. Others that have ended stay, for people to look at.
    """
    ordered = sorted(pods, key=lambda pod: pod.metadata.name)
    plan = _plan(job, ordered, now)
    lost = (pod for pod in ordered if pod.status.reason == "NodeLost" and not is_tracked(pod))
    gone = tuple(pod for pod in lost if pod.metadata.deletion_timestamp is None)
    return msgspec.structs.replace(plan, delete=(*gone, *plan.delete)) if gone else plan


def _plan(job: Job, pods: Sequence[Pod], now: float) -> JobPlan:
    if job.metadata.deletion_timestamp is not None:
        return JobPlan(job.status, release=tuple(pod for pod in pods if is_tracked(pod)))
    if is_finished(job):
        return _after_the_end(job, pods, now)
    counted = count(job, pods)
    active = [pod for pod in pods if is_active(pod)]
    status = replace(
        job.status,
        active=len(active),
        ready=sum(is_ready(pod) for pod in active),
        terminating=sum(pod.metadata.deletion_timestamp is not None and not pod_ended(pod) for pod in pods),
        succeeded=counted.succeeded,
        failed=counted.failed,
        completed_indexes=indexes_text(counted.indexes),
        uncounted_terminated_pods=UncountedTerminatedPods(
            succeeded=counted.newly_succeeded, failed=counted.newly_failed
        )
        if counted.newly_succeeded or counted.newly_failed
        else None,
    )
    status = _begun(job, status, now)
    release = tuple(pod for pod in pods if is_tracked(pod) and pod.metadata.uid in counted.noted)
    if counted.noted:  # what has ended is put on record first, and judged when it is
        return JobPlan(status, release=release)
    verdict = _verdict(job, status, counted, active, now)
    if verdict is not None:
        return JobPlan(_ended(status, verdict, len(active), now), delete=tuple(active))
    if job.spec.suspend:
        return JobPlan(replace(status, active=0, ready=0), delete=tuple(active))
    return _onwards(job, status, counted, pods, active, now)


def pod_ended(pod: Pod) -> bool:
    """Whether nothing of it runs any more."""
    return not is_active(pod) and (
        pod.status.phase in {"Succeeded", "Failed"} or pod.metadata.deletion_grace_period_seconds == 0
    )


# --- beginning and end ---


def _begun(job: Job, status: JobStatus, now: float) -> JobStatus:
    """The status with its start, or with its suspension: time does not pass for a job that is suspended."""
    stamp = rfc3339(now)
    suspended = condition(status.conditions, "Suspended")
    if job.spec.suspend:
        found = Condition(type="Suspended", status="True", reason="JobSuspended", message="Job suspended")
        return replace(status, start_time=None, conditions=with_condition(status.conditions, found, stamp))
    if suspended is not None and suspended.status == "True":
        found = Condition(type="Suspended", status="False", reason="JobResumed", message="Job resumed")
        conditions = with_condition(status.conditions, found, stamp)
        return replace(status, start_time=stamp, conditions=conditions)
    return replace(status, start_time=status.start_time or stamp)


def _verdict(job: Job, status: JobStatus, counted: Counted, active: Sequence[Pod], now: float) -> Condition | None:
    """The condition with which the job ends now, or None."""
    spec, limit = job.spec, job.spec.backoff_limit or 0
    if spec.completions is not None:
        complete = status.succeeded >= spec.completions
    else:
        complete = status.succeeded > 0 and not active
    if complete:
        reason, message = "CompletionsReached", "Reached expected number of succeeded pods"
        return Condition(type="Complete", status="True", reason=reason, message=message)
    again = sum(restarts(pod) for pod in active) if spec.template.spec.restart_policy == "OnFailure" else 0
    if status.failed > limit or (again > 0 and again >= limit):
        message = "Job has reached the specified backoff limit"
        return Condition(type="Failed", status="True", reason="BackoffLimitExceeded", message=message)
    if spec.active_deadline_seconds is not None and _left_s(job, status, now) <= 0:
        message = "Job was active longer than specified deadline"
        return Condition(type="Failed", status="True", reason="DeadlineExceeded", message=message)
    return None


def _left_s(job: Job, status: JobStatus, now: float) -> float:
    """Seconds until its deadline."""
    if job.spec.active_deadline_seconds is None or not status.start_time:
        return float("inf")
    return parse_time(status.start_time) + job.spec.active_deadline_seconds - now


def _ended(status: JobStatus, verdict: Condition, active: int, now: float) -> JobStatus:
    """The last status of a job; pods that are cut off by its failure have failed."""
    stamp = rfc3339(now)
    complete = verdict.type == "Complete"
    return replace(
        status,
        active=0,
        ready=0,
        failed=status.failed + (0 if complete else active),
        completion_time=stamp if complete else None,
        conditions=with_condition(status.conditions, verdict, stamp),
    )


def _after_the_end(job: Job, pods: Sequence[Pod], now: float) -> JobPlan:
    """Nothing of a job that has ended runs on; itself goes when its time is over."""
    release = tuple(pod for pod in pods if is_tracked(pod) and not is_active(pod))
    active = tuple(pod for pod in pods if is_active(pod))
    ttl_s = job.spec.ttl_seconds_after_finished
    if ttl_s is None:
        return JobPlan(job.status, release=release, delete=active)
    times = [parse_time(found.last_transition_time or "") for found in job.status.conditions if found.status == "True"]
    left_s = max(times, default=now) + ttl_s - now
    again_s = None if left_s <= 0 else left_s
    return JobPlan(job.status, release=release, delete=active, remove=left_s <= 0, again_s=again_s)


# --- pods ---


def _onwards(
    job: Job, status: JobStatus, counted: Counted, pods: Sequence[Pod], active: Sequence[Pod], now: float
) -> JobPlan:
    wanted = _wanted(job, status, len(active))
    deadline_s = _left_s(job, status, now)
    again_s = None if deadline_s == float("inf") else deadline_s
    surplus = _surplus(job, active, counted, wanted)
    if surplus:
        return JobPlan(status, delete=surplus, again_s=again_s)
    missing = min(wanted - len(active), _AT_ONCE)
    if missing <= 0:
        return JobPlan(status, again_s=again_s)
    wait_s = delay_s(pods, now)
    if wait_s > 0:
        return JobPlan(status, again_s=min(wait_s, deadline_s))
    return JobPlan(status, create=_new_pods(job, pods, active, counted, missing), again_s=again_s)


def _wanted(job: Job, status: JobStatus, active: int) -> int:
    parallelism = job.spec.parallelism or 0
    if job.spec.completions is None:  # the first success says that the work is done
        return min(active, parallelism) if status.succeeded else parallelism
    return min(parallelism, job.spec.completions - status.succeeded)


def _surplus(job: Job, active: Sequence[Pod], counted: Counted, wanted: int) -> tuple[Pod, ...]:
    """Pods beyond the wanted number, and second ones of an index; those that are not ready go first."""
    ordered = sorted(active, key=lambda pod: (is_ready(pod), bool(pod.spec.node_name), pod.metadata.name))
    if job.spec.completion_mode != "Indexed":
        return tuple(ordered[: max(0, len(active) - wanted)])
    kept: dict[int, Pod] = {}
    for pod in reversed(ordered):
        index = index_of(pod)
        if index is not None and index not in counted.indexes and index < (job.spec.completions or 0):
            kept.setdefault(index, pod)
    stay = {kept[index].metadata.uid for index in sorted(kept)[:wanted]}
    return tuple(pod for pod in ordered if pod.metadata.uid not in stay)


def _new_pods(
    job: Job, pods: Sequence[Pod], active: Sequence[Pod], counted: Counted, missing: int
) -> tuple[NewPod, ...]:
    taken = {pod.metadata.name for pod in pods}
    if job.spec.completion_mode != "Indexed":
        names = (pod_name(job, "", number) for number in range(len(taken) + missing))
        return tuple(NewPod(name) for name in names if name not in taken)[:missing]
    busy = {index_of(pod) for pod in active} | counted.indexes
    free = [index for index in range(job.spec.completions or 0) if index not in busy][:missing]
    return tuple(NewPod(_first_free(job, index, taken), index) for index in free)


def _first_free(job: Job, index: int, taken: set[str]) -> str:
    return next(name for number in range(len(taken) + 1) if (name := pod_name(job, f"-{index}", number)) not in taken)


def pod_name(job: Job, part: str, number: int) -> str:
    """The name of the `number`-th pod: the same on every try, so that a repeated creation cannot double it."""
    digest = hashlib.sha256(f"{job.metadata.uid}{part}/{number}".encode()).digest()
    head = job.metadata.name[: _NAME_LENGTH - len(part)].rstrip("-")
    return f"{head}{part}-{safe_digits(int.from_bytes(digest), 5)}"


def pod_from(job: Job, new: NewPod) -> Pod:
    """A new pod of the job's template, held by a finalizer until it is counted."""
    template = job.spec.template
    labels, notes, spec = template.metadata.labels, template.metadata.annotations, template.spec
    if new.index is not None:
        number = {INDEX: str(new.index)}
        labels, notes = {**labels, **number}, {**notes, **number}
        spec = replace(spec, containers=tuple(_indexed(found) for found in spec.containers))
        if not spec.hostname:
            spec = replace(spec, hostname=f"{job.metadata.name[:50].rstrip('-')}-{new.index}")
    meta = ObjectMeta(
        name=new.name,
        namespace=job.metadata.namespace,
        labels=labels,
        annotations=notes,
        owner_references=(owner_reference(job),),
        finalizers=(TRACKED,),
    )
    return Pod(metadata=meta, spec=spec)


def _indexed(container: Container) -> Container:
    if any(env.name == "JOB_COMPLETION_INDEX" for env in container.env):
        return container
    source = EnvVarSource(field_ref=ObjectFieldSelector(field_path=f"metadata.annotations['{INDEX}']"))
    return replace(container, env=(*container.env, EnvVar(name="JOB_COMPLETION_INDEX", value_from=source)))


class JobController:
    """Carries out `plan_job` for one job at a time."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view, self._clock = view, clock

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Bring one job (namespace, name) nearer to its end."""
        job = self._view.find(Job, key[1], key[0])
        await self._let_go_of_orphans(key, job)
        if job is None:
            return None
        pods = self._view.owned(Pod, job.metadata.uid, key[0])
        plan = plan_job(job, pods, self._clock.now())
        if plan.status != job.status:
            job = await self._view.update_status(replace(job, status=plan.status))
            await self._tell(job, plan)
        for pod in plan.release:
            await self._release(pod)
        for pod in plan.delete:
            await self._release(pod)
            await self._view.delete(pod)
        for new in plan.create:
            try:
                await self._view.create(pod_from(job, new))
            except AlreadyExistsError as error:
                raise ConflictError(f"pod {new.name} appeared meanwhile") from error
        if plan.remove:
            await self._view.delete(job)
        return plan.again_s

    async def _let_go_of_orphans(self, key: tuple[str, str], job: Job | None) -> None:
        """Pods of a job that is gone are nobody's to count."""
        for pod in tuple(self._view.all(Pod, key[0])):
            owner = controller_of(pod) if is_tracked(pod) else None
            if owner is None or (owner.kind, owner.name) != ("Job", key[1]):
                continue
            if job is None or owner.uid != job.metadata.uid:
                await self._release(pod)

    async def _release(self, pod: Pod) -> None:
        def without(stored: Pod) -> Pod | None:
            if stored.metadata.uid != pod.metadata.uid or TRACKED not in stored.metadata.finalizers:
                return None
            kept = tuple(name for name in stored.metadata.finalizers if name != TRACKED)
            return with_meta(stored, finalizers=kept)

        try:
            await self._view.modify(Pod, pod.metadata.name, pod.metadata.namespace, without)
        except NotFoundError:
            return

    async def _tell(self, job: Job, plan: JobPlan) -> None:
        """An event for its end."""
        for found in plan.status.conditions:
            if found.type in ("Complete", "Failed") and found.status == "True":
                reason = "Completed" if found.type == "Complete" else found.reason
                text = "Job completed" if found.type == "Complete" else found.message
                kind = "Normal" if found.type == "Complete" else "Warning"
                await self._view.objects.record_event(
                    job,
                    type=kind,  # type: ignore[arg-type]
                    reason=reason,
                    message=text,
                    component="job-controller",
                )
