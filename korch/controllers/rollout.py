"""How a Deployment gets from one template to the next. Pure: (deployment, its sets, their pods, now) → plan.

Kubernetes' rolling update, with korch's two additions for objects marked `korch.dev/auto-rollback`: a batch whose surge
pod fits nowhere is done stop-first, and a revision that fails goes back as a whole (or stops, when it is the first).
"""

from collections.abc import Mapping, Sequence

import msgspec
import msgspec.structs
from msgspec.structs import replace

from korch.resources.annotations import AUTO_ROLLBACK, COMPLETED, FAILED_REVISION, REVISION, STOP_FIRST, WANTED
from korch.resources.leaving import replicas_of
from korch.resources.meta import Condition
from korch.resources.pod import Pod
from korch.resources.podstate import (
    condition,
    failure_of,
    is_available,
    is_counted,
    unschedulable,
    with_condition,
)
from korch.resources.templates import rolling_bounds, template_hash
from korch.resources.times import parse_time, rfc3339
from korch.resources.workload import Deployment, DeploymentStatus, ReplicaSet


class RolloutPlan(msgspec.Struct, frozen=True):
    """What to do next. `scale`: (set, replicas); `victim`: an old pod that its set is to remove first."""

    create_revision: int = 0  # make the set of the current template, with this revision number; 0 = it stands
    scale: tuple[tuple[str, int], ...] = ()
    remove: tuple[str, ...] = ()
    victim: str = ""
    completed: str = ""  # the set to mark as having run in full
    go_back_to: str = ""  # the set whose template becomes the deployment's again
    give_up: str = ""  # template hash to record as failed
    status: DeploymentStatus = msgspec.field(default_factory=DeploymentStatus)
    events: tuple[tuple[str, str, str], ...] = ()  # (type, reason, message)
    look_again_s: float | None = None


def revision_of(replicaset: ReplicaSet) -> int:
    """The revision number of a set, 0 when it has none."""
    text = replicaset.metadata.annotations.get(REVISION, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def current_set(deployment: Deployment, sets: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """The set of the deployment's template, or None."""
    wanted = template_hash(deployment.spec.template)
    return next((found for found in sets if template_hash(found.spec.template) == wanted), None)


class _Facts(msgspec.Struct, frozen=True):
    """The counts that the plan is made from."""

    deployment: Deployment
    sets: tuple[ReplicaSet, ...]
    pods: Mapping[str, Sequence[Pod]]  # by the set's name
    now: float
    new: ReplicaSet | None
    wanted: int  # replicas of the wish; 0 when the revision was given up
    given_up: bool
    automatic: bool
    watched_since: float

    @property
    def old(self) -> tuple[ReplicaSet, ...]:
        return tuple(found for found in self.sets if self.new is None or found.metadata.uid != self.new.metadata.uid)

    def of(self, replicaset: ReplicaSet | None) -> tuple[Pod, ...]:
        return replicas_of(self.pods.get(replicaset.metadata.name, ())) if replicaset else ()

    def counted(self, replicaset: ReplicaSet | None) -> int:
        return sum(is_counted(pod) for pod in self.of(replicaset))

    def available(self, replicaset: ReplicaSet | None) -> int:
        wait = self.deployment.spec.min_ready_seconds
        return sum(is_available(pod, wait, self.now) for pod in self.of(replicaset))

    def staying(self, replicaset: ReplicaSet) -> int:
        """Available ones that are not about to go: the set was told to shrink, and has not done it yet."""
        return min(self.available(replicaset), replicaset.spec.replicas or 0)


def plan_rollout(
    deployment: Deployment,
    sets: Sequence[ReplicaSet],
    pods: Mapping[str, Sequence[Pod]],
    now: float,
    *,
    watched_since: float = 0.0,
) -> RolloutPlan:
    """The next step; a plan without actions when the wish is true or only waiting helps. Input order is irrelevant.

    Time before `watched_since` does not count against the deadline: nobody was there to make progress.
    """
    ordered = tuple(sorted(sets, key=lambda found: (revision_of(found), found.metadata.name)))
    given_up = deployment.metadata.annotations.get(FAILED_REVISION) == template_hash(deployment.spec.template)
    wish = deployment.spec.replicas if deployment.spec.replicas is not None else 1
    facts = _Facts(
        deployment,
        ordered,
        pods,
        now,
        current_set(deployment, ordered),
        0 if given_up else wish,
        given_up,
        deployment.metadata.annotations.get(AUTO_ROLLBACK) == "true",
        watched_since,
    )
    plan = _finish(facts, _steps(facts))
    return msgspec.structs.replace(plan, status=_status(facts, plan))


def _steps(facts: _Facts) -> RolloutPlan:
    deployment = facts.deployment
    if deployment.metadata.deletion_timestamp:
        return RolloutPlan()
    if deployment.spec.paused:
        return _paused(facts)
    if facts.new is None:
        if facts.given_up:
            return RolloutPlan(scale=_all_to(facts.old, 0, facts))
        return RolloutPlan(create_revision=max((revision_of(found) for found in facts.sets), default=0) + 1)
    problem = _failure(facts)
    if problem:
        return _failed(facts, problem)
    if deployment.spec.strategy.type == "Recreate":
        return _recreate(facts)
    return _roll(facts)


def _paused(facts: _Facts) -> RolloutPlan:
    """Nothing is rolled; the one set that runs (or ran last) follows the number of replicas, as in Kubernetes."""
    active = [found for found in facts.sets if found.spec.replicas] or facts.sets[-1:]
    return RolloutPlan(scale=_scale(facts, {active[0].metadata.name: facts.wanted}) if len(active) == 1 else ())


def _recreate(facts: _Facts) -> RolloutPlan:
    assert facts.new is not None
    if any(facts.of(old) for old in facts.old):
        return RolloutPlan(scale=_all_to(facts.old, 0, facts))
    return RolloutPlan(scale=_scale(facts, {facts.new.metadata.name: facts.wanted}))


def _roll(facts: _Facts) -> RolloutPlan:
    assert facts.new is not None
    surge, gap = rolling_bounds(facts.deployment.spec.strategy, facts.wanted)
    victim = _victim(facts)
    if victim:
        gap = max(gap, 1)
    new_name = facts.new.metadata.name
    targets: dict[str, int] = {}
    new_now = facts.new.spec.replicas or 0
    total = sum(found.spec.replicas or 0 for found in facts.sets)
    if new_now > facts.wanted:
        targets[new_name] = facts.wanted
    elif new_now < facts.wanted:
        targets[new_name] = min(facts.wanted, new_now + max(0, facts.wanted + surge - total))
    floor = facts.wanted - gap
    spare = sum(facts.staying(found) for found in facts.sets) - floor
    for old in sorted(facts.old, key=lambda found: victim not in {pod.metadata.name for pod in facts.of(found)}):
        size = old.spec.replicas or 0
        useless = size - min(size, facts.available(old))  # replicas that serve nobody may go at any time
        drop = min(size, useless + max(0, min(spare, size - useless)))
        if not size or not drop:
            continue
        spare -= drop - useless
        targets[old.metadata.name] = size - drop
    return RolloutPlan(
        scale=_scale(facts, targets),
        victim=victim if any(name != new_name for name in targets) else "",
        look_again_s=_next_look(facts),
    )


def _victim(facts: _Facts) -> str:
    """The old pod that makes room for a pending new one, when the scheduler found one."""
    pending = (pod for pod in facts.of(facts.new) if unschedulable(pod))
    named = sorted(pod.metadata.annotations.get(STOP_FIRST, "") for pod in pending)
    alive = {pod.metadata.name for old in facts.old for pod in facts.of(old) if is_counted(pod)}
    return next((name for name in named if name in alive), "") if facts.automatic else ""


def _failure(facts: _Facts) -> str:
    """Why the current revision is to be given up, or "". Only for marked objects, and only while it rolls out."""
    if not facts.automatic or facts.new is None or not facts.wanted or _complete(facts):
        return ""
    if facts.new.metadata.annotations.get(COMPLETED) == "true" and not any(facts.counted(old) for old in facts.old):
        return ""  # this revision ran in full before: a pod that dies later is healed, not rolled back
    problems = [problem for pod in facts.of(facts.new) if is_counted(pod) and (problem := failure_of(pod))]
    if problems:
        return sorted(problems)[0]
    back = _previous(facts)
    stuck = sorted(text for pod in facts.of(facts.new) if (text := unschedulable(pod)) and not _victim(facts))
    if back is not None and stuck and _overdue(facts):
        return f"a replica of the new revision fits on no node: {stuck[0]}"
    if _overdue(facts) and not stuck:
        return f"not ready after {facts.deployment.spec.progress_deadline_seconds} s: {_laggards(facts)}"
    return ""


def _laggards(facts: _Facts) -> str:
    wait = facts.deployment.spec.min_ready_seconds
    late = [pod for pod in facts.of(facts.new) if not is_available(pod, wait, facts.now) and is_counted(pod)]
    parts = []
    for pod in late:
        ready = condition(pod.status.conditions, "Ready")
        why = (ready.message or ready.reason) if ready else pod.status.phase or "Pending"
        parts.append(f"{pod.metadata.name} on {pod.spec.node_name or 'no node'}: {why or 'not ready'}")
    return "; ".join(sorted(parts)) or "replicas are missing"


def _previous(facts: _Facts) -> ReplicaSet | None:
    """The newest other set that once ran in full; else the newest that serves now, though its mark is missing."""
    done = [found for found in facts.old if found.metadata.annotations.get(COMPLETED) == "true"]
    serving = [found for found in facts.old if facts.staying(found)]
    return max(done or serving, key=revision_of, default=None)


def _failed(facts: _Facts, problem: str) -> RolloutPlan:
    back = _previous(facts)
    if back is not None:
        message = f"{problem}\nRolled back to revision {revision_of(back)}."
        return RolloutPlan(go_back_to=back.metadata.name, events=(("Warning", "RolledBack", message),))
    hashed = template_hash(facts.deployment.spec.template)
    message = f"{problem}\nThere is no earlier revision to go back to: its containers were removed."
    return RolloutPlan(give_up=hashed, events=(("Warning", "RolloutFailed", message),))


def _complete(facts: _Facts) -> bool:
    if facts.new is None:
        return False
    settled = facts.available(facts.new) == facts.counted(facts.new) == facts.wanted
    return settled and not any(facts.counted(old) for old in facts.old)


def _finish(facts: _Facts, plan: RolloutPlan) -> RolloutPlan:
    """Marks a completed revision and drops history beyond the limit."""
    if plan.go_back_to or plan.give_up or facts.new is None:
        return plan
    completed = ""
    if _complete(facts) and facts.wanted:
        marks = facts.new.metadata.annotations
        if marks.get(COMPLETED) != "true" or marks.get(WANTED) != str(facts.wanted):
            completed = facts.new.metadata.name
    limit = facts.deployment.spec.revision_history_limit
    empty = [old for old in facts.old if not old.spec.replicas and not facts.of(old)]
    keep = 10 if limit is None else limit
    remove = tuple(old.metadata.name for old in empty[: max(0, len(empty) - keep)]) if _complete(facts) else ()
    return msgspec.structs.replace(plan, completed=completed, remove=remove)


def _scale(facts: _Facts, targets: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    sizes = {found.metadata.name: found.spec.replicas or 0 for found in facts.sets}
    return tuple((name, size) for name, size in sorted(targets.items()) if sizes[name] != size)


def _all_to(sets: Sequence[ReplicaSet], size: int, facts: _Facts) -> tuple[tuple[str, int], ...]:
    return _scale(facts, {found.metadata.name: size for found in sets})


def _overdue(facts: _Facts) -> bool:
    limit = facts.deployment.spec.progress_deadline_seconds
    progressing = condition(facts.deployment.status.conditions, "Progressing")
    if limit is None or progressing is None or not progressing.last_update_time or facts.deployment.spec.paused:
        return False
    if facts.deployment.status.observed_generation != facts.deployment.metadata.generation:
        return False
    return facts.now - max(parse_time(progressing.last_update_time), facts.watched_since) > limit


def _next_look(facts: _Facts) -> float | None:
    """Time alone makes pods available and rollouts overdue."""
    return None if _complete(facts) else (0.25 if facts.deployment.spec.min_ready_seconds else 1.0)


def _status(facts: _Facts, plan: RolloutPlan) -> DeploymentStatus:
    old = facts.deployment.status
    available = sum(facts.available(found) for found in facts.sets)
    total = sum(facts.counted(found) for found in facts.sets)
    counts = DeploymentStatus(
        observed_generation=facts.deployment.metadata.generation,
        replicas=total,
        updated_replicas=facts.counted(facts.new),
        ready_replicas=sum(_ready_count(facts.of(found)) for found in facts.sets),
        available_replicas=available,
        unavailable_replicas=max(0, facts.wanted - available),
    )
    return replace(counts, conditions=_conditions(facts, plan, counts, old))


def _ready_count(pods: Sequence[Pod]) -> int:
    return sum(is_available(pod, 0, 0.0) for pod in pods)


def _conditions(
    facts: _Facts, plan: RolloutPlan, counts: DeploymentStatus, old: DeploymentStatus
) -> tuple[Condition, ...]:
    now = rfc3339(facts.now)
    _, gap = rolling_bounds(facts.deployment.spec.strategy, facts.wanted)
    enough = counts.available_replicas >= facts.wanted - gap and (counts.available_replicas > 0 or not facts.wanted)
    available = Condition(
        type="Available",
        status="True" if enough else "False",
        reason="MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        message=f"{counts.available_replicas} of {facts.wanted} replicas are available",
    )
    conditions = with_condition(old.conditions, available, now)
    conditions = with_condition(conditions, _progressing(facts, counts, old, now), now)
    generation = facts.deployment.metadata.generation
    for type_, reason, message in plan.events:
        if type_ == "Warning":
            failed = Condition(
                type="RolledBack", status="True", reason=reason, message=message, observed_generation=generation
            )
            return with_condition(conditions, failed, now)
    return tuple(found for found in conditions if found.type != "RolledBack" or _still_true(found, facts))


def _still_true(rolled_back: Condition, facts: _Facts) -> bool:
    """Going back is itself one change of the spec; a later one, or another try of the same, makes it history."""
    later = facts.deployment.metadata.generation - (rolled_back.observed_generation or 0)
    return later == 1 or (later <= 0 and facts.given_up)


def _progressing(facts: _Facts, counts: DeploymentStatus, old: DeploymentStatus, now: str) -> Condition:
    before = condition(old.conditions, "Progressing")
    moved = (
        before is None
        or old.observed_generation != counts.observed_generation
        or (old.updated_replicas, old.available_replicas, old.replicas)
        != (counts.updated_replicas, counts.available_replicas, counts.replicas)
    )
    since = now if moved or before is None else before.last_update_time
    if _complete(facts):
        return Condition(
            type="Progressing",
            status="True",
            reason="NewReplicaSetAvailable",
            message=f"{facts.wanted} of {facts.wanted} replicas have the current revision and are available",
            last_update_time=since,
        )
    if facts.deployment.spec.paused:
        return Condition(
            type="Progressing",
            status="Unknown",
            reason="DeploymentPaused",
            message="paused: nothing is rolled out",
            last_update_time=since,
        )
    if _overdue(facts) and not moved:
        return Condition(
            type="Progressing",
            status="False",
            reason="ProgressDeadlineExceeded",
            message=f"no progress for {facts.deployment.spec.progress_deadline_seconds} s: {_laggards(facts)}",
            last_update_time=since,
        )
    return Condition(
        type="Progressing",
        status="True",
        reason="ReplicaSetUpdated",
        message=f"{counts.updated_replicas} of {facts.wanted} replicas have the current revision",
        last_update_time=since,
    )
