"""korch's own roles on this machine: as the API shows them, and as little to be written."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from korch.api.security.rbac import OWN
from korch.errors import ForbiddenError, NotFoundError
from korch.master.local import LocalClient
from korch.objects.objects import Objects
from korch.resources.meta import ObjectMeta
from korch.resources.rbac import ClusterRole
from tests.unit.objects.memory_store import MemoryStore


def test_they_are_listed_with_the_others_and_nobody_writes_them() -> None:
    async def main() -> None:
        store = MemoryStore()
        cluster: Any = SimpleNamespace(objects=Objects(store))  # type: ignore[arg-type]
        client = LocalClient(cluster)
        mine = ClusterRole(metadata=ObjectMeta(name="b", labels={"a": "b"}))
        await client.create(mine)
        names = [role.metadata.name for role in (await client.list(ClusterRole)).items]
        assert names == sorted([*OWN, "b"])
        assert [role.metadata.name for role in (await client.list(ClusterRole, selector="a=b")).items] == ["b"]
        assert (await client.get(ClusterRole, "view")).rules
        assert (await client.get(ClusterRole, "b")).metadata.name == "b"
        with pytest.raises(NotFoundError):
            await client.get(ClusterRole, "c")
        other = ClusterRole(metadata=ObjectMeta(name="view"))
        for write in (
            client.create(other),
            client.apply(other),
            client.modify(ClusterRole, "view", "", lambda _: other),
            client.delete(ClusterRole, "view", ""),
        ):
            with pytest.raises(ForbiddenError, match="can be bound, and not be written"):
                await write
        await client.delete(ClusterRole, "b", "")
        assert not store.records

    asyncio.run(main())
