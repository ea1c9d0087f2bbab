"""Which clusters the nodes tell of, and which of them is the one to adopt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from korch.client.base import ClusterFound
from korch.errors import ForbiddenError, InvalidError, KorchError, NotFoundError, at
from korch.master.cluster import ClusterRecord
from korch.master.fleet import Fleet
from korch.master.gathering import each
from korch.nodes.machine import ClusterIdentity


def but_not_all_answer(error: NotFoundError, silent: Mapping[str, KorchError]) -> NotFoundError:
    """The error, with the nodes that could not be looked at: what was not found may be there."""
    if not silent:
        return error
    told = "; ".join(at(name, found) for name, found in sorted(silent.items()))
    return NotFoundError(
        f"{error}, but not all could be looked at: {told}", hint=silent[min(silent)].hint or error.hint
    )


def choose(found: Sequence[ClusterFound], record: ClusterRecord, wanted: str, *, holds_work: bool) -> ClusterFound:
    """The cluster to adopt. Raises when none fits, when several do, or when another's state would be overwritten."""
    own = next((one for one in found if one.id == record.id), None)
    if wanted:
        match = next((one for one in found if one.id == wanted), None)
        if match is None:
            raise NotFoundError(f"no node tells of a cluster with id {wanted}", hint=_listing(found))
        if match is not own and holds_work:
            raise ForbiddenError(
                f'cluster "{record.name}" has workloads of its own: it cannot become cluster "{match.name}"',
                hint="Adopt that one beside it: --cluster NAME -i INVENTORY.",
            )
        return match
    if holds_work:
        return own or ClusterFound(record.id, record.name, record.master_host, (), 0, ())
    full = [one for one in found if one.containers or one.workloads]
    if len(full) == 1:
        return full[0]
    if not full and own is not None:
        return own
    if not full:
        raise NotFoundError("no node holds anything of a korch cluster", hint=_listing(found))
    raise InvalidError(f"the nodes hold things of {len(full)} clusters", hint=f"Choose: --cluster-id. {_listing(full)}")


def _listing(found: Sequence[ClusterFound]) -> str:
    told = "; ".join(f"{one.id} ({one.name}, master on {one.master_host})" for one in found)
    return f"There is {told}." if told else "Are these the right hosts? `korch nodes` shows them."


async def clusters_seen(fleet: Fleet, own: ClusterRecord) -> tuple[ClusterFound, ...]:
    """Every cluster that a node tells of, by id."""
    traces: dict[str, _Trace] = {}
    for node, contact in sorted(fleet.answering.items()):
        report = contact.report
        for claim in (*([report.claim] if report.claim else []), *report.foreign_claims):
            trace = traces.setdefault(claim.id, _Trace(set(), set()))
            trace.nodes.add(node)
            trace.claimed.add(node)
            trace.name, trace.master_host = trace.name or claim.name, trace.master_host or claim.master_host
        for seen in report.containers:
            if seen.identity is not None:
                trace = traces.setdefault(seen.identity.cluster, _Trace(set(), set()))
                trace.nodes.add(node)
                trace.containers += 1
                trace.name = trace.name or seen.name.split("_")[1]
    return tuple([await _found(key, traces[key], fleet, own) for key in sorted(traces)])


@dataclass(slots=True)
class _Trace:
    """What was seen of one cluster so far."""

    nodes: set[str]
    claimed: set[str]
    containers: int = 0
    name: str = ""
    master_host: str = ""


async def _found(id_: str, trace: _Trace, fleet: Fleet, own: ClusterRecord) -> ClusterFound:
    identity = ClusterIdentity(id=id_, name=trace.name, master_host=trace.master_host)
    machines = {
        node: fleet.machine_as(node, identity)
        for node in sorted(trace.claimed)
        if fleet.answering[node].report.engine.state == "Ready"
    }
    wishes = await each(machines, lambda _, machine: machine.read_wishes())
    names = {wish.file for result in wishes.values() if not isinstance(result, KorchError) for wish in result}
    name, host = trace.name or own.name, trace.master_host or "?"
    return ClusterFound(id_, name, host, tuple(sorted(trace.nodes)), trace.containers, tuple(sorted(names)))
