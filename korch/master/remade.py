"""Sets and pods as they must have been, from a wish and the labels of running containers. Pure."""

import uuid
from collections.abc import Sequence

from msgspec.structs import replace

from korch.controllers.daemonset import HASH_LABEL, daemon_for
from korch.controllers.deployment import set_from
from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.resources.codec import with_meta
from korch.resources.images import PINNED, has_sandbox, pinned_template
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.podstate import owner_reference
from korch.resources.templates import PUBLISH_ANNOTATION, TEMPLATE_HASH_LABEL, spec_hash
from korch.resources.workload import DaemonSet, Deployment, PodTemplateSpec, ReplicaSet

ADOPTED = "korch.dev/adopted"  # annotation: made from a container alone, as no node knows the wish behind it


def remade_set(deployment: Deployment, template: PodTemplateSpec, hashed: str, revision: int) -> ReplicaSet:
    """The set of `template` whose pods carry the hash `hashed`; its uid is the same however often it is made."""
    made = set_from(replace(deployment, spec=replace(deployment.spec, template=template)), revision)
    spec = made.spec
    labels = {**spec.template.metadata.labels, TEMPLATE_HASH_LABEL: hashed}
    wanted = {**spec.selector.match_labels, TEMPLATE_HASH_LABEL: hashed}
    marked = replace(
        spec,
        selector=replace(spec.selector, match_labels=wanted),
        template=replace(spec.template, metadata=replace(spec.template.metadata, labels=labels)),
    )
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{deployment.metadata.uid}/{hashed}"))
    name = f"{deployment.metadata.name}-{hashed}"
    return with_meta(replace(made, spec=marked), name=name, uid=uid, generation=1, labels=labels)


def guessed_template(deployment: Deployment, hashed: str, seen: ObservedContainer) -> PodTemplateSpec:
    """Something like the template of a container whose wish no node remembers: never equal to a real one."""
    template = deployment.spec.template
    if has_sandbox(template.spec):
        notes = {key: text for key, text in template.metadata.annotations.items() if key != PINNED} | {ADOPTED: hashed}
        return replace(template, metadata=replace(template.metadata, annotations=notes))
    containers = tuple(replace(found, image=seen.image or found.image) for found in template.spec.containers)
    notes = {**template.metadata.annotations, ADOPTED: hashed}
    guessed = replace(
        template,
        metadata=replace(template.metadata, annotations=notes),
        spec=replace(template.spec, containers=containers),
    )
    return pinned_template(guessed, seen.image_id)


def pod_of_set(owner: ReplicaSet, who: Identity, node: str) -> Pod:
    """The set's pod behind a container: name and uid are the container's."""
    template = owner.spec.template
    meta = ObjectMeta(
        name=who.pod,
        namespace=who.namespace,
        uid=who.uid,
        generation=1,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
        owner_references=(owner_reference(owner),),
    )
    return placed(Pod(metadata=meta, spec=template.spec), node)


def pod_of_daemons(owner: DaemonSet, who: Identity, node: str) -> Pod:
    """The daemon set's pod behind a container; one of another template than the wish's does not carry its hash."""
    template = owner.spec.template
    made = daemon_for(owner, node)
    wanted = spec_hash(template.spec, publish=template.metadata.annotations.get(PUBLISH_ANNOTATION, ""))
    labels = made.metadata.labels if who.spec_hash == wanted else {**made.metadata.labels, HASH_LABEL: "adopted"}
    return placed(with_meta(made, name=who.pod, uid=who.uid, generation=1, labels=labels), node)


def bare_pod(who: Identity, seen: ObservedContainer, node: str, every: Sequence[ObservedContainer] = ()) -> Pod:
    """A pod that says no more than its containers do: of several those that run."""
    meta = ObjectMeta(name=who.pod, namespace=who.namespace, uid=who.uid, generation=1, annotations={ADOPTED: "labels"})
    always = seen.restart_policy in {"always", "unless-stopped"}
    running = [one for one in every if one.state == "running" and one.identity and one.identity.container != SANDBOX]
    spec = PodSpec(
        containers=tuple(
            Container(name=one.identity.container, image=one.image or one.image_id)
            for one in running or [seen]
            if one.identity is not None
        ),
        restart_policy="Always" if always else "Never",
    )
    return placed(Pod(metadata=meta, spec=spec), node)


def placed(pod: Pod, node: str) -> Pod:
    """The pod on its node."""
    return replace(pod, spec=replace(pod.spec, node_name=node))
