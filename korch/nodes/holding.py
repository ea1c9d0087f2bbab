"""The images that one node holds: asked for, brought, loaded, and let go again."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterable, Collection
from dataclasses import replace

from korch.engines import sandbox
from korch.engines.images import (
    LIST_TEMPLATE,
    ImageInfo,
    check_reference,
    engine_reference,
    image_template,
    parse_image,
    parse_image_list,
    prunable,
)
from korch.engines.observed import image_id
from korch.errors import CommandFailedError, HostRefusedError
from korch.nodes.errors import engine_error
from korch.nodes.looking import Looking
from korch.nodes.parcels import sandbox_values
from korch.ssh.base import Result


class Holding(Looking):
    """One node and its images."""

    async def resolve_image(self, image: str, *, auth: bytes | None = None, pull: str = "IfNotPresent") -> ImageInfo:
        """What a reference means on this node: id and digest. `pull`: "IfNotPresent", "Always" or "Never"."""
        return await self._image(image, auth, pull, 600.0)

    async def pull(
        self, image_ref: str, *, auth: bytes | None = None, policy: str = "IfNotPresent", timeout_s: float = 600.0
    ) -> ImageInfo:
        """Have the image there. Ids that this brings are recorded: only those may be pruned. `policy`: as in a pod."""
        return await self._image(image_ref, auth, policy, timeout_s)

    async def _image(self, image: str, auth: bytes | None, policy: str, timeout_s: float) -> ImageInfo:
        check_reference(image)
        assumed = self._assumed
        try:
            return await self._image_once(image, auth, policy, timeout_s)
        except HostRefusedError:
            if not assumed:
                raise
        self._known = self._known and not self._assumed  # what was assumed is wrong: look, then try once more
        return await self._image_once(image, auth, policy, timeout_s)

    async def _image_once(self, image: str, auth: bytes | None, policy: str, timeout_s: float) -> ImageInfo:
        engine = await self._settled()
        answer = await self._courier.ask(
            "image",
            *self._courier.ownership,
            engine_reference(engine, image),
            policy,
            image_template(engine),
            "0" if auth is None else "1",
            self._data_folder or "/var/lib",
            stdin=auth,
            timeout_s=timeout_s,
        )
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, "", failed.text, step="pull", engine=engine, image=image)
        found = answer.first("image")
        line = next((line for line in (found.lines if found else ()) if line.startswith("{")), None)
        if line is None:
            raise CommandFailedError(f'{self.host}: {engine} does not describe image "{image}"', host=self.host)
        info = parse_image(line, image)
        loaded = {image_id(name.removeprefix("sha256:")) for name in self._lines(answer, "loaded")}
        return replace(info, digest_ref=None) if info.id in loaded else info

    async def load_image(self, source: AsyncIterable[bytes], *, timeout_s: float = 3600.0) -> tuple[ImageInfo, ...]:
        """Load an archive (`docker save`) that comes in pieces; the images in it. Ids it brings are recorded."""
        engine = await self._settled()
        script = self._courier.script("load", *self._courier.ownership, timeout_s=timeout_s)
        async with self.transport.stream(script, become=self._courier.become) as stream:

            async def feed() -> None:
                with contextlib.suppress(BrokenPipeError):
                    async for piece in source:
                        await stream.write(piece)
                    await stream.write_eof()

            feeding = asyncio.create_task(feed(), name=f"image to {self.host}")
            out, err = bytearray(), bytearray()
            try:
                async for number, data in stream.chunks():
                    (out if number == 1 else err).extend(data)
                await feeding
            finally:
                feeding.cancel()
            result = Result(await stream.wait(), bytes(out), bytes(err))
        answer = self._courier.read(result, timeout_s=timeout_s)
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, "the image", failed.text, step="load", engine=engine)
        loaded = answer.first("loaded")
        names = loaded_names(loaded.text if loaded else "")
        return tuple([await self.resolve_image(name, pull="Never") for name in names])

    async def bring_sandbox(self) -> None:
        """Have the image of sandboxes there, without any registry. Repeating is safe."""
        engine = await self._settled()
        words = (*self._courier.ownership, sandbox.image_name(), sandbox.PROGRAM)
        answer = await self._courier.ask("sandbox", *words, stdin=sandbox_values(), timeout_s=60.0)
        failed = answer.first("failed")
        if failed is not None:
            what = "the image of the pod's sandbox"
            raise engine_error(self.host, what, failed.text, step="load", engine=engine)

    async def prune(self, keep_refs: Collection[str], *, epoch: int) -> tuple[str, ...]:
        """Remove images that korch brought and nobody uses or wants (`keep_refs`); the ids that are gone."""
        engine = await self._settled()
        answer = await self._courier.ask("prune-look", LIST_TEMPLATE, timeout_s=60.0)
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, "the images", failed.text, step="look", engine=engine)
        brought, used, held = (self._lines(answer, word) for word in ("brought", "used", "images"))
        ids = prunable(
            [image_id(line) for line in brought],
            parse_image_list("\n".join(held)),
            {image_id(line) for line in used},
            set(keep_refs),
        )
        if not ids:
            return ()
        gone = await self._courier.ask(
            "prune", str(epoch), *self._courier.ownership, *ids, timeout_s=300.0, epoch=epoch
        )
        return self._lines(gone, "pruned")


def loaded_names(text: str) -> tuple[str, ...]:
    """The images that `docker load` or `podman load` says it has loaded."""
    names: list[str] = []
    for line in text.splitlines():
        match = re.match(r"Loaded image(?: ID|\(s\))?: (.+)", line.strip())
        if match:
            names += [image_id(name.strip()) for name in match[1].split(",")]
    return tuple(dict.fromkeys(names))
