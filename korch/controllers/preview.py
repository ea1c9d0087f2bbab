"""What a wish would change, step by step and per node, before it does: the same planners, run on values only. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from korch.client.base import PlannedStep
from korch.controllers.deployment import set_from
from korch.controllers.replicaset import plan_replicas, pod_from
from korch.controllers.rollout import current_set, plan_rollout
from korch.resources.codec import with_meta
from korch.resources.meta import Condition
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import is_counted, with_condition, workload_name
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment, ReplicaSet
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import snapshot

MOST_ROUNDS = 2_000


@dataclass(slots=True)
class _Model:
    """The cluster as it would be; times stand still but for settling."""

    deployment: Deployment
    sets: dict[str, ReplicaSet]
    pods: dict[str, Pod]
    others: tuple[Pod, ...]
    nodes: Sequence[Node]
    loads: Mapping[str, NodeLoad]
    allowed: frozenset[str] | None
    now: float
    steps: list[PlannedStep]
    serial: int = 0


def preview(
    deployment: Deployment,
    sets: Sequence[ReplicaSet],
    pods: Sequence[Pod],
    nodes: Sequence[Node],
    loads: Mapping[str, NodeLoad],
    *,
    now: float,
    allowed: frozenset[str] | None = None,
) -> tuple[PlannedStep, ...]:
    """The steps in order if every new replica becomes ready. `deployment`: the wish; `sets`, `pods`: what stands."""
    own = {found.metadata.name for found in sets}
    mine = {pod.metadata.name: pod for pod in pods if _owner(pod) in own}
    others = tuple(pod for pod in pods if pod.metadata.name not in mine)
    model = _Model(deployment, {s.metadata.name: s for s in sets}, mine, others, nodes, loads, allowed, now, [])
    for _ in range(MOST_ROUNDS):
        if not _round(model):
            break
        model.now += 1 + deployment.spec.min_ready_seconds
    return tuple(model.steps)


def _owner(pod: Pod) -> str:
    return next((ref.name for ref in pod.metadata.owner_references if ref.controller), "")


def _round(model: _Model) -> bool:
    """One step of the rollout and of its sets; whether anything changed."""
    by_set = {name: [pod for pod in model.pods.values() if _owner(pod) == name] for name in model.sets}
    plan = plan_rollout(model.deployment, tuple(model.sets.values()), by_set, model.now)
    if plan.go_back_to or plan.give_up:
        return False
    model.deployment = replace(model.deployment, status=plan.status)
    if plan.create_revision:
        model.serial += 1
        made = with_meta(set_from(model.deployment, plan.create_revision), uid=f"planned-{model.serial}")
        model.sets[made.metadata.name] = made
    for name, size in plan.scale:
        model.sets[name] = replace(model.sets[name], spec=replace(model.sets[name].spec, replicas=size))
    changed = bool(plan.create_revision or plan.scale)
    for name in sorted(model.sets):
        changed = _fill(model, model.sets[name]) or changed
    return changed


def _fill(model: _Model, replicaset: ReplicaSet) -> bool:
    members = [pod for pod in model.pods.values() if _owner(pod) == replicaset.metadata.name]
    plan = plan_replicas(replicaset, members, model.now)
    for pod in plan.delete:
        model.steps.append(_stop(model, replicaset, pod))
        del model.pods[pod.metadata.name]
    for name in plan.create:
        model.serial += 1
        _place(model, with_meta(pod_from(replicaset, name), uid=f"planned-{model.serial}"))
    return bool(plan.delete or plan.create)


def _stop(model: _Model, replicaset: ReplicaSet, pod: Pod) -> PlannedStep:
    current = current_set(model.deployment, tuple(model.sets.values()))
    fresh = current is not None and current.metadata.name == replicaset.metadata.name
    why = "more than wanted" if fresh else "an older revision"
    if not is_counted(pod):
        why = pod.status.reason or "it has ended"
    return PlannedStep("stop", workload_name(pod), pod.spec.node_name, pod.metadata.name, why)


def _place(model: _Model, pod: Pod) -> None:
    """Schedule a new pod and take it for ready."""
    view = snapshot(model.nodes, model.loads, (*model.others, *model.pods.values()), now=model.now)
    (decision,) = schedule(view, [pod], allowed_nodes=model.allowed)
    if decision.node is None:
        model.steps.append(PlannedStep("wait", workload_name(pod), "", pod.metadata.name, decision.message))
        model.pods[pod.metadata.name] = pod
        return
    ready = Condition(type="Ready", status="True")
    status = replace(pod.status, phase="Running", conditions=with_condition((), ready, rfc3339(model.now)))
    model.pods[pod.metadata.name] = replace(pod, spec=replace(pod.spec, node_name=decision.node), status=status)
    model.steps.append(PlannedStep("start", workload_name(pod), decision.node, pod.metadata.name, decision.message))
