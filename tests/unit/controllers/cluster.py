"""A toy cluster for planners: carries plans out on values, lets pods become ready, breaks them to order."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from korch.controllers.deployment import set_from, template_of
from korch.controllers.replicaset import plan_replicas, pod_from
from korch.controllers.rollout import RolloutPlan, plan_rollout
from korch.resources.annotations import COMPLETED, FAILED_REVISION, WANTED
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, LabelSelector, ObjectMeta
from korch.resources.pod import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodSpec,
)
from korch.resources.podstate import DELETION_COST, is_available, is_counted, with_condition
from korch.resources.times import rfc3339
from korch.resources.workload import (
    Deployment,
    DeploymentSpec,
    DeploymentStrategy,
    PodTemplateSpec,
    ReplicaSet,
    RollingUpdateDeployment,
)


def deployment(
    image: str = "web:1", replicas: int = 3, *, surge: int = 1, gap: int = 0, min_ready: int = 0, auto: bool = True
) -> Deployment:
    labels = {"app": "web"}
    return Deployment(
        metadata=ObjectMeta(
            name="web",
            namespace="default",
            uid="d1",
            generation=1,
            annotations={"korch.dev/auto-rollback": "true"} if auto else {},
        ),
        spec=DeploymentSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=labels),
            template=PodTemplateSpec(
                metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=(Container(name="web", image=image),))
            ),
            strategy=DeploymentStrategy(
                type="RollingUpdate", rolling_update=RollingUpdateDeployment(max_surge=surge, max_unavailable=gap)
            ),
            min_ready_seconds=min_ready,
            progress_deadline_seconds=60,
        ),
    )


@dataclass
class Toy:
    """`now` in seconds; pods are ended at once when they are deleted."""

    deployment: Deployment
    now: float = 1_000_000.0
    sets: dict[str, ReplicaSet] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    serial: int = 0
    events: list[str] = field(default_factory=list)

    def by_set(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {name: [] for name in self.sets}
        for pod in self.pods.values():
            found[pod.metadata.owner_references[0].name].append(pod)
        return found

    def plan(self) -> RolloutPlan:
        return plan_rollout(self.deployment, tuple(self.sets.values()), self.by_set(), self.now)

    def available(self) -> int:
        return sum(is_available(pod, self.deployment.spec.min_ready_seconds, self.now) for pod in self.pods.values())

    def step(self, rollouts: int = 1) -> bool:
        """Plans of the deployment, then one of each set, carried out; False when nothing was done."""
        did = False
        for _ in range(rollouts):
            did = self._rollout(self.plan()) or did
        for name in sorted(self.sets):
            did = self._replicas(self.sets[name]) or did
        return did

    def _rollout(self, plan: RolloutPlan) -> bool:
        self.events += [message for _, _, message in plan.events]
        self.deployment = replace(self.deployment, status=plan.status)
        if plan.create_revision:
            self.serial += 1
            made = with_meta(set_from(self.deployment, plan.create_revision), uid=f"s{self.serial}")
            self.sets[made.metadata.name] = made
        if plan.victim:
            self.pods[plan.victim] = with_meta(self.pods[plan.victim], annotations={DELETION_COST: "-100"})
        for name, size in plan.scale:
            found = self.sets[name]
            self.sets[name] = replace(found, spec=replace(found.spec, replicas=size))
        if plan.completed:
            marks = {COMPLETED: "true", WANTED: str(self.deployment.spec.replicas)}
            found = self.sets[plan.completed]
            self.sets[plan.completed] = with_meta(found, annotations={**found.metadata.annotations, **marks})
        for name in plan.remove:
            del self.sets[name]
        if plan.give_up:
            notes = {**self.deployment.metadata.annotations, FAILED_REVISION: plan.give_up}
            self.deployment = with_meta(self.deployment, annotations=notes)
        if plan.go_back_to:
            self.wish(template=template_of(self.sets[plan.go_back_to]))
        return bool(
            plan.create_revision or plan.scale or plan.completed or plan.remove or plan.go_back_to or plan.give_up
        )

    def _replicas(self, replicaset: ReplicaSet) -> bool:
        plan = plan_replicas(replicaset, self.by_set()[replicaset.metadata.name], self.now)
        for pod in plan.delete:
            del self.pods[pod.metadata.name]
        for name in plan.create:
            self.serial += 1
            self.pods[name] = with_meta(pod_from(replicaset, name), uid=f"p{self.serial}")
        if plan.succeed is not None:
            self.serial += 1
            old, name = plan.succeed
            self.pods[name] = with_meta(pod_from(replicaset, name, instead_of=old), uid=f"p{self.serial}")
        return bool(plan.delete or plan.create or plan.succeed)

    def wish(self, *, image: str = "", replicas: int | None = None, template: PodTemplateSpec | None = None) -> None:
        """A person changes the spec."""
        spec = self.deployment.spec
        if image:
            pod = replace(spec.template.spec, containers=(Container(name="web", image=image),))
            template = replace(spec.template, spec=pod)
        spec = replace(
            spec, template=template or spec.template, replicas=replicas if replicas is not None else spec.replicas
        )
        meta = replace(self.deployment.metadata, generation=self.deployment.metadata.generation + 1)
        self.deployment = replace(self.deployment, spec=spec, metadata=meta)

    def make_ready(self, name: str) -> None:
        pod = self.pods[name]
        ready = with_condition(pod.status.conditions, Condition(type="Ready", status="True"), rfc3339(self.now))
        spec = replace(pod.spec, node_name=pod.spec.node_name or "n1")
        self.pods[name] = replace(pod, spec=spec, status=replace(pod.status, phase="Running", conditions=ready))

    def crash(self, name: str, code: int = 3) -> None:
        pod = self.pods[name]
        state = ContainerState(terminated=ContainerStateTerminated(exit_code=code))
        ended = ContainerStatus(name="web", state=state, restart_count=1)
        self.pods[name] = replace(pod, status=replace(pod.status, container_statuses=(ended,), conditions=()))

    def settle(self, *, bad_image: str = "", limit: int = 400) -> None:
        """Step until nothing moves; every pod of another image than `bad_image` becomes ready, those of it crash."""
        for _ in range(limit):
            did = self.step()
            for name, pod in sorted(self.pods.items()):
                if is_counted(pod) and not pod.status.conditions and not pod.status.container_statuses:
                    if pod.spec.containers[0].image == bad_image:
                        self.crash(name)
                    else:
                        self.make_ready(name)
                    did = True
                    break
            self.now += 1
            if not did and self.available() == len([p for p in self.pods.values() if is_counted(p)]):
                self.step()
                return
        raise AssertionError("it does not settle")
