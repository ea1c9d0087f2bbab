"""The row of a pod: which one word says how it is, as Kubernetes' server chooses it."""

from typing import Any

from korch.api.wire.cells import NONE, Json, age, age_of, columns, condition, holds, items, name_of, number, part, text

POD_COLUMNS = columns("Name, Ready, Status, Restarts, Age, IP+, Node+, Nominated Node+, Readiness Gates+")


def pod_cells(pod: Json, now: float) -> list[Any]:
    """The cells of `POD_COLUMNS`."""
    addresses = [part(found, "ip") for found in items(pod, "status", "podIPs")]
    return [
        name_of(pod),
        ready_count(pod),
        pod_word(pod),
        restarts(pod, now),
        age_of(pod, now),
        (addresses and addresses[0]) or text(pod, "status", "podIP"),
        text(pod, "spec", "nodeName"),
        text(pod, "status", "nominatedNodeName"),
        readiness_gates(pod),
    ]


def pod_word(pod: Json) -> str:
    """Running, Pending, Completed, Error, CrashLoopBackOff, Init:0/1, Terminating...: the most telling reason."""
    phase = text(pod, "status", "phase", default="Pending")
    word = text(pod, "status", "reason", default=phase)
    if part(condition(pod, "PodScheduled"), "reason") == "SchedulingGated":
        word = "SchedulingGated"
    starting = _init_word(pod)
    word = starting or word
    if not starting or holds(pod, "Initialized"):
        word = _main_word(pod, word)
    if not part(pod, "metadata", "deletionTimestamp"):
        return word
    if part(pod, "status", "reason") == "NodeLost":
        return "Unknown"
    return word if phase in ("Succeeded", "Failed") else "Terminating"


def _main_word(pod: Json, word: str) -> str:
    """By the containers: of several that have something to say, the first one says it."""
    running = False
    for status in reversed(items(pod, "status", "containerStatuses")):
        reason = text(status, "state", "waiting", "reason", default="") or _ended(status)
        if reason:
            word = reason
        elif part(status, "ready") and _has(status, "running"):
            running = True
    if word == "Completed" and running:
        return "Running" if holds(pod, "Ready") else "NotReady"
    return word


def _ended(status: Json) -> str:
    """Why a container ended, or "" when it has not."""
    ended = part(status, "state", "terminated")
    if not isinstance(ended, dict):
        return ""
    signal = number(ended, "signal")
    return text(ended, "reason", default=f"Signal:{signal}" if signal else f"ExitCode:{number(ended, 'exitCode')}")


def _has(status: Json, state: str) -> bool:
    return isinstance(part(status, "state", state), dict)


def _init_word(pod: Json) -> str:
    """`Init:0/2`, `Init:Error`... while an init container is not through, else ""."""
    specs = items(pod, "spec", "initContainers")
    for index, status in enumerate(items(pod, "status", "initContainerStatuses")):
        if _has(status, "terminated"):
            if number(status, "state", "terminated", "exitCode") == 0:
                continue
            return f"Init:{_ended(status)}"
        if part(status, "started") and _is_sidecar(pod, status):
            continue
        reason = text(status, "state", "waiting", "reason", default="PodInitializing")
        return f"Init:{index}/{len(specs)}" if reason == "PodInitializing" else f"Init:{reason}"
    return ""


def _is_sidecar(pod: Json, status: Json) -> bool:
    """Whether it is an init container that goes on beside the others."""
    return any(
        part(spec, "name") == part(status, "name") and part(spec, "restartPolicy") == "Always"
        for spec in items(pod, "spec", "initContainers")
    )


def _counted(pod: Json) -> list[Json]:
    """The statuses of the containers that run as long as the pod does."""
    sidecars = [status for status in items(pod, "status", "initContainerStatuses") if _is_sidecar(pod, status)]
    return [*sidecars, *items(pod, "status", "containerStatuses")]


def ready_count(pod: Json) -> str:
    """`1/2`: containers that run and are ready, of how many; none is on a node that is lost."""
    sidecars = sum(part(spec, "restartPolicy") == "Always" for spec in items(pod, "spec", "initContainers"))
    total = len(items(pod, "spec", "containers")) + sidecars
    ready = sum(1 for status in _counted(pod) if part(status, "ready") and _has(status, "running"))
    return f"{0 if part(pod, 'status', 'reason') == 'NodeLost' else ready}/{total}"


def restarts(pod: Json, now: float) -> str:
    """`0`, or `3 (5m ago)` with the time of the last one; those of init containers while these run."""
    starting = bool(_init_word(pod)) and not holds(pod, "Initialized")
    statuses = items(pod, "status", "initContainerStatuses") if starting else _counted(pod)
    count = sum(number(status, "restartCount") for status in statuses)
    ends = [text(status, "lastState", "terminated", "finishedAt", default="") for status in statuses]
    last = max(ends, default="")
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


def readiness_gates(pod: Json) -> str:
    """`1/2`: gates that are open."""
    gates = items(pod, "spec", "readinessGates")
    opened = sum(holds(pod, text(gate, "conditionType", default="")) for gate in gates)
    return f"{opened}/{len(gates)}" if gates else NONE
