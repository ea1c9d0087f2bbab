"""Which container of which pod a request means, refused in Kubernetes' words when there is none."""

from dataclasses import dataclass

from korch.api.answers import Refusal, bad_request, not_found
from korch.api.requestinfo import RequestInfo
from korch.objects.objects import Objects
from korch.resources.kinds import POD
from korch.resources.pod import ContainerStatus, Pod
from korch.resources.podstate import DEFAULT_CONTAINER, statuses_of

_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Target:
    """A container of a pod that has a node."""

    pod: Pod
    container: str

    @property
    def name(self) -> str:
        """Of the pod."""
        return self.pod.metadata.name

    @property
    def node(self) -> str:
        """Where it runs."""
        return self.pod.spec.node_name

    @property
    def status(self) -> ContainerStatus | None:
        """What was last reported of it."""
        return next((found for found in statuses_of(self.pod) if found.name == self.container), None)


async def find_pod(objects: Objects, info: RequestInfo) -> Pod:
    """The pod of a path."""
    pod = await objects.find(Pod, info.name, info.namespace)
    if pod is None:
        raise not_found(POD, info.name)
    return pod


def container_of(pod: Pod, wanted: str) -> Target:
    """The container of that name; "" is the only one, or the one that the pod's annotation says."""
    own = [container.name for container in pod.spec.containers]
    first = [container.name for container in pod.spec.init_containers]
    usual = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
    if not wanted:
        if usual in own:
            return Target(pod, usual)
        if len(own) > 1:
            also = f" or one of the init containers: [{' '.join(first)}]" if first else ""
            names = " ".join(own)
            text = f"a container name must be specified for pod {pod.metadata.name}, choose one of: [{names}]{also}"
            raise bad_request(text)
        return Target(pod, own[0])
    if wanted not in own and wanted not in first:
        raise bad_request(f"container {wanted} is not valid for pod {pod.metadata.name}")
    return Target(pod, wanted)


def must_have_begun(target: Target, *, previous: bool) -> None:
    """Refuses a log that cannot be there: of a container that has not been started, or has not been started again."""
    name, status = target.container, target.status
    if previous:
        if status is None or (status.last_state.terminated is None and status.restart_count == 0):
            raise bad_request(f'previous terminated container "{name}" in pod "{target.name}" not found')
        return
    state = status.state if status is not None else None
    if status is None or (state is not None and state.waiting is not None and not status.container_id):
        reason = (state.waiting.reason if state is not None and state.waiting is not None else "") or _why(target.pod)
        raise bad_request(f'container "{name}" in pod "{target.name}" is waiting to start: {reason}')


def _why(pod: Pod) -> str:
    return pod.status.reason or "ContainerCreating"


def must_be_entered(pod: Pod) -> None:
    """Refuses what is not on a node, or has ended."""
    if pod.status.phase in _ENDED:
        text = f"cannot exec into a container in a completed pod; current phase is {pod.status.phase}"
        raise bad_request(text)
    if not pod.spec.node_name:
        raise bad_request(f"pod {pod.metadata.name} does not have a host assigned")


def gone(target: Target) -> Refusal:
    """The engine has no such container (any more)."""
    return Refusal(404, f'container "{target.container}" of pod "{target.name}" is not on {target.node} any more')
