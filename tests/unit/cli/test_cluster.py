import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from korch.errors import ForbiddenError, NotFoundError, StoreError

from .world import World, a_node, a_pod


def test_list_marks_the_current_one_and_survives_a_damaged_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put(a_node("n1"))
    (world.home / "clusters" / "broken").mkdir()
    (world.home / "clusters" / "broken" / "state.db").write_text("")
    real = world.open_client

    async def open_client(settings: Any, **options: Any) -> Any:
        if settings.cluster == "broken":
            raise StoreError("state.db is damaged")
        return await real(settings, **options)

    monkeypatch.setattr(sys.modules["korch.master.local"], "open_client", open_client)
    result = world.run("cluster", "list")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[1] == ["broken", "(state.db", "is", "damaged)"]
    assert rows[2] == ["*", "default", "/hosts.yml", "2026-01-01T00:00:00Z", "-"]


def test_list_without_any(world: World) -> None:
    result = world.run("cluster", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "korch -i hosts.yml nodes" in result.stderr


def test_show(world: World) -> None:
    world.put(a_node("n1"), a_pod("web-1"), a_pod("web-2"))
    text = world.run("cluster", "show").stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["Id:", "cluster-id"] in lines
    assert ["Pods:", "2"] in lines
    assert ["Folder:", str(world.home / "clusters" / "default")] in lines
    data = json.loads(world.run("cluster", "show", "-o", "json").stdout)
    assert data["holds"] == {"nodes": 1, "deployments": 0, "pods": 2}


def test_set_inventory_needs_one(world: World) -> None:
    world.put(a_node("n1"))
    assert world.run("cluster", "set-inventory").exit_code == 2


@pytest.fixture
def removed(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    calls: list[tuple[str, bool]] = []

    async def remove_cluster(settings: Any, *, force: bool) -> tuple[str, ...]:
        if not force:
            raise ForbiddenError("it has workloads", hint="--force")
        calls.append((settings.cluster, force))
        return ("n3: no answer; what it holds of this cluster stays",)

    monkeypatch.setattr("korch.master.cluster.remove_cluster", remove_cluster, raising=False)
    return calls


def test_rm(world: World, removed: list[tuple[str, bool]]) -> None:
    world.put(a_node("n1"))
    assert world.run("cluster", "rm", "--yes").exit_code == ForbiddenError.exit_code
    result = world.run("cluster", "rm", "--force", "--yes")
    assert (result.exit_code, result.stdout) == (0, "cluster/default removed\n")
    assert result.stderr == "Note: n3: no answer; what it holds of this cluster stays\n"
    assert removed == [("default", True)]


def test_rm_asks_nobody_without_a_terminal(world: World, removed: list[tuple[str, bool]]) -> None:
    world.put(a_node("n1"))
    result = world.run("cluster", "rm", "--force")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert removed == []


def test_rm_of_an_unknown_cluster(world: World) -> None:
    assert world.run("cluster", "rm", "--yes").exit_code == NotFoundError.exit_code


def test_another_inventory_is_refused_until_it_is_set(tmp_path: Path) -> None:
    """With the real client: the first inventory is recorded, another one needs `set-inventory`."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yml").write_text(f"all: {{hosts: {{{name}1: {{ansible_host: 192.0.2.1}}}}}}\n")

    def korch(*args: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "korch", *args]
        environ = {"KORCH_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert korch("get", "pods", "-i", "a.yml").returncode == 0
    refused = korch("get", "pods", "-i", "b.yml")
    assert refused.returncode == ForbiddenError.exit_code
    assert "korch cluster set-inventory -i" in refused.stderr
    changed = korch("cluster", "set-inventory", "-i", "b.yml")
    assert changed.stdout == f"cluster/default uses {tmp_path}/b.yml\n"
    assert korch("get", "pods", "-i", "b.yml").returncode == 0
    assert korch("get", "pods").returncode == 0
    listed = korch("cluster", "list").stdout.splitlines()[1].split()
    assert listed[:3] == ["*", "default", f"{tmp_path}/b.yml"]
