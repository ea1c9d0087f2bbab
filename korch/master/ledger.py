"""What goes on record about nodes, as looks and measurements bring it: Node, NodeLoad, and the load's history."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from korch.client.base import NodeSeen
from korch.engines.images import ImageInfo
from korch.errors import AlreadyExistsError, KorchError, NotFoundError
from korch.inventory.hostnames import node_name
from korch.inventory.model import Host
from korch.master.cluster import Cluster
from korch.master.hosts import Hosts
from korch.nodes.register import (
    declared_node,
    failed_status,
    load_of,
    new_node,
    noted,
    seen_status,
    with_images,
    without_inventory,
)
from korch.nodes.report import NodeReport, choose_address
from korch.resources.meta import Object
from korch.resources.node import Node, NodeLoad
from korch.store.history import LoadHistory, Sample

AnObject = TypeVar("AnObject", bound=Object)


class OnRecord(msgspec.Struct, frozen=True):
    """What is known of nodes, by name."""

    nodes: dict[str, Node]
    loads: dict[str, NodeLoad]


class Ledger(Hosts):
    """Writes what is known of the hosts."""

    def __init__(self, cluster: Cluster, *, prompt: Callable[[str], str] | None = None) -> None:
        super().__init__(cluster, prompt=prompt)
        self._history = LoadHistory(cluster.settings.cluster_dir / "load.db")

    async def close_unlisted(self) -> None:
        """Nodes on record that the inventory no longer has take no new pods."""
        await self._record_gone((await self.on_record()).nodes)

    async def on_record(self) -> OnRecord:
        """What is on record now."""
        objects = self._cluster.objects
        loads = {load.metadata.name: load for load in (await objects.list(NodeLoad)).items}
        return OnRecord({node.metadata.name: node for node in (await objects.list(Node)).items}, loads)

    async def record_look(self, host: Host, found: NodeReport | KorchError, before: OnRecord) -> NodeSeen:
        """What a look brought, on record; `before`: what was there when it began."""
        objects, name, now = self._cluster.objects, node_name(host.name), self._cluster.clock.now()
        node, load = before.nodes.get(name), before.loads.get(name)
        if node is None:
            node = await self._created(new_node(host))
        elif declared_node(host, node) != node:
            node = await objects.modify(Node, name, "", lambda old: declared_node(host, old))
        if isinstance(found, KorchError):
            return NodeSeen(await self._set_status(node, failed_status(node, found, now)), load, found)
        booted = node.status.node_info.boot_id
        address = choose_address(found, host, ssh_address=await self._ssh_address(host))
        if noted(node, found, now) != node:
            node = await objects.modify(Node, name, "", lambda old: noted(old, found, now))
        node = await self._set_status(node, seen_status(node, host, found, address, now))
        sample = load_of(name, found, load, now, boot_id=booted)
        if load is None:
            return NodeSeen(node, await self._created(sample))
        return NodeSeen(node, await objects.modify(NodeLoad, name, "", lambda old: newer(old, sample)))

    async def record_failure(self, name: str, error: KorchError) -> None:
        """The node cannot be worked with: its state, and why, go on record."""
        host = self._hosts[name]
        node = await self._cluster.objects.find(Node, name) or await self._created(new_node(host))
        await self._set_status(node, failed_status(node, error, self._cluster.clock.now()))

    async def record_images(self, name: str, fetched: Mapping[str, ImageInfo]) -> None:
        """Images that came to a node since the look: the next run need not ask for them."""
        if fetched:
            with contextlib.suppress(NotFoundError):
                await self._cluster.objects.modify(
                    Node, name, "", lambda old: replace(old, status=with_images(old.status, fetched)), status=True
                )

    async def record_sample(self, name: str, sample: NodeLoad, *, score_changes: bool) -> None:
        """A measurement between looks: into the history always, into the store only when it would change a score."""
        if score_changes:
            await self._cluster.objects.modify(NodeLoad, name, "", lambda old: newer(old, sample))
        with contextlib.suppress(KorchError, OSError):
            await self._history.append(Sample(name, self._cluster.clock.now(), _measured(sample)))

    async def _set_status(self, node: Node, status: object) -> Node:
        return await self._cluster.objects.modify(
            Node, node.metadata.name, "", lambda old: replace(old, status=status), status=True
        )

    async def _created(self, obj: AnObject) -> AnObject:
        """The new object, or the one that another korch has made at the same time."""
        try:
            return await self._cluster.objects.create(obj)
        except AlreadyExistsError:
            return await self._cluster.objects.get(type(obj), obj.metadata.name, "")

    async def _record_gone(self, nodes: dict[str, Node]) -> tuple[NodeSeen, ...]:
        """Nodes that the inventory no longer has: never lost, only closed to new pods."""
        gone = []
        for name in sorted(nodes.keys() - self._hosts.keys()):
            status = without_inventory(nodes[name], self._cluster.clock.now())
            gone.append(NodeSeen(await self._set_status(nodes[name], status), None))
        return tuple(gone)

    async def _keep_history(self, seen: Sequence[NodeSeen]) -> None:
        """Into the bounded local file of samples; a full disk there spoils nothing else."""
        now = self._cluster.clock.now()
        samples = [
            Sample(found.node.metadata.name, now, _measured(found.load))
            for found in seen
            if found.load is not None and found.error is None
        ]
        with contextlib.suppress(KorchError, OSError):
            await self._history.append(*samples)


def _measured(load: NodeLoad) -> dict[str, float]:
    """The figures of a sample that a history is kept of."""
    used = load.memory_total_bytes - load.memory_available_bytes
    figures = {"load1": load.load1, "memory": used / load.memory_total_bytes if load.memory_total_bytes else 0.0}
    return figures | ({"cpu": load.cpu_busy} if load.cpu_busy is not None else {})


def newer(old: NodeLoad, sample: NodeLoad) -> NodeLoad:
    """The new sample with the identity of the stored one."""
    return replace(sample, metadata=old.metadata)
