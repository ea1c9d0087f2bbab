"""A wall clock whose steps (NTP on a virtual machine that was resumed) count against nobody's deadline.

Deadlines are measured from times on record. So a step is held back until those from which somebody waits now are moved
by as much: the progress of rollouts, the readiness of pods that have to stay ready for a while, the start of jobs whose
time is limited, taints.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from korch.errors import FencedError, KorchError, NotFoundError
from korch.objects.values import Clock
from korch.objects.view import View
from korch.resources.batch import Job
from korch.resources.meta import Condition, Object
from korch.resources.node import Node, Taint
from korch.resources.pod import Pod
from korch.resources.podstate import condition, is_ready
from korch.resources.times import parse_time, rfc3339
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

log = logging.getLogger(__name__)

STEP_S = 2.0  # less may be slewing, or a late look
LOOK_EVERY_S = 0.5


class SteadyClock:
    """The given clock; it goes on as if nothing had happened after a step, until `accept`."""

    def __init__(self, wall: Clock, steady: Callable[[], float] | None = None) -> None:
        self._wall, self._steady = wall, steady or asyncio.get_running_loop().time
        self._ahead = wall.now() - self._steady()  # of the wall, without the step that is held back

    def now(self) -> float:
        """Unix seconds."""
        wall, steady = self._wall.now(), self._steady()
        if abs(wall - steady - self._ahead) > STEP_S:
            return steady + self._ahead
        self._ahead = wall - steady
        return wall

    @property
    def step_s(self) -> float:
        """The step that is held back; 0.0: none."""
        step = self._wall.now() - self.now()
        return step if abs(step) > STEP_S else 0.0

    def accept(self, step_s: float) -> None:
        """From now on the time is the stepped one."""
        self._ahead += step_s


async def follow_steps(clock: SteadyClock, view: View) -> None:
    """Take steps of the clock without harm, until cancelled. What cannot be written now is tried again."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        step_s = clock.step_s
        if not step_s:
            continue
        log.warning("the clock of this machine was set by %+.0f s: whoever waits has its time nevertheless", step_s)
        try:
            await move_times(view, step_s, clock.now())
        except FencedError:
            raise
        except KorchError as error:
            log.warning("what waits could not be noted: %s", error)
            continue
        clock.accept(step_s)


async def move_times(view: View, step_s: float, now: float) -> None:
    """Move the times from which somebody waits. `now` is without the step.

    A loop that is killed in the middle has moved some: the next process has seen no step, and takes times as they are.
    """
    for deployment in tuple(view.all(Deployment)):
        await _change(view, deployment, lambda found: _rolling(found, step_s), status=True)
    sets: Sequence[Deployment | ReplicaSet | DaemonSet] = (
        *view.all(Deployment),
        *view.all(ReplicaSet),
        *view.all(DaemonSet),
    )
    waits_s = max((found.spec.min_ready_seconds for found in sets), default=0)
    since = min(now, now + step_s) - waits_s
    for pod in tuple(view.all(Pod)) if waits_s else ():
        await _change(view, pod, lambda found: _settling(found, step_s, since), status=True)
    for job in tuple(view.all(Job)):
        await _change(view, job, lambda found: _limited(found, step_s), status=True)
    for node in tuple(view.all(Node)):
        await _change(view, node, lambda found: _tainted(found, step_s))


async def _change(view: View, obj: Object, change: Callable[[Any], Any], *, status: bool = False) -> None:
    if change(obj) is None:
        return
    try:
        await view.modify(type(obj), obj.metadata.name, obj.metadata.namespace, change, status=status)
    except NotFoundError:
        return


def _later(time: str | None, step_s: float) -> str | None:
    return rfc3339(parse_time(time) + step_s) if time else time


def _rolling(deployment: Deployment, step_s: float) -> Deployment | None:
    """With its progress moved; None when it has nothing to wait for."""
    found = condition(deployment.status.conditions, "Progressing")
    if found is None or found.reason == "NewReplicaSetAvailable" or not found.last_update_time:
        return None
    moved = replace(found, last_update_time=_later(found.last_update_time, step_s))
    return replace(deployment, status=replace(deployment.status, conditions=_with(deployment.status.conditions, moved)))


def _settling(pod: Pod, step_s: float, since: float) -> Pod | None:
    """With the beginning of its readiness moved; None when that was long ago."""
    found = condition(pod.status.conditions, "Ready")
    if found is None or not is_ready(pod) or parse_time(found.last_transition_time or rfc3339(0.0)) < since:
        return None
    moved = replace(
        found,
        last_transition_time=_later(found.last_transition_time, step_s),
        last_probe_time=_later(found.last_probe_time, step_s),
    )
    return replace(pod, status=replace(pod.status, conditions=_with(pod.status.conditions, moved)))


def _limited(job: Job, step_s: float) -> Job | None:
    """With its start moved; None when its time is not limited, or over."""
    if job.spec.active_deadline_seconds is None or job.status.completion_time or not job.status.start_time:
        return None
    return replace(job, status=replace(job.status, start_time=_later(job.status.start_time, step_s)))


def _tainted(node: Node, step_s: float) -> Node | None:
    """With the beginnings of its NoExecute taints moved; None when it has none."""

    def moved(taint: Taint) -> Taint:
        return replace(taint, time_added=_later(taint.time_added, step_s)) if taint.effect == "NoExecute" else taint

    taints = tuple(map(moved, node.spec.taints))
    return None if taints == node.spec.taints else replace(node, spec=replace(node.spec, taints=taints))


def _with(conditions: Sequence[Condition], moved: Condition) -> tuple[Condition, ...]:
    return tuple(moved if found.type == moved.type else found for found in conditions)
