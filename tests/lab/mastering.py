"""A `korch master` beside the lab, and what is looked at from outside while it leads."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from korch.errors import SetupError
from tests.lab.faulty import Faulty, wait_for
from tests.lab.korch_cli import FOREIGN, KORCH, Korch

STOP_S = 15.0  # far more than a clean stop takes
AT_ONCE = ("--settle", "0")


@dataclass(frozen=True)
class Master:
    """One that was started. Its log is a file: nobody has to read it for it to go on."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def says(self, what: str, times: int = 1) -> None:
        """Returns when that was logged."""
        try:
            wait_for(what, lambda: self.text.count(what) >= times or self.process.poll() is not None)
        finally:
            assert self.text.count(what) >= times, f"{what!r} is missing in\n{self.text}"

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.process.pid, number)

    def stop(self) -> float:
        """End it as systemd does; the seconds that it took."""
        began = time.monotonic()
        self.send(signal.SIGTERM)
        assert self.process.wait(timeout=STOP_S) == 0, self.text
        return time.monotonic() - began


def start_master(site: Faulty, *words: str, korch: Korch | None = None) -> Master:
    """A master that runs; the fixture ends it, should the test not do so."""
    korch = korch or site.korch
    log = korch.cwd / f"master-{len(site.started)}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            (str(KORCH), "master", "--api-port", "0", *words),  # labs run side by side
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
            env=korch.environment(),
            cwd=korch.cwd,
        )
    site.started.append(process)
    return Master(process, log)


@contextmanager
def mastered(site: Faulty, *words: str, ready: Sequence[str] | None = None) -> Iterator[Master]:
    """A master that leads, with these nodes (else all) taken up. It must stop cleanly, and have met no bug."""
    master = start_master(site, *words)
    for node in site.nodes if ready is None else ready:
        master.says(f"{node}: ready")
    yield master
    if master.process.poll() is None:
        master.stop()
    assert "bug in korch" not in master.text, master.text
    assert "Traceback" not in master.text, master.text


def node_of(site: Faulty, name: str) -> dict[str, Any]:
    """A Node object."""
    return site.korch.objects("node", name)[0]


def ready_of(site: Faulty, name: str) -> dict[str, Any]:
    """The condition Ready of a node."""
    conditions = node_of(site, name)["status"]["conditions"]
    return next(one for one in conditions if one["type"] == "Ready")


def is_tainted(site: Faulty, name: str) -> bool:
    """Whether it is marked as lost."""
    taints = node_of(site, name)["spec"].get("taints") or ()
    return any(taint["key"] == "node.kubernetes.io/unreachable" for taint in taints)


def pods(site: Faulty, app: str = "") -> list[dict[str, Any]]:
    """Pods that count: neither ended nor on their way out."""
    return [
        pod
        for pod in site.korch.objects("pods")
        if "deletionTimestamp" not in pod["metadata"]
        and pod["status"].get("phase") not in {"Failed", "Succeeded"}
        and pod["metadata"]["name"].startswith(app)
    ]


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether it serves."""
    conditions = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def places(site: Faulty, app: str = "") -> dict[str, str]:
    """Uid of each pod that counts to its node."""
    return {pod["metadata"]["uid"]: pod["spec"].get("nodeName", "") for pod in pods(site, app)}


def all_ready(site: Faulty, app: str, count: int, *, without: str = "") -> bool:
    """Whether so many pods of the app are ready, none of them on node `without`."""
    found = pods(site, app)
    ready = [pod for pod in found if is_ready(pod) and pod["spec"].get("nodeName") != without]
    return len(found) == len(ready) == count


def births(site: Faulty, nodes: Sequence[str] = ()) -> set[tuple[str, str, str]]:
    """(node, id, start) of every container of korch's: the same only if nobody touched them."""
    script = 'ids=$("$1" ps -aq) && { [ -z "$ids" ] || "$1" inspect --type container $ids; } || :'

    def look(node: str) -> set[tuple[str, str, str]]:
        found = json.loads(site.shell(node, script, site.engine(node)) or "[]")
        return {
            (node, str(one["Id"]), str(one["State"]["StartedAt"]))
            for one in found
            if one["Name"].lstrip("/") != FOREIGN
        }

    names = tuple(nodes) or site.nodes
    with ThreadPoolExecutor(len(names)) as pool:
        return set().union(*pool.map(look, names))


def settles(site: Faulty, wished: dict[str, int]) -> None:
    """Returns when all promises hold; the last broken one is the error."""
    deadline = time.monotonic() + 60
    while True:
        try:
            site.check(wished)
        except (AssertionError, SetupError):  # one may go between its being listed and its being looked at
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return


def session_processes(site: Faulty, node: str) -> list[str]:
    """What korch's connections run on a node now."""
    script = """for p in /proc/[0-9]*; do
        [ "${p#/proc/}" != $$ ] || continue
        tr '\\0' ' ' <"$p/cmdline" 2>/dev/null | grep -e 'base64 -d' -e ' events ' -e 'dd bs=64'
        done; :"""
    lines = site.shell(node, script).splitlines()
    return [line for line in lines if "grep" not in line and "/proc/[0-9]" not in line]


def eventually(what: str, condition: Callable[[], bool], timeout_s: float = 90.0) -> float:
    """Seconds until it was so; looks a few times a second, as each look is a `korch` of its own."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"never came: {what}"
        time.sleep(0.2)
    return time.monotonic() - began
