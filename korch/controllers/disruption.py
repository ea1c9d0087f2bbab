"""Moving pods on purpose: which marked pod may go now, within the budgets of those who need it. The plan is pure.

Whoever wants a pod away (a drain, a rebalance, an eviction by kubectl) only marks it with `evict`. Its set then makes a
successor (`replicaset.py`), the scheduler keeps that one away from the node, and the controller here lets the old pod
go. So every such wish survives the process that had it, and one place counts the budgets.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace
from msgspec.structs import replace as changed

from korch.errors import ConflictError
from korch.objects.objects import Clock, ObjectList
from korch.objects.view import View
from korch.resources.annotations import EVICT, EVICT_WHY
from korch.resources.codec import with_meta
from korch.resources.disruption import PodDisruptionBudget, PodDisruptionBudgetStatus
from korch.resources.leaving import START_FIRST, STOP_FIRST, is_leaving, successors, waits_for_successor
from korch.resources.meta import Condition, Object
from korch.resources.pod import Pod
from korch.resources.podstate import (
    condition,
    controller_of,
    failure_of,
    is_available,
    is_counted,
    is_ready,
    unschedulable,
    with_condition,
)
from korch.resources.selectors import matches
from korch.resources.templates import resolve_int_or_percent
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment, ReplicaSet

ALWAYS_ALLOW = "AlwaysAllow"
T = TypeVar("T", bound=Object)


class Budget(msgspec.Struct, frozen=True):
    """A budget as it stands: of `expected` pods `healthy` are ready, and `desired` of them must stay so."""

    name: str
    namespace: str
    expected: int
    healthy: int
    desired: int
    pods: frozenset[str]  # uids
    spares_unready: bool  # pods that are not ready may go only while the rest is whole

    @property
    def allowed(self) -> int:
        """How many ready pods may go now."""
        return max(0, self.healthy - self.desired)

    def objection(self, pod: Pod) -> str:
        """Why this pod of it may not go now, or ""."""
        whole = self.healthy >= self.desired
        fine = self.healthy > self.desired if is_ready(pod) else whole or not self.spares_unready
        if pod.metadata.uid not in self.pods or fine:
            return ""
        return f"budget {self.name} wants {self.desired} ready pods, and {self.healthy} of {self.expected} are"

    def without(self, pod: Pod) -> "Budget":
        """The budget once this pod is on its way out."""
        if pod.metadata.uid not in self.pods:
            return self
        return replace(self, healthy=self.healthy - int(is_ready(pod)), pods=self.pods - {pod.metadata.uid})


class Verdict(msgspec.Struct, frozen=True):
    """Whether a marked pod may go now; `why` says what it waits for.

    `stuck`: its successor has no place; `held`: a budget holds it.
    """

    pod: Pod
    go: bool
    why: str = ""
    stuck: bool = False
    held: bool = False


class World(msgspec.Struct, frozen=True):
    """What the verdicts are made from: all of these kinds in the cluster, or at least in the namespaces concerned."""

    pods: tuple[Pod, ...]
    sets: tuple[ReplicaSet, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    budgets: tuple[PodDisruptionBudget, ...] = ()


def budgets_now(world: World) -> tuple[Budget, ...]:
    """Each budget as it stands, after Kubernetes' disruption controller: pods on their way out are expected still."""
    wanted = _replicas_wanted(world)
    return tuple(_budget(found, world.pods, wanted) for found in world.budgets)


def _budget(found: PodDisruptionBudget, pods: Sequence[Pod], wanted: Mapping[str, tuple[str, int]]) -> Budget:
    spec, meta = found.spec, found.metadata
    own = [
        pod
        for pod in pods
        if pod.metadata.namespace == meta.namespace
        and pod.status.phase not in {"Failed", "Succeeded"}
        and spec.selector is not None
        and matches(spec.selector, pod.metadata.labels)
    ]
    owners = dict(wanted[owner] for pod in own if (owner := _owner(pod)) in wanted)
    alone = sum(_owner(pod) not in wanted for pod in own)
    scale = sum(owners.values()) + alone
    if spec.max_unavailable is not None:
        expected = scale
        desired = max(0, scale - resolve_int_or_percent(spec.max_unavailable, scale, round_up=True))
    else:
        expected = scale if isinstance(spec.min_available, str) else len(own)
        desired = resolve_int_or_percent(spec.min_available or 0, scale, round_up=True)
    return Budget(
        meta.name,
        meta.namespace,
        expected,
        sum(is_ready(pod) for pod in own),
        desired,
        frozenset(pod.metadata.uid for pod in own),
        spec.unhealthy_pod_eviction_policy != ALWAYS_ALLOW,
    )


def _owner(pod: Pod) -> str:
    owner = controller_of(pod)
    return owner.uid if owner is not None else ""


def _replicas_wanted(world: World) -> dict[str, tuple[str, int]]:
    """Uid of a set → (uid of the workload, its replicas): of several sets of a deployment the wish counts once."""
    deployments = {found.metadata.uid: found for found in world.deployments}
    wanted = {}
    for found in world.sets:
        owner = controller_of(found)
        above = deployments.get(owner.uid) if owner is not None else None
        top: Deployment | ReplicaSet = found if above is None else above
        wanted[found.metadata.uid] = (top.metadata.uid, 1 if top.spec.replicas is None else top.spec.replicas)
    return wanted


def plan_evictions(world: World, now: float, *, mine: Callable[[Pod], bool] = lambda _: True) -> tuple[Verdict, ...]:
    """A verdict for each marked pod that is `mine`, by namespace and name. Order of input is irrelevant.

    No budget falls below its floor even if all that may go do so at once.
    """
    budgets = budgets_now(world)
    waits = {found.metadata.uid: found.spec.min_ready_seconds for found in world.sets}
    takers = successors(world.pods)
    marked = [pod for pod in world.pods if is_leaving(pod) and mine(pod)]
    verdicts = []
    for pod in sorted(marked, key=lambda found: (found.metadata.namespace, found.metadata.name)):
        verdict = _waits_for(pod, takers.get(pod.metadata.uid), waits.get(_owner(pod), 0), now)
        if verdict is None:
            objections = [text for budget in budgets if (text := budget.objection(pod))]
            verdict = Verdict(pod, not objections, "; ".join(objections), held=bool(objections))
        if verdict.go:
            budgets = tuple(budget.without(pod) for budget in budgets)
        verdicts.append(verdict)
    return tuple(verdicts)


def _waits_for(pod: Pod, taker: Pod | None, min_ready_s: int, now: float) -> Verdict | None:
    """What the pod waits for beside budgets, or None. One that is broken has nothing to hand over."""
    if not waits_for_successor(pod) or failure_of(pod):
        return None
    if taker is None:
        return Verdict(pod, False, "its successor is about to be made")
    name = taker.metadata.name
    if text := unschedulable(taker):
        return Verdict(pod, False, f"its successor {name} fits nowhere: {text}", stuck=True)
    if not taker.spec.node_name:
        return Verdict(pod, False, f"its successor {name} is being placed")
    if not is_available(taker, min_ready_s, now):
        ready = condition(taker.status.conditions, "Ready")
        said = failure_of(taker) or ((ready.message or ready.reason) if ready else "")
        more = f": {said}" if said and not is_ready(taker) else ""
        return Verdict(pod, False, f"its successor {name} on {taker.spec.node_name} is not available yet{more}")
    return None


def marked(pod: Pod, why: str, *, stop_first: bool = False) -> Pod | None:
    """The pod as one that is to leave its node; None when it is marked so already, or goes anyway."""
    if not is_counted(pod):
        return None
    notes = {**pod.metadata.annotations, EVICT: STOP_FIRST if stop_first else START_FIRST, EVICT_WHY: why}
    return None if notes == pod.metadata.annotations else with_meta(pod, annotations=notes)


def unmarked(pod: Pod, whys: Iterable[str]) -> Pod | None:
    """The pod as one that may stay, if one of these reasons wanted it away; else None."""
    if EVICT not in pod.metadata.annotations or pod.metadata.annotations.get(EVICT_WHY, "") not in set(whys):
        return None
    kept = {key: text for key, text in pod.metadata.annotations.items() if key not in (EVICT, EVICT_WHY)}
    return with_meta(pod, annotations=kept)


class Source(Protocol):
    """What is read and written here: `Objects` and every client have it."""

    async def list(self, type_: type[T], namespace: str = "") -> ObjectList[T]:
        """All objects of one kind."""
        ...

    async def modify(self, type_: type[T], name: str, namespace: str, change: Callable[[T], T | None]) -> T:
        """Read, change, write; again on conflict."""
        ...


async def world_of(source: Source, namespace: str = "") -> World:
    """What the store holds now; pods are read first, so that their owners are never missing."""
    pods = (await source.list(Pod, namespace)).items
    sets = (await source.list(ReplicaSet, namespace)).items
    deployments = (await source.list(Deployment, namespace)).items
    return World(pods, sets, deployments, (await source.list(PodDisruptionBudget, namespace)).items)


async def evict(source: Source, pod: Pod, why: str, *, stop_first: bool) -> Pod:
    """The pod, marked to leave its node; whoever leads lets it go as soon as its budgets and successor allow.

    Repeating is safe. `ConflictError` when another pod has its name by now, `NotFoundError` when it is gone.
    """

    def change(found: Pod) -> Pod | None:
        if found.metadata.uid != pod.metadata.uid:
            raise ConflictError(f'pod "{pod.metadata.name}" is another one now', hint="Look again: korch get pods.")
        return marked(found, why, stop_first=stop_first)

    return await source.modify(Pod, pod.metadata.name, pod.metadata.namespace, change)


async def keep(source: Source, pod: Pod, whys: Iterable[str]) -> Pod:
    """The pod, without the mark that one of these reasons has put on it."""
    return await source.modify(Pod, pod.metadata.name, pod.metadata.namespace, lambda found: unmarked(found, whys))


def stops_first(pod: Pod, world: World) -> bool:
    """Whether a successor beside it would be wrong or useless: its app never runs twice, or nobody would make one."""
    owner = controller_of(pod)
    if owner is None or owner.kind != "ReplicaSet":
        return True
    above = next((controller_of(found) for found in world.sets if found.metadata.uid == owner.uid), None)
    recreated = {found.metadata.uid for found in world.deployments if found.spec.strategy.type == "Recreate"}
    return above is not None and above.uid in recreated


class DisruptionController:
    """Lets marked pods go, one pass over all of them at a time, and keeps the status of budgets."""

    def __init__(self, view: View, clock: Clock, *, mine: Callable[[Pod], bool]) -> None:
        self._view, self._clock, self._mine = view, clock, mine

    async def reconcile(self, _: str) -> float | None:
        """One pass; looks again while pods wait, because availability comes by the passing of time too."""
        world = self._world()
        verdicts = plan_evictions(world, self._clock.now(), mine=self._mine)
        for verdict in verdicts:
            if verdict.go:
                await self._let_go(verdict.pod)
        after = self._world() if any(verdict.go for verdict in verdicts) else world
        for found, budget in zip(after.budgets, budgets_now(after), strict=True):
            await self._show(found, budget)
        return 0.5 if any(not verdict.go for verdict in verdicts) else None

    def _world(self) -> World:
        view = self._view
        return World(
            tuple(view.all(Pod)),
            tuple(view.all(ReplicaSet)),
            tuple(view.all(Deployment)),
            tuple(view.all(PodDisruptionBudget)),
        )

    async def _let_go(self, pod: Pod) -> None:
        """Gone already is fine; one whose mark was taken back just now has its successor in place already."""
        why = pod.metadata.annotations.get(EVICT_WHY, "")
        await self._view.delete(pod)
        await self._view.objects.record_event(
            pod,
            type="Normal",
            reason="Evicted",
            message=f"leaves {pod.spec.node_name or 'the queue'}" + (f": {why}" if why else ""),
            component="disruption-controller",
        )

    async def _show(self, found: PodDisruptionBudget, budget: Budget) -> None:
        status = status_of(found, budget, self._clock.now())
        if status != found.status:
            await self._view.update_status(changed(found, status=status))


def status_of(found: PodDisruptionBudget, budget: Budget, now: float) -> PodDisruptionBudgetStatus:
    """What `korch get pdb` shows of a budget."""
    allows = Condition(
        type="DisruptionAllowed",
        status="True" if budget.allowed else "False",
        reason="SufficientPods" if budget.allowed else "InsufficientPods",
        observed_generation=found.metadata.generation,
    )
    return PodDisruptionBudgetStatus(
        observed_generation=found.metadata.generation,
        disruptions_allowed=budget.allowed,
        current_healthy=budget.healthy,
        desired_healthy=budget.desired,
        expected_pods=budget.expected,
        conditions=with_condition(found.status.conditions, allows, rfc3339(now)),
    )
