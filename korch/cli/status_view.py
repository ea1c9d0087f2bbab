"""What `korch status` tells, made from what the store holds. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from korch.cli.columns import event_subject, event_time, node_state
from korch.cli.output import age, clean, headline, table
from korch.cli.reasons import pointer
from korch.controllers.disruption import World, plan_evictions
from korch.controllers.outcome import Standing, standing, standing_of_daemons
from korch.resources.annotations import EVICT_WHY
from korch.resources.podstate import condition, controller_of, is_counted, is_ready, workload_name
from korch.resources.times import parse_time

if TYPE_CHECKING:
    from korch.client.base import ClusterInfo
    from korch.resources.misc import Event
    from korch.resources.node import Node, NodeLoad
    from korch.resources.pod import Pod
    from korch.resources.workload import DaemonSet

STALE_S = 60.0  # a sight that nobody keeps fresh is told from this age on
WARNINGS_S = 3600.0
WARNINGS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """The cluster as the store has it."""

    info: ClusterInfo
    world: World
    nodes: tuple[Node, ...] = ()
    loads: tuple[NodeLoad, ...] = ()
    daemons: tuple[DaemonSet, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A node or a workload. `since`: how long it has been like this; `why` is empty when all is well."""

    name: str
    state: str
    since: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. `lead` "" = nobody; `sight` = how old the newest look at a node is when nobody keeps it fresh.

    `masters`: those that run, whether they lead or wait, and for how long.
    """

    cluster: str
    id: str
    lead: str
    doing: str
    sight: str
    nodes: tuple[Line, ...]
    workloads: tuple[Line, ...]
    moves: tuple[Line, ...]
    warnings: tuple[Line, ...]
    masters: tuple[Line, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong and nothing is under way; what a person cordoned is as wished."""
        nodes = [line for line in self.nodes if line.state != "Cordoned"]
        return not self.moves and not any(line.why for line in (*nodes, *self.workloads))


def status_of(seen: Seen, now: float) -> Status:
    """What stands where, and what is wrong."""
    info = seen.info
    newest = max((load.sampled_at for load in seen.loads if load.sampled_at), default="")
    stale = not info.lead and (not newest or now - parse_time(newest) > STALE_S)
    return Status(
        cluster=info.name,
        id=info.id,
        lead=info.lead,
        doing=info.doing,
        sight=(age(newest, now) if newest else "never") if stale else "",
        nodes=tuple(_node(node, now) for node in seen.nodes),
        workloads=tuple(_workloads(seen, now)),
        moves=tuple(_moves(seen.world, now)),
        warnings=tuple(_warnings(seen.events, now)),
        masters=tuple(
            Line(one.identity, "leads" if one.leads else "waits", age(one.since, now)) for one in info.masters
        ),
    )


def _node(node: Node, now: float) -> Line:
    state = node_state(node)
    ready = condition(node.status.conditions, "Ready")
    cause = condition(node.status.conditions, state) if state.endswith("Pressure") else ready
    since = age(cause.last_transition_time, now) if cause is not None and cause.last_transition_time else ""
    name = node.metadata.name
    if state == "Ready":
        return Line(name, state, since)
    if state == "Cordoned":
        return Line(name, state, "", f"takes no new pods: korch node uncordon {name}")
    why = _short(cause.message).removeprefix(f"{name}: ") if cause is not None else "never looked at: korch nodes"
    return Line(name, state, since, why or f"look closer: korch node check {name}")


def _workloads(seen: Seen, now: float) -> Iterable[Line]:
    world = seen.world
    dead = frozenset(node.metadata.name for node in seen.nodes if _is_silent(node))
    pods: dict[tuple[str, str], list[Pod]] = {}
    for pod in world.pods:
        pods.setdefault((pod.metadata.namespace, workload_name(pod)), []).append(pod)
    for app in world.deployments:
        own = pods.pop((app.metadata.namespace, app.metadata.name), [])
        wanted = 1 if app.spec.replicas is None else app.spec.replicas
        line = _workload(
            app.metadata.namespace, app.metadata.name, own, wanted, standing(app, own, now, dead_nodes=dead), now
        )
        unavailable = condition(app.status.conditions, "Available")
        if line.why and not line.since and unavailable is not None and unavailable.status == "False":
            line = replace(line, since=age(unavailable.last_transition_time or "", now))
        yield line
    for daemon in seen.daemons:
        own = pods.pop((daemon.metadata.namespace, daemon.metadata.name), [])
        verdict = standing_of_daemons(daemon, seen.nodes, own, now, dead_nodes=dead)
        wanted = daemon.status.desired_number_scheduled
        yield _workload(daemon.metadata.namespace, daemon.metadata.name, own, wanted, verdict, now)
    for found in world.sets:
        if controller_of(found) is None:
            own = pods.pop((found.metadata.namespace, found.metadata.name), [])
            wanted = 1 if found.spec.replicas is None else found.spec.replicas
            verdict = standing(None, own, now, dead_nodes=dead, alone=found)
            yield _workload(found.metadata.namespace, found.metadata.name, own, wanted, verdict, now)
    for (namespace, name), own in sorted(pods.items()):
        alive = [pod for pod in own if pod.status.phase != "Succeeded"]
        if alive:
            yield _workload(namespace, name, own, len(alive), standing(None, own, now, dead_nodes=dead), now)


def _is_silent(node: Node) -> bool:
    ready = condition(node.status.conditions, "Ready")
    return ready is not None and ready.status != "True" and ready.reason != "AddressUnknown"


def _workload(namespace: str, name: str, pods: Sequence[Pod], wanted: int, verdict: Standing, now: float) -> Line:
    full = name if namespace == "default" else f"{namespace}/{name}"
    ready = f"{sum(map(is_ready, pods))}/{wanted}"
    if verdict.state == "done":
        return Line(full, ready)
    words = {"going": "", "stuck": "stuck: ", "failed": "failed: "}
    return Line(full, ready, _since(pods, now), words[verdict.state] + _short(verdict.message))


def _since(pods: Sequence[Pod], now: float) -> str:
    """For how long the first of its pods that are not ready has not been so."""
    times = []
    for pod in pods:
        ready = condition(pod.status.conditions, "Ready")
        if is_counted(pod) and not is_ready(pod):
            times.append((ready.last_transition_time if ready else None) or pod.metadata.creation_timestamp or "")
    return age(min(filter(None, times)), now) if any(times) else ""


def _moves(world: World, now: float) -> Iterable[Line]:
    for verdict in plan_evictions(world, now):
        pod = verdict.pod
        wish = pod.metadata.annotations.get(EVICT_WHY) or "eviction"
        yield Line(pod.metadata.name, f"leaves {pod.spec.node_name}", "", f"{wish}: {verdict.why or 'it may go now'}")


def _warnings(events: Iterable[Event], now: float) -> Iterable[Line]:
    """The latest of the last hour, the newest first."""
    found = [event for event in events if event.type == "Warning" and event_time(event)]
    lately = [event for event in found if now - parse_time(event_time(event)) < WARNINGS_S]
    for event in sorted(lately, key=lambda one: (event_time(one), one.metadata.name), reverse=True)[:WARNINGS_SHOWN]:
        yield Line(event_subject(event), event.reason, age(event_time(event), now), headline(event.message))


def _short(text: str) -> str:
    return clean(" ".join(text.split()))


def text_of(status: Status) -> str:
    """For people: the head, then what is wrong, then the rest in one line each."""
    blocks = [_head(status), _nodes_text(status.nodes), _workloads_text(status.workloads)]
    if status.moves:
        rows = [(line.name, line.state, line.why) for line in status.moves]
        blocks.append(table(rows, ("MOVING", "", "WHY")))
    if status.warnings:
        told = [(line.name, line.state, f"{line.since} ago", line.why) for line in status.warnings]
        blocks.append(table(told, ("WARNINGS OF THE LAST HOUR", "REASON", "WHEN", "MESSAGE")))
    wrong = [line.state for line in status.nodes if line.why and line.state != "Cordoned"]
    blocks.append(pointer((*wrong, *(line.state for line in status.warnings))))
    return "\n\n".join(filter(None, blocks))


def _head(status: Status) -> str:
    lines = [f"Cluster {status.cluster}"]
    if status.doing == "master":
        lines[0] += f": led by the master {status.lead}"
    elif status.lead:
        lines[0] += f": {status.lead} leads now, for: {status.doing or 'one command'}"
    else:
        lines[0] += ": nobody leads; what dies now is not replaced (`korch master` would, `korch sync` does once)"
    if status.masters:
        told = ", ".join(f"{line.name} ({line.state} for {line.since})" for line in status.masters)
        lines.append(f"Masters: {told}")
    if status.sight:
        when = "were never looked at" if status.sight == "never" else f"were last looked at {status.sight} ago"
        lines.append(f"The hosts {when}. `korch nodes` looks now.")
    return "\n".join(lines)


def _nodes_text(nodes: Sequence[Line]) -> str:
    if not nodes:
        return "Nodes: none yet. `korch nodes` looks at the inventory."
    counts = ", ".join(f"{count} {state}" for state, count in Counter(line.state for line in nodes).most_common())
    rows = [(line.name, line.state, line.since, line.why) for line in nodes if line.why]
    return f"Nodes: {counts}" + (f"\n{table(rows, ('NODE', 'STATE', 'FOR', 'WHY'))}" if rows else "")


def _workloads_text(workloads: Sequence[Line]) -> str:
    if not workloads:
        return "Apps: none yet. `korch deploy IMAGE` runs one."
    wrong = sum(bool(line.why) for line in workloads)
    rows = [
        (line.name, line.state, line.since, line.why or "as wished")
        for line in sorted(workloads, key=lambda line: (not line.why, line.name))
    ]
    head = f"Apps: {len(workloads) - wrong} as wished" + (f", {wrong} not" if wrong else "")
    return f"{head}\n{table(rows, ('APP', 'READY', 'FOR', 'WHY'))}"


def as_data(status: Status) -> dict[str, Any]:
    """For `-o json|yaml`."""
    return {"kind": "ClusterStatus", "healthy": status.healthy, **asdict(status)}
