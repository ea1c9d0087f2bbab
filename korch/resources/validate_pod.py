"""Whether a pod's spec is legal: its container, volumes, and where it may run."""

from korch.errors import InvalidError
from korch.resources.fields import refusals
from korch.resources.images import containers_of, has_sandbox, sidecars_of
from korch.resources.meta import LabelSelector
from korch.resources.names import dns_label_problem, dns_subdomain_problem
from korch.resources.pod import (
    Affinity,
    NodeSelectorTerm,
    PodAffinityTerm,
    PodSpec,
    SecurityContext,
    Toleration,
    WeightedPodAffinityTerm,
)
from korch.resources.problems import Problems
from korch.resources.publish import published_ports
from korch.resources.selectors import label_key_problem, label_value_problem, requirement_problem, validate_selector
from korch.resources.templates import PUBLISH_ANNOTATION
from korch.resources.validate_container import check_container, check_hooks, check_init, check_unique, check_user
from korch.resources.validate_volumes import check_shared, check_volume, check_whole_mounts

_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def check_pod_spec(spec: PodSpec, path: str, problems: Problems, *, template: bool, ends: bool = False) -> None:
    """Note everything that is wrong with a pod's spec; templates of workloads allow a little less.

    `ends`: the pods are to end, as those of a job.
    """
    problems.found += refusals(spec, path)
    if not spec.containers:
        problems.add(f"{path}.containers", "0 containers; one is needed")
    names = [volume.name for volume in spec.volumes]
    grace_s = 30 if spec.termination_grace_period_seconds is None else spec.termination_grace_period_seconds
    for index, container in enumerate(spec.containers):
        check_container(container, f"{path}.containers[{index}]", names, problems)
        check_hooks(container, f"{path}.containers[{index}]", grace_s, problems)
        if container.restart_policy:
            problems.add(f"{path}.containers[{index}].restartPolicy", "is for init containers; the pod's counts here")
    for index, container in enumerate(spec.init_containers):
        check_container(container, f"{path}.initContainers[{index}]", names, problems)
        check_init(container, f"{path}.initContainers[{index}]", problems)
        if container.restart_policy == "Always":
            check_hooks(container, f"{path}.initContainers[{index}]", grace_s, problems)
    _check_together(spec, path, problems)
    check_unique((f'"{name}"' for name in names), f"{path}.volumes", "volume", problems)
    for index, volume in enumerate(spec.volumes):
        check_volume(volume, spec, f"{path}.volumes[{index}]", problems)
    check_whole_mounts(spec, path, problems)
    check_shared(spec, path, problems)
    _check_life(spec, path, problems, template=template, ends=ends)
    _check_placement(spec, path, problems)


def _check_together(spec: PodSpec, path: str, problems: Problems) -> None:
    """Names and node ports, of which a pod has each once."""
    for index, container in enumerate(spec.containers):
        if container.name in {one.name for one in (*spec.init_containers, *spec.containers[:index])}:
            problems.add(f"{path}.containers[{index}].name", f'"{container.name}" is the name of another container')
    check_unique((f'"{one.name}"' for one in spec.init_containers), f"{path}.initContainers", "name", problems)
    if has_sandbox(spec):
        ports = (
            f"{port.host_ip or '*'}:{port.host_port}/{port.protocol}"
            for one in (*sidecars_of(spec), *spec.containers)
            for port in one.ports
            if port.host_port
        )
        check_unique(ports, f"{path}.containers", "hostPort", problems)


def check_publish(annotations: dict[str, str], spec: PodSpec, path: str, problems: Problems) -> None:
    """Note published ports that no container has."""
    where = f"{path}.annotations.{PUBLISH_ANNOTATION}"
    try:
        wanted = published_ports(annotations)
    except InvalidError as error:
        problems.add(where, str(error))
        return
    there = {(port.container_port, port.protocol) for container in spec.containers for port in container.ports}
    for number, protocol in wanted:
        if (number, protocol) not in there:
            problems.add(where, f"no container has port {number}/{protocol}")
    check_unique((f"{number}/{protocol}" for number, protocol in wanted), where, "port", problems)


def _check_life(spec: PodSpec, path: str, problems: Problems, *, template: bool, ends: bool) -> None:
    if spec.restart_policy not in ("Always", "OnFailure", "Never"):
        problems.add(f"{path}.restartPolicy", f'"{spec.restart_policy}" is not Always, OnFailure or Never')
    elif ends and spec.restart_policy == "Always":
        problems.add(f"{path}.restartPolicy", "OnFailure or Never is needed: pods of a job end")
    elif template and not ends and spec.restart_policy != "Always":
        message = f'"{spec.restart_policy}" is for single pods; a workload keeps its pods running: Always'
        problems.add(f"{path}.restartPolicy", message)
    if template and spec.node_name:
        problems.add(f"{path}.nodeName", "all replicas would be on one node; use nodeSelector kubernetes.io/hostname")
    if (spec.termination_grace_period_seconds or 0) < 0:
        problems.add(f"{path}.terminationGracePeriodSeconds", f"{spec.termination_grace_period_seconds} is less than 0")
    if spec.hostname:
        problems.check(f"{path}.hostname", dns_label_problem(spec.hostname))
    for index, reference in enumerate(spec.image_pull_secrets):
        problems.check(f"{path}.imagePullSecrets[{index}].name", dns_subdomain_problem(reference.name))
    context = spec.security_context or SecurityContext()
    check_user(context.run_as_user, f"{path}.securityContext.runAsUser", problems)
    check_user(context.run_as_group, f"{path}.securityContext.runAsGroup", problems)
    for container in containers_of(spec):
        own = container.security_context or SecurityContext()
        user, group = (own.run_as_user, context.run_as_user), (own.run_as_group, context.run_as_group)
        if user == (None, None) and group != (None, None):
            problems.add(f"{path}.securityContext.runAsGroup", "needs runAsUser: engines take both together")


# --- placement ---


def _check_placement(spec: PodSpec, path: str, problems: Problems) -> None:
    for key, value in spec.node_selector.items():
        problems.check(f"{path}.nodeSelector", label_key_problem(key) or label_value_problem(value))
    for index, toleration in enumerate(spec.tolerations):
        problems.check(f"{path}.tolerations[{index}]", _toleration_problem(toleration))
    for index, spread in enumerate(spec.topology_spread_constraints):
        where = f"{path}.topologySpreadConstraints[{index}]"
        if spread.max_skew < 1:
            problems.add(f"{where}.maxSkew", f"{spread.max_skew} is less than 1")
        problems.check(f"{where}.topologyKey", label_key_problem(spread.topology_key))
        if spread.when_unsatisfiable not in ("DoNotSchedule", "ScheduleAnyway"):
            message = f'"{spread.when_unsatisfiable}" is not DoNotSchedule or ScheduleAnyway'
            problems.add(f"{where}.whenUnsatisfiable", message)
        check_selector(spread.label_selector, f"{where}.labelSelector", problems)
    if spec.affinity is not None:
        _check_affinity(spec.affinity, f"{path}.affinity", problems)


def check_selector(selector: LabelSelector | None, path: str, problems: Problems) -> None:
    """Note an illegal selector."""
    if selector is None:
        return
    try:
        validate_selector(selector, path)
    except InvalidError as error:
        where, _, message = str(error).partition(": ")
        problems.add(where, message)


def _toleration_problem(toleration: Toleration) -> str:
    if toleration.operator not in ("Equal", "Exists"):
        return f'operator "{toleration.operator}" is not Equal or Exists'
    if not toleration.key and toleration.operator != "Exists":
        return "without a key the operator must be Exists: it tolerates everything"
    if toleration.operator == "Exists" and toleration.value:
        return "Exists takes no value"
    if toleration.effect not in _EFFECTS:
        return f'effect "{toleration.effect}" is not one of {", ".join(_EFFECTS[1:])}'
    if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
        return "tolerationSeconds is for effect NoExecute"
    return label_key_problem(toleration.key) if toleration.key else ""


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _check_affinity(affinity: Affinity, path: str, problems: Problems) -> None:
    if affinity.node_affinity is not None:
        node, where = affinity.node_affinity, f"{path}.nodeAffinity"
        required = node.required_during_scheduling_ignored_during_execution
        if required is not None:
            if not required.node_selector_terms:
                problems.add(f"{where}.{_REQUIRED}.nodeSelectorTerms", "a term is needed")
            for index, term in enumerate(required.node_selector_terms):
                _check_node_term(term, f"{where}.{_REQUIRED}.nodeSelectorTerms[{index}]", problems)
        for index, weighted in enumerate(node.preferred_during_scheduling_ignored_during_execution):
            _check_weight(weighted.weight, f"{where}.{_PREFERRED}[{index}]", problems)
            _check_node_term(weighted.preference, f"{where}.{_PREFERRED}[{index}].preference", problems)
    for name, pods in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
        if pods is not None:
            _check_pod_terms(
                pods.required_during_scheduling_ignored_during_execution,
                pods.preferred_during_scheduling_ignored_during_execution,
                f"{path}.{name}",
                problems,
            )


def _check_node_term(term: NodeSelectorTerm, path: str, problems: Problems) -> None:
    for index, r in enumerate(term.match_expressions):
        problems.check(f"{path}.matchExpressions[{index}]", requirement_problem(r.key, r.operator, r.values))
    for index, r in enumerate(term.match_fields):
        where = f"{path}.matchFields[{index}]"
        if r.key != "metadata.name":
            problems.add(f"{where}.key", f'"{r.key}" is not metadata.name, the only field that can be matched')
        if r.operator not in ("In", "NotIn") or len(r.values) != 1:
            problems.add(where, "operator In or NotIn with one value is needed")


def _check_pod_terms(
    required: tuple[PodAffinityTerm, ...], preferred: tuple[WeightedPodAffinityTerm, ...], path: str, problems: Problems
) -> None:
    for index, term in enumerate(required):
        _check_pod_term(term, f"{path}.{_REQUIRED}[{index}]", problems)
    for index, weighted in enumerate(preferred):
        _check_weight(weighted.weight, f"{path}.{_PREFERRED}[{index}]", problems)
        _check_pod_term(weighted.pod_affinity_term, f"{path}.{_PREFERRED}[{index}].podAffinityTerm", problems)


def _check_pod_term(term: PodAffinityTerm, path: str, problems: Problems) -> None:
    problems.check(f"{path}.topologyKey", label_key_problem(term.topology_key))
    check_selector(term.label_selector, f"{path}.labelSelector", problems)
    for namespace in term.namespaces:
        problems.check(f"{path}.namespaces", dns_label_problem(namespace))


def _check_weight(weight: int, path: str, problems: Problems) -> None:
    if not 1 <= weight <= 100:
        problems.add(f"{path}.weight", f"{weight} is not between 1 and 100")
