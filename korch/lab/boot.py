"""Starts processes of a lab in their control group and namespaces, and looks into a running node from outside."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from korch.errors import SetupError
from korch.lab.cgroups import Groups
from korch.lab.machine import CLEAN_ENV
from korch.lab.rootfs import ENGINE_ENDED, ENGINE_LOG, NodeFiles
from korch.lab.spec import NodeSpec

LXCFS = "_lxcfs"  # control group; no node can be called so
NODE_SCRIPT = Path(__file__).with_name("node.sh")
# Writes its own pid to the first $1 files, then becomes the rest of the words.
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1"; shift; n=$((n - 1)); done; exec "$@"'


def join_then(files: Sequence[Path], argv: Sequence[str]) -> tuple[str, ...]:
    """Words of a command that first joins control groups."""
    return ("sh", "-c", _JOIN, "sh", str(len(files)), *map(str, files), *argv)


def spawn(argv: Sequence[str], log: Path) -> None:
    """Start a daemon: own session, no parent, output to the log."""
    with log.open("ab") as output:
        done = subprocess.run(
            ("setsid", "--fork", *argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=CLEAN_ENV,
            check=False,
        )
    if done.returncode != 0:
        raise SetupError(f"{argv[0]} could not be started", hint=f"See {log}")


def start_node(groups: Groups, spec: NodeSpec, files: NodeFiles, netns: str, lxcfs_pid: int, lxcfs_dir: Path) -> None:
    """Switch a node on. It is not ready yet when this returns."""
    words = ("sh", str(NODE_SCRIPT), str(files.folder), spec.name, spec.engine, str(lxcfs_dir))
    flags = ("1" if spec.busybox else "0", "1" if files.disk.exists() else "0")
    inside = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", *words, *flags)
    namespaces = ("nsenter", f"--mount=/proc/{lxcfs_pid}/ns/mnt", f"--net=/run/netns/{netns}", "unshare", "--cgroup")
    files.log.write_bytes(b"")
    spawn(
        join_then(groups.joins(spec.name), (*namespaces, *join_then(groups.inner_joins(spec.name), inside))), files.log
    )


def enter_words(pid: int, joins: Sequence[Path], argv: Sequence[str]) -> tuple[str, ...]:
    """Words that run a command inside the node whose first process is `pid`, as if the node had started it."""
    enter = ("nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
    return join_then(joins, (*enter, *argv))


def wait_until(what: str, ready: Callable[[], bool], *, timeout_s: float, log: Path | None = None) -> None:
    """Return as soon as `ready()`; SetupError with the end of the log after `timeout_s`."""
    start = time.monotonic()
    while not ready():
        waited = time.monotonic() - start
        if waited > timeout_s:
            raise SetupError(f"{what} was not ready within {timeout_s:g} s: {_end_of(log, 5)}")
        time.sleep(min(1.0, max(0.02, waited / 20)))  # a slow machine needs its time for other things


def _end_of(log: Path | None, lines: int) -> str:
    tail = log.read_text(errors="replace").strip().splitlines()[-lines:] if log and log.exists() else []
    return " / ".join(tail) or "no message"


def ssh_answers(address: str) -> bool:
    """Whether an SSH server greets there."""
    try:
        with socket.create_connection((address, 22), timeout=1.0) as connection:
            connection.settimeout(10.0)  # every call that gives up early costs a slow machine another sshd
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def docker_starts(pid: int, node: str) -> bool:
    """Whether the node's docker daemon answers; SetupError with its last word when it has ended instead."""
    root = Path(f"/proc/{pid}/root")
    ended = (root / ENGINE_ENDED).exists()  # asked first: it may end after an answer, but never answer after its end
    if docker_answers(pid):
        return True
    if ended:
        word = _end_of(root / ENGINE_LOG, 1)
        raise SetupError(
            f"{node}: docker ended instead of starting: {word}",
            hint=f"If its disk is full: korch lab fill-disk {node} --undo",
        )
    return False


def docker_answers(pid: int) -> bool:
    """Whether the engine of the node with this first process answers a ping on its own socket."""
    path = f"/proc/{pid}/root/run/docker.sock"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def loop_devices(image: Path) -> tuple[str, ...]:
    """Loop devices that still hold the image. They go by themselves once the node's mounts are gone."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if path.read_text().strip() == str(image):
                found.append(path.parts[3])
        except OSError:
            continue  # detached just now
    return tuple(found)


def wait_for_disk(image: Path) -> None:
    """Return when no dying node holds the image: mounted twice it would be ruined."""
    if image.exists():
        wait_until(f"disk {image}", lambda: not loop_devices(image), timeout_s=20.0)


def start_lxcfs(groups: Groups, folder: Path, log: Path) -> None:
    """Serve per-node /proc files, mounted in a namespace of its own: this machine's mount table stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    groups.create(LXCFS)
    serve = ("lxcfs", "-f", "-l", "--enable-cfs", "-p", str(folder.with_name("lxcfs.pid")), str(folder))
    spawn(join_then(groups.joins(LXCFS), ("unshare", "--mount", "--propagation", "private", *serve)), log)
    wait_until("lxcfs", lambda: lxcfs_pid(groups, folder) is not None, timeout_s=10.0, log=log)


def lxcfs_pid(groups: Groups, folder: Path) -> int | None:
    """The lab's lxcfs, when it serves; it holds the mount namespace that nodes start from."""
    for pid in sorted(groups.pids(LXCFS)):
        if os.path.exists(f"/proc/{pid}/root{folder}/proc/loadavg"):
            return pid
    return None
