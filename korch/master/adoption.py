"""What runs on the nodes, as objects again. Pure: (what nodes hold, what the store knows) → objects to write.

Workloads come from the wishes that nodes keep, pods from the labels of their containers. A pod keeps its uid, and its
set the template hash, so that nothing is restarted and nothing rolls afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from korch.controllers.rollout import revision_of
from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.master.remade import bare_pod, guessed_template, placed, pod_of_daemons, pod_of_set, remade_set
from korch.resources.annotations import COMPLETED, WANTED
from korch.resources.codec import with_meta
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.pod import Pod, PodSpec
from korch.resources.podstate import is_counted, workload_name
from korch.resources.templates import secret_names, template_hash
from korch.resources.workload import DaemonSet, Deployment, PodTemplateSpec, ReplicaSet

Wish = Deployment | ReplicaSet | DaemonSet | Pod


class NodeFind(msgspec.Struct, frozen=True):
    """What one node holds of the cluster: its containers, and the wishes that it keeps."""

    node: str
    containers: tuple[ObservedContainer, ...] = ()
    wishes: tuple[Wish, ...] = ()


class Known(msgspec.Struct, frozen=True):
    """What the store knows. `ended`: pod uids with a tombstone."""

    deployments: tuple[Deployment, ...] = ()
    sets: tuple[ReplicaSet, ...] = ()
    daemons: tuple[DaemonSet, ...] = ()
    pods: tuple[Pod, ...] = ()
    secrets: tuple[Secret, ...] = ()
    ended: frozenset[str] = frozenset()


class TakenPod(msgspec.Struct, frozen=True):
    """A pod to write, the container that it stands for, and all that there are of it."""

    pod: Pod
    seen: ObservedContainer
    every: tuple[ObservedContainer, ...] = ()


class AdoptionPlan(msgspec.Struct, frozen=True):
    """Objects to write, in this order. `replace` are deployments whose newer wish a node keeps."""

    deployments: tuple[Deployment, ...] = ()
    replace: tuple[Deployment, ...] = ()
    sets: tuple[ReplicaSet, ...] = ()
    resize: tuple[ReplicaSet, ...] = ()
    daemons: tuple[DaemonSet, ...] = ()
    pods: tuple[TakenPod, ...] = ()
    drop: tuple[Pod, ...] = ()  # the store has them on a node where nothing of them is left
    notes: tuple[str, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether everything on the nodes is on record already."""
        return not (self.deployments or self.replace or self.sets or self.daemons or self.pods)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those that the objects need."""
        objects: tuple[Object, ...] = (
            *self.deployments,
            *self.sets,
            *self.daemons,
            *(taken.pod for taken in self.pods),
        )
        return tuple(sorted({obj.metadata.namespace for obj in objects}))


def plan_adoption(finds: Sequence[NodeFind], known: Known) -> AdoptionPlan:
    """The objects that are missing in the store for what these nodes hold; the order of input is irrelevant."""
    orphans = _orphans(finds, known)
    wishes = _newest(finds)
    chosen = _Chosen(known)
    for key in sorted(wishes):
        chosen.take(wishes[key][-1])
    builder = _Builder(chosen, known, wishes, _mates(finds))
    for find, seen in orphans:
        builder.add(find.node, seen)
    there = {_uid(seen) for find in finds for seen in find.containers}
    reached = {find.node for find in finds}
    return builder.plan(_gone(known, builder.workloads, reached, there))


def is_older(wish: Object, than: Object) -> bool:
    """Whether `than` was written later. Revisions only grow, also over a restore."""
    return int(wish.metadata.resource_version or 0) < int(than.metadata.resource_version or 0)


def orphans_of(finds: Sequence[NodeFind], known: Known) -> tuple[tuple[str, ObservedContainer], ...]:
    """(node, container) of each container whose pod uid the store never heard of."""
    return tuple((find.node, seen) for find, seen in _orphans(finds, known))


def _uid(seen: ObservedContainer) -> str:
    return seen.identity.uid if seen.identity is not None else ""


def _orphans(finds: Sequence[NodeFind], known: Known) -> list[tuple[NodeFind, ObservedContainer]]:
    """One container for each unknown uid: of several one that runs, else the last that started, a sandbox last."""
    heard_of = {pod.metadata.uid for pod in known.pods} | known.ended
    best: dict[str, tuple[NodeFind, ObservedContainer]] = {}
    for find in sorted(finds, key=lambda found: found.node):
        for seen in find.containers:
            if seen.identity is None or seen.identity.uid in heard_of:
                continue
            before = best.get(seen.identity.uid)
            if before is None or _liveness(seen) > _liveness(before[1]):
                best[seen.identity.uid] = (find, seen)
    return [best[uid] for uid in sorted(best, key=lambda uid: (best[uid][1].name, uid))]


def _liveness(seen: ObservedContainer) -> tuple[bool, bool, float]:
    is_sandbox = seen.identity is not None and seen.identity.container == SANDBOX
    return (not is_sandbox, seen.state == "running", seen.started_at or 0.0)


def _mates(finds: Sequence[NodeFind]) -> dict[tuple[str, str], tuple[ObservedContainer, ...]]:
    """All containers of each pod, by node and uid."""
    found: dict[tuple[str, str], tuple[ObservedContainer, ...]] = {}
    for find in finds:
        for seen in find.containers:
            key = (find.node, _uid(seen))
            found[key] = (*found.get(key, ()), seen)
    return found


def _key(obj: Object) -> tuple[str, str, str]:
    return (type(obj).__name__, obj.metadata.namespace, obj.metadata.name)


def _newest(finds: Sequence[NodeFind]) -> dict[tuple[str, str, str], list[Wish]]:
    """All wishes of each workload, the newest last."""
    found: dict[tuple[str, str, str], list[Wish]] = {}
    for find in sorted(finds, key=lambda one: one.node):
        for wish in find.wishes:
            found.setdefault(_key(wish), []).append(wish)
    for wishes in found.values():
        wishes.sort(key=lambda wish: (int(wish.metadata.resource_version or 0), wish.metadata.generation))
    return found


def _gone(known: Known, workloads: set[tuple[str, str]], reached: set[str], there: set[str]) -> tuple[Pod, ...]:
    """Pods of these workloads of which nothing is left on their nodes: what runs instead was just taken in."""
    return tuple(
        pod
        for pod in known.pods
        if (pod.metadata.namespace, workload_name(pod)) in workloads
        and pod.spec.node_name in reached
        and pod.metadata.uid not in there
    )


class _Chosen:
    """Which wish counts for each workload: the store's or a node's, whichever is newer."""

    def __init__(self, known: Known) -> None:
        self.deployments = {(found.metadata.namespace, found.metadata.name): found for found in known.deployments}
        self.sets = {(found.metadata.namespace, found.metadata.name): found for found in known.sets}
        self.daemons = {(found.metadata.namespace, found.metadata.name): found for found in known.daemons}
        self.pods: dict[str, Pod] = {}  # wishes of single pods, by uid
        self.new: list[Deployment] = []
        self.newer: list[Deployment] = []
        self.new_sets: list[ReplicaSet] = []
        self.new_daemons: list[DaemonSet] = []

    def take(self, wish: Wish) -> None:
        """Count the newest wish that the nodes keep of one workload."""
        key = (wish.metadata.namespace, wish.metadata.name)
        if isinstance(wish, Pod):
            self.pods[wish.metadata.uid] = wish
        elif isinstance(wish, ReplicaSet):
            if key not in self.sets:
                self.sets[key] = wish
                self.new_sets.append(wish)
        elif isinstance(wish, DaemonSet):
            if key not in self.daemons:
                self.daemons[key] = wish
                self.new_daemons.append(wish)
        elif key not in self.deployments:
            self.deployments[key] = wish
            self.new.append(wish)
        elif is_older(self.deployments[key], wish) and self.deployments[key].metadata.uid == wish.metadata.uid:
            stored = self.deployments[key]
            merged = replace(stored, spec=wish.spec)
            newer = with_meta(merged, labels=wish.metadata.labels, annotations=wish.metadata.annotations)
            self.deployments[key] = newer
            if newer != stored:
                self.newer.append(newer)


@dataclass(slots=True)
class _Members:
    """A deployment's set in the making. `template` None: no node remembers it."""

    hashed: str
    template: PodTemplateSpec | None
    rank: int
    pods: list[tuple[str, ObservedContainer]] = field(default_factory=list)


class _Builder:
    """Gathers pods by workload, then makes the objects."""

    def __init__(
        self,
        chosen: _Chosen,
        known: Known,
        wishes: Mapping[tuple[str, str, str], Sequence[Wish]],
        mates: Mapping[tuple[str, str], tuple[ObservedContainer, ...]],
    ) -> None:
        self._chosen, self._known, self._wishes, self._mates = chosen, known, wishes, mates
        self._members: dict[tuple[str, str], dict[str, _Members]] = {}
        self._taken: list[TakenPod] = []
        self.workloads: set[tuple[str, str]] = set()
        self._notes: list[str] = []

    def add(self, node: str, seen: ObservedContainer) -> None:
        """Take one container in."""
        assert seen.identity is not None
        who = seen.identity
        self.workloads.add((who.namespace, who.owner or who.pod))
        single = self._chosen.pods.get(who.uid)
        if single is not None:
            self._taken.append(TakenPod(placed(with_meta(single, resource_version=""), node), seen))
            return
        deployment = self._chosen.deployments.get((who.namespace, who.owner))
        hashed = who.pod.removeprefix(f"{who.owner}-").rpartition("-")[0]
        if deployment is not None and hashed:
            self._member(deployment, hashed).pods.append((node, seen))
            return
        daemonset = self._chosen.daemons.get((who.namespace, who.owner))
        if daemonset is not None:
            self._taken.append(TakenPod(pod_of_daemons(daemonset, who, node), seen))
            return
        owner = self._chosen.sets.get((who.namespace, who.pod.rpartition("-")[0]))
        if owner is not None:
            self._taken.append(TakenPod(pod_of_set(owner, who, node), seen))
            return
        if who.container == SANDBOX:
            self._notes.append(f"pod {who.pod}: nothing of it is there but its network: `korch prune --orphans`")
            return
        self._taken.append(TakenPod(bare_pod(who, seen, node, self._mates[node, who.uid]), seen))
        self._notes.append(f"pod {who.pod}: no node keeps its wish, so it is taken in as it runs and cannot be remade")

    def _member(self, deployment: Deployment, hashed: str) -> _Members:
        key = (deployment.metadata.namespace, deployment.metadata.name)
        members = self._members.setdefault(key, {})
        if hashed not in members:
            members[hashed] = self._remembered(deployment, hashed)
        return members[hashed]

    def _remembered(self, deployment: Deployment, hashed: str) -> _Members:
        """The template behind a hash: the wish's own, or one of the older wishes that nodes still keep."""
        older = self._wishes.get(("Deployment", deployment.metadata.namespace, deployment.metadata.name), ())
        for rank, wish in enumerate((*older, deployment), start=1):
            assert isinstance(wish, Deployment)
            if template_hash(wish.spec.template) == hashed:
                return _Members(hashed, wish.spec.template, rank)
        return _Members(hashed, None, 0)

    def plan(self, gone: Sequence[Pod]) -> AdoptionPlan:
        """Everything, in a stable order."""
        sets: list[ReplicaSet] = list(self._chosen.new_sets)
        resize: list[ReplicaSet] = []
        for key in sorted(self._members):
            made, changed = self._sets_of(self._chosen.deployments[key], self._members[key], gone)
            sets += made
            resize += changed
        self._note_idle()
        self._note_secrets()
        return AdoptionPlan(
            deployments=tuple(self._chosen.new),
            replace=tuple(self._chosen.newer),
            sets=tuple(with_meta(found, resource_version="") for found in sets),
            resize=tuple(resize),
            daemons=tuple(with_meta(found, resource_version="") for found in self._chosen.new_daemons),
            pods=tuple(
                replace(taken, every=self._mates[taken.pod.spec.node_name, taken.pod.metadata.uid])
                for taken in self._taken
            ),
            drop=tuple(gone),
            notes=tuple(self._notes),
        )

    def _sets_of(
        self, deployment: Deployment, members: Mapping[str, _Members], gone: Sequence[Pod]
    ) -> tuple[list[ReplicaSet], list[ReplicaSet]]:
        """The sets to make and those to resize, for one deployment; its pods are added on the way."""
        meta, wish = deployment.metadata, deployment.spec.replicas or 0
        stored = [found for found in self._known.sets if _owned_by(found, meta.uid)]
        number = max((revision_of(found) for found in stored), default=0)
        current = template_hash(deployment.spec.template)
        made, changed, lost, running = [], [], 0, 0
        for member in sorted(members.values(), key=lambda one: (one.hashed == current, one.rank, one.hashed)):
            name = f"{meta.name}-{member.hashed}"
            owner = next((found for found in stored if found.metadata.name == name), None)
            there = self._counted(owner, gone) + len(member.pods)
            running += there
            alone = len(members) == 1 and not any(self._counted(found, gone) for found in stored if found is not owner)
            size = wish if member.hashed == current and (alone or there > wish) else there
            if owner is None:
                number += 1
                template = member.template or guessed_template(deployment, member.hashed, member.pods[0][1])
                owner = remade_set(deployment, template, member.hashed, number)
                done = member.template is not None and (member.hashed != current or there >= wish)
                marks = {COMPLETED: "true", WANTED: str(wish)} if done else {}
                owner = with_meta(owner, annotations={**owner.metadata.annotations, **marks})
                owner = replace(owner, spec=replace(owner.spec, replicas=size))
                made.append(owner)
            elif (owner.spec.replicas or 0) < size or _has_any(owner, gone):
                changed.append(_sized(owner, size))
            lost += 0 if member.template is not None or owner in stored else len(member.pods)
            self._taken += [TakenPod(pod_of_set(owner, _identity(seen), node), seen) for node, seen in member.pods]
        there_now = {f"{meta.name}-{member.hashed}" for member in members.values()}
        empty = [found for found in stored if found.metadata.name not in there_now and _has_any(found, gone)]
        changed += [_sized(found, self._counted(found, gone)) for found in empty]  # nobody makes those pods anew
        if lost:
            self._notes.append(
                f"{meta.name}: no node keeps the settings of {lost} replica(s): the next sync remakes them"
            )
        if running > wish:
            self._notes.append(
                f"{meta.name}: {running} replicas run and {wish} are wished for: the next sync stops the rest"
                f" (`korch scale {meta.name}={running}` keeps them)"
            )
        return made, changed

    def _counted(self, owner: ReplicaSet | None, gone: Sequence[Pod]) -> int:
        """Replicas that the store has of a set, without those of which nothing is left."""
        if owner is None:
            return 0
        return sum(
            _owned_by(pod, owner.metadata.uid) and is_counted(pod) and pod not in gone for pod in self._known.pods
        )

    def _note_idle(self) -> None:
        for found in self._chosen.new:
            meta = found.metadata
            if found.spec.replicas and (meta.namespace, meta.name) not in self._members:
                text = f"{meta.name}: none of its containers is there: the next sync starts {found.spec.replicas}"
                self._notes.append(f"{text} (`korch delete {meta.name}` if it was deleted)")

    def _note_secrets(self) -> None:
        """Nodes keep the names of Secrets, never values."""
        have = {(found.metadata.namespace, found.metadata.name) for found in self._known.secrets}
        singles = [taken.pod for taken in self._taken if not taken.pod.metadata.owner_references]
        named: list[tuple[Object, PodSpec]] = [(pod, pod.spec) for pod in singles]
        chosen = self._chosen
        workloads: list[Deployment | ReplicaSet | DaemonSet] = [*chosen.new, *chosen.newer]
        workloads += [*chosen.new_sets, *chosen.new_daemons]
        named += [(workload, workload.spec.template.spec) for workload in workloads]
        for obj, spec in named:
            for name in sorted(secret_names(spec)):
                if (obj.metadata.namespace, name) not in have:
                    self._notes.append(_missing_secret(obj, spec, name))


def _missing_secret(obj: Object, spec: PodSpec, name: str) -> str:
    keys = [
        entry.value_from.secret_key_ref.key
        for container in spec.containers
        for entry in container.env
        if entry.value_from and entry.value_from.secret_key_ref and entry.value_from.secret_key_ref.name == name
    ]
    what = f" ({', '.join(keys)})" if keys else ""
    pulls = any(ref.name == name for ref in spec.image_pull_secrets)
    how = "log in to the registry and deploy it again" if pulls else "deploy it again with its values (--env-file FILE)"
    return (
        f"{obj.metadata.name}: the values of Secret {name}{what} are lost, as nodes keep only its name. What runs goes"
        f" on; no replica can be made anew until you {how}, or apply a Secret of that name"
    )


def _has_any(owner: ReplicaSet, pods: Sequence[Pod]) -> bool:
    return any(_owned_by(pod, owner.metadata.uid) for pod in pods)


def _sized(found: ReplicaSet, replicas: int) -> ReplicaSet:
    return replace(found, spec=replace(found.spec, replicas=replicas))


def _identity(seen: ObservedContainer) -> Identity:
    assert seen.identity is not None
    return seen.identity


def _owned_by(obj: Object, uid: str) -> bool:
    return any(ref.controller and ref.uid == uid for ref in obj.metadata.owner_references)
