"""What an observed container means for its pod's status. Pure: (pod, container, checks, now) → status."""

from dataclasses import dataclass

from msgspec.structs import replace

from korch.engines.observed import ObservedContainer
from korch.resources.meta import Condition
from korch.resources.pod import (
    ContainerPort,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodIP,
    PodStatus,
)
from korch.resources.podstate import LAST_LOG, is_ready, main_status, ready_for_s, with_condition
from korch.resources.times import rfc3339, rfc3339_micro

MESSAGE_LIMIT = 4096  # bytes of a kept message; Kubernetes' limit for termination messages
RESTARTING = "Restarting"  # reason of a container that is about to be started again by the keeper
_BY_ENGINE = "and the engine starts it again"


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the checks of one container say so far. `failed_for_good`: as often in a row as is allowed."""

    passing: bool = False
    failed_for_good: bool = False
    message: str = ""
    started: bool = True  # its startup probe, if it has one, has passed


def observed_status(
    pod: Pod,
    seen: ObservedContainer,
    *,
    now: float,
    host_ip: str,
    readiness: Readiness,
    settle_s: int = 0,
    last_log: str = "",
) -> PodStatus:
    """The pod's status now that its container was seen like this. `last_log` replaces the kept lines unless empty.

    While the pod has been ready for less than `settle_s`, the look itself is noted: availability counts between looks.
    """
    old = main_status(pod)
    state = _state(seen, last_log)
    running = state.running is not None
    ready = running and readiness.passing
    status = ContainerStatus(
        name=pod.spec.containers[0].name,
        ready=ready,
        started=running and readiness.started,
        restart_count=_restarts(seen, old),
        engine_restarts=seen.restart_count,
        image=pod.spec.containers[0].image,
        image_id=seen.image_id,
        container_id=seen.id,
        state=state,
        last_state=_last_state(seen, old, last_log),
        published=tuple(
            ContainerPort(
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
                protocol=port.protocol.upper(),
            )
            for port in seen.ports
        ),
    )
    new = replace(
        pod.status,
        phase=_phase(pod, state, pod.status.phase),
        reason="",
        message="",
        host_ip=host_ip,
        pod_ip=seen.ip,
        pod_ips=(PodIP(ip=seen.ip),) if seen.ip else (),
        start_time=pod.status.start_time or rfc3339(now),
        container_statuses=(status,),
    )
    if ready and old is not None and _restarted(old, status):  # what it was ready for before counts no more
        new = replace(new, conditions=tuple(found for found in new.conditions if found.type != "Ready"))
    conditions = _conditions(new, ready, state, readiness, last_log, now)
    return replace(new, conditions=_noted(conditions, now, settle_s) if ready else conditions)


def was_ready(pod: Pod, seen: ObservedContainer) -> bool:
    """Whether the pod was on record as ready with this very run of its container."""
    return _same_run(main_status(pod), seen) and is_ready(pod)


def was_started(pod: Pod, seen: ObservedContainer) -> bool:
    """Whether it is on record that this very run of its container has passed its startup probe."""
    status = main_status(pod)
    return status is not None and _same_run(status, seen) and status.started is True


def _same_run(status: ContainerStatus | None, seen: ObservedContainer) -> bool:
    if status is None or status.container_id != seen.id or status.restart_count < seen.restart_count:
        return False
    began = status.state.running.started_at if status.state.running is not None else None
    return began is None or seen.started_at is None or began == rfc3339(seen.started_at)


def _restarts(seen: ObservedContainer, old: ContainerStatus | None) -> int:
    """How often it was started again, by whomever: the engine counts only its own, and forgets them at our restarts."""
    if old is None or not old.container_id:
        return seen.restart_count
    by_engine = seen.restart_count - old.engine_restarts
    if by_engine < 0 or (by_engine == 0 and _started_anew(seen, old)):
        return old.restart_count + 1 + (seen.restart_count if by_engine < 0 else 0)
    return old.restart_count + by_engine


def _started_anew(seen: ObservedContainer, old: ContainerStatus) -> bool:
    """Whether it runs (or did, since it was told to), and is another run than the one on record."""
    if seen.state != "running":
        told = old.state.waiting is not None and old.state.waiting.reason == RESTARTING
        return told and old.container_id == seen.id and seen.state in {"exited", "dead"}
    if old.container_id != seen.id:
        return True
    if (waiting := old.state.waiting) is not None:  # the engine's own restarts are in its count
        return waiting.reason != "ContainerCreating" and not waiting.message.endswith(_BY_ENGINE)
    return old.state.running is None or not _same_run(old, seen)


def got_worse(pod: Pod, status: PodStatus) -> bool:
    """The container died, is dying again and again, or its checks failed for good since the last report."""
    old, new = main_status(pod), status.container_statuses[0]
    if new.state.terminated is not None and (old is None or old.state.terminated is None):
        return True
    if new.engine_restarts > (old.engine_restarts if old else 0):
        return True
    reasons = {found.reason for found in status.conditions if found.type == "Ready"}
    before = {found.reason for found in pod.status.conditions if found.type == "Ready"}
    return "ProbeFailed" in reasons and "ProbeFailed" not in before


def _restarted(old: ContainerStatus, new: ContainerStatus) -> bool:
    """Whether the container ended and was started since it was last reported as running."""
    if old.state.running is None or new.state.running is None:
        return False
    return new.restart_count > old.restart_count or new.state.running.started_at != old.state.running.started_at


def _noted(conditions: tuple[Condition, ...], now: float, settle_s: int) -> tuple[Condition, ...]:
    """Condition Ready with the time of this look, as long as that matters to anybody."""
    ready = next(found for found in conditions if found.type == "Ready")
    if ready.last_probe_time and ready_for_s(ready, now) >= settle_s:
        return conditions
    noted = replace(ready, last_probe_time=rfc3339_micro(now))
    return tuple(noted if found.type == "Ready" else found for found in conditions)


def unready_status(pod: Pod, reason: str, message: str, *, now: float) -> PodStatus:
    """The status of a pod whose container is about to be ended: it serves nobody from now on."""
    conditions = pod.status.conditions
    for type_ in ("ContainersReady", "Ready"):
        not_ready = Condition(type=type_, status="False", reason=reason, message=message[:MESSAGE_LIMIT])
        conditions = with_condition(conditions, not_ready, rfc3339_micro(now))
    statuses = tuple(replace(found, ready=False) for found in pod.status.container_statuses)
    return replace(pod.status, conditions=conditions, container_statuses=statuses)


def waiting_status(pod: Pod, reason: str, message: str, *, now: float, host_ip: str) -> PodStatus:
    """The status of a pod whose container does not stand (yet), and why."""
    old = main_status(pod)
    container = pod.spec.containers[0]
    old = old or ContainerStatus(name=container.name, image=container.image)
    status = replace(
        old,
        ready=False,
        state=ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message[:MESSAGE_LIMIT])),
        last_state=old.state if old.state.terminated is not None else old.last_state,
    )
    not_ready = Condition(type="Ready", status="False", reason=reason, message=message[:MESSAGE_LIMIT])
    conditions = with_condition(pod.status.conditions, not_ready, rfc3339(now))
    return replace(
        pod.status,
        phase="Pending" if pod.status.phase in {"", "Pending"} else pod.status.phase,
        host_ip=host_ip,
        start_time=pod.status.start_time or rfc3339(now),
        container_statuses=(status,),
        conditions=conditions,
    )


def _state(seen: ObservedContainer, last_log: str) -> ContainerState:
    if seen.state in {"running", "paused"}:
        started = rfc3339(seen.started_at) if seen.started_at is not None else None
        return ContainerState(running=ContainerStateRunning(started_at=started))
    if seen.state == "restarting":
        message = f"it ended with status {seen.exit_code}, {_BY_ENGINE}"
        return ContainerState(waiting=ContainerStateWaiting(reason="CrashLoopBackOff", message=message))
    if seen.state == "created":
        return ContainerState(waiting=ContainerStateWaiting(reason="ContainerCreating", message=seen.error))
    return ContainerState(terminated=_terminated(seen, last_log))


def _terminated(seen: ObservedContainer, last_log: str) -> ContainerStateTerminated:
    code = -1 if seen.exit_code is None else seen.exit_code
    reason = "OOMKilled" if seen.oom_killed else ("Completed" if code == 0 else "Error")
    return ContainerStateTerminated(
        exit_code=code,
        reason=reason,
        message=last_log[-MESSAGE_LIMIT:],
        started_at=rfc3339(seen.started_at) if seen.started_at is not None else None,
        finished_at=rfc3339(seen.finished_at) if seen.finished_at is not None else None,
        container_id=seen.id,
    )


def _last_state(seen: ObservedContainer, old: ContainerStatus | None, last_log: str) -> ContainerState:
    """How it ended the last time it did. An end between two looks shows the status before it; -1 if none was seen."""
    if seen.state == "restarting":
        return ContainerState(terminated=_terminated(seen, last_log))
    before = old.last_state if old else ContainerState()
    if old is not None and old.state.terminated is not None and seen.state == "running":
        return ContainerState(terminated=old.state.terminated)
    if seen.restart_count > (old.restart_count if old else 0) and seen.state == "running":
        return ContainerState(
            terminated=_terminated(seen, last_log) if seen.exit_code else _unseen_end(before, last_log)
        )
    return before


def _unseen_end(before: ContainerState, last_log: str) -> ContainerStateTerminated:
    code = before.terminated.exit_code if before.terminated is not None else -1
    return ContainerStateTerminated(exit_code=code, reason="Error", message=last_log[-MESSAGE_LIMIT:])


def _phase(pod: Pod, state: ContainerState, old: str) -> str:
    if state.running is not None:
        return "Running"
    policy = pod.spec.restart_policy or "Always"
    if state.terminated is not None and policy != "Always":
        done = state.terminated.exit_code == 0
        if policy == "Never" or done:
            return "Succeeded" if done else "Failed"
    return old or "Pending"


def _conditions(
    status: PodStatus, ready: bool, state: ContainerState, readiness: Readiness, last_log: str, now: float
) -> tuple[Condition, ...]:
    reason, message = "", ""
    if not ready:
        reason, message = _why_not_ready(state, readiness)
    stamp = rfc3339_micro(now)
    word = "True" if ready else "False"
    conditions = status.conditions
    for type_ in ("ContainersReady", "Ready"):
        before = next((found.last_probe_time for found in conditions if found.type == type_ and ready), None)
        found = Condition(type=type_, status=word, reason=reason, message=message, last_probe_time=before)
        conditions = with_condition(conditions, found, stamp)
    if last_log:
        kept = Condition(type=LAST_LOG, status="True", reason="Kept", message=last_log[-MESSAGE_LIMIT:])
        conditions = with_condition(conditions, kept, stamp)
    return conditions


def _why_not_ready(state: ContainerState, readiness: Readiness) -> tuple[str, str]:
    if state.running is not None:
        reason = "ProbeFailed" if readiness.failed_for_good else "ContainersNotReady"
        which = "readiness" if readiness.started else "startup"
        return reason, readiness.message or f"its {which} check has not passed yet"
    if state.terminated is not None:
        return state.terminated.reason, f"the container ended with status {state.terminated.exit_code}"
    return (state.waiting.reason, state.waiting.message) if state.waiting else ("ContainersNotReady", "")
