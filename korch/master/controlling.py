"""The controllers of one run: which change concerns which reconciler, for the workloads that the run may touch."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from korch.client.base import Workload
from korch.controllers.autoscaler import AutoscalerController, Gauge
from korch.controllers.cronjob import CronJobController
from korch.controllers.daemonset import DaemonSetController, concerns_daemons
from korch.controllers.deployment import DeploymentController
from korch.controllers.disruption import DisruptionController
from korch.controllers.endpoints import EndpointsController, selects
from korch.controllers.garbage import GarbageCollector
from korch.controllers.history import HistoryController
from korch.controllers.job import JobController
from korch.controllers.replicaset import ReplicaSetController
from korch.controllers.scaling import Used
from korch.controllers.scheduling import SchedulingController
from korch.engines.names import Identity
from korch.nodes.files import uses
from korch.objects.values import Change, Clock
from korch.objects.view import View
from korch.resources.annotations import EVICT, REPLACES
from korch.resources.autoscaling import HorizontalPodAutoscaler
from korch.resources.batch import CronJob, Job
from korch.resources.config import ConfigMap
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.history import ControllerRevision
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import controller_of, workload_name
from korch.resources.service import EndpointSlice, Service
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.workqueue import WorkQueue

KINDS = (
    *(Deployment, ReplicaSet, DaemonSet, Job, CronJob, Pod, Node, NodeLoad),
    *(ControllerRevision, PodDisruptionBudget, HorizontalPodAutoscaler, Service, EndpointSlice, ConfigMap, Secret),
)
OWNED = (ReplicaSet, ControllerRevision, Job, Pod, EndpointSlice)  # what goes with its owner
VALUES = (ConfigMap, Secret)
WORKERS = 4


class Scope:
    """The workloads that one run may touch; None: all of them, as a master does."""

    def __init__(self, workloads: Sequence[Workload] | None) -> None:
        self._names = None if workloads is None else {(found.namespace, found.name) for found in workloads}

    def has(self, obj: Object) -> bool:
        """Whether an object belongs to one of them."""
        return self._names is None or (obj.metadata.namespace, workload_name(obj)) in self._names

    def owns(self, identity: Identity) -> bool:
        """Whether a container does."""
        return self._names is None or (identity.namespace, identity.owner or identity.pod) in self._names


async def _nothing(_: frozenset[str]) -> dict[str, Used]:
    """Nothing is measured."""
    return {}


class Controllers:
    """Reconcilers on a view. `allowed`: the nodes that new pods may have, `away`: those that they may have in a moment;
    `wake` hears of each pod that has a node.

    `gauge` measures pods; without it nothing is scaled by load. `collecting`: what loses its owner goes, as far as a
    run has to do with it; a master has the collector, which does so for all kinds.
    """

    def __init__(
        self,
        view: View,
        clock: Clock,
        scope: Scope,
        *,
        allowed: Callable[[], frozenset[str]],
        away: Callable[[], frozenset[str]] = frozenset,
        wake: Callable[[Pod], None],
        gauge: Gauge | None = None,
        collecting: bool = True,
    ) -> None:
        self._view, self._scope, self._wake = view, scope, wake
        self._started, self._collecting = False, collecting
        scheduler = SchedulingController(view, clock, allowed=allowed, mine=scope.has, away=away)
        self._deployments: WorkQueue[tuple[str, str]] = WorkQueue(
            "deployment", DeploymentController(view, clock).reconcile
        )
        self._sets: WorkQueue[tuple[str, str]] = WorkQueue("replicaset", ReplicaSetController(view, clock).reconcile)
        self._daemons: WorkQueue[tuple[str, str]] = WorkQueue("daemonset", DaemonSetController(view, clock).reconcile)
        self._histories: WorkQueue[tuple[str, str]] = WorkQueue("history", HistoryController(view).reconcile)
        self._garbage: WorkQueue[tuple[type[Object], str, str]] = WorkQueue("garbage", GarbageCollector(view).reconcile)
        disruption = DisruptionController(view, clock, mine=scope.has)
        self._evictions: WorkQueue[str] = WorkQueue("disruption", disruption.reconcile)
        self._services: WorkQueue[tuple[str, str]] = WorkQueue("endpoints", EndpointsController(view).reconcile)
        self._jobs: WorkQueue[tuple[str, str]] = WorkQueue("job", JobController(view, clock).reconcile)
        self._crons: WorkQueue[tuple[str, str]] = WorkQueue("cronjob", CronJobController(view, clock).reconcile)
        self._scalers: WorkQueue[tuple[str, str]] = WorkQueue(
            "autoscaler", AutoscalerController(view, clock, gauge or _nothing).reconcile
        )
        self._scaling = gauge is not None
        self._placing: WorkQueue[str] = WorkQueue("scheduler", scheduler.reconcile)

    @property
    def _queues(self) -> tuple[WorkQueue[Any], ...]:
        return (
            *(self._deployments, self._sets, self._daemons, self._jobs, self._crons, self._services),
            *(self._histories, self._garbage, self._placing, self._evictions, self._scalers),
        )

    @property
    def idle(self) -> bool:
        """Whether all that changed was looked at."""
        return all(queue.idle for queue in self._queues)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Look at all that stands, then at what changes."""
        self._view.listen(self._hear)
        for type_ in KINDS:
            for obj in self._view.all(type_) if type_ not in VALUES else ():  # keepers look at their pods anyway
                self._route(Change("ADDED", obj, None, 0))
        self._started = True
        for queue in self._queues:
            alone = queue is self._placing or queue is self._evictions
            workers = 1 if alone else WORKERS  # one pass places all, and one counts for all budgets
            group.create_task(queue.run(workers=workers), name=queue.name)

    def _hear(self, change: Change[Object]) -> None:
        if isinstance(change.object, KINDS):  # the view may know more, for others
            self._route(change)

    def _route(self, change: Change[Object]) -> None:
        """Which reconcilers a change concerns."""
        obj = change.object
        meta = obj.metadata
        if isinstance(obj, Node | NodeLoad):
            self._placing.add("all")
            if isinstance(obj, Node):
                self._route_node(obj, change.previous if isinstance(change.previous, Node) else None, change.type)
            return
        if isinstance(obj, PodDisruptionBudget):
            self._evictions.add("all")
            return
        self._route_service(change)
        if isinstance(obj, ConfigMap | Secret):
            self._route_values(obj)
            return
        if isinstance(obj, HorizontalPodAutoscaler):
            if self._scaling and change.type == "ADDED":  # it looks again by itself
                self._scalers.add((meta.namespace, meta.name))
            return
        if not self._scope.has(obj):
            return
        self._deployments.add((meta.namespace, workload_name(obj)))
        if isinstance(obj, ReplicaSet):
            self._sets.add((meta.namespace, meta.name))
        if isinstance(obj, DaemonSet):
            self._daemons.add((meta.namespace, meta.name))
            self._histories.add((meta.namespace, meta.name))
        if isinstance(obj, Job | CronJob):
            self._route_job(obj)
        if isinstance(obj, Pod):
            self._route_pod(obj, gone=change.type == "DELETED")
            if not obj.metadata.annotations.keys().isdisjoint({EVICT, REPLACES}) or self._has_budgets():
                self._evictions.add("all")
        self._collect(change)

    def _route_service(self, change: Change[Object]) -> None:
        """Endpoints follow from the store alone, so every run keeps those of all services."""
        obj = change.object
        if isinstance(obj, Service):
            self._services.add((obj.metadata.namespace, obj.metadata.name))
        elif isinstance(obj, EndpointSlice):
            owner = controller_of(obj)
            if owner is not None and owner.kind == "Service":
                self._services.add((obj.metadata.namespace, owner.name))
        elif isinstance(obj, Pod) and self._started:  # before that, each service is looked at for all pods
            pods = [found for found in (obj, change.previous) if isinstance(found, Pod)]
            for service in self._view.all(Service, obj.metadata.namespace):
                if any(selects(service, pod) for pod in pods):
                    self._services.add((service.metadata.namespace, service.metadata.name))

    def _has_budgets(self) -> bool:
        return next(self._view.all(PodDisruptionBudget), None) is not None

    def _route_node(self, node: Node, old: Node | None, what: str) -> None:
        if what == "DELETED" or concerns_daemons(node, old):
            for found in self._view.all(DaemonSet):
                if self._scope.has(found):
                    self._daemons.add((found.metadata.namespace, found.metadata.name))

    def _route_values(self, obj: ConfigMap | Secret) -> None:
        """Files change under running containers, and pods that miss a value can start once it is there."""
        for pod in self._view.all(Pod, obj.metadata.namespace):
            if pod.spec.node_name and uses(pod, obj):
                self._wake(pod)

    def _route_job(self, obj: Job | CronJob) -> None:
        owner = controller_of(obj)
        if isinstance(obj, Job):
            self._jobs.add((obj.metadata.namespace, obj.metadata.name))
        else:
            self._crons.add((obj.metadata.namespace, obj.metadata.name))
        if owner is not None and owner.kind == "CronJob":
            self._crons.add((obj.metadata.namespace, owner.name))

    def _route_pod(self, pod: Pod, *, gone: bool) -> None:
        owner = controller_of(pod)
        queues = {"ReplicaSet": self._sets, "DaemonSet": self._daemons, "Job": self._jobs}
        if owner is not None and owner.kind in queues:
            queues[owner.kind].add((pod.metadata.namespace, owner.name))
        if not pod.spec.node_name or gone:  # one that goes leaves room for others
            self._placing.add("all")
        if pod.spec.node_name:
            self._wake(pod)

    def _collect(self, change: Change[Object]) -> None:
        """Objects whose owner may be gone: all of a deleted owner's, and each that appears."""
        if not self._collecting:
            return
        meta = change.object.metadata
        if change.type == "ADDED" and controller_of(change.object) is not None:
            self._garbage.add((type(change.object), meta.namespace, meta.name))
        if change.type == "DELETED":
            for type_ in OWNED:
                for obj in self._view.owned(type_, meta.uid, meta.namespace):
                    self._garbage.add((type_, meta.namespace, obj.metadata.name))
