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
from korch.api.security.authorize import Authorizer
from korch.api.security.credentials import Credentials, KnownCredentials
from korch.api.security.guard import Guard
from korch.api.server import Place, serving
from korch.api.services import Services

if TYPE_CHECKING:
    from korch.client.base import NodeUsage
    from korch.master.cluster import Cluster
    from korch.master.fleet import Fleet
    from korch.master.sources import Sources


@asynccontextmanager
async def api_served(cluster: Cluster, address: str, port: int, names: tuple[str, ...]) -> AsyncIterator[None]:
    """A block in which the cluster's API is served, whether this process leads or not.

    Its writes are wishes, as those of commands: they carry no fence of the lead.
    """
    folder, clock = cluster.settings.cluster_dir, cluster.clock
    credentials = Credentials(cluster.store)
    authenticator = Authenticator(KnownCredentials(credentials), clock)
    authorizer, usage = Authorizer(), _Usage(cluster)
    tokens = AccountTokens(credentials, clock)
    services = Services(authorizer, authenticator.user_of_token, usage.measure, token=tokens.answer)
    app = create_app(cluster.objects, cluster.store, clock=clock, services=services)
    audit = AuditLog(folder / "audit.log")
    try:
        guard = Guard(app, authenticator, authorizer, clock=clock, audit=audit)
        place = Place(folder, cluster.record.name, address, port, names)
        async with serving(guard, place, store=cluster.store, clock=clock):
            yield
    finally:
        await app.state.api.close()
        await usage.close()
        audit.close()


class _Usage:
    """What containers use, asked over connections of the API's own; they are made when somebody asks first."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sources: Sources | None = None
        self._fleet: Fleet | None = None
        self._lock = asyncio.Lock()

    async def measure(self) -> Sequence[NodeUsage]:
        """By node, of the inventory as it is now."""
        from korch.master.fleet import Fleet
        from korch.master.sources import Sources
        from korch.master.usage import measure

        async with self._lock:
            if self._sources is None:
                self._sources = Sources(self._cluster)
            changed = await self._sources.look(at_once=True)
            if changed is not None:
                await self._hang_up()
            if self._fleet is None:
                self._fleet = Fleet(self._sources.cluster)
            return await measure(self._sources.cluster, self._fleet)

    async def close(self) -> None:
        """Hang up."""
        await self._hang_up()

    async def _hang_up(self) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            await fleet.close()
