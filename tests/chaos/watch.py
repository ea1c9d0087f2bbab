"""Watchers in a storm of changes, over TLS: some slow, some that come and go, some that read nothing for a while.

The API is a process of its own, as a master serves it. Every watcher keeps account: it must have seen every change once
and in order since it listed last. The history is forgotten once on the way, so that who stalled must be told.
"""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from korch.client.kubeconfig import Access, access_of, read_config
from korch.client.wire import Call, Wire
from korch.store.sqlite import open_sqlite
from tests.contract.watchers import OBJECTS, PATH, WATCHERS, Events, Follower
from tests.unit.client.served import served

WRITERS = 5
ENOUGH = 10_000  # changes: more than the API keeps, so whoever stalls all the while must be told
_NARROW_BYTES = 16_384
_TEXT = "x" * 2000
_LATE_S = 120.0
_SPACE = "/api/v1/namespaces/default/configmaps"


@dataclass(frozen=True)
class Tally:
    """What was held."""

    changes: int
    seconds: float
    events: int
    returns: int
    told: int

    def __str__(self) -> str:
        rate = self.changes / self.seconds
        return (
            f"{WATCHERS} watchers over {self.changes} changes ({rate:.0f} a second, over TLS): each saw every change"
            f" once and in order since its last list; {self.events} events, {self.returns} returns from a revision,"
            f" {self.told} times a watcher that had stalled was told to list again"
        )


def watch_storm(changes: int, folder: Path, tell: Callable[[str], None]) -> Tally:
    """The storm. Raises when a watcher missed something, saw it twice, or was never told."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(folder, theirs), name="api")
    process.start()
    theirs.close()  # so that its death is heard
    try:
        access = access_of(read_config([Path(ours.recv())], must_exist=True))
        return asyncio.run(_storm(access, changes, folder / "state.db", tell))
    finally:
        ours.close()
        process.join(30)


def _serve(folder: Path, pipe: Connection) -> None:
    """In its own process: the API, until it is told to end."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every watcher that hangs up
    with served(folder / "state.db", folder, lambda _: None) as site:
        pipe.send(str(site.kubeconfig()))
        with contextlib.suppress(EOFError):
            pipe.recv()


async def _storm(access: Access, changes: int, state: Path, tell: Callable[[str], None]) -> Tally:
    wire = Wire(access)
    for number in range(OBJECTS):
        await _made(wire, number)
    begin = int((await There(wire).list())["metadata"]["resourceVersion"])
    followers, go_on = [], asyncio.Event()
    for number in range(WATCHERS):
        own = Wire(access, buffer_bytes=_NARROW_BYTES)  # who does not read is soon felt by the server
        followers.append(Follower(There(own), number, begin + changes, go_on))
    written: list[list[tuple[int, str]]] = [[] for _ in range(WRITERS)]
    async with asyncio.timeout(_LATE_S + changes / 10), asyncio.TaskGroup() as following:
        for one in followers:
            following.create_task(one.follow(), name=f"watcher-{one.number}")
        while any(one.lists == 0 for one in followers):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.05)
        began = time.monotonic()
        async with asyncio.TaskGroup() as writing:
            for place in range(WRITERS):
                writing.create_task(_write(Wire(access), place, changes // WRITERS, written[place]))
            writing.create_task(_forget_midway(state, begin, changes))
        seconds = time.monotonic() - began
        go_on.set()
        tell(f"watchers: {changes} changes written in {seconds:.0f} s")
    _check(followers, sorted(one for part in written for one in part))
    events = sum(len(one.seen) for one in followers)
    told = sum(one.lists - 1 for one in followers)
    assert told or changes < ENOUGH, "nobody fell behind: the storm has proved too little"
    return Tally(changes, seconds, events, sum(one.returns for one in followers), told)


def _check(followers: list[Follower], written: list[tuple[int, str]]) -> None:
    wanted = {name: revision for revision, name in written}
    for one in followers:
        one.check([revision for revision, _ in written], wanted)


async def _made(wire: Wire, number: int) -> None:
    body = json.dumps({"metadata": {"name": f"c{number}"}, "data": {"text": _TEXT}}).encode()
    answer = await wire.ask(Call("POST", _SPACE, body=body))
    assert answer.status == 201, answer.body


async def _write(wire: Wire, place: int, count: int, written: list[tuple[int, str]]) -> None:
    """Changes of the objects that are this writer's alone."""
    mine = [number for number in range(OBJECTS) if number % WRITERS == place]
    for number in range(count):
        name = f"c{mine[number % len(mine)]}"
        body = json.dumps({"metadata": {"labels": {"n": str(number)}}}).encode()
        call = Call("PATCH", f"{_SPACE}/{name}", body=body, content_type="application/merge-patch+json")
        answer = await wire.ask(call)
        assert answer.status == 200, answer.body
        written.append((int(json.loads(answer.body)["metadata"]["resourceVersion"]), name))
    await wire.close()


async def _forget_midway(state: Path, begin: int, changes: int) -> None:
    """Once two thirds are written, the history of the first third goes, as it does in time."""
    store = await open_sqlite(state)
    try:
        while await store.revision() < begin + changes * 2 // 3:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.2)
        await store.compact(begin + changes // 3)
    finally:
        await store.close()


class There:
    """The API over TLS."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list(self) -> Any:
        answer = await self._wire.ask(Call("GET", PATH))
        if answer.status == 429:  # all of them are one user
            await asyncio.sleep(0.2)
            return await self.list()
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncIterator[Events]:
        query = (("watch", "true"), ("resourceVersion", str(after)))
        async with self._wire.answering(Call("GET", PATH, query)) as (head, pieces):
            yield Stream(head.status_code, pieces)


class Stream:
    """Events out of the pieces of an answer."""

    def __init__(self, status: int, pieces: Any) -> None:
        self.status, self._pieces = status, pieces
        self._rest, self._lines = b"", list[bytes]()

    async def next(self) -> dict[str, Any] | None:
        while not self._lines:
            piece = await anext(self._pieces, None)
            if piece is None:
                return None
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._lines = lines[::-1]
        event: dict[str, Any] = msgspec.to_builtins(_DECODER.decode(self._lines.pop()))
        return event


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    name: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta


class _Event(msgspec.Struct):
    type: str
    object: _Object


_DECODER = msgspec.json.Decoder(_Event)  # millions of them are read
