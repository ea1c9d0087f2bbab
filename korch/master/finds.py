"""What the nodes hold of a cluster: its containers, and the wishes that they keep."""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.errors import InvalidError, KorchError, at
from korch.master.fleet import Fleet
from korch.master.gathering import each
from korch.nodes.parcels import StoredWish
from korch.nodes.records import record_of
from korch.objects.objects import Objects
from korch.resources.codec import decode
from korch.resources.kinds import kind_for
from korch.resources.meta import Object
from korch.resources.pod import Pod
from korch.resources.validation import validate
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

Wish = Deployment | ReplicaSet | DaemonSet | Pod


class NodeFind(msgspec.Struct, frozen=True):
    """What one node holds of the cluster: its containers, and the wishes that it keeps."""

    node: str
    containers: tuple[ObservedContainer, ...] = ()
    wishes: tuple[Wish, ...] = ()


async def look(fleet: Fleet, cluster_id: str) -> tuple[list[NodeFind], list[str]]:
    """What each node holds of the cluster, and sentences on what could not be read."""
    answering = {name: found for name, found in fleet.answering.items() if found.report.engine.state == "Ready"}
    wishes = await each(answering, lambda _, contact: contact.machine.read_wishes())
    finds, notes = [], []
    for name, contact in sorted(fleet.answering.items()):
        if name not in answering:
            notes.append(f"{contact.report.message}; what it holds is not taken in")
            continue
        read = wishes[name]
        kept: list[Wish] = []
        if isinstance(read, KorchError):
            notes.append(f"{name}: the wishes that it keeps cannot be read: {read}")
        else:
            for stored in read:
                try:
                    kept.append(read_wish(stored))
                except KorchError as error:
                    notes.append(f"{at(name, error)}; it is left out")
        mine = tuple(seen for seen in contact.report.containers if _is_of(seen.identity, cluster_id))
        finds.append(NodeFind(name, mine, tuple(kept)))
    return finds, notes


def _is_of(identity: Identity | None, cluster_id: str) -> bool:
    return identity is not None and identity.cluster == cluster_id


def read_wish(stored: StoredWish) -> Wish:
    """The object in a file that a node keeps; `InvalidError` unless it is whole, valid, and named like its file."""
    try:
        head = msgspec.json.decode(stored.content, type=Object)
        wish = decode(kind_for(head.api_version, head.kind), stored.content)
    except (msgspec.MsgspecError, InvalidError) as error:
        raise InvalidError(f"the wish {stored.file} cannot be read: {error}") from error
    if not isinstance(wish, Deployment | ReplicaSet | DaemonSet | Pod) or record_of(wish).file != stored.file:
        raise InvalidError(f"the wish {stored.file} is not what its name says")
    if not wish.metadata.uid or not wish.metadata.resource_version.isdecimal():
        raise InvalidError(f"the wish {stored.file} has no uid or no revision")
    validate(wish)
    return wish


async def ended_among(objects: Objects, uids: Iterable[str]) -> frozenset[str]:
    """Those of these pod uids that have a tombstone."""
    return frozenset([uid for uid in sorted(uids) if await objects.tombstone(uid)])


async def unheard_of(objects: Objects, finds: Sequence[NodeFind]) -> list[tuple[str, ObservedContainer]]:
    """(node, container) of each pod that the store never heard of."""
    known = {pod.metadata.uid for pod in (await objects.list(Pod)).items}
    return orphans_of(finds, known | await ended_among(objects, uids_in(finds) - known))


def orphans_of(finds: Sequence[NodeFind], heard_of: Collection[str]) -> list[tuple[str, ObservedContainer]]:
    """The same for pod uids that the store has heard of: of several containers of a pod one that runs, else the last
    that started, a sandbox last. Pure.
    """
    best: dict[str, tuple[str, ObservedContainer]] = {}
    for find in sorted(finds, key=lambda found: found.node):
        for seen in sorted(find.containers, key=lambda found: found.name):
            if seen.identity is None or seen.identity.uid in heard_of:
                continue
            before = best.get(seen.identity.uid)
            if before is None or _liveness(seen) > _liveness(before[1]):
                best[seen.identity.uid] = (find.node, seen)
    return [best[uid] for uid in sorted(best, key=lambda uid: (best[uid][1].name, uid))]


def uids_in(finds: Iterable[NodeFind]) -> set[str]:
    """The uids of all pods of which something is there."""
    return {seen.identity.uid for find in finds for seen in find.containers if seen.identity is not None}


def _liveness(seen: ObservedContainer) -> tuple[bool, bool, float]:
    is_sandbox = seen.identity is not None and seen.identity.container == SANDBOX
    return (not is_sandbox, seen.state == "running", seen.started_at or 0.0)
