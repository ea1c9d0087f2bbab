"""What wishes would change, step by step and per node, before they do: the same planners, run on values only. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from korch.client.base import PlannedStep
from korch.client.declare import tried_again
from korch.controllers.daemonset import HASH_LABEL, daemon_for, node_of, plan_daemons
from korch.controllers.deployment import first_to_go, set_from
from korch.controllers.replicaset import plan_replicas, pod_from
from korch.controllers.rollout import current_set, plan_rollout
from korch.controllers.scheduling import room_maker
from korch.resources.annotations import STOP_FIRST
from korch.resources.blame import distrust
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import controller_of, is_counted, with_condition, workload_name
from korch.resources.templates import template_hash
from korch.resources.times import rfc3339
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import Snapshot, snapshot

MOST_ROUNDS = 2_000
T = TypeVar("T", bound=Object)


@dataclass(slots=True)
class _Model:
    """The cluster as it would be; times stand still but for settling. Pods and sets by uid: names are not unique."""

    pods: dict[str, Pod]
    sets: dict[str, ReplicaSet]
    nodes: Sequence[Node]
    loads: Mapping[str, NodeLoad]
    allowed: frozenset[str] | None
    now: float
    steps: list[PlannedStep] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)  # uids of pods to place, and why they could not be so far
    serial: int = 0

    def named(self, obj: T) -> T:
        """A new object with a uid of its own."""
        self.serial += 1
        return with_meta(obj, uid=f"planned-{self.serial}")

    def snapshot(self, pods: Sequence[Pod]) -> Snapshot:
        """The cluster with these pods, as the scheduling controller sees it."""
        failures = distrust(self.nodes, self.sets.values(), self.now)
        return snapshot(self.nodes, self.loads, pods, now=self.now, failures=failures)

    def of(self, owner: Object) -> list[Pod]:
        """The pods of a set."""
        return [pod for pod in self.pods.values() if _owner(pod) == owner.metadata.uid]


def preview(
    wishes: Sequence[Object],
    sets: Sequence[ReplicaSet],
    pods: Sequence[Pod],
    nodes: Sequence[Node],
    loads: Mapping[str, NodeLoad],
    *,
    now: float,
    allowed: frozenset[str] | None = None,
) -> tuple[PlannedStep, ...]:
    """The steps in order if every new replica becomes ready: `wishes` one after the other, on what stands now."""
    model = _Model({p.metadata.uid: p for p in pods}, {s.metadata.uid: s for s in sets}, nodes, loads, allowed, now)
    for wish in wishes:
        if isinstance(wish, Deployment):
            _roll_out(model, wish)
        elif isinstance(wish, ReplicaSet):
            _fill(model, _kept_or_new(model, wish, model.sets), "more than wanted")
            _place_waiting(model)
        elif isinstance(wish, DaemonSet):
            _roll_daemons(model, wish if wish.metadata.uid else model.named(wish))
        elif isinstance(wish, Pod) and wish.metadata.uid not in model.pods:
            _await_place(model, model.named(wish))
            _place_waiting(model)
        _tell_waiting(model)
    return tuple(model.steps)


def _owner(obj: Object) -> str:
    found = controller_of(obj)
    return found.uid if found is not None else ""


def _kept_or_new(model: _Model, wish: T, known: Mapping[str, object]) -> T:
    return wish if wish.metadata.uid in known else model.named(wish)


def _roll_out(model: _Model, wish: Deployment) -> None:
    """Rounds of the rollout and of its sets until nothing changes any more."""
    wish = tried_again(wish)
    sets = {uid: found for uid, found in model.sets.items() if _owner(found) == wish.metadata.uid}
    for pod in [pod for found in sets.values() for pod in model.of(found)]:
        if not pod.spec.node_name and is_counted(pod):
            _await_place(model, pod)
    for _ in range(MOST_ROUNDS):
        by_name = {found.metadata.name: model.of(found) for found in sets.values()}
        plan = plan_rollout(wish, tuple(sets.values()), by_name, model.now)
        if plan.go_back_to or plan.give_up:
            return
        wish = replace(wish, status=plan.status)
        if plan.create_revision:
            made = model.named(set_from(wish, plan.create_revision))
            sets[made.metadata.uid] = made
        wanted = dict(plan.scale)
        for uid, found in sets.items():
            if found.metadata.name in wanted:
                sets[uid] = replace(found, spec=replace(found.spec, replicas=wanted[found.metadata.name]))
        if plan.victim:
            _mark_first_to_go(model, plan.victim, by_name)
        current = current_set(wish, tuple(sets.values()))
        changed = bool(plan.create_revision or plan.scale)
        for found in sorted(sets.values(), key=lambda one: one.metadata.name):
            changed = _fill(model, found, "more than wanted" if found == current else "an older revision") or changed
        changed = _place_waiting(model) or changed
        if not changed:
            return
        model.now += 1 + wish.spec.min_ready_seconds


def _roll_daemons(model: _Model, wish: DaemonSet) -> None:
    """Rounds of a daemon set until nothing changes any more."""
    hashed = template_hash(wish.spec.template)
    for _ in range(MOST_ROUNDS):
        plan = plan_daemons(wish, model.nodes, model.of(wish), model.now)
        for pod in plan.delete:
            why = "an older revision" if pod.metadata.labels.get(HASH_LABEL) != hashed else "not wanted there"
            model.steps.append(PlannedStep("stop", workload_name(pod), node_of(pod), pod.metadata.name, why))
            del model.pods[pod.metadata.uid]
        for node in plan.create:
            _await_place(model, model.named(daemon_for(wish, node)))
        if not _place_waiting(model) and not plan.delete:
            return
        model.now += 1 + wish.spec.min_ready_seconds


def _mark_first_to_go(model: _Model, name: str, by_name: Mapping[str, Sequence[Pod]]) -> None:
    for members in by_name.values():
        for pod in members:
            if pod.metadata.name == name:
                model.pods[pod.metadata.uid] = first_to_go(pod)


def _fill(model: _Model, replicaset: ReplicaSet, surplus: str) -> bool:
    """Stop and make pods of one set; whether there were any. The new ones are still to be placed."""
    plan = plan_replicas(replicaset, model.of(replicaset), model.now)
    for pod in plan.delete:
        why = surplus if is_counted(pod) else pod.status.reason or "it has ended"
        model.steps.append(PlannedStep("stop", workload_name(pod), pod.spec.node_name, pod.metadata.name, why))
        del model.pods[pod.metadata.uid]
    for name in plan.create:
        _await_place(model, model.named(pod_from(replicaset, name)))
    return bool(plan.delete or plan.create)


def _await_place(model: _Model, pod: Pod) -> None:
    model.pods[pod.metadata.uid] = pod
    model.waiting[pod.metadata.uid] = ""


def _place_waiting(model: _Model) -> bool:
    """Schedule the pods that have no node, and take them for ready; whether that changed anything."""
    changed = False
    for uid, before in list(model.waiting.items()):
        pod = model.pods.get(uid)
        if pod is None:  # the rollout went another way
            del model.waiting[uid]
            continue
        (decision,) = schedule(model.snapshot(tuple(model.pods.values())), [pod], allowed_nodes=model.allowed)
        if decision.node is None:
            model.waiting[uid] = decision.message
            model.pods[uid] = _unplaced(model, pod, decision.message)
            changed = changed or not before
        else:
            del model.waiting[uid]
            model.pods[uid] = _placed(model, pod, decision.node)
            what = PlannedStep("start", workload_name(pod), decision.node, pod.metadata.name, decision.message)
            model.steps.append(what)
            changed = True
    return changed


def _placed(model: _Model, pod: Pod, node: str) -> Pod:
    ready = with_condition((), Condition(type="Ready", status="True"), rfc3339(model.now))
    status = replace(pod.status, phase="Running", conditions=ready)
    return replace(pod, spec=replace(pod.spec, node_name=node), status=status)


def _unplaced(model: _Model, pod: Pod, message: str) -> Pod:
    """As the scheduling controller leaves it: with the reason, and with who could make room."""
    no = Condition(type="PodScheduled", status="False", reason="Unschedulable", message=message)
    conditions = with_condition(pod.status.conditions, no, rfc3339(model.now))

    def fits(pods: Sequence[Pod]) -> bool:
        return schedule(model.snapshot(pods), [pod], allowed_nodes=model.allowed)[0].node is not None

    victim = room_maker(pod, tuple(model.pods.values()), fits)
    kept = {key: text for key, text in pod.metadata.annotations.items() if key != STOP_FIRST}
    noted = with_meta(pod, annotations=kept | ({STOP_FIRST: victim} if victim else {}))
    return replace(noted, status=replace(pod.status, phase="Pending", conditions=conditions))


def _tell_waiting(model: _Model) -> None:
    """What fits nowhere in the end."""
    for uid, why in model.waiting.items():
        pod = model.pods.get(uid)
        if pod is not None:
            model.steps.append(PlannedStep("wait", workload_name(pod), "", pod.metadata.name, why))
    model.waiting.clear()
