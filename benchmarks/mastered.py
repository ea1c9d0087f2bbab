"""A lab of Docker nodes with a `korch master` and a Docker swarm on it, both warm."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.eye import Eye, labels
from benchmarks.figures import UNUSUAL, call
from benchmarks.peers import BIN, korch_env
from korch.lab.lab import Lab
from korch.lab.spec import NodeSpec

READY_S = 120.0


@dataclass(frozen=True)
class Site:
    """Where the figures are made. `eye` sees both contenders' containers in the same way."""

    lab: Lab
    eye: Eye
    master: subprocess.Popen[bytes]

    @property
    def image(self) -> str:
        """The sample image."""
        return self.lab.image("1")

    @property
    def manager(self) -> str:
        """The node that manages the swarm."""
        return self.eye.nodes[0]

    def korch(self, *words: str) -> None:
        """A `korch` to its end; it finds the master leading."""
        call([str(BIN / "korch"), *words], korch_env(self.lab))

    def docker(self, *words: str, node: str = "") -> str:
        """The docker command on a daemon (the swarm's manager by default), without SSH in between."""
        return docker(self.eye, node or self.manager, *words)


@contextmanager
def master(lab: Lab, nodes: Sequence[str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `korch master` that has taken up these nodes; it is stopped at the end."""
    env = {name: value for name, value in os.environ.items() if name not in UNUSUAL} | korch_env(lab)
    log = lab.folder / "master.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(BIN / "korch"), "master", "--api-port", "0", *words], env=env, stdout=out, stderr=out
        )
        try:
            _until_ready(process, log, nodes)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def _until_ready(process: subprocess.Popen[bytes], log: Path, nodes: Sequence[str]) -> None:
    deadline = time.monotonic() + READY_S
    while any(f"{node}: ready" not in log.read_text() for node in nodes):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the master does not take up its nodes:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


@contextmanager
def site(nodes: Sequence[str], *, swarm: bool = True) -> Iterator[Site]:
    """The lab, a master on it, and (else on request not) a swarm; gone afterwards."""
    with TemporaryDirectory(prefix="korch-bench-") as home:
        lab = Lab("bench", Path(home))
        lab.up([NodeSpec(name, "docker") for name in nodes])
        try:
            eye = Eye(lab, nodes)
            with master(lab, nodes) as process:
                found = Site(lab, eye, process)
                for node in nodes:
                    found.docker("pull", "-q", found.image, node=node)
                if swarm:
                    make_swarm(eye, lab.address(found.manager))
                yield found
        finally:
            lab.down()


def make_swarm(eye: Eye, address: str) -> None:
    """The nodes as a Docker swarm; the first one, at that address, manages it."""
    manager, *workers = eye.nodes
    docker(eye, manager, "swarm", "init", "--advertise-addr", address)
    token = docker(eye, manager, "swarm", "join-token", "-q", "worker")
    for node in workers:
        docker(eye, node, "swarm", "join", "--token", token, f"{address}:2377")


def docker(eye: Eye, node: str, *words: str) -> str:
    """The docker command on a node's daemon, without SSH in between."""
    argv = ["docker", "--host", eye.endpoint(node), *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def label(contender: str, name: str) -> str:
    """What marks the contender's containers of that workload."""
    return labels(name)[contender]
