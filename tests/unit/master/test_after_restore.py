"""What a restore says at its end."""

import asyncio
from pathlib import Path
from typing import Any

from korch.errors import StoreError
from korch.master.backup import after_restore
from korch.objects.objects import Objects
from korch.resources.misc import Secret
from tests.unit.master.fleet_world import a_fleet


class Unreadable(Objects):
    """The key of the Secrets is not the one that the backup was made with."""

    async def list(self, type_: Any, *args: Any, **options: Any) -> Any:
        if type_ is Secret:
            raise StoreError("the Secrets cannot be read", hint="Bring their key.")
        return await super().list(type_, *args, **options)


def test_secrets_that_cannot_be_read_are_told_and_stop_nothing(tmp_path: Path) -> None:
    fleet = a_fleet(tmp_path)
    cluster = fleet._cluster
    cluster.objects = Unreadable(cluster.store, clock=cluster.clock)
    cluster.settings.cluster_dir.mkdir(parents=True)
    assert asyncio.run(after_restore(cluster, fleet)) == ("the Secrets cannot be read. Bring their key.",)
