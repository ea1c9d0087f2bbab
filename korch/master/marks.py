"""What a master leaves on the Node of a machine that is away, for itself and for who leads after it. Pure.

`well_again` of `korch.nodes.register` takes all of it off.
"""

from msgspec.structs import replace

from korch.resources.annotations import MASS_LOSS
from korch.resources.blame import note_loss
from korch.resources.codec import with_meta
from korch.resources.node import Node, Taint
from korch.resources.times import rfc3339
from korch.scheduler.taints import NOT_READY, UNREACHABLE


def unreachable_taint(node: Node | None) -> Taint | None:
    """The taint that says since when a node is lost."""
    return next((taint for taint in node.spec.taints if taint.key == UNREACHABLE), None) if node else None


def with_unreachable(node: Node, now: float) -> Node | None:
    """The node with that taint, and with one more loss on record; None when an earlier master said so already."""
    if unreachable_taint(node) is not None:
        return None
    return _tainted(note_loss(node, now), UNREACHABLE, now)


def with_not_ready(node: Node, now: float) -> Node | None:
    """The node with the taint that says since when its engine does not answer; None when it has it."""
    if any(taint.key == NOT_READY for taint in node.spec.taints):
        return None
    return _tainted(node, NOT_READY, now)


def without_not_ready(node: Node) -> Node | None:
    """The node without that taint; None when it has none."""
    taints = tuple(taint for taint in node.spec.taints if taint.key != NOT_READY)
    return None if len(taints) == len(node.spec.taints) else replace(node, spec=replace(node.spec, taints=taints))


def with_mass_loss(node: Node, now: float) -> Node | None:
    """The node with the note that it fell silent together with most others; None when it has it."""
    if MASS_LOSS in node.metadata.annotations:
        return None
    return with_meta(node, annotations={**node.metadata.annotations, MASS_LOSS: rfc3339(now)})


def _tainted(node: Node, key: str, now: float) -> Node:
    taint = Taint(key=key, effect="NoExecute", time_added=rfc3339(now))
    return replace(node, spec=replace(node.spec, taints=(*node.spec.taints, taint)))
