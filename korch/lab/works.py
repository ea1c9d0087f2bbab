"""The things of one lab on this machine, made and taken away: its network, its helpers, its nodes and their disks.

No locks are taken here: whoever calls holds the lab's folder.
"""

import hashlib
import shutil
from pathlib import Path

from korch.errors import SetupError
from korch.lab import boot, faults, machine, network, rootfs
from korch.lab.cgroups import Groups
from korch.lab.inventory import inventory_text, known_hosts_text
from korch.lab.record import Record, locked_folder, read_record, replace_text, spec_text, write_record
from korch.lab.registry import push_samples, start_registry
from korch.lab.rootfs import NodeFiles, Surroundings, build, host_public_keys
from korch.lab.spec import PRIVATE_REGISTRY_PORT, REGISTRY_PORT, Names, NodeSpec, Places, State, assign_numbers

_LAYOUT = hashlib.sha256(Path(rootfs.__file__).read_bytes()).hexdigest()  # nodes made by other code are made anew
BOOT_TIMEOUT_S = 300.0  # three Docker daemons at once in an emulated machine take minutes
MACHINE_LOCK = Path("/run/lock")  # held while a lab takes a name or a network


class Works:
    """One lab. To be made anew for each deed: which control groups the machine has may change."""

    def __init__(self, names: Names, places: Places) -> None:
        self.names, self.places, self.groups = names, places, Groups(names.prefix)

    def target(self, record: Record, node: str) -> faults.Target:
        """The node as faults take it."""
        return faults.Target(self.names, node, record.numbers[node], self.groups, self.files(node).folder)

    def files(self, node: str) -> NodeFiles:
        """Where a node's files lie."""
        return NodeFiles(self.places.folder / "nodes" / node)

    def state(self, record: Record, node: str) -> State:
        """What a node is doing."""
        if self.groups.init_pid(node) is None:
            return "off"
        if self.groups.is_frozen(node):
            return "paused"
        return "running" if network.cable_is_up(self.names, record.numbers[node]) else "partitioned"

    def prepare(self, wanted: tuple[NodeSpec, ...]) -> Record:
        """Network, key and record; nodes that are not wanted any more are gone."""
        before = read_record(self.places.record)
        with locked_folder(MACHINE_LOCK):  # two labs must not choose the same network
            prefix = network.choose_subnet(self.names, before.prefix if before else None)
            network.make_bridge(self.names, prefix)
        numbers = assign_numbers(tuple(spec.name for spec in wanted), before.numbers if before else {})
        for name in sorted({*self.groups.children(), *(before.numbers if before else ())}):
            if name not in numbers and not name.startswith("_"):
                self._remove_node(name, before.numbers.get(name) if before else None)
        record = Record(prefix, wanted, numbers)
        write_record(self.places.record, record)
        if not self.places.ssh_key.exists():
            key = str(self.places.ssh_key)
            machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "korch lab", "-f", key)
        return record

    def ensure_lxcfs(self) -> None:
        """The daemon that shows each node its own share of the machine runs."""
        if boot.lxcfs_pid(self.groups, self.places.lxcfs) is None:
            self.groups.kill()  # nodes hold files of the dead one, which answer with errors for ever
            boot.start_lxcfs(self.groups, self.places.lxcfs, self.places.folder / "lxcfs.log")

    def ensure_registry(self, record: Record) -> None:
        """The registry serves the sample images."""
        address = f"{record.prefix}.1:{REGISTRY_PORT}"
        start_registry(self.groups, self.places.registry, address)
        push_samples(address)

    def ensure_node(self, record: Record, spec: NodeSpec) -> None:
        """The node serves, as it was asked for; one that does is kept as it is."""
        files, name = self.files(spec.name), spec.name
        registries = tuple(f"{record.prefix}.1:{port}" for port in (REGISTRY_PORT, PRIVATE_REGISTRY_PORT))
        around = Surroundings(registries, self.places.ssh_key.with_suffix(".pub").read_text().strip())
        signature = f"{_LAYOUT} {spec_text(spec)} {around}"
        if not files.done.exists() or files.done.read_text() != signature:
            self._remove_node(name, record.numbers[name])
            build(files, spec, around)
            files.done.write_text(signature)
        if self.groups.init_pid(name) is not None:
            self.groups.freeze(name, False)
            faults.heal(self.target(record, name))
        if not self._serves(record, spec):
            self.groups.kill(name)
            self.boot(record, spec)

    def boot(self, record: Record, spec: NodeSpec) -> None:
        """Start a node that is off, and wait until it serves."""
        files, target = self.files(spec.name), self.target(record, spec.name)
        pid = boot.lxcfs_pid(self.groups, self.places.lxcfs)
        if pid is None:
            raise SetupError(
                f'lab "{self.names.lab}": its lxcfs has died', hint="korch lab up starts it and the nodes again."
            )
        self.groups.create(spec.name, cpus=spec.cpus, memory_bytes=spec.memory_limit)
        boot.wait_for_disk(files.disk)
        self.groups.kill(target.delay_group)
        network.plug(self.names, spec.name, record.numbers[spec.name], record.prefix)
        target.marker.unlink(missing_ok=True)
        boot.start_node(self.groups, spec, files, self.names.netns(spec.name), pid, self.places.lxcfs)
        what = f'lab "{self.names.lab}", node {spec.name}'
        boot.wait_until(what, lambda: self._starts(record, spec), timeout_s=BOOT_TIMEOUT_S, log=files.log)

    def _serves(self, record: Record, spec: NodeSpec) -> bool:
        pid = self.groups.init_pid(spec.name)
        if pid is None or (spec.engine == "docker" and not boot.docker_answers(pid)):
            return False
        return boot.ssh_answers(record.address(spec.name))  # last: each question costs the node a process

    def _starts(self, record: Record, spec: NodeSpec) -> bool:
        pid = self.groups.init_pid(spec.name)
        if pid is not None and spec.engine == "docker" and not boot.docker_starts(pid, spec.name):
            return False
        return self._serves(record, spec)

    def write_inventories(self, record: Record) -> None:
        """The inventories for both users, and the nodes' host keys."""
        addresses = {spec.name: record.address(spec.name) for spec in record.specs}
        keys = {addresses[spec.name]: host_public_keys(self.files(spec.name)) for spec in record.specs}
        key, known_hosts = self.places.ssh_key, self.places.known_hosts
        replace_text(known_hosts, known_hosts_text(keys), 0o600)
        for user in ("root", "lab"):
            text = inventory_text(record.specs, addresses, key=key, known_hosts=known_hosts, user=user)
            replace_text(self.places.inventory(user), text, 0o600)

    def remove_all(self) -> None:
        """Nothing of the lab is left, whatever a crash left."""
        self.groups.kill()
        network.remove_all(self.names)
        self.groups.remove()
        mounts = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if Path(mount).is_relative_to(self.places.folder):
                machine.succeeds("umount", "-l", mount)
        for image in self.places.folder.glob("nodes/*/disk.img"):
            boot.wait_for_disk(image)
        shutil.rmtree(self.places.folder, ignore_errors=True)

    def _remove_node(self, name: str, number: int | None) -> None:
        for group in (faults.delay_group(name), name):
            self.groups.kill(group)
            self.groups.remove(group)
        network.unplug(self.names, name, number)
        boot.wait_for_disk(self.files(name).disk)
        shutil.rmtree(self.files(name).folder, ignore_errors=True)
