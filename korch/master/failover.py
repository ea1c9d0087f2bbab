"""Failing over on request: replicas of nodes that are gone are given up, so that others take their place.

Never by itself in one-shot mode, never on one voice: two other nodes are asked to reach the lost one first. When most
nodes seem lost at once, it is this machine's own network: nothing moves.
"""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from korch.errors import ForbiddenError, NotFoundError, TransientError
from korch.master.cluster import Cluster
from korch.master.fleet import Fleet
from korch.master.handover import take_lead
from korch.master.witnesses import ANSWER_S, opinions_on, targets_of, what_reaches
from korch.nodes.life import Sight, is_mass_loss
from korch.objects.objects import Objects
from korch.resources.annotations import NODE_LOST
from korch.resources.meta import Condition
from korch.resources.node import Node, node_address
from korch.resources.pod import Pod
from korch.resources.podstate import condition, is_counted, with_condition
from korch.resources.times import parse_time, rfc3339
from korch.store.lease import Lead

WITNESSES_TRIED = 4


def has_local_volume(pod: Pod) -> bool:
    """Whether data of the pod lives on its node: such a pod is pinned there."""
    return any(volume.csi is not None or volume.host_path is not None for volume in pod.spec.volumes)


async def fail_over(cluster: Cluster, fleet: Fleet) -> tuple[str, ...]:
    """Give up the pods of nodes that nobody reaches; a line for each thing done or left."""
    before = {node.metadata.name: node for node in (await cluster.objects.list(Node)).items}
    now = cluster.clock.now()
    await fleet.survey()
    lost = [name for name, error in fleet.errors.items() if isinstance(error, TransientError)]
    sights = [_sight(name, before.get(name), name in lost, now) for name in fleet.node_names]
    if is_mass_loss(sights):
        raise ForbiddenError(
            f"{len(lost)} of {len(sights)} nodes cannot be reached all of a sudden: nothing was moved",
            hint="This looks like this machine's own network. Try again in a minute.",
        )
    lines: list[str] = []
    lead = Lead(cluster.store, lock_file=cluster.settings.cluster_dir / "lead.lock", note={"doing": "failover"})
    await take_lead(cluster.store, lead)
    try:
        objects = Objects(cluster.store, clock=cluster.clock, fence=lead.fence)
        for name in sorted(lost):
            lines += await _give_up(name, fleet, objects, before, now)
    finally:
        await lead.release()
    return tuple(lines)


def _sight(name: str, node: Node | None, is_lost: bool, now: float) -> Sight:
    ready = condition(node.status.conditions, "Ready") if node else None
    if not is_lost:
        return Sight(name, None, ready is not None and ready.status == "True")
    if ready is None or ready.status == "True":
        return Sight(name, 0.0, ready is not None)
    since = parse_time(ready.last_transition_time or rfc3339(now))
    return Sight(name, now - since, True)


async def _give_up(name: str, fleet: Fleet, objects: Objects, before: Mapping[str, Node], now: float) -> list[str]:
    pods = [pod for pod in (await objects.list(Pod)).items if pod.spec.node_name == name and is_counted(pod)]
    if not pods:
        return []
    node = await objects.find(Node, name, "")
    gone = node is not None and NODE_LOST in node.metadata.annotations
    targets = await targets_of(name, fleet, before.get(name), pods)
    own = node_address(before.get(name))
    others = sorted(other for other in fleet.answering if not own or node_address(before.get(other)) != own)
    opinions: dict[str, bool] = {}
    if not gone:
        able = await _able(name, fleet, others, before)
        opinions = await opinions_on(fleet, others, targets, counts=lambda witness, _: witness in able)
    if not opinions and not gone:
        return [f"{name}: no other node can tell whether it reaches it, so nothing was moved"]
    for witness, reached in opinions.items():
        if reached:
            return [f"{name}: {witness} still reaches it, so nothing was moved: look at this machine's network"]
    lines = []
    for pod in pods:
        if has_local_volume(pod) and not gone:
            lines.append(f"{name}: {pod.metadata.name} stays, because its volume is there")
            continue
        if await give_up(pod, f"{name} cannot be reached", objects, now):
            lines.append(f"{name}: {pod.metadata.name} is replaced elsewhere")
    return lines


async def _able(name: str, fleet: Fleet, others: Sequence[str], before: Mapping[str, Node]) -> frozenset[str]:
    """Of the first few, those whose "I cannot reach it" counts: they reach the sshd of another node.

    Where there is no other node with a known address to try, all of them.
    """
    asked = others[:WITNESSES_TRIED]

    async def reaches_others(witness: str) -> bool:
        near = [other for other in others if other not in {witness, name} and node_address(before.get(other))][:2]
        known = [await targets_of(other, fleet, before.get(other), ()) for other in near]
        answers = await what_reaches(fleet.transport(witness), [target for some in known for target in some], ANSWER_S)
        return not answers or True in answers.values()

    answers = await asyncio.gather(*map(reaches_others, asked))
    return frozenset(witness for witness, answer in zip(asked, answers, strict=True) if answer)


async def give_up(pod: Pod, message: str, objects: Objects, now: float) -> bool:
    """Put on record that the pod is lost with its node, so that its owner replaces it; whether that was done now."""

    def lose(found: Pod) -> Pod | None:
        if found.metadata.uid != pod.metadata.uid or not is_counted(found):
            return None  # it went meanwhile, and another has its name
        not_ready = Condition(type="Ready", status="False", reason="NodeLost", message=message)
        conditions = with_condition(found.status.conditions, not_ready, rfc3339(now))
        status = replace(found.status, phase="Failed", reason="NodeLost", message=message, conditions=conditions)
        return replace(found, status=status)

    if pod.status.reason == "NodeLost":
        return False
    try:
        left = await objects.modify(Pod, pod.metadata.name, pod.metadata.namespace, lose, status=True)
    except NotFoundError:
        return False
    if left.status.reason != "NodeLost":
        return False
    text = f"{message}: it is given up here, and what made it makes another elsewhere"
    await objects.record_event(pod, type="Warning", reason="NodeLost", message=text, component="failover")
    return True
