"""`korch backup` and `korch restore`: what goes beyond the file itself. The file is the store's matter."""

import time
from pathlib import Path

import msgspec

from korch.errors import ForbiddenError, StoreError, at
from korch.master.adopt import take_over
from korch.master.cluster import RECORD_KEY, Cluster, ClusterRecord
from korch.master.finds import look, unheard_of
from korch.master.fleet import Fleet
from korch.resources.misc import Secret
from korch.settings import Settings
from korch.store.backup import peek, restore
from korch.store.lease import Lead
from korch.store.places import make_private_folder
from korch.store.sqlite import open_sqlite


class Saved(msgspec.Struct, frozen=True):
    """What a backup is of. `written`: when, as the file system says."""

    id: str
    name: str
    written: str


async def back_up(settings: Settings, target: Path) -> None:
    """Write the state as of one moment to one file (0600), whole or not at all."""
    store = await open_sqlite(settings.state_file)
    try:
        await store.backup(target)
    finally:
        await store.close()


def describe(source: Path) -> Saved:
    """What the backup in a file is of. `NotFoundError` or `StoreError` when it is none."""
    found = peek(source, RECORD_KEY)
    try:
        record = msgspec.json.decode(found or b"", type=ClusterRecord)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{source} is not the backup of a cluster", hint="`korch backup FILE` makes one.") from error
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(source.stat().st_mtime))
    return Saved(record.id, record.name, written)


async def restore_state(settings: Settings, source: Path) -> Path | None:
    """Put a backup in the place of the state; under which name the former one was kept (None: there was none).

    Refused while another process uses the state, so also while one leads.
    """
    describe(source)
    make_private_folder(settings.cluster_dir)
    return (await restore(source, settings.state_file)).kept_as


async def after_restore(cluster: Cluster, fleet: Fleet) -> tuple[str, ...]:
    """Make the nodes refuse whoever led before the restore; sentences on what remains to be done."""
    await fleet.survey()
    notes = [
        f"{at(name, error)}. It learns of the restore at the next contact"
        for name, error in sorted(fleet.errors.items())
    ]
    lead = Lead(cluster.store, lock_file=cluster.settings.cluster_dir / "lead.lock", note={"doing": "restore"})
    # Nobody had the state open when it was replaced: who stands in it as the leader led another one.
    if not await lead.acquire(steal=True):
        raise ForbiddenError("another korch leads this cluster now", hint="Wait until it is done: `korch sync`.")
    try:
        notes += await take_over(lead, fleet)
    finally:
        await lead.release()
    finds, unread = await look(fleet, cluster.record.id)
    try:
        await cluster.objects.list(Secret)
    except StoreError as error:
        notes.append(f"{error}. {error.hint}")
    younger = await unheard_of(cluster.objects, finds)
    if younger:
        notes.append(
            f"{len(younger)} container(s) are younger than the backup: `korch adopt` takes them in,"
            " `korch prune --orphans` removes them"
        )
    return (*notes, *unread)
