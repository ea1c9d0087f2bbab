"""The registry of kinds: what exists, under which name, and where it is stored."""

from dataclasses import dataclass

from korch.errors import InvalidError
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.meta import Object
from korch.resources.misc import Event, Lease, Namespace, Secret
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `short`: kubectl's abbreviations; `has_status`: spec and status are written apart.

    `categories`: words such as `all` that stand for it too; `scalable`: it has `/scale`; `returned`: the API answers a
    deletion with the object (what Kubernetes' clients expect of some kinds) and not with a Status.
    """

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool
    type: type[Object]
    short: tuple[str, ...] = ()
    has_status: bool = True
    categories: tuple[str, ...] = ()
    scalable: bool = False
    returned: bool = False

    @property
    def singular(self) -> str:
        """As people write one of it: `deployment`."""
        return self.name.lower()

    @property
    def api_version(self) -> str:
        """`apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def prefix(self, namespace: str = "") -> str:
        """Where its objects (of one namespace) are stored; ends in a slash."""
        base = f"/{self.group or 'core'}/{self.plural}/"
        return f"{base}{namespace}/" if self.namespaced and namespace else base

    def key(self, namespace: str, name: str) -> str:
        """The store key `/GROUP/PLURAL/NAMESPACE/NAME`; cluster-wide kinds have no namespace part."""
        return f"{self.prefix(namespace)}{name}"


NODE = Kind("", "v1", "Node", "nodes", False, Node, ("no",))
POD = Kind("", "v1", "Pod", "pods", True, Pod, ("po",), categories=("all",), returned=True)
SECRET = Kind("", "v1", "Secret", "secrets", True, Secret, (), has_status=False)
EVENT = Kind("", "v1", "Event", "events", True, Event, ("ev",), has_status=False)
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", False, Namespace, ("ns",))
REPLICASET = Kind(
    "apps", "v1", "ReplicaSet", "replicasets", True, ReplicaSet, ("rs",), categories=("all",), scalable=True
)
DEPLOYMENT = Kind(
    "apps", "v1", "Deployment", "deployments", True, Deployment, ("deploy",), categories=("all",), scalable=True
)
BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, PodDisruptionBudget, ("pdb",))
DAEMONSET = Kind("apps", "v1", "DaemonSet", "daemonsets", True, DaemonSet, ("ds",), categories=("all",))
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases", True, Lease, (), has_status=False)
NODELOAD = Kind("korch.dev", "v1", "NodeLoad", "nodeloads", False, NodeLoad, (), has_status=False)

KINDS: tuple[Kind, ...] = (
    *(NODE, POD, SECRET, EVENT, NAMESPACE),
    *(REPLICASET, DEPLOYMENT, DAEMONSET, BUDGET),
    *(LEASE, NODELOAD),
)

_BY_TYPE: dict[type[Object], Kind] = {kind.type: kind for kind in KINDS}
_BY_WORD: dict[str, Kind] = {
    word: kind for kind in KINDS for word in (kind.plural, kind.name.lower(), kind.name, *kind.short)
}


def kind_of(obj: Object) -> Kind:
    """The kind of a typed object."""
    return _BY_TYPE[type(obj)]


def kind_of_type(type_: type[Object]) -> Kind:
    """The kind of a Python type."""
    return _BY_TYPE[type_]


def kind_named(word: str) -> Kind:
    """The kind for a word of the command line: `pods`, `pod`, `po`, `deployment`, `deployments.apps`."""
    found = _BY_WORD.get(word) or _BY_WORD.get(word.split(".", maxsplit=1)[0].lower())
    if found is None:
        known = ", ".join(sorted(kind.plural for kind in KINDS))
        raise InvalidError(f'there is no kind "{word}"', hint=f"korch knows: {known}.")
    return found


def kind_for(api_version: str, name: str) -> Kind:
    """The kind for a manifest's `apiVersion` and `kind`."""
    for kind in KINDS:
        if kind.name == name and kind.api_version == api_version:
            return kind
    same = [kind.api_version for kind in KINDS if kind.name == name]
    if same:
        raise InvalidError(f'kind {name} has apiVersion "{same[0]}", not "{api_version}"')
    known = ", ".join(kind.name for kind in KINDS)
    raise InvalidError(f'kind "{name}" (apiVersion "{api_version}") is not supported', hint=f"korch knows: {known}.")
