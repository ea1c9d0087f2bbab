"""Deployment: carries out `plan_rollout` for one deployment at a time."""

from collections.abc import Callable
from typing import Literal, TypeVar

from msgspec.structs import replace

from korch.controllers.rollout import RolloutPlan, current_set, plan_rollout, revision_of
from korch.errors import AlreadyExistsError, ConflictError
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.annotations import COMPLETED, FAILED_REVISION, REVISION, WANTED
from korch.resources.codec import with_meta
from korch.resources.meta import LabelSelector, Object, ObjectMeta
from korch.resources.pod import Pod
from korch.resources.podstate import DELETION_COST, owner_reference
from korch.resources.templates import TEMPLATE_HASH_LABEL, template_hash
from korch.resources.workload import Deployment, PodTemplateSpec, ReplicaSet, ReplicaSetSpec

T = TypeVar("T", bound=Object)


def set_from(deployment: Deployment, revision: int) -> ReplicaSet:
    """The set of a deployment's current template, with no replicas yet."""
    hashed = template_hash(deployment.spec.template)
    template = deployment.spec.template
    labels = {**template.metadata.labels, TEMPLATE_HASH_LABEL: hashed}
    selector = deployment.spec.selector
    return ReplicaSet(
        metadata=ObjectMeta(
            name=f"{deployment.metadata.name}-{hashed}",
            namespace=deployment.metadata.namespace,
            labels=labels,
            annotations={REVISION: str(revision)},
            owner_references=(owner_reference(deployment),),
        ),
        spec=ReplicaSetSpec(
            replicas=0,
            min_ready_seconds=deployment.spec.min_ready_seconds,
            selector=LabelSelector(
                match_labels={**selector.match_labels, TEMPLATE_HASH_LABEL: hashed},
                match_expressions=selector.match_expressions,
            ),
            template=replace(template, metadata=replace(template.metadata, labels=labels)),
        ),
    )


def template_of(replicaset: ReplicaSet) -> PodTemplateSpec:
    """A set's template as its deployment had it."""
    template = replicaset.spec.template
    labels = {key: value for key, value in template.metadata.labels.items() if key != TEMPLATE_HASH_LABEL}
    return replace(template, metadata=replace(template.metadata, labels=labels))


def first_to_go(pod: Pod) -> Pod:
    """The pod, which its set now removes before any other."""
    return with_meta(pod, annotations={**pod.metadata.annotations, DELETION_COST: "-100"})


class DeploymentController:
    """Rolls deployments."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view, self._clock = view, clock
        self._watched: dict[tuple[str, str], tuple[str, float]] = {}  # key → (uid, when this process first looked)

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Make one deployment (namespace, name) true by one step."""
        deployment = self._view.find(Deployment, key[1], key[0])
        if deployment is None:
            self._watched.pop(key, None)
            return None
        now, uid = self._clock.now(), deployment.metadata.uid
        if self._watched.get(key, ("", 0.0))[0] != uid:
            self._watched[key] = (uid, now)
        if self._watched[key][1] > now:  # the clock was set back
            self._watched[key] = (uid, 0.0)
        sets = self._view.owned(ReplicaSet, deployment.metadata.uid, key[0])
        pods = {found.metadata.name: self._view.owned(Pod, found.metadata.uid, key[0]) for found in sets}
        plan = plan_rollout(deployment, sets, pods, now, watched_since=self._watched[key][1])
        await self._carry_out(deployment, {found.metadata.name: found for found in sets}, plan)
        return plan.look_again_s

    async def _carry_out(self, deployment: Deployment, sets: dict[str, ReplicaSet], plan: RolloutPlan) -> None:
        namespace = deployment.metadata.namespace
        for type_, reason, message in plan.events:
            kind: Literal["Normal", "Warning"] = "Warning" if type_ == "Warning" else "Normal"
            await self._view.objects.record_event(
                deployment, type=kind, reason=reason, message=message, component="deployment-controller"
            )
        if plan.completed:  # before the status: whoever waits for that one may leave as soon as it is written
            marks = {COMPLETED: "true", WANTED: str(deployment.spec.replicas)}
            await self._view.modify(ReplicaSet, plan.completed, namespace, _annotated(marks))
        if plan.status != deployment.status:
            deployment = await self._view.update_status(replace(deployment, status=plan.status))
        if plan.create_revision:
            try:
                await self._view.create(set_from(deployment, plan.create_revision))
            except AlreadyExistsError as error:
                raise ConflictError("the set appeared meanwhile") from error
        await self._adapt_sets(deployment, sets)
        if plan.victim:
            await self._mark_first_to_go(plan.victim, namespace)
        for name, size in plan.scale:
            await self._view.modify(ReplicaSet, name, namespace, _scaled(size))
            await self._tell_of_scaling(deployment, sets[name], size)
        for name in plan.remove:
            await self._view.delete(sets[name])
        if plan.give_up:
            await self._view.modify(Deployment, deployment.metadata.name, namespace, _given_up(plan.give_up))
        if plan.go_back_to:
            await self._go_back(deployment, sets[plan.go_back_to])

    async def _tell_of_scaling(self, deployment: Deployment, replicaset: ReplicaSet, size: int) -> None:
        before = replicaset.spec.replicas or 0
        text = (
            f"Scaled {'up' if size > before else 'down'} replica set {replicaset.metadata.name} from {before} to {size}"
        )
        await self._view.objects.record_event(
            deployment, type="Normal", reason="ScalingReplicaSet", message=text, component="deployment-controller"
        )

    async def _adapt_sets(self, deployment: Deployment, sets: dict[str, ReplicaSet]) -> None:
        """What a set copies from its deployment beside the template; and its number when an old template is current."""
        new = current_set(deployment, tuple(sets.values()))
        if new is None:
            return
        newest = max(revision_of(found) for found in sets.values())
        number = newest if revision_of(new) == newest else newest + 1
        if deployment.metadata.annotations.get(REVISION) != str(
            number
        ):  # kubectl's undo rewrites a map that must exist
            name, namespace = deployment.metadata.name, deployment.metadata.namespace
            await self._view.modify(Deployment, name, namespace, _annotated({REVISION: str(number)}))
        wait = deployment.spec.min_ready_seconds
        if new.spec.min_ready_seconds == wait and revision_of(new) == number:
            return

        def adapt(found: ReplicaSet) -> ReplicaSet:
            found = with_meta(found, annotations={**found.metadata.annotations, REVISION: str(number)})
            return replace(found, spec=replace(found.spec, min_ready_seconds=wait))

        await self._view.modify(ReplicaSet, new.metadata.name, new.metadata.namespace, adapt)

    async def _mark_first_to_go(self, pod: str, namespace: str) -> None:
        if self._view.find(Pod, pod, namespace) is not None:
            await self._view.modify(Pod, pod, namespace, first_to_go)

    async def _go_back(self, deployment: Deployment, target: ReplicaSet) -> None:
        wanted = target.metadata.annotations.get(WANTED, "")
        hashed = template_hash(deployment.spec.template)

        def restore(found: Deployment) -> Deployment | None:
            if template_hash(found.spec.template) != hashed:
                return None  # somebody wished for something else meanwhile
            replicas = int(wanted) if wanted.isdigit() else found.spec.replicas
            return replace(found, spec=replace(found.spec, template=template_of(target), replicas=replicas))

        await self._view.modify(Deployment, deployment.metadata.name, deployment.metadata.namespace, restore)


def _scaled(size: int) -> Callable[[ReplicaSet], ReplicaSet | None]:
    def change(found: ReplicaSet) -> ReplicaSet:
        return replace(found, spec=replace(found.spec, replicas=size))

    return change


def _annotated(marks: dict[str, str]) -> Callable[[T], T | None]:
    def change(found: T) -> T:
        return with_meta(found, annotations={**found.metadata.annotations, **marks})

    return change


def _given_up(hashed: str) -> Callable[[Deployment], Deployment | None]:
    def change(found: Deployment) -> Deployment | None:
        if template_hash(found.spec.template) != hashed:
            return None
        return with_meta(found, annotations={**found.metadata.annotations, FAILED_REVISION: hashed})

    return change
