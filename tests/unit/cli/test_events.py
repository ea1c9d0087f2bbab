import asyncio
import json
import os
import signal

import pytest

from korch.errors import InvalidError
from korch.resources.meta import ObjectReference
from korch.resources.misc import Event

from .world import World, ago, meta


def _event(kind: str, name: str, *, seconds: int = 60, type_: str = "Normal", namespace: str = "default") -> Event:
    return Event(
        metadata=meta(f"{name}.{kind}.{seconds}".lower(), namespace=namespace),
        involved_object=ObjectReference(kind=kind, name=name),
        reason="Happened",
        message=f"to {name}",
        type=type_,
        count=1,
        last_timestamp=ago(seconds),
    )


@pytest.fixture
def events(world: World) -> World:
    world.put(
        _event("Pod", "web-bcdfghjklm-x2x9k", seconds=10),
        _event("ReplicaSet", "web-bcdfghjklm", seconds=20),
        _event("Deployment", "web", seconds=30, type_="Warning"),
        _event("Deployment", "web-api", seconds=40),
        _event("Pod", "web-api-bcdfghjklm-x2x9k", seconds=50),
        _event("Pod", "x", seconds=60, namespace="team"),
    )
    return world


def _objects(text: str, column: int = 3) -> list[str]:
    return [line.split()[column] for line in text.splitlines()[1:]]


def test_the_newest_is_last(events: World) -> None:
    text = events.run("events").stdout
    assert text.splitlines()[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert _objects(text)[-1] == "pod/web-bcdfghjklm-x2x9k"
    assert len(_objects(text)) == 5


def test_events_of_a_deployment_include_what_it_owns_and_nothing_of_a_namesake(events: World) -> None:
    assert _objects(events.run("events", "--for", "deploy/web").stdout) == [
        "deployment/web",
        "replicaset/web-bcdfghjklm",
        "pod/web-bcdfghjklm-x2x9k",
    ]


def test_events_of_one_second_come_in_the_order_of_their_writing(world: World) -> None:
    world.put(_event("Pod", "z", seconds=5), _event("Pod", "a", seconds=5))
    assert _objects(world.run("events").stdout) == ["pod/z", "pod/a"]


def test_events_of_a_pod(events: World) -> None:
    assert len(_objects(events.run("events", "--for", "pod/web-bcdfghjklm-x2x9k").stdout)) == 1


def test_only_warnings(events: World) -> None:
    assert _objects(events.run("events", "--types", "Warning").stdout) == ["deployment/web"]


def test_all_namespaces(events: World) -> None:
    assert "team" in events.run("events", "-A").stdout


def test_json(events: World) -> None:
    assert len(json.loads(events.run("events", "-o", "json").stdout)["items"]) == 5


def test_none(world: World) -> None:
    result = world.run("events")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No events found.\n")


@pytest.mark.parametrize(
    ("args", "code"),
    [(("--for", "web"), 2), (("--for", "widget/web"), InvalidError.exit_code), (("-w", "-o", "json"), 2)],
    ids=["no kind", "unknown kind", "watch as json"],
)
def test_bad_input(world: World, args: tuple[str, ...], code: int) -> None:
    assert world.run("events", *args).exit_code == code


def test_watch_prints_new_ones(events: World) -> None:
    async def later() -> None:
        async with events.objects() as objects:
            await objects.restore(_event("Pod", "fresh", seconds=0, type_="Warning"))
            await objects.restore(_event("Pod", "boring", seconds=0))
            await asyncio.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    async def start() -> None:
        events.background = asyncio.create_task(later())  # type: ignore[attr-defined]

    events.on_open = start
    result = events.run("events", "-w", "--types", "Warning")
    assert result.exit_code == 130
    assert _objects(result.stdout) == ["deployment/web", "pod/fresh"]
