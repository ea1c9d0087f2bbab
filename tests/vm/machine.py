"""A virtual machine under qemu without hardware support (TCG), reached over SSH at a port of 127.0.0.1."""

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import testinfra
from testinfra.host import Host

from korch.errors import SetupError
from korch.lab.machine import run
from tests.vm.image import Image

BOOT_TIMEOUT_S = 400.0
FIRST_PORT = 22101
# An emulated machine on a busy host may miss its timer's first ticks: it must not look for them, and may try again.
KERNEL_WORDS = "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off no_timer_check panic=5"


@dataclass(frozen=True, slots=True)
class Vm:
    """A running machine. `folder` has its disk, its console and its monitor."""

    name: str
    port: int
    folder: Path
    image: Image

    @property
    def known_hosts(self) -> Path:
        """Its true host key."""
        return self.folder / f"{self.name}.known_hosts"

    @property
    def ssh_options(self) -> tuple[str, ...]:
        """OpenSSH options that hold for this machine and read nothing of the user's."""
        options = (f"UserKnownHostsFile={self.known_hosts}", "IdentitiesOnly=yes", "BatchMode=yes", "LogLevel=ERROR")
        return ("-F", "/dev/null", *(word for option in (*options, "ConnectTimeout=20") for word in ("-o", option)))

    def host(self) -> Host:
        """The machine as testinfra sees it over SSH."""
        return testinfra.get_host(
            f"ssh://root@127.0.0.1:{self.port}",
            ssh_identity_file=str(self.image.key),
            ssh_extra_args=shlex.join(self.ssh_options),
            controlpersist=0,
        )

    def ssh_words(self, script: str) -> tuple[str, ...]:
        """Words of an OpenSSH call that runs a shell line as root."""
        login = ("-i", str(self.image.key), "-p", str(self.port), "root@127.0.0.1")
        return ("ssh", *self.ssh_options, *login, script)

    def answers(self) -> bool:
        """Whether root can log in and the machine has settled."""
        words = self.ssh_words("systemctl is-system-running --wait")
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.stdout.strip() in ("running", "degraded")

    def wait(self) -> None:
        """Return when it has booted; SetupError with the end of its console when it does not."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while not self.answers():
            if time.monotonic() > deadline:
                tail = (self.folder / f"{self.name}.console").read_text(errors="replace").splitlines()[-5:]
                raise SetupError(f"virtual machine {self.name} did not boot: {' / '.join(tail)}")
            time.sleep(1.0)

    def reset(self) -> None:
        """Pull the plug and put it back."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(20.0)
            monitor.connect(str(self.folder / f"{self.name}.monitor"))
            monitor.recv(4096)
            monitor.sendall(b"system_reset\n")
            time.sleep(0.5)
            monitor.recv(4096)


@contextmanager
def running(
    image: Image, folder: Path, name: str, *, memory_mib: int, cpus: int = 1, masked: Sequence[str] = ()
) -> Iterator[Vm]:
    """A machine that boots on a fresh overlay of the image, without the masked services; it ends with the context."""
    vm = Vm(name, _free_port(), folder, image)
    vm.known_hosts.write_text(f"[127.0.0.1]:{vm.port} {image.host_key}\n")
    disk = folder / f"{name}.qcow2"
    disk.unlink(missing_ok=True)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", "raw", str(disk))
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _qemu(vm, disk, memory_mib, cpus, masked), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_for_port(vm, process, log)
        yield vm
    finally:
        process.kill()
        process.wait()
        disk.unlink(missing_ok=True)


def _qemu(vm: Vm, disk: Path, memory_mib: int, cpus: int, masked: Sequence[str]) -> tuple[str, ...]:
    """`restrict`: the machine reaches nothing outside. `cache=unsafe`: nobody needs the disk after a crash of ours."""
    more = (f"systemd.hostname={vm.name}", *(f"systemd.mask={unit}" for unit in masked))
    architecture = os.uname().machine
    return (
        *("setpriv", "--pdeathsig", "KILL", f"qemu-system-{architecture}", "-name", vm.name),
        *("-machine", "q35" if architecture == "x86_64" else "virt", "-accel", "tcg,thread=multi,tb-size=256"),
        *("-cpu", "max", "-smp", str(cpus), "-m", str(memory_mib), "-display", "none"),
        *("-serial", f"file:{vm.folder / vm.name}.console"),
        *("-monitor", f"unix:{vm.folder / vm.name}.monitor,server,nowait"),
        *("-kernel", str(vm.image.folder / "vmlinuz"), "-initrd", str(vm.image.folder / "initrd.img")),
        *("-append", " ".join((KERNEL_WORDS, *more))),
        *("-drive", f"if=virtio,file={disk},format=qcow2,cache=unsafe"),
        *("-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{vm.port}-:22"),
        *("-device", "virtio-net-pci,netdev=n0", "-device", "virtio-rng-pci"),
    )


def _wait_for_port(vm: Vm, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when qemu listens: the next machine then takes another port."""
    for _ in range(600):
        if process.poll() is not None:
            raise SetupError(f"qemu ended at once for virtual machine {vm.name}: {log.read_text(errors='replace')}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", vm.port)) == 0:
                return
        time.sleep(0.1)
    raise SetupError(f"qemu does not listen at port {vm.port} for virtual machine {vm.name}")


def _free_port() -> int:
    """The first one from FIRST_PORT on that nobody listens at."""
    for port in range(FIRST_PORT, FIRST_PORT + 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SetupError("no port is free on 127.0.0.1 for a virtual machine")
