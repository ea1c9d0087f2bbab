"""How the workloads of a run stand, and what the caller is told in the end."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from korch.client.base import Outcome, Workload
from korch.controllers.outcome import Standing, standing, standing_of_daemons
from korch.controllers.rollout import current_set
from korch.errors import RolloutFailedError
from korch.objects.view import View
from korch.resources.annotations import AUTO_ROLLBACK, COMPLETED
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.podstate import condition, controller_of, workload_name
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet


class Judged(msgspec.Struct, frozen=True):
    """A workload with its pods, and how it stands. `may_go_back`: its revision never ran in full."""

    workload: Workload
    pods: tuple[Pod, ...]
    standing: Standing
    may_go_back: bool
    kind: str = "deployment"


def judge(
    view: View, workloads: Sequence[Workload], since: Mapping[Workload, int], silent: frozenset[str], now: float
) -> tuple[Judged, ...]:
    """How each of the workloads stands, in order. Nodes that are `silent` are not waited for."""
    pods: dict[Workload, list[Pod]] = {workload: [] for workload in workloads}
    sets: dict[Workload, list[ReplicaSet]] = {workload: [] for workload in workloads}
    for pod in view.all(Pod):
        pods.get(_workload_of(pod), []).append(pod)
    for found in view.all(ReplicaSet):
        sets.get(_workload_of(found), []).append(found)
    there = {obj.metadata.uid for type_ in (Deployment, ReplicaSet, DaemonSet) for obj in view.all(type_)}
    judged = []
    for workload in workloads:
        deployment = view.find(Deployment, workload.name, workload.namespace)
        own, members = sets[workload], pods[workload]
        daemonset = view.find(DaemonSet, workload.name, workload.namespace)
        if daemonset is not None and deployment is None:
            nodes = tuple(view.all(Node))
            verdict = standing_of_daemons(daemonset, nodes, members, now, dead_nodes=silent)
            judged.append(Judged(workload, tuple(members), verdict, may_go_back=False, kind="daemonset"))
            continue
        verdict = standing(
            deployment,
            members,
            now,
            dead_nodes=silent,
            since=since.get(workload, 0),
            ownerless=_ownerless(own, members, there, silent),
            alone=next((found for found in own if controller_of(found) is None), None),
        )
        judged.append(Judged(workload, tuple(members), verdict, _may_go_back(deployment, own)))
    return tuple(judged)


def _workload_of(obj: Pod | ReplicaSet) -> Workload:
    return Workload(obj.metadata.namespace, workload_name(obj))


def _ownerless(sets: Sequence[ReplicaSet], pods: Sequence[Pod], there: set[str], silent: frozenset[str]) -> bool:
    """Whether something is left whose owner is gone; what stands on nodes that are silent does not count."""
    heard = [pod for pod in pods if pod.spec.node_name not in silent]
    owners = [owner.uid for obj in (*sets, *heard) if (owner := controller_of(obj)) is not None]
    return any(uid not in there for uid in owners)


def _may_go_back(deployment: Deployment | None, sets: Sequence[ReplicaSet]) -> bool:
    if deployment is None or deployment.metadata.annotations.get(AUTO_ROLLBACK) != "true":
        return False
    current = current_set(deployment, [found for found in sets if controller_of(found) is not None])
    ran = current is not None and current.metadata.annotations.get(COMPLETED) == "true"
    return not ran or condition(deployment.status.conditions, "RolledBack") is not None


def _failure(judged: Judged, late_s: float | None) -> RolloutFailedError | None:
    """What to tell of a workload that is not true, with what to do next; None when it is. `late_s`: time ran out."""
    found, workload = judged.standing, judged.workload
    if found.state == "done":
        return None
    late = f"not finished after {late_s:.0f} s: " if late_s is not None else ""
    return RolloutFailedError(
        f'"{workload}": {late}{found.message}', hint=_next_step(f"{judged.kind}/{workload.name}", workload, found)
    )


def _next_step(title: str, workload: Workload, found: Standing) -> str:
    if found.state == "failed":
        return f"Correct it and deploy again. More: korch events --for {title}"
    if found.silent:
        return "Look at the node: korch node check. Once it is back: korch sync. To replace it: korch sync --failover."
    if found.state == "stuck":
        return f"More: korch why {workload.name}; the wish stays on record, `korch sync` tries again."
    return f"The wish stays on record: `korch sync` goes on with it. More: korch describe {title}"


def outcomes(
    judged: Sequence[Judged],
    changed: Callable[[Workload], bool],
    *,
    late_s: float | None = None,
    notes: tuple[str, ...] = (),
) -> tuple[Outcome, ...]:
    """What the caller is told of each workload, in order. `late_s`: the time that is over, if it is."""
    return tuple(
        Outcome(
            found.workload,
            changed=changed(found.workload),
            pods=tuple(pod for pod in found.pods if pod.metadata.deletion_timestamp is None),
            error=_failure(found, late_s),
            notes=notes,
        )
        for found in judged
    )


async def next_change(changed: asyncio.Event, at_most_s: float) -> None:
    """Wait for news, or until it is time to look anyway."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await changed.wait()
    changed.clear()
