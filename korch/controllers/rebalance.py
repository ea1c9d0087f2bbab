"""Which running pods may be moved to level the load, and the plan of moves. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from korch.client.base import NodeUsage
from korch.controllers.disruption import World, stops_first
from korch.controllers.drain import problem_with_moving
from korch.resources.annotations import MOVED_FROM
from korch.resources.blame import distrust
from korch.resources.leaving import is_leaving
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import condition, controller_of, is_ready, workload_name
from korch.resources.times import parse_time
from korch.scheduler.rebalance import MIN_GAIN, Shift, Usage, plan_shifts
from korch.scheduler.snapshot import snapshot

REBALANCE = "rebalance"  # the reason on pods that a rebalance has marked
REST_S = 300.0  # a pod that was moved stays for so long
SETTLE_S = 60.0  # a node's samples show so late what left it: the load is smoothed


def plan_rebalance(
    world: World,
    nodes: Sequence[Node],
    loads: Mapping[str, NodeLoad],
    now: float,
    *,
    usage: Mapping[str, Usage] | None = None,
    max_moves: int = 5,
    min_gain: float = MIN_GAIN,
) -> tuple[Shift, ...]:
    """The moves that gain most. Those under way count; nodes give no more until the effect of the last is measured."""
    busy = sum(is_leaving(pod) for pod in world.pods)
    snap = snapshot(nodes, loads, world.pods, now=now, failures=distrust(nodes, world.sets, now))
    return plan_shifts(
        snap,
        frozenset(pod.metadata.uid for pod in world.pods if may_move(pod, world, now)),
        usage=usage,
        max_moves=max(0, max_moves - busy),
        min_gain=min_gain,
        settling=settling_nodes(world.pods, now),
    )


def usage_by_pod(measured: Iterable[NodeUsage]) -> dict[str, Usage]:
    """By uid what a pod uses, for those of which all is known."""
    found: dict[str, Usage] = {}
    for one in (container for node in measured for container in node.containers):
        if one.cpu_millis is not None and one.memory_bytes is not None:
            old = found.get(one.uid, Usage(0, 0))
            found[one.uid] = Usage(old.cpu_millis + one.cpu_millis, old.memory_bytes + one.memory_bytes)
    return found


def may_move(pod: Pod, world: World, now: float) -> bool:
    """Whether it can be moved without anybody noticing: whole, start-first, and its app is not being rolled out."""
    if not is_ready(pod) or is_leaving(pod) or problem_with_moving(pod) or stops_first(pod, world):
        return False
    if MOVED_FROM in pod.metadata.annotations and _age_s(pod, now) < REST_S:
        return False
    return not _rolls(pod, world)


def settling_nodes(pods: Sequence[Pod], now: float) -> frozenset[str]:
    """Nodes that a pod left so lately that their samples may still show its load."""
    notes = [(pod.metadata.annotations.get(MOVED_FROM, ""), _age_s(pod, now)) for pod in pods]
    leaving = {pod.spec.node_name for pod in pods if is_leaving(pod)}
    return frozenset(node for node, age_s in notes if node and age_s < SETTLE_S) | leaving


def _age_s(pod: Pod, now: float) -> float:
    return now - parse_time(pod.metadata.creation_timestamp or "1970-01-01T00:00:00Z")


def _rolls(pod: Pod, world: World) -> bool:
    """Whether its deployment is on its way to another revision, or paused on it."""
    owner = controller_of(pod)
    if owner is None:
        return True
    for found in world.deployments:
        if (found.metadata.namespace, found.metadata.name) == (pod.metadata.namespace, workload_name(pod)):
            progressing = condition(found.status.conditions, "Progressing")
            fresh = found.status.observed_generation == found.metadata.generation
            return not fresh or progressing is None or progressing.reason != "NewReplicaSetAvailable"
    return False
