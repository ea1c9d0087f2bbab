"""What the fault tests share: two nodes of each engine in one lab, moments to strike at, and the promises to check.

Both engines are in one lab so that one scenario, with its waiting, proves both.
"""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from korch.errors import SetupError
from korch.lab.lab import Lab
from korch.lab.spec import NodeSpec
from tests.lab.korch_cli import FOREIGN, KORCH, Korch, Run, Site, lab_vars, write_inventory

SPECS = (NodeSpec("d1"), NodeSpec("d2"), NodeSpec("p1", engine="podman"), NodeSpec("p2", engine="podman"))
NODES = tuple(spec.name for spec in SPECS)
SOON = "-o ServerAliveInterval=1 -o ServerAliveCountMax=2 -o ConnectTimeout=3"  # a dead node is noticed sooner
PATIENCE_S = 90.0  # for things that take a second on an idle machine

# Runs in place of the engine's program: at the chosen word it leaves a mark and waits to be let go.
_HOLDER = """#!/bin/sh
hold() { : >/usr/local/held; while ! [ -e /usr/local/go ]; do sleep 0.05; done; }
[ "$1" = "WORD" ] || exec /usr/bin/ENGINE "$@"
[ "WHEN" = after ] || { hold; exec /usr/bin/ENGINE "$@"; }
/usr/bin/ENGINE "$@"
status=$?
hold
exit $status
"""


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Returns when `condition()` is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Hold:
    """A node whose engine stops at one word of its command line."""

    lab: Lab
    node: str
    engine: str

    @property
    def folder(self) -> Path:
        """The node's /usr/local, from outside."""
        return self.lab.folder / "nodes" / self.node / "local"

    def arm(self, word: str, when: str) -> None:
        """From now on the engine waits before (or after) that word."""
        self.release()
        (self.folder / "go").unlink(missing_ok=True)
        program = self.folder / "bin" / self.engine
        program.write_text(_HOLDER.replace("WORD", word).replace("WHEN", when).replace("ENGINE", self.engine))
        program.chmod(0o755)

    @property
    def is_held(self) -> bool:
        """Whether the node has come to its word."""
        return (self.folder / "held").exists()

    def wait(self) -> None:
        """Until it has."""
        wait_for(f"{self.engine} on {self.node} at its word", lambda: self.is_held)

    def release(self) -> None:
        """Whoever waits goes on, nobody waits any more."""
        (self.folder / "go").touch()
        (self.folder / "bin" / self.engine).unlink(missing_ok=True)
        (self.folder / "held").unlink(missing_ok=True)


def at_each(holds: Iterable[Hold], strike_at: Callable[[Hold], object]) -> None:
    """Call `strike_at` for each node that has come to its word, in the order in which they come."""
    left = list(holds)
    while left:
        wait_for(f"{', '.join(hold.node for hold in left)} at the word", lambda: any(hold.is_held for hold in left))
        for hold in [hold for hold in left if hold.is_held]:
            left.remove(hold)
            strike_at(hold)


@dataclass(frozen=True, slots=True)
class Seen:
    """One container as its engine shows it."""

    node: str
    name: str
    state: str
    labels: Mapping[str, str]

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.state == "running"

    @property
    def uid(self) -> str:
        """Of its pod."""
        return self.labels.get("korch.dev/uid", "")

    @property
    def app(self) -> str:
        """Its workload."""
        return self.labels.get("korch.dev/owner", "")


@dataclass(frozen=True)
class Faulty(Site):
    """A site whose nodes can be struck at chosen moments."""

    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @contextmanager
    def hold(self, word: str, *nodes: str, when: str = "before") -> Iterator[tuple[Hold, ...]]:
        """The engines of these nodes stop at `word`; let go at the end, at the latest."""
        holds = tuple(Hold(self.lab, node, self.engine(node)) for node in nodes)
        for hold in holds:
            hold.arm(word, when)
        try:
            yield holds
        finally:
            for hold in holds:
                hold.release()

    def start(self, *words: str, korch: Korch | None = None) -> subprocess.Popen[str]:
        """The same as calling `korch`, but without waiting for its end."""
        korch = korch or self.korch
        process = subprocess.Popen(
            (str(KORCH), *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=korch.environment(),
            cwd=korch.cwd,
        )
        self.started.append(process)
        return process

    def end_started(self) -> None:
        """Nothing that `start` began goes on."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.started.clear()

    def forget_images(self) -> None:
        """No node has the sample images any more, so that they are pulled; somebody else's image stays."""
        script = """keep=$("$1" image inspect --format '{{.Id}}' foreign:1); keep=${keep#sha256:}
            for id in $("$1" images -q --no-trunc | sort -u); do
                [ "${id#sha256:}" = "$keep" ] || "$1" rmi -f "$id"
            done"""
        self.each_node(lambda node: self.shell(node, script, self.engine(node)))

    def seen(self, *, foreign: bool = False) -> list[Seen]:
        """All containers of all nodes, looked at from outside, without SSH."""
        script = 'ids=$("$1" ps -aq) && { [ -z "$ids" ] || "$1" inspect --type container $ids; }'

        def look(node: str) -> list[Seen]:
            text = self.lab.exec_in(node, ("sh", "-c", script, "sh", self.engine(node))).stdout
            return [
                Seen(node, data["Name"].lstrip("/"), data["State"]["Status"], data["Config"]["Labels"] or {})
                for data in json.loads(text or "[]")
            ]

        found = [one for several in self.each_node(look) for one in several]
        return [one for one in found if foreign or one.name != FOREIGN]

    def mend(self) -> None:
        """End every fault, with what stands on the nodes left alone."""

        def one(node: str) -> None:
            self.lab.resume(node)
            self.lab.heal(node)
            with suppress(SetupError):  # its engine does not start while the disk is full
                self.lab.start(node)
            self.lab.free_disk(node)
            if self.engine(node) == "docker":
                self.lab.start_engine(node)

        self.each_node(one)

    def theirs(self) -> dict[str, str]:
        """Per node, the ids of somebody else's container and image, whether it runs or a reboot has ended it."""
        script = (
            '"$1" inspect --type container --format "{{.Id}}" "$2"; "$1" image inspect --format "{{.Id}}" foreign:1'
        )
        return {node: self.shell(node, script, self.engine(node), FOREIGN) for node in self.nodes}

    def check(self, wished: Mapping[str, int]) -> list[Seen]:
        """The promises after convergence, with every node up; the containers.

        Never two containers for one pod, as many running replicas as wished and none else, nothing that the store does
        not know, nothing in the store that does not run.
        """
        found = self.seen()
        uids = Counter(one.uid for one in found)
        assert max(uids.values(), default=1) == 1, found
        assert Counter(one.app for one in found) == Counter({app: n for app, n in wished.items() if n}), found
        assert all(one.running for one in found), found
        known: dict[str, list[dict[str, Any]]] = {"Deployment": [], "ReplicaSet": [], "Pod": []}
        for obj in self.korch.objects("pods,replicasets,deployments"):
            known[obj["kind"]].append(obj)
        bound = {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in known["Pod"]}
        assert bound == {one.uid: one.node for one in found}
        assert not [pod for pod in known["Pod"] if "deletionTimestamp" in pod["metadata"]], known["Pod"]
        for kind, owner in (("Pod", "ReplicaSet"), ("ReplicaSet", "Deployment")):
            there = {obj["metadata"]["uid"] for obj in known[owner]}
            assert {ref["uid"] for obj in known[kind] for ref in obj["metadata"]["ownerReferences"]} <= there
        return found


def finish(process: subprocess.Popen[str], *, status: int | None = 0, timeout_s: float = 200.0) -> Run:
    """The ended run; asserts its exit code unless `status` is None, and that no traceback was shown."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end\n{out}\n{err}") from None
    run = Run(tuple(map(str, process.args)), process.returncode, out, err)  # type: ignore[arg-type]
    assert "Traceback" not in run.all, run
    assert status is None or run.status == status, run
    return run


def strike(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal; a process that is gone already is fine."""
    if process.poll() is None:
        os.kill(process.pid, number)


def make_faulty(lab: Lab, home: Path, *, nodes: Sequence[str] = NODES) -> Faulty:
    """Wiped nodes with somebody else's container on each, and a korch with an empty home."""
    for node in nodes:
        Hold(lab, node, lab.spec(node).engine).release()
        (lab.folder / "nodes" / node / "local/bin/date").unlink(missing_ok=True)
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(lab.wipe, nodes))
    home.mkdir(parents=True, exist_ok=True)
    args = f"{lab_vars(lab)['ansible_ssh_common_args']} {SOON}"
    inventory = write_inventory(home / "hosts.yml", lab, {node: {} for node in nodes}, ansible_ssh_common_args=args)
    site = Faulty(lab, Korch(home / "korch", inventory=inventory, cwd=home), tuple(nodes))
    try:
        site.place_foreign()
    except SetupError:  # a busy machine lets the registry wait for too long
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lab.wipe, nodes))
        site.place_foreign()
    return site
