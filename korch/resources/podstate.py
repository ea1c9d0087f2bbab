"""What a pod's status means to those who count pods. Pure."""

import re

from msgspec.structs import replace

from korch.errors import NotFoundError
from korch.resources.images import first_images, sidecars_of
from korch.resources.kinds import kind_of
from korch.resources.meta import Condition, Object, OwnerReference
from korch.resources.pod import ContainerPort, ContainerStatus, Pod
from korch.resources.templates import TEMPLATE_HASH_LABEL
from korch.resources.times import parse_time
from korch.resources.validate_volumes import VOLUME_DRIVER

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def condition(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """The condition of one type, or None."""
    return next((found for found in conditions if found.type == type_), None)


def with_condition(conditions: tuple[Condition, ...], new: Condition, now_text: str) -> tuple[Condition, ...]:
    """The conditions with one set; its transition time changes only with its status."""
    old = condition(conditions, new.type)
    since = old.last_transition_time if old is not None and old.status == new.status else now_text
    stamped = replace(new, last_transition_time=since)
    return (*(other for other in conditions if other.type != new.type), stamped)


def is_counted(pod: Pod) -> bool:
    """Stands for a replica: neither on its way out nor ended."""
    return pod.metadata.deletion_timestamp is None and pod.status.phase not in {"Failed", "Succeeded"}


def is_ready(pod: Pod) -> bool:
    """Runs, and its readiness check (if it has one) passes."""
    found = condition(pod.status.conditions, "Ready")
    return is_counted(pod) and found is not None and found.status == "True"


def is_available(pod: Pod, min_ready_s: int, now: float) -> bool:
    """Ready for at least `min_ready_s` seconds, and seen to be so after them: a restart in between begins anew."""
    found = condition(pod.status.conditions, "Ready")
    if not is_ready(pod) or found is None:
        return False
    return not min_ready_s or ready_for_s(found, now) >= min_ready_s


def ready_for_s(ready: Condition, now: float) -> float:
    """Seconds from when a pod became ready to when it was last seen so; to `now` where nobody notes looks."""
    seen = parse_time(ready.last_probe_time) if ready.last_probe_time else now
    return seen - parse_time(ready.last_transition_time or "")


def unschedulable(pod: Pod) -> str:
    """Why no node suits the pod, or ""."""
    found = condition(pod.status.conditions, "PodScheduled")
    return found.message if found is not None and found.status == "False" and not pod.spec.node_name else ""


def removal_order(pod: Pod) -> tuple[int, int, int, str]:
    """Which pods go first: unplaced, cheap, unready, then by name (after Kubernetes' ActivePods)."""
    return (int(bool(pod.spec.node_name)), _cost(pod), int(is_ready(pod)), pod.metadata.name)


def _cost(pod: Pod) -> int:
    """What the annotation says; anything but a whole number says nothing."""
    text = pod.metadata.annotations.get(DELETION_COST, "")
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else 0


def named_volumes(pod: Pod) -> tuple[str, ...]:
    """`NAMESPACE/NAME` of the node-local named volumes that it uses."""
    return tuple(
        f"{pod.metadata.namespace}/{volume.csi.volume_attributes.get('name', volume.name)}"
        for volume in pod.spec.volumes
        if volume.csi is not None and volume.csi.driver == VOLUME_DRIVER
    )


def main_status(pod: Pod) -> ContainerStatus | None:
    """The status of the pod's (first) container."""
    return pod.status.container_statuses[0] if pod.status.container_statuses else None


def statuses_of(pod: Pod) -> tuple[ContainerStatus, ...]:
    """What was last reported of all its containers, init containers first."""
    return (*pod.status.init_container_statuses, *pod.status.container_statuses)


def telling_status(pod: Pod) -> ContainerStatus | None:
    """The status of the container that the pod waits for: of several the first one that has something to say."""
    waiting = [status for status in statuses_of(pod) if not status.ready]
    dull = {"PodInitializing", "ContainerCreating"}
    telling = (status for status in waiting if status.state.waiting is None or status.state.waiting.reason not in dull)
    return next(telling, waiting[0] if waiting else main_status(pod))


def has_begun(pod: Pod) -> bool:
    """Whether any of its containers was made on its node, as far as that is on record."""
    return any(status.container_id for status in statuses_of(pod))


def changing_of(pod: Pod) -> tuple[str, ...]:
    """The containers whose image was changed, and that were still of the one before when they were last seen."""
    if not first_images(pod):
        return ()
    wanted = {one.name: one.image for one in (*sidecars_of(pod.spec), *pod.spec.containers)}
    there = [status for status in statuses_of(pod) if status.container_id]
    return tuple(status.name for status in there if status.image != wanted.get(status.name, status.image))


def published_of(pod: Pod) -> tuple[ContainerPort, ...]:
    """Where the ports of its containers are reached on the node, as last seen."""
    return tuple(port for status in pod.status.container_statuses for port in status.published)


def chosen_container(pod: Pod, wanted: str = "") -> str:
    """The container of this name, by default the one that the pod's annotation says, else the first."""
    names = [container.name for container in (*pod.spec.containers, *pod.spec.init_containers)]
    usual = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
    name = wanted or (usual if usual in names else names[0])
    if name not in names:
        raise NotFoundError(f'pod "{pod.metadata.name}" has no container "{name}"', hint=f"It has {', '.join(names)}.")
    return name


def owner_reference(owner: Object) -> OwnerReference:
    """`owner` as the controller of something."""
    kind = kind_of(owner)
    return OwnerReference(
        api_version=kind.api_version,
        kind=kind.name,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


LAST_LOG = "korch.dev/LastLog"  # condition: the container's last lines, kept when something went wrong
DIES_FOR_GOOD = frozenset(
    {"ImageNotFound", "InvalidImageName", "ImageRefused", "CreateContainerError", "RunContainerError", "PortTaken"}
)
PROBED_RESTARTS = 3  # an app with a health check may die this often while it waits for its neighbours


def failure_of(pod: Pod) -> str:
    """Why this pod will not become ready by waiting, with its last log lines; "" while there is hope."""
    if pod.status.phase == "Succeeded":
        return ""
    where = f"{pod.metadata.name} on {pod.spec.node_name or 'no node'}"
    several = len(pod.spec.containers) > 1 or bool(pod.spec.init_containers)
    for status in statuses_of(pod):
        why = _failure_of(pod, status, f"container {status.name}" if several else "the container")
        if why:
            return f"{where}: {why}"
    ready = condition(pod.status.conditions, "Ready")
    if pod.status.container_statuses and ready is not None and ready.reason == "ProbeFailed":
        return f"{where}: the health check failed: {ready.message}{last_log(pod)}"
    return ""


def _failure_of(pod: Pod, status: ContainerStatus, what: str) -> str:
    waiting = status.state.waiting
    if waiting is not None and waiting.reason in DIES_FOR_GOOD:
        return f"{waiting.reason}: {waiting.message}"
    ended = status.state.terminated or status.last_state.terminated
    if ended is None or (status.ready and status in pod.status.init_container_statuses):
        return ""
    checked = any(container.readiness_probe for container in pod.spec.containers)
    allowed = PROBED_RESTARTS if checked else 0
    if status.restart_count > allowed or (status.state.terminated and not allowed):
        how = f"exited with status {ended.exit_code}" if ended.exit_code >= 0 else "ended and was started again"
        return f"{what} {how}{last_log(pod)}"
    return ""


def last_log(pod: Pod) -> str:
    """The kept log lines, indented, as the end of a message; "" when there are none."""
    kept = condition(pod.status.conditions, LAST_LOG)
    if kept is None or not kept.message.strip():
        return ""
    return "\nlast log lines:\n" + "\n".join(f"    {line}" for line in kept.message.strip().splitlines())


def workload_name(obj: Object) -> str:
    """The name of the workload that a pod or set belongs to: its deployment's, else its set's, else its own.

    A set of a deployment is called DEPLOYMENT-HASH, and its pods carry the hash; a set of its own may have any name.
    """
    owner = controller_of(obj)
    if owner is None:
        return obj.metadata.name
    hashed = obj.metadata.labels.get(TEMPLATE_HASH_LABEL, "")
    return owner.name.removesuffix(f"-{hashed}") if owner.kind == "ReplicaSet" and hashed else owner.name


def controller_of(obj: Object) -> OwnerReference | None:
    """The owner that looks after the object, or None when it is on its own."""
    return next((ref for ref in obj.metadata.owner_references if ref.controller), None)
