"""The master as users run it: playbooks/master.yml makes it a service of systemd on a machine that is its own node."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from testinfra.host import Host

from korch.lab.machine import CLEAN_ENV
from tests.vm.cargo import write_sample_image
from tests.vm.image import ROOT
from tests.vm.looks import check_replica, has_one, ids, until
from tests.vm.machine import Vm
from tests.vm.transcript import Transcript

IMAGE = "localhost/web:1"
APP = "--replicas 1 --cpu 100m --memory 32Mi --health /healthz --port 8080:8080 --timeout 900"
HOME = "/var/lib/korch-master"
AS_KORCH = f"runuser -u korch -- env HOME={HOME} KORCH_HOME={HOME}/state COLUMNS=140 /opt/korch/bin/korch"
NODES = "all:\n  hosts:\n    podman: {ansible_host: 127.0.0.1, ansible_user: root}\n"


def prove_service(transcript: Transcript, work: Path, vm: Vm) -> None:
    """Install it, kill it, pull the plug, stop it: the container stays, or is there again without a command."""
    transcript.title("`korch master` as a service of systemd, by playbooks/master.yml; its node is the same machine")
    vm.wait()
    host = vm.host()
    _install(transcript, work, vm)
    transcript.check("the service runs", host.service("korch-master").is_running, True)
    transcript.check("and after a boot", host.service("korch-master").is_enabled, True)
    archive = work / "service-web.tar"
    write_sample_image(archive, "1", IMAGE)
    with archive.open("rb") as source:
        subprocess.run(vm.ssh_words("podman load -q"), stdin=source, check=True, timeout=600)
    _korch(
        transcript,
        vm,
        f"deploy {IMAGE} {APP}",
    )
    check_replica(transcript, "podman", host, "1")
    _survive(transcript, vm)
    transcript.title("The service is stopped: containers go on, and nothing else of korch does")
    before = ids("podman", host)
    host.check_output("systemctl stop korch-master")
    transcript.check("the same container runs", ids("podman", host), before)
    transcript.check("processes of korch", host.run("pgrep -a -u korch").stdout, "")
    host.check_output("systemctl start korch-master")
    _korch(transcript, vm, "delete web --timeout 900")
    transcript.check("containers", host.check_output("podman ps -aq"), "")


def _survive(transcript: Transcript, vm: Vm) -> None:
    host = vm.host()
    transcript.title("The container is removed, the master is killed, the power fails")
    (old,) = ids("podman", host)
    host.check_output("podman rm -f -t 0 %s", old)
    until("another container runs", partial(_another, host, old))
    pid = _main_pid(host)
    before = ids("podman", host)
    host.check_output("kill -9 %s", pid)
    until("systemd has started it again", lambda: _main_pid(host) not in ("0", pid))
    transcript.check("the container did not notice", ids("podman", host), before)
    vm.reset()
    vm.wait()
    until("the container runs again", partial(has_one, "podman", host), timeout_s=600)
    check_replica(transcript, "podman", host, "1")
    _korch(transcript, vm, "status", status=None)


def _another(host: Host, old: str) -> bool:
    return has_one("podman", host) and ids("podman", host) != [old]


def _main_pid(host: Host) -> str:
    return str(host.check_output("systemctl show --property MainPID --value korch-master"))


def _install(transcript: Transcript, work: Path, vm: Vm) -> None:
    """Twice: the second run changes nothing."""
    (work / "nodes.yml").write_text(NODES)
    # It needs another name: what is called 127.0.0.1 or localhost is the machine of ansible-playbook itself.
    master = work / "master.yml"
    master.write_text(f"all:\n  hosts:\n    master: {{ansible_host: 127.0.0.1, ansible_port: {vm.port}}}\n")
    known = work / "known-inside"
    known.write_text(f"127.0.0.1 {vm.image.host_key}\n")
    settings = {
        "master_inventory": str(work / "nodes.yml"),
        "master_private_key": str(vm.image.key),
        "master_known_hosts": str(known),
    }
    shown = "ansible-playbook -i master.yml -u root playbooks/master.yml -e master_inventory=nodes.yml"
    extra = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    words = (
        *(str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(master), "-u", "root"),
        *("--private-key", str(vm.image.key), "--ssh-common-args", f"-o UserKnownHostsFile={vm.known_hosts}"),
        *(str(ROOT / "playbooks" / "master.yml"), *extra),
    )
    environment = {
        **CLEAN_ENV,
        "HOME": str(work),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    }
    transcript.run(shown, words, env=environment, timeout_s=2400)
    again = transcript.run(shown, words, env=environment, timeout_s=1200)
    transcript.check("the second run changes nothing", "changed=0" in again, True)


def _korch(transcript: Transcript, vm: Vm, words: str, *, status: int | None = 0, timeout_s: float = 1200.0) -> None:
    transcript.run(f"korch {words}", vm.ssh_words(f"{AS_KORCH} {words} 2>&1"), status=status, timeout_s=timeout_s)
