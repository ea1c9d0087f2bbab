"""Which nodes failed lately: a revision (kept on its set), or everybody by getting lost (kept on the node). Pure.

It stands on objects so that the scheduler of any process sees it.
"""

import json
from collections.abc import Iterable, Mapping

from korch.resources.annotations import LOSSES
from korch.resources.codec import with_meta
from korch.resources.node import Node
from korch.resources.workload import ReplicaSet

FAILURES = "korch.dev/failures"  # annotation: {"NODE": [count, Unix seconds of the last one]}
LATELY_S = 600.0
MOST_NODES = 50
LOST_LATELY_S = 3600.0  # so long a node that was lost is trusted less
MOST_LOSSES = 5


def blame(replicaset: ReplicaSet, node: str, now: float) -> ReplicaSet:
    """The set with one more failure of its pods on `node`; what is long past is forgotten."""
    found = {name: entry for name, entry in _read(replicaset.metadata.annotations).items() if _lately(entry, now)}
    found[node] = (found.get(node, (0, 0.0))[0] + 1, now)
    newest = sorted(found.items(), key=lambda item: (-item[1][1], item[0]))[:MOST_NODES]
    text = json.dumps({name: [count, round(when)] for name, (count, when) in sorted(newest)}, separators=(",", ":"))
    return with_meta(replicaset, annotations={**replicaset.metadata.annotations, FAILURES: text})


def recent_failures(replicasets: Iterable[ReplicaSet], now: float) -> dict[tuple[str, str], int]:
    """Failures by (node, workload) as the scheduler names workloads: `NAMESPACE/ReplicaSet/NAME`."""
    return {
        (node, f"{found.metadata.namespace}/ReplicaSet/{found.metadata.name}"): entry[0]
        for found in replicasets
        for node, entry in _read(found.metadata.annotations).items()
        if _lately(entry, now)
    }


def note_loss(node: Node, now: float) -> Node:
    """The node with one more loss on record."""
    times = [*recent_losses(node, now), round(now)][-MOST_LOSSES:]
    return with_meta(node, annotations={**node.metadata.annotations, LOSSES: json.dumps(times)})


def recent_losses(node: Node, now: float) -> list[int]:
    """When it was lost within the last hour, Unix seconds."""
    try:
        times = [int(when) for when in json.loads(node.metadata.annotations.get(LOSSES, "[]"))]
    except (ValueError, TypeError):
        return []
    return [when for when in times if now - when < LOST_LATELY_S]


def distrust(nodes: Iterable[Node], replicasets: Iterable[ReplicaSet], now: float) -> dict[tuple[str, str], int]:
    """What counts against nodes: failures by (node, workload); a loss counts for all workloads, which "" names."""
    losses = {(node.metadata.name, ""): len(recent_losses(node, now)) for node in nodes}
    return {key: count for key, count in losses.items() if count} | recent_failures(replicasets, now)


def _lately(entry: tuple[int, float], now: float) -> bool:
    return now - entry[1] < LATELY_S


def _read(annotations: Mapping[str, str]) -> dict[str, tuple[int, float]]:
    """What the annotation holds; one that somebody damaged counts for nothing."""
    try:
        data = json.loads(annotations.get(FAILURES, "{}"))
        return {str(node): (int(count), float(when)) for node, (count, when) in data.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
