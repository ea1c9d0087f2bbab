"""What can go wrong with a node, on order. Every fault is made from outside: the node itself knows nothing of it."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from korch.errors import InvalidError, SetupError
from korch.lab import boot, network
from korch.lab.cgroups import Groups
from korch.lab.machine import run
from korch.lab.rootfs import ENGINE_ENDED, ENGINE_LOG
from korch.lab.spec import Names

_TABLE = "korch_lab"
_BURN = "korch-lab-burn"  # a word in the command line of the busy loops, to find them again
_FILL = "korch-lab-fill"
_WIRE_SCRIPT = Path(__file__).with_name("wire.py")


@dataclass(frozen=True, slots=True)
class Target:
    """The node that a fault is for."""

    names: Names
    node: str
    number: int
    groups: Groups
    folder: Path  # of the node's files

    @property
    def delay_group(self) -> str:
        """The control group of the node's slow cable."""
        return delay_group(self.node)

    @property
    def marker(self) -> Path:
        """Exists while packets are filtered in the node's namespace."""
        return self.folder / "filtered"

    def pid(self) -> int:
        """The node's first process; SetupError when the node is off."""
        pid = self.groups.init_pid(self.node)
        if pid is None:
            raise SetupError(f"lab node {self.node} is off", hint=f"korch lab start {self.node}")
        return pid


def delay_group(node: str) -> str:
    """The control group of a node's slow cable."""
    return f"_delay-{node}"


def power_off(target: Target) -> None:
    """Every process dies at once. The cable goes first, so that nobody hears a goodbye."""
    network.set_cable(target.names, target.number, up=False)
    target.groups.kill(target.delay_group)
    target.groups.kill(target.node)


def partition(target: Target, peers: Sequence[str]) -> None:
    """Cut the node off: from everybody, or from these addresses only."""
    if not peers:
        network.set_cable(target.names, target.number, up=False)
        return
    listed = ", ".join(peers)
    _filter(target, "cut", f"ip saddr {{ {listed} }} drop", f"ip daddr {{ {listed} }} drop")


def lose(target: Target, percent: float) -> None:
    """Drop that share of the packets, in each direction."""
    if not 0 <= percent <= 100:
        raise InvalidError(f"loss of {percent:g} % is not possible", hint="Give 0 to 100.")
    dice = f"numgen random mod 10000 < {round(percent * 100)} drop"
    _filter(target, "loss", dice, dice)


def slow_down(target: Target, delay_ms: float, jitter_ms: float) -> None:
    """Every packet takes so much longer, in each direction; 0 ends it."""
    if delay_ms < 0 or jitter_ms < 0:
        raise InvalidError("a delay cannot be negative")
    _end_delay(target)
    if delay_ms == 0 and jitter_ms == 0:
        return
    names, group = target.names, target.delay_group
    tap = names.tap(target.number)
    words = (sys.executable, "-I", "-S", str(_WIRE_SCRIPT), names.link(target.number), tap, names.bridge)
    target.groups.create(group)
    log = target.folder / "wire.log"
    times = (f"{delay_ms:g}", f"{jitter_ms:g}")
    boot.spawn(boot.join_then(target.groups.joins(group), (*words, *times)), log)
    port = Path("/sys/class/net") / names.link(target.number) / "master"
    boot.wait_until(f"slow cable of {target.node}", lambda: not port.exists(), timeout_s=10.0, log=log)


def heal(target: Target) -> None:
    """End every fault of the network."""
    _end_delay(target)
    network.set_cable(target.names, target.number, up=True)
    if target.marker.exists():
        _nft(target, f"add table inet {_TABLE}\ndelete table inet {_TABLE}\n")
        target.marker.unlink()


def fill_disk(target: Target, leave_kb: int) -> None:
    """Take all free space of the node's disk but `leave_kb`. Fast, and it costs this machine's disk nothing."""
    folder = Path(f"/proc/{target.pid()}/root/var/lib")
    if os.stat(folder).st_dev == os.stat(folder / "../..").st_dev:
        raise InvalidError(f"lab node {target.node} has no disk of its own: filling it would fill this machine's")
    with (folder / _FILL).open("ab") as file:
        step = 1 << 40
        while step >= 1024:
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leave_kb * 1024
            step = min(step, free)
            if step < 1024:
                break
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
            except OSError:
                step //= 2  # the file system needs some of it for itself


def free_disk(target: Target) -> None:
    """Give back what `fill_disk` took."""
    Path(f"/proc/{target.pid()}/root/var/lib/{_FILL}").unlink(missing_ok=True)


def burn(target: Target, tasks: int, seconds: int) -> None:
    """Busy loops in the node, for a bounded time."""
    loop = ("timeout", str(seconds), "sh", "-c", "while :; do :; done", _BURN)
    for _ in range(tasks):
        boot.spawn(boot.enter_words(target.pid(), _joins(target), loop), target.folder / "burn.log")


def stop_burning(target: Target) -> None:
    """End the busy loops."""
    for pid in target.groups.pids(target.node):
        try:
            if _BURN.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, 9)
        except (FileNotFoundError, ProcessLookupError):
            continue


def stop_docker(target: Target, *, hard: bool) -> None:
    """End the node's docker daemon; with `hard` by SIGKILL, which leaves the containers' processes alive."""
    script = 'pid=$(cat /run/docker.pid) && kill "-$1" "$pid" && while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done'
    words = ("timeout", "30", "sh", "-c", script, "sh", "KILL" if hard else "TERM")
    run(*boot.enter_words(target.pid(), _joins(target), words))


def start_docker(target: Target) -> None:
    """Start the node's docker daemon and wait until it answers."""
    pid, log = target.pid(), target.folder / "root" / ENGINE_LOG
    ended = Path(f"/proc/{pid}/root", ENGINE_ENDED)
    begun = False

    def starts() -> bool:
        nonlocal begun
        if begun or boot.docker_answers(pid):
            return boot.docker_starts(pid, target.node)
        # Two daemons at a time would ruin each other: one that somebody else starts has to end first.
        with suppress(FileNotFoundError):
            ended.unlink()
            boot.spawn(boot.enter_words(pid, _joins(target), ("/opt/engine/start",)), log)
            begun = True
        return False

    boot.wait_until(f"docker on {target.node}", starts, timeout_s=60.0, log=log)


def _end_delay(target: Target) -> None:
    if target.groups.pids(target.delay_group):
        target.groups.kill(target.delay_group)
    link = target.names.link(target.number)
    if (Path("/sys/class/net") / link).exists() and not (Path("/sys/class/net") / link / "master").exists():
        network.batch([f"link set {link} master {target.names.bridge} arp on"])


def _filter(target: Target, chain: str, incoming: str, outgoing: str) -> None:
    """One rule for each direction, in place of the chain's rules before; seen before any rule of the engine."""
    lines = [f"add table inet {_TABLE}"]
    for side, hook, rule in (
        ("in", "prerouting", f'iifname "eth0" {incoming}'),
        ("out", "postrouting", f'oifname "eth0" {outgoing}'),
    ):
        name = f"{chain}_{side}"
        lines.append(f"add chain inet {_TABLE} {name} {{ type filter hook {hook} priority -350; }}")
        lines += [f"flush chain inet {_TABLE} {name}", f"add rule inet {_TABLE} {name} {rule}"]
    _nft(target, "\n".join(lines) + "\n")
    target.marker.touch()


def _nft(target: Target, commands: str) -> None:
    netns = f"--net=/run/netns/{target.names.netns(target.node)}"
    run("nsenter", netns, "nft", "-f", "-", stdin=commands)


def _joins(target: Target) -> tuple[Path, ...]:
    return target.groups.inner_joins(target.node) or target.groups.joins(target.node)
