"""The engines' streams of container events: the words that open one, and what its lines mean. Pure.

Only what a keeper acts on is asked for: a check by `exec` makes three events of its own, every few seconds.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from korch.engines.names import LABEL_CLUSTER, Identity, identity_of
from korch.engines.observed import parse_time
from korch.engines.wish import EngineName

Action = Literal["start", "die", "oom", "stop", "pause", "unpause", "health", "remove"]

# Docker: https://docs.docker.com/reference/cli/docker/system/events/; Podman: podman-events(1).
_ACTIONS: Final[dict[EngineName, dict[str, Action]]] = {
    "docker": {
        "start": "start",
        "die": "die",
        "oom": "oom",
        "stop": "stop",
        "pause": "pause",
        "unpause": "unpause",
        "health_status": "health",
        "destroy": "remove",
    },
    "podman": {
        "start": "start",
        "died": "die",
        "oom": "oom",
        "stop": "stop",
        "pause": "pause",
        "unpause": "unpause",
        "health_status": "health",
        "remove": "remove",
    },
}
_MEANINGS: Final = {word: action for actions in _ACTIONS.values() for word, action in actions.items()}
_TEMPLATES: Final[dict[EngineName, str]] = {
    "docker": (
        '{"Status":{{json .Action}},"ID":{{json .Actor.ID}},"TimeNano":{{json .TimeNano}},'
        '"Attributes":{{json .Actor.Attributes}}}'
    ),
    "podman": "{{json .}}",
}


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to a container. The same event may be told twice; it is a reason to look, not a record."""

    action: Action
    id: str
    name: str
    identity: Identity | None = None  # None: its labels do not say
    exit_code: int | None = None  # of "die", when the engine tells
    health: str = ""  # of "health": "healthy", "unhealthy"
    at: float | None = None  # seconds since 1970 on the node's clock

    @property
    def uid(self) -> str:
        """The pod's uid, "" when unknown."""
        return self.identity.uid if self.identity else ""

    @property
    def container(self) -> str:
        """The container's name in its pod, "" when unknown."""
        return self.identity.container if self.identity else ""


def events(engine: EngineName, cluster_id: str) -> tuple[str, ...]:
    """The words that print the cluster's container events for ever; `--since SECONDS` may be added."""
    filters = ("type=container", f"label={LABEL_CLUSTER}={cluster_id}", *(f"event={word}" for word in _ACTIONS[engine]))
    words = (word for text in filters for word in ("--filter", text))
    return (engine, "events", *words, "--format", _TEMPLATES[engine])


def parse_event(line: str) -> EngineEvent | None:
    """The event in a line of the stream; None for any other line."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if not isinstance(data, dict) or not data.get("ID"):
        return None
    word, _, health = str(data.get("Status") or "").partition(": ")
    if word not in _MEANINGS:
        return None
    notes = data.get("Attributes")
    attributes = {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}
    action = _MEANINGS[word]
    return EngineEvent(
        action=action,
        id=str(data["ID"]),
        name=str(data.get("Name") or attributes.get("name") or ""),
        identity=identity_of(attributes),
        exit_code=_number(data.get("ContainerExitCode", attributes.get("exitCode"))) if action == "die" else None,
        health=health or str(data.get("HealthStatus") or ""),
        at=_time(data),
    )


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _time(data: dict[str, Any]) -> float | None:
    """Docker tells nanoseconds, Podman an RFC 3339 time."""
    nanoseconds = _number(data.get("TimeNano"))
    return nanoseconds / 1e9 if nanoseconds is not None else parse_time(str(data.get("Time") or ""))
