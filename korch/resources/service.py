"""How pods are found by others: Service, EndpointSlice, Ingress, NetworkPolicy. Shapes are Kubernetes'."""

from typing import Any

import msgspec

from korch.resources.meta import Condition, LabelSelector, Object, ObjectReference, Struct

NO_ADDRESS = "None"  # `clusterIP` of a service without a virtual address
SERVICE_NAME = "kubernetes.io/service-name"  # label of an EndpointSlice: the service that it is of

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"  # label of an EndpointSlice: who writes it
MANAGER = "endpointslice-controller.korch.dev"


class ServicePort(Struct, frozen=True, kw_only=True):
    """`port` of the service stands for `target_port` (a number, or a port's name) of its pods."""

    port: int
    name: str = ""
    protocol: str = ""
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str | None = None


class ClientIPConfig(Struct, frozen=True, kw_only=True):
    """How long a client stays with one pod."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(Struct, frozen=True, kw_only=True):
    """Settings of session affinity."""

    client_ip: ClientIPConfig | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """Which pods serve, on which ports. Without a selector somebody else writes the endpoints."""

    type: str = ""
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_name: str = ""
    publish_not_ready_addresses: bool = False
    session_affinity: str = ""
    session_affinity_config: SessionAffinityConfig | None = None
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: tuple[str, ...] = ()
    load_balancer_class: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    health_check_node_port: int = 0
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str | None = None
    traffic_distribution: str | None = None


class LoadBalancerIngress(Struct, frozen=True, kw_only=True):
    """Where a load balancer is reached."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(Struct, frozen=True, kw_only=True):
    """Empty: korch has no load balancers."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """What came of the wish."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Object, frozen=True, kw_only=True):
    """core/v1 Service: a name for the pods that its selector matches."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(Struct, frozen=True, kw_only=True):
    """`serving`: its checks pass; `ready`: it also is not on its way out."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Struct, frozen=True, kw_only=True):
    """One pod, by the address at which others reach it."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    node_name: str | None = None
    zone: str | None = None
    deprecated_topology: dict[str, str] = {}


class EndpointPort(Struct, frozen=True, kw_only=True):
    """A port of every endpoint of the slice."""

    port: int | None = None
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class EndpointSlice(Object, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice: pods of a service that are reached on the same ports."""

    address_type: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class ServiceBackendPort(Struct, frozen=True, kw_only=True):
    """A port of a service, by name or number."""

    name: str = ""
    number: int = 0


class IngressServiceBackend(Struct, frozen=True, kw_only=True):
    """A service."""

    name: str
    port: ServiceBackendPort = ServiceBackendPort()


class IngressBackend(Struct, frozen=True, kw_only=True):
    """Where requests go."""

    service: IngressServiceBackend | None = None
    resource: ObjectReference | None = None


class HTTPIngressPath(Struct, frozen=True, kw_only=True):
    """`path_type`: Exact, Prefix or ImplementationSpecific."""

    backend: IngressBackend
    path: str = ""
    path_type: str = ""


class HTTPIngressRuleValue(Struct, frozen=True, kw_only=True):
    """Paths, the longest match first."""

    paths: tuple[HTTPIngressPath, ...] = ()


class IngressRule(Struct, frozen=True, kw_only=True):
    """Paths of one host."""

    host: str = ""
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Struct, frozen=True, kw_only=True):
    """A certificate for some hosts."""

    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Struct, frozen=True, kw_only=True):
    """Which requests go to which service."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()


class IngressStatus(Struct, frozen=True, kw_only=True):
    """Where it is reached."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Ingress(Object, frozen=True, kw_only=True):
    """networking.k8s.io/v1 Ingress."""

    spec: IngressSpec = IngressSpec()
    status: IngressStatus = IngressStatus()


class IngressClassSpec(Struct, frozen=True, kw_only=True):
    """Which program serves ingresses of this class."""

    controller: str = ""
    parameters: dict[str, Any] | None = None


class IngressClass(Object, frozen=True, kw_only=True):
    """networking.k8s.io/v1 IngressClass."""

    spec: IngressClassSpec = IngressClassSpec()


class IPBlock(Struct, frozen=True, kw_only=True):
    """Addresses, without some of them."""

    cidr: str
    except_: tuple[str, ...] = msgspec.field(default=(), name="except")


class NetworkPolicyPeer(Struct, frozen=True, kw_only=True):
    """Who is meant."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Struct, frozen=True, kw_only=True):
    """A port, or the ports up to `end_port`."""

    port: int | str | None = None
    end_port: int | None = None
    protocol: str | None = None


class NetworkPolicyIngressRule(Struct, frozen=True, kw_only=True):
    """Who may come in."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    from_: tuple[NetworkPolicyPeer, ...] = msgspec.field(default=(), name="from")


class NetworkPolicyEgressRule(Struct, frozen=True, kw_only=True):
    """Where pods may go to."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    to: tuple[NetworkPolicyPeer, ...] = ()


class NetworkPolicySpec(Struct, frozen=True, kw_only=True):
    """Who may talk with the pods of `pod_selector`."""

    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] = ()
    ingress: tuple[NetworkPolicyIngressRule, ...] | None = None
    egress: tuple[NetworkPolicyEgressRule, ...] | None = None


class NetworkPolicy(Object, frozen=True, kw_only=True):
    """networking.k8s.io/v1 NetworkPolicy."""

    spec: NetworkPolicySpec = NetworkPolicySpec()
