"""The rows of nodes, services, events and all the small kinds."""

from typing import Any

from korch.api.wire.cells import (
    NONE,
    UNKNOWN,
    UNSET,
    Json,
    Sheet,
    age,
    age_of,
    columns,
    condition,
    items,
    joined,
    limited,
    name_of,
    number,
    pairs,
    part,
    selector,
    text,
)

_ROLE = "node-role.kubernetes.io/"
_MOST_ENDPOINTS = 3


def _node(node: Json, now: float) -> list[Any]:
    ready = part(condition(node, "Ready"), "status")
    word = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    labels = part(node, "metadata", "labels") or {}
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE}
    roles |= {labels["kubernetes.io/role"]} if labels.get("kubernetes.io/role") else set()
    addresses = {part(one, "type"): part(one, "address") for one in reversed(items(node, "status", "addresses"))}
    info = part(node, "status", "nodeInfo")
    return [
        name_of(node),
        f"{word},SchedulingDisabled" if part(node, "spec", "unschedulable") else word,
        joined(sorted(roles)),
        age_of(node, now),
        text(info, "kubeletVersion", default=""),
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        *(text(info, name, default=UNKNOWN) for name in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    ]


def _nodeload(load: Json, now: float) -> list[Any]:
    def percent(used: Any, total: Any) -> str:
        fits = isinstance(used, int | float) and isinstance(total, int | float) and total
        return f"{used / total * 100:.0f}%" if fits else UNKNOWN

    memory, disk = number(load, "memoryTotalBytes"), number(load, "diskTotalBytes")
    return [
        name_of(load),
        percent(part(load, "cpuBusy"), 1),
        percent(memory - number(load, "memoryAvailableBytes"), memory),
        percent(disk - number(load, "diskFreeBytes"), disk),
        f"{part(load, 'load1') or 0:.2f}/{part(load, 'cpuCount') or 1}",
        age(part(load, "sampledAt"), now),
    ]


def _service_ports(service: Json) -> str:
    found = []
    for port in items(service, "spec", "ports"):
        outside = f":{port['nodePort']}" if part(port, "nodePort") else ""
        found.append(f"{part(port, 'port')}{outside}/{text(port, 'protocol', default='TCP')}")
    return joined(found)


def _external(service: Json) -> str:
    """Where a service is reached from outside."""
    addresses = items(service, "spec", "externalIPs")
    match part(service, "spec", "type"):
        case "ExternalName":
            return text(service, "spec", "externalName", default="")
        case "LoadBalancer":
            balancers = items(service, "status", "loadBalancer", "ingress")
            given = [part(one, "ip") or part(one, "hostname") for one in balancers]
            return joined([*filter(None, given), *addresses], "<pending>")
    return joined(addresses)


def _service(service: Json, now: float) -> list[Any]:
    return [
        name_of(service),
        text(service, "spec", "type", default="ClusterIP"),
        text(service, "spec", "clusterIP"),
        _external(service),
        _service_ports(service),
        age_of(service, now),
        pairs(part(service, "spec", "selector")),
    ]


def _endpointslice(obj: Json, now: float) -> list[Any]:
    ports = [text(port, "port", default="*") for port in items(obj, "ports")]
    addresses = [str(one) for endpoint in items(obj, "endpoints") for one in items(endpoint, "addresses")]
    return [
        name_of(obj),
        text(obj, "addressType", default=""),
        limited(ports, _MOST_ENDPOINTS, UNSET),
        limited(addresses, _MOST_ENDPOINTS, UNSET),
        age_of(obj, now),
    ]


def _event(event: Json, now: float) -> list[Any]:
    about = part(event, "involvedObject") or part(event, "regarding")
    kind, name = text(about, "kind", default="").lower(), text(about, "name", default="")
    reporter = part(event, "source") or part(event, "deprecatedSource") or {}
    component = text(reporter, "component", default=text(event, "reportingComponent", default=""))
    host = text(reporter, "host", default="")
    first = part(event, "firstTimestamp") or part(event, "deprecatedFirstTimestamp") or part(event, "eventTime")
    last = part(event, "series", "lastObservedTime") or part(event, "lastTimestamp") or first
    last = last or part(event, "metadata", "creationTimestamp")
    count = number(event, "series", "count") or number(event, "count") or number(event, "deprecatedCount") or 1
    return [
        age(last, now),
        text(event, "type", default=""),
        text(event, "reason", default=""),
        f"{kind}/{name}" if name else kind,
        text(about, "fieldPath", default=""),
        f"{component}, {host}" if component and host else component or host,
        (text(event, "message", default="") or text(event, "note", default="")).strip(),
        age(first, now),
        count,
        name_of(event),
    ]


def _namespace(obj: Json, now: float) -> list[Any]:
    going = part(obj, "metadata", "deletionTimestamp")
    return [name_of(obj), "Terminating" if going else text(obj, "status", "phase", default="Active"), age_of(obj, now)]


def _configmap(obj: Json, now: float) -> list[Any]:
    return [name_of(obj), sum(len(part(obj, key) or {}) for key in ("data", "binaryData")), age_of(obj, now)]


def _secret(obj: Json, now: float) -> list[Any]:
    return [name_of(obj), text(obj, "type", default="Opaque"), len(part(obj, "data") or {}), age_of(obj, now)]


def _serviceaccount(obj: Json, now: float) -> list[Any]:
    return [name_of(obj), len(items(obj, "secrets")), age_of(obj, now)]


def _lease(obj: Json, now: float) -> list[Any]:
    return [name_of(obj), text(obj, "spec", "holderIdentity", default=""), age_of(obj, now)]


def _created(obj: Json, now: float) -> list[Any]:
    return [name_of(obj), text(obj, "metadata", "creationTimestamp", default=UNKNOWN)]


def _binding(obj: Json, now: float) -> list[Any]:
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for one in items(obj, "subjects"):
        name = text(one, "name", default="")
        kind = text(one, "kind", default="")
        subjects.get(kind, []).append(
            f"{text(one, 'namespace', default='')}/{name}" if kind == "ServiceAccount" else name
        )
    role = f"{text(obj, 'roleRef', 'kind', default='')}/{text(obj, 'roleRef', 'name', default='')}"
    return [name_of(obj), role, age_of(obj, now), *(", ".join(names) for names in subjects.values())]


def _quota(obj: Json, now: float) -> list[Any]:
    hard, used = part(obj, "status", "hard") or part(obj, "spec", "hard") or {}, part(obj, "status", "used") or {}
    found: dict[bool, list[str]] = {False: [], True: []}
    for name, most in sorted(hard.items()):
        found[name.startswith("limits.")].append(f"{name}: {used.get(name, '?')}/{most}")
    return [name_of(obj), ", ".join(found[False]), ", ".join(found[True]), age_of(obj, now)]


def _ingress(obj: Json, now: float) -> list[Any]:
    hosts = [str(part(rule, "host")) for rule in items(obj, "spec", "rules") if part(rule, "host")]
    balancers = items(obj, "status", "loadBalancer", "ingress")
    return [
        name_of(obj),
        text(obj, "spec", "ingressClassName"),
        limited(hosts, 3, "*"),
        joined(filter(None, (part(one, "ip") or part(one, "hostname") for one in balancers)), ""),
        "80, 443" if items(obj, "spec", "tls") else "80",
        age_of(obj, now),
    ]


def _ingressclass(obj: Json, now: float) -> list[Any]:
    found = part(obj, "spec", "parameters")
    group = f".{found['apiGroup']}" if part(found, "apiGroup") else ""
    parameters = f"{text(found, 'kind', default='')}{group}/{text(found, 'name', default='')}" if found else NONE
    return [name_of(obj), text(obj, "spec", "controller", default=""), parameters, age_of(obj, now)]


def _networkpolicy(obj: Json, now: float) -> list[Any]:
    return [name_of(obj), selector(part(obj, "spec", "podSelector")), age_of(obj, now)]


def _priorityclass(obj: Json, now: float) -> list[Any]:
    default = bool(part(obj, "globalDefault"))
    policy = text(obj, "preemptionPolicy", default="PreemptLowerPriority")
    return [name_of(obj), number(obj, "value"), default, age_of(obj, now), policy]


def _storageclass(obj: Json, now: float) -> list[Any]:
    annotations = part(obj, "metadata", "annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        f"{name_of(obj)} (default)" if default else name_of(obj),
        text(obj, "provisioner", default=""),
        text(obj, "reclaimPolicy", default="Delete"),
        text(obj, "volumeBindingMode", default="Immediate"),
        bool(part(obj, "allowVolumeExpansion")),
        age_of(obj, now),
    ]


_RBAC, _NETWORK = "rbac.authorization.k8s.io", "networking.k8s.io"
_EVENT = Sheet(
    columns("Last Seen, Type, Reason, Object, Subobject+, Source+, Message, First Seen+, Count:int+, Name+"), _event
)
_BINDING = Sheet(columns("Name, Role, Age, Users+, Groups+, ServiceAccounts+"), _binding)
_CREATED = Sheet(columns("Name, Created At"), _created)

OTHERS: dict[tuple[str, str], Sheet] = {
    ("", "Node"): Sheet(
        columns(
            "Name, Status, Roles, Age, Version, "
            "Internal-IP+, External-IP+, OS-Image+, Kernel-Version+, Container-Runtime+"
        ),
        _node,
    ),
    ("korch.dev", "NodeLoad"): Sheet(columns("Name, CPU, Memory, Disk, Load1/CPUs, Sampled"), _nodeload),
    ("", "Service"): Sheet(columns("Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector+"), _service),
    ("discovery.k8s.io", "EndpointSlice"): Sheet(columns("Name, AddressType, Ports, Endpoints, Age"), _endpointslice),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("", "Namespace"): Sheet(columns("Name, Status, Age"), _namespace),
    ("", "ConfigMap"): Sheet(columns("Name, Data:int, Age"), _configmap),
    ("", "Secret"): Sheet(columns("Name, Type, Data:int, Age"), _secret),
    ("", "ServiceAccount"): Sheet(columns("Name, Secrets:int, Age"), _serviceaccount),
    ("", "ResourceQuota"): Sheet(columns("Name, Request, Limit, Age"), _quota),
    ("", "LimitRange"): _CREATED,
    ("coordination.k8s.io", "Lease"): Sheet(columns("Name, Holder, Age"), _lease),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _CREATED,
    (_RBAC, "Role"): _CREATED,
    (_RBAC, "ClusterRole"): _CREATED,
    (_RBAC, "RoleBinding"): _BINDING,
    (_RBAC, "ClusterRoleBinding"): _BINDING,
    (_NETWORK, "Ingress"): Sheet(columns("Name, Class, Hosts, Address, Ports, Age"), _ingress),
    (_NETWORK, "IngressClass"): Sheet(columns("Name, Controller, Parameters, Age"), _ingressclass),
    (_NETWORK, "NetworkPolicy"): Sheet(columns("Name, Pod-Selector, Age"), _networkpolicy),
    ("scheduling.k8s.io", "PriorityClass"): Sheet(
        columns("Name, Value:int, Global-Default, Age, PreemptionPolicy"), _priorityclass
    ),
    ("storage.k8s.io", "StorageClass"): Sheet(
        columns("Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age"), _storageclass
    ),
}
