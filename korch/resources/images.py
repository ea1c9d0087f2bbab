"""Which images a pod runs: the tags that people wrote, and the exact images that they stood for when it was pinned."""

from collections.abc import Mapping

from msgspec.structs import replace

from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.workload import PodTemplateSpec

# Annotation of a template: `repo@sha256:...`, or the id of an image that no registry has. Of a pod with several
# containers: NAME=IMAGE for each, with commas between them.
PINNED = "korch.dev/image"


def containers_of(spec: PodSpec) -> tuple[Container, ...]:
    """All containers of a pod, in the order in which they are started."""
    return (*spec.init_containers, *spec.containers)


def sidecars_of(spec: PodSpec) -> tuple[Container, ...]:
    """The init containers that go on: the ones after them need not wait for their end, but for their start."""
    return tuple(container for container in spec.init_containers if container.restart_policy == "Always")


def has_sandbox(spec: PodSpec) -> bool:
    """Whether a pod's containers share a network, which a sandbox holds for them; one alone has its own."""
    return len(spec.containers) > 1 or bool(spec.init_containers)


def exact_images(annotations: Mapping[str, str], spec: PodSpec) -> dict[str, str]:
    """What is on record of a pod's exact images, by container."""
    text = annotations.get(PINNED, "")
    if "=" in text:
        return dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    return {spec.containers[0].name: text} if text and spec.containers else {}


def image_references(annotations: Mapping[str, str], spec: PodSpec) -> dict[str, str]:
    """What a node's engine is asked to run for each container."""
    exact = exact_images(annotations, spec)
    return {container.name: exact.get(container.name) or container.image for container in containers_of(spec)}


def image_reference(pod: Pod, container: Container | None = None) -> str:
    """What the node's engine is asked to run for a container, by default the first one."""
    container = container or pod.spec.containers[0]
    return exact_images(pod.metadata.annotations, pod.spec).get(container.name) or container.image


def pull_policy_of(pod: Pod, container: Container | None = None) -> str:
    """ "Never", "Always" or "IfNotPresent". An exact image cannot change: where it is, there is nothing to pull."""
    container = container or pod.spec.containers[0]
    policy, reference = container.image_pull_policy, image_reference(pod, container)
    exact = "@sha256:" in reference or reference.startswith("sha256:")
    return "IfNotPresent" if not policy or (policy == "Always" and exact) else policy


def pin_text(spec: PodSpec, exact: Mapping[str, str]) -> str:
    """The annotation's text for these images by container."""
    if not has_sandbox(spec):
        return exact[spec.containers[0].name]
    return ",".join(f"{container.name}={exact[container.name]}" for container in containers_of(spec))


def pinned_template(template: PodTemplateSpec, exact: str) -> PodTemplateSpec:
    """The template with its images pinned: a tag that moves later makes another template, and undo can go back."""
    return replace(template, metadata=pinned_meta(template.metadata, exact))


def pinned_meta(meta: ObjectMeta, exact: str) -> ObjectMeta:
    """The metadata of a template or pod with the exact images (see `pin_text`) on record."""
    return replace(meta, annotations={**meta.annotations, PINNED: exact})
