"""What a keeper does next for one pod, and which containers are surplus. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer
from korch.resources.pod import Pod

Step = Literal["start", "again", "end", "remove", "watch", "none"]


def plan_pod(pod: Pod, seen: ObservedContainer | None, *, sick: bool = False) -> Step:
    """The next step for a pod of this node. `sick`: its checks say that its container is to be ended.

    "start": make its container; "again": start the one that ended (`docker kill` leaves it Exited); "end": end it;
    "remove": end it and the pod; "watch": run its checks; "none": it has ended (finalizers may still hold it), or the
    engine is at it.
    """
    if pod.metadata.deletion_timestamp is not None:
        ended = pod.metadata.deletion_grace_period_seconds == 0 and bool(pod.metadata.finalizers)
        return "none" if ended and seen is None else "remove"
    if pod.status.phase in {"Succeeded", "Failed"}:
        return "none"
    if seen is None:
        return "start"
    if seen.state == "created":
        return "again"
    if seen.state in {"exited", "dead"}:
        return "again" if _wants_restart(pod, seen) else "none"
    if seen.state != "running":
        return "none"
    return "end" if sick else "watch"


def _wants_restart(pod: Pod, seen: ObservedContainer) -> bool:
    policy = pod.spec.restart_policy or "Always"
    return policy == "Always" or (policy == "OnFailure" and seen.exit_code != 0)


@dataclass(frozen=True, slots=True)
class Strays:
    """Containers of this cluster that no pod of this node stands for. `held_back`: surplus beyond one pass's limit."""

    surplus: tuple[ObservedContainer, ...] = ()
    orphans: tuple[ObservedContainer, ...] = ()
    held_back: int = 0


def plan_strays(
    seen: Sequence[ObservedContainer],
    cluster_id: str,
    node: str,
    pods: Mapping[str, Pod],
    ended: frozenset[str],
    mine: Callable[[Identity], bool] = lambda _: True,
) -> Strays:
    """Which containers may go: only those that the store proves surplus, and only of workloads that are `mine`.

    `pods`: all pods by uid; `ended`: uids with a tombstone. A uid that the store never heard of is an orphan and stays.
    One unattended pass removes at most max(3, 20 %) of the known containers.
    """
    ours = [found for found in seen if found.identity is not None and found.identity.cluster == cluster_id]
    surplus, orphans = [], []
    for found in sorted(ours, key=lambda container: container.name):
        assert found.identity is not None
        pod = pods.get(found.identity.uid)
        if pod is not None:
            if pod.spec.node_name and pod.spec.node_name != node:
                surplus.append(found)
        elif found.identity.uid in ended:
            surplus.append(found)
        else:
            orphans.append(found)
    surplus = [found for found in surplus if found.identity is not None and mine(found.identity)]
    limit = max(3, len(ours) // 5)
    return Strays(tuple(surplus[:limit]), tuple(orphans), len(surplus[limit:]))


def restart_delay_s(restarts_lately: int) -> float:
    """Back-off of the keeper's restarts: none for three in five minutes, then 10 s doubling to five minutes."""
    return 0.0 if restarts_lately < 3 else float(min(10 * 2 ** min(restarts_lately - 3, 10), 300))
