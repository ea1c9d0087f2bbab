"""An image on the caller's machine: in its engine's store, or in an archive file. Read as `docker save` writes it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from korch.client.base import ImageSource
from korch.engines.images import check_reference, image_template, is_image_id, parse_image, qualified
from korch.engines.wish import EngineName
from korch.errors import CommandFailedError, InvalidError, NotFoundError, SetupError

PIECE_BYTES = 256 * 1024
ASK_S = 30.0
Pieces = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]


def from_engine(image: str) -> ImageSource:
    """The image as the first engine here that has it knows it. `SetupError` without any, `NotFoundError`."""
    check_reference(image)
    wanted = image if is_image_id(image) or "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
    silent: list[str] = []
    asked: list[str] = []
    engines: tuple[EngineName, ...] = ("docker", "podman")
    for engine in engines:
        try:
            done = _inspect(engine, wanted)
        except FileNotFoundError:
            continue
        except subprocess.TimeoutExpired:
            silent.append(f"{engine} gave no answer for {ASK_S:.0f} s")
            continue
        line = next((line for line in done.stdout.splitlines() if line.startswith("{")), "")
        if done.returncode == 0 and line:
            return _source(engine, wanted, line)
        if "no such image" in done.stderr.lower() or "image not known" in done.stderr.lower():
            asked.append(engine)
        else:
            silent.append(f"{engine}: {done.stderr.strip()[-200:] or 'it does not answer'}")
    if asked:
        raise NotFoundError(
            f'image "{image}" is not on this machine (asked: {", ".join(asked)})',
            hint=f"`{asked[0]} images` lists what is. An image file: korch image push --archive FILE.",
        )
    reason = "; ".join(silent) or "neither Docker nor Podman is installed here"
    raise SetupError(
        f'image "{image}" cannot be read: {reason}',
        hint="Save it elsewhere (`docker save -o FILE IMAGE`) and send the file: korch image push --archive FILE.",
    )


def _inspect(engine: EngineName, image: str) -> subprocess.CompletedProcess[str]:
    words = (engine, "image", "inspect", "--format", image_template(engine), image)
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=ASK_S, check=False
    )


def _source(engine: EngineName, wanted: str, line: str) -> ImageSource:
    """The image under the name that its archive will carry (Podman's is `localhost/NAME` for what it built), and under
    the name that was asked for."""
    found = parse_image(line, wanted)
    name = wanted
    if engine == "podman" and not is_image_id(wanted):
        tags = [str(tag) for tag in json.loads(line).get("Tags") or ()]
        same = [tag for tag in tags if tag in {wanted, qualified(wanted), f"localhost/{wanted}"}]
        name = same[0] if same else wanted
    references = () if is_image_id(name) or "@" in name else tuple(dict.fromkeys((name, wanted)))
    kind = ("--format", "docker-archive") if engine == "podman" else ()
    words = (engine, "save", *kind, references[0] if references else found.id)
    return ImageSource(found.id, references, _saved(words), found.size_bytes)


def _saved(words: tuple[str, ...]) -> Pieces:
    """The output of an engine's `save`, never on a disk here."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, limit=PIECE_BYTES
        )
        assert process.stdout is not None
        assert process.stderr is not None
        complaint = asyncio.create_task(process.stderr.read())

        async def pieces() -> AsyncIterator[bytes]:
            assert process.stdout is not None
            while piece := await process.stdout.read(PIECE_BYTES):
                yield piece
            if await process.wait() != 0:
                text = (await complaint).decode("utf-8", "replace").strip()[-300:]
                raise CommandFailedError(
                    f"{words[0]} save: {text}", host="this machine", status=process.returncode or -1
                )

        try:
            yield pieces()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await complaint

    return opened


def from_archive(path: Path) -> ImageSource:
    """The image in a file that `docker save` wrote; compressed ones, too."""
    try:
        with tarfile.open(path, "r:*") as archive:
            manifest = archive.extractfile("manifest.json")
            entries = json.loads(manifest.read()) if manifest is not None else []
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror or error}") from error
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise InvalidError(f"{path} is not an image archive", hint="`docker save -o FILE IMAGE` writes one.") from error
    if not isinstance(entries, list) or len(entries) != 1:
        raise InvalidError(
            f"{path} holds {len(entries)} images; one is sent at a time",
            hint="Save them one by one: docker save -o FILE IMAGE",
        )
    config = str(entries[0].get("Config", "")).rpartition("/")[2].removesuffix(".json")
    references = tuple(str(tag) for tag in entries[0].get("RepoTags") or ())
    return ImageSource(f"sha256:{config}", references, _file(path), path.stat().st_size)


def _file(path: Path) -> Pieces:
    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[bytes]]:
        with path.open("rb") as file:

            async def pieces() -> AsyncIterator[bytes]:
                while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                    yield piece

            yield pieces()

    return opened
