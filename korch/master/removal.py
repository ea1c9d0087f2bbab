"""Leaving: a cluster gives its nodes back, a node that is gone is forgotten."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from korch.engines.names import Identity
from korch.errors import ForbiddenError, NotFoundError, at
from korch.master.cluster import Cluster
from korch.master.contacts import Contact
from korch.master.fleet import Fleet
from korch.master.gathering import each, failures
from korch.master.handover import take_lead
from korch.objects.objects import Objects
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import condition
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.store.lease import Lead

GRACE_S = 10  # for containers of a cluster that is removed


async def leave_nodes(cluster: Cluster, fleet: Fleet, *, force: bool) -> tuple[str, ...]:
    """Take the claims back; with `force` also end and remove the cluster's containers, and the images it brought.

    Sentences on what stays somewhere. `ForbiddenError` while there is work and no `force`, or another one leads.
    """
    work = [
        obj for type_ in (Deployment, ReplicaSet, DaemonSet, Pod) for obj in (await cluster.objects.list(type_)).items
    ]
    if work and not force:
        names = sorted({f"{type(obj).__name__.lower()}/{obj.metadata.name}" for obj in work})
        raise ForbiddenError(
            f'cluster "{cluster.record.name}" still has {_some(names)}',
            hint="Delete them first (`korch delete NAME`), or remove them with the cluster: --force",
        )
    await fleet.survey()
    contacts = {name: found for name, found in fleet.answering.items() if found.report.engine.state == "Ready"}
    left = {name: own for name, found in contacts.items() if (own := _own_containers(found, cluster.record.id))}
    if left and not force:
        raise ForbiddenError(
            f"containers of this cluster that its state does not know run on {_some(sorted(left))}",
            hint="Take them in (`korch adopt`), or remove them with the cluster: --force",
        )
    notes = [f"{at(name, error)}; what it holds of this cluster stays" for name, error in sorted(fleet.errors.items())]
    for name, found in sorted(fleet.answering.items()):
        if name not in contacts:
            notes.append(f"{found.report.message}; what it holds of this cluster stays")
        if found.report.volumes:
            notes.append(f"{name}: the named volumes {_some(found.report.volumes)} stay")
    lead = Lead(cluster.store, lock_file=cluster.settings.cluster_dir / "lead.lock", note={"doing": "removal"})
    await take_lead(cluster.store, lead)
    try:
        epoch = await lead.raise_epoch(max((found.report.epoch for found in contacts.values()), default=0))

        async def leave(name: str, contact: Contact) -> None:
            if force:
                own = {identity.uid: replace(identity, container="") for identity in left.get(name, ())}
                ended = await each(own, lambda _, who: contact.machine.remove(who, grace_s=GRACE_S, epoch=epoch))
                if failures(ended):
                    raise ForbiddenError("; ".join(failures(ended)))
                await contact.machine.prune((), epoch=epoch)
            if contact.report.claim is not None:
                await contact.machine.unclaim(epoch=epoch)

        notes += failures(await each(contacts, leave))
    finally:
        await lead.release()
    return tuple(notes)


def _own_containers(contact: Contact, cluster_id: str) -> tuple[Identity, ...]:
    found = (seen.identity for seen in contact.report.containers)
    return tuple(identity for identity in found if identity is not None and identity.cluster == cluster_id)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def forget_node(objects: Objects, name: str, *, force: bool) -> tuple[str, ...]:
    """Forget a node that left the inventory; the names of the pods that were given up with it (only with `force`).

    Each pod leaves a tombstone: should the machine come back with its container, that is known to be surplus.
    """
    node = await objects.get(Node, name, "")
    ready = condition(node.status.conditions, "Ready")
    if ready is None or ready.reason != "NotInInventory":
        raise ForbiddenError(
            f"{name} is still in the inventory",
            hint=f"Take it out there first; `korch node cordon {name}` keeps pods away.",
        )
    pods = [pod for pod in (await objects.list(Pod)).items if pod.spec.node_name == name]
    if pods and not force:
        raise ForbiddenError(
            f"{name} still has {len(pods)} pod(s): {_some([pod.metadata.name for pod in pods])}",
            hint=f"If that machine is gone or switched off for good: korch node rm {name} --force",
        )
    for pod in pods:
        await objects.finish_delete(pod)
    with suppress(NotFoundError):
        await objects.delete(NodeLoad, name, "")
    await objects.delete(Node, name, "")
    return tuple(pod.metadata.name for pod in pods)
