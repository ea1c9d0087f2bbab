"""What a node keeps of the workloads that it runs: their last full wish, from which a lost store is rebuilt. Pure."""

from msgspec.structs import replace

from korch.nodes.parcels import WorkloadRecord
from korch.objects.view import View
from korch.resources.annotations import DECISION
from korch.resources.codec import encode, with_meta
from korch.resources.kinds import kind_of
from korch.resources.pod import Pod
from korch.resources.podstate import controller_of, workload_name
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet


def workload_record(view: View, pod: Pod) -> WorkloadRecord | None:
    """The wish that a pod is part of: its deployment's, else its set's, else its own.

    None for a job: work that a lost store knew to be done is not to be done again because a node remembers it.
    """
    owner = controller_of(pod)
    if owner is None:
        return record_of(pod)
    if owner.kind == "Job":
        return None
    namespace = pod.metadata.namespace
    if owner.kind == "DaemonSet":
        return record_of(view.find(DaemonSet, owner.name, namespace) or pod)
    found = view.find(Deployment, workload_name(pod), namespace) or view.find(ReplicaSet, owner.name, namespace)
    return record_of(found or pod)


def record_of(workload: Deployment | ReplicaSet | DaemonSet | Pod) -> WorkloadRecord:
    """A workload's record, without what it came to: only the wish is kept."""
    kept = {key: text for key, text in workload.metadata.annotations.items() if key != DECISION}
    bare = with_meta(replace(workload, status=type(workload)().status), annotations=kept)
    meta = bare.metadata
    return WorkloadRecord(meta.namespace, f"{kind_of(bare).name}/{meta.name}", encode(bare))
