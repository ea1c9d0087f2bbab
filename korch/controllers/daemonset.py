"""DaemonSet: one pod of a template on each node that suits it. The plan is pure; the loop only carries it out.

As in Kubernetes each pod is made for its node, by a node affinity on `metadata.name`, and the scheduler binds it: so it
waits where the node is full or away, and `korch why` tells.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from korch.errors import AlreadyExistsError, ConflictError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.meta import ObjectMeta
from korch.resources.node import Node, Taint
from korch.resources.pod import (
    Affinity,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    PodSpec,
    PodStatus,
    Toleration,
)
from korch.resources.podstate import condition, is_available, is_counted, is_ready, owner_reference
from korch.resources.templates import resolve_int_or_percent, safe_digits, template_hash
from korch.resources.workload import DaemonSet, DaemonSetStatus
from korch.scheduler.filters import node_term_matches
from korch.scheduler.snapshot import NodeView, node_view
from korch.scheduler.taints import DISK_PRESSURE, MEMORY_PRESSURE, NOT_READY, UNREACHABLE, UNSCHEDULABLE, tolerates

HASH_LABEL = "controller-revision-hash"  # Kubernetes' label on the pods of a DaemonSet
NODE_FIELD = "metadata.name"
NO_HOME = frozenset({"NotSeen", "EngineMissing", "ClaimedByOther", "NotInInventory"})  # states without room for pods
UP = frozenset({"Ready", "AddressUnknown", "DiskPressure", "MemoryPressure"})
OUT_OF_REACH = frozenset({"ClaimedByOther", "NotInInventory"})  # what runs there is nobody's to remove

# What every daemon tolerates, as in Kubernetes: it belongs to its node, and goes nowhere else when that one is ill.
DAEMON_TOLERATIONS = (
    *(Toleration(key=key, operator="Exists", effect="NoExecute") for key in (NOT_READY, UNREACHABLE)),
    *(
        Toleration(key=key, operator="Exists", effect="NoSchedule")
        for key in (DISK_PRESSURE, MEMORY_PRESSURE, UNSCHEDULABLE.key)
    ),
)


class DaemonPlan(msgspec.Struct, frozen=True):
    """Nodes to make a pod for, pods to delete, and the status to show."""

    create: tuple[str, ...] = ()
    delete: tuple[Pod, ...] = ()
    status: DaemonSetStatus = msgspec.field(default_factory=DaemonSetStatus)


def node_of(pod: Pod) -> str:
    """The node that a daemon was made for, or runs on."""
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    fields = (field for term in (required.node_selector_terms if required else ()) for field in term.match_fields)
    return pod.spec.node_name or next((found.values[0] for found in fields if found.key == NODE_FIELD), "")


def daemon_name(daemonset: DaemonSet, node: str) -> str:
    """The name of a node's pod of the current template: the same on every try, so that none is doubled."""
    identity = f"{daemonset.metadata.uid}/{node}/{template_hash(daemonset.spec.template)}"
    return f"{daemonset.metadata.name}-{safe_digits(int.from_bytes(hashlib.sha256(identity.encode()).digest()), 5)}"


def daemon_for(daemonset: DaemonSet, node: str) -> Pod:
    """A new pod of the set's template that only this node may have."""
    template = daemonset.spec.template
    meta = ObjectMeta(
        name=daemon_name(daemonset, node),
        namespace=daemonset.metadata.namespace,
        labels={**template.metadata.labels, HASH_LABEL: template_hash(template)},
        annotations=template.metadata.annotations,
        owner_references=(owner_reference(daemonset),),
    )
    return Pod(metadata=meta, spec=daemon_spec(template.spec, node), status=PodStatus())


def daemon_spec(spec: PodSpec, node: str) -> PodSpec:
    """The template's spec, tied to one node; its own terms still count."""
    here = NodeSelectorRequirement(key=NODE_FIELD, operator="In", values=(node,))
    affinity = spec.affinity or Affinity()
    near = affinity.node_affinity or NodeAffinity()
    required = near.required_during_scheduling_ignored_during_execution
    terms = required.node_selector_terms if required is not None else (NodeSelectorTerm(),)
    tied = NodeSelector(node_selector_terms=tuple(replace(term, match_fields=(here,)) for term in terms))
    near = replace(near, required_during_scheduling_ignored_during_execution=tied)
    more = tuple(extra for extra in DAEMON_TOLERATIONS if extra not in spec.tolerations)
    return replace(spec, affinity=replace(affinity, node_affinity=near), tolerations=(*spec.tolerations, *more))


class _Place(msgspec.Struct, frozen=True):
    """One node, for one daemon set. `wanted`: a pod shall run there; `stays`: one that is there may; `up`: it works."""

    wanted: bool
    stays: bool
    up: bool = False


def _place(daemonset: DaemonSet, node: Node) -> _Place:
    view, spec = node_view(node, None, 0.0), daemonset.spec.template.spec
    if view.state in OUT_OF_REACH:
        return _Place(wanted=False, stays=True)
    tolerations = (*spec.tolerations, *DAEMON_TOLERATIONS)
    if not _selected(spec, view):
        return _Place(wanted=False, stays=False)
    stays = _tolerated(tolerations, view.taints, ("NoExecute",))
    wanted = view.state not in NO_HOME and _tolerated(tolerations, view.taints, ("NoExecute", "NoSchedule"))
    return _Place(wanted, stays, view.state in UP)


def _tolerated(tolerations: Sequence[Toleration], taints: Sequence[Taint], effects: Sequence[str]) -> bool:
    return all(taint.effect not in effects or tolerates(tolerations, taint) for taint in taints)


def _selected(spec: PodSpec, node: NodeView) -> bool:
    if any(node.labels.get(key) != value for key, value in spec.node_selector.items()):
        return False
    affinity = spec.affinity.node_affinity if spec.affinity is not None else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    return required is None or any(node_term_matches(term, node) for term in required.node_selector_terms)


def plan_daemons(daemonset: DaemonSet, nodes: Sequence[Node], pods: Sequence[Pod], now: float) -> DaemonPlan:
    """What makes `pods` (all that the set owns) match the wish; nothing when they do. Order of input is irrelevant.

    A node gets its next pod only when the one before is gone: they may want the same port or volume.
    """
    if daemonset.metadata.deletion_timestamp is not None:
        return DaemonPlan(status=daemonset.status)
    places = {node.metadata.name: _place(daemonset, node) for node in nodes}
    hashed = template_hash(daemonset.spec.template)
    ended = [pod for pod in pods if not is_counted(pod) and pod.metadata.deletion_timestamp is None]
    there: dict[str, list[Pod]] = {}
    wait_s = daemonset.spec.min_ready_seconds
    for pod in sorted(
        filter(is_counted, pods), key=lambda found: _worth(found, hashed, is_available(found, wait_s, now))
    ):
        there.setdefault(node_of(pod), []).append(pod)
    doubled = [pod for found in there.values() for pod in found[1:]]
    kept = {name: found[0] for name, found in there.items()}
    homeless = [pod for name, pod in kept.items() if name in places and not places[name].stays]
    homeless += [pod for name, pod in kept.items() if name not in places]
    held = {node_of(pod) for pod in pods}  # also by one that is on its way out
    wanted = sorted(name for name, place in places.items() if place.wanted)
    create = tuple(name for name in wanted if name not in held)
    daemons = {name: kept[name] for name in kept if name in places and places[name].stays}
    status = _status(daemonset, wanted, places, daemons, hashed, now)
    rolled = _to_replace(daemonset, [name for name in wanted if places[name].up], daemons, hashed, now)
    delete = {pod.metadata.name: pod for pod in (*ended, *doubled, *homeless, *rolled)}
    return DaemonPlan(create, tuple(delete[name] for name in sorted(delete)), status)


def _worth(pod: Pod, hashed: str, available: bool) -> tuple[bool, bool, bool, bool, str]:
    """The first of a node's pods is the one to keep."""
    current = pod.metadata.labels.get(HASH_LABEL) == hashed
    return (not available, not is_ready(pod), not current, not pod.spec.node_name, pod.metadata.name)


def _to_replace(
    daemonset: DaemonSet, wanted: Sequence[str], daemons: Mapping[str, Pod], hashed: str, now: float
) -> list[Pod]:
    """Old pods that go now: those that serve nobody, and others as far as `maxUnavailable` lets them.

    Only nodes that are `wanted` and up count: one that is switched off shall not hold up the others.
    """
    strategy = daemonset.spec.update_strategy
    if strategy.type == "OnDelete":
        return []
    limit = strategy.rolling_update.max_unavailable if strategy.rolling_update is not None else None
    allowed = max(1, resolve_int_or_percent(1 if limit is None else limit, len(wanted), round_up=True))
    wait_s = daemonset.spec.min_ready_seconds
    good = {name for name, pod in daemons.items() if is_available(pod, wait_s, now)}
    old = [name for name, pod in sorted(daemons.items()) if pod.metadata.labels.get(HASH_LABEL) != hashed]
    useless = [name for name in old if name not in good]
    missing = sum(name not in good for name in wanted)
    more = [name for name in old if name in good][: max(0, allowed - missing)]
    return [daemons[name] for name in (*useless, *more)]


def _status(
    daemonset: DaemonSet,
    wanted: Sequence[str],
    places: Mapping[str, _Place],
    daemons: Mapping[str, Pod],
    hashed: str,
    now: float,
) -> DaemonSetStatus:
    mine = [daemons[name] for name in wanted if name in daemons]
    available = sum(is_available(pod, daemonset.spec.min_ready_seconds, now) for pod in mine)
    return DaemonSetStatus(
        current_number_scheduled=sum(bool(pod.spec.node_name) for pod in mine),
        number_misscheduled=sum(not places[name].wanted for name in daemons),
        desired_number_scheduled=len(wanted),
        number_ready=sum(is_ready(pod) for pod in mine),
        updated_number_scheduled=sum(pod.metadata.labels.get(HASH_LABEL) == hashed for pod in mine),
        number_available=available,
        number_unavailable=len(wanted) - available,
        observed_generation=daemonset.metadata.generation,
        conditions=daemonset.status.conditions,
    )


def concerns_daemons(node: Node, before: Node | None) -> bool:
    """Whether a change of a node may change who wants a pod there."""

    def facts(found: Node) -> tuple[object, ...]:
        ready = condition(found.status.conditions, "Ready")
        arch = found.status.node_info.architecture
        return (found.metadata.labels, found.spec.taints, ready.reason if ready is not None else "", arch)

    return before is None or facts(node) != facts(before)


class DaemonSetController:
    """Carries out `plan_daemons` for one set at a time."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view, self._clock = view, clock

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Make one set (namespace, name) true."""
        daemonset = self._view.find(DaemonSet, key[1], key[0])
        if daemonset is None:
            return None
        pods = self._view.owned(Pod, daemonset.metadata.uid, key[0])
        now = self._clock.now()
        plan = plan_daemons(daemonset, tuple(self._view.all(Node)), pods, now)
        for pod in plan.delete:
            await self._view.delete(pod)
        for node in plan.create:
            try:
                await self._view.create(daemon_for(daemonset, node))
            except AlreadyExistsError as error:
                raise ConflictError(f"the pod for {node} appeared meanwhile") from error
        if plan.status != daemonset.status:
            await self._view.update_status(replace(daemonset, status=plan.status))
        wait_s = daemonset.spec.min_ready_seconds  # a ready pod becomes available by the passing of time alone
        return 0.25 if wait_s and any(is_ready(pod) and not is_available(pod, wait_s, now) for pod in pods) else None
