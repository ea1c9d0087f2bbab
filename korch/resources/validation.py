"""Whether an object is legal, and whether a change of it is: all mistakes in one error, each with its path."""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from korch.errors import InvalidError
from korch.resources import validate_more as more
from korch.resources.autoscaling import HorizontalPodAutoscaler
from korch.resources.batch import CronJob, Job
from korch.resources.config import ConfigMap
from korch.resources.crd import CustomResourceDefinition
from korch.resources.disruption import PodDisruptionBudget, PodDisruptionBudgetSpec
from korch.resources.history import ControllerRevision
from korch.resources.images import containers_of, with_images
from korch.resources.kinds import kind_of
from korch.resources.limits import PriorityClass, StorageClass
from korch.resources.meta import LabelSelector, Object
from korch.resources.misc import Namespace, Secret
from korch.resources.names import (
    check_annotations,
    check_labels,
    dns_label_problem,
    dns_subdomain_problem,
    secret_key_problem,
)
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.problems import Problem, Problems, raise_problems
from korch.resources.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from korch.resources.selectors import label_key_problem, label_value_problem, matches
from korch.resources.service import EndpointSlice, Ingress, NetworkPolicy, Service
from korch.resources.templates import resolve_int_or_percent
from korch.resources.validate_batch import check_cron_job, check_job
from korch.resources.validate_pod import check_pod_spec, check_publish, check_selector
from korch.resources.workload import DaemonSet, Deployment, DeploymentStrategy, PodTemplateSpec, ReplicaSet

_LABEL_NAMES = (
    Pod,
    Deployment,
    DaemonSet,
    Namespace,
    Job,
    CronJob,
)  # their names become host names, names of containers and of folders
_SECRET_MAX_BYTES = 1024 * 1024  # Kubernetes' MaxSecretSize
DOCKER_CONFIG_TYPE, DOCKER_CONFIG_KEY = "kubernetes.io/dockerconfigjson", ".dockerconfigjson"
_SECRET_KEYS = {  # that a Secret of a type must have, as in Kubernetes
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/dockercfg": (".dockercfg",),
}


def validate(obj: Object) -> None:
    """Raise `InvalidError` with every problem of an object that has its defaults."""
    raise_problems(_subject(obj), problems_of(obj))


def problems_of(obj: Object) -> list[Problem]:
    """Everything that is wrong with an object that has its defaults."""
    problems = Problems()
    _check_meta(obj, problems)
    match obj:
        case Pod():
            check_pod_spec(obj.spec, "spec", problems, template=False)
            check_publish(obj.metadata.annotations, obj.spec, "metadata", problems)
        case ReplicaSet():
            _check_count(obj.spec.replicas, "spec.replicas", problems)
            _check_count(obj.spec.min_ready_seconds, "spec.minReadySeconds", problems)
            _check_template(obj.spec.selector, obj.spec.template, problems)
        case Deployment():
            _check_deployment(obj, problems)
        case PodDisruptionBudget():
            _check_budget(obj.spec, problems)
        case DaemonSet():
            _check_daemonset(obj, problems)
        case Secret():
            _check_secret(obj, problems)
        case Node():
            _check_node(obj, problems)
        case Job():
            check_job(obj, problems)
        case CronJob():
            check_cron_job(obj, problems)
        case _:
            _check_others(obj, problems)
    return problems.found


def _check_others(obj: Object, problems: Problems) -> None:
    match obj:
        case ConfigMap():
            more.check_config_map(obj, problems)
        case Service():
            more.check_service(obj.spec, problems)
        case EndpointSlice():
            more.check_slice(obj, problems)
        case HorizontalPodAutoscaler():
            more.check_autoscaler(obj.spec, problems)
        case CustomResourceDefinition():
            more.check_crd(obj, problems)
        case Ingress():
            more.check_ingress(obj.spec, problems)
        case NetworkPolicy():
            check_selector(obj.spec.pod_selector, "spec.podSelector", problems)
        case Role() | ClusterRole():
            more.check_rules(obj.rules, problems)
        case RoleBinding() | ClusterRoleBinding():
            more.check_binding(obj.role_ref, obj.subjects, problems)
        case _:
            pass


def validate_update(new: Object, old: Object) -> None:
    """Raise `InvalidError` when `new` changes what cannot change. Both have their defaults."""
    problems = Problems()
    hint = ""
    if isinstance(new, Deployment | ReplicaSet | DaemonSet) and isinstance(old, Deployment | ReplicaSet | DaemonSet):
        if new.spec.selector != old.spec.selector:
            problems.add("spec.selector", "cannot change: pods would be lost sight of")
            hint = f"Delete the {kind_of(old).name} and make a new one."
    elif isinstance(new, Pod) and isinstance(old, Pod):
        if new.spec.tolerations[: len(old.spec.tolerations)] != old.spec.tolerations:
            problems.add("spec.tolerations", "can only get more")
        images = {container.name: container.image for container in containers_of(new.spec)}
        if replace(new.spec, tolerations=()) != replace(with_images(old.spec, images), tolerations=()):
            problems.add("spec", f"of a pod cannot change, but for images and more tolerations{_remedy(old)}")
    elif isinstance(new, Secret | ConfigMap) and isinstance(old, Secret | ConfigMap) and _altered(new, old):
        what = "data" if bool(new.immutable) == bool(old.immutable) else "immutable"
        problems.add(what, f"cannot change: the {kind_of(old).name} is immutable")
        hint = f"Make a {kind_of(old).name} with another name."
    else:
        hint = _check_fixed(new, old, problems)
    raise_problems(_subject(old), problems.found, hint=hint)


def _remedy(pod: Pod) -> str:
    """What to change instead of a pod: in the message itself, as Kubernetes' clients show nothing else."""
    owner = next((one for one in pod.metadata.owner_references if one.controller), None)
    if owner is None:
        return "; `kubectl replace --force -f` makes a new one"
    return f"; it was made by {owner.kind} {owner.name}: change what that comes from"


_FIXED: dict[type[Object], tuple[tuple[str, Callable[[Any], object]], ...]] = {
    Job: (
        ("spec.selector", lambda job: job.spec.selector),
        ("spec.template", lambda job: job.spec.template),
        ("spec.completionMode", lambda job: job.spec.completion_mode),
        ("spec.completions", lambda job: job.spec.completions),
    ),
    Secret: (("type", lambda secret: secret.type),),
    RoleBinding: (("roleRef", lambda binding: binding.role_ref),),
    ClusterRoleBinding: (("roleRef", lambda binding: binding.role_ref),),
    EndpointSlice: (("addressType", lambda found: found.address_type),),
    ControllerRevision: (("data", lambda revision: revision.data),),
    CustomResourceDefinition: (
        ("spec.group", lambda crd: crd.spec.group),
        ("spec.scope", lambda crd: crd.spec.scope),
        ("spec.names.kind", lambda crd: crd.spec.names.kind),
        ("spec.names.plural", lambda crd: crd.spec.names.plural),
    ),
    PriorityClass: (("value", lambda found: found.value),),
    StorageClass: (
        ("provisioner", lambda found: found.provisioner),
        ("parameters", lambda found: found.parameters),
        ("reclaimPolicy", lambda found: found.reclaim_policy),
        ("volumeBindingMode", lambda found: found.volume_binding_mode),
    ),
}


def _check_fixed(new: Object, old: Object, problems: Problems) -> str:
    """Note fields that stay what they were, for as long as the object lives; the hint for it."""
    for path, read in _FIXED.get(type(new), ()):
        if read(new) != read(old):
            problems.add(path, "cannot change")
    return f"Delete the {kind_of(old).name} and make a new one." if problems.found else ""


def _altered(new: Secret | ConfigMap, old: Secret | ConfigMap) -> bool:
    return bool(old.immutable) and replace(new, metadata=old.metadata) != old


def _subject(obj: Object) -> str:
    return f'{kind_of(obj).name} "{obj.metadata.name}"'


def _name_judge(obj: Object) -> Callable[[str], str]:
    if isinstance(obj, Service):
        return more.service_name_problem
    if isinstance(obj, Role | ClusterRole | RoleBinding | ClusterRoleBinding):
        return more.path_segment_problem
    return dns_label_problem if isinstance(obj, _LABEL_NAMES) else dns_subdomain_problem


def _check_meta(obj: Object, problems: Problems) -> None:
    meta = obj.metadata
    problems.check("metadata.name", _name_judge(obj)(meta.name))
    if kind_of(obj).namespaced:
        problems.check("metadata.namespace", dns_label_problem(meta.namespace))
    elif meta.namespace:
        problems.add("metadata.namespace", f"a {kind_of(obj).name} belongs to no namespace")
    check_labels(meta.labels, "metadata.labels", problems)
    check_annotations(meta.annotations, "metadata.annotations", problems)
    for finalizer in meta.finalizers:
        problems.check("metadata.finalizers", label_key_problem(finalizer))
    if sum(bool(owner.controller) for owner in meta.owner_references) > 1:
        problems.add("metadata.ownerReferences", "only one owner can be the controller")


def _check_count(value: int | None, path: str, problems: Problems) -> None:
    if value is not None and not 0 <= value < 2**31:
        problems.add(path, f"{value} is less than 0" if value < 0 else f"{value} is too large")


def _check_template(selector: LabelSelector, template: PodTemplateSpec, problems: Problems) -> None:
    path, meta = "spec.template.metadata", template.metadata
    check_labels(meta.labels, f"{path}.labels", problems)
    check_annotations(meta.annotations, f"{path}.annotations", problems)
    if meta.name or meta.generate_name or meta.namespace:
        problems.add(path, "name and namespace of the pods are not given in a template")
    before = len(problems.found)
    check_selector(selector, "spec.selector", problems)
    if not (selector.match_labels or selector.match_expressions):
        problems.add("spec.selector", "is needed: matchLabels with labels that the template has")
    elif len(problems.found) == before and not matches(selector, meta.labels):
        problems.add("spec.selector", "does not match the labels of the template")
    check_pod_spec(template.spec, "spec.template.spec", problems, template=True)
    check_publish(meta.annotations, template.spec, path, problems)


def _check_deployment(deployment: Deployment, problems: Problems) -> None:
    spec = deployment.spec
    _check_count(spec.replicas, "spec.replicas", problems)
    _check_count(spec.min_ready_seconds, "spec.minReadySeconds", problems)
    _check_count(spec.revision_history_limit, "spec.revisionHistoryLimit", problems)
    deadline_s = spec.progress_deadline_seconds
    if deadline_s is not None and deadline_s <= spec.min_ready_seconds:
        message = f"{deadline_s} must be more than minReadySeconds ({spec.min_ready_seconds})"
        problems.add("spec.progressDeadlineSeconds", message)
    _check_strategy(spec.strategy, problems)
    _check_template(spec.selector, spec.template, problems)


def _check_strategy(strategy: DeploymentStrategy, problems: Problems) -> None:
    path, rolling = "spec.strategy", strategy.rolling_update
    if strategy.type not in ("RollingUpdate", "Recreate"):
        problems.add(f"{path}.type", f'"{strategy.type}" is not RollingUpdate or Recreate')
    if rolling is None:
        return
    if strategy.type == "Recreate":
        problems.add(f"{path}.rollingUpdate", "has no meaning with type Recreate")
    zeros = 0
    for name, value in (("maxSurge", rolling.max_surge), ("maxUnavailable", rolling.max_unavailable)):
        if value is not None:
            most = 100 if name == "maxUnavailable" else None
            zeros += _share(value, f"{path}.rollingUpdate.{name}", problems, most=most) == 0
    if zeros == 2:
        problems.add(f"{path}.rollingUpdate", "maxSurge and maxUnavailable cannot both be 0: nothing could move")


def _check_budget(spec: PodDisruptionBudgetSpec, problems: Problems) -> None:
    given = (("minAvailable", spec.min_available), ("maxUnavailable", spec.max_unavailable))
    if sum(value is not None for _, value in given) != 1:
        problems.add("spec", "needs one of minAvailable and maxUnavailable: a number, or a percentage such as 50%")
    for name, value in given:
        if value is None:
            continue
        try:
            count = resolve_int_or_percent(value, 100, round_up=True)
        except InvalidError as error:
            problems.add(f"spec.{name}", str(error))
            continue
        if count < 0 or (isinstance(value, str) and count > 100):
            problems.add(f"spec.{name}", f"{value} is {'less than 0' if count < 0 else 'more than 100%'}")
    if spec.selector is None:
        problems.add("spec.selector", "is needed: matchLabels with labels of the pods; {} means all of the namespace")
    else:
        check_selector(spec.selector, "spec.selector", problems)
    if spec.unhealthy_pod_eviction_policy not in ("IfHealthyBudget", "AlwaysAllow"):
        message = f'"{spec.unhealthy_pod_eviction_policy}" is not IfHealthyBudget or AlwaysAllow'
        problems.add("spec.unhealthyPodEvictionPolicy", message)


def _check_daemonset(daemonset: DaemonSet, problems: Problems) -> None:
    spec, strategy = daemonset.spec, daemonset.spec.update_strategy
    path = "spec.updateStrategy"
    _check_count(spec.min_ready_seconds, "spec.minReadySeconds", problems)
    _check_count(spec.revision_history_limit, "spec.revisionHistoryLimit", problems)
    if strategy.type not in ("RollingUpdate", "OnDelete"):
        problems.add(f"{path}.type", f'"{strategy.type}" is not RollingUpdate or OnDelete')
    if strategy.rolling_update is not None:
        if strategy.type == "OnDelete":
            problems.add(f"{path}.rollingUpdate", "has no meaning with type OnDelete")
        value = strategy.rolling_update.max_unavailable
        count = _share(value, f"{path}.rollingUpdate.maxUnavailable", problems) if value is not None else 1
        if count == 0:
            problems.add(f"{path}.rollingUpdate.maxUnavailable", "must be more than 0: nothing could move")
    _check_template(spec.selector, spec.template, problems)


def _share(value: int | str, path: str, problems: Problems, *, most: int | None = 100) -> int | None:
    """A number, or a percentage (`most`: the largest one) of a hundred pods; None after noting that it is neither."""
    try:
        count = resolve_int_or_percent(value, 100, round_up=True)
    except InvalidError as error:
        problems.add(path, str(error))
        return None
    if count < 0:
        problems.add(path, f"{value} is less than 0")
    elif isinstance(value, str) and most is not None and count > most:
        problems.add(path, f"{value} is more than {most}%")
    return count


def _check_secret(secret: Secret, problems: Problems) -> None:
    """Messages name keys only, never values."""
    size = 0
    for key, value in secret.data.items():
        problems.check("data", secret_key_problem(key))
        try:
            size += len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            problems.add(f"data.{key}", "is not base64; plain text belongs into stringData")
    if size > _SECRET_MAX_BYTES:
        problems.add("data", f"{size} bytes; a Secret holds at most {_SECRET_MAX_BYTES}")
    for key in _SECRET_KEYS.get(secret.type, ()):
        if key not in secret.data:
            problems.add(f"data.{key}", f"is needed in a Secret of type {secret.type}")
    if secret.type == "kubernetes.io/basic-auth" and secret.data.keys().isdisjoint({"username", "password"}):
        problems.add("data", f"username or password is needed in a Secret of type {secret.type}")
    if secret.type == DOCKER_CONFIG_TYPE and not problems.found:
        try:
            json.loads(base64.b64decode(secret.data.get(DOCKER_CONFIG_KEY, "")))
        except ValueError:
            problems.add(f"data.{DOCKER_CONFIG_KEY}", "is needed: the engine's config.json")


def _check_node(node: Node, problems: Problems) -> None:
    for index, taint in enumerate(node.spec.taints):
        path = f"spec.taints[{index}]"
        problems.check(f"{path}.key", label_key_problem(taint.key))
        problems.check(f"{path}.value", label_value_problem(taint.value))
        if taint.effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            problems.add(f"{path}.effect", f'"{taint.effect}" is not NoSchedule, PreferNoSchedule or NoExecute')
