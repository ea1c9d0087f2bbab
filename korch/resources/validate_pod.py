"""Whether a pod's spec is legal: its container, volumes, and where it may run."""

from korch.errors import InvalidError
from korch.resources.fields import refusals
from korch.resources.meta import LabelSelector
from korch.resources.names import (
    dns_label_problem,
    dns_subdomain_problem,
    path_problem,
    relative_path_problem,
    secret_key_problem,
    volume_name_problem,
)
from korch.resources.pod import (
    Affinity,
    ConfigMapVolumeSource,
    CSIVolumeSource,
    NodeSelectorTerm,
    PodAffinityTerm,
    PodSpec,
    SecretVolumeSource,
    SecurityContext,
    Toleration,
    Volume,
    WeightedPodAffinityTerm,
)
from korch.resources.problems import Problems
from korch.resources.publish import published_ports
from korch.resources.quantity import memory_bytes
from korch.resources.selectors import label_key_problem, label_value_problem, requirement_problem, validate_selector
from korch.resources.templates import PUBLISH_ANNOTATION
from korch.resources.validate_container import check_container, check_hooks, check_unique, check_user

VOLUME_DRIVER = "volumes.korch.dev"
_HOST_PATH_TYPES = ("", "Directory", "DirectoryOrCreate", "File", "Socket")
_MOST_MODE = 0o777
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def check_pod_spec(spec: PodSpec, path: str, problems: Problems, *, template: bool, ends: bool = False) -> None:
    """Note everything that is wrong with a pod's spec; templates of workloads allow a little less.

    `ends`: the pods are to end, as those of a job.
    """
    problems.found += refusals(spec, path)
    if len(spec.containers) != 1:
        advice = "one is needed" if not spec.containers else "this version runs one a pod: make a Deployment of each"
        problems.add(f"{path}.containers", f"{len(spec.containers)} containers; {advice}")
    names = [volume.name for volume in spec.volumes]
    grace_s = 30 if spec.termination_grace_period_seconds is None else spec.termination_grace_period_seconds
    for index, container in enumerate(spec.containers):
        check_container(container, f"{path}.containers[{index}]", names, problems)
        check_hooks(container, f"{path}.containers[{index}]", grace_s, problems)
    check_unique((f'"{name}"' for name in names), f"{path}.volumes", "volume", problems)
    for index, volume in enumerate(spec.volumes):
        _check_volume(volume, f"{path}.volumes[{index}]", problems)
    _check_scratch(spec, path, problems)
    _check_life(spec, path, problems, template=template, ends=ends)
    _check_placement(spec, path, problems)


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
    for container in spec.containers:
        own = container.security_context or SecurityContext()
        user, group = (own.run_as_user, context.run_as_user), (own.run_as_group, context.run_as_group)
        if user == (None, None) and group != (None, None):
            problems.add(f"{path}.securityContext.runAsGroup", "needs runAsUser: engines take both together")


# --- volumes ---


def _check_volume(volume: Volume, path: str, problems: Problems) -> None:
    problems.check(f"{path}.name", dns_label_problem(volume.name))
    sources = (volume.host_path, volume.empty_dir, volume.csi, volume.config_map, volume.secret)
    if sum(source is not None for source in sources) != 1:
        problems.add(path, "exactly one of configMap, secret, hostPath, emptyDir and csi is needed")
    if volume.host_path is not None:
        problems.check(f"{path}.hostPath.path", path_problem(volume.host_path.path))
        if volume.host_path.type not in _HOST_PATH_TYPES:
            kinds = ", ".join(_HOST_PATH_TYPES[1:])
            problems.add(f"{path}.hostPath.type", f'"{volume.host_path.type}" is not one of {kinds}')
    if volume.empty_dir is not None:
        if volume.empty_dir.medium not in ("", "Memory"):
            problems.add(f"{path}.emptyDir.medium", f'"{volume.empty_dir.medium}" is not Memory')
        if volume.empty_dir.size_limit is not None:
            _check_size(volume.empty_dir.size_limit, volume.empty_dir.medium, f"{path}.emptyDir.sizeLimit", problems)
    if volume.csi is not None:
        _check_csi(volume.csi, f"{path}.csi", problems)
    if volume.config_map is not None:
        problems.check(f"{path}.configMap.name", dns_subdomain_problem(volume.config_map.name))
        _check_files(volume.config_map, f"{path}.configMap", problems)
    if volume.secret is not None:
        problems.check(f"{path}.secret.secretName", dns_subdomain_problem(volume.secret.secret_name))
        _check_files(volume.secret, f"{path}.secret", problems)


def _check_files(source: ConfigMapVolumeSource | SecretVolumeSource, path: str, problems: Problems) -> None:
    modes = [(f"{path}.defaultMode", source.default_mode)]
    for index, item in enumerate(source.items):
        where = f"{path}.items[{index}]"
        problems.check(f"{where}.key", secret_key_problem(item.key))
        problems.check(f"{where}.path", relative_path_problem(item.path))
        modes.append((f"{where}.mode", item.mode))
    check_unique((f'"{item.path}"' for item in source.items), f"{path}.items", "path", problems)
    for where, mode in modes:
        if mode is not None and not 0 <= mode <= _MOST_MODE:
            problems.add(where, f"{mode} is not between 0 and 511 (0o777)")


def _check_scratch(spec: PodSpec, path: str, problems: Problems) -> None:
    scratch = {volume.name for volume in spec.volumes if volume.empty_dir is not None}
    whole = scratch | {volume.name for volume in spec.volumes if volume.csi is not None}
    for index, container in enumerate(spec.containers):
        mounted = (f'"{mount.name}"' for mount in container.volume_mounts if mount.name in scratch)
        check_unique(mounted, f"{path}.containers[{index}].volumeMounts", "emptyDir", problems)
        for number, mount in enumerate(container.volume_mounts):
            if mount.sub_path and mount.name in whole:
                where = f"{path}.containers[{index}].volumeMounts[{number}].subPath"
                problems.add(where, "is refused: engines mount their volumes as a whole")


def _check_size(size: str | int, medium: str, path: str, problems: Problems) -> None:
    try:
        memory_bytes(size)
    except InvalidError as error:
        problems.add(path, str(error))
    if medium != "Memory":
        problems.add(path, "engines limit only volumes in memory; set medium: Memory, or remove it")


def _check_csi(csi: CSIVolumeSource, path: str, problems: Problems) -> None:
    if csi.driver != VOLUME_DRIVER:
        problems.add(f"{path}.driver", f'"{csi.driver}" is not known; use {VOLUME_DRIVER}: a volume of the engine')
        return
    problems.check(f"{path}.volumeAttributes.name", volume_name_problem(csi.volume_attributes.get("name", "")))
    for key in sorted(csi.volume_attributes.keys() - {"name"}):
        problems.add(f"{path}.volumeAttributes.{key}", "is not known; there is only name")


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
