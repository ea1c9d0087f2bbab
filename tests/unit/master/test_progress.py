"""Steps of a rollout as they are told."""

from msgspec.structs import replace

from korch.master.progress import phase_of
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.pod import ContainerState, ContainerStateRunning, ContainerStatus, Pod, PodSpec, PodStatus


def test_a_pod_on_a_lost_node_is_lost_also_while_it_is_being_deleted() -> None:
    running = ContainerStatus(name="app", state=ContainerState(running=ContainerStateRunning()))
    pod = Pod(
        metadata=ObjectMeta(name="p"),
        spec=PodSpec(node_name="n1"),
        status=PodStatus(container_statuses=(running,), conditions=(Condition(type="Ready", status="False"),)),
    )
    assert phase_of(pod) == ("running", "")
    lost = replace(pod, status=replace(pod.status, phase="Failed", reason="NodeLost"))
    assert phase_of(lost) == ("lost", "")
    leaving = replace(lost.metadata, deletion_timestamp="2026-01-01T00:00:00Z")
    assert phase_of(replace(lost, metadata=leaving)) == ("lost", "")
    assert phase_of(replace(pod, metadata=leaving)) == ("stopping", "")
