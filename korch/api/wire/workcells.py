"""The rows of workloads and of what scales and guards them."""

from typing import Any

from korch.api.wire.cells import (
    NONE,
    UNKNOWN,
    UNSET,
    Json,
    Sheet,
    age,
    age_of,
    columns,
    condition,
    holds,
    items,
    joined,
    name_of,
    number,
    pairs,
    part,
    selector,
    span,
    text,
)

_TEMPLATE = "Containers+, Images+, Selector+"
_MOST_TARGETS = 2


def _template(obj: Json, *names: str) -> list[Any]:
    containers = items(obj, *names, "template", "spec", "containers")
    return [joined(text(c, "name", default="") for c in containers), joined(text(c, "image") for c in containers)]


def _workload(obj: Json) -> list[Any]:
    return [*_template(obj, "spec"), selector(part(obj, "spec", "selector"))]


def _wanted(obj: Json) -> int:
    found = part(obj, "spec", "replicas")
    return found if isinstance(found, int) else 1


def _deployment(obj: Json, now: float) -> list[Any]:
    return [
        name_of(obj),
        f"{number(obj, 'status', 'readyReplicas')}/{_wanted(obj)}",
        number(obj, "status", "updatedReplicas"),
        number(obj, "status", "availableReplicas"),
        age_of(obj, now),
        *_workload(obj),
    ]


def _replicaset(obj: Json, now: float) -> list[Any]:
    counts = [number(obj, "status", name) for name in ("replicas", "readyReplicas")]
    return [name_of(obj), _wanted(obj), *counts, age_of(obj, now), *_workload(obj)]


def _statefulset(obj: Json, now: float) -> list[Any]:
    ready = f"{number(obj, 'status', 'readyReplicas')}/{_wanted(obj)}"
    return [name_of(obj), ready, age_of(obj, now), *_template(obj, "spec")]


def _daemonset(obj: Json, now: float) -> list[Any]:
    names = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    return [
        name_of(obj),
        *(number(obj, "status", name) for name in (*names, "numberAvailable")),
        pairs(part(obj, "spec", "template", "spec", "nodeSelector")),
        age_of(obj, now),
        *_workload(obj),
    ]


def _job_word(job: Json) -> str:
    for type_, word in (("Complete", "Complete"), ("Failed", "Failed")):
        if holds(job, type_):
            return word
    if part(job, "metadata", "deletionTimestamp"):
        return "Terminating"
    return next(
        (type_ for type_ in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if holds(job, type_)), "Running"
    )


def _completions(job: Json) -> str:
    done, wanted = number(job, "status", "succeeded"), part(job, "spec", "completions")
    if isinstance(wanted, int):
        return f"{done}/{wanted}"
    parallel = number(job, "spec", "parallelism")
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _duration(job: Json, now: float) -> str:
    start = part(job, "status", "startTime")
    end = part(job, "status", "completionTime")
    if not end and holds(job, "Failed"):
        end = part(condition(job, "Failed"), "lastTransitionTime")
    return span(start, end) if end else age(start, now, default="")


def _job(job: Json, now: float) -> list[Any]:
    return [name_of(job), _job_word(job), _completions(job), _duration(job, now), age_of(job, now), *_workload(job)]


def _cronjob(obj: Json, now: float) -> list[Any]:
    suspended = part(obj, "spec", "suspend")
    return [
        name_of(obj),
        text(obj, "spec", "schedule", default=""),
        text(obj, "spec", "timeZone"),
        UNSET if suspended is None else str(suspended),
        len(items(obj, "status", "active")),
        age(part(obj, "status", "lastScheduleTime"), now, default=NONE),
        age_of(obj, now),
        *_template(obj, "spec", "jobTemplate", "spec"),
        selector(part(obj, "spec", "jobTemplate", "spec", "selector")),
    ]


def _target(metric: Json, measured: Json) -> str:
    """`cpu: 50%/80%`, of one metric as wished and as measured."""
    kind = text(metric, "type", default="").lower()
    source, current = part(metric, kind), part(measured, kind, "current")
    name = text(source, "name", default="") or text(source, "metric", "name", default=kind)
    wish = part(source, "target")
    for key in ("averageUtilization", "averageValue", "value"):
        if part(wish, key) is not None:
            sign = "%" if key == "averageUtilization" else ""
            found = part(current, key)
            seen = UNKNOWN if found is None else f"{found}{sign}"
            return f"{name}: {seen}/{part(wish, key)}{sign}"
    return f"{name}: {UNKNOWN}/<auto>"


def _targets(obj: Json) -> str:
    wishes, measured = items(obj, "spec", "metrics"), items(obj, "status", "currentMetrics")
    if not wishes:  # autoscaling/v1
        wish = part(obj, "spec", "targetCPUUtilizationPercentage")
        seen = part(obj, "status", "currentCPUUtilizationPercentage")
        return NONE if wish is None else f"cpu: {UNKNOWN if seen is None else f'{seen}%'}/{wish}%"
    found = [_target(wish, measured[n] if n < len(measured) else {}) for n, wish in enumerate(wishes)]
    more = f" + {len(found) - _MOST_TARGETS} more..." if len(found) > _MOST_TARGETS else ""
    return ", ".join(found[:_MOST_TARGETS]) + more


def _autoscaler(obj: Json, now: float) -> list[Any]:
    reference = part(obj, "spec", "scaleTargetRef")
    return [
        name_of(obj),
        f"{text(reference, 'kind', default='')}/{text(reference, 'name', default='')}",
        _targets(obj),
        text(obj, "spec", "minReplicas", default=UNSET),
        number(obj, "spec", "maxReplicas"),
        number(obj, "status", "currentReplicas"),
        age_of(obj, now),
    ]


def _budget(obj: Json, now: float) -> list[Any]:
    return [
        name_of(obj),
        *(text(obj, "spec", name, default="N/A") for name in ("minAvailable", "maxUnavailable")),
        number(obj, "status", "disruptionsAllowed"),
        age_of(obj, now),
    ]


def _revision(obj: Json, now: float) -> list[Any]:
    owner: Json = next((ref for ref in items(obj, "metadata", "ownerReferences") if part(ref, "controller")), {})
    group, _, _ = text(owner, "apiVersion", default="").rpartition("/")
    kind = text(owner, "kind", default="").lower() + (f".{group}" if group else "")
    controller = f"{kind}/{text(owner, 'name', default='')}" if owner else NONE
    return [name_of(obj), controller, number(obj, "revision"), age_of(obj, now)]


def _scale(obj: Json, now: float) -> list[Any]:
    return [name_of(obj), number(obj, "spec", "replicas"), number(obj, "status", "replicas"), age_of(obj, now)]


WORKLOADS: dict[tuple[str, str], Sheet] = {
    ("apps", "Deployment"): Sheet(
        columns(f"Name, Ready, Up-to-date:int, Available:int, Age, {_TEMPLATE}"), _deployment
    ),
    ("apps", "ReplicaSet"): Sheet(columns(f"Name, Desired:int, Current:int, Ready:int, Age, {_TEMPLATE}"), _replicaset),
    ("apps", "StatefulSet"): Sheet(columns("Name, Ready, Age, Containers+, Images+"), _statefulset),
    ("apps", "DaemonSet"): Sheet(
        columns(
            "Name, Desired:int, Current:int, Ready:int, Up-to-date:int, Available:int, Node Selector, Age, " + _TEMPLATE
        ),
        _daemonset,
    ),
    ("apps", "ControllerRevision"): Sheet(columns("Name, Controller, Revision:int, Age"), _revision),
    ("batch", "Job"): Sheet(columns(f"Name, Status, Completions, Duration, Age, {_TEMPLATE}"), _job),
    ("batch", "CronJob"): Sheet(
        columns(f"Name, Schedule, Timezone, Suspend, Active:int, Last Schedule, Age, {_TEMPLATE}"), _cronjob
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): Sheet(
        columns("Name, Reference, Targets, MinPods, MaxPods:int, Replicas:int, Age"), _autoscaler
    ),
    ("autoscaling", "Scale"): Sheet(columns("Name, Desired:int, Available:int, Age"), _scale),
    ("policy", "PodDisruptionBudget"): Sheet(
        columns("Name, Min Available, Max Unavailable, Allowed Disruptions:int, Age"), _budget
    ),
}
