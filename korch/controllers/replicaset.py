"""ReplicaSet: keeps so many pods of one template. The plan is pure; the loop only carries it out."""

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from korch.errors import AlreadyExistsError, ConflictError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.annotations import MOVED_FROM, REPLACES
from korch.resources.leaving import holds_its_place, is_leaving, replicas_of, successors, waits_for_successor
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Pod, PodStatus
from korch.resources.podstate import is_available, is_counted, is_ready, owner_reference, removal_order
from korch.resources.templates import safe_digits
from korch.resources.workload import ReplicaSet, ReplicaSetStatus


class ReplicaPlan(msgspec.Struct, frozen=True):
    """Names of pods to create, pods to delete, and the status to show.

    `succeed`: a pod that is to leave its node, and the name of the one that is to take its place.
    """

    create: tuple[str, ...]
    delete: tuple[Pod, ...]
    status: ReplicaSetStatus
    succeed: tuple[Pod, str] | None = None


def pod_name(replicaset: ReplicaSet, index: int) -> str:
    """The name of the `index`-th pod: the same on every try, so that a repeated creation cannot double it."""
    digest = hashlib.sha256(f"{replicaset.metadata.uid}/{index}".encode()).digest()
    return f"{replicaset.metadata.name}-{safe_digits(int.from_bytes(digest), 5)}"


def plan_replicas(replicaset: ReplicaSet, pods: Sequence[Pod], now: float) -> ReplicaPlan:
    """What makes `pods` (all that the set owns) match the wish; nothing when they do. Order of input is irrelevant.

    A pod that is to leave and its successor are one replica; one such pair at a time, and only in a set that is whole.
    """
    wanted = replicaset.spec.replicas or 0
    counted = tuple(pod for pod in pods if is_counted(pod))
    wait_s = replicaset.spec.min_ready_seconds
    replicas = sorted(replicas_of(counted), key=lambda pod: _removal_order(pod, is_available(pod, wait_s, now)))
    pairs = successors(counted)
    surplus = max(0, len(replicas) - wanted)
    taken = {pod.metadata.name for pod in pods}
    free = [name for name in (pod_name(replicaset, i) for i in range(wanted + len(pods) + 1)) if name not in taken]
    ended = _by_name([pod for pod in pods if not is_counted(pod) and pod.metadata.deletion_timestamp is None])
    status = ReplicaSetStatus(
        replicas=len(counted),
        fully_labeled_replicas=len(counted),
        ready_replicas=sum(is_ready(pod) for pod in counted),
        available_replicas=sum(is_available(pod, wait_s, now) for pod in counted),
        observed_generation=replicaset.metadata.generation,
        conditions=replicaset.status.conditions,
    )
    if replicaset.metadata.deletion_timestamp:
        return ReplicaPlan((), (), status)  # whoever deletes it decides what becomes of its pods
    create = tuple(free[: max(0, wanted - len(replicas) - sum(map(holds_its_place, pods)))])
    alone = None if create or surplus or pairs else next(filter(waits_for_successor, _by_name(counted)), None)
    too_many = [one for pod in replicas[:surplus] for one in (pod, pairs.get(pod.metadata.uid)) if one is not None]
    succeed = None if alone is None else (alone, free[0])
    return ReplicaPlan(create, (*ended, *too_many), status, succeed)


def _by_name(pods: Sequence[Pod]) -> list[Pod]:
    return sorted(pods, key=lambda pod: pod.metadata.name)


def _removal_order(pod: Pod, available: bool) -> tuple[int, int, int, bool, bool, str]:
    """Ready ones that are not available yet go before those that are: a rollout counts on these. Among equals, those
    that are to leave anyway go first."""
    placed, cost, ready, name = removal_order(pod)
    return (placed, cost, ready, available, not is_leaving(pod), name)


def pod_from(replicaset: ReplicaSet, name: str, *, instead_of: Pod | None = None) -> Pod:
    """A new pod of the set's template; the successor of one that is to leave says so."""
    template = replicaset.spec.template
    notes = template.metadata.annotations
    if instead_of is not None:
        notes = {**notes, REPLACES: instead_of.metadata.uid, MOVED_FROM: instead_of.spec.node_name}
    meta = ObjectMeta(
        name=name,
        namespace=replicaset.metadata.namespace,
        labels=template.metadata.labels,
        annotations=notes,
        owner_references=(owner_reference(replicaset),),
    )
    return Pod(metadata=meta, spec=template.spec, status=PodStatus())


class ReplicaSetController:
    """Carries out `plan_replicas` for one set at a time."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view, self._clock = view, clock

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Make one set (namespace, name) true."""
        replicaset = self._view.find(ReplicaSet, key[1], key[0])
        if replicaset is None:
            return None
        pods = self._view.owned(Pod, replicaset.metadata.uid, key[0])
        plan = plan_replicas(replicaset, pods, self._clock.now())
        for pod in plan.delete:
            await self._view.delete(pod)
        made = [pod_from(replicaset, name) for name in plan.create]
        if plan.succeed is not None:
            made.append(pod_from(replicaset, plan.succeed[1], instead_of=plan.succeed[0]))
        for pod in made:
            try:
                await self._view.create(pod)
            except AlreadyExistsError as error:
                raise ConflictError(f"pod {pod.metadata.name} appeared meanwhile") from error
        if plan.status != replicaset.status:
            await self._view.update_status(replace(replicaset, status=plan.status))
        return self._next_look(replicaset, pods)

    def _next_look(self, replicaset: ReplicaSet, pods: Sequence[Pod]) -> float | None:
        """A ready pod becomes available by the passing of time alone."""
        wait = replicaset.spec.min_ready_seconds
        if wait and any(is_ready(pod) and not is_available(pod, wait, self._clock.now()) for pod in pods):
            return 0.25
        return None
