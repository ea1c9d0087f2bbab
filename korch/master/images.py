"""Images that come from the caller's machine: sent to many nodes at once, and remembered, so that deploys pin them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from korch.client.base import ImageSource, PushedImage, PushResult
from korch.engines.images import qualified
from korch.errors import CommandFailedError, HostUnreachableError, KorchError, NotFoundError
from korch.inventory.hostnames import node_name
from korch.master.cluster import Cluster
from korch.master.contacts import Contact
from korch.master.fleet import Fleet
from korch.master.gathering import each
from korch.nodes.machine import Machine
from korch.resources.times import rfc3339
from korch.store.base import Store

PREFIX = "/korch.dev/pushed/"
STALLED_S = 60.0  # a node that takes no byte for so long is given up, and holds up nobody any longer
WAITING_PIECES = 8  # between the caller's engine and one node


async def push(
    cluster: Cluster, fleet: Fleet, source: ImageSource, pattern: str, on_progress: Callable[[str, int], None]
) -> tuple[PushResult, ...]:
    """Send the image to the nodes that lack it, all at the same time; a result for each, in the inventory's order."""
    hosts = cluster.hosts()
    names = [node_name(host.name) for host in hosts.hosts if host.name in hosts.select(pattern or "all")]
    usable = await fleet.contacts(claim=True)
    contacts = {name: usable[name] for name in names if name in usable}
    held = await each(contacts, lambda _, contact: _held_id(contact.machine, source))
    lacking = {name: contact for name, contact in contacts.items() if held[name] != source.id}
    sent = await _send(lacking, source, on_progress) if lacking else {}
    ids = {found for found in {**held, **sent}.values() if isinstance(found, str)}
    if len(ids) == 1:  # engines that number images in their own ways find them by name
        await _remember(cluster, source, ids.pop())
    problems = fleet.problems
    return tuple(_result(name, lacking, sent, problems, contacts) for name in names)


def _result(
    name: str,
    lacking: Mapping[str, Contact],
    sent: Mapping[str, str | KorchError],
    problems: Mapping[str, KorchError],
    contacts: Mapping[str, Contact],
) -> PushResult:
    if name not in contacts:
        missing = HostUnreachableError(f"{name} cannot be worked with", host=name, hint=f"korch node check {name}")
        return PushResult(name, "failed", problems.get(name, missing))
    if name not in lacking:
        return PushResult(name, "present")
    found = sent[name]
    return PushResult(name, "failed", found) if isinstance(found, KorchError) else PushResult(name, "sent")


async def _held_id(machine: Machine, source: ImageSource) -> str:
    """The id of what the node has under the image's name (or of the image without one); "" when nothing."""
    try:
        return (await machine.resolve_image((*source.references, source.id)[0], pull="Never")).id
    except CommandFailedError:
        return ""


# Sending


@dataclass(slots=True)
class _Pipe:
    """The way to one node: pieces wait here, the node's task takes them."""

    node: str
    on_progress: Callable[[str, int], None]
    queue: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(WAITING_PIECES))
    task: asyncio.Task[str | KorchError] | None = None
    stalled: bool = False
    sent_bytes: int = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """What the node is sent; an empty piece ends it."""
        while piece := await self.queue.get():
            yield piece
            self.sent_bytes += len(piece)
            self.on_progress(self.node, self.sent_bytes)

    async def put(self, piece: bytes) -> None:
        """Hand a piece over, unless the node has ended or does not take any more."""
        assert self.task is not None
        if self.task.done():
            return
        putting = asyncio.ensure_future(self.queue.put(piece))
        await asyncio.wait({putting, self.task}, timeout=STALLED_S, return_when=asyncio.FIRST_COMPLETED)
        if not putting.done():
            putting.cancel()
            if not self.task.done():
                self.stalled = True
                self.task.cancel()


async def _send(
    contacts: Mapping[str, Contact], source: ImageSource, on_progress: Callable[[str, int], None]
) -> dict[str, str | KorchError]:
    """By node: the id that the image has there afterwards, or why it has none. The image is read once for all."""
    pipes = [_Pipe(name, on_progress) for name in contacts]
    try:
        for pipe in pipes:
            loading = _load(contacts[pipe.node].machine, pipe, source)
            pipe.task = asyncio.create_task(loading, name=f"image to {pipe.node}")
        async with source.open() as pieces:
            async for piece in pieces:
                await asyncio.gather(*(pipe.put(piece) for pipe in pipes))
                if all(pipe.task is not None and pipe.task.done() for pipe in pipes):
                    break
        await asyncio.gather(*(pipe.put(b"") for pipe in pipes))
        return {pipe.node: await _outcome(pipe) for pipe in pipes}
    finally:
        tasks = [pipe.task for pipe in pipes if pipe.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _load(machine: Machine, pipe: _Pipe, source: ImageSource) -> str | KorchError:
    """The image's id on the node once it is loaded; an error is a result, so that it stops no other node."""
    try:
        loaded = await machine.load_image(pipe.pieces())
        if source.references:
            return (await machine.resolve_image(source.references[0], pull="Never")).id
    except KorchError as error:
        return error
    return loaded[0].id if loaded else source.id


async def _outcome(pipe: _Pipe) -> str | KorchError:
    assert pipe.task is not None
    try:
        return await pipe.task
    except asyncio.CancelledError:
        if not pipe.stalled:
            raise
    text = f"{pipe.node}: it took no data for {STALLED_S:.0f} s, after {pipe.sent_bytes} bytes"
    return HostUnreachableError(text, host=pipe.node, hint=f"korch node check {pipe.node}")


# Remembering


async def _remember(cluster: Cluster, source: ImageSource, id_: str) -> None:
    """From now on these names mean this id, whatever a registry says of them."""
    for reference in source.references or (id_,):
        record = PushedImage(reference, id_, rfc3339(cluster.clock.now()))
        await cluster.store.put(_key(reference), msgspec.json.encode(record))


def _key(reference: str) -> str:
    return PREFIX + quote(qualified(_tagged(reference)), safe="")


def _tagged(reference: str) -> str:
    """With the tag that is meant when none is given."""
    last = reference.rpartition("/")[2]
    return reference if ":" in last or "@" in last else f"{reference}:latest"


async def pushed_images(store: Store) -> tuple[PushedImage, ...]:
    """Every image that was sent from a caller's machine and is not forgotten, by name."""
    records = (await store.list(PREFIX)).records
    return tuple(msgspec.json.decode(record.value, type=PushedImage) for record in records)


async def pushed_id(store: Store, reference: str) -> str:
    """The id that was sent under this name, or ""."""
    record = await store.get(_key(reference))
    return msgspec.json.decode(record.value, type=PushedImage).id if record is not None else ""


async def forget_pushed(store: Store, reference: str) -> None:
    """Ask the registry for this name again; `NotFoundError` when nothing was sent under it."""
    if await store.get(_key(reference)) is None:
        raise NotFoundError(f'no image "{reference}" was pushed', hint="`korch image list` lists what was.")
    await store.delete(_key(reference))
