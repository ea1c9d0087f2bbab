"""What containers run on the nodes of a lab, asked of their Docker daemons' sockets: cheap enough to ask all the time.

It sees korch's containers and those of its peers in the same way.
"""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from korch.lab.lab import Lab

LOOK_EVERY_S = 0.02
GIVE_UP_S = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A container that runs."""

    node: str
    id: str
    image: str
    created: int


class _Socket(http.client.HTTPConnection):
    """HTTP over a daemon's socket."""

    def __init__(self, path: Path, timeout_s: float = 20.0) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Eye:
    """Looks at these nodes; those that are off have no containers."""

    def __init__(self, lab: Lab, nodes: Iterable[str]) -> None:
        self._lab, self.nodes = lab, tuple(nodes)
        self._pool = ThreadPoolExecutor(len(self.nodes))

    def endpoint(self, node: str) -> str:
        """For `docker --host`: the node's daemon, without SSH in between."""
        return f"unix://{self._path(node)}"

    def running(self, label: str) -> tuple[Seen, ...]:
        """The running containers with a label (`key=value`) on all nodes."""
        found = self._pool.map(lambda node: self._running_on(node, label), self.nodes)
        return tuple(seen for on_node in found for seen in on_node)

    def started_at(self, seen: Seen) -> str | None:
        """When the container was started last, as its engine writes it; None when it does not run."""
        status, found = self._ask(seen.node, "GET", f"/containers/{seen.id}/json")
        return str(found["State"]["StartedAt"]) if status == 200 and found["State"]["Running"] else None

    def pid(self, seen: Seen) -> int:
        """The first process of the container, as this machine counts."""
        _, found = self._ask(seen.node, "GET", f"/containers/{seen.id}/json")
        on_node = str(found["State"]["Pid"])
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                lines = (folder / "status").read_text().splitlines()
                numbers = next(line for line in lines if line.startswith("NSpid:")).split()[1:]
                if len(numbers) == 3 and numbers[1] == on_node and seen.id in (folder / "cgroup").read_text():
                    return int(numbers[0])
            except (OSError, StopIteration):
                continue  # it ended meanwhile
        raise SystemExit(f"no process of container {seen.id[:12]} on {seen.node}")

    def kill(self, seen: Seen) -> None:
        """As `docker kill`."""
        self._order(seen, "POST", f"/containers/{seen.id}/kill")

    def remove(self, seen: Seen) -> None:
        """As `docker rm -f`."""
        self._order(seen, "DELETE", f"/containers/{seen.id}?force=1")

    def wait(self, what: str, condition: Callable[[], bool], at_most_s: float = GIVE_UP_S) -> float:
        """Seconds until it was so."""
        began = time.perf_counter()
        while not condition():
            if time.perf_counter() - began > at_most_s:
                raise SystemExit(f"never came within {at_most_s:.0f} s: {what}")
            time.sleep(LOOK_EVERY_S)
        return time.perf_counter() - began

    def wait_running(self, label: str, count: int, at_most_s: float = GIVE_UP_S) -> float:
        """Seconds until exactly so many run."""
        return self.wait(f"{count} running of {label}", lambda: len(self.running(label)) == count, at_most_s)

    def _running_on(self, node: str, label: str) -> list[Seen]:
        filters = quote(json.dumps({"label": [label], "status": ["running"]}))
        try:
            status, found = self._ask(node, "GET", f"/containers/json?filters={filters}")
        except (OSError, http.client.HTTPException):
            return []
        if status != 200:
            return []
        return [Seen(node, str(one["Id"]), str(one["ImageID"]), int(one["Created"])) for one in found]

    def _order(self, seen: Seen, method: str, path: str) -> None:
        status, found = self._ask(seen.node, method, path)
        if status >= 300:
            raise SystemExit(f"{seen.node}: {method} {path}: {status} {found}")

    def _ask(self, node: str, method: str, path: str) -> tuple[int, Any]:
        connection = _Socket(self._path(node))
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def _path(self, node: str) -> Path:
        try:
            return self._lab.path_in(node, "/run/docker.sock")
        except Exception as error:
            raise ConnectionError(f"{node} is off") from error


def labels(name: str) -> Mapping[str, str]:
    """How each contender marks the containers of its workload of that name."""
    return {
        "korch": f"korch.dev/owner={name}",
        "swarm": f"com.docker.swarm.service.name={name}",
        "docker": f"bench={name}",
    }
