"""This machine, as the lab needs it: programs that are there, a way to run them, and who we are."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from korch.errors import SetupError

# A lab is made from outside any shell: what the caller's environment holds must not leak into the nodes.
CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

PACKAGE_OF = {
    "busybox": "busybox-static",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "ip": "iproute2",
    "lxcfs": "lxcfs",
    "mke2fs": "e2fsprogs",
    "nft": "nftables",
    "nsenter": "util-linux",
    "podman": "podman",
    "setsid": "util-linux",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sudo": "sudo",
    "tini": "tini",
    "tini-static": "tini",
    "unshare": "util-linux",
}
_ALWAYS = (
    "busybox",
    "docker-registry",
    "ip",
    "lxcfs",
    "mke2fs",
    "nft",
    "nsenter",
    "setsid",
    "ssh-keygen",
    "sshd",
    "sudo",
)
_ALWAYS_TOO = ("tini", "tini-static", "unshare")
_ENGINE = {"docker": ("docker", "dockerd"), "podman": ("podman",)}
_UNUSABLE_FILE_SYSTEMS = {0x794C7630: "overlayfs", 0x6969: "NFS", 0x65735546: "FUSE"}  # statfs(2)


def program(name: str) -> str | None:
    """Where a program lives, looked up on the system's own PATH rather than the caller's."""
    return shutil.which(name, path=CLEAN_ENV["PATH"])


def missing_programs(engines: Iterable[str]) -> tuple[str, ...]:
    """Programs that a lab with these engines needs and this machine does not have, sorted."""
    wanted = [*_ALWAYS, *_ALWAYS_TOO, *(name for engine in engines for name in _ENGINE.get(engine, ()))]
    return tuple(sorted({name for name in wanted if program(name) is None}))


def require_root() -> None:
    """Nothing, or SetupError when this is not Linux, or we are not root."""
    if not sys.platform.startswith("linux"):
        raise SetupError(
            f"a lab needs Linux: this machine runs {sys.platform}",
            hint="Use the Vagrantfile, or run korch inside a Linux machine.",
        )
    if os.geteuid() != 0:
        raise SetupError("a lab needs root: it makes network namespaces and mounts", hint="Run it with sudo.")


def require(engines: Iterable[str]) -> None:
    """Nothing, or SetupError that names what this machine lacks for a lab and how to get it."""
    require_root()
    if missing := missing_programs(engines):
        packages = sorted({PACKAGE_OF[name] for name in missing})
        raise SetupError(
            f"a lab needs {', '.join(missing)}, not found on this machine",
            hint=f"apt-get install --no-install-recommends {' '.join(packages)}",
        )
    if not Path("/bin").is_symlink():
        raise SetupError(
            "a lab needs a system with merged /usr (/bin a link to usr/bin)", hint="Debian 12 or newer has it."
        )


def require_disk(folder: Path) -> None:
    """Nothing, or SetupError when the folder's file system cannot carry nodes (no overlay on top of it)."""
    answer = run("stat", "-f", "-c", "%t", str(folder)).strip()
    name = _UNUSABLE_FILE_SYSTEMS.get(int(answer, 16))
    if name:
        raise SetupError(
            f"a lab cannot live in {folder}: that is {name}, on which the kernel mounts no overlay",
            hint="Set KORCH_HOME to a folder on a local disk (ext4, xfs, btrfs or tmpfs).",
        )


def run(*argv: str, stdin: str | None = None, timeout_s: float = 60.0, env: Mapping[str, str] = CLEAN_ENV) -> str:
    """What the program printed; SetupError with its complaint when it failed."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, env=dict(env), check=False
        )
    except FileNotFoundError as error:
        package = PACKAGE_OF.get(argv[0], argv[0])
        raise SetupError(f"{argv[0]} is not on this machine", hint=f"apt-get install {package}") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(argv[:3])} did not end within {timeout_s:g} s on this machine") from error
    if done.returncode != 0:
        complaint = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise SetupError(f"{' '.join(argv[:6])} failed on this machine: {' / '.join(complaint) or done.returncode}")
    return done.stdout


def succeeds(*argv: str, timeout_s: float = 60.0) -> bool:
    """Whether the program ended well; for things that may be gone already."""
    done = subprocess.run(argv, capture_output=True, timeout=timeout_s, env=CLEAN_ENV, check=False)
    return done.returncode == 0


def write_kernel(path: Path, value: str) -> None:
    """Write one value to a kernel file in one system call (these files take nothing else)."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
