"""`korch rebalance --auto`: a master levels the load now and then, a few pods at a time."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress

from korch.client.base import NodeUsage
from korch.controllers.disruption import World, evict
from korch.controllers.rebalance import REBALANCE, plan_rebalance, usage_by_pod
from korch.errors import ConflictError, KorchError, NotFoundError, StoreError
from korch.master.cluster import Cluster
from korch.master.contacts import Contact
from korch.master.gathering import each
from korch.objects.view import View
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.workload import Deployment, ReplicaSet
from korch.store.base import Store

log = logging.getLogger(__name__)

KEY = "/korch.dev/rebalance"
MAX_MOVES = 2  # under way at one time


async def set_auto(store: Store, on: bool) -> None:
    """Put on record whether masters of this cluster level the load by themselves."""
    await store.put(KEY, json.dumps({"auto": on}).encode())


async def is_auto(store: Store) -> bool:
    """Whether they do."""
    found = await store.get(KEY)
    if found is None:
        return False
    try:
        return bool(json.loads(found.value)["auto"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"record {KEY} cannot be read: {error}", hint="korch rebalance --no-auto writes it anew."
        ) from error


async def level(cluster: Cluster, view: View, contacts: Mapping[str, Contact]) -> None:
    """Mark the pods that would be much better off elsewhere; whoever leads carries it out, new before old."""
    usage = await each(contacts, lambda _, contact: contact.machine.usage())
    measured = [NodeUsage(name, answer) for name, answer in usage.items() if not isinstance(answer, KorchError)]
    known = {one.node for one in measured}
    world = World(
        tuple(view.all(Pod)),
        tuple(view.all(ReplicaSet)),
        tuple(view.all(Deployment)),
        tuple(view.all(PodDisruptionBudget)),
    )
    shifts = plan_rebalance(
        world,
        [node for node in view.all(Node) if node.metadata.name in known],
        {load.metadata.name: load for load in view.all(NodeLoad) if load.metadata.name in known},
        cluster.clock.now(),
        usage=usage_by_pod(measured),
        max_moves=MAX_MOVES,
    )
    pods = {pod.metadata.uid: pod for pod in world.pods}
    for shift in shifts:
        log.info("%s moves from %s to %s: %s", shift.name, shift.source, shift.target, shift.why)
        with suppress(NotFoundError, ConflictError):  # it went by itself
            await evict(cluster.objects, pods[shift.uid], REBALANCE, stop_first=False)
