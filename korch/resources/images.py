"""Which images a pod runs: the tags that people wrote, and the exact images that they stood for when it was pinned."""

from collections.abc import Mapping

from msgspec.structs import replace

from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.templates import PUBLISH_ANNOTATION, spec_hash
from korch.resources.workload import PodTemplateSpec

# Annotation of a template: `repo@sha256:...`, or the id of an image that no registry has. Of a pod with several
# containers: NAME=IMAGE for each, with commas between them.
PINNED = "korch.dev/image"
# Annotation of a pod some of whose images were changed: what those containers had when it was made, in the same words.
FIRST_IMAGES = "korch.dev/first-images"


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
        return _pairs(text)
    return {spec.containers[0].name: text} if text and spec.containers else {}


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _text(pairs: Mapping[str, str]) -> str:
    return ",".join(f"{name}={image}" for name, image in pairs.items())


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
    return _text({container.name: exact[container.name] for container in containers_of(spec)})


def pinned_template(template: PodTemplateSpec, exact: str) -> PodTemplateSpec:
    """The template with its images pinned: a tag that moves later makes another template, and undo can go back."""
    return replace(template, metadata=pinned_meta(template.metadata, exact))


def pinned_meta(meta: ObjectMeta, exact: str) -> ObjectMeta:
    """The metadata of a template or pod with the exact images (see `pin_text`) on record."""
    return replace(meta, annotations={**meta.annotations, PINNED: exact})


def first_images(pod: Pod) -> dict[str, str]:
    """What the containers whose image was changed since the pod was made had at first, by container."""
    return _pairs(pod.metadata.annotations.get(FIRST_IMAGES, ""))


def with_images(spec: PodSpec, images: Mapping[str, str]) -> PodSpec:
    """The spec with these images by container; the others stay."""

    def changed(container: Container) -> Container:
        return replace(container, image=images.get(container.name, container.image))

    return replace(
        spec,
        containers=tuple(map(changed, spec.containers)),
        init_containers=tuple(map(changed, spec.init_containers)),
    )


def noted_images(new: Pod, old: Pod) -> dict[str, str]:
    """The annotations of `new` with the changes of images since `old`: what they were at first, and no exact old ones.

    The record is korch's own: who leaves it out, as a replaced manifest does, does not take it away.
    """
    before = {container.name: container.image for container in containers_of(old.spec)}
    now = containers_of(new.spec)
    changed = {one.name: before[one.name] for one in now if before.get(one.name, one.image) != one.image}
    first, notes = changed | first_images(old), dict(new.metadata.annotations)
    notes.pop(FIRST_IMAGES, None)
    if first:
        notes[FIRST_IMAGES] = _text(first)
    if changed and notes.get(PINNED, "") == old.metadata.annotations.get(PINNED, ""):
        left = {name: text for name, text in exact_images(notes, new.spec).items() if name not in changed}
        notes.pop(PINNED, None)
        if left:
            notes[PINNED] = _text(left)
    return notes


def made_hash(pod: Pod, container: str) -> str:
    """Stands for all that a container of the pod ("": or its sandbox) is made from.

    As the pod was at first, but for this very container's image: what is done to one is nothing to the others.
    """
    others = {name: image for name, image in first_images(pod).items() if name != container}
    spec = with_images(pod.spec, others) if others else pod.spec
    return spec_hash(spec, publish=pod.metadata.annotations.get(PUBLISH_ANNOTATION, ""))
