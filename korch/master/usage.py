"""What the containers of a cluster use now: one round trip a node, all at the same time."""

from korch.client.base import ContainerUsage, NodeUsage
from korch.errors import KorchError
from korch.master.cluster import Cluster
from korch.master.fleet import CONNECT_S, Fleet
from korch.master.gathering import each
from korch.nodes.register import known_engine
from korch.resources.node import Node


async def measure(cluster: Cluster, fleet: Fleet) -> tuple[NodeUsage, ...]:
    """An entry for each host of the inventory, in its order."""
    nodes = {node.metadata.name: node for node in (await cluster.objects.list(Node)).items}

    async def look(name: str, _: None) -> tuple[ContainerUsage, ...]:
        await fleet.transport(name).connect(timeout_s=CONNECT_S)
        known = known_engine(nodes.get(name), cluster.clock.now())
        if known is not None:
            fleet.machine(name).assume(known[0])
        return await fleet.machine(name).usage()

    found = await each(dict.fromkeys(fleet.node_names), look)
    return tuple(
        NodeUsage(name, error=answer) if isinstance(answer, KorchError) else NodeUsage(name, answer)
        for name, answer in found.items()
    )
