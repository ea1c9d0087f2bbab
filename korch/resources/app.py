"""One application in the short form, as a value: what `korch.yml` and the flags of `korch deploy` say."""

import re
from typing import Literal

import msgspec

from korch.errors import InvalidError
from korch.resources.names import path_problem, volume_name_problem
from korch.resources.validate_container import port_problem

Protocol = Literal["TCP", "UDP"]


class Port(msgspec.Struct, frozen=True):
    """A published port. `node` 0 = a free port of the node is chosen."""

    container: int
    node: int = 0
    protocol: Protocol = "TCP"


class Mount(msgspec.Struct, frozen=True):
    """`source`: a path of the node, the name of a volume of its engine, or "" for a volume that dies with the pod."""

    target: str
    source: str = ""
    read_only: bool = False


class Health(msgspec.Struct, frozen=True):
    """When a replica is ready. One of `http` (a path), `tcp`, `exec` is set; `port` None = the first port."""

    http: str | None = None
    tcp: int | None = None
    exec: tuple[str, ...] = ()
    port: int | None = None
    interval_s: int = 2
    timeout_s: int = 2
    retries: int = 3
    grace_s: int = 30  # after a start, before `restart` counts failures
    restart: bool = False


class App(msgspec.Struct, frozen=True):
    """What to run. Quantities as in Kubernetes; `constraints` map a label to one value or to alternatives."""

    name: str
    image: str
    namespace: str = ""
    replicas: int | None = None  # None = as many as it has, else 1
    ports: tuple[Port, ...] = ()
    entrypoint: tuple[str, ...] = ()  # replaces the image's ENTRYPOINT
    command: tuple[str, ...] = ()  # replaces the image's CMD
    env: dict[str, str] = msgspec.field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    cpu: str = ""
    memory: str = ""
    cpu_limit: str = ""
    memory_limit: str = ""  # "" = as much as `memory`
    health: Health | None = None
    constraints: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    spread: tuple[str, ...] = ()
    stop_grace_s: int | None = None
    update: Literal["rolling", "recreate"] = "rolling"
    pull: Literal["", "always", "missing", "never"] = ""
    user: str = ""  # "UID" or "UID:GID"
    workdir: str = ""
    read_only: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


def parse_port(text: str) -> Port:
    """`8080:80`, `80` (a free node port is chosen), `53:53/udp`."""
    found = re.fullmatch(
        r"(?:(?P<node>[0-9]{1,5}):)?(?P<container>[0-9]{1,5})(?:/(?P<protocol>tcp|udp))?", text, re.ASCII
    )
    if found is None:
        hint = "Write NODEPORT:PORT or PORT, maybe with /udp: 8080:80, 80, 53:53/udp."
        raise InvalidError(f'"{text}" is not a port', hint=hint)
    port = Port(int(found["container"]), int(found["node"] or 0), "UDP" if found["protocol"] == "udp" else "TCP")
    if problem := port_problem(port.container) or (port_problem(port.node) if found["node"] else ""):
        raise InvalidError(problem)
    return port


def parse_mount(text: str) -> Mount:
    """`data:/var/lib/web` (a named volume), `/srv/x:/x:ro` (a path of the node), `/cache` (dies with the pod)."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) > 1 and parts[-1] in ("ro", "rw") else "rw"
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1]) if len(parts) == 2 else ("", "")
    hint = "Write NAME:/PATH, /NODE/PATH:/PATH or /PATH, maybe with :ro."
    if len(parts) > 2 or not target.startswith("/") or (len(parts) == 2 and not source):
        raise InvalidError(f'"{text}" is not a volume', hint=hint)
    if source.startswith((".", "~")):
        raise InvalidError(f'"{text}": the path is one of the node, so it begins with "/"', hint=hint)
    problem = path_problem(target)
    if source:
        problem = problem or (path_problem(source) if source.startswith("/") else volume_name_problem(source))
    if problem:
        raise InvalidError(problem, hint=hint)
    return Mount(target, source, mode == "ro")


def parse_duration(text: str | int) -> int:
    """Whole seconds of `90`, `90s`, `5m`, `1h` or `1m30s`."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    found = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s?)?", str(text), re.ASCII)
    if found is None or not any(found.groups()):
        raise InvalidError(f'"{text}" is not a duration', hint="Write it like 30s, 5m or 1h.")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds
