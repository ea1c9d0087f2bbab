"""What a node must be before its room is looked at: up, open, fresh, tolerated, selected. Each filter says why not.

These depend on standing facts of node and pod only, so one pass serves every shape with the same `Rules`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from korch.resources.node import Taint
from korch.resources.pod import NodeSelectorTerm, Toleration
from korch.resources.quantity import human_bytes
from korch.resources.selectors import requirement_matches
from korch.scheduler.decision import Refusal
from korch.scheduler.shape import Rules
from korch.scheduler.snapshot import NodeView
from korch.scheduler.taints import UNSCHEDULABLE, tolerates

DISK_FLOOR_BYTES = 2**30
DISK_FLOOR_SHARE = 0.05  # the smaller of both floors counts: 5 % of a lab's disk, 1 GiB of a large one
PREFER_WEIGHT = 50  # of the wish to avoid a PreferNoSchedule taint, beside affinity weights of 1-100

# state of a node: (words after "1", words after "2")
_STATES: dict[str, tuple[str, str]] = {
    "NotSeen": ("not contacted yet", "not contacted yet"),
    "NotReady": ("not ready", "not ready"),
    "Unreachable": ("unreachable", "unreachable"),
    "NotResponding": ("greets and does nothing else", "greet and do nothing else"),
    "AuthFailed": ("refuses korch's login", "refuse korch's login"),
    "HostKeyUnknown": ("has a host key that is not trusted yet", "have a host key that is not trusted yet"),
    "HostKeyChanged": ("shows a changed host key", "show a changed host key"),
    "HostKeyRevoked": ("shows a revoked host key", "show a revoked host key"),
    "NoCommonAlgorithm": ("has an sshd too new or too old for korch", "have an sshd too new or too old for korch"),
    "NoPermission": ("does not let korch use its container engine", "do not let korch use their container engine"),
    "EngineMissing": ("has no container engine", "have no container engine"),
    "EngineDown": ("has a container engine that does not answer", "have a container engine that does not answer"),
    "AddressUnknown": ("has no known address for ports", "have no known address for ports"),
    "ClaimedByOther": ("belongs to another cluster", "belong to another cluster"),
    "NotInInventory": ("not in the inventory any more", "not in the inventory any more"),
    "DiskPressure": ("low on disk", "low on disk"),
    "MemoryPressure": ("low on memory", "low on memory"),
    "Lost": ("lost", "lost"),
    "Cordoned": ("cordoned", "cordoned"),
}


class Limits(msgspec.Struct, frozen=True):
    """What holds for all pods of one call. `allowed_nodes` None: every node."""

    allowed_nodes: frozenset[str] | None
    max_sample_age_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Nodes (by index) that stand the rules, the others' refusals, and the weight of wishes fulfilled on each."""

    ok: list[int]
    refused: dict[int, Refusal]
    wish_weight: int
    fulfilled: dict[int, int] = field(repr=False)


def standing(rules: Rules, nodes: Sequence[NodeView], limits: Limits) -> Standing:
    """One pass over all nodes."""
    refused = {i: why for i, node in enumerate(nodes) if (why := standing_refusal(rules, node, limits))}
    ok = [i for i in range(len(nodes)) if i not in refused]
    weight = sum(term.weight for term in rules.preferred)
    fulfilled = (
        {i: sum(t.weight for t in rules.preferred if node_term_matches(t.preference, nodes[i])) for i in ok}
        if rules.preferred
        else {}
    )
    shunned = {
        i for i in ok if nodes[i].taints and _untolerated(rules.tolerations, nodes[i].taints, ("PreferNoSchedule",))
    }
    if shunned:
        weight += PREFER_WEIGHT
        fulfilled = {i: fulfilled.get(i, 0) + (0 if i in shunned else PREFER_WEIGHT) for i in ok}
    return Standing(ok, refused, weight, fulfilled)


def standing_refusal(rules: Rules, node: NodeView, limits: Limits) -> Refusal | None:
    """The first filter that refuses the node, or None."""
    for check in FILTERS:
        if why := check(rules, node, limits):
            return why
    return None


def _state(rules: Rules, node: NodeView, _: Limits) -> Refusal | None:
    if node.state == "Ready" or (node.state == "AddressUnknown" and not rules.has_ports):
        return None
    one, many = _STATES.get(node.state, (f"not ready ({node.state})", f"not ready ({node.state})"))
    return Refusal(node.state, one, many, f"{one}: {node.state_message}" if node.state_message else one)


def _cordon(rules: Rules, node: NodeView, _: Limits) -> Refusal | None:
    if not node.cordoned or tolerates(rules.tolerations, UNSCHEDULABLE):
        return None
    return Refusal("Cordoned", "cordoned", "cordoned", f"cordoned (korch node uncordon {node.name} opens it)")


def _limit(_: Rules, node: NodeView, limits: Limits) -> Refusal | None:
    if limits.allowed_nodes is None or node.name in limits.allowed_nodes:
        return None
    return Refusal("Limit", "left out by --limit", "left out by --limit", "left out by --limit")


def _taints(rules: Rules, node: NodeView, _: Limits) -> Refusal | None:
    if not node.taints:
        return None
    taint = _untolerated(rules.tolerations, node.taints, ("NoSchedule", "NoExecute"))
    if taint is None:
        return None
    text = f"{taint.key}={taint.value}" if taint.value else taint.key
    words = f"tainted {text}"
    return Refusal("Taint", words, words, f"tainted {text}:{taint.effect}, which the pod does not tolerate")


def _node_selector(rules: Rules, node: NodeView, _: Limits) -> Refusal | None:
    for key, value in rules.node_selector:
        if node.labels.get(key) != value:
            asked = ",".join(f"{k}={v}" for k, v in rules.node_selector)
            has = f"has {key}={node.labels[key]}" if key in node.labels else f"has no label {key}"
            return Refusal(
                "NodeSelector",
                f"does not match the node selector ({asked})",
                f"do not match the node selector ({asked})",
                f"does not match the node selector: {key}={value} asked, {has}",
            )
    return None


def _node_affinity(rules: Rules, node: NodeView, _: Limits) -> Refusal | None:
    if rules.required is None or any(node_term_matches(t, node) for t in rules.required.node_selector_terms):
        return None
    one, many = "does not match the node affinity", "do not match the node affinity"
    return Refusal("NodeAffinity", one, many, one)


def _arch(rules: Rules, node: NodeView, _: Limits) -> Refusal | None:
    if not rules.arches or not node.arch or node.arch in rules.arches:
        return None
    asked = " or ".join(rules.arches)
    return Refusal(
        "Architecture",
        f"of another architecture (the image is for {asked})",
        f"of another architecture (the image is for {asked})",
        f"is {node.arch}, the image is for {asked}",
    )


def disk_floor(node: NodeView) -> float:
    """Bytes of the engine's disk that stay free; 0 when its size is unknown."""
    return min(DISK_FLOOR_BYTES, DISK_FLOOR_SHARE * node.disk_total_bytes)


def _disk(_: Rules, node: NodeView, __: Limits) -> Refusal | None:
    floor = disk_floor(node)
    if node.disk_free_bytes >= floor:
        return None  # also when the size is unknown: then the floor is 0
    text = f"{human_bytes(node.disk_free_bytes)} of {human_bytes(node.disk_total_bytes)} disk left"
    return Refusal(
        "DiskPressure", "low on disk", "low on disk", f"low on disk: {text}, {human_bytes(floor)} is the floor"
    )


def _freshness(_: Rules, node: NodeView, limits: Limits) -> Refusal | None:
    if node.sample_age_s is None:
        words = "without a load sample"
        return Refusal("Stale", words, words, "no load sample yet")
    if node.sample_age_s <= limits.max_sample_age_s:
        return None
    words = f"not measured for more than {limits.max_sample_age_s:.0f} s"
    return Refusal(
        "Stale",
        words,
        words,
        f"last measured {node.sample_age_s:.0f} s ago, {limits.max_sample_age_s:.0f} s is the limit",
    )


FILTERS: tuple[Callable[[Rules, NodeView, Limits], Refusal | None], ...] = (
    _state,
    _cordon,
    _limit,
    _taints,
    _node_selector,
    _node_affinity,
    _arch,
    _freshness,
    _disk,
)


def node_term_matches(term: NodeSelectorTerm, node: NodeView) -> bool:
    """Whether all of a term's requirements hold; a term without any matches nothing, as in Kubernetes."""
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.name}
    return all(requirement_matches(r.key, r.operator, r.values, node.labels) for r in term.match_expressions) and all(
        requirement_matches(r.key, r.operator, r.values, fields) for r in term.match_fields
    )


def _untolerated(tolerations: Sequence[Toleration], taints: Sequence[Taint], effects: tuple[str, ...]) -> Taint | None:
    return next((t for t in taints if t.effect in effects and not tolerates(tolerations, t)), None)
