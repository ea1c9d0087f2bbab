"""Short ways to write nodes, samples and pods for the scheduler's tests, and random worlds."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from korch.resources.meta import Condition, LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference
from korch.resources.node import ContainerImage, Node, NodeLoad, NodeSpec, NodeStatus, NodeSystemInfo, Taint
from korch.resources.pod import (
    Affinity,
    Container,
    ContainerPort,
    CSIVolumeSource,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodAntiAffinity,
    PodSpec,
    PodStatus,
    PreferredSchedulingTerm,
    ResourceRequirements,
    Toleration,
    TopologySpreadConstraint,
    Volume,
    WeightedPodAffinityTerm,
)
from korch.resources.times import rfc3339
from korch.scheduler.decision import Decision
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import Snapshot, snapshot

NOW = 1_800_000_000.0
GI, MI = 2**30, 2**20
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def node(
    name: str,
    *,
    cpu: str = "4",
    memory: str = "4Gi",
    pods: int = 110,
    state: str = "Ready",
    message: str = "",
    cordoned: bool = False,
    taints: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    zone: str = "",
    images: Sequence[str] = (),
    image_bytes: int = 0,
    volumes: Sequence[str] = (),
    arch: str = "amd64",
    pressure: str = "",
) -> Node:
    """A node that is ready; taints as `key=value:Effect`."""
    conditions = [
        Condition(type="Ready", status="True" if state == "Ready" else "False", reason=state, message=message)
    ]
    if pressure:
        conditions.append(Condition(type=pressure, status="True", message="as measured"))
    sizes = {"cpu": cpu, "memory": memory, "pods": str(pods)}
    status = NodeStatus(
        capacity=sizes,
        allocatable=sizes,
        conditions=tuple(conditions),
        images=tuple(ContainerImage(names=(image,), size_bytes=image_bytes) for image in images),
        volumes_in_use=tuple(volumes),
        node_info=NodeSystemInfo(architecture=arch),
    )
    all_labels = {**({ZONE: zone} if zone else {}), **(labels or {})}
    spec = NodeSpec(unschedulable=cordoned, taints=tuple(taint(text) for text in taints))
    return Node(metadata=ObjectMeta(name=name, labels=all_labels), spec=spec, status=status)


def taint(text: str) -> Taint:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return Taint(key=key, value=value, effect=effect)


def load(
    busy: float | None = 0.1,
    *,
    age_s: float = 1.0,
    cpus: int = 4,
    memory: int = 4 * GI,
    free: int | None = None,
    disk: int = 100 * GI,
    disk_free: int = 50 * GI,
    **more: Any,
) -> NodeLoad:
    """A fresh sample of a machine that is hardly busy."""
    return NodeLoad(
        sampled_at=rfc3339(NOW - age_s),
        cpu_count=cpus,
        cpu_busy_smoothed=busy,
        memory_total_bytes=memory,
        memory_available_bytes=memory * 9 // 10 if free is None else free,
        disk_total_bytes=disk,
        disk_free_bytes=disk_free,
        **more,
    )


def pod(
    name: str = "web-1",
    *,
    app: str = "web",
    on: str = "",
    cpu: str = "",
    memory: str = "",
    image: str = "registry.lab/web:1",
    owner: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    ports: Sequence[str] = (),
    volumes: Sequence[str] = (),
    phase: str = "",
    started_s_ago: float | None = 3600,
    created: str = "",
    leaving: bool = False,
    **spec: Any,
) -> Pod:
    """A pod; ports as `8080`, `8080/UDP` or `10.0.0.1:8080`. With `on` it runs there."""
    requests: dict[str, str | int | float] = {}
    if cpu:
        requests["cpu"] = cpu
    if memory:
        requests["memory"] = memory
    container = Container(
        name="main",
        image=image,
        resources=ResourceRequirements(requests=requests),
        ports=tuple(_port(text) for text in ports),
    )
    meta = ObjectMeta(
        name=name,
        namespace="default",
        uid=f"uid-{name}",
        labels={"app": app, **(labels or {})},
        annotations=dict(annotations or {}),
        creation_timestamp=created or None,
        deletion_timestamp=rfc3339(NOW) if leaving else None,
        owner_references=(_owner(owner),) if owner else (),
    )
    started = rfc3339(NOW - started_s_ago) if on and started_s_ago is not None else None
    return Pod(
        metadata=meta,
        spec=PodSpec(
            containers=(container,),
            node_name=on,
            volumes=tuple(
                Volume(name=v, csi=CSIVolumeSource(driver="volumes.korch.dev", volume_attributes={"name": v}))
                for v in volumes
            ),
            **spec,
        ),
        status=PodStatus(phase=phase or ("Running" if on else "Pending"), start_time=started),
    )


def _port(text: str) -> ContainerPort:
    address, _, protocol = text.partition("/")
    ip, _, number = address.rpartition(":")
    return ContainerPort(container_port=80, host_port=int(number), host_ip=ip, protocol=protocol)


def _owner(name: str) -> OwnerReference:
    return OwnerReference(api_version="apps/v1", kind="ReplicaSet", name=name, uid=name, controller=True)


def pods(count: int, prefix: str = "web", **same: Any) -> list[Pod]:
    """Pods of one shape."""
    return [pod(f"{prefix}-{n}", **{"owner": f"{prefix}-rs", **same}) for n in range(count)]


def app_is(name: str) -> LabelSelector:
    return LabelSelector(match_labels={"app": name})


def term(app: str, key: str = HOST) -> PodAffinityTerm:
    return PodAffinityTerm(topology_key=key, label_selector=app_is(app))


def apart(app: str = "web", key: str = HOST) -> Affinity:
    """Required anti-affinity."""
    return Affinity(
        pod_anti_affinity=PodAntiAffinity(required_during_scheduling_ignored_during_execution=(term(app, key),))
    )


def near(app: str = "web", key: str = HOST) -> Affinity:
    """Required affinity."""
    return Affinity(pod_affinity=PodAffinity(required_during_scheduling_ignored_during_execution=(term(app, key),)))


def prefer(app: str, key: str = HOST, *, close: bool, weight: int = 100) -> Affinity:
    """Preferred affinity or anti-affinity."""
    weighted = (WeightedPodAffinityTerm(weight=weight, pod_affinity_term=term(app, key)),)
    if close:
        return Affinity(pod_affinity=PodAffinity(preferred_during_scheduling_ignored_during_execution=weighted))
    return Affinity(pod_anti_affinity=PodAntiAffinity(preferred_during_scheduling_ignored_during_execution=weighted))


def on_nodes(key: str, operator: str, *values: str, field: bool = False) -> Affinity:
    """Required node affinity with one requirement."""
    wanted = (NodeSelectorRequirement(key=key, operator=operator, values=values),)
    one = NodeSelectorTerm(match_fields=wanted) if field else NodeSelectorTerm(match_expressions=wanted)
    required = NodeSelector(node_selector_terms=(one,))
    return Affinity(node_affinity=NodeAffinity(required_during_scheduling_ignored_during_execution=required))


def prefer_nodes(key: str, *values: str, weight: int = 100) -> Affinity:
    """Preferred node affinity."""
    wanted = (NodeSelectorRequirement(key=key, operator="In", values=values),)
    preferred = (PreferredSchedulingTerm(weight=weight, preference=NodeSelectorTerm(match_expressions=wanted)),)
    return Affinity(node_affinity=NodeAffinity(preferred_during_scheduling_ignored_during_execution=preferred))


def spread(
    skew: int = 1, key: str = ZONE, app: str = "web", *, hard: bool = True
) -> tuple[TopologySpreadConstraint, ...]:
    when = "DoNotSchedule" if hard else "ScheduleAnyway"
    constraint = TopologySpreadConstraint(
        max_skew=skew, topology_key=key, when_unsatisfiable=when, label_selector=app_is(app)
    )
    return (constraint,)


def shot(nodes: Sequence[Node], *running: Pod, loads: Mapping[str, NodeLoad] | None = None, **more: Any) -> Snapshot:
    """A snapshot; nodes without a sample of their own get an ordinary one."""
    samples = {n.metadata.name: load() for n in nodes} | dict(loads or {})
    return snapshot(nodes, samples, running, now=NOW, **more)


def decide(nodes: Sequence[Node], wanted: Pod, *running: Pod, **more: Any) -> Decision:
    """The decision for one pod."""
    options = {key: more.pop(key) for key in ("allowed_nodes", "record") if key in more}
    return schedule(shot(nodes, *running, **more), [wanted], **options)[0]


def where(decisions: Sequence[Decision]) -> dict[str, str | None]:
    return {d.name: d.node for d in decisions}


def counts(decisions: Sequence[Decision]) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for decision in decisions:
        found[decision.node] = found.get(decision.node, 0) + 1
    return found


@dataclass(frozen=True, repr=False)
class World:
    """A random cluster with pods on it and pods to be placed."""

    nodes: list[Node]
    loads: dict[str, NodeLoad]
    running: list[Pod]
    wanted: list[Pod]

    def snapshot(self) -> Snapshot:
        return snapshot(self.nodes, self.loads, self.running, now=NOW)

    def with_nodes(self, more: Sequence[Node], loads: Mapping[str, NodeLoad]) -> "World":
        return replace(self, nodes=[*self.nodes, *more], loads={**self.loads, **loads})


APPS = ("web", "db", "cache")


def random_world(seed: int, node_count: int, running: int, wanted: int, *, simple: bool = False) -> World:
    """Everything at once: bad states, taints, zones, picky pods. `simple`: nothing that redraws a round."""
    rng = random.Random(seed)
    nodes = [_random_node(rng, n) for n in range(node_count)]
    loads = {}
    for n in nodes:
        if rng.random() < 0.95:
            total = int(n.status.capacity["memory"].removesuffix("Gi")) * GI
            loads[n.metadata.name] = load(
                rng.choice((0.0, 0.25, 0.5, 0.9, rng.random())),
                age_s=rng.choice((1, 1, 1, 1, 1, 1, 200, 400)),
                cpus=int(n.status.capacity["cpu"]),
                memory=total,
                free=int(total * rng.choice((0.1, 0.5, 0.9))),
                disk_free=rng.choice((50 * GI,) * 9 + (GI // 2,)),
                pressure_cpu=rng.choice((None, 0.0, 0.3)),
            )
    names = [n.metadata.name for n in nodes]
    templates = [_random_pod(rng, k, simple=simple) for k in range(rng.randint(1, 5))]
    placed = [
        _copy(rng.choice(templates), f"old-{n}", rng, on=rng.choice(names)) for n in range(running if names else 0)
    ]
    new = [_copy(rng.choice(templates), f"new-{n}", rng) for n in range(wanted)]
    return World(nodes, loads, placed, new)


def _random_node(rng: random.Random, n: int) -> Node:
    return node(
        f"n{n}",
        cpu=rng.choice(("1", "2", "4")),
        memory=rng.choice(("1Gi", "2Gi", "4Gi")),
        pods=rng.choice((3, 10, 110)),
        state=rng.choice(("Ready",) * 8 + ("Unreachable", "AddressUnknown")),
        cordoned=rng.random() < 0.1,
        taints=rng.choice(((), (), (), ("dedicated=db:NoSchedule",), ("slow=:PreferNoSchedule",))),
        zone=rng.choice(("a", "b", "c", "")),
        labels={"rack": f"r{n % 3}", **rng.choice(({}, {"disk": "ssd"}, {"disk": "hdd", "rank": "3"}))},
        images=rng.choice(((), ("registry.lab/web:1",))),
        image_bytes=rng.choice((0, 0, 48 * GI, 60 * GI)),
        volumes=rng.choice(((), (), (), ("data",))),
        arch=rng.choice(("amd64", "amd64", "arm64")),
        pressure=rng.choice(("",) * 15 + ("DiskPressure",)),
    )


def _random_pod(rng: random.Random, number: int, *, simple: bool) -> Pod:
    app = rng.choice(APPS)
    key = rng.choice((HOST, ZONE, "rack"))
    affinities = [None, None, None, apart(rng.choice(APPS), key), prefer(rng.choice(APPS), key, close=True)]
    affinities += [
        prefer(rng.choice(APPS), key, close=False),
        on_nodes("disk", "In", "ssd"),
        on_nodes("rank", "Gt", "2"),
    ]
    affinities += [prefer_nodes("disk", "ssd")] + ([] if simple else [near(rng.choice(APPS), key)])
    odd = LabelSelector(match_expressions=(LabelSelectorRequirement(key="app", operator="NotIn", values=("db",)),))
    constraint = msgspec.structs.replace(
        spread(1, key)[0], label_selector=rng.choice((app_is(app), app_is("web"), odd))
    )
    spreads = rng.choice(
        (
            (),
            (),
            (constraint,),
            spread(2, rng.choice((HOST, ZONE)), app, hard=False),
            (*spread(1, key, app), *spread(2, "rack", app)),
        )
    )
    return pod(
        "template",
        app=app,
        owner=rng.choice(("", f"rs-{number}")),
        cpu=rng.choice(("", "100m", "500m", "1")),
        memory=rng.choice(("", "64Mi", "256Mi", "1Gi")),
        annotations=rng.choice(({}, {}, {"korch.dev/arch": "arm64"})),
        ports=rng.choice(((), (), ("8080",), ("10.0.0.1:8080", "53/UDP"))),
        volumes=() if simple else rng.choice(((), (), (), ("data",), ("logs",))),
        affinity=rng.choice(affinities),
        topology_spread_constraints=spreads,
        tolerations=rng.choice(((), (Toleration(key="dedicated", operator="Exists"),))),
        node_selector=rng.choice(({}, {}, {}, {"disk": "ssd"})),
    )


def _copy(template: Pod, name: str, rng: random.Random, on: str = "") -> Pod:
    meta = msgspec.structs.replace(
        template.metadata,
        name=name,
        uid=f"uid-{name}",
        deletion_timestamp=rfc3339(NOW) if on and rng.random() < 0.1 else None,
    )
    started = rng.choice((None, rfc3339(NOW - 3600), rfc3339(NOW - 5))) if on else None
    phase = rng.choice(("Running", "Running", "Running", "Succeeded")) if started else "Pending"
    return msgspec.structs.replace(
        template,
        metadata=meta,
        spec=msgspec.structs.replace(template.spec, node_name=on),
        status=PodStatus(phase=phase, start_time=started),
    )
