from collections.abc import Iterator
from pathlib import Path

import pytest

from .world import World, installed


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KORCH_CLUSTER", "KORCH_INVENTORY", "KORCH_HOST_KEY", "KORCH_DEBUG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from installed(World(tmp_path / "home"), monkeypatch)
