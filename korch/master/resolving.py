"""What an image reference stands for now: asked of a node that may run what wants it, as soon as one answers."""

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

from korch.errors import CommandFailedError, HostUnreachableError, InvalidError, KorchError, RolloutFailedError, at
from korch.master.fleet import Fleet
from korch.master.hosting import may_run
from korch.nodes.machine import Machine
from korch.resources.meta import Object
from korch.resources.node import Node

_ASKED = 3  # nodes, before the first one's answer is taken for true


class Resolver:
    """Asks nodes about images. `led`: a master looks after them, so those that it calls Ready are asked.

    `on_asking` hears the name of each node before it is asked.
    """

    def __init__(self, fleet: Fleet, *, led: bool, on_asking: Callable[[str], None] | None = None) -> None:
        self._fleet, self._led, self._on_asking = fleet, led, on_asking
        self._refused = False  # a node that must not pull

    async def exact(self, image: str, auth: bytes | None, *, pull: bool, of: Object | None) -> str:
        """The exact image. Nodes that may not run `of` are never made to pull; when no other answers, what they hold
        counts."""
        found = await self._first(image, auth, pull=pull, suits=lambda node: self._may_pull(of, node))
        if isinstance(found, str):
            return found
        if not found and self._refused:
            held = await self._first(image, auth, pull=False, suits=None)
            if isinstance(held, str):
                return held
        raise found[0] if found else await self._nobody(image, of)

    def _may_pull(self, of: Object | None, node: Node) -> bool:
        may = node.metadata.name in self._fleet.listed and (of is None or may_run(of, node))
        self._refused |= not may
        return may

    async def _first(
        self, image: str, auth: bytes | None, *, pull: bool, suits: Callable[[Node], bool] | None
    ) -> str | Sequence[KorchError]:
        """The first answer, or why the nodes that were asked could not give one."""
        loading: asyncio.Future[object] | None = None
        problems: list[KorchError] = []
        try:
            async with aclosing(self._machines(suits)) as machines:
                async for machine in machines:
                    if loading is None:  # needed next, and loaded while the nodes work
                        loop = asyncio.get_running_loop()
                        loading = loop.run_in_executor(None, importlib.import_module, "korch.master.oneshot")
                    if self._on_asking is not None:
                        self._on_asking(machine.host)
                    try:
                        return await _exact(machine, image, auth, pull=pull)
                    except InvalidError:
                        raise
                    except KorchError as error:
                        problems.append(error)
                    if len(problems) == _ASKED:
                        break
        finally:
            if loading is not None:
                await loading
        return problems

    async def _machines(self, suits: Callable[[Node], bool] | None) -> AsyncGenerator[Machine, None]:
        async with aclosing(self._fleet.recorded(suits) if self._led else self._fleet.usable(suits)) as machines:
            async for machine in machines:
                yield machine

    async def _nobody(self, image: str, of: Object | None) -> KorchError:
        hint = "Look at them with `korch nodes` and `korch node check`."
        if not self._led:
            await self._fleet.contacts(claim=False)  # to know what is wrong with the others, too
        problems = [at(name, error) for name, error in sorted(self._fleet.problems.items())]
        why = await self._fleet.why_nowhere(of) if self._refused and of is not None else ""
        if why:
            text = f'no node may run image "{image}", nor has it: {why}'
            return RolloutFailedError(text, hint=". ".join((*problems[:3], hint)))
        told = "; ".join(problems[:3]) or "none is Ready"
        return HostUnreachableError(f"no node can be worked with: {told}", host="", hint=hint)


async def _exact(machine: Machine, image: str, auth: bytes | None, *, pull: bool) -> str:
    """What a reference stands for on one machine: its registry's word, else what the machine holds."""
    if not pull:
        return (await machine.resolve_image(image, pull="Never")).pinned
    if "@sha256:" in image or image.startswith("sha256:"):
        return (await machine.resolve_image(image, auth=auth)).pinned
    try:
        found = await machine.resolve_image(image, auth=auth, pull="Always")
        # Podman lists a digest for each archive that was loaded with the same id, too: no registry has those.
        for reference in (found.pinned, *found.rivals) if found.rivals else ():
            with suppress(CommandFailedError):
                return (await machine.resolve_image(reference, auth=auth, pull="Always")).pinned
        return found.pinned
    except CommandFailedError:
        with suppress(CommandFailedError):
            return (await machine.resolve_image(image, auth=auth, pull="Never")).pinned
        raise
