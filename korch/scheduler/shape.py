"""What the scheduler needs to know of a pod, derived once for all pods that ask for the same.

Pods of one workload differ in name only. They share one `Shape`, so that filters and scores run once for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from korch.errors import InvalidError
from korch.resources.images import PINNED, containers_of, exact_images
from korch.resources.meta import LabelSelector, ObjectMeta
from korch.resources.pod import (
    Affinity,
    Container,
    NodeSelector,
    Pod,
    PodAffinityTerm,
    PreferredSchedulingTerm,
    Toleration,
    WeightedPodAffinityTerm,
)
from korch.resources.publish import PUBLISH_ANNOTATION
from korch.resources.quantity import cpu_millis, memory_bytes
from korch.resources.selectors import Selector, matches, requirement_problem, selector_of

ARCH_ANNOTATION = "korch.dev/arch"  # on a pod: architectures its images exist for, as "amd64,arm64"
VOLUME_DRIVER = "volumes.korch.dev"
DEFAULT_CPU_MILLIS = 100  # load expected of a pod that asks for nothing, until it is measured
DEFAULT_MEMORY_BYTES = 64 * 2**20

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - what a manifest may say, nothing is bound here

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Term:
    """Pods that match `selector` in `namespaces`, seen per domain of a node label. No selector matches no pod."""

    topology_key: str
    selector: Selector | None
    namespaces: tuple[str, ...]

    def matches(self, shape: "Shape") -> bool:
        """Whether pods of that shape are meant."""
        return self.selector is not None and shape.namespace in self.namespaces and matches(self.selector, shape.labels)


@dataclass(frozen=True, slots=True)
class Spread:
    """Matching pods may differ by `max_skew` between domains; `hard` refuses, otherwise it is a wish."""

    term: Term
    max_skew: int
    hard: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """A soft affinity (`near`) or anti-affinity of weight 1-100."""

    term: Term
    weight: int
    near: bool


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port on the node; no `ip` means every address."""

    protocol: str
    port: int
    ip: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What a pod demands of a node's standing facts; shapes with equal rules share one pass over the nodes."""

    node_selector: tuple[tuple[str, str], ...]
    required: NodeSelector | None
    preferred: tuple[PreferredSchedulingTerm, ...]
    tolerations: tuple[Toleration, ...]
    arches: tuple[str, ...]
    has_ports: bool


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One kind of pod; compared by identity, as `Shapes` makes one of each. `expected_*` is the load until measured."""

    namespace: str
    labels: dict[str, str]
    workload: str  # "namespace/ReplicaSet/name"; "" for a pod without a controller
    cpu_millis: int
    memory_bytes: int
    expected_cpu_millis: int
    expected_memory_bytes: int
    images: tuple[str, ...]
    ports: tuple[HostPort, ...]
    volumes: tuple[str, ...]
    rules: Rules
    near: tuple[Term, ...]
    apart: tuple[Term, ...]
    spreads: tuple[Spread, ...]
    wishes: tuple[Wish, ...]

    @property
    def is_picky(self) -> bool:
        """Whether it demands more than resources: such pods are placed first, while there is choice."""
        rules = self.rules
        return bool(
            rules.node_selector or rules.required or self.ports or self.volumes or self.near or self.apart
        ) or any(s.hard for s in self.spreads)


class Shapes:
    """Memo of shapes: equal pods get the very same `Shape`."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Shape] = {}

    def of(self, pod: Pod) -> Shape:
        """The shape of a pod, whatever its name and node."""
        spec, meta = pod.spec, pod.metadata
        key = _encode(
            (
                (
                    meta.namespace,
                    workload_of(meta),
                    meta.labels,
                    meta.annotations.get(ARCH_ANNOTATION),
                    PUBLISH_ANNOTATION in meta.annotations,
                    meta.annotations.get(PINNED),
                ),
                (spec.containers, spec.init_containers, spec.volumes, spec.node_selector),
                (spec.affinity, spec.tolerations, spec.topology_spread_constraints),
            )
        )
        shape = self._known.get(key)
        if shape is None:
            shape = self._known[key] = shape_of(pod)
        return shape


def workload_of(meta: ObjectMeta) -> str:
    """`namespace/Kind/name` of the controller that owns the object, or "" when none does."""
    for owner in meta.owner_references:
        if owner.controller:
            return f"{meta.namespace}/{owner.kind}/{owner.name}"
    return ""


def shape_of(pod: Pod) -> Shape:
    """A new shape; raises `InvalidError` for what cannot be understood: a malformed quantity, an unknown operator."""
    spec, namespace = pod.spec, pod.metadata.namespace
    affinity = spec.affinity or Affinity()
    cpu = requested(spec.containers, spec.init_containers, "cpu")
    memory = requested(spec.containers, spec.init_containers, "memory")
    anti, pod_affinity = affinity.pod_anti_affinity, affinity.pod_affinity
    return Shape(
        namespace=namespace,
        labels=pod.metadata.labels,
        workload=workload_of(pod.metadata),
        cpu_millis=cpu,
        memory_bytes=memory,
        expected_cpu_millis=cpu or DEFAULT_CPU_MILLIS,
        expected_memory_bytes=memory or DEFAULT_MEMORY_BYTES,
        images=_images(pod),
        ports=tuple(
            sorted({port for c in spec.containers for port in _host_ports(c)}, key=lambda p: (p.port, p.protocol, p.ip))
        ),
        volumes=_named_volumes(pod),
        rules=_rules(pod, affinity),
        near=_terms(pod_affinity.required_during_scheduling_ignored_during_execution, namespace)
        if pod_affinity
        else (),
        apart=_terms(anti.required_during_scheduling_ignored_during_execution, namespace) if anti else (),
        spreads=tuple(
            Spread(
                _term(c.topology_key, c.label_selector, (namespace,)),
                max(1, c.max_skew),
                c.when_unsatisfiable != "ScheduleAnyway",
            )
            for c in spec.topology_spread_constraints
        ),
        wishes=(
            *(
                _wishes(pod_affinity.preferred_during_scheduling_ignored_during_execution, namespace, near=True)
                if pod_affinity
                else ()
            ),
            *(
                _wishes(anti.preferred_during_scheduling_ignored_during_execution, namespace, near=False)
                if anti
                else ()
            ),
        ),
    )


def requested(containers: Sequence[Container], init_containers: Sequence[Container], resource: str) -> int:
    """Thousandths of a CPU, or bytes: what all containers ask together, or the largest init container if that is more.

    Init containers that go on count with all that come after them.

    A limit without a request counts as the request, as in Kubernetes.
    """
    read = cpu_millis if resource == "cpu" else memory_bytes

    def ask(container: Container) -> int:
        wanted = container.resources.requests.get(resource, container.resources.limits.get(resource, 0))
        return read(wanted) if wanted else 0

    beside, most = 0, 0  # what sidecars that were started before ask; the most that is asked while others run first
    for container in init_containers:
        beside += ask(container) if container.restart_policy == "Always" else 0
        most = max(most, beside if container.restart_policy == "Always" else beside + ask(container))
    return max(beside + sum(ask(c) for c in containers), most)


def image_name(image: str) -> str:
    """The full name of an image, so that `nginx` and `docker.io/library/nginx:latest` are the same."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if at:
        base, _, last = name.rpartition("/")
        return f"{base}/{last.partition(':')[0]}@{digest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _images(pod: Pod) -> tuple[str, ...]:
    """The names under which nodes know its images: what was pulled by its digest is there without its tag."""
    exact = exact_images(pod.metadata.annotations, pod.spec)
    names = [
        pinned if "@sha256:" in (pinned := exact.get(container.name, "")) else container.image
        for container in containers_of(pod.spec)
    ]
    return tuple(sorted({image_name(name) for name in names if name}))


def _host_ports(container: Container) -> list[HostPort]:
    return [
        HostPort(port.protocol or "TCP", port.host_port, "" if port.host_ip in _EVERY_ADDRESS else port.host_ip)
        for port in container.ports
        if port.host_port
    ]


def _named_volumes(pod: Pod) -> tuple[str, ...]:
    """`namespace/name` of the node-local volumes it uses."""
    names = {
        f"{pod.metadata.namespace}/{volume.csi.volume_attributes.get('name', volume.name)}"
        for volume in pod.spec.volumes
        if volume.csi and volume.csi.driver == VOLUME_DRIVER
    }
    return tuple(sorted(names))


def _rules(pod: Pod, affinity: Affinity) -> Rules:
    node = affinity.node_affinity
    required = node.required_during_scheduling_ignored_during_execution if node else None
    preferred = node.preferred_during_scheduling_ignored_during_execution if node else ()
    terms = (*(required.node_selector_terms if required else ()), *(p.preference for p in preferred))
    for requirement in (r for term in terms for r in (*term.match_expressions, *term.match_fields)):
        _check(requirement.key, requirement.operator, requirement.values)
    arches = pod.metadata.annotations.get(ARCH_ANNOTATION, "")
    return Rules(
        node_selector=tuple(sorted(pod.spec.node_selector.items())),
        required=required,
        preferred=preferred,
        tolerations=pod.spec.tolerations,
        arches=tuple(sorted(word.strip() for word in arches.split(",") if word.strip())),
        has_ports=PUBLISH_ANNOTATION in pod.metadata.annotations
        or any(port.host_port for c in pod.spec.containers for port in c.ports),
    )


def _term(topology_key: str, selector: LabelSelector | None, namespaces: tuple[str, ...]) -> Term:
    if selector is None:
        return Term(topology_key, None, namespaces)
    found = selector_of(selector)
    for requirement in found.requirements:
        _check(requirement.key, requirement.operator, requirement.values)
    return Term(topology_key, found, namespaces)


def _check(key: str, operator: str, values: tuple[str, ...]) -> None:
    if problem := requirement_problem(key, operator, values):
        raise InvalidError(problem)


def _terms(terms: Sequence[PodAffinityTerm], namespace: str) -> tuple[Term, ...]:
    return tuple(_term(t.topology_key, t.label_selector, t.namespaces or (namespace,)) for t in terms)


def _wishes(terms: Sequence[WeightedPodAffinityTerm], namespace: str, *, near: bool) -> tuple[Wish, ...]:
    return tuple(Wish(_terms((weighted.pod_affinity_term,), namespace)[0], weighted.weight, near) for weighted in terms)
