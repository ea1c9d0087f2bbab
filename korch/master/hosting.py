"""Which nodes may have a workload at all, by their standing facts: only these are asked for its image. Pure.

The scheduler's own filters tell. They are not even loaded for what is usual: a node and a workload without conditions.
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from korch.client.declare import pod_spec_of
from korch.resources.meta import Condition, Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod, PodSpec
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet


def may_run(obj: Object, node: Node) -> bool:
    """Whether a pod of `obj` may be placed on a node that answers now, as far as its room and load do not matter."""
    spec = pod_spec_of(obj)
    if spec is None or _are_plain(spec, node):
        return True
    if spec.node_name:
        return spec.node_name == node.metadata.name
    import dataclasses

    from korch.scheduler.filters import Limits, standing_refusal
    from korch.scheduler.shape import Shapes
    from korch.scheduler.snapshot import node_view

    view = dataclasses.replace(node_view(_answering(node), None, 0.0), sample_age_s=0.0)
    return standing_refusal(Shapes().of(_pod(obj, spec)).rules, view, Limits(None, 1.0)) is None


def why_nowhere(
    obj: Object, nodes: Sequence[Node], loads: Mapping[str, NodeLoad], allowed: frozenset[str], now: float
) -> str:
    """In the scheduler's words why no node takes a pod of `obj`; "" when one does."""
    from korch.scheduler.select import schedule
    from korch.scheduler.snapshot import snapshot

    spec = pod_spec_of(obj)
    if spec is None:
        return ""
    (decision,) = schedule(snapshot(nodes, loads, (), now=now), [_pod(obj, spec)], allowed_nodes=allowed)
    return "" if decision.node else decision.message


def _are_plain(spec: PodSpec, node: Node) -> bool:
    picky = spec.node_name or spec.node_selector or spec.affinity is not None
    pressed = any(found.type.endswith("Pressure") and found.status == "True" for found in node.status.conditions)
    return not (picky or pressed or node.spec.unschedulable or node.spec.taints)


def _answering(node: Node) -> Node:
    """It was away when it was recorded, perhaps, and answers now."""
    if any(found.type == "Ready" and found.status == "True" for found in node.status.conditions):
        return node
    others = tuple(found for found in node.status.conditions if found.type != "Ready")
    ready = Condition(type="Ready", status="True", reason="Ready")
    return replace(node, status=replace(node.status, conditions=(*others, ready)))


def _pod(obj: Object, spec: PodSpec) -> Pod:
    """As a pod of it would be."""
    meta = obj.spec.template.metadata if isinstance(obj, Deployment | ReplicaSet | DaemonSet) else obj.metadata
    if isinstance(obj, DaemonSet):
        from korch.controllers.daemonset import DAEMON_TOLERATIONS

        spec = replace(spec, tolerations=(*spec.tolerations, *DAEMON_TOLERATIONS))
    return Pod(metadata=meta, spec=spec)
