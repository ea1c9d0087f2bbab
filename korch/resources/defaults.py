"""What an object says after Kubernetes' defaults are filled in, so that readers never meet an unset field.

Sources: the Kubernetes API reference (apps/v1, core/v1). `apply` keeps what the user wrote apart from these.
"""

import base64
from typing import TypeVar

from msgspec.structs import replace

from korch.resources import defaults_more as more
from korch.resources.autoscaling import HorizontalPodAutoscaler
from korch.resources.batch import CronJob, Job
from korch.resources.codec import with_meta
from korch.resources.crd import CustomResourceDefinition
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.kinds import kind_of
from korch.resources.limits import PriorityClass, StorageClass
from korch.resources.meta import LabelSelector, Object
from korch.resources.misc import Namespace, Secret
from korch.resources.pod import (
    Container,
    ContainerPort,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    Pod,
    PodSpec,
    Probe,
    ResourceRequirements,
    SecurityContext,
    Volume,
)
from korch.resources.rbac import ClusterRoleBinding, RoleBinding
from korch.resources.service import EndpointSlice, NetworkPolicy, Service
from korch.resources.workload import (
    DaemonSet,
    DaemonSetSpec,
    DaemonSetUpdateStrategy,
    Deployment,
    DeploymentSpec,
    DeploymentStrategy,
    PodTemplateSpec,
    ReplicaSet,
    ReplicaSetSpec,
    RollingUpdateDaemonSet,
    RollingUpdateDeployment,
)

T = TypeVar("T", bound=Object)

DEFAULT_NAMESPACE = "default"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
GRACE_S = 30
FILE_MODE = 0o644
SCHEDULER_NAME = "default-scheduler"


def with_defaults(obj: T) -> T:
    """The object with everything filled in that Kubernetes fills in; doing it again changes nothing."""
    if kind_of(obj).namespaced and not obj.metadata.namespace:
        obj = with_meta(obj, namespace=DEFAULT_NAMESPACE)
    match obj:
        case Pod():
            return replace(obj, spec=pod_spec(obj.spec))
        case ReplicaSet():
            return replace(obj, spec=_replicaset_spec(obj.spec))
        case Deployment():
            return replace(obj, spec=_deployment_spec(obj.spec))
        case PodDisruptionBudget() if not obj.spec.unhealthy_pod_eviction_policy:
            return replace(obj, spec=replace(obj.spec, unhealthy_pod_eviction_policy="IfHealthyBudget"))
        case DaemonSet():
            return replace(obj, spec=_daemonset_spec(obj.spec))
        case Secret() if obj.string_data or not obj.type:
            return replace(obj, type=obj.type or "Opaque", data=_secret_data(obj), string_data={})
        case Namespace():
            phase = replace(obj.status, phase=obj.status.phase or "Active")
            return replace(with_meta(obj, labels=_namespace_labels(obj)), status=phase)
        case _:
            return _others(obj)


def _others(obj: T) -> T:
    """Defaults of the other kinds."""
    match obj:
        case Job():
            return replace(obj, spec=more.job_spec_of(obj.metadata, obj.spec, _template))
        case CronJob():
            return replace(obj, spec=more.cron_job_spec(obj.spec, _template))
        case Service():
            return replace(obj, spec=more.service_spec(obj.spec))
        case EndpointSlice():
            return replace(obj, ports=tuple(more.endpoint_port(port) for port in obj.ports))
        case HorizontalPodAutoscaler():
            return replace(obj, spec=more.autoscaler_spec(obj.spec))
        case NetworkPolicy():
            return replace(obj, spec=more.network_policy_spec(obj.spec))
        case RoleBinding() | ClusterRoleBinding():
            subjects = tuple(more.subject(found) for found in obj.subjects)
            return replace(obj, role_ref=more.role_ref(obj.role_ref), subjects=subjects)
        case CustomResourceDefinition():
            return replace(obj, spec=more.crd_spec(obj.spec))
        case PriorityClass():
            return replace(obj, preemption_policy=obj.preemption_policy or "PreemptLowerPriority")
        case StorageClass():
            mode = obj.volume_binding_mode or "Immediate"
            return replace(obj, reclaim_policy=obj.reclaim_policy or "Delete", volume_binding_mode=mode)
        case _:
            return obj


def pod_spec(spec: PodSpec) -> PodSpec:
    """A pod's spec with defaults; also for templates."""
    grace_s = spec.termination_grace_period_seconds
    return replace(
        spec,
        containers=tuple(_container(c) for c in spec.containers),
        init_containers=tuple(_container(c) for c in spec.init_containers),
        restart_policy=spec.restart_policy or "Always",
        termination_grace_period_seconds=GRACE_S if grace_s is None else grace_s,
        dns_policy=spec.dns_policy or "ClusterFirst",
        scheduler_name=spec.scheduler_name or SCHEDULER_NAME,
        volumes=tuple(_volume(volume) for volume in spec.volumes),
        security_context=_security(spec.security_context),
        tolerations=tuple(replace(t, operator=t.operator or "Equal") for t in spec.tolerations),
    )


def _volume(volume: Volume) -> Volume:
    """Files that all users of the container can read, unless told otherwise."""
    for name in ("config_map", "secret", "downward_api", "projected"):
        source = getattr(volume, name)
        if source is not None and source.default_mode is None:
            return replace(volume, **{name: replace(source, default_mode=FILE_MODE)})
    return volume


def pull_policy(image: str) -> str:
    """Kubernetes' default: Always for the tag `latest` or none, IfNotPresent for other tags and for digests."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _container(container: Container) -> Container:
    return replace(
        container,
        image_pull_policy=container.image_pull_policy or pull_policy(container.image),
        ports=tuple(_port(p) for p in container.ports),
        resources=_resources(container.resources),
        readiness_probe=_probe(container.readiness_probe),
        liveness_probe=_probe(container.liveness_probe),
        startup_probe=_probe(container.startup_probe),
        lifecycle=_lifecycle(container.lifecycle),
        security_context=_security(container.security_context),
    )


def _security(context: SecurityContext | None) -> SecurityContext | None:
    """One that says nothing is none: answers show pods with an empty one, which clients send back."""
    return None if context == SecurityContext() else context


def _lifecycle(lifecycle: Lifecycle | None) -> Lifecycle | None:
    if lifecycle is None:
        return None
    return replace(lifecycle, post_start=_hook(lifecycle.post_start), pre_stop=_hook(lifecycle.pre_stop))


def _hook(hook: LifecycleHandler | None) -> LifecycleHandler | None:
    return replace(hook, http_get=_http_get(hook.http_get)) if hook is not None else None


def _port(port: ContainerPort) -> ContainerPort:
    return replace(port, protocol=port.protocol or "TCP")


def _resources(resources: ResourceRequirements) -> ResourceRequirements:
    """A limit without a request is also the request."""
    missing = {name: value for name, value in resources.limits.items() if name not in resources.requests}
    return replace(resources, requests={**resources.requests, **missing}) if missing else resources


def _probe(probe: Probe | None) -> Probe | None:
    if probe is None:
        return None
    return replace(
        probe,
        http_get=_http_get(probe.http_get),
        initial_delay_seconds=probe.initial_delay_seconds or 0,
        period_seconds=probe.period_seconds or 10,
        timeout_seconds=probe.timeout_seconds or 1,
        success_threshold=probe.success_threshold or 1,
        failure_threshold=probe.failure_threshold or 3,
    )


def _http_get(action: HTTPGetAction | None) -> HTTPGetAction | None:
    if action is None:
        return None
    return replace(action, path=action.path or "/", scheme=action.scheme or "HTTP")


def _template(template: PodTemplateSpec) -> PodTemplateSpec:
    return replace(template, spec=pod_spec(template.spec))


def _selector(selector: LabelSelector, template: PodTemplateSpec) -> LabelSelector:
    """apps/v1 wants a selector; without one the template's labels are it, as in the older API."""
    if selector.match_labels or selector.match_expressions:
        return selector
    return LabelSelector(match_labels=template.metadata.labels)


def _replicaset_spec(spec: ReplicaSetSpec) -> ReplicaSetSpec:
    template = _template(spec.template)
    return replace(
        spec,
        replicas=1 if spec.replicas is None else spec.replicas,
        selector=_selector(spec.selector, template),
        template=template,
    )


def _deployment_spec(spec: DeploymentSpec) -> DeploymentSpec:
    template = _template(spec.template)
    return replace(
        spec,
        replicas=1 if spec.replicas is None else spec.replicas,
        selector=_selector(spec.selector, template),
        template=template,
        strategy=_strategy(spec.strategy),
        revision_history_limit=10 if spec.revision_history_limit is None else spec.revision_history_limit,
        progress_deadline_seconds=600 if spec.progress_deadline_seconds is None else spec.progress_deadline_seconds,
    )


def _daemonset_spec(spec: DaemonSetSpec) -> DaemonSetSpec:
    template, strategy = _template(spec.template), spec.update_strategy
    if strategy.type in ("", "RollingUpdate"):
        given = strategy.rolling_update or RollingUpdateDaemonSet()
        rolling = replace(given, max_unavailable=1 if given.max_unavailable is None else given.max_unavailable)
        strategy = DaemonSetUpdateStrategy(type="RollingUpdate", rolling_update=rolling)
    return replace(
        spec,
        selector=_selector(spec.selector, template),
        template=template,
        update_strategy=strategy,
        revision_history_limit=10 if spec.revision_history_limit is None else spec.revision_history_limit,
    )


def _strategy(strategy: DeploymentStrategy) -> DeploymentStrategy:
    kind = strategy.type or "RollingUpdate"
    if kind != "RollingUpdate":
        return replace(strategy, type=kind)
    given = strategy.rolling_update or RollingUpdateDeployment()
    rolling = RollingUpdateDeployment(
        max_surge="25%" if given.max_surge is None else given.max_surge,
        max_unavailable="25%" if given.max_unavailable is None else given.max_unavailable,
    )
    return DeploymentStrategy(type=kind, rolling_update=rolling)


def _namespace_labels(obj: Namespace) -> dict[str, str]:
    """With the one by which policies choose it."""
    name = obj.metadata.name
    return {**obj.metadata.labels, **({NAMESPACE_LABEL: name} if name else {})}


def _secret_data(secret: Secret) -> dict[str, str]:
    """`stringData` becomes base64 `data`, and wins over it."""
    plain = {key: base64.b64encode(value.encode()).decode() for key, value in secret.string_data.items()}
    return {**secret.data, **plain}
