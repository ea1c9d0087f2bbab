"""Control groups of a lab: one group for the lab, one in it for each node and for the lab's own helpers.

A process cannot leave its group by accident, so these groups are also how `lab down` finds everything that a lab ever
started, without any record. Both layouts are served: version 2 (one tree) and version 1 or hybrid (a tree each).
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from korch.errors import SetupError
from korch.lab.machine import write_kernel

PERIOD_US = 100_000
_WANTED_V2 = ("cpu", "cpuset", "io", "memory", "pids")
# lxcfs takes the parent of a group of this name for the container itself, as systemd's own layout has it.
INIT_GROUP = "init.scope"


@dataclass(frozen=True, slots=True)
class Tree:
    """One mounted hierarchy. `controllers` is empty for version 2 and for named ones."""

    mount: Path
    controllers: frozenset[str]
    unified: bool = False  # version 2


def parse_mounts(text: str) -> tuple[Tree, ...]:
    """The hierarchies in `/proc/self/mounts`, each once."""
    known = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls", "net_prio"}
    known |= {"perf_event", "hugetlb", "rdma", "misc"}
    trees: dict[Path, Tree] = {}
    for line in text.splitlines():
        _, mount, kind, options, *_ = line.split(" ")
        if kind in ("cgroup", "cgroup2"):
            controllers = known.intersection(options.split(",")) if kind == "cgroup" else frozenset()
            trees[Path(mount)] = Tree(Path(mount), frozenset(controllers), kind == "cgroup2")
    return tuple(trees.values())


class Groups:
    """The control groups under one parent. `child` is a node's name or a helper's."""

    def __init__(self, parent: str, mounts: str | None = None) -> None:
        self._parent = parent
        trees = parse_mounts(mounts if mounts is not None else Path("/proc/self/mounts").read_text())
        if not trees:
            raise SetupError(
                "no control groups are mounted on this machine", hint="mount -t cgroup2 none /sys/fs/cgroup"
            )
        self.version = 1 if any(tree.controllers for tree in trees) else 2
        self._trees = trees if self.version == 1 else tuple(tree for tree in trees if tree.unified)

    def create(self, child: str, *, cpus: float | None = None, memory_bytes: int | None = None) -> None:
        """Make the group, if need be, and set its limits."""
        for tree in self._trees:
            (tree.mount / self._parent / child).mkdir(parents=True, exist_ok=True)
        if self.version == 2:
            self._limit_v2(child, cpus, memory_bytes)
        else:
            self._limit_v1(child, cpus, memory_bytes)

    def joins(self, child: str) -> tuple[Path, ...]:
        """Files to write a pid to: the process is then in the group."""
        return tuple(tree.mount / self._parent / child / "cgroup.procs" for tree in self._trees)

    def inner_joins(self, child: str) -> tuple[Path, ...]:
        """Files to write a pid to once its cgroup namespace is made.

        Version 2 lets a group either hold processes or hand out controllers, so a node's processes live one level down
        from the root that the node sees.
        """
        if self.version == 1:
            return ()
        inner = self._trees[0].mount / self._parent / child / INIT_GROUP
        inner.mkdir(exist_ok=True)
        return (inner / "cgroup.procs",)

    def pids(self, child: str = "") -> frozenset[int]:
        """Processes in the group and below it, in any hierarchy; of the whole lab without a name."""
        found: set[int] = set()
        for tree in self._trees:
            for group in _walk(tree.mount / self._parent / child):
                try:
                    found.update(int(word) for word in (group / "cgroup.procs").read_text().split())
                except OSError:
                    continue  # the group has just gone, or is a threaded one
        return frozenset(found - {0, os.getpid()})

    def children(self) -> tuple[str, ...]:
        """Names of the groups in the lab's group, sorted."""
        names: set[str] = set()
        for tree in self._trees:
            top = tree.mount / self._parent
            if top.is_dir():
                names.update(entry.name for entry in top.iterdir() if entry.is_dir())
        return tuple(sorted(names))

    def init_pid(self, child: str) -> int | None:
        """The pid, as this machine counts, of the process that is number 1 in the node; None when the node is off."""
        for pid in sorted(self.pids(child)):
            numbers = _namespace_pids(pid)
            if len(numbers) == 2 and numbers[1] == 1:
                return pid
        return None

    def freeze(self, child: str, frozen: bool) -> None:
        """Stop or resume every process of the group; returns when that is so."""
        path, on, off = self._freezer(child)
        if not path.exists():
            return
        write_kernel(path, on if frozen else off)
        for _ in range(200):
            if self.is_frozen(child) == frozen:
                return
            time.sleep(0.01)

    def is_frozen(self, child: str) -> bool:
        """Whether the group is frozen."""
        path, on, _ = self._freezer(child)
        try:
            return path.read_text().strip() == on
        except OSError:
            return False

    def kill(self, child: str = "") -> None:
        """SIGKILL to every process in the group and below, until none is left; SetupError when some survive."""
        for attempt in range(400):
            pids = self.pids(child)
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for name in [child] if child else self.children():
                if self.is_frozen(name):
                    self.freeze(name, False)  # a frozen process of version 1 dies when it wakes
            time.sleep(0.005 if attempt < 100 else 0.05)
        raise SetupError(f"processes of {self._parent}/{child} do not die: {sorted(self.pids(child))}")

    def remove(self, child: str = "") -> None:
        """Remove the empty group and what is below it, in every hierarchy."""
        for tree in self._trees:
            for group in sorted(_walk(tree.mount / self._parent / child), key=lambda path: -len(path.parts)):
                _remove_group(group)

    def _limit_v1(self, child: str, cpus: float | None, memory_bytes: int | None) -> None:
        for tree in self._trees:
            top, group = tree.mount / self._parent, tree.mount / self._parent / child
            if "cpuset" in tree.controllers:
                for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, and then nobody may join
                    for above, below in ((tree.mount, top), (top, group)):
                        if not (below / name).read_text().strip():
                            write_kernel(below / name, (above / name).read_text().strip())
            if "cpu" in tree.controllers and cpus is not None:
                write_kernel(group / "cpu.cfs_period_us", str(PERIOD_US))
                write_kernel(group / "cpu.cfs_quota_us", str(int(cpus * PERIOD_US)))
            if "memory" in tree.controllers and memory_bytes is not None:
                write_kernel(group / "memory.limit_in_bytes", str(memory_bytes))

    def _limit_v2(self, child: str, cpus: float | None, memory_bytes: int | None) -> None:
        mount = self._trees[0].mount
        group = mount / self._parent / child
        for above in (mount, mount / self._parent):
            available = (above / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{name}" for name in _WANTED_V2 if name in available)
            try:
                write_kernel(above / "cgroup.subtree_control", wanted)
            except OSError as error:
                raise SetupError(
                    f"control groups below {above} cannot be limited: {error.strerror}",
                    hint="A lab needs the machine's own cgroup tree: run it on a host or in a VM, not in a container.",
                ) from error
        if cpus is not None and (group / "cpu.max").exists():
            write_kernel(group / "cpu.max", f"{int(cpus * PERIOD_US)} {PERIOD_US}")
        if memory_bytes is not None and (group / "memory.max").exists():
            write_kernel(group / "memory.max", str(memory_bytes))

    def _freezer(self, child: str) -> tuple[Path, str, str]:
        for tree in self._trees:
            if "freezer" in tree.controllers:
                return tree.mount / self._parent / child / "freezer.state", "FROZEN", "THAWED"
        return self._trees[0].mount / self._parent / child / "cgroup.freeze", "1", "0"


def _walk(top: Path) -> Iterator[Path]:
    """The group and all below it; groups may vanish meanwhile."""
    for folder, _, _ in os.walk(top):
        yield Path(folder)


def _remove_group(group: Path) -> None:
    """The kernel says EBUSY for some milliseconds after the last process has died."""
    for _ in range(100):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return


def _namespace_pids(pid: int) -> tuple[int, ...]:
    """The process's numbers from our PID namespace inwards; empty when it has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ()
    for line in text.splitlines():
        if line.startswith("NSpid:"):
            return tuple(int(word) for word in line.split()[1:])
    return ()
