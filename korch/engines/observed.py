"""What an engine says of its containers: the template that asks, the parser that reads. Pure.

The template leaves the environment out: it holds secrets, and nothing here needs it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from korch.engines.names import Identity, identity_of
from korch.engines.wish import EngineName, PublishedPort

State = Literal["created", "running", "restarting", "paused", "exited", "removing", "dead"]

_STATES: dict[str, State] = {
    "created": "created",
    "configured": "created",
    "initialized": "created",
    "running": "running",
    "stopping": "running",
    "restarting": "restarting",
    "paused": "paused",
    "exited": "exited",
    "stopped": "exited",
    "removing": "removing",
    "dead": "dead",
}


def inspect_template(engine: EngineName) -> str:
    """Go template for `inspect --format`: one line of JSON a container. Podman's fields are those of its Go struct."""
    identifier = ".Id" if engine == "docker" else ".ID"
    fields = {
        "Id": identifier,
        "Name": ".Name",
        "Image": ".Image",
        "Ref": ".Config.Image",
        "Labels": ".Config.Labels",
        "Restarts": ".RestartCount",
        "Policy": ".HostConfig.RestartPolicy.Name",
        "State": ".State",
        "Ports": ".NetworkSettings.Ports",
        "Networks": ".NetworkSettings.Networks",
        "Network": ".HostConfig.NetworkMode",
    }
    if engine == "podman":
        fields |= {"Ip": ".NetworkSettings.IPAddress", "RefName": ".ImageName"}
    return "{" + ",".join(f'"{key}":{{{{json {path}}}}}' for key, path in fields.items()) + "}"


@dataclass(frozen=True, slots=True)
class ObservedContainer:
    """One container as the engine reports it. Times are seconds since 1970 on the node's clock."""

    id: str
    name: str
    image: str  # as it was asked for
    image_id: str  # "sha256:..."
    state: State
    identity: Identity | None = None  # None: not korch's
    labels: Mapping[str, str] = field(default_factory=dict)
    exit_code: int | None = None  # None while it has not ended
    error: str = ""  # the engine's words on why it did not start
    started_at: float | None = None
    finished_at: float | None = None
    running_s: float | None = None  # measured on the node; None unless running
    restart_count: int = 0
    restart_policy: str = ""
    ports: tuple[PublishedPort, ...] = ()
    ip: str = ""
    joined: str = ""  # the id of the container whose network it has; "" when that is its own
    oom_killed: bool = False
    health: str = ""

    def host_port(self, container_port: int, protocol: str = "tcp") -> int | None:
        """The node's port that leads to this one, or None when it is not published."""
        wanted = (container_port, protocol.lower())
        return next((p.host_port for p in self.ports if (p.container_port, p.protocol) == wanted), None)


def parse_containers(text: str, *, node_now: float | None = None) -> tuple[ObservedContainer, ...]:
    """The containers in the lines of an inspect with `inspect_template`, by name; other lines are skipped."""
    found = [
        _container(json.loads(line), node_now)
        for line in text.splitlines()
        if line.startswith("{") and line.rstrip().endswith("}")
    ]
    return tuple(sorted(found, key=lambda container: container.name))


def parse_time(text: str) -> float | None:
    """Seconds since 1970 for an engine's RFC 3339 time (up to nine digits of a second); None for Go's zero time."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?(?: \w+)?", text.strip())
    if match is None or match[1].startswith("0001"):
        return None
    zone = "+00:00" if match[4] in {None, "Z"} else match[4]
    whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}").timestamp()
    return whole + float(match[3] or 0)


def _container(data: dict[str, Any], node_now: float | None) -> ObservedContainer:
    status = data.get("State") or {}
    state = _STATES.get(str(status.get("Status", "")).lower(), "exited")
    started, finished = parse_time(str(status.get("StartedAt", ""))), parse_time(str(status.get("FinishedAt", "")))
    running = state in {"running", "paused"}
    labels = {str(key): str(value) for key, value in (data.get("Labels") or {}).items()}
    return ObservedContainer(
        id=str(data["Id"]),
        name=str(data["Name"]).lstrip("/"),
        image=str(data.get("RefName") or data.get("Ref") or ""),
        image_id=image_id(str(data.get("Image", ""))),
        state=state,
        identity=identity_of(labels),
        labels=labels,
        exit_code=int(status.get("ExitCode") or 0) if state in {"exited", "dead", "restarting"} else None,
        error=str(status.get("Error") or ""),
        started_at=started,
        finished_at=None if running or finished is None else max(finished, started or 0.0),  # Podman's clock is coarse
        running_s=max(0.0, node_now - started) if running and started is not None and node_now is not None else None,
        restart_count=int(data.get("Restarts") or 0),
        restart_policy=str(data.get("Policy") or ""),
        ports=_ports(data.get("Ports") or {}),
        ip=_address(data),
        joined=_joined(str(data.get("Network") or "")),
        oom_killed=bool(status.get("OOMKilled")),
        health=_health(status),
    )


def image_id(text: str) -> str:
    """An image id with its `sha256:`; Podman leaves it out."""
    return f"sha256:{text}" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _health(status: Mapping[str, Any]) -> str:
    health = status.get("Health") or status.get("Healthcheck") or {}
    return str(health.get("Status") or "") if isinstance(health, dict) else ""


def _ports(ports: Mapping[str, Any]) -> tuple[PublishedPort, ...]:
    """Published ports only; an IPv4 and an IPv6 binding of one port are two entries."""
    found = []
    for inside, bindings in sorted(ports.items()):
        number, _, protocol = inside.partition("/")
        for binding in bindings or ():
            if str(binding.get("HostPort", "")).isdecimal():
                host = (int(binding["HostPort"]), protocol or "tcp", str(binding.get("HostIp") or ""))
                found.append(PublishedPort(int(number), *host))
    return tuple(found)


def _joined(network: str) -> str:
    kind, _, other = network.partition(":")
    return other if kind == "container" else ""


def _address(data: Mapping[str, Any]) -> str:
    """The first address on any of its networks."""
    if data.get("Ip"):
        return str(data["Ip"])
    networks = data.get("Networks") or {}
    return next((str(net["IPAddress"]) for _, net in sorted(networks.items()) if net and net.get("IPAddress")), "")
