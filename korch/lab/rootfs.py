"""The files of a node: what differs from the host's /usr and /etc, and the folders that make up its disk.

A node's root is a folder of its own. `/usr` and `/etc` are the host's with a private layer on top, so that a node can
be changed at will; `/var/lib` is a small file system of its own; everything else starts empty. Nothing else of the
host, and nothing of another lab, can be seen from a node.
"""

import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from korch.lab.machine import program, run
from korch.lab.spec import NodeSpec

LAB_UID = 1000
ENGINE_ENDED, ENGINE_LOG = "run/docker.ended", "var/log/docker.log"  # below the node's root
_ROOT_FOLDERS = (
    "boot dev etc home/lab media mnt opt/dpkg opt/engine/bin opt/engine/fix opt/engine/sbin proc root run srv sys tmp "
    "usr var/backups var/cache var/lib var/log var/mail var/opt var/spool var/tmp"
)
_ENGINE_PROGRAMS = {
    "docker": ("docker", "dockerd", "docker-proxy", "containerd", "containerd-shim-runc-v2", "ctr"),
    "podman": ("podman", "podman-remote", "conmon", "buildah", "skopeo"),
}
# Part of the host's own life, of no use in a node, or misleading there.
_HOST_ONLY = ("docker-registry", "lxcfs", "etcd", "etcdctl", "vagrant", "libvirtd", "kubectl", "helm")
_SUDOERS = [
    "Defaults env_reset",
    'Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"',
    "root ALL=(ALL:ALL) ALL",
    "%sudo ALL=(ALL:ALL) ALL",
    "@includedir /etc/sudoers.d",
]


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where a node's files lie: `folder` is the node's, all else is below it."""

    folder: Path

    @property
    def root(self) -> Path:
        """The node's `/`, without what is mounted on it."""
        return self.folder / "root"

    @property
    def etc(self) -> Path:
        """The node's own layer over /etc. To be written only while the node is off."""
        return self.folder / "etc"

    @property
    def usr(self) -> Path:
        """The node's own layer over /usr."""
        return self.folder / "usr"

    @property
    def disk(self) -> Path:
        """The image of /var/lib."""
        return self.folder / "disk.img"

    @property
    def done(self) -> Path:
        """Exists when `build` came to its end; holds the spec."""
        return self.folder / "spec.json"

    @property
    def log(self) -> Path:
        """What the node's first process said before its own log files were there."""
        return self.folder / "boot.log"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node's files say about the lab around it."""

    registries: tuple[str, ...]  # without TLS
    public_key: str


def build(files: NodeFiles, spec: NodeSpec, around: Surroundings) -> None:
    """Write a node's files anew; what was there before is gone."""
    shutil.rmtree(files.folder, ignore_errors=True)
    for name in ("usr", "usr.work", "etc", "etc.work", "dpkg", "dpkg.work", "local", "busybox"):
        (files.folder / name).mkdir(parents=True)
    _make_root(files.root)
    _write_accounts(files, spec, around.public_key)
    _write_system_settings(files.etc, spec)
    _write_sshd(files.etc, spec)
    _write_engine_settings(files.etc, around.registries)
    _hide_programs(files.usr, spec)
    for name in ("bin", "etc", "games", "include", "lib", "sbin", "share", "src"):
        (files.folder / "local" / name).mkdir()
    if spec.busybox:
        _install_busybox(files, spec)
    _write_engine_start(files.root, spec)
    if spec.disk_mb and spec.engine != "none":
        make_disk(files.disk, spec.disk_mb)


def make_disk(image: Path, size_mb: int) -> None:
    """A sparse ext4 image. No journal: no crash safety is needed. No reserved blocks: full means full, for root too."""
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    run(
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,nodiscard",
        str(image),
    )


def host_public_keys(files: NodeFiles) -> tuple[str, ...]:
    """`TYPE BASE64` of each host key of the node."""
    found = sorted((files.etc / "ssh").glob("ssh_host_*_key.pub"))
    return tuple(" ".join(path.read_text().split()[:2]) for path in found if path.is_file())  # or a whiteout


def _make_root(root: Path) -> None:
    for name in _ROOT_FOLDERS.split():
        (root / name).mkdir(parents=True, exist_ok=True)
    for entry in Path("/").iterdir():  # bin, sbin, lib, lib64 of a merged /usr
        if entry.is_symlink() and os.readlink(entry).lstrip("/").startswith("usr/"):
            (root / entry.name).symlink_to(os.readlink(entry))
    (root / "var/run").symlink_to("/run")
    (root / "var/lock").symlink_to("/run/lock")
    for name, mode in (("root", 0o700), ("var/tmp", 0o1777), ("home/lab", 0o755)):
        (root / name).chmod(mode)


def _write_accounts(files: NodeFiles, spec: NodeSpec, public_key: str) -> None:
    """The host's system accounts, without its people; root and lab log in with the lab's key only."""
    etc, shell = files.etc, spec.login_shell
    system = [line for line in _lines("/etc/passwd") if _is_system(line.split(":")[2])]
    people = [f"lab:x:{LAB_UID}:{LAB_UID}:lab:/home/lab:{shell}"]
    passwd = [f"root:x:0:0:root:/root:{shell}" if line.startswith("root:") else line for line in system]
    _write(etc / "passwd", [*passwd, *people])
    names = [line.split(":")[0] for line in passwd]
    _write(etc / "shadow", [f"{name}:*:19000:0:99999:7:::" for name in [*names, "lab"]], 0o640)
    groups = [line.rsplit(":", 1)[0] + ":" for line in _lines("/etc/group") if _is_system(line.split(":")[2])]
    _write(etc / "group", [*groups, f"lab:x:{LAB_UID}:"])
    _write(etc / "gshadow", [f"{line.split(':')[0]}:*::" for line in [*groups, "lab:"]], 0o640)
    for name in ("subuid", "subgid"):
        _write(etc / name, ["lab:100000:65536"])
    _write(etc / "sudoers.d" / "lab", ["lab ALL=(ALL:ALL) NOPASSWD: ALL"], 0o440)
    for home, uid in ((files.root / "root", 0), (files.root / "home/lab", LAB_UID)):
        _make_home(home, uid, public_key)


def _make_home(home: Path, uid: int, public_key: str) -> None:
    if Path("/etc/skel").is_dir():
        shutil.copytree("/etc/skel", home, dirs_exist_ok=True)
    _write(home / ".ssh" / "authorized_keys", [public_key], 0o600)
    (home / ".ssh").chmod(0o700)
    for path in [home, *home.rglob("*")]:
        os.chown(path, uid, uid, follow_symlinks=False)


def _write_system_settings(etc: Path, spec: NodeSpec) -> None:
    _write(etc / "hostname", [spec.name])
    _write(etc / "hosts", ["127.0.0.1 localhost", f"127.0.1.1 {spec.name}", "::1 ip6-localhost ip6-loopback"])
    # Nobody listens there: a name that is not in /etc/hosts is refused at once, not after seconds of silence.
    _write(etc / "resolv.conf", ["nameserver 127.0.0.1", "options timeout:1 attempts:1"])
    _write(etc / "machine-id", [os.urandom(16).hex()])
    _write(etc / "environment", [])
    _write(etc / "default" / "locale", ["LANG=C.UTF-8"])
    _write(etc / "motd", [])
    (etc / "mtab").symlink_to("/proc/self/mounts")
    _write(etc / "fstab", [])
    _write(etc / "sudoers", _SUDOERS, 0o440)
    for name in ("sudoers.d", "profile.d", "update-motd.d", "cron.d"):
        _hide_all(Path("/etc") / name, etc / name)


def _write_sshd(etc: Path, spec: NodeSpec) -> None:
    """Debian's ordinary settings, and host keys of the node's own. Limits stay at sshd's defaults."""
    _hide_all(Path("/etc/ssh"), etc / "ssh")
    internal = "internal-sftp" if spec.busybox else "/usr/lib/openssh/sftp-server"
    ordinary = ["KbdInteractiveAuthentication no", "UsePAM yes", "X11Forwarding yes", "PrintMotd no"]
    ordinary += ["AcceptEnv LANG LC_*", f"Subsystem sftp {internal}"]
    keys = [f"HostKey /etc/ssh/ssh_host_{kind}_key" for kind in spec.host_keys]
    _write(etc / "ssh" / "sshd_config", [*spec.sshd_config, *keys, *ordinary])
    for kind in spec.host_keys:
        path = etc / "ssh" / f"ssh_host_{kind}_key"
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)  # the mark that hides the host's own key
        run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{spec.name}", "-f", str(path))


def _write_engine_settings(etc: Path, registries: tuple[str, ...]) -> None:
    _hide_all(Path("/etc/docker"), etc / "docker")
    _hide_all(Path("/etc/containers"), etc / "containers")
    _hide_all(Path("/etc/cni/net.d"), etc / "cni/net.d")
    docker = {"insecure-registries": registries, "storage-driver": "overlay2"}
    _write(etc / "docker" / "daemon.json", [json.dumps(docker)])
    _write(etc / "containers" / "policy.json", [json.dumps({"default": [{"type": "insecureAcceptAnything"}]})])
    known = [line for address in registries for line in ("[[registry]]", f'location = "{address}"', "insecure = true")]
    _write(etc / "containers" / "registries.conf", known)
    settings = ["[containers]", 'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]']
    settings += [
        "[network]",
        'network_backend = "netavark"',
        "[engine]",
        'runtime = "runc"',
        'cgroup_manager = "cgroupfs"',
        'events_logger = "file"',
    ]
    _write(etc / "containers" / "containers.conf", settings)


def _hide_programs(usr: Path, spec: NodeSpec) -> None:
    other = [name for engine, names in _ENGINE_PROGRAMS.items() if engine != spec.engine for name in names]
    for name in (*other, *_HOST_ONLY, *spec.hidden):
        for folder in ("bin", "sbin"):
            if os.path.lexists(Path("/usr") / folder / name):
                _white_out(usr / folder / name)


def _install_busybox(files: NodeFiles, spec: NodeSpec) -> None:
    """A folder that stands for /usr/bin and /usr/sbin: busybox, its applets as links, and the engine's command."""
    folder = files.folder / "busybox"
    shutil.copy2(str(program("busybox")), folder / "busybox")
    for applet in run("busybox", "--list").split():
        if applet not in ("busybox", "dpkg", "dpkg-deb", "rpm", "rpm2cpio"):
            (folder / applet).symlink_to("busybox")
    if spec.engine != "none":
        # Podman looks for conmon, runc and iptables on PATH; the user's own PATH stays bare.
        path = "/opt/engine/fix:/opt/engine/sbin:/opt/engine/bin"
        _write(folder / spec.engine, ["#!/bin/sh", f"PATH={path}", f'exec /opt/engine/bin/{spec.engine} "$@"'], 0o755)
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        (files.root / "opt/engine/fix" / name).symlink_to("../sbin/xtables-nft-multi")
    conf = files.etc / "containers" / "containers.conf"
    helpers = [
        'conmon_path = ["/opt/engine/bin/conmon"]',
        "[engine.runtimes]",
        'runc = ["/opt/engine/sbin/runc", "/opt/engine/bin/runc"]',
    ]
    _write(conf, [*_lines(str(conf)), *helpers])


def _write_engine_start(root: Path, spec: NodeSpec) -> None:
    """The node's stand-in for `systemctl start docker`."""
    if spec.engine == "docker":
        path = ["PATH=/opt/engine/fix:/opt/engine/sbin:/opt/engine/bin:/usr/sbin:/usr/bin"] if spec.busybox else []
        folder = "/opt/engine/sbin" if spec.busybox else "/usr/sbin"
        # dockerd refuses to start over the pid file of one that was killed when that number is in use again. It gives
        # its containerd 15 s to start and then ends with 1: on a slow machine the next try goes better.
        start = ["#!/bin/sh", *path, "for _ in 1 2 3 4 5 6; do", "  rm -f /run/docker.pid", f"  {folder}/dockerd"]
        end = ["  [ $? = 1 ] || break", "done", f": > /{ENGINE_ENDED}"]
        _write(root / "opt/engine/start", [*start, *end], 0o755)


def _hide_all(lower: Path, upper: Path) -> None:
    """White out every entry of a host folder that the node's layer does not hold yet, but the ones that sshd needs."""
    upper.mkdir(parents=True, exist_ok=True)
    for entry in lower.iterdir() if lower.is_dir() else ():
        if not os.path.lexists(upper / entry.name) and entry.name != "moduli":
            _white_out(upper / entry.name)


def _white_out(path: Path) -> None:
    """The overlay's mark for "this is not here": a character device 0:0 (kernel documentation, overlayfs)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(path):
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _is_system(number: str) -> bool:
    return int(number) < 1000 or int(number) >= 65534


def _lines(path: str) -> list[str]:
    return [line for line in Path(path).read_text().splitlines() if line.strip()]


def _write(path: Path, lines: list[str], mode: int = 0o644) -> None:
    """Write a file anew, over a whiteout too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
