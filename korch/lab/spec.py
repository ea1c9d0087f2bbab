"""What a lab and its nodes are: values, names and addresses. Pure; every name that the kernel will see is made here."""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from korch.errors import InvalidError

Engine = Literal["docker", "podman", "none"]
State = Literal["running", "off", "paused", "partitioned"]

FIRST_NUMBER = 11  # of a node in its subnet; .1 is the bridge
LAST_NUMBER = 254
REGISTRY_PORT = 5000
PRIVATE_REGISTRY_PORT = 5001  # with user and password, when a test asks for it
DEFAULT_LAB = "lab"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One machine to make. Equal specs mean that a running node is kept as it is."""

    name: str
    engine: Engine = "docker"
    cpus: float = 1.0
    memory: str = "1024M"
    busybox: bool = False  # nothing on PATH but busybox and the engine's command line; only root can log in
    disk_mb: int = 4096  # /var/lib is a file system of this size (sparse); 0: a folder of the host's disk
    sshd_config: tuple[str, ...] = ()  # lines that win over the ordinary sshd configuration
    host_keys: tuple[str, ...] = ("ed25519", "ecdsa")
    shell: str = ""  # login shell of root and of the user lab; empty: bash, or sh on a busybox node
    hidden: tuple[str, ...] = ()  # programs that are not installed there, beside the other engine's

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]{1,32}", self.name):  # no "-": in korch-LAB-NODE the last one parts lab and node
            raise InvalidError(
                f'lab node name "{self.name}" is not usable', hint="Use a-z and 0-9, at most 32 of them."
            )
        if self.engine not in ("docker", "podman", "none"):
            raise InvalidError(f'lab node "{self.name}": engine "{self.engine}" is not known', hint="docker or podman")
        if self.cpus <= 0 or self.disk_mb < 0:
            raise InvalidError(f'lab node "{self.name}": CPUs and disk must be positive')
        memory_bytes(self.memory)

    @property
    def memory_limit(self) -> int:
        """The memory limit in bytes."""
        return memory_bytes(self.memory)

    @property
    def login_shell(self) -> str:
        """The program that sshd starts for a user."""
        return self.shell or ("/bin/sh" if self.busybox else "/bin/bash")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as it is now."""

    name: str
    address: str
    state: State
    engine: Engine


@dataclass(frozen=True, slots=True)
class LabStatus:
    """A lab as it is now. `image` is the first version of the sample app, in the lab's own registry."""

    name: str
    inventory: str
    image: str
    registry: str
    nodes: tuple[NodeStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `korch lab status -o json`."""
        return {**asdict(self), "nodes": [asdict(node) for node in self.nodes]}


def check_lab_name(name: str) -> None:
    """Nothing, or InvalidError when namespaces and control groups cannot be called so."""
    if len(name) > 32 or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
        raise InvalidError(f'lab name "{name}" is not usable', hint="Use a-z, 0-9 and -, at most 32 of them.")


def memory_bytes(text: str) -> int:
    """Bytes of `512M`, `1G` or plain digits."""
    match = re.fullmatch(r"([1-9][0-9]*)([KMG]?)i?B?", text)
    if not match:
        raise InvalidError(f'memory "{text}" is not a size', hint="Write it as 512M or 2G.")
    return int(match[1]) * _UNITS[match[2]]


def node_specs(
    *,
    nodes: int = 3,
    engine: str = "docker",
    sshd_only: int = 0,
    busybox: int = 0,
    cpus: float = 1.0,
    memory: str = "1024M",
) -> tuple[NodeSpec, ...]:
    """The usual lab: n1, n2, ... with the engine, s1, ... without one, b1, ... with busybox and the engine only."""
    kinds: tuple[tuple[str, int, Engine, bool], ...] = (
        ("n", nodes, cast(Engine, engine), False),
        ("s", sshd_only, "none", False),
        ("b", busybox, cast(Engine, engine), True),
    )
    return tuple(
        NodeSpec(f"{letter}{number}", engine=kind, busybox=bare, cpus=cpus, memory=memory)
        for letter, count, kind, bare in kinds
        for number in range(1, count + 1)
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where one lab's files lie."""

    folder: Path

    @property
    def record(self) -> Path:
        """What was asked for."""
        return self.folder / "lab.json"

    @property
    def ssh_key(self) -> Path:
        """The private key that every node accepts for root and lab."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The nodes' true host keys."""
        return self.folder / "known_hosts"

    @property
    def lxcfs(self) -> Path:
        """Where lxcfs is mounted."""
        return self.folder / "lxcfs"

    @property
    def registry(self) -> Path:
        """The registry's images."""
        return self.folder / "registry"

    def inventory(self, user: str = "root") -> Path:
        """The Ansible inventory for `root`, or for the sudo user `lab`."""
        return self.folder / ("inventory.yml" if user == "root" else f"inventory-{user}.yml")


@dataclass(frozen=True, slots=True)
class Names:
    """What one lab's things are called in the kernel: by the lab's name alone, so that they can be found again."""

    lab: str

    @property
    def prefix(self) -> str:
        """The control group of the lab, and the start of its namespaces' names."""
        return f"korch-{self.lab}"

    @property
    def tag(self) -> str:
        """Six hex digits that stand for the lab where only 15 characters fit (IFNAMSIZ)."""
        return hashlib.sha256(self.lab.encode()).hexdigest()[:6]

    @property
    def bridge(self) -> str:
        """The bridge between the nodes."""
        return self.prefix if len(self.prefix) <= 15 else f"korch-{self.tag}"

    @property
    def link_prefix(self) -> str:
        """How every host-side link of the lab starts."""
        return f"kv{self.tag}"

    def netns(self, node: str) -> str:
        """The network namespace of a node."""
        return f"{self.prefix}-{node}"

    def link(self, number: int) -> str:
        """The host's end of a node's cable."""
        return f"{self.link_prefix}-{number}"

    def mac(self, number: int) -> str:
        """The node's network address: the same after a reboot, as others remember it for a while."""
        return ":".join(("02", "4b", *(self.tag[start : start + 2] for start in (0, 2, 4)), f"{number:02x}"))

    def tap(self, number: int) -> str:
        """The bridge's end of a slowed-down cable."""
        return f"{self.link_prefix}w{number}"

    def subnet_candidates(self) -> tuple[str, ...]:
        """Networks /24 that this lab may take, best first, each without its last octet: `10.78.0`."""
        if self.lab == DEFAULT_LAB:
            return ("10.78.0",)
        start = int(self.tag, 16)
        return tuple(f"10.78.{1 + (start + step) % 250}" for step in range(250))


def assign_numbers(names: tuple[str, ...], taken: dict[str, int]) -> dict[str, int]:
    """The last octet for each name; a name that had one keeps it."""
    kept = {name: taken[name] for name in names if name in taken}
    free = (number for number in range(FIRST_NUMBER, LAST_NUMBER + 1) if number not in kept.values())
    result: dict[str, int] = {}
    for name in names:
        number = kept.get(name) or next(free, None)
        if number is None:
            raise InvalidError(
                f"a lab has room for {LAST_NUMBER - FIRST_NUMBER + 1} nodes, {len(names)} were asked for"
            )
        result[name] = number
    return result
