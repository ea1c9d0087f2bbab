"""How the pods of a job are counted, and how long it waits after failures. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from korch.resources.batch import Job, UncountedTerminatedPods
from korch.resources.pod import Pod
from korch.resources.podstate import condition, statuses_of
from korch.resources.times import parse_time

TRACKED = "batch.kubernetes.io/job-tracking"
_INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 360.0


class Counted(msgspec.Struct, frozen=True):
    """Totals, and the uids of pods that have ended and are in no total yet."""

    succeeded: int
    failed: int
    newly_succeeded: tuple[str, ...] = ()
    newly_failed: tuple[str, ...] = ()
    indexes: frozenset[int] = msgspec.field(default_factory=frozenset)

    @property
    def noted(self) -> frozenset[str]:
        """Pods that can be let go of: they are on record."""
        return frozenset((*self.newly_succeeded, *self.newly_failed))


def is_tracked(pod: Pod) -> bool:
    """Whether it waits to be counted."""
    return TRACKED in pod.metadata.finalizers


def is_active(pod: Pod) -> bool:
    """Whether it works, or is about to."""
    return pod.metadata.deletion_timestamp is None and pod.status.phase not in {"Succeeded", "Failed"}


def count(job: Job, pods: Sequence[Pod]) -> Counted:
    """What the job's pods come to: uids on record whose pod was let go of are counted, new ends are put on record."""
    held = {pod.metadata.uid: pod for pod in pods if is_tracked(pod)}
    before = job.status.uncounted_terminated_pods or UncountedTerminatedPods()
    indexes = set(indexes_of(job.status.completed_indexes))
    won = [uid for uid in before.succeeded if uid in held]
    lost = [uid for uid in before.failed if uid in held]
    for uid in sorted(held):
        pod = held[uid]
        if uid in won or uid in lost or not _has_ended(pod):
            continue
        if pod.status.phase == "Succeeded":
            won.append(uid)
            index = index_of(pod)
            if index is not None:
                indexes.add(index)
        else:
            lost.append(uid)
    succeeded = job.status.succeeded + len(before.succeeded) - sum(uid in held for uid in before.succeeded)
    failed = job.status.failed + len(before.failed) - sum(uid in held for uid in before.failed)
    indexed = job.spec.completion_mode == "Indexed"
    return Counted(
        succeeded=len(indexes) if indexed else succeeded,
        failed=failed,
        newly_succeeded=tuple(won),
        newly_failed=tuple(lost),
        indexes=frozenset(indexes) if indexed else frozenset(),
    )


def _has_ended(pod: Pod) -> bool:
    """Whether it has ended by itself, was ended by somebody, or never began and never will."""
    if pod.status.phase in {"Succeeded", "Failed"}:
        return True
    meta = pod.metadata
    return meta.deletion_timestamp is not None and (not pod.spec.node_name or meta.deletion_grace_period_seconds == 0)


def index_of(pod: Pod) -> int | None:
    """Its number in an indexed job."""
    text = pod.metadata.annotations.get(_INDEX, "")
    return int(text) if text.isascii() and text.isdigit() else None


def indexes_text(indexes: Iterable[int]) -> str:
    """`0-3,7`."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def indexes_of(text: str) -> frozenset[int]:
    """The numbers that `indexes_text` wrote."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


def restarts(pod: Pod) -> int:
    """How often its containers were started again."""
    return sum(status.restart_count for status in statuses_of(pod))


def delay_s(pods: Iterable[Pod], now: float) -> float:
    """Seconds to wait before the next pod: 10 after a failure, doubled with each one since the last success."""
    ends = [(_ended_at(pod), pod.status.phase == "Succeeded") for pod in pods if _has_ended(pod)]
    success = max((at for at, won in ends if won), default=0.0)
    failures = [at for at, won in ends if not won and at > success]
    if not failures:
        return 0.0
    wait_s: float = min(FIRST_DELAY_S * 2 ** min(len(failures) - 1, 10), LONGEST_DELAY_S)
    return max(0.0, min(max(failures) - now, 0.0) + wait_s)


def _ended_at(pod: Pod) -> float:
    ends = [status.state.terminated for status in pod.status.container_statuses]
    ready = condition(pod.status.conditions, "Ready")
    texts = [end.finished_at for end in ends if end is not None and end.finished_at]
    texts = texts or ([ready.last_transition_time] if ready is not None and ready.last_transition_time else [])
    return max(map(parse_time, texts), default=0.0)
