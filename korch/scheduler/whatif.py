"""Questions about a cluster that is not: nodes lost, pods gone, more replicas. The same scheduler answers them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import msgspec

from korch.errors import NotFoundError
from korch.resources.codec import with_meta
from korch.resources.pod import Pod
from korch.scheduler.decision import Decision
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import NodeView, PodView, Snapshot, assemble


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would happen to pods of lost nodes (`moved`) and new ones (`added`): the node each gets, or why none."""

    moved: tuple[Decision, ...]
    added: tuple[Decision, ...]

    @property
    def fits(self) -> bool:
        """Whether every pod would find a node."""
        return all(decision.node is not None for decision in (*self.moved, *self.added))


def what_if(
    snap: Snapshot,
    *,
    lose: Collection[str] = (),
    pods: Sequence[Pod] = (),
    allowed_nodes: frozenset[str] | None = None,
    record: int | None = None,
) -> Outlook:
    """Where the pods of lost nodes would go, and additional pods; nothing is done. `--limit` binds the new pods only.

    Pods on volumes of a lost node fit nowhere: their data is there.
    """
    after, displaced = without_nodes(snap, lose) if lose else (snap, ())
    moved = schedule(after, displaced, record=record)
    after = with_placements(after, moved, displaced)
    return Outlook(tuple(moved), tuple(schedule(after, pods, allowed_nodes=allowed_nodes, record=record)))


def without_nodes(snap: Snapshot, names: Collection[str]) -> tuple[Snapshot, tuple[PodView, ...]]:
    """The cluster with those nodes lost, and the pods they held that want a place. `NotFoundError` names a stranger."""
    known = {node.name for node in snap.nodes}
    if unknown := sorted(set(names) - known):
        raise NotFoundError(
            f'node "{unknown[0]}" does not exist', hint=f"The nodes are: {', '.join(sorted(known)) or 'none'}."
        )
    volumes: dict[str, set[str]] = {name: set() for name in names}
    for pod in snap.placed:
        if pod.node in volumes:
            volumes[pod.node].update(pod.shape.volumes)
    nodes = tuple(
        replace(node, state="Lost", state_message="", volumes=node.volumes | volumes[node.name])
        if node.name in volumes
        else node
        for node in snap.nodes
    )
    kept = tuple(pod for pod in snap.placed if pod.node not in volumes)
    displaced = tuple(
        replace(pod, node="", hidden=True) for pod in snap.placed if pod.node in volumes and not pod.leaving
    )
    return _again(snap, nodes=nodes, placed=kept), displaced


def with_placements(snap: Snapshot, decisions: Sequence[Decision], pods: Sequence[Pod | PodView]) -> Snapshot:
    """The cluster once the placed ones among `pods` sit where `decisions` put them."""
    nodes = {(d.namespace, d.name, d.uid): d.node for d in decisions if d.node}
    added = []
    for pod in pods:
        view = pod if isinstance(pod, PodView) else _view(snap, pod)
        if node := nodes.get((view.namespace, view.name, view.uid)):
            added.append(replace(view, node=node, hidden=True))
    return _again(snap, nodes=snap.nodes, placed=(*snap.placed, *added)) if added else snap


def copies(pod: Pod, count: int) -> tuple[Pod, ...]:
    """`count` unplaced pods like this one (a real pod or a template made into one), named `NAME-whatif-1` and so on."""
    bare = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=""))
    name = pod.metadata.name or pod.metadata.generate_name.rstrip("-") or "pod"
    return tuple(with_meta(bare, name=f"{name}-whatif-{n}", uid=f"whatif-{n}") for n in range(1, count + 1))


def _view(snap: Snapshot, pod: Pod) -> PodView:
    meta = pod.metadata
    return PodView(meta.namespace, meta.name, meta.uid, meta.creation_timestamp or "", snap.shapes.of(pod))


def _again(snap: Snapshot, *, nodes: tuple[NodeView, ...], placed: tuple[PodView, ...]) -> Snapshot:
    return assemble(
        nodes,
        placed,
        snap.shapes,
        now=snap.now,
        failures=snap.failures,
        max_sample_age_s=snap.max_sample_age_s,
    )
