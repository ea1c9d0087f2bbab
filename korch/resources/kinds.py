"""The registry of kinds: what exists, under which name, and where it is stored."""

import re
from collections.abc import Callable, Hashable, Iterable

import msgspec

from korch.errors import InvalidError
from korch.resources.autoscaling import HorizontalPodAutoscaler
from korch.resources.batch import CronJob, Job
from korch.resources.config import ConfigMap, ServiceAccount
from korch.resources.crd import CustomResourceDefinition
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.history import ControllerRevision
from korch.resources.limits import LimitRange, PriorityClass, ResourceQuota, StorageClass
from korch.resources.meta import Object
from korch.resources.misc import Event, Lease, Namespace, Secret
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from korch.resources.service import EndpointSlice, Ingress, IngressClass, NetworkPolicy, Service
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

_PLACE = re.compile(r"[a-z0-9.-]*/[a-z0-9-]+", re.ASCII)
_OWN = "korch.dev"  # below it the cluster keeps its own records: credentials, wishes, who leads
_OWN_KINDS = frozenset({"nodeloads"})


class Kind(msgspec.Struct, frozen=True):
    """One kind. `short`: kubectl's abbreviations; `has_status`: spec and status are written apart.

    `categories`: words such as `all` that stand for it too; `scalable`: it has `/scale`; `returned`: the API answers a
    deletion with the object (what Kubernetes' clients expect of some kinds) and not with a Status. Of custom kinds:
    words for one of it and for a list, and the fields that it is selected by (`spec.size`).
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
    one: str = ""
    list_kind: str = ""
    selectable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """No kind is stored where something else is kept, whatever a definition in the store says."""
        kept = self.group == _OWN and self.plural not in _OWN_KINDS
        if kept or not _PLACE.fullmatch(f"{self.group}/{self.plural}"):
            raise ValueError(f'"{self.plural}.{self.group}" can be no kind')

    @property
    def singular(self) -> str:
        """As people write one of it: `deployment`."""
        return self.one or self.name.lower()

    @property
    def list_name(self) -> str:
        """The kind of a list: `DeploymentList`."""
        return self.list_kind or f"{self.name}List"

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
CONFIGMAP = Kind("", "v1", "ConfigMap", "configmaps", True, ConfigMap, ("cm",), has_status=False)
SERVICEACCOUNT = Kind(
    "", "v1", "ServiceAccount", "serviceaccounts", True, ServiceAccount, ("sa",), has_status=False, returned=True
)
SERVICE = Kind("", "v1", "Service", "services", True, Service, ("svc",), categories=("all",), returned=True)
ENDPOINTSLICE = Kind(
    "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True, EndpointSlice, (), has_status=False
)
REVISION = Kind(
    "apps", "v1", "ControllerRevision", "controllerrevisions", True, ControllerRevision, (), has_status=False
)
JOB = Kind("batch", "v1", "Job", "jobs", True, Job, (), categories=("all",))
CRONJOB = Kind("batch", "v1", "CronJob", "cronjobs", True, CronJob, ("cj",), categories=("all",))
AUTOSCALER = Kind(
    *("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, HorizontalPodAutoscaler),
    short=("hpa",),
    categories=("all",),
)
CRD = Kind(
    *("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False),
    type=CustomResourceDefinition,
    short=("crd", "crds"),
    categories=("api-extensions",),
)
_RBAC, _NETWORK = "rbac.authorization.k8s.io", "networking.k8s.io"
ROLE = Kind(_RBAC, "v1", "Role", "roles", True, Role, (), has_status=False)
ROLEBINDING = Kind(_RBAC, "v1", "RoleBinding", "rolebindings", True, RoleBinding, (), has_status=False)
CLUSTERROLE = Kind(_RBAC, "v1", "ClusterRole", "clusterroles", False, ClusterRole, (), has_status=False)
CLUSTERROLEBINDING = Kind(
    _RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", False, ClusterRoleBinding, (), has_status=False
)
INGRESS = Kind(_NETWORK, "v1", "Ingress", "ingresses", True, Ingress, ("ing",))
INGRESSCLASS = Kind(_NETWORK, "v1", "IngressClass", "ingressclasses", False, IngressClass, (), has_status=False)
NETWORKPOLICY = Kind(
    _NETWORK, "v1", "NetworkPolicy", "networkpolicies", True, NetworkPolicy, ("netpol",), has_status=False
)
QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas", True, ResourceQuota, ("quota",), returned=True)
LIMITRANGE = Kind("", "v1", "LimitRange", "limitranges", True, LimitRange, ("limits",), has_status=False)
PRIORITYCLASS = Kind(
    "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, PriorityClass, ("pc",), has_status=False
)
STORAGECLASS = Kind(
    "storage.k8s.io", "v1", "StorageClass", "storageclasses", False, StorageClass, ("sc",), has_status=False
)

KINDS: tuple[Kind, ...] = (
    *(NODE, POD, SECRET, CONFIGMAP, EVENT, NAMESPACE, SERVICE, SERVICEACCOUNT),
    *(REPLICASET, DEPLOYMENT, DAEMONSET, REVISION, BUDGET),
    *(JOB, CRONJOB, AUTOSCALER, ENDPOINTSLICE),
    *(ROLE, ROLEBINDING, CLUSTERROLE, CLUSTERROLEBINDING, INGRESS, INGRESSCLASS, NETWORKPOLICY),
    *(QUOTA, LIMITRANGE, PRIORITYCLASS, STORAGECLASS, CRD),
    *(LEASE, NODELOAD),
)

_BY_TYPE: dict[type[Object], Kind] = {kind.type: kind for kind in KINDS}
_BY_WORD: dict[str, Kind] = {
    word: kind for kind in KINDS for word in (kind.plural, kind.name.lower(), kind.name, *kind.short)
}

# Kinds that users have brought along, by group and plural, each with a mark that changes with its definition. Types of
# former definitions stay known: objects of them may still be on their way.
_custom: dict[tuple[str, str], tuple[Hashable, Kind]] = {}


def every_kind() -> tuple[Kind, ...]:
    """All kinds, also custom ones."""
    return (*KINDS, *(kind for _, kind in _custom.values())) if _custom else KINDS


# Groups that are answered in by the API itself, or will be; and those of the kinds above.
_ANSWERED = ("authentication.k8s.io", "authorization.k8s.io", "events.k8s.io", "metrics.k8s.io")
_TAKEN = frozenset({_OWN, *_ANSWERED, *(kind.group for kind in KINDS)})


def is_taken(group: str) -> bool:
    """Whether a group is korch's, so that no definition adds to it. Those without a dot are Kubernetes' own."""
    return "." not in group or group in _TAKEN


def registered(group: str, plural: str, mark: Hashable, make: Callable[[], Kind]) -> Kind:
    """The custom kind of that name, made anew when its mark is another one."""
    if is_taken(group):
        raise ValueError(f'the group "{group}" has no custom kinds')
    found = _custom.get((group, plural))
    if found is None or found[0] != mark:
        found = _custom[group, plural] = (mark, make())
        _BY_TYPE[found[1].type] = found[1]
    return found[1]


def keep_only(names: Iterable[tuple[str, str]]) -> None:
    """Forget custom kinds whose (group, plural) is not among these."""
    kept = set(names)
    for name in [name for name in _custom if name not in kept]:
        del _custom[name]


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
