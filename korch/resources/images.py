"""Which image a pod runs: the tag that people wrote, and the exact image that it stood for when it was deployed."""

from msgspec.structs import replace

from korch.resources.meta import ObjectMeta
from korch.resources.pod import Pod
from korch.resources.workload import PodTemplateSpec

PINNED = "korch.dev/image"  # annotation of a template: `repo@sha256:...`, or the id of an image that no registry has


def image_reference(pod: Pod) -> str:
    """What the node's engine is asked to run."""
    return pod.metadata.annotations.get(PINNED) or pod.spec.containers[0].image


def pull_policy_of(pod: Pod) -> str:
    """ "Never", "Always" or "IfNotPresent". An exact image cannot change: where it is, there is nothing to pull."""
    policy = pod.spec.containers[0].image_pull_policy
    reference = image_reference(pod)
    exact = "@sha256:" in reference or reference.startswith("sha256:")
    return "IfNotPresent" if not policy or (policy == "Always" and exact) else policy


def pinned_template(template: PodTemplateSpec, exact: str) -> PodTemplateSpec:
    """The template with its image pinned: a tag that moves later makes another template, and undo can go back."""
    return replace(template, metadata=pinned_meta(template.metadata, exact))


def pinned_meta(meta: ObjectMeta, exact: str) -> ObjectMeta:
    """The metadata of a template or pod with the exact image on record."""
    return replace(meta, annotations={**meta.annotations, PINNED: exact})
