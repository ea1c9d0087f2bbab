"""Steps of a rollout, told once each, from the changes of its pods."""

from collections.abc import Callable

from korch.client.base import Progress, Workload
from korch.objects.values import Change
from korch.resources.meta import Object
from korch.resources.pod import Pod
from korch.resources.podstate import is_ready, telling_status, unschedulable, workload_name


def phase_of(pod: Pod) -> tuple[str, str]:
    """(phase, message) of `Progress` for a pod."""
    if pod.status.reason == "NodeLost":
        return "lost", ""
    if pod.metadata.deletion_timestamp is not None:
        return "stopping", ""
    if not pod.spec.node_name:
        why = unschedulable(pod)
        return ("waiting", why) if why else ("created", "")
    if is_ready(pod):
        return "ready", ""
    status = telling_status(pod)
    if status is None:
        return "scheduled", ""
    waiting, ended = status.state.waiting, status.state.terminated
    if waiting is not None:
        known = {"Pulling": "pulling", "ContainerCreating": "starting", "PodInitializing": "starting"}
        return (
            (known[waiting.reason], "")
            if waiting.reason in known
            else ("failed", f"{waiting.reason}: {waiting.message}")
        )
    if ended is not None:
        return "failed", f"exited with status {ended.exit_code}"
    return "running", ""


class Reporter:
    """Calls `on_progress` once per pod and phase."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._tell = on_progress
        self._last: dict[str, tuple[str, str]] = {}
        self._changed: set[Workload] = set()

    def pod(self, change: Change[Object]) -> None:
        """A pod changed."""
        pod = change.object
        assert isinstance(pod, Pod)
        step = ("gone", "") if change.type == "DELETED" else phase_of(pod)
        before = self._last.get(pod.metadata.uid)
        self._last[pod.metadata.uid] = step
        if step == before or (before is None and step[0] in {"ready", "gone"}):
            return  # it stood before this run
        workload = Workload(pod.metadata.namespace, workload_name(pod))
        self._changed.add(workload)
        self._tell(Progress(workload, pod.metadata.name, pod.spec.node_name, step[0], step[1]))

    def say(self, text: str) -> None:
        """A sentence about the run as a whole."""
        if text:
            self._tell(Progress(Workload("", ""), "", "", "note", text))

    def changed(self, workload: Workload) -> bool:
        """Whether any pod of the workload took a step in this run."""
        return workload in self._changed
