"""What the template of a DaemonSet once was: a ControllerRevision for each, to which people can go back. Pure plan."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from korch.controllers.daemonset import HASH_LABEL
from korch.errors import AlreadyExistsError, ConflictError
from korch.objects.view import View
from korch.resources.codec import with_meta
from korch.resources.history import ControllerRevision
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Pod
from korch.resources.podstate import owner_reference
from korch.resources.templates import template_hash
from korch.resources.workload import DaemonSet

CHANGE_CAUSE = "kubernetes.io/change-cause"


class HistoryPlan(msgspec.Struct, frozen=True):
    """Revisions to make, to change and to forget."""

    create: tuple[ControllerRevision, ...] = ()
    update: tuple[ControllerRevision, ...] = ()
    delete: tuple[ControllerRevision, ...] = ()


def plan_history(daemonset: DaemonSet, revisions: Sequence[ControllerRevision], pods: Sequence[Pod]) -> HistoryPlan:
    """What makes the template of now the newest revision, and forgets those beyond the limit that no pod has.

    Going back to an earlier template makes its revision the newest one.
    """
    if daemonset.metadata.deletion_timestamp is not None:
        return HistoryPlan()
    hashed = template_hash(daemonset.spec.template)
    ordered = sorted(revisions, key=lambda found: (found.revision, found.metadata.name))
    newest = ordered[-1].revision if ordered else 0
    mine = next((found for found in ordered if found.metadata.labels.get(HASH_LABEL) == hashed), None)
    cause = daemonset.metadata.annotations.get(CHANGE_CAUSE)
    create: tuple[ControllerRevision, ...] = ()
    update: tuple[ControllerRevision, ...] = ()
    if mine is None:
        create = (revision_of(daemonset, newest + 1),)
    elif mine.revision != newest:
        update = (replace(_caused(mine, cause), revision=newest + 1),)
    elif cause is not None and mine.metadata.annotations.get(CHANGE_CAUSE) != cause:
        update = (_caused(mine, cause),)
    live = {hashed, *(pod.metadata.labels.get(HASH_LABEL, "") for pod in pods)}
    past = [found for found in ordered if found.metadata.labels.get(HASH_LABEL) not in live]
    limit = daemonset.spec.revision_history_limit
    surplus = past[: max(0, len(past) - (10 if limit is None else limit))]
    return HistoryPlan(create, update, tuple(surplus))


def _caused(found: ControllerRevision, cause: str | None) -> ControllerRevision:
    notes = {key: text for key, text in found.metadata.annotations.items() if key != CHANGE_CAUSE}
    return with_meta(found, annotations={**notes, CHANGE_CAUSE: cause} if cause is not None else notes)


def revision_of(daemonset: DaemonSet, number: int) -> ControllerRevision:
    """The template of now as a patch that brings it back, in the form that kubectl sends as it is."""
    meta, template = daemonset.metadata, daemonset.spec.template
    hashed = template_hash(template)
    data: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(template))
    cause = meta.annotations.get(CHANGE_CAUSE)
    return ControllerRevision(
        metadata=ObjectMeta(
            name=f"{meta.name}-{hashed}",
            namespace=meta.namespace,
            labels={**template.metadata.labels, HASH_LABEL: hashed},
            annotations={CHANGE_CAUSE: cause} if cause is not None else {},
            owner_references=(owner_reference(daemonset),),
        ),
        revision=number,
        data={"spec": {"template": {**data, "$patch": "replace"}}},
    )


class HistoryController:
    """Carries out `plan_history` for one DaemonSet at a time."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Keep the history of one set (namespace, name)."""
        daemonset = self._view.find(DaemonSet, key[1], key[0])
        if daemonset is None:
            return None
        uid = daemonset.metadata.uid
        pods = self._view.owned(Pod, uid, key[0])
        plan = plan_history(daemonset, self._view.owned(ControllerRevision, uid, key[0]), pods)
        for changed in plan.update:
            await self._view.update(changed)
        for made in plan.create:
            try:
                await self._view.create(made)
            except AlreadyExistsError as error:
                raise ConflictError(f"ControllerRevision {made.metadata.name} appeared meanwhile") from error
        for surplus in plan.delete:
            await self._view.delete(surplus)
        return None
