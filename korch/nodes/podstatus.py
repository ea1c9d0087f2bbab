"""What observed containers mean for their pod's status. Pure: (pod, containers, checks, now) → status."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from korch.engines.names import SANDBOX
from korch.engines.observed import ObservedContainer
from korch.nodes.changes import is_outdated
from korch.resources.images import containers_of, has_sandbox, sidecars_of
from korch.resources.meta import Condition
from korch.resources.pod import (
    Container,
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
from korch.resources.podstate import LAST_LOG, is_ready, ready_for_s, with_condition
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


@dataclass(frozen=True, slots=True)
class Sight:
    """One container as it is seen now. `last_log` replaces the kept lines unless empty."""

    seen: ObservedContainer
    readiness: Readiness = Readiness()
    last_log: str = ""


def observed_status(
    pod: Pod,
    sights: Mapping[str, Sight],
    *,
    now: float,
    host_ip: str,
    settle_s: int = 0,
    kept: Collection[str] = (),
) -> PodStatus:
    """The pod's status now that its containers were seen like this, by name; its sandbox may be among them.

    Of those in `kept` what is on record stays. While the pod has been ready for less than `settle_s`, the look itself
    is noted: availability counts between looks.
    """
    statuses = {
        container.name: _status_of(pod, container, None if container.name in kept else sights.get(container.name))
        for container in containers_of(pod.spec)
    }
    first = tuple(statuses[container.name] for container in pod.spec.init_containers)
    mains = tuple(statuses[container.name] for container in pod.spec.containers)
    goes_on = {container.name for container in sidecars_of(pod.spec)}
    ready = all(status.ready for status in (*first, *mains) if status in mains or status.name in goes_on)
    address = next((sight.seen.ip for sight in sights.values() if sight.seen.ip), "")
    new = replace(
        pod.status,
        phase=_phase(pod, [status for status in first if status.name not in goes_on], mains),
        reason="",
        message="",
        host_ip=host_ip,
        pod_ip=address,
        pod_ips=(PodIP(ip=address),) if address else (),
        start_time=pod.status.start_time or rfc3339(now),
        container_statuses=mains,
        init_container_statuses=first,
    )
    if ready and any(_restarted(_old_status(pod, status.name), status) for status in mains):
        # What it was ready for before counts no more.
        new = replace(new, conditions=tuple(found for found in new.conditions if found.type != "Ready"))
    reason, message = ("", "") if ready else _why_not_ready(pod, first, mains, sights)
    last_log = next((sight.last_log for sight in sights.values() if sight.last_log), "")
    conditions = _conditions(new, ready, reason, message, last_log, now)
    return replace(new, conditions=_noted(conditions, now, settle_s) if ready else conditions)


def _old_status(pod: Pod, name: str) -> ContainerStatus | None:
    every = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    return next((status for status in every if status.name == name), None)


def _status_of(pod: Pod, container: Container, sight: Sight | None) -> ContainerStatus:
    old = _old_status(pod, container.name)
    if sight is None:
        return old or _not_begun(pod, container)
    seen, state = sight.seen, _state(sight.seen, sight.last_log)
    running = state.running is not None
    first = container in pod.spec.init_containers and container.restart_policy != "Always"
    outdated = is_outdated(pod, seen)
    done = first and state.terminated is not None and state.terminated.exit_code == 0
    return ContainerStatus(
        name=container.name,
        ready=done if first else running and sight.readiness.passing,
        started=running and sight.readiness.started and not first,
        restart_count=_restarts(seen, old, outdated=outdated),
        engine_restarts=seen.restart_count,
        image=old.image if old is not None and outdated else container.image,
        image_id=seen.image_id,
        container_id=seen.id,
        state=state,
        last_state=_last_state(seen, old, sight.last_log),
        published=tuple(
            ContainerPort(
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
                protocol=port.protocol.upper(),
            )
            for port in seen.ports
            if not has_sandbox(pod.spec) or port.container_port in {own.container_port for own in container.ports}
        ),
    )


def _not_begun(pod: Pod, container: Container) -> ContainerStatus:
    """Of a container whose turn has not come: while init containers run, that is what is said of it."""
    reason = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
    state = ContainerState(waiting=ContainerStateWaiting(reason=reason))
    return ContainerStatus(name=container.name, image=container.image, state=state)


def was_ready(pod: Pod, name: str, seen: ObservedContainer) -> bool:
    """Whether this very run of a container was on record as ready, and no more than others kept the pod back."""
    status = _old_status(pod, name)
    if status is None or not _same_run(status, seen):
        return False
    return is_ready(pod) or (status.ready and not all(found.ready for found in pod.status.container_statuses))


def was_started(pod: Pod, name: str, seen: ObservedContainer) -> bool:
    """Whether it is on record that this very run of a container has passed its startup probe."""
    status = _old_status(pod, name)
    return status is not None and _same_run(status, seen) and status.started is True


def _same_run(status: ContainerStatus | None, seen: ObservedContainer) -> bool:
    if status is None or status.container_id != seen.id or status.restart_count < seen.restart_count:
        return False
    began = status.state.running.started_at if status.state.running is not None else None
    return began is None or seen.started_at is None or began == rfc3339(seen.started_at)


def _restarts(seen: ObservedContainer, old: ContainerStatus | None, *, outdated: bool) -> int:
    """How often it was started again, by whomever: the engine counts only its own, and forgets them at our restarts.

    One that is `outdated` is not started by us: where it was to be ended and runs, that failed.
    """
    if old is None or not old.container_id:
        return seen.restart_count
    by_engine = seen.restart_count - old.engine_restarts
    if by_engine < 0 or (by_engine == 0 and not outdated and _started_anew(seen, old)):
        return old.restart_count + 1 + (seen.restart_count if by_engine < 0 else 0)
    return old.restart_count + by_engine


def _started_anew(seen: ObservedContainer, old: ContainerStatus) -> bool:
    """Whether it runs (or did, since it was told to), and is another run than the one on record."""
    if seen.state != "running":
        told = old.state.waiting is not None and old.state.waiting.reason == RESTARTING
        return told and seen.state in {"exited", "dead"}
    if old.container_id != seen.id:
        return True
    if (waiting := old.state.waiting) is not None:  # the engine's own restarts are in its count
        return waiting.reason != "ContainerCreating" and not waiting.message.endswith(_BY_ENGINE)
    return old.state.running is None or not _same_run(old, seen)


def got_worse(pod: Pod, status: PodStatus) -> tuple[str, ...]:
    """The containers that died, are dying again and again, or failed their checks for good since the last report."""
    worse = []
    for new in (*status.init_container_statuses, *status.container_statuses):
        old = _old_status(pod, new.name)
        ended = new.state.terminated is not None and (old is None or old.state.terminated is None)
        if (ended and not new.ready) or new.engine_restarts > (old.engine_restarts if old else 0):
            worse.append(new.name)
    reasons = {found.reason for found in status.conditions if found.type == "Ready"}
    before = {found.reason for found in pod.status.conditions if found.type == "Ready"}
    if not worse and "ProbeFailed" in reasons and "ProbeFailed" not in before:
        worse = [found.name for found in status.container_statuses if found.state.running and not found.ready]
    return tuple(worse)


def _restarted(old: ContainerStatus | None, new: ContainerStatus) -> bool:
    """Whether the container ended and was started since it was last reported as running."""
    if old is None or old.state.running is None or new.state.running is None:
        return False
    return new.restart_count > old.restart_count or new.state.running.started_at != old.state.running.started_at


def _noted(conditions: tuple[Condition, ...], now: float, settle_s: int) -> tuple[Condition, ...]:
    """Condition Ready with the time of this look, as long as that matters to anybody."""
    ready = next(found for found in conditions if found.type == "Ready")
    if ready.last_probe_time and ready_for_s(ready, now) >= settle_s:
        return conditions
    noted = replace(ready, last_probe_time=rfc3339_micro(now))
    return tuple(noted if found.type == "Ready" else found for found in conditions)


def unready_status(pod: Pod, reason: str, message: str, *, now: float, container: str = "") -> PodStatus:
    """The status of a pod whose container (or all of them) is about to be ended: it serves nobody from now on."""
    conditions = pod.status.conditions
    for type_ in ("ContainersReady", "Ready"):
        not_ready = Condition(type=type_, status="False", reason=reason, message=message[:MESSAGE_LIMIT])
        conditions = with_condition(conditions, not_ready, rfc3339_micro(now))
    statuses = tuple(
        replace(found, ready=False) if container in {"", found.name} else found
        for found in pod.status.container_statuses
    )
    return replace(pod.status, conditions=conditions, container_statuses=statuses)


def waiting_status(pod: Pod, reason: str, message: str, *, now: float, host_ip: str, container: str = "") -> PodStatus:
    """The status of a pod one of whose containers (by default the first) does not stand (yet), and why."""
    name = container or pod.spec.containers[0].name
    state = ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message[:MESSAGE_LIMIT]))
    statuses = {}
    for one in containers_of(pod.spec):
        old = _old_status(pod, one.name) or _not_begun(pod, one)
        last = old.state if old.state.terminated is not None else old.last_state
        waits = one.name == name or (name == SANDBOX and not old.container_id)
        statuses[one.name] = replace(old, ready=False, state=state, last_state=last) if waits else old
    not_ready = Condition(type="Ready", status="False", reason=reason, message=message[:MESSAGE_LIMIT])
    conditions = with_condition(pod.status.conditions, not_ready, rfc3339(now))
    return replace(
        pod.status,
        phase="Pending" if pod.status.phase in {"", "Pending"} else pod.status.phase,
        host_ip=host_ip,
        start_time=pod.status.start_time or rfc3339(now),
        container_statuses=tuple(statuses[one.name] for one in pod.spec.containers),
        init_container_statuses=tuple(statuses[one.name] for one in pod.spec.init_containers),
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


def _phase(pod: Pod, first: Sequence[ContainerStatus], mains: Sequence[ContainerStatus]) -> str:
    """As the kubelet counts it (`getPhase`)."""
    old, policy = pod.status.phase or "Pending", pod.spec.restart_policy or "Always"
    if any(status.state.running is not None for status in mains):
        return "Running"
    ends = [status.state.terminated for status in first]
    if any(end is None or end.exit_code for end in ends) and not any(status.state.terminated for status in mains):
        return "Failed" if policy == "Never" and any(end is not None and end.exit_code for end in ends) else old
    codes = [status.state.terminated.exit_code for status in mains if status.state.terminated is not None]
    if policy == "Always" or len(codes) < len(mains):
        return old
    if not any(codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else old


def _conditions(
    status: PodStatus, ready: bool, reason: str, message: str, last_log: str, now: float
) -> tuple[Condition, ...]:
    stamp = rfc3339_micro(now)
    word = "True" if ready else "False"
    conditions = status.conditions
    if status.init_container_statuses:
        conditions = with_condition(conditions, _initialized(status), stamp)
    for type_ in ("ContainersReady", "Ready"):
        before = next((found.last_probe_time for found in conditions if found.type == type_ and ready), None)
        found = Condition(type=type_, status=word, reason=reason, message=message, last_probe_time=before)
        conditions = with_condition(conditions, found, stamp)
    if last_log:
        kept = Condition(type=LAST_LOG, status="True", reason="Kept", message=last_log[-MESSAGE_LIMIT:])
        conditions = with_condition(conditions, kept, stamp)
    return conditions


def _initialized(status: PodStatus) -> Condition:
    missing = [found.name for found in status.init_container_statuses if not found.ready and not found.started]
    if not missing or any(found.state.running is not None for found in status.container_statuses):
        return Condition(type="Initialized", status="True")
    message = f"containers with incomplete status: [{' '.join(missing)}]"
    return Condition(type="Initialized", status="False", reason="ContainersNotInitialized", message=message)


def _why_not_ready(
    pod: Pod, first: Sequence[ContainerStatus], mains: Sequence[ContainerStatus], sights: Mapping[str, Sight]
) -> tuple[str, str]:
    """Of several the first one that is not ready; one that waits for its turn has the least to say."""
    found = [(status.name, *_why(status, sights.get(status.name))) for status in (*first, *mains) if not status.ready]
    telling = [why for why in found if why[1] not in {"PodInitializing", "ContainerCreating"}]
    name, reason, message = (telling or found)[0]
    return reason, message if not has_sandbox(pod.spec) else f"container {name}: {message or reason}"


def _why(status: ContainerStatus, sight: Sight | None) -> tuple[str, str]:
    state = status.state
    readiness = sight.readiness if sight is not None else Readiness()
    if state.running is not None:
        reason = "ProbeFailed" if readiness.failed_for_good else "ContainersNotReady"
        which = "readiness" if readiness.started else "startup"
        return reason, readiness.message or f"its {which} check has not passed yet"
    if state.terminated is not None:
        return state.terminated.reason, f"the container ended with status {state.terminated.exit_code}"
    return (state.waiting.reason, state.waiting.message) if state.waiting else ("ContainersNotReady", "")
