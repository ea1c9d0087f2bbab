"""Defaults of services, jobs, autoscalers and of the kinds that are only kept. Source: the Kubernetes API reference."""

from collections.abc import Callable

from msgspec.structs import replace

from korch.resources.autoscaling import (
    HorizontalPodAutoscalerSpec,
    MetricSpec,
    MetricTarget,
    ResourceMetricSource,
)
from korch.resources.batch import CronJobSpec, JobSpec
from korch.resources.crd import CustomResourceConversion, CustomResourceDefinitionSpec
from korch.resources.meta import LabelSelector, ObjectMeta
from korch.resources.rbac import RoleRef, Subject
from korch.resources.service import NO_ADDRESS, EndpointPort, NetworkPolicySpec, ServicePort, ServiceSpec
from korch.resources.workload import PodTemplateSpec

JOB_NAME, JOB_UID = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
_OLD_JOB_NAME, _OLD_JOB_UID = "job-name", "controller-uid"  # labels of before 1.27, which scripts still select by
RBAC_GROUP = "rbac.authorization.k8s.io"
AUTOSCALE_PERCENT = 80


def service_spec(spec: ServiceSpec) -> ServiceSpec:
    """A service's spec. Its address is "None": korch has no virtual addresses, clients read the endpoints."""
    kind = spec.type or "ClusterIP"
    ready = replace(
        spec,
        type=kind,
        ports=tuple(_service_port(port) for port in spec.ports),
        session_affinity=spec.session_affinity or "None",
    )
    if kind == "ExternalName":
        return ready
    outside = kind in ("NodePort", "LoadBalancer")
    allocate = spec.allocate_load_balancer_node_ports
    return replace(
        ready,
        cluster_ip=spec.cluster_ip or NO_ADDRESS,
        cluster_ips=spec.cluster_ips or (spec.cluster_ip or NO_ADDRESS,),
        internal_traffic_policy=spec.internal_traffic_policy or "Cluster",
        external_traffic_policy=spec.external_traffic_policy or ("Cluster" if outside else ""),
        allocate_load_balancer_node_ports=True if kind == "LoadBalancer" and allocate is None else allocate,
        ip_families=spec.ip_families or ("IPv4",),
        ip_family_policy=spec.ip_family_policy or "SingleStack",
    )


def _service_port(port: ServicePort) -> ServicePort:
    target = port.target_port
    return replace(port, protocol=port.protocol or "TCP", target_port=port.port if target in (None, 0, "") else target)


def endpoint_port(port: EndpointPort) -> EndpointPort:
    """A port of an EndpointSlice."""
    return replace(port, name=port.name or "", protocol=port.protocol or "TCP")


def network_policy_spec(spec: NetworkPolicySpec) -> NetworkPolicySpec:
    """The directions that a policy is about."""
    egress = ("Egress",) if spec.egress else ()
    return replace(spec, policy_types=spec.policy_types or ("Ingress", *egress))


Template = Callable[[PodTemplateSpec], PodTemplateSpec]


def job_spec_of(meta: ObjectMeta, spec: JobSpec, template: Template) -> JobSpec:
    """A job's spec; once it has a uid, its pods carry labels of their own, and its selector asks for those."""
    spec = job_spec(spec, template)
    if not meta.uid or spec.manual_selector:
        return spec
    labels = {JOB_UID: meta.uid, JOB_NAME: meta.name, _OLD_JOB_UID: meta.uid, _OLD_JOB_NAME: meta.name}
    labelled = replace(spec.template.metadata, labels={**spec.template.metadata.labels, **labels})
    selector = LabelSelector(match_labels={JOB_UID: meta.uid})
    return replace(spec, selector=selector, template=replace(spec.template, metadata=labelled))


def job_spec(spec: JobSpec, template: Template) -> JobSpec:
    """A job's spec; also of a CronJob's template."""
    completions = 1 if spec.completions is None and spec.parallelism is None else spec.completions
    return replace(
        spec,
        parallelism=1 if spec.parallelism is None else spec.parallelism,
        completions=completions,
        completion_mode=spec.completion_mode or "NonIndexed",
        backoff_limit=6 if spec.backoff_limit is None else spec.backoff_limit,
        suspend=bool(spec.suspend),
        template=template(spec.template),
    )


def cron_job_spec(spec: CronJobSpec, template: Template) -> CronJobSpec:
    """A CronJob's spec."""
    succeeded, failed = spec.successful_jobs_history_limit, spec.failed_jobs_history_limit
    return replace(
        spec,
        concurrency_policy=spec.concurrency_policy or "Allow",
        suspend=bool(spec.suspend),
        job_template=replace(spec.job_template, spec=job_spec(spec.job_template.spec, template)),
        successful_jobs_history_limit=3 if succeeded is None else succeeded,
        failed_jobs_history_limit=1 if failed is None else failed,
    )


def autoscaler_spec(spec: HorizontalPodAutoscalerSpec) -> HorizontalPodAutoscalerSpec:
    """An autoscaler's spec; without metrics it keeps the CPU at 80 % of what is requested."""
    target = MetricTarget(type="Utilization", average_utilization=AUTOSCALE_PERCENT)
    cpu = MetricSpec(type="Resource", resource=ResourceMetricSource(name="cpu", target=target))
    least = 1 if spec.min_replicas is None else spec.min_replicas
    return replace(spec, min_replicas=least, metrics=spec.metrics or (cpu,))


def role_ref(ref: RoleRef) -> RoleRef:
    """The role that a binding names."""
    return replace(ref, api_group=ref.api_group or RBAC_GROUP)


def subject(found: Subject) -> Subject:
    """Whom a binding is for."""
    return replace(found, api_group=found.api_group or ("" if found.kind == "ServiceAccount" else RBAC_GROUP))


def crd_spec(spec: CustomResourceDefinitionSpec) -> CustomResourceDefinitionSpec:
    """A definition with all its names."""
    kind = spec.names.kind
    names = replace(
        spec.names,
        singular=spec.names.singular or kind.lower(),
        list_kind=spec.names.list_kind or (f"{kind}List" if kind else ""),
    )
    return replace(spec, names=names, conversion=spec.conversion or CustomResourceConversion(strategy="None"))
