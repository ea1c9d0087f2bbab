"""A lab: real SSH hosts with container engines, in namespaces of this machine."""

import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from korch.errors import InvalidError, NotFoundError, SetupError
from korch.lab import boot, faults, machine
from korch.lab.record import Record, claim_name, locked_folder, read_record, refuse_foreign, release_name
from korch.lab.registry import start_registry
from korch.lab.spec import (
    PRIVATE_REGISTRY_PORT,
    REGISTRY_PORT,
    LabStatus,
    Names,
    NodeSpec,
    NodeStatus,
    Places,
    check_lab_name,
)
from korch.lab.works import MACHINE_LOCK, Works
from korch.settings import korch_home

_WORKERS = 6


class Lab:
    """The lab of that name on this machine. Labs of different names live side by side."""

    def __init__(self, name: str = "lab", home: Path | None = None) -> None:
        check_lab_name(name)
        self.name = name
        self.names = Names(name)
        self.folder = (home or korch_home()) / "labs" / name
        self._places = Places(self.folder)

    # --- where things are ---

    @property
    def inventory_path(self) -> Path:
        """The Ansible inventory: root on every node."""
        return self._places.inventory()

    def inventory(self, user: str = "root") -> Path:
        """The inventory for `root`, or for the sudo user `lab`."""
        return self._places.inventory(user)

    @property
    def ssh_key(self) -> Path:
        """The private key that every node accepts for root and lab."""
        return self._places.ssh_key

    @property
    def known_hosts(self) -> Path:
        """The nodes' true host keys."""
        return self._places.known_hosts

    @property
    def registry(self) -> str:
        """`host:port` of the lab's registry."""
        return f"{self._record().prefix}.1:{REGISTRY_PORT}"

    def image(self, version: str = "1") -> str:
        """The sample app: versions 1, 2, broken (fails its health check) and crash (ends with status 3)."""
        return f"{self.registry}/web:{version}"

    def address(self, node: str) -> str:
        """The node's IPv4 address."""
        self.spec(node)
        return self._record().address(node)

    def spec(self, node: str) -> NodeSpec:
        """What was asked for under that name; NotFoundError when nothing was."""
        specs = self._record().specs
        for spec in specs:
            if spec.name == node:
                return spec
        known = ", ".join(spec.name for spec in specs)
        raise NotFoundError(f'lab "{self.name}" has no node "{node}"', hint=f"It has {known or 'none'}.")

    # --- up, down, status ---

    def up(self, specs: Iterable[NodeSpec]) -> LabStatus:
        """Make exactly these nodes and wait until they serve. Running ones with an equal spec are kept as they are."""
        wanted = tuple(specs)
        if len({spec.name for spec in wanted}) != len(wanted):
            raise InvalidError(f'lab "{self.name}": two nodes have the same name', hint="Give each its own.")
        machine.require({spec.engine for spec in wanted})
        refuse_foreign(self.name, self.folder)  # before a folder is made
        with locked_folder(self.folder):
            machine.require_disk(self.folder)
            with locked_folder(MACHINE_LOCK):
                claim_name(self.name, self.folder)
            works = self._works()
            record = works.prepare(wanted)
            works.ensure_lxcfs()
            with ThreadPoolExecutor(_WORKERS) as pool:
                registry = pool.submit(works.ensure_registry, record)
                nodes = [pool.submit(works.ensure_node, record, spec) for spec in wanted]
                for future in (*nodes, registry):
                    future.result()
            works.write_inventories(record)
        return self.status()

    def down(self) -> None:
        """Remove every trace of the lab, whatever a crash left. Needs no record: the names in the kernel are enough.

        ForbiddenError when the lab of that name lives in another folder that still exists: it is somebody else's.
        """
        machine.require_root()
        refuse_foreign(self.name, self.folder)
        with locked_folder(self.folder):
            refuse_foreign(self.name, self.folder)  # somebody may have come up while we waited
            self._works().remove_all()
            release_name(self.name)
        with suppress(OSError):
            self.folder.parent.rmdir()  # stays when other labs are in it

    def status(self) -> LabStatus:
        """The lab as it is now; NotFoundError when it is not up."""
        record, works = self._record(), self._works()
        nodes = (
            NodeStatus(spec.name, record.address(spec.name), works.state(record, spec.name), spec.engine)
            for spec in record.specs
        )
        return LabStatus(self.name, str(self.inventory_path), self.image(), self.registry, tuple(nodes))

    def rebuild(self, node: str) -> None:
        """Make the node anew, as on its first day: empty disk, new host keys, no faults."""
        with locked_folder(self.folder):
            self._works().files(node).done.unlink(missing_ok=True)
        self.up(self._record().specs)

    def wipe(self, node: str) -> None:
        """End the node's faults and remove its containers and korch's records; images and settings stay."""
        target, engine = self._target(node), self.spec(node).engine
        target.groups.freeze(node, False)
        faults.heal(target)
        with suppress(SetupError):  # its engine does not start while the disk is full
            self.start(node)
        faults.free_disk(target)
        faults.stop_burning(target)
        if engine == "docker":
            faults.start_docker(target)
        if engine != "none":
            script = 'engine=$1; shift; ids=$("$engine" ps -aq) && { [ -z "$ids" ] || "$engine" rm -f "$@" $ids; }'
            at_once = ("--time", "0") if engine == "podman" else ()  # Docker's `rm -f` waits for nobody
            self.exec_in(node, ("sh", "-c", script, "sh", engine, *at_once))
        forget = "rm -rf /var/lib/korch/* /root/.local/state/korch /home/lab/.local/state/korch"
        self.exec_in(node, ("sh", "-c", forget))

    def open_private_registry(self, user: str, password: str) -> str:
        """Serve the same images at a second address that asks for this user and password; returns `host:port`."""
        address = f"{self._record().prefix}.1:{PRIVATE_REGISTRY_PORT}"
        start_registry(self._works().groups, self._places.registry, address, credentials=(user, password))
        return address

    @property
    def exists(self) -> bool:
        """Whether there is a lab of this name in this folder."""
        return read_record(self._places.record) is not None

    # --- looking into a node from outside ---

    def exec_in(
        self, node: str, argv: Sequence[str], *, check: bool = True, timeout_s: float = 60.0, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command as root in the node without SSH, as if the node had started it."""
        words = boot.enter_words(self.pid(node), self._joins(node), argv)
        env = {**machine.CLEAN_ENV, "HOME": "/root"}
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=timeout_s, env=env, check=False
        )
        if check and done.returncode != 0:
            raise SetupError(f"{' '.join(argv)} on lab node {node} ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def path_in(self, node: str, path: str) -> Path:
        """A path of the running node as this process can open it. Do not follow absolute links through it."""
        return Path(f"/proc/{self.pid(node)}/root") / path.lstrip("/")

    def write_file(self, node: str, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the running node."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        self.exec_in(node, ("sh", "-c", script, "sh", path, f"{mode:o}"), stdin=text)

    def set_shell(self, node: str, user: str, shell: str) -> None:
        """Give a user of the running node another login shell."""
        self.exec_in(node, ("sed", "-i", f"s#^\\({user}:.*:\\)[^:]*$#\\1{shell}#", "/etc/passwd"))

    def pid(self, node: str) -> int:
        """The pid, as this machine counts, of the node's first process."""
        return self._target(node).pid()

    # --- faults ---

    def kill(self, node: str) -> None:
        """Power off, silently: every process dies at once and the cable is dead."""
        faults.power_off(self._target(node))

    def start(self, node: str) -> None:
        """Power on again with the disk as it was, and wait until the node serves. Nothing when it runs already."""
        with locked_folder(self.folder):
            works, spec = self._works(), self.spec(node)
            if works.groups.init_pid(node) is None:
                works.boot(self._record(), spec)

    def pause(self, node: str) -> None:
        """Stop every process of the node; its kernel goes on answering pings and accepting connections."""
        self._target(node).groups.freeze(node, True)

    def resume(self, node: str) -> None:
        """End a pause."""
        self._target(node).groups.freeze(node, False)

    def partition(self, node: str, peers: Sequence[str] = ()) -> None:
        """Cut the node off from everybody, or only from these: names of other nodes, or `host` for this machine."""
        record = self._record()
        addresses = [f"{record.prefix}.1" if peer == "host" else self.address(peer) for peer in peers]
        faults.partition(self._target(node), addresses)

    def heal(self, node: str) -> None:
        """End partition, delay and loss."""
        faults.heal(self._target(node))

    def delay(self, node: str, delay_ms: float, jitter_ms: float = 0.0) -> None:
        """Make packets later, give or take the jitter, in each direction: a round trip takes twice that. 0 ends it."""
        faults.slow_down(self._target(node), delay_ms, jitter_ms)

    def loss(self, node: str, percent: float) -> None:
        """Drop that share of the packets in each direction."""
        faults.lose(self._target(node), percent)

    def fill_disk(self, node: str, leave_kb: int = 0) -> None:
        """Fill the node's /var/lib (the engine's data, korch's records)."""
        faults.fill_disk(self._target(node), leave_kb)

    def free_disk(self, node: str) -> None:
        """Undo `fill_disk`."""
        faults.free_disk(self._target(node))

    def burn(self, node: str, tasks: int = 3, seconds: int = 60) -> None:
        """Keep the node's CPUs busy with that many loops; the load average follows in some seconds."""
        faults.burn(self._target(node), tasks, seconds)

    def stop_burning(self, node: str) -> None:
        """Undo `burn`."""
        faults.stop_burning(self._target(node))

    def stop_engine(self, node: str, *, hard: bool = False) -> None:
        """End the docker daemon; `hard` is SIGKILL and leaves the containers' processes alive."""
        faults.stop_docker(self._target(node), hard=hard)

    def start_engine(self, node: str) -> None:
        """Start the docker daemon again and wait until it answers."""
        faults.start_docker(self._target(node))

    # --- small things ---

    def _works(self) -> Works:
        return Works(self.names, self._places)

    def _record(self) -> Record:
        record = read_record(self._places.record)
        if record is None:
            raise NotFoundError(f'lab "{self.name}" is not up (nothing in {self.folder})', hint="korch lab up")
        return record

    def _target(self, node: str) -> faults.Target:
        self.spec(node)
        return self._works().target(self._record(), node)

    def _joins(self, node: str) -> tuple[Path, ...]:
        groups = self._works().groups
        return groups.inner_joins(node) or groups.joins(node)
