"""Pod: the smallest thing that is placed and run. Shapes are Kubernetes' (core/v1), the subset that korch knows."""

import msgspec

from korch.resources.meta import Condition, LabelSelector, Object, Struct


class SecretKeySelector(Struct, frozen=True, kw_only=True):
    """One key of a Secret (or ConfigMap)."""

    name: str = ""
    key: str
    optional: bool | None = None


class ObjectFieldSelector(Struct, frozen=True, kw_only=True):
    """A field of the pod itself, such as `metadata.name`."""

    field_path: str
    api_version: str = ""


class ResourceFieldSelector(Struct, frozen=True, kw_only=True):
    """A request or limit of a container, such as `limits.memory`, in units of `divisor`, rounded up."""

    resource: str
    container_name: str = ""
    divisor: str | int | float | None = None


class EnvVarSource(Struct, frozen=True, kw_only=True):
    """Where a value comes from: exactly one is set."""

    secret_key_ref: SecretKeySelector | None = None
    config_map_key_ref: SecretKeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(Struct, frozen=True, kw_only=True):
    """One environment variable."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class LocalObjectReference(Struct, frozen=True, kw_only=True):
    """An object of the same namespace, by name."""

    name: str = ""
    optional: bool | None = None


class EnvFromSource(Struct, frozen=True, kw_only=True):
    """All keys of a Secret or ConfigMap as variables; exactly one is set."""

    prefix: str = ""
    config_map_ref: LocalObjectReference | None = None
    secret_ref: LocalObjectReference | None = None


class ContainerPort(Struct, frozen=True, kw_only=True):
    """`container_port` inside; `host_port` on the node address (0: not published)."""

    container_port: int
    host_port: int = 0
    name: str = ""
    protocol: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")


class ResourceRequirements(Struct, frozen=True, kw_only=True):
    """Quantities by resource name (`cpu`, `memory`), as text like `250m`, `64Mi`."""

    requests: dict[str, str | int | float] = {}
    limits: dict[str, str | int | float] = {}


class VolumeMount(Struct, frozen=True, kw_only=True):
    """Where a volume appears in the container."""

    name: str
    mount_path: str
    read_only: bool | None = None
    sub_path: str = ""


class HTTPHeader(Struct, frozen=True, kw_only=True):
    """A header of a probe's request."""

    name: str
    value: str = ""


class HTTPGetAction(Struct, frozen=True, kw_only=True):
    """A GET that must answer 200-399. `port` is a number or a port's name."""

    port: int | str
    path: str = ""
    host: str = ""
    scheme: str = ""
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(Struct, frozen=True, kw_only=True):
    """A TCP connect that must succeed."""

    port: int | str
    host: str = ""


class ExecAction(Struct, frozen=True, kw_only=True):
    """A command in the container that must exit 0."""

    command: tuple[str, ...] = ()


class Probe(Struct, frozen=True, kw_only=True):
    """A check. Exactly one of the actions is set; times are in seconds."""

    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: int | None = None
    period_seconds: int | None = None
    timeout_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None
    termination_grace_period_seconds: int | None = None


class SleepAction(Struct, frozen=True, kw_only=True):
    """Wait for so many seconds."""

    seconds: int


class LifecycleHandler(Struct, frozen=True, kw_only=True):
    """What a hook does: exactly one is set."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct, frozen=True, kw_only=True):
    """Hooks around a container's life."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class Capabilities(Struct, frozen=True, kw_only=True):
    """Linux capabilities added and dropped, without the CAP_ prefix."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SecurityContext(Struct, frozen=True, kw_only=True):
    """Who the process runs as and what it may do."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    privileged: bool | None = None
    capabilities: Capabilities | None = None


class Container(Struct, frozen=True, kw_only=True):
    """One container. `command` replaces the image's entrypoint, `args` its command, as in Kubernetes."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    volume_mounts: tuple[VolumeMount, ...] = ()
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    image_pull_policy: str = ""
    security_context: SecurityContext | None = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    tty: bool | None = None
    restart_policy: str = ""  # of an init container: "Always" makes it a sidecar, which goes on beside the others
    termination_message_path: str = ""
    termination_message_policy: str = ""


class HostPathVolumeSource(Struct, frozen=True, kw_only=True):
    """A path of the node."""

    path: str
    type: str = ""


class EmptyDirVolumeSource(Struct, frozen=True, kw_only=True):
    """A folder that lives as long as the pod; `medium` "Memory" makes it a tmpfs."""

    medium: str = ""
    size_limit: str | int | None = None


class CSIVolumeSource(Struct, frozen=True, kw_only=True):
    """`driver: volumes.korch.dev` with `volumeAttributes: {name: NAME}` is a named volume of the node's engine."""

    driver: str
    volume_attributes: dict[str, str] = {}
    read_only: bool | None = None


class KeyToPath(Struct, frozen=True, kw_only=True):
    """A key as a file of another name. `mode` is a number (0o400 is 256)."""

    key: str
    path: str
    mode: int | None = None


class SecretVolumeSource(Struct, frozen=True, kw_only=True):
    """The keys of a Secret as files: all, or those of `items`."""

    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int | None = None
    optional: bool | None = None


class ConfigMapVolumeSource(Struct, frozen=True, kw_only=True):
    """The keys of a ConfigMap as files: all, or those of `items`."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int | None = None
    optional: bool | None = None


class DownwardAPIVolumeFile(Struct, frozen=True, kw_only=True):
    """Something that the pod says of itself, as a file: a field, or a request or limit of a container."""

    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(Struct, frozen=True, kw_only=True):
    """What the pod says of itself, as files; labels and annotations follow the pod."""

    items: tuple[DownwardAPIVolumeFile, ...] = ()
    default_mode: int | None = None


class KeyProjection(Struct, frozen=True, kw_only=True):
    """Keys of a Secret or ConfigMap as files: all, or those of `items`."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None


class DownwardAPIProjection(Struct, frozen=True, kw_only=True):
    """What the pod says of itself, as files."""

    items: tuple[DownwardAPIVolumeFile, ...] = ()


class VolumeProjection(Struct, frozen=True, kw_only=True):
    """One part of a projected volume: exactly one is set."""

    secret: KeyProjection | None = None
    config_map: KeyProjection | None = None
    downward_api: DownwardAPIProjection | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedVolumeSource(Struct, frozen=True, kw_only=True):
    """Files of several sources in one volume; of a path that is given twice the last one counts."""

    sources: tuple[VolumeProjection, ...] = ()
    default_mode: int | None = None


class Volume(Struct, frozen=True, kw_only=True):
    """Exactly one source is set."""

    name: str
    host_path: HostPathVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    csi: CSIVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedVolumeSource | None = None


class Toleration(Struct, frozen=True, kw_only=True):
    """Lets a pod onto nodes with a matching taint. `operator`: Equal (default) or Exists."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class NodeSelectorRequirement(Struct, frozen=True, kw_only=True):
    """`operator`: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class NodeSelectorTerm(Struct, frozen=True, kw_only=True):
    """All requirements must hold; terms are alternatives."""

    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()


class NodeSelector(Struct, frozen=True, kw_only=True):
    """One of the terms must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class PreferredSchedulingTerm(Struct, frozen=True, kw_only=True):
    """`weight` 1-100 is added to the score of matching nodes."""

    weight: int
    preference: NodeSelectorTerm


class NodeAffinity(Struct, frozen=True, kw_only=True):
    """Required terms filter, preferred ones score."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredSchedulingTerm, ...] = ()


class PodAffinityTerm(Struct, frozen=True, kw_only=True):
    """Pods that match `label_selector`, in the same `topology_key` domain."""

    topology_key: str
    label_selector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()


class WeightedPodAffinityTerm(Struct, frozen=True, kw_only=True):
    """A soft term."""

    weight: int
    pod_affinity_term: PodAffinityTerm


class PodAntiAffinity(Struct, frozen=True, kw_only=True):
    """Keep away from matching pods."""

    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = ()


class PodAffinity(Struct, frozen=True, kw_only=True):
    """Keep near to matching pods."""

    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = ()


class Affinity(Struct, frozen=True, kw_only=True):
    """Where a pod wants to be, and not to be."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAntiAffinity | None = None


class TopologySpreadConstraint(Struct, frozen=True, kw_only=True):
    """`max_skew` between domains; `when_unsatisfiable`: DoNotSchedule or ScheduleAnyway."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector | None = None


class PodSpec(Struct, frozen=True, kw_only=True):
    """What to run, and where it may run. `node_name` is set by the scheduler."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    node_name: str = ""
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = ()
    restart_policy: str = ""
    termination_grace_period_seconds: int | None = None
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    hostname: str = ""
    scheduler_name: str = ""
    dns_policy: str = ""
    security_context: SecurityContext | None = None
    service_account_name: str = ""
    service_account: str = ""
    automount_service_account_token: bool | None = None
    enable_service_links: bool | None = None
    priority_class_name: str = ""


class ContainerStateWaiting(Struct, frozen=True, kw_only=True):
    """Not started: `reason` such as ErrImagePull, CrashLoopBackOff."""

    reason: str = ""
    message: str = ""


class ContainerStateRunning(Struct, frozen=True, kw_only=True):
    """Runs since `started_at`."""

    started_at: str | None = None


class ContainerStateTerminated(Struct, frozen=True, kw_only=True):
    """Ended. `message` holds its last log lines."""

    exit_code: int
    reason: str = ""
    message: str = ""
    signal: int | None = None
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class ContainerState(Struct, frozen=True, kw_only=True):
    """Exactly one is set."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Struct, frozen=True, kw_only=True):
    """One container as last seen."""

    name: str
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    started: bool | None = None
    published: tuple[ContainerPort, ...] = ()  # korch's own: where each port is reached on the node
    engine_restarts: int = 0  # korch's own: the engine's count when it was last seen, a part of restart_count


class PodIP(Struct, frozen=True, kw_only=True):
    """One address of the pod."""

    ip: str


class PodStatus(Struct, frozen=True, kw_only=True):
    """What the keeper last saw. `phase`: Pending, Running, Succeeded, Failed, Unknown."""

    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    message: str = ""
    reason: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    start_time: str | None = None
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    qos_class: str = ""
    nominated_node_name: str = ""


class Pod(Object, frozen=True, kw_only=True):
    """core/v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
