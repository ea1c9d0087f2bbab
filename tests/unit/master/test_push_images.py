"""An image is read once and reaches every node that lacks it, whatever becomes of the others."""

import asyncio
import json
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from korch.cli.image_source import from_archive, from_engine
from korch.client.base import ImageSource
from korch.engines.images import ImageInfo
from korch.errors import CommandFailedError, HostUnreachableError, InvalidError, KorchError, NotFoundError, SetupError
from korch.inventory.model import Host, Inventory
from korch.master import images
from korch.objects.objects import SystemClock
from tests.unit.objects.memory_store import MemoryStore

ID = "sha256:" + "a" * 64
DATA = [bytes([number]) * 1000 for number in range(40)]


class FakeMachine:
    """A node's engine. `fails_after`: it takes so many bytes, then complains; `stalls`: it takes none."""

    def __init__(self, *, has: str = "", fails_after: int | None = None, stalls: bool = False) -> None:
        self.id, self.fails_after, self.stalls = has, fails_after, stalls
        self.got = b""

    async def resolve_image(self, image: str, *, pull: str) -> ImageInfo:
        assert pull == "Never"
        if not self.id:
            raise CommandFailedError("no such image", host="n")
        return ImageInfo(image, self.id, None, "amd64")

    async def load_image(self, source: AsyncIterator[bytes]) -> tuple[ImageInfo, ...]:
        if self.stalls:
            await asyncio.sleep(3600)
        async for piece in source:
            self.got += piece
            if self.fails_after is not None and len(self.got) > self.fails_after:
                raise CommandFailedError("disk full", host="n")
        self.id = ID
        return (ImageInfo("web:1", ID, None, "amd64"),)


class FakeFleet:
    def __init__(self, machines: dict[str, FakeMachine], problems: dict[str, KorchError] | None = None) -> None:
        self.machines, self.problems = machines, problems or {}

    async def contacts(self, *, claim: bool) -> dict[str, Any]:
        return {name: SimpleNamespace(machine=machine) for name, machine in self.machines.items()}


class Source:
    """An image in pieces; counts how often it is read."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.opened = self.closed = 0
        self.breaks = breaks

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        self.opened += 1

        async def pieces() -> AsyncIterator[bytes]:
            for piece in DATA:
                yield piece
            if self.breaks:
                raise CommandFailedError("docker save: it broke", host="here")

        try:
            yield pieces()
        finally:
            self.closed += 1

    def image(self) -> ImageSource:
        return ImageSource(ID, ("web:1",), self.open, 40_000)


def push(fleet: FakeFleet, source: Source, pattern: str = "", store: MemoryStore | None = None) -> dict[str, Any]:
    """Results by node."""
    names = [*fleet.machines, *fleet.problems]
    hosts = tuple(Host(name=name, address=name) for name in names)
    inventory = Inventory(hosts, {"all": tuple(names), "ungrouped": tuple(names)})
    cluster: Any = SimpleNamespace(hosts=lambda: inventory, store=store or MemoryStore(), clock=SystemClock())

    async def main() -> dict[str, Any]:
        async with asyncio.timeout(20):
            found = await images.push(cluster, fleet, source.image(), pattern, lambda node, count: None)  # type: ignore[arg-type]
        return {result.node: result for result in found}

    return asyncio.run(main())


def test_only_nodes_that_lack_it_get_it_and_it_is_read_once() -> None:
    machines = {"n1": FakeMachine(), "n2": FakeMachine(has=ID), "n3": FakeMachine(has="sha256:" + "b" * 64)}
    source = Source()
    results = push(FakeFleet(machines), source)
    assert {name: found.result for name, found in results.items()} == {"n1": "sent", "n2": "present", "n3": "sent"}
    assert machines["n1"].got == machines["n3"].got == b"".join(DATA)
    assert machines["n2"].got == b""
    assert (source.opened, source.closed) == (1, 1)


def test_nothing_is_read_when_every_node_has_it() -> None:
    source = Source()
    push(FakeFleet({"n1": FakeMachine(has=ID)}), source)
    assert source.opened == 0


def test_a_node_that_fails_half_way_stops_nobody() -> None:
    machines = {"n1": FakeMachine(fails_after=3000), "n2": FakeMachine()}
    results = push(FakeFleet(machines), Source())
    assert results["n1"].result == "failed"
    assert "disk full" in str(results["n1"].error)
    assert results["n2"].result == "sent"


def test_a_node_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "STALLED_S", 0.2)
    machines = {"n1": FakeMachine(stalls=True), "n2": FakeMachine()}
    results = push(FakeFleet(machines), Source())
    assert isinstance(results["n1"].error, HostUnreachableError)
    assert "took no data" in str(results["n1"].error)
    assert results["n2"].result == "sent"


def test_nodes_that_are_not_there_are_results_too() -> None:
    gone = HostUnreachableError("n9: no answer", host="n9")
    results = push(FakeFleet({"n1": FakeMachine()}, {"n9": gone}), Source())
    assert results["n9"].error is gone
    assert results["n1"].result == "sent"


def test_a_pattern_chooses_the_nodes() -> None:
    machines = {"n1": FakeMachine(), "n2": FakeMachine()}
    assert list(push(FakeFleet(machines), Source(), "n2")) == ["n2"]
    assert machines["n1"].got == b""


def test_a_source_that_breaks_ends_everything() -> None:
    machines, source = {"n1": FakeMachine()}, Source(breaks=True)
    with pytest.raises(CommandFailedError, match="it broke"):
        push(FakeFleet(machines), source)
    assert source.closed == 1


def test_what_was_sent_is_meant_by_its_name_until_it_is_forgotten() -> None:
    store = MemoryStore()
    push(FakeFleet({"n1": FakeMachine()}), Source(), store=store)

    async def look() -> None:
        assert await images.pushed_id(store, "web:1") == ID
        assert await images.pushed_id(store, "docker.io/library/web:1") == ID
        assert await images.pushed_id(store, "web") == ""
        assert [found.reference for found in await images.pushed_images(store)] == ["web:1"]
        await images.forget_pushed(store, "web:1")
        assert await images.pushed_id(store, "web:1") == ""
        with pytest.raises(NotFoundError):
            await images.forget_pushed(store, "web:1")

    asyncio.run(look())


def test_nodes_whose_engines_number_images_differently_find_it_by_name() -> None:
    store, machines = MemoryStore(), {"n1": FakeMachine(), "n2": FakeMachine()}

    async def other(source: AsyncIterator[bytes]) -> tuple[ImageInfo, ...]:
        async for _ in source:
            pass
        machines["n2"].id = "sha256:" + "c" * 64
        return ()

    machines["n2"].load_image = other  # type: ignore[method-assign]
    assert {found.result for found in push(FakeFleet(machines), Source(), store=store).values()} == {"sent"}
    assert asyncio.run(images.pushed_id(store, "web:1")) == ""


# --- where it comes from ---


def engine(folder: Path, name: str, *, knows: str = "", says: str = "", tags: tuple[str, ...] = ()) -> None:
    """A program that answers as an engine on this machine would."""
    answer = json.dumps({"Id": ID, "Digests": [], "Tags": tags, "Arch": "amd64", "Size": 7})
    script = folder / name
    script.write_text(
        f"""#!/bin/sh
echo "$@" >> {folder}/calls
case "$1 $2" in
"image inspect") for last; do :; done
    [ "$last" = "{knows}" ] && echo '{answer}' && exit 0
    echo "{says}" >&2; exit 1 ;;
"save "*) echo "archive of $*" ;;
esac
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def read(source: ImageSource) -> bytes:
    async def main() -> bytes:
        async with source.open() as pieces:
            return b"".join([piece async for piece in pieces])

    return asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but a shell's needs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_first_engine_that_has_it(path: Path) -> None:
    engine(path, "docker", says="Error: No such image: web:1")
    engine(path, "podman", knows="web:1", tags=("localhost/web:1", "docker.io/library/other:1"))
    source = from_engine("web:1")
    assert (source.id, source.references) == (ID, ("localhost/web:1", "web:1"))
    assert read(source) == b"archive of save --format docker-archive localhost/web:1\n"


def test_an_image_without_a_tag_is_latest(path: Path) -> None:
    """`docker save web` would send every tag of it."""
    engine(path, "docker", knows="web:latest", tags=("web:latest",))
    source = from_engine("web")
    assert source.references == ("web:latest",)
    assert read(source) == b"archive of save web:latest\n"


def test_no_engine_here(path: Path) -> None:
    with pytest.raises(SetupError, match="neither Docker nor Podman") as caught:
        from_engine("web:1")
    assert "--archive" in caught.value.hint


def test_an_engine_that_does_not_answer(path: Path) -> None:
    engine(path, "docker", says="Cannot connect to the Docker daemon")
    with pytest.raises(SetupError, match="Cannot connect"):
        from_engine("web:1")


def test_nobody_here_has_it(path: Path) -> None:
    engine(path, "docker", says="Error: No such image: web:1")
    with pytest.raises(NotFoundError, match="asked: docker"):
        from_engine("web:1")


def test_a_save_that_fails_is_an_error(path: Path) -> None:
    engine(path, "docker", knows="web:1", tags=("web:1",))
    source = from_engine("web:1")
    (path / "docker").write_text("#!/bin/sh\necho half; echo 'no space left' >&2; exit 1\n")
    with pytest.raises(CommandFailedError, match="no space left"):
        read(source)


def test_hostile_names_never_reach_an_engine(path: Path) -> None:
    engine(path, "docker", knows="x")
    for name in ("--all", "-v", "web;rm", "$(x)", "a b", "../x"):
        with pytest.raises(InvalidError):
            from_engine(name)
    assert not (path / "calls").exists()


def archive(path: Path, entries: object, mode: str = "w") -> Path:
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps(entries))
    with tarfile.open(path / "image.tar", mode) as tar:  # type: ignore[call-overload]
        tar.add(manifest, "manifest.json")
    return path / "image.tar"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("config", ["a" * 64 + ".json", "blobs/sha256/" + "a" * 64])
def test_an_archive_tells_its_id_and_names(tmp_path: Path, mode: str, config: str) -> None:
    file = archive(tmp_path, [{"Config": config, "RepoTags": ["web:1"]}], mode)
    source = from_archive(file)
    assert (source.id, source.references) == (ID, ("web:1",))
    assert read(source) == file.read_bytes()


def test_files_that_are_no_image(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(InvalidError, match="not an image archive"):
        from_archive(text)
    with pytest.raises(NotFoundError):
        from_archive(tmp_path / "none")
    with pytest.raises(InvalidError, match="2 images"):
        from_archive(archive(tmp_path, [{}, {}]))
