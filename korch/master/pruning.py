"""`korch prune`, and what a deploy tidies up behind itself: images, kept wishes, Secrets, tombstones, orphans.

An image goes only when korch brought it to that node, no container there uses it, and no revision of any workload in
the cluster can ask for it again (see `Machine.prune`, which holds to the first two).
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from korch.client.base import Orphan, Pruned
from korch.errors import FencedError, ForbiddenError, KorchError, NotFoundError, at
from korch.master.cluster import Cluster
from korch.master.contacts import Contact
from korch.master.finds import look, unheard_of
from korch.master.fleet import Fleet
from korch.master.gathering import each, failures
from korch.master.handover import take_lead
from korch.master.images import pushed_images
from korch.nodes.parcels import WorkloadRecord
from korch.objects.objects import Objects
from korch.resources.batch import CronJob, Job
from korch.resources.expand import unused_secrets
from korch.resources.history import ControllerRevision
from korch.resources.images import image_references
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Secret
from korch.resources.pod import Pod, PodSpec
from korch.resources.podstate import workload_name
from korch.resources.workload import DaemonSet, Deployment, PodTemplateSpec, ReplicaSet
from korch.store.lease import Lead

Workload = Deployment | ReplicaSet | DaemonSet
AFTER_S = 10.0  # at most, at the end of a deploy
ORPHAN_GRACE_S = 30
log = logging.getLogger(__name__)


async def wanted_images(cluster: Cluster) -> frozenset[str]:
    """References that somebody may still ask for: of what runs, of all revisions on record, of what people pushed."""
    objects = cluster.objects
    found: set[str] = set()
    for pod in (await objects.list(Pod)).items:
        found |= _references(pod.metadata, pod.spec)
    for template in await _templates(objects):
        found |= _references(template.metadata, template.spec)
    return frozenset(found | {pushed.id for pushed in await pushed_images(cluster.store)})


async def _templates(objects: Objects) -> list[PodTemplateSpec]:
    """What pods may be made from: of today, of revisions to go back to, of jobs to come."""
    workloads: list[Workload | Job] = list((await objects.list(Deployment)).items)
    workloads += (await objects.list(ReplicaSet)).items
    workloads += (await objects.list(DaemonSet)).items
    workloads += (await objects.list(Job)).items
    crons = (await objects.list(CronJob)).items
    revisions = (await objects.list(ControllerRevision)).items
    return [
        *(workload.spec.template for workload in workloads),
        *(cron.spec.job_template.spec.template for cron in crons),
        *(template for revision in revisions if (template := template_of(revision)) is not None),
    ]


def template_of(revision: ControllerRevision) -> PodTemplateSpec | None:
    """The template that an undo would bring back; None when it holds no such thing."""
    try:
        found = revision.data["spec"]["template"]
        return msgspec.convert({key: value for key, value in found.items() if key != "$patch"}, PodTemplateSpec)
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError):
        return None


def _references(meta: ObjectMeta, spec: PodSpec) -> set[str]:
    """The exact images of a template; its containers' images as written when those are not on record."""
    return set(image_references(meta.annotations, spec).values())


async def prune_after(cluster: Cluster, fleet: Fleet, contacts: Mapping[str, Contact], epoch: int) -> None:
    """At the end of a rollout, also of a failed one: let old images go where this run has brought a new one.

    It takes a few seconds at most, and what goes wrong is only logged: `korch prune` gets another chance.
    """
    del fleet  # nodes that went away during the run fail by themselves
    pods = (await cluster.objects.list(Pod)).items
    fresh = {pod.spec.node_name for pod in pods if _was_brought(pod, contacts)}
    if not fresh:
        return
    await prune_images(cluster, {name: contacts[name] for name in sorted(fresh)}, epoch)


async def prune_images(cluster: Cluster, contacts: Mapping[str, Contact], epoch: int) -> None:
    """Old images of these nodes make room; what goes wrong is only logged."""
    keep = await wanted_images(cluster)

    async def prune(_: str, contact: Contact) -> tuple[str, ...]:
        return await contact.machine.prune(keep, epoch=epoch)

    try:
        async with asyncio.timeout(AFTER_S):
            results = await each(contacts, prune)
    except (TimeoutError, FencedError) as error:
        log.info("old images stay for now: %s", error or "it took too long")
        return
    for text in failures(results):
        log.info("old images stay for now: %s", text)


def _was_brought(pod: Pod, contacts: Mapping[str, Contact]) -> bool:
    """Whether one of the pod's images was not on its node when this run first looked."""
    contact = contacts.get(pod.spec.node_name)
    wanted = image_references(pod.metadata.annotations, pod.spec).values()
    return contact is not None and any(image not in contact.images for image in wanted)


async def find_orphans(cluster: Cluster, fleet: Fleet) -> tuple[Orphan, ...]:
    """Containers of this cluster that its state never heard of."""
    await fleet.survey()
    finds, _ = await look(fleet, cluster.record.id)
    found = []
    for node, seen in await unheard_of(cluster.objects, finds):
        assert seen.identity is not None
        found.append(Orphan(node, seen.name, seen.identity.pod, seen.identity.uid, seen.state))
    return tuple(found)


async def prune(cluster: Cluster, fleet: Fleet, *, orphans: frozenset[str] = frozenset()) -> Pruned:
    """Remove what nothing needs, everywhere that can be reached. `orphans`: uids of orphans that go, too."""
    lead = Lead(cluster.store, lock_file=cluster.settings.cluster_dir / "lead.lock", note={"doing": "pruning"})
    await fleet.survey()
    await take_lead(cluster.store, lead)
    try:
        contacts = await fleet.contacts(claim=False)
        mine = {name: found for name, found in contacts.items() if found.report.claim is not None}
        epoch = await lead.raise_epoch(max((found.report.epoch for found in mine.values()), default=0))
        objects = Objects(cluster.store, clock=cluster.clock, fence=lead.fence)
        return await _Pruning(cluster, fleet, mine, objects, epoch).run(orphans)
    finally:
        await lead.release()


class _Pruning(msgspec.Struct, frozen=True):
    """One pass over the nodes that answer."""

    cluster: Cluster
    fleet: Fleet
    contacts: Mapping[str, Contact]
    objects: Objects
    epoch: int

    async def run(self, orphans: frozenset[str]) -> Pruned:
        """What went, and what could not be looked at."""
        lines = await self._orphans(orphans) if orphans else []
        secrets = await self._secrets()
        lines += [f"secret/{name}" for name in secrets]
        keep, here = await wanted_images(self.cluster), await self._wanted_wishes()

        async def tidy(name: str, contact: Contact) -> list[str]:
            gone = [f"{name}: image {id_}" for id_ in await contact.machine.prune(keep, epoch=self.epoch)]
            for stored in await contact.machine.read_wishes():
                if (name, stored.file) not in here:
                    namespace, _, workload = stored.file.partition("_")
                    await contact.machine.remove_wish(namespace, workload.replace("%2F", "/"), epoch=self.epoch)
                    gone.append(f"{name}: wish of {namespace}/{workload.replace('%2F', '/')}")
            return gone

        results = await each(self.contacts, tidy)
        lines += [line for found in results.values() if not isinstance(found, KorchError) for line in found]
        if old := await self.objects.prune_tombstones():
            lines.append(f"{old} tombstone(s) of pods that ended long ago")
        notes = [*failures(results), *(at(name, error) for name, error in sorted(self.fleet.problems.items()))]
        return Pruned(tuple(lines), tuple(dict.fromkeys(notes)))

    async def _orphans(self, uids: frozenset[str]) -> list[str]:
        finds, _ = await look(self.fleet, self.cluster.record.id)
        found = await unheard_of(self.objects, finds)
        chosen = {
            seen.name: (node, replace(seen.identity, container=""))  # all of its pod's
            for node, seen in found
            if seen.identity is not None and seen.identity.uid in uids and node in self.contacts
        }
        results = await each(
            chosen,
            lambda _, one: self.contacts[one[0]].machine.remove(one[1], grace_s=ORPHAN_GRACE_S, epoch=self.epoch),
        )
        if failures(results):
            raise ForbiddenError("; ".join(failures(results)), hint="Try again, or remove them with the engine.")
        return [f"{node}: container {name}" for name, (node, _) in sorted(chosen.items())]

    async def _secrets(self) -> list[str]:
        workloads: list[Workload] = list((await self.objects.list(Deployment)).items)
        workloads += (await self.objects.list(ReplicaSet)).items
        workloads += (await self.objects.list(DaemonSet)).items
        gone = []
        for secret in unused_secrets((await self.objects.list(Secret)).items, workloads):
            try:
                await self.objects.delete(Secret, secret.metadata.name, secret.metadata.namespace)
            except NotFoundError:
                continue
            gone.append(secret.metadata.name)
        return gone

    async def _wanted_wishes(self) -> set[tuple[str, str]]:
        """(node, file) of the wishes that are to stay: of every workload that is on record.

        Where it has pods; where it has none anywhere (scaled to 0), on each node that keeps it.
        """
        wanted: set[tuple[str, str]] = set()
        pods = (await self.objects.list(Pod)).items
        singles = [pod for pod in pods if not pod.metadata.owner_references]
        sets = [found for found in (await self.objects.list(ReplicaSet)).items if not found.metadata.owner_references]
        deployments, daemons = (await self.objects.list(Deployment)).items, (await self.objects.list(DaemonSet)).items
        for workload in (*deployments, *sets, *daemons, *singles):
            meta = workload.metadata
            record = WorkloadRecord(meta.namespace, f"{type(workload).__name__}/{meta.name}", b"")
            nodes = {
                pod.spec.node_name
                for pod in pods
                if pod.metadata.namespace == meta.namespace
                and (pod.metadata.uid == meta.uid or workload_name(pod) == workload_name(workload))
            }
            wanted |= {(node, record.file) for node in nodes - {""} or set(self.contacts)}
        return wanted
