"""Whether a ConfigMap, service, slice, autoscaler, custom kind or kept object is legal."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable

from korch.errors import InvalidError
from korch.resources.autoscaling import HorizontalPodAutoscalerSpec, HPAScalingRules, MetricSpec
from korch.resources.config import ConfigMap
from korch.resources.crd import CustomResourceDefinition
from korch.resources.kinds import is_taken
from korch.resources.names import dns_label_problem, dns_subdomain_problem, port_name_problem, secret_key_problem
from korch.resources.problems import Problems
from korch.resources.quantity import cpu_millis, memory_bytes
from korch.resources.rbac import PolicyRule, RoleRef, Subject
from korch.resources.selectors import label_key_problem, label_value_problem
from korch.resources.service import EndpointSlice, IngressSpec, ServicePort, ServiceSpec
from korch.resources.validate_container import check_unique, port_problem

_MAX_BYTES = 1024 * 1024  # Kubernetes' MaxSecretSize, which counts for ConfigMaps too
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_MOST_ENDPOINTS = 1000
_FIELD_PATH = re.compile(r"(\.[A-Za-z_][A-Za-z0-9_-]*)+", re.ASCII)
_MOST_SELECTABLE = 8
_SCALED = ("Deployment", "ReplicaSet")
_SUBJECTS = ("User", "Group", "ServiceAccount")
_COMMUNITY = (".k8s.io", ".kubernetes.io")
_APPROVED = "api-approved.kubernetes.io"


def service_name_problem(name: str) -> str:
    """Why no service can be called so, or "": names are labels of DNS names that begin with a letter (RFC 1035)."""
    if len(name) <= 63 and _SERVICE_NAME.fullmatch(name):
        return ""
    return f'"{name}" is not a service name (a-z, 0-9 and "-", a letter first; at most 63)'


def path_segment_problem(name: str) -> str:
    """Why no role can be called so, or ""."""
    fits = name not in ("", ".", "..") and len(name) <= 253 and not re.search(r"[/%\s\0]", name)
    return "" if fits else f'"{name}" is not a name that can stand in a path'


def check_config_map(found: ConfigMap, problems: Problems) -> None:
    """Note illegal keys, keys in both maps, what is no base64, too much of it."""
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in found.data.values())
    for key in (*found.data, *found.binary_data):
        problems.check("data", secret_key_problem(key))
    for key in sorted(found.data.keys() & found.binary_data.keys()):
        problems.add(f"binaryData.{key}", "stands in data too")
    for key, value in found.binary_data.items():
        try:
            size += len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            problems.add(f"binaryData.{key}", "is not base64")
    if size > _MAX_BYTES:
        problems.add("data", f"{size} bytes; a ConfigMap holds at most {_MAX_BYTES}")


# --- services ---


def check_service(spec: ServiceSpec, problems: Problems) -> None:
    """Note what is wrong with a service; an address of its own is refused, as nothing would answer there."""
    if spec.type not in _SERVICE_TYPES:
        problems.add("spec.type", f'"{spec.type}" is not one of {", ".join(_SERVICE_TYPES)}')
    if spec.type == "ExternalName":
        problems.check("spec.externalName", dns_subdomain_problem(spec.external_name.rstrip(".")))
    elif spec.cluster_ip not in ("", "None") or any(one not in ("", "None") for one in spec.cluster_ips):
        problems.add("spec.clusterIP", f"{spec.cluster_ip} is refused: services have no virtual addresses; remove it")
    for key, value in spec.selector.items():
        problems.check("spec.selector", label_key_problem(key) or label_value_problem(value))
    for index, port in enumerate(spec.ports):
        _check_service_port(port, f"spec.ports[{index}]", problems, named=len(spec.ports) > 1)
    check_unique((f"{port.port}/{port.protocol}" for port in spec.ports), "spec.ports", "port", problems)
    check_unique((f'"{port.name}"' for port in spec.ports if port.name), "spec.ports", "name", problems)
    if spec.session_affinity not in ("None", "ClientIP"):
        problems.add("spec.sessionAffinity", f'"{spec.session_affinity}" is not None or ClientIP')


def _check_service_port(port: ServicePort, path: str, problems: Problems, *, named: bool) -> None:
    problems.check(f"{path}.port", port_problem(port.port))
    if port.protocol not in ("TCP", "UDP", "SCTP"):
        problems.add(f"{path}.protocol", f'"{port.protocol}" is not TCP, UDP or SCTP')
    if named and not port.name:
        problems.add(f"{path}.name", "is needed, as there is more than one port")
    if port.name:
        problems.check(f"{path}.name", dns_label_problem(port.name))
    if port.node_port:
        problems.check(f"{path}.nodePort", port_problem(port.node_port))
    target = port.target_port
    if target is not None:
        problem = port_problem(target) if isinstance(target, int) else port_name_problem(target)
        problems.check(f"{path}.targetPort", problem)


def check_slice(found: EndpointSlice, problems: Problems) -> None:
    """Note what is wrong with an EndpointSlice."""
    if found.address_type not in ("IPv4", "IPv6", "FQDN"):
        problems.add("addressType", f'"{found.address_type}" is not IPv4, IPv6 or FQDN')
    if len(found.endpoints) > _MOST_ENDPOINTS:
        problems.add("endpoints", f"{len(found.endpoints)} endpoints; a slice holds at most {_MOST_ENDPOINTS}")
    for index, endpoint in enumerate(found.endpoints):
        if not endpoint.addresses:
            problems.add(f"endpoints[{index}].addresses", "one is needed")
        for address in endpoint.addresses:
            problems.check(f"endpoints[{index}].addresses", _address_problem(address, found.address_type))
    for index, port in enumerate(found.ports):
        if port.port is not None:
            problems.check(f"ports[{index}].port", port_problem(port.port))
    check_unique((f'"{port.name}"' for port in found.ports), "ports", "name", problems)


def _address_problem(address: str, kind: str) -> str:
    if kind == "FQDN":
        return dns_subdomain_problem(address)
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return f'"{address}" is not an address'
    return "" if f"IPv{version}" == kind else f"{address} is not {kind}"


def check_ingress(spec: IngressSpec, problems: Problems) -> None:
    """Note what is wrong with an ingress."""
    if not spec.rules and spec.default_backend is None:
        problems.add("spec", "rules or defaultBackend are needed")
    for index, rule in enumerate(spec.rules):
        for number, path in enumerate(rule.http.paths if rule.http else ()):
            where = f"spec.rules[{index}].http.paths[{number}]"
            if path.path_type not in ("Exact", "Prefix", "ImplementationSpecific"):
                problems.add(f"{where}.pathType", f'"{path.path_type}" is not Exact, Prefix or ImplementationSpecific')
            if path.path and not path.path.startswith("/"):
                problems.add(f"{where}.path", f'"{path.path}" does not begin with "/"')


# --- autoscalers ---


def check_autoscaler(spec: HorizontalPodAutoscalerSpec, problems: Problems) -> None:
    """Note what is wrong with an autoscaler; measures that korch does not have are refused."""
    target, least = spec.scale_target_ref, spec.min_replicas or 0
    if target.kind not in _SCALED:
        problems.add("spec.scaleTargetRef.kind", f'"{target.kind}" is not one of {", ".join(_SCALED)}')
    problems.check("spec.scaleTargetRef.name", dns_subdomain_problem(target.name))
    if least < 1:
        problems.add("spec.minReplicas", f"{spec.min_replicas} is less than 1")
    if spec.max_replicas < max(least, 1):
        problems.add("spec.maxReplicas", f"{spec.max_replicas} is less than minReplicas ({max(least, 1)})")
    for index, metric in enumerate(spec.metrics):
        _check_metric(metric, f"spec.metrics[{index}]", problems)
    behavior = spec.behavior
    if behavior is not None:
        for name, rules in (("scaleUp", behavior.scale_up), ("scaleDown", behavior.scale_down)):
            if rules is not None:
                _check_rules(rules, f"spec.behavior.{name}", problems)


def _check_metric(metric: MetricSpec, path: str, problems: Problems) -> None:
    if metric.type != "Resource" or metric.resource is None:
        problems.add(f"{path}.type", f'"{metric.type}" is refused: korch measures Resource cpu and memory of pods')
        return
    target, where = metric.resource.target, f"{path}.resource"
    if metric.resource.name not in ("cpu", "memory"):
        problems.add(f"{where}.name", f'"{metric.resource.name}" is not cpu or memory')
        return
    if target.type == "Utilization":
        if (target.average_utilization or 0) < 1:
            problems.add(f"{where}.target.averageUtilization", "is needed: a percentage of what the pods request")
    elif target.type == "AverageValue" and target.average_value is not None:
        read = cpu_millis if metric.resource.name == "cpu" else memory_bytes
        try:
            if read(target.average_value) < 1:
                problems.add(f"{where}.target.averageValue", "must be more than 0")
        except InvalidError as error:
            problems.add(f"{where}.target.averageValue", str(error))
    else:
        problems.add(f"{where}.target", "Utilization with averageUtilization, or AverageValue with averageValue")


def _check_rules(rules: HPAScalingRules, path: str, problems: Problems) -> None:
    window_s = rules.stabilization_window_seconds
    if window_s is not None and not 0 <= window_s <= 3600:
        problems.add(f"{path}.stabilizationWindowSeconds", f"{window_s} is not between 0 and 3600")
    if rules.select_policy not in (None, "Max", "Min", "Disabled"):
        problems.add(f"{path}.selectPolicy", f'"{rules.select_policy}" is not Max, Min or Disabled')
    for index, policy in enumerate(rules.policies):
        where = f"{path}.policies[{index}]"
        if policy.type not in ("Pods", "Percent"):
            problems.add(f"{where}.type", f'"{policy.type}" is not Pods or Percent')
        if policy.value < 1:
            problems.add(f"{where}.value", f"{policy.value} is less than 1")
        if not 1 <= policy.period_seconds <= 1800:
            problems.add(f"{where}.periodSeconds", f"{policy.period_seconds} is not between 1 and 1800")


# --- roles ---


def check_rules(rules: Iterable[PolicyRule], problems: Problems) -> None:
    """Note rules that say nothing."""
    for index, rule in enumerate(rules):
        if not rule.verbs:
            problems.add(f"rules[{index}].verbs", "one is needed")
        if not (rule.resources or rule.non_resource_urls):
            problems.add(f"rules[{index}]", "resources or nonResourceURLs are needed")


def check_binding(role: RoleRef, subjects: Iterable[Subject], problems: Problems) -> None:
    """Note a role or subjects that nobody can be."""
    if role.kind not in ("Role", "ClusterRole"):
        problems.add("roleRef.kind", f'"{role.kind}" is not Role or ClusterRole')
    problems.check("roleRef.name", path_segment_problem(role.name))
    for index, subject in enumerate(subjects):
        where = f"subjects[{index}]"
        if subject.kind not in _SUBJECTS:
            problems.add(f"{where}.kind", f'"{subject.kind}" is not one of {", ".join(_SUBJECTS)}')
        if not subject.name:
            problems.add(f"{where}.name", "is needed")
        if subject.kind == "ServiceAccount" and not subject.namespace:
            problems.add(f"{where}.namespace", "is needed")


# --- custom kinds ---


def _group_problem(crd: CustomResourceDefinition) -> str:
    """Why nobody may define kinds in its group, or "". Those of Kubernetes' community need its word, as there."""
    group, meta = crd.spec.group, crd.metadata
    if problem := dns_subdomain_problem(group) or ("" if "." in group else "needs a dot"):
        return problem
    if meta.deletion_timestamp is not None:
        return ""  # one that is older than the rule may go
    if is_taken(group):
        return f'"{group}" is built in; custom kinds need a group of their own'
    approved = meta.annotations.get(_APPROVED, "")
    if not f".{group}".endswith(_COMMUNITY) or approved.startswith(("https://", "http://", "unapproved")):
        return ""
    return f'"{group}" is Kubernetes\' own: it needs the annotation {_APPROVED} with the address of the approval'


def check_crd(crd: CustomResourceDefinition, problems: Problems) -> None:
    """Note what is wrong with the definition of a kind; what needs a webhook is refused."""
    spec, names = crd.spec, crd.spec.names
    problems.check("spec.group", _group_problem(crd))
    problems.check("spec.names.plural", dns_label_problem(names.plural))
    problems.check("spec.names.singular", dns_label_problem(names.singular))
    if not re.fullmatch(r"[A-Za-z]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?", names.kind, re.ASCII):
        problems.add("spec.names.kind", f'"{names.kind}" is not the name of a kind')
    if crd.metadata.name != f"{names.plural}.{spec.group}":
        problems.add("metadata.name", f'must be spec.names.plural and spec.group: "{names.plural}.{spec.group}"')
    if spec.scope not in ("Namespaced", "Cluster"):
        problems.add("spec.scope", f'"{spec.scope}" is not Namespaced or Cluster')
    if spec.conversion is not None and spec.conversion.strategy != "None":
        problems.add("spec.conversion.strategy", f'"{spec.conversion.strategy}" is refused: versions are not converted')
    if spec.preserve_unknown_fields:
        problems.add("spec.preserveUnknownFields", "must be false; use x-kubernetes-preserve-unknown-fields")
    if sum(version.storage for version in spec.versions) != 1:
        problems.add("spec.versions", "exactly one version is the one with storage: true")
    check_unique((f'"{version.name}"' for version in spec.versions), "spec.versions", "version", problems)
    for index, version in enumerate(spec.versions):
        path = f"spec.versions[{index}]"
        problems.check(f"{path}.name", dns_label_problem(version.name))
        if version.schema is None or version.schema.open_api_v3_schema is None:
            problems.add(f"{path}.schema.openAPIV3Schema", "is needed")
        elif version.schema.open_api_v3_schema.get("type") != "object":
            problems.add(f"{path}.schema.openAPIV3Schema.type", "must be object at the root")
        if len(version.selectable_fields) > _MOST_SELECTABLE:
            problems.add(f"{path}.selectableFields", f"are more than {_MOST_SELECTABLE}")
        for number, field in enumerate(version.selectable_fields):
            if not _FIELD_PATH.fullmatch(field.json_path) or field.json_path.startswith(".metadata"):
                wrong = f'"{field.json_path}" is not a simple path such as .spec.size'
                problems.add(f"{path}.selectableFields[{number}].jsonPath", wrong)
