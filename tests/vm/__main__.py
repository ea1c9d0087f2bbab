"""`make vm-test`: korch on virtual machines as users have them, in three parts. Output: last-vm-test.txt.

`outside`: two machines, one with Docker and one with Podman, both with systemd and control groups version 2, are one
cluster. `service`: `korch master` as a service of systemd on such a machine. `inside`: `make demo` there.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from testinfra.host import Host

from korch.errors import KorchError
from korch.lab.machine import CLEAN_ENV, run
from tests.vm.cargo import write_checkout, write_sample_image
from tests.vm.image import ROOT, ensure_image, work_folder
from tests.vm.looks import check_replica, has_one, ids, until
from tests.vm.machine import Vm, running
from tests.vm.service import prove_service
from tests.vm.transcript import StepFailedError, Transcript, finish

OUTPUT = Path(__file__).with_name("last-vm-test.txt")
DOCKER_UNITS = ("docker.service", "docker.socket", "containerd.service")
IMAGES = {"1": "localhost/web:1", "2": "localhost/web:2"}
SLOW = ("--timeout", "600")  # every instruction of these machines is emulated
APP = "--replicas 2 --port 8080:8080 --cpu 100m --memory 32Mi --health /healthz"


def main() -> int:
    """Exit status 0 when all of it went well."""
    work = work_folder() / "run"
    work.mkdir(exist_ok=True)
    transcript = Transcript(OUTPUT, {str(work): "WORK", str(ROOT): "CHECKOUT"})
    try:
        image = ensure_image()
        parts = sys.argv[1:] or ["outside", "service", "inside"]
        with ExitStack() as machines:
            podman = machines.enter_context(
                running(image, work, "podman", memory_mib=2048, cpus=2, masked=DOCKER_UNITS)
            )
            if "outside" in parts:
                with running(image, work, "docker", memory_mib=1024) as docker:
                    _outside(transcript, work, docker, podman)
            if "service" in parts:
                prove_service(transcript, work, podman)
            if "inside" in parts:
                _inside(transcript, work, podman)
    except (KorchError, StepFailedError, subprocess.SubprocessError, OSError, AssertionError) as error:
        return finish(transcript, error)
    return finish(transcript, None)


# --- from outside ---


def _outside(transcript: Transcript, work: Path, docker: Vm, podman: Vm) -> None:
    vms = {"docker": docker, "podman": podman}
    transcript.title("Two virtual machines with systemd, one with Docker and one with Podman")
    for name, vm in vms.items():
        vm.wait()
        _describe(transcript, name, vm.host())
    with _agent(docker.image.key) as agent:
        korch = _korch(transcript, work, agent, f"root@127.0.0.1:{docker.port},root@127.0.0.1:{podman.port}")
        nodes = {name: f"127.0.0.1-{vm.port}" for name, vm in vms.items()}
        transcript.title("An unknown host key is refused; this one is known to be right")
        for node in nodes.values():
            korch(f"node trust {node} --fingerprint {docker.image.fingerprint}")
        korch("node check", status=None)
        korch("nodes")
        _bring_images(transcript, work, korch)
        _life_of_an_app(transcript, korch, vms)


def _life_of_an_app(transcript: Transcript, korch: Callable[..., str], vms: dict[str, Vm]) -> None:
    slow = " ".join(SLOW)
    transcript.title("Two replicas")
    korch(f"deploy {IMAGES['1']} {APP} {slow}")
    korch("get pods -o wide")
    for name, vm in vms.items():
        check_replica(transcript, name, vm.host(), "1")
    transcript.title("The same again changes nothing")
    before = {name: ids(name, vm.host()) for name, vm in vms.items()}
    korch(f"deploy {IMAGES['1']} {APP} {slow}")
    transcript.check("same containers", {name: ids(name, vm.host()) for name, vm in vms.items()} == before, True)
    transcript.title("Another version")
    korch(f"deploy {IMAGES['2']} {APP} {slow}")
    for name, vm in vms.items():
        check_replica(transcript, name, vm.host(), "2")
    transcript.title(
        "The engine is restarted by systemd; a container's process is killed on Podman, which has no daemon"
    )
    vms["docker"].host().check_output("systemctl restart docker")
    vms["podman"].host().check_output("kill -9 $(podman inspect --format '{{.State.Pid}}' $(podman ps -q))")
    for name, vm in vms.items():
        until(f"{name} has its container again", partial(has_one, name, vm.host()))
        check_replica(transcript, name, vm.host(), "2")
    transcript.title("The power of both machines fails")
    for vm in vms.values():
        vm.reset()
    time.sleep(5)
    for vm in vms.values():
        vm.wait()
    korch("sync", timeout_s=900)
    korch("get pods -o wide")
    for name, vm in vms.items():
        check_replica(transcript, name, vm.host(), "2")
    transcript.title("The end")
    korch("delete web", timeout_s=900)
    for name, vm in vms.items():
        transcript.check(f"containers on {name}", vm.host().check_output(f"{name} ps -aq"), "")
    korch("cluster rm --yes")
    for name, vm in vms.items():
        transcript.check(f"claims on {name}", vm.host().run("ls /var/lib/korch/claims").stdout, "")


def _describe(transcript: Transcript, name: str, host: Host) -> None:
    transcript.check(f"{name}: systemd is", host.check_output("cat /proc/1/comm"), "systemd")
    transcript.check(f"{name}: control groups", host.check_output("stat -f -c %T /sys/fs/cgroup"), "cgroup2fs")
    transcript.say(f"      {host.check_output(f'{name} --version')}, Linux {host.check_output('uname -r')}")
    transcript.check(f"{name}: Docker's service runs", host.service("docker").is_running, name == "docker")


def _bring_images(transcript: Transcript, work: Path, korch: Callable[..., str]) -> None:
    transcript.title("Images without a registry")
    for version, reference in IMAGES.items():
        path = work / f"web-{version}.tar"
        write_sample_image(path, version, reference)
        korch(f"image push --archive {path.name}", cwd=work)


# --- from inside ---


def _inside(transcript: Transcript, work: Path, vm: Vm) -> None:
    transcript.title("`make demo` in a virtual machine: its nodes are namespaces with control groups version 2")
    vm.wait()
    checkout = work / "checkout.tar"
    write_checkout(checkout)
    unpack = "tar -x -C /root -f - && touch /root/korch/.venv/.done"
    subprocess.run(vm.ssh_words(unpack), stdin=checkout.open("rb"), check=True, timeout=300)
    transcript.run("make demo", vm.ssh_words("cd korch && make demo 2>&1"), timeout_s=3000)
    left = vm.host().check_output(
        "ip -br link; ls /sys/fs/cgroup /run/netns 2>/dev/null; pgrep -a 'dockerd|lxcfs' || true"
    )
    transcript.check("left of the lab", "korch" in left or "dockerd" in left, False)


# --- tools ---


@contextmanager
def _agent(key: Path) -> Iterator[str]:
    """The socket of an ssh-agent that holds the key."""
    socket = key.with_name("agent")
    socket.unlink(missing_ok=True)
    words = ("setpriv", "--pdeathsig", "KILL", "ssh-agent", "-D", "-a", str(socket))
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        until("the ssh-agent is up", socket.exists)
        run("ssh-add", "-q", str(key), env={**CLEAN_ENV, "SSH_AUTH_SOCK": str(socket)})
        yield str(socket)
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)


def _korch(transcript: Transcript, work: Path, agent: str, inventory: str) -> Callable[..., str]:
    """A function that runs `korch WORDS` on a cluster of its own and keeps what it says."""
    home = work / "korch-home"
    run("rm", "-rf", str(home))
    environment = {**CLEAN_ENV, "HOME": str(work), "KORCH_HOME": str(home), "SSH_AUTH_SOCK": agent}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "140"}
    first = [f"-i {inventory} "]

    def call(words: str, **options: object) -> str:
        source = first.pop() if first else ""
        argv = (sys.executable, "-m", "korch", *f"{source}{words}".split())
        return transcript.run(f"korch {source}{words}", argv, env=environment, **options)  # type: ignore[arg-type]

    return call


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
