"""ResourceQuota: what a namespace has of what is bounded, for people to see. Nothing is refused for it.

The count is pure; the loop only writes it down. What korch does not count is left out: it never says 0 of something.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from korch.errors import FencedError, NotFoundError
from korch.objects.objects import Change
from korch.objects.view import View
from korch.resources.autoscaling import HorizontalPodAutoscaler
from korch.resources.batch import CronJob, Job
from korch.resources.config import ConfigMap, ServiceAccount
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.kinds import kind_of_type
from korch.resources.limits import Quantities, ResourceQuota, ResourceQuotaStatus
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.pod import Container, Pod
from korch.resources.quantity import format_bytes, format_cpu
from korch.resources.service import Service
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.scheduler.shape import requested
from korch.workqueue import WorkQueue

KINDS: tuple[type[Object], ...] = (
    *(Pod, Service, Secret, ConfigMap, ServiceAccount, ResourceQuota),
    *(Deployment, ReplicaSet, DaemonSet, Job, CronJob, HorizontalPodAutoscaler, PodDisruptionBudget),
)
_AFTER_S = 0.5  # a rollout of a thousand pods is counted now and then, not a thousand times
_PLAIN = frozenset({"services", "secrets", "configmaps", "resourcequotas"})  # counted without `count/`, too
_COMPUTE = {"cpu": "cpu", "requests.cpu": "cpu", "memory": "memory", "requests.memory": "memory"}
_LIMITS = {"limits.cpu": "cpu", "limits.memory": "memory"}
_PORTS = {"services.nodeports": ("NodePort", "LoadBalancer"), "services.loadbalancers": ("LoadBalancer",)}


def plan_quota(quota: ResourceQuota, found: Mapping[type[Object], Iterable[Object]]) -> ResourceQuotaStatus:
    """The status of a quota, given all objects of its namespace. Order of input is irrelevant."""
    hard = quota.spec.hard
    if quota.spec.scopes or quota.spec.scope_selector:  # of some pods only: korch has no such classes
        return ResourceQuotaStatus(hard=hard)
    objects = {type_: list(some) for type_, some in found.items()}
    pods = [pod for pod in objects.get(Pod, ()) if isinstance(pod, Pod) and _goes_on(pod)]
    used: Quantities = {}
    for word in hard:
        count = _counted(word, objects, pods)
        if count is not None:
            used[word] = count
    return ResourceQuotaStatus(hard=hard, used=used)


def _goes_on(pod: Pod) -> bool:
    return pod.status.phase not in {"Failed", "Succeeded"}


def _counted(word: str, objects: Mapping[type[Object], list[Object]], pods: list[Pod]) -> str | None:
    """How much there is of it; None for what is not counted."""
    if word == "pods":
        return str(len(pods))
    if word in _COMPUTE:
        return _sum(pods, _COMPUTE[word], limits=False)
    if word in _LIMITS:
        return _sum(pods, _LIMITS[word], limits=True)
    if word in _PORTS:
        services = (one for one in objects.get(Service, ()) if isinstance(one, Service))
        return str(sum(one.spec.type in _PORTS[word] for one in services))
    for type_, some in objects.items():
        kind = kind_of_type(type_)
        full = f"count/{kind.plural}.{kind.group}" if kind.group else f"count/{kind.plural}"
        if word == full or (word == kind.plural and word in _PLAIN):
            return str(len(some))
    return None


def _sum(pods: list[Pod], resource: str, *, limits: bool) -> str:
    total = 0
    for pod in pods:
        containers, before = pod.spec.containers, pod.spec.init_containers
        if limits:
            containers, before = tuple(map(_only_limits, containers)), tuple(map(_only_limits, before))
        total += requested(containers, before, resource)
    return format_cpu(total) if resource == "cpu" else format_bytes(total)


def _only_limits(container: Container) -> Container:
    return replace(container, resources=replace(container.resources, requests={}))


class Counting:
    """Keeps the status of all quotas, on a view that knows `KINDS`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._queue: WorkQueue[str] = WorkQueue("quota", self._reconcile)

    async def run(self) -> None:
        """Look at all quotas, then at what changes, until cancelled."""
        self._view.listen(self._note)
        for quota in self._view.all(ResourceQuota):
            self._queue.add(quota.metadata.namespace)
        await self._queue.run(workers=1)

    def _note(self, change: Change[Object]) -> None:
        namespace = change.object.metadata.namespace
        if isinstance(change.object, KINDS) and next(self._view.all(ResourceQuota, namespace), None) is not None:
            self._queue.add_later(namespace, _AFTER_S)

    async def _reconcile(self, namespace: str) -> float | None:
        """Count in one namespace."""
        quotas = list(self._view.all(ResourceQuota, namespace))
        found: dict[type[Object], Any] = {type_: list(self._view.all(type_, namespace)) for type_ in KINDS if quotas}
        for quota in quotas:
            status = plan_quota(quota, found)
            if status == quota.status:
                continue
            try:
                await self._view.update_status(replace(quota, status=status))
            except FencedError:
                raise
            except NotFoundError:
                continue
        return None
