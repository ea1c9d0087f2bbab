"""What runs on the nodes, as objects again. Pure: (what nodes hold, what the store knows) → objects to write.

Workloads come from the wishes that nodes keep, pods from the labels of their containers. A pod keeps its uid, and its
set the template hash, so that nothing is restarted and nothing rolls afterwards.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from korch.engines.names import SANDBOX
from korch.engines.observed import ObservedContainer
from korch.master.finds import NodeFind, Wish, orphans_of, uids_in
from korch.master.regroup import Census, Members, TakenPod, regroup
from korch.master.remade import bare_pod, placed, pod_of_daemons, pod_of_set
from korch.resources.codec import with_meta
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.pod import Pod, PodSpec
from korch.resources.podstate import workload_name
from korch.resources.templates import secret_names, template_hash
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet


class Known(msgspec.Struct, frozen=True):
    """What the store knows. `ended`: pod uids with a tombstone."""

    deployments: tuple[Deployment, ...] = ()
    sets: tuple[ReplicaSet, ...] = ()
    daemons: tuple[DaemonSet, ...] = ()
    pods: tuple[Pod, ...] = ()
    secrets: tuple[Secret, ...] = ()
    ended: frozenset[str] = frozenset()


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
    known = replace(known, sets=tuple(sorted(known.sets, key=_key)), pods=tuple(sorted(known.pods, key=_key)))
    heard_of = {pod.metadata.uid for pod in known.pods} | known.ended
    wishes = _by_workload(finds)
    chosen = _Chosen(known)
    for key in sorted(wishes):
        chosen.take(wishes[key][-1])
    builder = _Builder(chosen, known, wishes, _mates(finds))
    for node, seen in orphans_of(finds, heard_of):
        builder.add(node, seen)
    return builder.plan(_gone(known, builder.workloads, finds))


def _is_older(wish: Object, than: Object) -> bool:
    """Whether `than` was written later. Revisions only grow, also over a restore."""
    return int(wish.metadata.resource_version or 0) < int(than.metadata.resource_version or 0)


def _mates(finds: Sequence[NodeFind]) -> dict[tuple[str, str], tuple[ObservedContainer, ...]]:
    """All containers of each pod in the order in which they began, by node and uid."""
    found: dict[tuple[str, str], tuple[ObservedContainer, ...]] = {}
    for find in finds:
        for seen in sorted(find.containers, key=lambda one: (one.started_at or 0.0, one.name)):
            key = (find.node, seen.identity.uid if seen.identity is not None else "")
            found[key] = (*found.get(key, ()), seen)
    return found


def _key(obj: Object) -> tuple[str, str, str]:
    return (type(obj).__name__, obj.metadata.namespace, obj.metadata.name)


def _by_workload(finds: Sequence[NodeFind]) -> dict[tuple[str, str, str], list[Wish]]:
    """All wishes of each workload, the newest last."""
    found: dict[tuple[str, str, str], list[Wish]] = {}
    for find in sorted(finds, key=lambda one: one.node):
        for wish in find.wishes:
            found.setdefault(_key(wish), []).append(wish)
    for wishes in found.values():
        wishes.sort(key=lambda wish: (int(wish.metadata.resource_version or 0), wish.metadata.generation))
    return found


def _gone(known: Known, workloads: set[tuple[str, str]], finds: Sequence[NodeFind]) -> tuple[Pod, ...]:
    """Pods of these workloads of which nothing is left on their nodes: what runs instead was just taken in."""
    looked_at, there = {find.node for find in finds}, uids_in(finds)
    return tuple(
        pod
        for pod in known.pods
        if (pod.metadata.namespace, workload_name(pod)) in workloads
        and pod.spec.node_name in looked_at
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
        elif _is_older(self.deployments[key], wish) and self.deployments[key].metadata.uid == wish.metadata.uid:
            stored = self.deployments[key]
            merged = replace(stored, spec=wish.spec)
            newer = with_meta(merged, labels=wish.metadata.labels, annotations=wish.metadata.annotations)
            self.deployments[key] = newer
            if newer != stored:
                self.newer.append(newer)


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
        self._members: dict[tuple[str, str], dict[str, Members]] = {}
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

    def _member(self, deployment: Deployment, hashed: str) -> Members:
        key = (deployment.metadata.namespace, deployment.metadata.name)
        members = self._members.setdefault(key, {})
        if hashed not in members:
            members[hashed] = self._remembered(deployment, hashed)
        return members[hashed]

    def _remembered(self, deployment: Deployment, hashed: str) -> Members:
        """The template behind a hash: the wish's own, or one of the older wishes that nodes still keep."""
        older = self._wishes.get(("Deployment", deployment.metadata.namespace, deployment.metadata.name), ())
        for rank, wish in enumerate((*older, deployment), start=1):
            assert isinstance(wish, Deployment)
            if template_hash(wish.spec.template) == hashed:
                return Members(hashed, wish.spec.template, rank)
        return Members(hashed, None, 0)

    def plan(self, gone: Sequence[Pod]) -> AdoptionPlan:
        """Everything, in a stable order."""
        sets: list[ReplicaSet] = list(self._chosen.new_sets)
        resize: list[ReplicaSet] = []
        census = Census(self._known.pods, gone)
        for key in sorted(self._members):
            members = tuple(self._members[key].values())
            found = regroup(self._chosen.deployments[key], members, self._known.sets, census)
            sets += found.made
            resize += found.resized
            self._taken += found.pods
            self._notes += found.notes
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
