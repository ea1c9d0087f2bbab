"""A lab: real SSH hosts with container engines, in namespaces of this machine."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from korch.errors import InvalidError, NotFoundError, SetupError
from korch.lab import boot, faults, machine, network, rootfs
from korch.lab.cgroups import Groups
from korch.lab.inventory import inventory_text, known_hosts_text
from korch.lab.record import (
    Record,
    claim_name,
    locked_folder,
    read_record,
    refuse_foreign,
    release_name,
    replace_text,
    spec_text,
    write_record,
)
from korch.lab.registry import push_samples, start_registry
from korch.lab.rootfs import NodeFiles, Surroundings, build, host_public_keys
from korch.lab.spec import (
    PRIVATE_REGISTRY_PORT,
    REGISTRY_PORT,
    LabStatus,
    Names,
    NodeSpec,
    NodeStatus,
    State,
    assign_numbers,
    check_lab_name,
)
from korch.settings import korch_home

_WORKERS = 6
_LAYOUT = hashlib.sha256(Path(rootfs.__file__).read_bytes()).hexdigest()  # nodes made by other code are made anew
BOOT_TIMEOUT_S = 300.0  # three Docker daemons at once in an emulated machine take minutes
MACHINE_LOCK = Path("/run/lock")  # held while a lab takes a name or a network


class Lab:
    """The lab of that name on this machine. Labs of different names live side by side."""

    def __init__(self, name: str = "lab", home: Path | None = None) -> None:
        check_lab_name(name)
        self.name = name
        self.names = Names(name)
        self.folder = (home or korch_home()) / "labs" / name

    # --- where things are ---

    @property
    def inventory_path(self) -> Path:
        """The Ansible inventory: root on every node."""
        return self.folder / "inventory.yml"

    def inventory(self, user: str = "root") -> Path:
        """The inventory for `root`, or for the sudo user `lab`."""
        return self.inventory_path if user == "root" else self.folder / f"inventory-{user}.yml"

    @property
    def ssh_key(self) -> Path:
        """The private key that every node accepts for root and lab."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The nodes' true host keys."""
        return self.folder / "known_hosts"

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
        for spec in self._record().specs:
            if spec.name == node:
                return spec
        known = ", ".join(spec.name for spec in self._record().specs)
        raise NotFoundError(f'lab "{self.name}" has no node "{node}"', hint=f"It has {known or 'none'}.")

    def log_tail(self, node: str, name: str = "sshd.log", lines: int = 20) -> str:
        """The end of one of the node's logs (sshd.log, docker.log), read from outside."""
        path = self._files(node).root / "var/log" / name
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

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
            record = self._prepare(wanted)
            groups = self._groups()
            self._ensure_lxcfs(groups)
            with ThreadPoolExecutor(_WORKERS) as pool:
                registry = pool.submit(self._ensure_registry, groups, f"{record.prefix}.1:{REGISTRY_PORT}")
                nodes = [pool.submit(self._ensure_node, groups, record, spec) for spec in wanted]
                for future in (*nodes, registry):
                    future.result()
            self._write_inventories(record)
        return self.status()

    def down(self) -> None:
        """Remove every trace of the lab, whatever a crash left. Needs no record: the names in the kernel are enough.

        ForbiddenError when the lab of that name lives in another folder that still exists: it is somebody else's.
        """
        machine.require_root()
        refuse_foreign(self.name, self.folder)
        with locked_folder(self.folder):
            refuse_foreign(self.name, self.folder)  # somebody may have come up while we waited
            groups = self._groups()
            groups.kill()
            network.remove_all(self.names)
            groups.remove()
            self._remove_folder(self.folder)
            release_name(self.name)
        with suppress(OSError):
            self.folder.parent.rmdir()  # stays when other labs are in it

    def status(self) -> LabStatus:
        """The lab as it is now; NotFoundError when it is not up."""
        record, groups = self._record(), self._groups()
        nodes = (
            NodeStatus(spec.name, record.address(spec.name), self._state(groups, record, spec.name), spec.engine)
            for spec in record.specs
        )
        return LabStatus(self.name, str(self.inventory_path), self.image(), self.registry, tuple(nodes))

    def rebuild(self, node: str) -> None:
        """Make the node anew, as on its first day: empty disk, new host keys, no faults."""
        with locked_folder(self.folder):
            self._files(node).done.unlink(missing_ok=True)
        self.up(self._record().specs)

    def wipe(self, node: str) -> None:
        """End the node's faults and remove its containers and korch's records; images and settings stay."""
        target, engine = self._target(node), self.spec(node).engine
        target.groups.freeze(node, False)
        faults.heal(target)
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
        start_registry(self._groups(), self.folder / "registry", address, credentials=(user, password))
        return address

    @property
    def exists(self) -> bool:
        """Whether there is a lab of this name in this folder."""
        return read_record(self.folder / "lab.json") is not None

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
            groups, spec = self._groups(), self.spec(node)
            if groups.init_pid(node) is None:
                self._boot(groups, self._record(), spec)

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

    # --- the parts of up ---

    def _prepare(self, wanted: tuple[NodeSpec, ...]) -> Record:
        """Network, key and record; nodes that are not wanted any more are gone."""
        before = read_record(self.folder / "lab.json")
        with locked_folder(MACHINE_LOCK):  # two labs must not choose the same network
            prefix = network.choose_subnet(self.names, before.prefix if before else None)
            network.make_bridge(self.names, prefix)
        numbers = assign_numbers(tuple(spec.name for spec in wanted), before.numbers if before else {})
        for name in sorted({*self._groups().children(), *(before.numbers if before else ())}):
            if name not in numbers and not name.startswith("_"):
                self._remove_node(name, before.numbers.get(name) if before else None)
        record = Record(prefix, wanted, numbers)
        write_record(self.folder / "lab.json", record)
        if not self.ssh_key.exists():
            machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "korch lab", "-f", str(self.ssh_key))
        return record

    def _ensure_lxcfs(self, groups: Groups) -> None:
        if boot.lxcfs_pid(groups, self._lxcfs) is None:
            groups.kill()  # nodes hold files of the dead one, which answer with errors for ever
            boot.start_lxcfs(groups, self._lxcfs, self.folder / "lxcfs.log")

    def _ensure_registry(self, groups: Groups, address: str) -> None:
        start_registry(groups, self.folder / "registry", address)
        push_samples(address)

    def _ensure_node(self, groups: Groups, record: Record, spec: NodeSpec) -> None:
        files = self._files(spec.name)
        registries = tuple(f"{record.prefix}.1:{port}" for port in (REGISTRY_PORT, PRIVATE_REGISTRY_PORT))
        around = Surroundings(registries, self.ssh_key.with_suffix(".pub").read_text().strip())
        signature = f"{_LAYOUT} {spec_text(spec)} {around}"
        if not files.done.exists() or files.done.read_text() != signature:
            self._remove_node(spec.name, record.numbers[spec.name])
            build(files, spec, around)
            files.done.write_text(signature)
        if groups.init_pid(spec.name) is not None:
            groups.freeze(spec.name, False)
            faults.heal(self._target(spec.name))
        if not self._serves(groups, record, spec):
            groups.kill(spec.name)
            self._boot(groups, record, spec)

    def _boot(self, groups: Groups, record: Record, spec: NodeSpec) -> None:
        files = self._files(spec.name)
        pid = boot.lxcfs_pid(groups, self._lxcfs)
        if pid is None:
            raise SetupError(
                f'lab "{self.name}": its lxcfs has died', hint="korch lab up starts it and the nodes again."
            )
        groups.create(spec.name, cpus=spec.cpus, memory_bytes=spec.memory_limit)
        boot.wait_for_disk(files.disk)
        groups.kill(f"_delay-{spec.name}")
        network.plug(self.names, spec.name, record.numbers[spec.name], record.prefix)
        (files.folder / "filtered").unlink(missing_ok=True)
        boot.start_node(groups, spec, files, self.names.netns(spec.name), pid, self._lxcfs)
        what = f'lab "{self.name}", node {spec.name}'
        boot.wait_until(what, lambda: self._starts(groups, record, spec), timeout_s=BOOT_TIMEOUT_S, log=files.log)

    def _serves(self, groups: Groups, record: Record, spec: NodeSpec) -> bool:
        pid = groups.init_pid(spec.name)
        if pid is None or (spec.engine == "docker" and not boot.docker_answers(pid)):
            return False
        return boot.ssh_answers(record.address(spec.name))  # last: each question costs the node a process

    def _starts(self, groups: Groups, record: Record, spec: NodeSpec) -> bool:
        pid = groups.init_pid(spec.name)
        if pid is not None and spec.engine == "docker" and not boot.docker_starts(pid, spec.name):
            return False
        return self._serves(groups, record, spec)

    def _write_inventories(self, record: Record) -> None:
        addresses = {spec.name: record.address(spec.name) for spec in record.specs}
        keys = {addresses[spec.name]: host_public_keys(self._files(spec.name)) for spec in record.specs}
        replace_text(self.known_hosts, known_hosts_text(keys), 0o600)
        for user in ("root", "lab"):
            text = inventory_text(record.specs, addresses, key=self.ssh_key, known_hosts=self.known_hosts, user=user)
            replace_text(self.inventory(user), text, 0o600)

    def _remove_node(self, name: str, number: int | None) -> None:
        groups = self._groups()
        for group in (f"_delay-{name}", name):
            groups.kill(group)
            groups.remove(group)
        network.unplug(self.names, name, number)
        boot.wait_for_disk(self._files(name).disk)
        shutil.rmtree(self._files(name).folder, ignore_errors=True)

    def _remove_folder(self, folder: Path) -> None:
        mounts = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if Path(mount).is_relative_to(folder):
                machine.succeeds("umount", "-l", mount)
        for image in folder.glob("nodes/*/disk.img"):
            boot.wait_for_disk(image)
        shutil.rmtree(folder, ignore_errors=True)

    # --- small things ---

    @property
    def _lxcfs(self) -> Path:
        return self.folder / "lxcfs"

    def _groups(self) -> Groups:
        return Groups(self.names.prefix)

    def _files(self, node: str) -> NodeFiles:
        return NodeFiles(self.folder / "nodes" / node)

    def _record(self) -> Record:
        record = read_record(self.folder / "lab.json")
        if record is None:
            raise NotFoundError(f'lab "{self.name}" is not up (nothing in {self.folder})', hint="korch lab up")
        return record

    def _target(self, node: str) -> faults.Target:
        self.spec(node)
        files = self._files(node)
        return faults.Target(self.names, node, self._record().numbers[node], self._groups(), files.folder)

    def _joins(self, node: str) -> tuple[Path, ...]:
        groups = self._groups()
        return groups.inner_joins(node) or groups.joins(node)

    def _state(self, groups: Groups, record: Record, node: str) -> State:
        if groups.init_pid(node) is None:
            return "off"
        if groups.is_frozen(node):
            return "paused"
        return "running" if network.cable_is_up(self.names, record.numbers[node]) else "partitioned"
