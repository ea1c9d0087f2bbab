"""A deployment's sets as the containers that run tell of them. Pure."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from korch.controllers.rollout import revision_of
from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer
from korch.master.remade import guessed_template, pod_of_set, remade_set
from korch.resources.annotations import COMPLETED, WANTED
from korch.resources.codec import with_meta
from korch.resources.meta import Object
from korch.resources.pod import Pod
from korch.resources.podstate import controller_of, is_counted
from korch.resources.templates import template_hash
from korch.resources.workload import Deployment, PodTemplateSpec, ReplicaSet


class TakenPod(msgspec.Struct, frozen=True):
    """A pod to write, the container that it stands for, and all that there are of it."""

    pod: Pod
    seen: ObservedContainer
    every: tuple[ObservedContainer, ...] = ()


@dataclass(slots=True)
class Members:
    """A set in the making: its hash and the containers that carry it. `template` None: no node remembers it."""

    hashed: str
    template: PodTemplateSpec | None
    rank: int  # the older, the lower
    pods: list[tuple[str, ObservedContainer]] = field(default_factory=list)


@dataclass(slots=True)
class Regrouped:
    """What becomes of one deployment: sets to make and to resize, pods to take in, and what a person should know."""

    made: list[ReplicaSet] = field(default_factory=list)
    resized: list[ReplicaSet] = field(default_factory=list)
    pods: list[TakenPod] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Census:
    """The pods that the store has, by their owner, without those of which nothing is left."""

    def __init__(self, pods: Sequence[Pod], gone: Collection[Pod]) -> None:
        self._counted = Counter(owner_uid(pod) for pod in pods if is_counted(pod) and pod not in gone)
        self._losing = {owner_uid(pod) for pod in gone}

    def counted(self, owner: ReplicaSet | None) -> int:
        """Replicas of a set; 0 of one that is not there."""
        return self._counted[owner.metadata.uid] if owner is not None else 0

    def is_losing(self, owner: ReplicaSet) -> bool:
        """Whether it has pods of which nothing is left."""
        return owner.metadata.uid in self._losing


def regroup(
    deployment: Deployment, members: Sequence[Members], known_sets: Sequence[ReplicaSet], census: Census
) -> Regrouped:
    """The sets and pods behind these containers; pods keep uid and name, sets the hash, so nothing rolls afterwards."""
    meta, wish = deployment.metadata, deployment.spec.replicas or 0
    stored = {found.metadata.name: found for found in known_sets if owner_uid(found) == meta.uid}
    number = max((revision_of(found) for found in stored.values()), default=0)
    current = template_hash(deployment.spec.template)
    found, lost, running = Regrouped(), 0, 0
    for member in sorted(members, key=lambda one: (one.hashed == current, one.rank, one.hashed)):
        owner = stored.pop(f"{meta.name}-{member.hashed}", None)
        there = census.counted(owner) + len(member.pods)
        running += there
        alone = len(members) == 1 and not any(census.counted(other) for other in stored.values())
        size = wish if member.hashed == current and (alone or there > wish) else there
        if owner is None:
            number += 1
            is_done = member.template is not None and (member.hashed != current or there >= wish)
            owner = _remade(deployment, member, number, size, is_done=is_done)
            found.made.append(owner)
            lost += len(member.pods) if member.template is None else 0
        elif (owner.spec.replicas or 0) < size or census.is_losing(owner):
            found.resized.append(_sized(owner, size))
        found.pods += [TakenPod(pod_of_set(owner, _identity(seen), node), seen) for node, seen in member.pods]
    # Of the sets that are left nothing runs: nobody makes those pods anew.
    found.resized += [_sized(other, census.counted(other)) for other in stored.values() if census.is_losing(other)]
    found.notes = _notes(meta.name, lost, running, wish)
    return found


def _remade(deployment: Deployment, member: Members, number: int, size: int, *, is_done: bool) -> ReplicaSet:
    """A set that the store does not have. `is_done`: its rollout had ended."""
    template = member.template or guessed_template(deployment, member.hashed, member.pods[0][1])
    made = remade_set(deployment, template, member.hashed, number)
    if is_done:
        marks = {COMPLETED: "true", WANTED: str(deployment.spec.replicas or 0)}
        made = with_meta(made, annotations={**made.metadata.annotations, **marks})
    return _sized(made, size)


def _notes(name: str, lost: int, running: int, wish: int) -> list[str]:
    notes = []
    if lost:
        notes.append(f"{name}: no node keeps the settings of {lost} replica(s): the next sync remakes them")
    if running > wish:
        notes.append(
            f"{name}: {running} replicas run and {wish} are wished for: the next sync stops the rest"
            f" (`korch scale {name}={running}` keeps them)"
        )
    return notes


def owner_uid(obj: Object) -> str:
    """The uid of what looks after it, "" for what is on its own."""
    return owner.uid if (owner := controller_of(obj)) is not None else ""


def _sized(found: ReplicaSet, replicas: int) -> ReplicaSet:
    return replace(found, spec=replace(found.spec, replicas=replicas))


def _identity(seen: ObservedContainer) -> Identity:
    assert seen.identity is not None
    return seen.identity
