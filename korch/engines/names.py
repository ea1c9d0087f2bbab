"""What korch calls its things in an engine: container and volume names, labels. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

LABEL_CLUSTER = "korch.dev/cluster"
SANDBOX = "POD"  # stands for a container's name in a sandbox's labels; no container of a pod can have capitals in its
_PREFIX = "korch.dev/"
_NAME_LIMIT = 200  # engines set no limit; file systems stop at 255 bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose container it is. All of it stands in the container's labels."""

    cluster: str  # the cluster's id
    namespace: str
    pod: str
    uid: str  # of the pod
    container: str  # "" for all of the pod's
    owner: str = ""  # the workload that it is a replica of, such as "web"
    generation: int = 0
    spec_hash: str = ""


def short_uid(uid: str) -> str:
    """Eight characters that stand for a pod uid in names; the whole uid is in the labels."""
    plain = re.sub(r"[^a-z0-9]", "", uid.lower())
    return plain[:8] if len(plain) >= 8 else hashlib.sha256(uid.encode()).hexdigest()[:8]


def container_name(cluster_name: str, namespace: str, pod: str, container: str, uid: str) -> str:
    """`korch_CLUSTER_NAMESPACE_POD_CONTAINER_UID8`: the same for the same pod, so that a second start fails.

    `_` occurs in none of the parts. A name past 200 characters keeps its head and end around a digest of the whole.
    """
    name = "_".join(("korch", cluster_name, namespace, pod, container, short_uid(uid)))
    if len(name) <= _NAME_LIMIT:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: _NAME_LIMIT - 22]}_{digest}_{short_uid(uid)}"


def volume_name(cluster_id: str, namespace: str, name: str) -> str:
    """The engine's name of a korch volume: `korch_CLUSTERID8_NAMESPACE_NAME`; stays when the cluster is adopted."""
    return f"{volume_prefix(cluster_id)}{namespace}_{name}"


def volume_prefix(cluster_id: str) -> str:
    """How the names of all volumes of a cluster begin."""
    return f"korch_{short_uid(cluster_id)}_"


def volume_of(cluster_id: str, engine_name: str) -> str:
    """`NAMESPACE/NAME` of an engine's volume, or "" when it is not this cluster's."""
    head = volume_prefix(cluster_id)
    namespace, _, name = engine_name.removeprefix(head).partition("_")
    return f"{namespace}/{name}" if engine_name.startswith(head) and name else ""


def labels_of(identity: Identity) -> dict[str, str]:
    """The labels that a container carries."""
    return {
        LABEL_CLUSTER: identity.cluster,
        _PREFIX + "namespace": identity.namespace,
        _PREFIX + "pod": identity.pod,
        _PREFIX + "uid": identity.uid,
        _PREFIX + "container": identity.container,
        _PREFIX + "owner": identity.owner,
        _PREFIX + "generation": str(identity.generation),
        _PREFIX + "hash": identity.spec_hash,
    }


def identity_of(labels: Mapping[str, str]) -> Identity | None:
    """What the labels say, or None when it is not a container of any korch cluster."""
    if not labels.get(LABEL_CLUSTER) or not labels.get(_PREFIX + "uid"):
        return None
    generation = labels.get(_PREFIX + "generation", "")
    return Identity(
        cluster=labels[LABEL_CLUSTER],
        namespace=labels.get(_PREFIX + "namespace", ""),
        pod=labels.get(_PREFIX + "pod", ""),
        uid=labels[_PREFIX + "uid"],
        container=labels.get(_PREFIX + "container", ""),
        owner=labels.get(_PREFIX + "owner", ""),
        generation=int(generation) if generation.isdecimal() else 0,
        spec_hash=labels.get(_PREFIX + "hash", ""),
    )
