"""The lines of both engines' event streams, as they really print them."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.engines.events import EngineEvent, events, parse_event
from korch.engines.names import Identity, labels_of

IDENTITY = Identity("c1", "default", "web-1", "u-1", "web", "web", 2, "h")
LABELS = labels_of(IDENTITY)
ID = "e564a88e52311c9f"


def docker(action: str, **attributes: str) -> str:
    data = {"Status": action, "ID": ID, "TimeNano": 1795435401825974491}
    return json.dumps(data | {"Attributes": {"name": "korch_1", "image": "web:1", **LABELS, **attributes}})


def podman(status: str, **more: object) -> str:
    data = {"ID": ID, "Image": "web:1", "Name": "korch_1", "Status": status, "Time": "2026-11-23T12:03:34.5Z"}
    return json.dumps(data | {"Type": "container", "Attributes": LABELS, **more})


@pytest.mark.parametrize(
    ("line", "action", "exit_code", "health"),
    [
        (docker("start"), "start", None, ""),
        (docker("die", exitCode="137", execDuration="3"), "die", 137, ""),
        (docker("die"), "die", None, ""),
        (docker("die", exitCode="soon"), "die", None, ""),
        (docker("oom"), "oom", None, ""),
        (docker("stop"), "stop", None, ""),
        (docker("destroy"), "remove", None, ""),
        (docker("health_status: unhealthy"), "health", None, "unhealthy"),
        (podman("died", ContainerExitCode=143), "die", 143, ""),
        (podman("died"), "die", None, ""),
        (podman("start", ContainerExitCode=0), "start", None, ""),
        (podman("remove"), "remove", None, ""),
        (podman("health_status", HealthStatus="healthy"), "health", None, "healthy"),
    ],
)
def test_what_a_line_means(line: str, action: str, exit_code: int | None, health: str) -> None:
    event = parse_event(line)
    assert event is not None
    assert (event.action, event.exit_code, event.health) == (action, exit_code, health)
    assert (event.id, event.name, event.identity) == (ID, "korch_1", IDENTITY)
    assert (event.uid, event.container) == ("u-1", "web")


def test_times_are_the_nodes_seconds() -> None:
    assert [parse_event(line).at for line in (docker("start"), podman("start"))] == [  # type: ignore[union-attr]
        pytest.approx(1795435401.826, abs=0.001),
        pytest.approx(1795435414.5),
    ]


@pytest.mark.parametrize(
    "line",
    ["", "Killed", "[]", "{}", "null", docker("exec_die"), docker("kill"), podman("cleanup"), '{"Status":"start"}'],
)
def test_other_lines_mean_nothing(line: str) -> None:
    assert parse_event(line) is None


VALUES = st.text() | st.integers() | st.floats() | st.lists(st.text())
OBJECTS = st.dictionaries(st.sampled_from(["Status", "ID", "Attributes", "TimeNano", "Time"]), VALUES)


@given(st.text() | OBJECTS.map(lambda data: json.dumps({"ID": "x", "Status": "start"} | data)))
def test_no_line_is_an_error(line: str) -> None:
    assert isinstance(parse_event(line), EngineEvent | None)


def test_the_words_ask_for_this_clusters_containers_and_for_no_execs() -> None:
    for engine, died in (("docker", "event=die"), ("podman", "event=died")):
        words = events(engine, "c1")  # type: ignore[arg-type]
        assert words[:2] == (engine, "events")
        asked = {value for flag, value in pairwise(words) if flag == "--filter"}
        assert {"type=container", "label=korch.dev/cluster=c1", died} <= asked
        assert not any("exec" in word for word in asked)
