"""How lists and maps of each kind merge: by which keys, as sets, or only as a whole.

Readers: strategic merge patches (`merge_key`, `merges`, `replaced`), field ownership (`keys`, `unique`, `atomic`) and
the published schemas, from which clients make their patches. What is not said here is the common case: maps merge field
by field, lists change as a whole. The facts are those of Kubernetes' own schemas (x-kubernetes-patch-merge-key,
x-kubernetes-list-type and their kin).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """One value: of a map its `fields` (`rest`: of keys not named there), of a list those of its items.

    `merge_key`: a patch finds items of the list by it; `merges`: it unites lists of scalars; `replaced`: it replaces
    the map; `retains`: one member excludes others, so clients send $retainKeys. `keys`: ownership is kept by item of
    the list, found by these (a missing one counts as `defaults` say); `unique`: by value; `atomic`: of the whole map.
    """

    fields: Mapping[str, "Shape"] = field(default_factory=dict)
    rest: "Shape | None" = None
    merge_key: str = ""
    merges: bool = False
    replaced: bool = False
    retains: bool = False
    keys: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unique: bool = False
    atomic: bool = False

    def child(self, name: str) -> "Shape":
        """The shape of one member."""
        return self.fields.get(name) or self.rest or PLAIN


PLAIN = Shape()
_ATOMIC = Shape(atomic=True)


def _by(key: str, items: Shape = PLAIN, *more: str, **defaults: Any) -> Shape:
    """A list whose items have the keys; the first one alone serves patches."""
    return replace(items, merge_key=key, keys=(key, *more), defaults=defaults)


def _map(**fields: Shape) -> Shape:
    return Shape(fields=fields)


_CONDITIONS = _by("type")
_META = _map(ownerReferences=_by("uid", _ATOMIC), finalizers=Shape(merges=True, unique=True))
_RESOURCES = _map(claims=Shape(keys=("name",)))
_ENV = _map(
    valueFrom=_map(fieldRef=_ATOMIC, resourceFieldRef=_ATOMIC, configMapKeyRef=_ATOMIC, secretKeyRef=_ATOMIC),
)
_CONTAINER = _map(
    ports=_by("containerPort", PLAIN, "protocol", protocol="TCP"),
    env=_by("name", _ENV),
    volumeMounts=_by("mountPath"),
    volumeDevices=_by("devicePath"),
    resources=_RESOURCES,
)
_REFERENCE = _by("name", name="")
_VOLUME = replace(
    _map(
        csi=_map(nodePublishSecretRef=_ATOMIC),
        ephemeral=_map(volumeClaimTemplate=_map(spec=_map(selector=_ATOMIC, dataSource=_ATOMIC))),
    ),
    retains=True,
)
_NODE_AFFINITY = _map(requiredDuringSchedulingIgnoredDuringExecution=_ATOMIC)
_POD_SPEC = _map(
    containers=_by("name", _CONTAINER),
    initContainers=_by("name", _CONTAINER),
    ephemeralContainers=_by("name", _CONTAINER),
    volumes=_by("name", _VOLUME),
    imagePullSecrets=_REFERENCE,
    hostAliases=_by("ip"),
    topologySpreadConstraints=_by("topologyKey", PLAIN, "whenUnsatisfiable"),
    schedulingGates=_by("name"),
    resourceClaims=replace(_by("name"), retains=True),
    nodeSelector=_ATOMIC,
    affinity=_map(nodeAffinity=_NODE_AFFINITY),
    resources=_RESOURCES,
)
_POD_STATUS = _map(
    conditions=_CONDITIONS,
    podIPs=_by("ip"),
    hostIPs=Shape(merge_key="ip"),
    resourceClaimStatuses=replace(_by("name"), retains=True),
)
_TEMPLATE = _map(metadata=_META, spec=_POD_SPEC)
_STRATEGY = Shape(retains=True)
_WORKLOAD_STATUS = _map(conditions=_CONDITIONS)
_JOB_SPEC = _map(selector=_ATOMIC, template=_TEMPLATE)
_SERVICE_SPEC = _map(ports=_by("port", PLAIN, "protocol", protocol="TCP"), selector=_ATOMIC)


def _workload(**spec: Shape) -> Mapping[str, Shape]:
    return {"spec": _map(selector=_ATOMIC, template=_TEMPLATE, **spec), "status": _WORKLOAD_STATUS}


_KINDS: dict[tuple[str, str], Mapping[str, Shape]] = {
    ("", "Pod"): {"spec": _POD_SPEC, "status": _POD_STATUS},
    ("", "PodTemplate"): {"template": _TEMPLATE},
    ("", "ReplicationController"): {"spec": _map(selector=_ATOMIC, template=_TEMPLATE), "status": _WORKLOAD_STATUS},
    ("", "Service"): {"spec": _SERVICE_SPEC, "status": _map(conditions=_CONDITIONS)},
    ("", "ServiceAccount"): {"secrets": _by("name", _ATOMIC)},
    ("", "Namespace"): {"status": _map(conditions=_CONDITIONS)},
    ("", "Node"): {
        "spec": _map(podCIDRs=Shape(merges=True, unique=True)),
        "status": _map(conditions=_CONDITIONS, addresses=_by("type")),
    },
    ("", "Event"): {"involvedObject": _ATOMIC, "related": _ATOMIC},
    ("", "PersistentVolumeClaim"): {
        "spec": _map(selector=_ATOMIC, dataSource=_ATOMIC),
        "status": _map(conditions=_CONDITIONS),
    },
    ("", "ResourceQuota"): {"spec": _map(scopeSelector=_ATOMIC)},
    ("apps", "Deployment"): _workload(strategy=_STRATEGY),
    ("apps", "ReplicaSet"): _workload(),
    ("apps", "StatefulSet"): _workload(),
    ("apps", "DaemonSet"): _workload(),
    ("batch", "Job"): {"spec": _JOB_SPEC, "status": _map(conditions=Shape(merge_key="type"))},
    ("batch", "CronJob"): {"spec": _map(jobTemplate=_map(metadata=_META, spec=_JOB_SPEC))},
    ("policy", "PodDisruptionBudget"): {
        "spec": _map(selector=Shape(atomic=True, replaced=True)),
        "status": _map(conditions=_CONDITIONS),
    },
    ("autoscaling", "HorizontalPodAutoscaler"): {
        "spec": _map(scaleTargetRef=_ATOMIC),
        "status": _map(conditions=_CONDITIONS),
    },
    ("rbac.authorization.k8s.io", "RoleBinding"): {"roleRef": _ATOMIC},
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): {"roleRef": _ATOMIC},
    ("networking.k8s.io", "Ingress"): {"spec": _map(defaultBackend=_map(resource=_ATOMIC))},
    ("networking.k8s.io", "NetworkPolicy"): {"spec": _map(podSelector=_ATOMIC)},
    ("apiextensions.k8s.io", "CustomResourceDefinition"): {"status": _map(conditions=_CONDITIONS)},
}
_BUILT_IN_GROUPS = frozenset({group for group, _ in _KINDS} | {"events.k8s.io", "korch.dev"})


def shape_of(group: str, kind: str) -> Shape:
    """The shape of a kind's objects; of a kind that is not known only the metadata is."""
    return Shape(fields={"metadata": _META, **_KINDS.get((group, kind), {})})


def shape_of_object(obj: Mapping[str, Any]) -> Shape:
    """As `shape_of`, for the object's own apiVersion and kind."""
    group, slash, _ = str(obj.get("apiVersion", "")).rpartition("/")
    return shape_of(group if slash else "", str(obj.get("kind", "")))


def is_built_in(group: str) -> bool:
    """Whether the group is Kubernetes' or korch's own: only such kinds take strategic merge patches."""
    return group in _BUILT_IN_GROUPS or "." not in group or group.endswith(".k8s.io")


def shape_of_schema(schema: Mapping[str, Any]) -> Shape:
    """The shape of custom objects, from their definition's openAPIV3Schema (x-kubernetes-list-type and its kin)."""
    found = _from_schema(schema)
    return replace(found, fields={**found.fields, "metadata": _META})


def _from_schema(schema: Any) -> Shape:
    if not isinstance(schema, Mapping):
        return PLAIN
    items = schema.get("items")
    inner = items if isinstance(items, Mapping) else schema
    properties, others = inner.get("properties"), inner.get("additionalProperties")
    properties = properties if isinstance(properties, Mapping) else {}
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys")
    return Shape(
        fields={name: _from_schema(one) for name, one in properties.items()},
        rest=_from_schema(others) if isinstance(others, Mapping) else None,
        keys=tuple(map(str, keys)) if kind == "map" and isinstance(keys, list) else (),
        defaults={name: p["default"] for name, p in properties.items() if isinstance(p, Mapping) and "default" in p},
        unique=kind == "set",
        atomic=schema.get("x-kubernetes-map-type") == "atomic",
    )
