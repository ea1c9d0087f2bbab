"""The inventory of a running master: which changes are taken up, and which leave it as it was."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from korch.master.cluster import Cluster, open_cluster, set_inventories
from korch.master.sources import Sources, marks_of
from korch.settings import Settings


def write(path: Path, *names: str, **more: str) -> None:
    hosts = "".join(f"    {name}:\n      ansible_host: 10.0.0.{number}\n" for number, name in enumerate(names, 1))
    path.write_text("all:\n  hosts:\n" + hosts + "".join(f"  {key}: {text}\n" for key, text in more.items()))


def replace(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def run(tmp_path: Path, body: Any) -> None:
    path = tmp_path / "hosts.yml"
    write(path, "n1", "n2")

    async def main() -> None:
        async with open_cluster(Settings(home=tmp_path / "home", cluster="c", inventories=(str(path),))) as cluster:
            await body(cluster, Sources(cluster), path)

    asyncio.run(main())


def names(cluster: Cluster | None) -> list[str] | None:
    return None if cluster is None else [host.name for host in cluster.hosts().hosts]


def test_a_change_is_taken_once_it_stands_still(tmp_path: Path) -> None:
    async def body(_: Cluster, sources: Sources, path: Path) -> None:
        assert await sources.look() is None
        write(path, "n1", "n2", "n3")
        assert await sources.look() is None, "somebody may still be writing"
        assert names(await sources.look()) == ["n1", "n2", "n3"]
        assert await sources.look() is None
        write(path, "n1")
        await sources.look()
        assert names(await sources.look()) == ["n1"]
        write(path, "n1", "n4")
        assert names(await sources.look(at_once=True)) == ["n1", "n4"]
        assert names(sources.cluster) == ["n1", "n4"]

    run(tmp_path, body)


@pytest.mark.parametrize("text", ["", "all: [\n", "all:\n  hosts: {}\n"])
def test_what_cannot_be_read_is_told_once_and_changes_nothing(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(_: Cluster, sources: Sources, path: Path) -> None:
        replace(path, text)
        for _ in range(4):
            assert await sources.look() is None
        replace(path, None)
        for _ in range(4):
            assert await sources.look() is None
        write(path, "n1", "n2")
        assert [await sources.look() for _ in range(3)] == [None] * 3, "it is what it was"
        write(path, "n2")
        await sources.look()
        assert names(await sources.look()) == ["n2"]

    with caplog.at_level(logging.WARNING):
        run(tmp_path, body)
    assert len([line for line in caplog.messages if "stays as it was" in line]) == 2


def test_variables_beside_it_count_and_so_does_another_recorded_inventory(tmp_path: Path) -> None:
    async def body(cluster: Cluster, sources: Sources, path: Path) -> None:
        folder = path.parent / "host_vars"
        folder.mkdir()
        (folder / "n2.yml").write_text("ansible_host: 10.0.0.9\n")
        await sources.look()
        changed = await sources.look()
        assert changed is not None
        assert [host.address for host in changed.hosts().hosts] == ["10.0.0.1", "10.0.0.9"]
        other = path.with_name("other.yml")
        write(other, "m1")
        await set_inventories(cluster.store, (str(other),))
        await sources.look()
        changed = await sources.look()
        assert names(changed) == ["m1"]
        assert changed is not None
        assert changed.record.inventories == (str(other),)

    run(tmp_path, body)


def test_a_program_is_asked_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "inventory.py"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    first = marks_of((str(path),), tmp_path, 0.0)
    assert marks_of((str(path),), tmp_path, 1.0) == first
    assert marks_of((str(path),), tmp_path, 60.0) != first
    path.chmod(0o644)
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert marks_of((str(path),), tmp_path, 0.0) == marks_of((str(path),), tmp_path, 60.0)


def test_a_plain_list_and_a_missing_file_have_marks_too(tmp_path: Path) -> None:
    assert marks_of(("root@10.0.0.1,",), tmp_path, 0.0) == marks_of(("root@10.0.0.1,",), tmp_path, 60.0)
    missing = marks_of((str(tmp_path / "none.yml"),), tmp_path, 0.0)
    write(tmp_path / "none.yml", "n1")
    assert marks_of((str(tmp_path / "none.yml"),), tmp_path, 0.0) != missing
