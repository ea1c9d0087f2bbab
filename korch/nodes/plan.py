"""What a keeper does next for one pod, and which containers are surplus. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.nodes.changes import is_outdated, is_under_way
from korch.resources.images import has_sandbox, sidecars_of
from korch.resources.pod import Pod

_ALIVE = frozenset({"running", "paused", "restarting"})
Step = Literal["start", "again", "change", "end", "calm", "clear", "halt", "rest", "remove", "watch"]
Seen = Mapping[str, ObservedContainer]


@dataclass(frozen=True, slots=True)
class Act:
    """One step for one container of a pod; `SANDBOX` is one of them, "" stands for all.

    "start": make it; "again": start the one that ended (`docker kill` leaves it Exited); "change": put one with another
    image in its place; "end": end it; "calm": end it, as its engine starts it again too often; "clear": remove it, as
    it cannot be started any more; "halt": end all; "rest": end all of a pod that is through; "remove": end all, and the
    pod; "watch": run its checks.
    """

    do: Step
    container: str = ""


def plan_pod(pod: Pod, seen: Seen, *, sick: Collection[str] = (), looping: Collection[str] = ()) -> tuple[Act, ...]:
    """What to do now for a pod of this node; nothing when it has ended (finalizers may still hold it), or waits.

    `seen`: its containers by name; `sick`: those of which the checks say that they are to be ended; `looping`:
    those that the engine has to start again all the time.
    """
    if pod.metadata.deletion_timestamp is not None:
        ended = pod.metadata.deletion_grace_period_seconds == 0 and bool(pod.metadata.finalizers)
        return () if ended and not seen else (Act("remove"),)
    if pod.status.phase in {"Succeeded", "Failed"}:
        # What was given up while nobody reached its node must not run on uncounted when it is reached again.
        return (Act("rest"),) if any(found.state in _ALIVE for found in seen.values()) else ()
    if has_sandbox(pod.spec):
        return _plan_group(pod, seen, sick)
    name = pod.spec.containers[0].name
    if name in looping and name in seen and seen[name].state in _ALIVE and not is_outdated(pod, seen[name]):
        return (Act("calm", name),)
    return _plan_container(pod, name, seen, sick)


def _plan_container(pod: Pod, name: str, seen: Seen, sick: Collection[str]) -> tuple[Act, ...]:
    found = seen.get(name)
    if found is None:
        return (Act("start", name),)
    if found.state == "created":
        return (_begin(pod, name, found),)
    if found.state in {"exited", "dead"}:
        again = _wants_restart(pod, name, found) or is_under_way(pod, found)
        return (_begin(pod, name, found),) if again else ()
    changes = is_outdated(pod, found) and not _ends_by_itself(pod, name)
    if found.state == "restarting" and changes:
        return (Act("change", name),)
    if found.state != "running":
        return ()
    if name in sick:
        return (Act("end", name),)
    # While the other image comes it serves on, and is checked.
    return (Act("watch", name), Act("change", name)) if changes else (Act("watch", name),)


def _begin(pod: Pod, name: str, found: ObservedContainer) -> Act:
    """The start of one that is there and does not run."""
    return Act("change" if is_outdated(pod, found) else "again", name)


def _ends_by_itself(pod: Pod, name: str) -> bool:
    """Whether it is an init container that the others wait for: one that works is let finish, as in Kubernetes."""
    return any(one.name == name and one.restart_policy != "Always" for one in pod.spec.init_containers)


def _wants_restart(pod: Pod, name: str, seen: ObservedContainer) -> bool:
    sidecar = any(one.name == name for one in sidecars_of(pod.spec))
    policy = "Always" if sidecar else pod.spec.restart_policy or "Always"
    return policy == "Always" or (policy == "OnFailure" and seen.exit_code != 0)


def _plan_group(pod: Pod, seen: Seen, sick: Collection[str]) -> tuple[Act, ...]:
    """The sandbox first, then the init containers one after the other, then the others.

    A sandbox that was started anew has a new network, and containers that run on keep the dead one: all of them end
    before it starts, and what was begun in the life of the one before is begun again.
    """
    sandbox = seen.get(SANDBOX)
    members = {name: found for name, found in seen.items() if name != SANDBOX}
    if sandbox is None or sandbox.state in {"created", "exited", "dead"}:
        if any(found.state in _ALIVE for found in members.values()):
            return (Act("halt"),)
        return () if _is_through(pod, seen) else (Act("start", SANDBOX),)
    if sandbox.state != "running":
        return ()
    if any(found.state in _ALIVE and not is_in(found, sandbox) for found in members.values()):
        return (Act("halt"),)
    strangers = [name for name, found in sorted(members.items()) if found.joined not in {"", sandbox.id}]
    if strangers:
        return tuple(Act("clear", name) for name in strangers)
    waiting = _next_of_init(pod, seen)
    going = [one.name for one in sidecars_of(pod.spec) if one.name != waiting and (waiting is None or one.name in seen)]
    names = (*going, *(one.name for one in pod.spec.containers)) if waiting is None else going
    acts = tuple(act for name in names for act in _plan_container(pod, name, seen, sick))
    return acts if waiting is None else (*acts, *_plan_init(pod, waiting, seen, sick))


def _plan_init(pod: Pod, name: str, seen: Seen, sick: Collection[str]) -> tuple[Act, ...]:
    """For the init container whose turn it is; what ended well in the life of another sandbox works again."""
    found = seen.get(name)
    if found is None or found.state not in {"exited", "dead"}:
        return _plan_container(pod, name, seen, sick)
    again = not found.exit_code or pod.spec.restart_policy != "Never" or _wants_restart(pod, name, found)
    return (_begin(pod, name, found),) if again else ()


def is_in(found: ObservedContainer, sandbox: ObservedContainer) -> bool:
    """Whether a container was started in this very life of its sandbox."""
    same = found.joined in {"", sandbox.id} and found.state != "created"
    return same and (found.started_at or 0.0) >= (sandbox.started_at or 0.0)


def _next_of_init(pod: Pod, seen: Seen) -> str | None:
    """The init container that is not through yet; those before it are. What came after them proves all of them."""
    sandbox = seen.get(SANDBOX)
    current = {name for name, found in seen.items() if sandbox is not None and is_in(found, sandbox)}
    if any(one.name in current for one in pod.spec.containers):
        return None
    started = {status.name for status in pod.status.init_container_statuses if status.started}
    for one in pod.spec.init_containers:
        found = seen.get(one.name)
        if found is None or one.name not in current:
            return one.name
        if one.restart_policy == "Always":
            if found.state != "running" or (one.startup_probe is not None and one.name not in started):
                return one.name
        elif found.state not in {"exited", "dead"} or found.exit_code != 0:
            return one.name
    return None


def _is_through(pod: Pod, seen: Seen) -> bool:
    """Whether nothing of the pod is to run any more."""
    policy = pod.spec.restart_policy or "Always"
    ends = {one.name: found for one in pod.spec.containers if (found := seen.get(one.name)) is not None}
    first = [one.name for one in pod.spec.init_containers if one.restart_policy != "Always" and one.name in seen]
    if policy == "Never" and any(seen[name].exit_code for name in first):
        return True
    return len(ends) == len(pod.spec.containers) and not any(
        _wants_restart(pod, name, found) or is_under_way(pod, found) for name, found in ends.items()
    )


@dataclass(frozen=True, slots=True)
class Strays:
    """Containers of this cluster that no pod of this node stands for.

    `surplus` holds all containers of each pod in it; `held_back`: pods beyond one pass's limit; `stuck`: what to tell
    of each pod whose containers could not be removed.
    """

    surplus: tuple[ObservedContainer, ...] = ()
    orphans: tuple[ObservedContainer, ...] = ()
    held_back: int = 0
    stuck: tuple[str, ...] = ()


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
    One unattended pass removes at most max(3, 20 %) of the pods whose containers are here.
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
    limit = max(3, len({_uid(found) for found in ours}) // 5)
    going = list(dict.fromkeys(_uid(found) for found in surplus))
    now = tuple(found for found in surplus if _uid(found) in going[:limit])
    return Strays(now, tuple(orphans), len(going[limit:]))


def _uid(found: ObservedContainer) -> str:
    return found.identity.uid if found.identity is not None else ""


def restart_delay_s(restarts: int) -> float:
    """Back-off after so many of the keeper's restarts in a row: none for three, then 10 s doubling to five minutes."""
    return 0.0 if restarts < 3 else float(min(10 * 2 ** min(restarts - 3, 10), 300))
