"""A master at rest: what it costs where it runs, and what it keeps on the nodes."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.eye import Eye
from benchmarks.figures import Figure, call
from benchmarks.mastered import make_swarm, master
from benchmarks.peers import BIN, korch_env
from korch.lab.lab import Lab
from korch.lab.spec import node_specs

MEASURE_S = 60.0
GROWTH_S = 30.0
SETTLE_S = 30.0
DOCKER_NODES, CONTAINERS, SSHD_NODES = 10, 100, 100
GROWTH = (10, 200)
MIB = 1 << 20
K3S_AGENT_BYTES = 275_000_000
MANIFEST = """apiVersion: apps/v1
kind: Deployment
metadata: {{name: rest}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: rest}}}}
  strategy: {{type: RollingUpdate, rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  template:
    metadata: {{labels: {{app: rest}}}}
    spec:
      containers:
      - name: web
        image: {image}
        command: ["/bin/tini", "--", "/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/app"]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /version, port: 8080}}, periodSeconds: 10}}
        livenessProbe: {{httpGet: {{path: /version, port: 8080}}, periodSeconds: 10}}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process and its children: share of a core, and resident memory."""

    cores: float
    rss_bytes: int


def cost(pid: int, seconds: float) -> Cost:
    """What a process and its children used over a time."""
    before, began = _cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    used_s = _cpu_s(pid) - before
    family = [pid, *_children(pid)]
    return Cost(used_s / (time.monotonic() - began), sum(map(_rss, family)))


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process, with those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_s(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for children in found for word in children.read_text().split()]


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def figures() -> list[Figure]:
    """At rest over many nodes; what it keeps there; how it grows."""
    return [*_at_rest(), *_growth()]


def _lab_of(home: str, docker: int, sshd_only: int) -> tuple[Lab, list[str]]:
    """A lab, and its nodes with Docker."""
    lab = Lab("bench", Path(home))
    specs = node_specs(nodes=docker, engine="docker", sshd_only=sshd_only, busybox=0, cpus=1.0, memory="512M")
    lab.up(specs)
    return lab, [spec.name for spec in specs if spec.engine == "docker"]


def _at_rest() -> list[Figure]:
    with TemporaryDirectory(prefix="korch-bench-") as home:
        lab, docker = _lab_of(home, DOCKER_NODES, SSHD_NODES)
        try:
            bare = {name: set(_processes(lab, name)) for name in docker}
            with master(lab, docker) as process:
                manifest = lab.folder / "rest.yml"
                manifest.write_text(MANIFEST.format(replicas=CONTAINERS, image=lab.image("1")))
                words = ["deploy", "-f", str(manifest), "--settle", "0", "--timeout", "600"]
                call([str(BIN / "korch"), *words], korch_env(lab))
                time.sleep(SETTLE_S)
                found = cost(process.pid, MEASURE_S)
                session = _session_of(lab, docker, bare)
            time.sleep(2.0)
            left = sum(len(_korchs(lab, name, bare[name])) for name in docker)
            eye = Eye(lab, docker)
            running = len(eye.running("korch.dev/owner=rest"))
        finally:
            lab.down()
    what = f"{DOCKER_NODES} Docker nodes with {CONTAINERS} probed containers, {SSHD_NODES} nodes with sshd alone"
    return [
        _limit(f"a master at rest, {what}: CPU over {MEASURE_S:.0f} s", "% of a core", found.cores * 100, 10.0),
        _limit(f"a master at rest, {what}: memory", "MiB", found.rss_bytes / MIB, 150.0),
        _on_node(session),
        _limit("processes of korch on the nodes after the master stopped", "processes", float(left), 0.0),
        _limit("containers that run on after the master stopped", f"of {CONTAINERS}", float(running), None),
    ]


def _on_node(session_bytes: int) -> Figure:
    """What a session holds on its node, beside what a swarm adds to the engine of a worker."""
    return Figure(
        "what a master keeps on a Docker node while it runs: memory of its own",
        "MiB",
        session_bytes / MIB,
        {"docker swarm, a worker": _swarm_bytes() / MIB, "k3s agent": K3S_AGENT_BYTES / MIB},
        {},
        {
            "korch": "korch master",
            "docker swarm, a worker": "docker swarm join (what dockerd grows by)",
            "k3s agent": "as documented: docs.k3s.io/reference/resource-profiling",
        },
    )


def _swarm_bytes() -> int:
    """What `docker swarm join` adds to the memory of a worker's dockerd, once it rests; the mean of two workers."""
    with TemporaryDirectory(prefix="korch-bench-") as home:
        lab, (manager, *workers) = _lab_of(home, 3, 0)
        try:
            time.sleep(SETTLE_S)
            before = sum(_engine_bytes(lab, name) for name in workers)
            make_swarm(Eye(lab, [manager, *workers]), lab.address(manager))
            time.sleep(SETTLE_S)
            return (sum(_engine_bytes(lab, name) for name in workers) - before) // len(workers)
        finally:
            lab.down()


def _engine_bytes(lab: Lab, node: str) -> int:
    return sum(_pss(pid) for pid, name in _processes(lab, node).items() if name == "dockerd")


def _growth() -> list[Figure]:
    made = []
    for count in GROWTH:
        with TemporaryDirectory(prefix="korch-bench-") as home:
            lab, _ = _lab_of(home, 0, count)
            try:
                with master(lab, ()) as process:
                    time.sleep(SETTLE_S + count / 10)
                    found = cost(process.pid, GROWTH_S)
            finally:
                lab.down()
        made.append(
            _limit(f"a master at rest over {count} nodes with sshd alone: CPU", "% of a core", found.cores * 100)
        )
        made.append(
            _limit(f"a master at rest over {count} nodes with sshd alone: memory", "MiB", found.rss_bytes / MIB)
        )
    return made


def _limit(name: str, unit: str, ours: float, at_most: float | None = None) -> Figure:
    """A figure against a number."""
    verdict = "" if at_most is None else f"target <= {at_most:g}: {'reached' if ours <= at_most else 'MISSED'}"
    commands = {"korch": "korch master"}
    return Figure(name, unit, ours, {}, {}, commands, (verdict,) if verdict else ())


def _processes(lab: Lab, node: str) -> dict[int, str]:
    """The processes of a node outside of containers, by pid of this machine, with their names."""
    first = lab.pid(node)
    space = os.readlink(f"/proc/{first}/ns/pid")
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "ns/pid") == space:
                found[int(folder.name)] = (folder / "comm").read_text().strip()
        except OSError:
            continue
    return found


def _korchs(lab: Lab, node: str, bare: set[int]) -> dict[int, str]:
    """Processes that came with the master: all but what runs containers."""
    engine = {"containerd-shim", "docker-proxy", "dockerd", "containerd", "runc"}
    return {
        pid: name for pid, name in _processes(lab, node).items() if pid not in bare and name.split(":")[0] not in engine
    }


def _session_of(lab: Lab, nodes: Sequence[str], bare: dict[str, set[int]]) -> int:
    """Memory on a node that its session alone uses (shared pages count by their share); the mean."""
    return sum(_pss(pid) for node in nodes for pid in _korchs(lab, node, bare[node])) // len(nodes)


def _pss(pid: int) -> int:
    """Bytes in memory of a process, shared pages by their share; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
