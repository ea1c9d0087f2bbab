"""The API of a master: its app, the door in front of it and the port, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from korch.api.app import create_app
from korch.api.security.accounts import AccountTokens
from korch.api.security.audit import AuditLog
from korch.api.security.authenticate import Authenticator
from korch.api.security.credentials import Credentials, KnownCredentials
from korch.api.security.guard import Guard
from korch.api.security.permissions import Permissions
from korch.api.server import Place, serving
from korch.api.services import Services
from korch.api.streams.door import Door
from korch.api.streams.service import Streams

if TYPE_CHECKING:
    from korch.client.base import Client, NodeUsage
    from korch.master.cluster import Cluster
    from korch.master.fleet import Fleet
    from korch.master.sources import Sources
    from korch.nodes.machine import Machine


@asynccontextmanager
async def api_served(cluster: Cluster, address: str, port: int, names: tuple[str, ...]) -> AsyncIterator[None]:
    """A block in which the cluster's API is served, whether this process leads or not.

    Its writes are wishes, as those of commands: they carry no fence of the lead.
    """
    folder, clock = cluster.settings.cluster_dir, cluster.clock
    credentials = Credentials(cluster.store)
    authenticator = Authenticator(KnownCredentials(credentials), clock)
    permissions, reach = Permissions(cluster.store), Reach(cluster)
    tokens = AccountTokens(credentials, cluster.store, clock)
    streams = Streams(cluster.objects, Door(reach.machine, cluster.record.name))
    services = Services(permissions, authenticator.user_of_token, reach.usage, streams, tokens.answer, reach.client)
    app = create_app(cluster.objects, cluster.store, clock=clock, services=services)
    audit = AuditLog(folder / "audit.log")
    try:
        guard = Guard(app, authenticator, permissions, clock=clock, audit=audit)
        place = Place(folder, cluster.record.name, address, port, names)
        async with serving(guard, place, store=cluster.store, clock=clock):
            yield
    finally:
        await app.state.api.close()
        await reach.close()
        audit.close()


class Reach:
    """The nodes as the API reaches them: over connections of its own, which are made when somebody asks first."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sources: Sources | None = None
        self._fleet: Fleet | None = None
        self._former: list[Fleet] = []
        self._lock = asyncio.Lock()

    async def fleet(self) -> tuple[Cluster, Fleet]:
        """The cluster with its inventory as it is now, and its hosts. What still runs over a former fleet goes on."""
        from korch.master.fleet import Fleet
        from korch.master.sources import Sources

        async with self._lock:
            if self._sources is None:
                self._sources = Sources(self._cluster)
            changed = await self._sources.look(at_once=True)
            if self._fleet is not None and changed is not None:
                self._former.append(self._fleet)
                self._fleet = None
            if self._fleet is None:
                self._fleet = Fleet(self._sources.cluster)
            return self._sources.cluster, self._fleet

    async def machine(self, node: str) -> Machine:
        """The machine behind a node."""
        return (await self.fleet())[1].machine(node)

    async def client(self) -> Client:
        """What korch's own client asks for is done as a command here does it, over these connections."""
        from korch.master.local import LocalClient

        return LocalClient(*await self.fleet())

    async def usage(self) -> Sequence[NodeUsage]:
        """What containers use, by node."""
        from korch.master.usage import measure

        return await measure(*await self.fleet())

    async def close(self) -> None:
        """Hang up."""
        for fleet in (*self._former, *([self._fleet] if self._fleet is not None else [])):
            await fleet.close()
        self._former, self._fleet = [], None
