"""A cluster on this machine: its record in the store, its inventory, its folder."""

import os
import shutil
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from korch.api.owners import COMMANDS, owner
from korch.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, SetupError, StoreError
from korch.objects.objects import Objects
from korch.objects.values import Clock, SystemClock
from korch.resources.kinds import SECRET
from korch.resources.times import rfc3339
from korch.settings import Settings, no_such_cluster
from korch.store.base import Store
from korch.store.keyring import Keyring
from korch.store.places import make_private_folder
from korch.store.sealed import SealedStore
from korch.store.sqlite import open_sqlite

if TYPE_CHECKING:
    from korch.inventory.model import Inventory

RECORD_KEY = "/korch.dev/cluster"


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What makes a cluster one: an id for all its containers, and the inventory it was made with."""

    id: str
    name: str
    created: str
    master_host: str
    inventories: tuple[str, ...] = ()


class Cluster(msgspec.Struct, frozen=True):
    """An open cluster. `inventory` is None for commands that only read the state."""

    settings: Settings
    store: Store
    objects: Objects
    record: ClusterRecord
    inventory: "Inventory | None"
    clock: Clock

    def hosts(self) -> "Inventory":
        """The inventory; raises `InvalidError` when this command has none."""
        if self.inventory is None:
            raise InvalidError(f'cluster "{self.record.name}" has no inventory', hint="Give one with -i.")
        return self.inventory


def absolute_source(source: str, home: Path) -> str:
    """An inventory source that means the same from any folder."""
    from korch.inventory.load import parse_source

    parsed = parse_source(source, home)
    if parsed.kind == "vagrant":
        return f"vagrant:{parsed.path.absolute()}"
    if parsed.kind == "ansible" and not (source == "lab" or source.startswith("lab:")):
        return str(parsed.path.absolute())
    return source


@asynccontextmanager
async def open_cluster(settings: Settings, *, limit: str = "", need_inventory: bool = True) -> AsyncIterator[Cluster]:
    """The cluster that the settings name; it is made when an inventory is given for it the first time."""
    if not settings.state_file.exists() and not settings.inventories:
        raise no_such_cluster(settings)
    inventory = None
    given = tuple(absolute_source(source, settings.home) for source in settings.inventories)
    if not settings.state_file.exists():
        inventory = _load(given, limit, settings)  # a mistake in it must not leave an empty cluster behind
    make_private_folder(settings.cluster_dir)
    store = SealedStore(await open_sqlite(settings.state_file), Keyring(settings.secrets_key), (SECRET.prefix(),))
    try:
        clock = SystemClock()
        objects = Objects(store, clock=clock, track=owner(COMMANDS, clock.now))
        record = await _record(store, objects, settings, given, clock)
        if need_inventory and inventory is None:
            inventory = _load(record.inventories, limit, settings)
        yield Cluster(settings, store, objects, record, inventory, clock)
    finally:
        await store.close()


def _load(sources: tuple[str, ...], limit: str, settings: Settings) -> "Inventory":
    from korch.inventory.load import load_inventory

    return load_inventory(sources, limit=limit, home=settings.home)


async def _record(
    store: Store, objects: Objects, settings: Settings, given: tuple[str, ...], clock: Clock
) -> ClusterRecord:
    found = await store.get(RECORD_KEY)
    if found is None:
        record = ClusterRecord(
            id=str(uuid.uuid4()),
            name=settings.cluster,
            created=rfc3339(clock.now()),
            master_host=f"{os.environ.get('USER') or 'root'}@{socket.gethostname()}",
            inventories=given,
        )
        try:
            await store.put(RECORD_KEY, msgspec.json.encode(record), expect=0)
        except ConflictError:
            return await _record(store, objects, settings, given, clock)
        await objects.ensure_default_namespace()
        return record
    record = msgspec.json.decode(found.value, type=ClusterRecord)
    if given and record.inventories and given != record.inventories:
        sources = " ".join(f"-i {source}" for source in given)
        raise ForbiddenError(
            f'cluster "{record.name}" was made with inventory {", ".join(record.inventories)}, not {", ".join(given)}',
            hint=f"Use another cluster (--cluster NAME), or change it: korch cluster set-inventory {sources}",
        )
    if given and not record.inventories:
        return await set_inventories(store, given)
    return record


async def set_inventories(store: Store, sources: tuple[str, ...]) -> ClusterRecord:
    """Record another inventory for the cluster."""
    found = await store.get(RECORD_KEY)
    if found is None:
        raise NotFoundError("this state holds no cluster")
    record = msgspec.structs.replace(msgspec.json.decode(found.value, type=ClusterRecord), inventories=sources)
    await store.put(RECORD_KEY, msgspec.json.encode(record), expect=found.revision)
    return record


async def rotate_key(settings: Settings, *, forget_old: bool) -> int:
    """Seal all Secrets with a new key; how many."""
    async with open_cluster(replace(settings, inventories=()), need_inventory=False) as cluster:
        assert isinstance(cluster.store, SealedStore)
        return await cluster.store.rotate(forget_old=forget_old)


async def seal_secrets(cluster: Cluster) -> int:
    """Seal what an older korch wrote as it was; how many Secrets."""
    return await cluster.store.reseal() if isinstance(cluster.store, SealedStore) else 0


async def remove_cluster(settings: Settings, *, force: bool) -> tuple[str, ...]:
    """Give the nodes back and forget the cluster on this machine; sentences on what stays somewhere.

    `ForbiddenError` while it has workloads; `force` removes their containers too, and goes on where a node cannot be
    told because the state or the inventory is unusable.
    """
    from korch.master.local import open_client
    from korch.master.removal import leave_nodes

    notes: tuple[str, ...] = ()
    try:
        client = await open_client(replace(settings, inventories=()))
    except (StoreError, InvalidError, NotFoundError, SetupError) as error:
        if not force:
            error.hint = f"{error.hint} To forget the cluster without telling its nodes: --force".strip()
            raise
        notes = (f"{error}; the nodes were not told",)
    else:
        try:
            notes = await leave_nodes(client.cluster, client.fleet, force=force)
        finally:
            await client.close()
    remove_folder(settings)
    return notes


def remove_folder(settings: Settings) -> None:
    """Forget the cluster on this machine."""
    shutil.rmtree(settings.cluster_dir, ignore_errors=True)
