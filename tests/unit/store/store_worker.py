"""What the other processes of the tests do: `python -m tests.unit.store.store_worker DEED PATH ARGS...`."""

import asyncio
import os
import sys
from pathlib import Path

from korch.errors import FencedError
from korch.store.base import KeyConflictError, Put, Store
from korch.store.lease import Lead
from korch.store.sqlite import open_sqlite


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # unbuffered: what was said was said before any kill


async def count(store: Store, counters: str, times: str) -> None:
    """Add 1 to each of some counters, again and again, by compare-and-set."""

    async def add(key: str) -> None:
        while True:
            record = await store.get(key)
            value, revision = (int(record.value), record.revision) if record else (0, 0)
            try:
                await store.put(key, b"%d" % (value + 1), expect=revision)
            except KeyConflictError:
                continue
            return

    for _ in range(int(times)):
        await asyncio.gather(*(add(f"/count/{number}") for number in range(int(counters))))


async def write(store: Store, name: str) -> None:
    """Write pairs without end, saying each that was acknowledged."""
    number = 0

    async def pair(n: int) -> None:
        await store.txn([Put(f"/left/{name}/{n:06}", b"x" * 300), Put(f"/right/{name}/{n:06}", b"x" * 300)])
        say(f"{n:06}")

    while True:
        await asyncio.gather(*(pair(number + n) for n in range(20)))
        number += 20


async def lead(store: Store, ttl_s: str, lock: str) -> None:
    """Take the lead, then write under its fence without end, saying what happens."""
    mine = Lead(store, identity=f"pid {os.getpid()}", ttl_s=float(ttl_s), lock_file=Path(lock) if lock else None)
    say(f"acquired {await mine.acquire(wait_s=20)} epoch {mine.epoch}")
    number = 0
    while True:
        number += 1
        held = mine.held
        try:
            await store.txn([Put(f"/under/{mine.epoch}", b"%d" % number), mine.fence()])
        except (FencedError, KeyConflictError) as error:
            say(f"refused: held {held}, {type(error).__name__}")
            break
        await asyncio.sleep(0.01)
    await mine.wait_lost()
    say(f"lost, held {mine.held}")


DEEDS = {deed.__name__: deed for deed in (count, write, lead)}


async def main() -> None:
    store = await open_sqlite(sys.argv[2])
    try:
        await DEEDS[sys.argv[1]](store, *sys.argv[3:])
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
