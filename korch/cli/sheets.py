"""What `korch describe` says of each kind. Pure: objects and a time in, fields out. Values of Secrets never appear."""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Iterable, Mapping, Sequence

from korch.cli.columns import (
    NONE,
    columns_of,
    disk_ratio,
    event_age,
    memory_ratio,
    node_state,
    percent,
    pod_status,
)
from korch.cli.output import age, hanging_table, table
from korch.cli.sheet import Block, Part
from korch.resources.annotations import DECISION
from korch.resources.kinds import kind_of
from korch.resources.meta import Condition, Object, ObjectMeta
from korch.resources.misc import Event, Secret
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Container, ContainerState, ContainerStatus, EnvVar, Pod, PodSpec, Probe, Volume
from korch.resources.quantity import human_bytes
from korch.resources.selectors import selector_text
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

Fields = list[tuple[str, object]]

_HIDDEN_ANNOTATIONS = {
    DECISION,
    "kubectl.kubernetes.io/last-applied-configuration",
    "korch.dev/last-applied",
}


def describe_object(obj: Object, now: float, *, pods: Sequence[Pod] = (), load: NodeLoad | None = None) -> Fields:
    """The fields of any kind. `pods` are those of a node or of a workload; `load` is the node's newest sample."""
    match obj:
        case Pod():
            return _pod(obj, now)
        case Deployment():
            return _deployment(obj, now)
        case ReplicaSet():
            return _replicaset(obj, now)
        case DaemonSet():
            return _daemonset(obj, now)
        case Node():
            return _node(obj, now, pods, load)
        case Secret():
            return [*_meta(obj.metadata, now), ("Type", obj.type or "Opaque"), ("Data", Part(_sizes(obj)))]
        case _:
            return _other(obj, now)


def events_block(events: Sequence[Event], now: float) -> object:
    """The events of an object as the last field."""
    if not events:
        return NONE
    rows = [(e.type, e.reason, event_age(e, now), e.source.component, e.message.strip()) for e in events]
    return Block(hanging_table(rows, ("TYPE", "REASON", "AGE", "FROM", "MESSAGE")))


# --- parts that several kinds have ---


def _pairs(values: Mapping[str, object], sign: str = "=") -> Sequence[str]:
    return [f"{key}{sign}{value}" for key, value in sorted(values.items())]


def _meta(meta: ObjectMeta, now: float) -> Fields:
    shown = {key: value for key, value in meta.annotations.items() if key not in _HIDDEN_ANNOTATIONS}
    fields: Fields = [("Name", meta.name)]
    if meta.namespace:
        fields.append(("Namespace", meta.namespace))
    fields += [("Labels", _pairs(meta.labels)), ("Annotations", _pairs(shown, ": ")), ("Created", _moment(meta, now))]
    owners = [f"{owner.kind}/{owner.name}" for owner in meta.owner_references if owner.controller]
    if owners:
        fields.append(("Controlled By", owners[0]))
    if meta.deletion_timestamp:
        fields.append(("Deleted", f"{meta.deletion_timestamp} ({age(meta.deletion_timestamp, now)} ago)"))
    return fields


def _moment(meta: ObjectMeta, now: float) -> str:
    return f"{meta.creation_timestamp} ({age(meta.creation_timestamp, now)} ago)" if meta.creation_timestamp else NONE


def _conditions(conditions: Iterable[Condition], now: float) -> object:
    rows = [
        (c.type, c.status, age(c.last_transition_time, now) if c.last_transition_time else "", c.reason, c.message)
        for c in conditions
    ]
    return Block(hanging_table(rows, ("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"))) if rows else NONE


def _probe(probe: Probe) -> str:
    if probe.http_get is not None:
        get = probe.http_get
        what = f"http-get {(get.scheme or 'HTTP').lower()}://{get.host}:{get.port}{get.path or '/'}"
    elif probe.tcp_socket is not None:
        what = f"tcp-socket {probe.tcp_socket.host}:{probe.tcp_socket.port}"
    else:
        what = f"exec {shlex.join(probe.exec.command if probe.exec else ())}"
    times = (
        ("delay", probe.initial_delay_seconds or 0),
        ("timeout", probe.timeout_seconds or 1),
        ("period", probe.period_seconds or 10),
    )
    counts = f"#success={probe.success_threshold or 1} #failure={probe.failure_threshold or 3}"
    return f"{what} {' '.join(f'{name}={seconds}s' for name, seconds in times)} {counts}"


def _variable(variable: EnvVar) -> str:
    source = variable.value_from
    if source is None:
        return f"{variable.name}: {variable.value}"
    if source.secret_key_ref is not None:
        ref = source.secret_key_ref
        return f'{variable.name}: <set to the key "{ref.key}" of secret "{ref.name}">'
    path = source.field_ref.field_path if source.field_ref is not None else "?"
    return f"{variable.name}: (the pod's {path})"


def _container(container: Container, status: ContainerStatus | None, now: float) -> Part:
    fields: Fields = []
    if status is not None and status.container_id:
        fields.append(("Container ID", status.container_id))
    fields.append(("Image", container.image))
    if status is not None and status.image_id:
        fields.append(("Image ID", status.image_id))
    if container.ports:
        published = {(p.container_port, p.protocol): p.host_port for p in (status.published if status else ())}
        texts = [
            _port_text(p.container_port, p.host_port or published.get((p.container_port, p.protocol), 0), p.protocol)
            for p in container.ports
        ]
        fields.append(("Ports", texts))
    for key, words in (("Command", container.command), ("Args", container.args)):
        if words:
            fields.append((key, shlex.join(words)))
    if status is not None:
        fields += _states(status, now)
    for key, amounts in (("Limits", container.resources.limits), ("Requests", container.resources.requests)):
        if amounts:
            fields.append((key, ", ".join(_pairs(amounts, ": "))))
    probes = (
        ("Liveness", container.liveness_probe),
        ("Readiness", container.readiness_probe),
        ("Startup", container.startup_probe),
    )
    fields += [(key, _probe(probe)) for key, probe in probes if probe is not None]
    sources = [f"all keys of secret {source.secret_ref.name}" for source in container.env_from if source.secret_ref]
    fields.append(("Environment", [*sources, *(_variable(variable) for variable in container.env)]))
    mounts = [f"{m.mount_path} from {m.name} ({'ro' if m.read_only else 'rw'})" for m in container.volume_mounts]
    return Part([*fields, *([("Mounts", mounts)] if mounts else [])])


def _port_text(inside: int, outside: int, protocol: str) -> str:
    text = f"{inside}/{protocol or 'TCP'}"
    return f"{text}, on the node: {outside}" if outside else text


def _states(status: ContainerStatus, now: float) -> Fields:
    fields: Fields = [("State", _state(status.state, now))]
    if status.last_state != ContainerState():
        fields.append(("Last State", _state(status.last_state, now)))
    return [*fields, ("Ready", str(status.ready)), ("Restart Count", status.restart_count)]


def _state(state: ContainerState, now: float) -> str:
    if state.running is not None:
        return f"Running for {age(state.running.started_at, now)}"
    if state.terminated is not None:
        ended = state.terminated
        word = f"{ended.reason or 'Terminated'}, exit code {ended.exit_code}"
        when = f", {age(ended.finished_at, now)} ago" if ended.finished_at else ""
        return f"{word}{when}" + (f"\n{ended.message.strip()}" if ended.message.strip() else "")
    if state.waiting is not None:
        return f"Waiting: {state.waiting.reason}" + (f"\n{state.waiting.message}" if state.waiting.message else "")
    return "Unknown"


def _containers(containers: Sequence[Container], statuses: Sequence[ContainerStatus], now: float) -> Part:
    by_name = {status.name: status for status in statuses}
    return Part([(c.name, _container(c, by_name.get(c.name), now)) for c in containers])


def _volume(volume: Volume) -> str:
    if volume.host_path is not None:
        return f"{volume.name}: path {volume.host_path.path} of the node"
    if volume.csi is not None:
        return f"{volume.name}: volume {volume.csi.volume_attributes.get('name', '')} of the node's engine"
    return f"{volume.name}: empty folder that lives as long as the pod"


def _placing(spec: PodSpec) -> Fields:
    fields: Fields = []
    if spec.volumes:
        fields.append(("Volumes", [_volume(volume) for volume in spec.volumes]))
    if spec.node_selector:
        fields.append(("Node-Selectors", _pairs(spec.node_selector)))
    if spec.tolerations:
        texts = [f"{t.key or '*'}{'=' + t.value if t.value else ''}:{t.effect or '*'}" for t in spec.tolerations]
        fields.append(("Tolerations", texts))
    return fields


# --- the kinds ---


def _pod(pod: Pod, now: float) -> Fields:
    status = pod.status
    node = pod.spec.node_name
    fields = _meta(pod.metadata, now)
    fields += [
        ("Node", f"{node}/{status.host_ip}" if node and status.host_ip else node or NONE),
        ("Start Time", status.start_time or NONE),
        ("Status", pod_status(pod)),
    ]
    fields += [(key, value) for key, value in (("Reason", status.reason), ("Message", status.message)) if value]
    fields.append(("IP", status.pod_ip or NONE))
    if pod.spec.init_containers:
        inits = _containers(pod.spec.init_containers, status.init_container_statuses, now)
        fields.append(("Init Containers", inits))
    fields += [
        ("Containers", _containers(pod.spec.containers, status.container_statuses, now)),
        ("Conditions", _conditions(status.conditions, now)),
        *_placing(pod.spec),
        ("Restart Policy", pod.spec.restart_policy or "Always"),
    ]
    return [*fields, ("QoS Class", status.qos_class)] if status.qos_class else fields


def _template(spec: PodSpec, now: float) -> tuple[str, object]:
    return "Pod Template", Part([("Containers", _containers(spec.containers, (), now)), *_placing(spec)])


def _deployment(obj: Deployment, now: float) -> Fields:
    spec, status = obj.spec, obj.status
    counts = (
        f"{spec.replicas if spec.replicas is not None else 1} desired | {status.updated_replicas} updated | "
        f"{status.replicas} total | {status.available_replicas} available | {status.unavailable_replicas} unavailable"
    )
    fields = [*_meta(obj.metadata, now), ("Selector", selector_text(spec.selector) or NONE), ("Replicas", counts)]
    fields.append(("Strategy", spec.strategy.type or "RollingUpdate"))
    rolling = spec.strategy.rolling_update
    if rolling is not None:
        steps = [("max surge", rolling.max_surge), ("max unavailable", rolling.max_unavailable)]
        fields.append(("Rolling", ", ".join(f"{value} {name}" for name, value in steps if value is not None)))
    if spec.paused:
        fields.append(("Paused", "yes"))
    return [*fields, _template(spec.template.spec, now), ("Conditions", _conditions(status.conditions, now))]


def _replicaset(obj: ReplicaSet, now: float) -> Fields:
    spec, status = obj.spec, obj.status
    wanted = spec.replicas if spec.replicas is not None else 1
    return [
        *_meta(obj.metadata, now),
        ("Selector", selector_text(spec.selector) or NONE),
        ("Replicas", f"{status.replicas} current / {wanted} desired, {status.ready_replicas} ready"),
        _template(spec.template.spec, now),
        ("Conditions", _conditions(status.conditions, now)),
    ]


def _daemonset(obj: DaemonSet, now: float) -> Fields:
    spec, status, strategy = obj.spec, obj.status, obj.spec.update_strategy
    counts = (
        f"{status.desired_number_scheduled} desired | {status.current_number_scheduled} placed | "
        f"{status.updated_number_scheduled} updated | {status.number_available} available | "
        f"{status.number_misscheduled} where none is wanted"
    )
    fields = [*_meta(obj.metadata, now), ("Selector", selector_text(spec.selector) or NONE), ("Nodes", counts)]
    fields.append(("Strategy", strategy.type or "RollingUpdate"))
    if strategy.rolling_update is not None:
        fields.append(("Rolling", f"{strategy.rolling_update.max_unavailable} max unavailable"))
    return [*fields, _template(spec.template.spec, now), ("Conditions", _conditions(status.conditions, now))]


def _node(node: Node, now: float, pods: Sequence[Pod], load: NodeLoad | None) -> Fields:
    info = node.status.node_info
    taints = [f"{t.key}{'=' + t.value if t.value else ''}:{t.effect}" for t in node.spec.taints]
    headers, rows = columns_of(Pod).of(pods, now, wide=False)
    for row, pod in zip(rows, pods, strict=True):
        row.insert(0, pod.metadata.namespace)
    return [
        *_meta(node.metadata, now),
        ("State", node_state(node)),
        ("Taints", taints),
        ("Unschedulable", "true" if node.spec.unschedulable else "false"),
        ("Conditions", _conditions(node.status.conditions, now)),
        ("Addresses", Part([(found.type, found.address) for found in node.status.addresses])),
        ("Capacity", Part(list(node.status.capacity.items()))),
        ("Allocatable", Part(list(node.status.allocatable.items()))),
        (
            "System Info",
            Part(
                [
                    ("Kernel", info.kernel_version or NONE),
                    ("OS", info.os_image or NONE),
                    ("Architecture", info.architecture or NONE),
                    ("Engine", info.container_runtime_version or NONE),
                    ("Machine ID", info.machine_id or NONE),
                ]
            ),
        ),
        ("Load", Part(_load(load, now)) if load is not None else NONE),
        ("Pods", Block(table(rows, ("NAMESPACE", *headers))) if rows else NONE),
    ]


def _load(load: NodeLoad, now: float) -> Fields:
    memory = f"{percent(memory_ratio(load))} of {human_bytes(load.memory_total_bytes)}"
    disk = f"{percent(disk_ratio(load))} of {human_bytes(load.disk_total_bytes)}"
    pressures = (("cpu", load.pressure_cpu), ("memory", load.pressure_memory), ("io", load.pressure_io))
    return [
        ("Sampled", f"{age(load.sampled_at, now)} ago" if load.sampled_at else NONE),
        ("CPU", f"{percent(load.cpu_busy)} of {load.cpu_count}, smoothed {percent(load.cpu_busy_smoothed)}"),
        ("Load", f"{load.load1:.2f} {load.load5:.2f} {load.load15:.2f}"),
        ("Memory", memory),
        ("Disk", disk),
        ("Pressure", ", ".join(f"{name} {percent(value)}" for name, value in pressures)),
    ]


def _sizes(secret: Secret) -> Fields:
    """Keys and lengths; never values."""
    found: Fields = []
    for key, value in sorted(secret.data.items()):
        try:
            found.append((key, f"{len(base64.b64decode(value, validate=True))} bytes"))
        except (binascii.Error, ValueError):
            found.append((key, "not base64"))
    return found


def _other(obj: Object, now: float) -> Fields:
    """A kind without a sheet of its own: metadata, then the rest as YAML."""
    from korch.cli.output import to_yaml
    from korch.resources.codec import to_dict

    data = to_dict(obj)
    rest = {key: value for key, value in data.items() if key not in {"apiVersion", "kind", "metadata"}}
    fields: Fields = [("Kind", kind_of(obj).name), *_meta(obj.metadata, now)]
    return [*fields, ("Object", Block(to_yaml(rest)))] if rest else fields
