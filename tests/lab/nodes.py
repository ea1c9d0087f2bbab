"""Machines of a lab for tests of `korch.nodes`: over the real transport, as root or as the sudo user."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from korch.engines.names import Identity
from korch.engines.wish import ContainerWish
from korch.inventory.model import Host
from korch.lab.lab import Lab
from korch.nodes.machine import ClusterIdentity, Machine
from korch.settings import Settings
from korch.ssh.connect import Connector

CLUSTER = ClusterIdentity("5d0b63a2-test", "lab", "master.lab")


def lab_host(lab: Lab, node: str, user: str = "root", *, become: bool | None = None) -> Host:
    """The node as an inventory would describe it."""
    options = (
        f"UserKnownHostsFile={lab.known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
    )
    return Host(
        name=node,
        address=lab.address(node),
        user=user,
        identity_file=str(lab.ssh_key),
        ssh_args=("-F", "/dev/null", *(word for option in options for word in ("-o", option))),
        become=become,
    )


@asynccontextmanager
async def machine_of(
    lab: Lab, node: str = "n1", *, user: str = "root", cluster: ClusterIdentity = CLUSTER, shared: bool = False
) -> AsyncIterator[Machine]:
    """The node's machine; the connection ends with the context."""
    settings = Settings(home=Path("/nonexistent"), cluster="lab")
    async with Connector(settings) as connector:
        transport = connector.transport_for(lab_host(lab, node, user))
        try:
            yield Machine(transport, cluster, shared=shared)
        finally:
            await transport.close()


def wish(
    lab: Lab, uid: str = "aaaaaaaa-1", *, spec_hash: str = "h1", version: str = "1", **more: object
) -> ContainerWish:
    """A wish for the lab's sample app, as pod web-1 of namespace default."""
    identity = Identity(CLUSTER.id, "default", "web-1", uid, "web", "web", 1, spec_hash)
    settings = {"image": lab.image(version), **more}
    return ContainerWish(identity, CLUSTER.name, **settings)  # type: ignore[arg-type]
