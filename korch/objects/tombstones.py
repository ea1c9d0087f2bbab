"""Tombstones: for 30 days, proof that a pod uid has ended, so that a container found later is known to be surplus."""

import msgspec

from korch.errors import ConflictError, FencedError, StoreError
from korch.objects.access import Access
from korch.objects.values import Tombstone
from korch.resources.pod import Pod
from korch.resources.times import parse_time, rfc3339
from korch.store.base import Delete, Put

PREFIX = "/korch/tombstones/"
KEEP_S = 30 * 24 * 3600.0


def tombstone_for(pod: Pod, now: float) -> Put:
    """The write that belongs into the transaction which removes a bound pod."""
    meta = pod.metadata
    stone = Tombstone(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        node_name=pod.spec.node_name,
        removed_at=rfc3339(now),
    )
    return Put(PREFIX + meta.uid, msgspec.json.encode(stone))


async def find_tombstone(access: Access, uid: str) -> Tombstone | None:
    """The tombstone of a pod uid, or None."""
    record = await access.store.get(PREFIX + uid) if uid else None
    return None if record is None else _read(record.key, record.value)


async def prune_tombstones(access: Access, now: float, older_than_s: float) -> int:
    """Forget tombstones of pods removed longer ago than that; how many."""
    removed = 0
    for record in (await access.store.list(PREFIX)).records:
        if now - parse_time(_read(record.key, record.value).removed_at) <= older_than_s:
            continue
        try:
            await access.write((Delete(record.key, record.revision),))
            removed += 1
        except FencedError:
            raise
        except ConflictError:  # written anew or pruned by another process
            continue
    return removed


def _read(key: str, value: bytes) -> Tombstone:
    try:
        return msgspec.json.decode(value, type=Tombstone)
    except msgspec.MsgspecError as error:
        raise StoreError(f"record {key} cannot be read: {error}", hint="Restore a backup.") from error
