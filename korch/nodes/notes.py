"""What a keeper tells the store about the pods of its node: status, events, and which revisions failed there."""

from msgspec.structs import replace

from korch.errors import NotFoundError
from korch.nodes.podstatus import unready_status, waiting_status
from korch.objects.objects import Clock
from korch.objects.view import View
from korch.resources.blame import blame
from korch.resources.pod import Pod, PodStatus
from korch.resources.podstate import condition, controller_of
from korch.resources.workload import DaemonSet, ReplicaSet


class Notes:
    """Writes for one node. A pod that went, or that another has taken the place of, is none of its business."""

    def __init__(self, node: str, address: str, view: View, clock: Clock) -> None:
        self.node, self.address = node, address
        self._view, self._clock = view, clock

    def now(self) -> float:
        """Unix seconds."""
        return self._clock.now()

    def current(self, pod: Pod) -> Pod | None:
        """The pod as it is known now; None when it is gone, or another one has its name."""
        found = self._view.find(Pod, pod.metadata.name, pod.metadata.namespace)
        return found if found is not None and found.metadata.uid == pod.metadata.uid else None

    def settle_s(self, pod: Pod) -> int:
        """How long its set wants the pod to have run well."""
        owner, namespace = controller_of(pod), pod.metadata.namespace
        found: ReplicaSet | DaemonSet | None = None
        if owner is not None and owner.kind == "ReplicaSet":
            found = self._view.find(ReplicaSet, owner.name, namespace)
        elif owner is not None and owner.kind == "DaemonSet":
            found = self._view.find(DaemonSet, owner.name, namespace)
        return found.spec.min_ready_seconds if found is not None else 0

    async def status(self, pod: Pod, status: PodStatus) -> None:
        """Write a status that was made from `pod`, unless somebody else wrote another one since: look again then."""
        if status == pod.status:
            return
        meta = pod.metadata

        def change(found: Pod) -> Pod | None:
            if found.metadata.uid != meta.uid:
                return None
            judged = found.metadata.resource_version == meta.resource_version or found.status == pod.status
            return replace(found, status=status) if judged else None

        try:
            await self._view.modify(Pod, meta.name, meta.namespace, change, status=True)
        except NotFoundError:
            return

    async def waiting(self, pod: Pod, container: str, reason: str, message: str) -> None:
        """A container of the pod does not stand (yet), and why; of a sandbox, all that wait for it."""
        fresh = self.current(pod)
        if fresh is not None:
            status = waiting_status(fresh, reason, message, now=self.now(), host_ip=self.address, container=container)
            await self.status(fresh, status)

    async def unready(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        """A container (or all) is about to be ended; returns once that is on record, unless the pod is gone."""
        now = self.now()

        def change(found: Pod) -> Pod | None:
            ready = condition(found.status.conditions, "Ready")
            if found.metadata.uid != pod.metadata.uid or ready is None or ready.status != "True":
                return None
            return replace(found, status=unready_status(found, reason, message, now=now, container=container))

        try:
            await self._view.modify(Pod, pod.metadata.name, pod.metadata.namespace, change, status=True)
        except NotFoundError:
            return

    async def event(self, pod: Pod, reason: str, message: str, *, warning: bool = True) -> None:
        """Something happened to the pod."""
        await self._view.objects.record_event(
            pod, type="Warning" if warning else "Normal", reason=reason, message=message, component="keeper"
        )

    async def hook(self, pod: Pod, container: str, problem: str) -> None:
        """A container's hook before its end went wrong, unless `problem` is empty."""
        if problem:
            await self.event(pod, "FailedPreStopHook", f"preStop of {container}: {problem}")

    async def blame(self, pod: Pod) -> None:
        """Put on record that the pod's revision failed here, so that its next replica prefers another node."""
        owner = _set_of(pod)
        if not owner:
            return
        now = self.now()
        try:
            await self._view.modify(
                ReplicaSet, owner, pod.metadata.namespace, lambda found: blame(found, self.node, now)
            )
        except NotFoundError:
            return


def _set_of(pod: Pod) -> str:
    owner = controller_of(pod)
    return owner.name if owner is not None and owner.kind == "ReplicaSet" else ""
