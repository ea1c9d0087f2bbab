"""What a drain does with each pod of a node. Pure."""

from collections.abc import Collection

import msgspec

from korch.controllers.disruption import World, stops_first
from korch.resources.pod import Pod
from korch.resources.podstate import controller_of, is_counted, named_volumes

DRAIN = "drain"  # the reason on pods that a drain has marked


class Move(msgspec.Struct, frozen=True):
    """A pod that is to leave. `stop_first`: without a successor beside it; `note`: what that means for its owner."""

    pod: Pod
    stop_first: bool
    note: str = ""


class DrainPlan(msgspec.Struct, frozen=True):
    """Pods to mark, those that go already, those that belong to the node and stay, and refusals with the reason."""

    moves: tuple[Move, ...] = ()
    going: tuple[Pod, ...] = ()
    stay: tuple[Pod, ...] = ()
    refused: tuple[tuple[Pod, str], ...] = ()


def plan_drain(world: World, nodes: Collection[str], *, force: bool) -> DrainPlan:
    """What happens to the pods of these nodes; by namespace and name."""
    moves, going, stay, refused = [], [], [], []
    for pod in sorted(world.pods, key=lambda found: (found.metadata.namespace, found.metadata.name)):
        if pod.spec.node_name not in nodes or not is_counted(pod):
            going += [pod] if pod.spec.node_name in nodes and pod.metadata.deletion_timestamp is not None else []
            continue
        owner = controller_of(pod)
        if owner is not None and owner.kind == "DaemonSet":
            stay.append(pod)
            continue
        problem = problem_with_moving(pod)
        if problem and not force:
            refused.append((pod, problem))
            continue
        first = stops_first(pod, world) or bool(named_volumes(pod))
        moves.append(Move(pod, first, problem or ("its app never runs twice: it stops first" if first else "")))
    return DrainPlan(tuple(moves), tuple(going), tuple(stay), tuple(refused))


def problem_with_moving(pod: Pod) -> str:
    """Why a pod is not simply moved, or ""."""
    if controller_of(pod) is None:
        return "it belongs to no Deployment or ReplicaSet: nobody would start it elsewhere"
    if volumes := [found.rpartition("/")[2] for found in named_volumes(pod)]:
        return f"volume {', '.join(volumes)} exists on this node only: it cannot run elsewhere"
    if paths := [volume.host_path.path for volume in pod.spec.volumes if volume.host_path]:
        return f"it uses {', '.join(paths)} of this node: elsewhere it would find other files"
    return ""
