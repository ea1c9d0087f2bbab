"""ReplicaSet: keeps so many pods of one template. The plan is pure; the loop only carries it out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from korch.errors import AlreadyExistsError, ConflictError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Pod, PodStatus
from korch.resources.podstate import is_available, is_counted, is_ready, owner_reference, removal_order
from korch.resources.templates import safe_digits
from korch.resources.workload import ReplicaSet, ReplicaSetStatus


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """Names of pods to create, pods to delete, and the status to show."""

    create: tuple[str, ...]
    delete: tuple[Pod, ...]
    status: ReplicaSetStatus


def pod_name(replicaset: ReplicaSet, index: int) -> str:
    """The name of the `index`-th pod: the same on every try, so that a repeated creation cannot double it."""
    digest = hashlib.sha256(f"{replicaset.metadata.uid}/{index}".encode()).digest()
    return f"{replicaset.metadata.name}-{safe_digits(int.from_bytes(digest), 5)}"


def plan_replicas(replicaset: ReplicaSet, pods: Sequence[Pod], now: float) -> ReplicaPlan:
    """What makes `pods` (all that the set owns) match the wish; nothing when they do. Order of input is irrelevant."""
    wanted = 0 if replicaset.metadata.deletion_timestamp else (replicaset.spec.replicas or 0)
    counted = sorted((pod for pod in pods if is_counted(pod)), key=removal_order)
    surplus = max(0, len(counted) - wanted)
    taken = {pod.metadata.name for pod in pods}
    free = (name for name in (pod_name(replicaset, i) for i in range(wanted + len(pods))) if name not in taken)
    ended = tuple(pod for pod in pods if not is_counted(pod) and pod.metadata.deletion_timestamp is None)
    status = ReplicaSetStatus(
        replicas=len(counted),
        fully_labeled_replicas=len(counted),
        ready_replicas=sum(is_ready(pod) for pod in counted),
        available_replicas=sum(is_available(pod, replicaset.spec.min_ready_seconds, now) for pod in counted),
        observed_generation=replicaset.metadata.generation,
        conditions=replicaset.status.conditions,
    )
    create = tuple(name for name, _ in zip(free, range(wanted - len(counted)), strict=False))
    return ReplicaPlan(create, (*ended, *counted[:surplus]), status)


def pod_from(replicaset: ReplicaSet, name: str) -> Pod:
    """A new pod of the set's template."""
    template = replicaset.spec.template
    meta = ObjectMeta(
        name=name,
        namespace=replicaset.metadata.namespace,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
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
        for name in plan.create:
            try:
                await self._view.create(pod_from(replicaset, name))
            except AlreadyExistsError as error:
                raise ConflictError(f"pod {name} appeared meanwhile") from error
        if plan.status != replicaset.status:
            await self._view.update_status(replace(replicaset, status=plan.status))
        return self._next_look(replicaset, pods)

    def _next_look(self, replicaset: ReplicaSet, pods: Sequence[Pod]) -> float | None:
        """A ready pod becomes available by the passing of time alone."""
        wait = replicaset.spec.min_ready_seconds
        if wait and any(is_ready(pod) and not is_available(pod, wait, self._clock.now()) for pod in pods):
            return 0.25
        return None
