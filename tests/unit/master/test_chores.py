"""When a master tidies up: after a quiet minute, and at last also where it is never quiet."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from korch.master import chores
from korch.master.background import background
from korch.objects.objects import Change
from korch.resources.meta import ObjectMeta
from korch.resources.workload import ReplicaSet
from tests.unit.nodes.virtual_loop import run_virtually


def pruned_at(changes_s: tuple[float, float], for_s: float, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When images were pruned, with a change of a set every so often (pause, end)."""
    found: list[float] = []
    listeners: list[Any] = []
    pause_s, end_s = changes_s

    async def prune(*_: Any) -> None:
        found.append(asyncio.get_running_loop().time())

    async def nothing(*_: Any) -> list[str]:
        return []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        view: Any = SimpleNamespace(listen=listeners.append, all=lambda _: iter(()))
        objects = SimpleNamespace(prune_tombstones=nothing)
        cluster: Any = SimpleNamespace(objects=objects, store=None)
        made = chores.Chores(cluster, SimpleNamespace(answering={}), view, {}, lambda: 1)  # type: ignore[arg-type]
        start = loop.time()
        async with background() as group:
            group.create_task(made.run())
            while loop.time() < start + for_s:
                if loop.time() < start + end_s:
                    changed = ReplicaSet(metadata=ObjectMeta(name="web", namespace="default"))
                    listeners[0](Change("MODIFIED", changed, changed, 1))
                await asyncio.sleep(pause_s)
        found[:] = [at - start for at in found]

    monkeypatch.setattr(chores, "prune_images", prune)
    monkeypatch.setattr(chores, "keep_wishes", nothing)
    monkeypatch.setattr(chores, "is_auto", nothing)
    run_virtually(main)
    return found


def test_old_images_go_a_quiet_minute_after_the_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    (at,) = pruned_at((1.0, 100.0), 600.0, monkeypatch)
    assert 155 < at < 170


def test_a_pod_that_crashes_all_day_keeps_nobody_from_tidying_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = pruned_at((20.0, 86_400.0), 3 * 3600.0, monkeypatch)
    assert 15 <= len(times) <= 18
