"""`korch adopt`: the store rebuilt from the nodes, and orphans taken in. The plan is in `adoption.py`.

Under the lead, with an epoch above that of any node and a revision above any that was handed out, so that whoever led
before is refused everywhere, and whoever watched before lists again.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from korch.client.base import Adoption, ClusterFound
from korch.controllers.replicaset import plan_replicas
from korch.controllers.rollout import plan_rollout
from korch.engines.observed import ObservedContainer
from korch.errors import KorchError, NotFoundError, at
from korch.master.adoption import AdoptionPlan, Known, plan_adoption
from korch.master.choosing import but_not_all_answer, choose, clusters_seen
from korch.master.cluster import RECORD_KEY, Cluster, ClusterRecord
from korch.master.contacts import Contact
from korch.master.finds import NodeFind, ended_among, look, uids_in
from korch.master.fleet import Fleet
from korch.master.gathering import each, failures
from korch.master.handover import take_lead
from korch.master.hosts import identity_of
from korch.master.regroup import TakenPod, owner_uid
from korch.nodes.machine import ClusterIdentity
from korch.nodes.podstatus import Readiness, Sight, observed_status
from korch.nodes.readiness import run_probe
from korch.nodes.ward import together
from korch.objects.objects import Objects
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, Object, ObjectMeta
from korch.resources.misc import Namespace, Secret
from korch.resources.pod import Pod, PodStatus
from korch.resources.podstate import with_condition, workload_name
from korch.resources.times import rfc3339
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.store.backup import REVISION_GAP
from korch.store.base import Put
from korch.store.lease import Lead
from korch.store.sealed import unsealed
from korch.store.sqlite import SqliteStore

T = TypeVar("T", bound=Object)


async def adopt(cluster: Cluster, fleet: Fleet, cluster_id: str, *, dry_run: bool) -> tuple[Cluster, Adoption]:
    """(the cluster as it is then, what was or would be taken in). A dry run leaves the cluster's record alone."""
    await fleet.survey()
    found = await clusters_seen(fleet, cluster.record)
    holds_work = any([(await cluster.objects.list(type_)).items for type_ in (Deployment, ReplicaSet, DaemonSet, Pod)])
    try:
        chosen = choose(found, cluster.record, cluster_id, holds_work=holds_work)
    except NotFoundError as error:
        raise but_not_all_answer(error, fleet.errors) from error
    adopted = replace(cluster, record=_record_for(chosen, cluster.record))
    takes_over = chosen.id != cluster.record.id
    if takes_over:
        fleet.act_for(adopted)
        await fleet.survey()
    finds, notes = await look(fleet, chosen.id)
    plan = plan_adoption(finds, await _known(cluster.objects, finds))
    notes += [f"{at(name, error)}; what it holds is not taken in" for name, error in sorted(fleet.errors.items())]
    taken = _told(plan)
    if not dry_run and (taken or takes_over):
        notes += await _Adopting(cluster, adopted, fleet).carry_out(plan, finds)
    result = Adoption(found, chosen.id, chosen.name, taken, (*plan.notes, *notes), takes_over)
    return (cluster if dry_run else adopted), result


def _record_for(chosen: ClusterFound, record: ClusterRecord) -> ClusterRecord:
    """The record under which the adopted cluster goes on. Containers are named after its name, so that stays."""
    here = f"{os.environ.get('USER') or 'root'}@{socket.gethostname()}"
    return replace(record, id=chosen.id, name=chosen.name, master_host=here)


async def _known(objects: Objects, finds: Sequence[NodeFind]) -> Known:
    """What the store knows, with the tombstones of what nodes hold."""
    pods = (await objects.list(Pod)).items
    ended = await ended_among(objects, uids_in(finds) - {pod.metadata.uid for pod in pods})
    return Known(
        deployments=(await objects.list(Deployment)).items,
        sets=(await objects.list(ReplicaSet)).items,
        daemons=(await objects.list(DaemonSet)).items,
        pods=pods,
        secrets=(await objects.list(Secret)).items,
        ended=ended,
    )


def _told(plan: AdoptionPlan) -> tuple[str, ...]:
    """The plan in lines for people."""
    lines = []
    for deployment in plan.deployments:
        lines.append(f"deployment/{deployment.metadata.name} with {deployment.spec.replicas or 0} replicas wished for")
    for deployment in plan.replace:
        lines.append(f"deployment/{deployment.metadata.name} as its nodes keep it, which is newer than the state")
    lines += [f"daemonset/{daemonset.metadata.name}" for daemonset in plan.daemons]
    for taken in plan.pods:
        pod = taken.pod
        lines.append(f"pod/{pod.metadata.name} on {pod.spec.node_name} ({taken.seen.state})")
    for pod in plan.drop:
        lines.append(f"pod/{pod.metadata.name} is forgotten: nothing of it is left on {pod.spec.node_name}")
    return tuple(lines)


# Writing it


class _Adopting:
    """Carries a plan out under the lead."""

    def __init__(self, before: Cluster, cluster: Cluster, fleet: Fleet) -> None:
        self._before, self._cluster, self._fleet = before, cluster, fleet
        self._lead = Lead(
            cluster.store, lock_file=cluster.settings.cluster_dir / "lead.lock", note={"doing": "adoption"}
        )
        self._objects = Objects(cluster.store, clock=cluster.clock, fence=self._lead.fence)

    async def carry_out(self, plan: AdoptionPlan, finds: Sequence[NodeFind]) -> list[str]:
        """Sentences on what did not go well."""
        await take_lead(self._cluster.store, self._lead)
        try:
            await self._put_record()
            await raise_revision(self._cluster, [wish for find in finds for wish in find.wishes])
            notes = list(await take_over(self._lead, self._fleet, self._former()))
            statuses = await self._statuses(plan)
            await self._write(plan, statuses)
            return notes
        finally:
            await self._lead.release()

    def _former(self) -> ClusterIdentity | None:
        """The identity that this store had before, when it was another's."""
        old = self._before.record
        if old.id == self._cluster.record.id:
            return None
        return identity_of(old)

    async def _put_record(self) -> None:
        found = await self._cluster.store.get(RECORD_KEY)
        encoded = msgspec.json.encode(self._cluster.record)
        if found is None or found.value != encoded:
            await self._cluster.store.txn(
                [Put(RECORD_KEY, encoded, found.revision if found else 0), self._lead.fence()]
            )

    async def _statuses(self, plan: AdoptionPlan) -> dict[str, PodStatus]:
        """The status of each pod that is taken in, by uid; their checks are made now."""
        taken = {one.pod.metadata.uid: one for one in plan.pods}
        answers = await each(taken, lambda _, one: self._status(one))
        return {uid: found for uid, found in answers.items() if not isinstance(found, KorchError)}

    async def _status(self, taken: TakenPod) -> PodStatus:
        pod = taken.pod
        contact = self._fleet.answering[pod.spec.node_name]
        since = self._cluster.clock.now() - (taken.seen.running_s or 0.0)
        found = together({seen.identity.container: seen for seen in taken.every if seen.identity is not None})
        sights = {name: Sight(seen, await _readiness(contact, pod, name, seen)) for name, seen in found.items()}
        status = observed_status(pod, sights, now=since, host_ip=contact.address)
        placed = Condition(type="PodScheduled", status="True")
        return replace(status, conditions=with_condition(status.conditions, placed, rfc3339(since)))

    async def _write(self, plan: AdoptionPlan, statuses: Mapping[str, PodStatus]) -> None:
        objects, now = self._objects, self._cluster.clock.now()
        for name in plan.namespaces:
            if await objects.find(Namespace, name, "") is None:
                await objects.create(Namespace(metadata=ObjectMeta(name=name)))
        for pod in plan.drop:
            await objects.finish_delete(pod)
        for deployment in plan.replace:
            await objects.modify(
                Deployment, deployment.metadata.name, deployment.metadata.namespace, _wish_of(deployment)
            )
        for found in plan.resize:
            await objects.modify(ReplicaSet, found.metadata.name, found.metadata.namespace, _size_of(found))
        for group in grouped(plan, statuses, now):
            await objects.restore_together(group)
            for obj in group:
                if not isinstance(obj, ReplicaSet):
                    text = "taken in from what runs on the nodes"
                    await objects.record_event(obj, type="Normal", reason="Adopted", message=text, component="adopt")


async def _readiness(contact: Contact, pod: Pod, name: str, seen: ObservedContainer) -> Readiness:
    container = next((one for one in pod.spec.containers if one.name == name), None)
    probe = container.readiness_probe if container is not None else None
    if container is None or probe is None:
        return Readiness(passing=True)
    if seen.state != "running":
        return Readiness(message="it does not run")
    verdict = await run_probe(contact.machine, container, seen, probe)
    return Readiness(passing=not verdict.problem, message=verdict.problem)


def _wish_of(newer: Deployment) -> Callable[[Deployment], Deployment]:
    meta = newer.metadata
    return lambda stored: replace(with_meta(stored, labels=meta.labels, annotations=meta.annotations), spec=newer.spec)


def _size_of(wanted: ReplicaSet) -> Callable[[ReplicaSet], ReplicaSet]:
    return lambda stored: replace(stored, spec=replace(stored.spec, replicas=wanted.spec.replicas))


def grouped(plan: AdoptionPlan, statuses: Mapping[str, PodStatus], now: float) -> tuple[tuple[Object, ...], ...]:
    """The new objects of each workload with their statuses: a deployment, its sets, their pods. Pure."""
    stamp = rfc3339(now)
    pods = [_finished(taken, statuses, stamp) for taken in plan.pods]
    groups: dict[tuple[str, str], list[Object]] = {}
    for deployment in plan.deployments:
        key = (deployment.metadata.namespace, deployment.metadata.name)
        sets = [found for found in plan.sets if owner_uid(found) == deployment.metadata.uid]
        members = {found.metadata.name: [pod for pod in pods if owner_uid(pod) == found.metadata.uid] for found in sets}
        status = plan_rollout(deployment, sets, members, now).status
        groups[key] = [replace(deployment, status=status)]
    for daemonset in plan.daemons:
        groups.setdefault(_workload(daemonset), []).append(daemonset)
    for found in plan.sets:
        mine = [pod for pod in pods if owner_uid(pod) == found.metadata.uid]
        counted = replace(found, status=plan_replicas(found, mine, now).status)
        groups.setdefault(_workload(found), []).append(_dated(counted, stamp))
    for pod in pods:
        groups.setdefault(_workload(pod), []).append(pod)
    return tuple(tuple(groups[key]) for key in sorted(groups))


def _finished(taken: TakenPod, statuses: Mapping[str, PodStatus], stamp: str) -> Pod:
    status = statuses.get(taken.pod.metadata.uid, taken.pod.status)
    return _dated(replace(taken.pod, status=status), status.start_time or stamp)


def _dated(obj: T, stamp: str) -> T:
    return obj if obj.metadata.creation_timestamp else with_meta(obj, creation_timestamp=stamp)


def _workload(obj: Object) -> tuple[str, str]:
    return (obj.metadata.namespace, workload_name(obj))


# Taking over


async def raise_revision(cluster: Cluster, wishes: Sequence[Object] = ()) -> None:
    """Move the store beyond every revision that it, or the lost one, can have handed out."""
    store = unsealed(cluster.store)
    if isinstance(store, SqliteStore):
        newest = max((int(wish.metadata.resource_version or 0) for wish in wishes), default=0)
        await store.leap(max(newest, await store.revision()) + REVISION_GAP)


async def take_over(lead: Lead, fleet: Fleet, former: ClusterIdentity | None = None) -> tuple[str, ...]:
    """Make every node that answers refuse whoever led before; a sentence for each where that failed.

    `former`: an identity that this store no longer has; its claims are taken back.
    """
    highest = max((contact.report.epoch for contact in fleet.answering.values()), default=0)
    epoch = await lead.raise_epoch(highest + 1)

    async def take(name: str, contact: Contact) -> None:
        if former is not None and any(claim.id == former.id for claim in contact.report.foreign_claims):
            await fleet.machine_as(name, former).unclaim(epoch=epoch)
        await contact.machine.set_epoch(epoch)

    usable = {name: found for name, found in fleet.answering.items() if found.report.engine.state == "Ready"}
    return failures(await each(usable, take))
