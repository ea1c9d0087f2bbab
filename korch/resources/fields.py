"""What korch does with each field of a manifest: honours it, accepts it with a warning, or refuses it.

Ignoring a field silently would be a defect. A field that a type in this package has is honoured unless a rule says
otherwise; any other field that Kubernetes knows needs a rule here, and what has no rule is a mistake of the writer.
`docs/FIELDS.md` is made from these rules (`korch.resources.fielddocs`).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import inspect

from korch.resources.meta import Struct
from korch.resources.problems import Problem

Treatment = Literal["warned", "refused"]


class Rule(msgspec.Struct, frozen=True):
    """`why` completes "FIELD: ...". `harmless` values say what korch does anyway; so do empty ones, unless `strict`."""

    treatment: Treatment
    why: str
    harmless: tuple[Any, ...] = ()
    strict: bool = False

    def applies(self, value: Any) -> bool:
        """Whether this value is worth a warning or a refusal."""
        return value not in self.harmless and (self.strict or bool(value))


def _warned(why: str, *harmless: Any) -> Rule:
    return Rule("warned", why, harmless)


def _refused(why: str, *harmless: Any) -> Rule:
    return Rule("refused", why, harmless)


_NO_ACCOUNTS = "pods of korch have no API token"
_PATH_VOLUME = "use hostPath, emptyDir, or csi with driver volumes.korch.dev"
_NO_BALANCER = "korch has no load balancers"
_NO_ADDRESS = "services have no virtual address: clients choose among the endpoints"
_SERVER_SIDE = "the cluster sets it; what a manifest says is ignored"

META_RULES = {
    "resourceVersion": _warned(_SERVER_SIDE),
    "uid": _warned(_SERVER_SIDE),
    "creationTimestamp": _warned(_SERVER_SIDE),
    "deletionTimestamp": _warned(_SERVER_SIDE),
    "deletionGracePeriodSeconds": _warned(_SERVER_SIDE),
    "generation": _warned(_SERVER_SIDE),
    "managedFields": _warned(_SERVER_SIDE),
    "selfLink": _warned(_SERVER_SIDE),
}

POD_RULES = {
    "ephemeralContainers": _refused("use `korch exec POD -- COMMAND`"),
    "hostNetwork": _refused("publish the ports with containers[].ports[].hostPort"),
    "hostPID": _refused("containers do not share the node's processes"),
    "hostIPC": _refused("containers do not share the node's IPC"),
    "hostUsers": Rule("refused", "set up user namespaces in the node's engine", (True, None), strict=True),
    "hostAliases": _refused("korch does not write /etc/hosts; give the address in an environment variable"),
    "shareProcessNamespace": _refused("containers of a pod share its network and volumes, not their processes"),
    "activeDeadlineSeconds": _refused("pods have no deadline; end the program itself, with `timeout` for instance"),
    "dnsConfig": _refused("containers use the DNS that the node's engine gives them; configure it there"),
    "runtimeClassName": _refused("containers run with the engine's default runtime"),
    "readinessGates": _refused("use a readinessProbe"),
    "schedulingGates": _refused("create the pod when it may run"),
    "resourceClaims": _refused("devices are not scheduled; choose nodes with nodeSelector"),
    "resources": _refused("give resources of the container"),
    "setHostnameAsFQDN": _refused("set hostname"),
    "dnsPolicy": _warned("containers use the DNS that the node's engine gives them", "ClusterFirst", "Default"),
    "schedulerName": _warned("korch has one scheduler", "default-scheduler", "korch"),
    "serviceAccountName": _warned(_NO_ACCOUNTS, "default"),
    "serviceAccount": _warned(_NO_ACCOUNTS, "default"),
    "automountServiceAccountToken": _warned(_NO_ACCOUNTS),
    "enableServiceLinks": _warned("no variables are made for services"),
    "subdomain": _warned("pods have no DNS names of their own"),
    "priorityClassName": _warned("all pods have the same priority; none is evicted for another"),
    "priority": _warned("all pods have the same priority; none is evicted for another"),
    "preemptionPolicy": _warned("no pod is evicted for another", "Never"),
    "overhead": _warned("no overhead is added to requests"),
    "os": _warned("nodes run Linux", {"name": "linux"}),
}

POD_SECURITY_RULES = {
    "runAsNonRoot": _refused("korch does not look into images; name the user with runAsUser"),
    "fsGroup": _refused("korch does not change the owner of files; use runAsUser and runAsGroup"),
    "fsGroupChangePolicy": _warned("korch does not change the owner of files"),
    "supplementalGroups": _refused("use runAsGroup"),
    "supplementalGroupsPolicy": _refused("use runAsGroup"),
    "sysctls": _refused("set them on the node"),
    "seccompProfile": _refused("the engine's own profile is always on", {"type": "RuntimeDefault"}),
    "appArmorProfile": _refused("the engine's own profile is always on", {"type": "RuntimeDefault"}),
    "seLinuxOptions": _refused("configure SELinux on the node"),
    "seLinuxChangePolicy": _refused("configure SELinux on the node"),
    "windowsOptions": _refused("nodes run Linux"),
    "privileged": _refused("it belongs into the container's securityContext"),
    "capabilities": _refused("they belong into the container's securityContext"),
    "readOnlyRootFilesystem": _refused("it belongs into the container's securityContext"),
    "allowPrivilegeEscalation": _refused("it belongs into the container's securityContext"),
}

CONTAINER_RULES = {
    "terminationMessagePath": _warned("the last log lines are the message", "/dev/termination-log"),
    "terminationMessagePolicy": _warned("the last log lines are the message", "FallbackToLogsOnError", "File"),
    "resizePolicy": _warned("changed resources always replace the pod"),
    "restartPolicyRules": _refused("the pod's restartPolicy counts"),
    "volumeDevices": _refused(_PATH_VOLUME),
}

CONTAINER_SECURITY_RULES = {
    name: POD_SECURITY_RULES[name]
    for name in ("runAsNonRoot", "seccompProfile", "appArmorProfile", "seLinuxOptions", "windowsOptions")
} | {"procMount": _refused("/proc is as the engine makes it", "Default")}

VOLUME_RULES = {
    "persistentVolumeClaim": _refused("use csi with driver volumes.korch.dev: a named volume of the node's engine"),
    "ephemeral": _refused("use emptyDir"),
    "nfs": _refused("mount it on the nodes and use hostPath"),
    "image": _refused("copy the files into the container's image"),
    "local": _refused("use hostPath"),
} | {
    name: _refused(_PATH_VOLUME)
    for name in (
        *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "fc", "flexVolume", "flocker"),
        *("gcePersistentDisk", "gitRepo", "glusterfs", "iscsi", "photonPersistentDisk", "portworxVolume"),
        *("quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume"),
    )
}

_TERM_RULES = {
    "namespaceSelector": _refused("name the namespaces in `namespaces`"),
    "matchLabelKeys": _refused("write the labels into labelSelector"),
    "mismatchLabelKeys": _refused("write the labels into labelSelector"),
}

RULES: dict[str, dict[str, Rule]] = {
    "ObjectMeta": META_RULES,
    "PodSpec": POD_RULES,
    "PodSecurityContext": POD_SECURITY_RULES,
    "SecurityContext": CONTAINER_SECURITY_RULES,
    "Container": CONTAINER_RULES,
    "Volume": VOLUME_RULES,
    "Probe": {"grpc": _refused("use exec with a gRPC health client, or tcpSocket")},
    "Lifecycle": {
        "stopSignal": _refused("set STOPSIGNAL in the image"),
    },
    "LifecycleHandler": {"tcpSocket": _refused("it does nothing in Kubernetes either; use exec or httpGet")},
    "EnvVarSource": {
        "fileKeyRef": _refused("write the value into env"),
    },
    "VolumeProjection": {
        "serviceAccountToken": _refused(_NO_ACCOUNTS),
        "clusterTrustBundle": _refused("mount a ConfigMap with the certificates"),
        "podCertificate": _refused("mount a Secret with the certificate"),
    },
    "VolumeMount": {
        "subPathExpr": _refused("write the path into subPath"),
        "mountPropagation": _refused("mounts are private", "None"),
        "recursiveReadOnly": _refused("use readOnly", "Disabled"),
    },
    "ResourceRequirements": {"claims": _refused("devices are not scheduled; choose nodes with nodeSelector")},
    "CSIVolumeSource": {
        "fsType": _refused("a volume of the engine has no file system of its own"),
        "nodePublishSecretRef": _refused("volumes of the engine need no credentials"),
    },
    "PodAffinityTerm": _TERM_RULES,
    "TopologySpreadConstraint": {
        "minDomains": _refused("domains are those that the nodes show"),
        "matchLabelKeys": _TERM_RULES["matchLabelKeys"],
        "nodeAffinityPolicy": _refused("only nodes that match the pod's affinity are counted", "Honor"),
        "nodeTaintsPolicy": _refused("taints are not looked at when domains are counted", "Ignore"),
    },
    "DaemonSetSpec": {
        "templateGeneration": _warned(_SERVER_SIDE),
    },
    "RollingUpdateDaemonSet": {"maxSurge": _refused("a node's old pod goes before its new one comes", "0%")},
    "DeploymentSpec": {"rollbackTo": _refused("use `korch rollout undo`")},
    "NodeSpec": {
        "podCIDR": _warned("addresses are the engine's"),
        "podCIDRs": _warned("addresses are the engine's"),
        "providerID": _warned("nodes come from the inventory"),
    },
    "ServiceSpec": {
        "externalIPs": _refused("nothing answers at addresses outside of the nodes"),
        "loadBalancerIP": _warned(_NO_BALANCER),
        "loadBalancerSourceRanges": _warned(_NO_BALANCER),
        "loadBalancerClass": _warned(_NO_BALANCER),
        "allocateLoadBalancerNodePorts": _warned(_NO_BALANCER, True),
        "healthCheckNodePort": _warned(_NO_BALANCER),
        "externalTrafficPolicy": _warned(_NO_ADDRESS, "Cluster"),
        "internalTrafficPolicy": _warned(_NO_ADDRESS, "Cluster"),
        "sessionAffinity": _warned(_NO_ADDRESS, "None"),
        "sessionAffinityConfig": _warned(_NO_ADDRESS),
        "ipFamilies": _warned("node addresses are IPv4", ["IPv4"]),
        "ipFamilyPolicy": _warned("node addresses are IPv4", "SingleStack"),
        "trafficDistribution": _warned(_NO_ADDRESS),
    },
    "ServicePort": {"nodePort": _warned("no port is opened for the service: pods publish their own with hostPort")},
    "Endpoint": {"hints": _warned("clients choose among all endpoints")},
    "ServiceAccount": {"automountServiceAccountToken": _warned(_NO_ACCOUNTS)},
    "JobSpec": {
        "podFailurePolicy": _refused("every failed pod counts for backoffLimit"),
        "successPolicy": _refused("a job is complete when all its completions are"),
        "backoffLimitPerIndex": _refused("failures are counted for the whole job: use backoffLimit"),
        "maxFailedIndexes": _refused("failures are counted for the whole job: use backoffLimit"),
        "podReplacementPolicy": _refused("a pod is replaced when it has ended, or goes", "TerminatingOrFailed"),
        "managedBy": _refused("korch runs the jobs", "kubernetes.io/job-controller"),
    },
    "MetricSpec": {
        name: _refused("korch measures cpu and memory of pods: use type Resource")
        for name in ("object", "pods", "external", "containerResource")
    },
    "HPAScalingRules": {"tolerance": _refused("a tenth of the target is tolerated", "0.1", 0.1)},
    "Namespace": {"spec": _warned("namespaces have no settings")},
}

# Where one type stands for two of Kubernetes, the field that holds it decides which rules count.
_CONTEXTS = {("PodSpec", "securityContext"): "PodSecurityContext"}
_STATUS_RULE = _warned("korch reports the status; what a manifest says is ignored")


def context_of(parent: str, field: str, type_: type) -> str:
    """The name under which the rules for a struct stand, given the field that holds it."""
    return _CONTEXTS.get((parent, field), type_.__name__)


def rule_for(context: str, field: str) -> Rule | None:
    """The rule of a field as it is spelled in manifests; None when it is honoured, or unknown."""
    if field == "status" and context != "CustomResourceSubresources":
        return _STATUS_RULE
    return RULES.get(context, {}).get(field)


@lru_cache(maxsize=256)
def struct_fields(type_: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    """The fields of a type by their name in manifests."""
    info = inspect.type_info(type_)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{type_} is no struct")
    return {field.encode_name: field for field in info.fields}


def known_fields(type_: type[Struct], context: str) -> frozenset[str]:
    """All fields that a manifest may name here without being misspelled."""
    return frozenset(struct_fields(type_)) | frozenset(RULES.get(context, ()))


def refusals(value: Struct, path: str, context: str = "") -> list[Problem]:
    """Fields of a typed object that are set and that korch refuses, with their paths; status is not looked at."""
    return list(_refusals(value, path, context or type(value).__name__))


def _refusals(value: Any, path: str, context: str) -> Iterator[Problem]:
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _refusals(item, f"{path}[{index}]", context)
        return
    if not isinstance(value, msgspec.Struct):
        return
    for python_name, name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        inner = getattr(value, python_name)
        if name in ("metadata", "status") or inner is None or inner == ():
            continue
        rule = rule_for(context, name)
        where = f"{path}.{name}" if path else name
        if rule is not None and rule.treatment == "refused" and rule.applies(_plain(inner)):
            yield Problem(where, f"is refused: {rule.why}")
            continue
        yield from _refusals(inner, where, _CONTEXTS.get((context, name)) or _type_name(inner))


def _type_name(value: Any) -> str:
    return type(value[0]).__name__ if isinstance(value, tuple) else type(value).__name__


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
