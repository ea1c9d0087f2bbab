"""The hosts of a cluster's inventory, and the connections that this process has to them."""

from collections.abc import Callable

import msgspec.structs

from korch.errors import NotFoundError
from korch.inventory.hostnames import node_name
from korch.inventory.model import Host
from korch.master.cluster import Cluster, ClusterRecord
from korch.nodes.machine import ClusterIdentity, Machine
from korch.ssh.base import Transport
from korch.ssh.connect import Connector


class Hosts:
    """By node name: hosts, transports and machines. Nothing is connected before it is used."""

    def __init__(self, cluster: Cluster, *, prompt: Callable[[str], str] | None = None) -> None:
        self._cluster = cluster
        self._connector = Connector(cluster.settings, prompt=prompt)
        self._hosts = {node_name(host.name): host for host in cluster.hosts().hosts}
        self._transports: dict[str, Transport] = {}
        self._machines: dict[str, Machine] = {}

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes of the inventory, in its order."""
        return tuple(self._hosts)

    @property
    def listed(self) -> frozenset[str]:
        """Nodes that `--limit` leaves, reached or not."""
        return frozenset(node_name(name) for name in self._cluster.hosts().placeable)

    def host(self, node: str) -> Host:
        """The inventory's entry of a node (or of a host by its own name)."""
        found = self._hosts.get(node) or next((host for host in self._hosts.values() if host.name == node), None)
        if found is None:
            known = ", ".join(sorted(self._hosts)) or "none"
            raise NotFoundError(f'"{node}" is not in the inventory', hint=f"It has: {known}.")
        return found

    def machine(self, node: str) -> Machine:
        """The machine behind a node; it connects when it is first used."""
        name = node_name(self.host(node).name)
        if name not in self._machines:
            self._machines[name] = self.machine_as(name, identity_of(self._cluster.record))
        return self._machines[name]

    def machine_as(self, node: str, identity: ClusterIdentity) -> Machine:
        """The same as another cluster would work with it; it is not kept."""
        host = self.host(node)
        return Machine(self.transport(node), identity, engine=host.engine, shared=host.shared, become=host.become)

    def transport(self, node: str) -> Transport:
        """The transport to a node."""
        host = self.host(node)
        name = node_name(host.name)
        if name not in self._transports:
            self._transports[name] = self._connector.transport_for(host)
        return self._transports[name]

    @property
    def connector(self) -> Connector:
        """Host keys and SSH options."""
        return self._connector

    def differing(self, cluster: Cluster) -> frozenset[str]:
        """The nodes that this inventory does not have, or describes otherwise."""
        new = {node_name(host.name): msgspec.structs.replace(host, origin="") for host in cluster.hosts().hosts}
        return frozenset(
            name for name, host in self._hosts.items() if new.get(name) != msgspec.structs.replace(host, origin="")
        )

    async def _ssh_address(self, host: Host) -> str:
        if host.connection == "local":
            return ""
        return (await self._connector.options_for(host)).hostname


def identity_of(record: ClusterRecord) -> ClusterIdentity:
    """What nodes know of the cluster."""
    return ClusterIdentity(id=record.id, name=record.name, master_host=record.master_host)
