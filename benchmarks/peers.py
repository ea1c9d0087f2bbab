"""korch beside its peers on one lab: deploying, looking at many hosts, starting up."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Figure, call, cpu_seconds, in_turn, together
from korch.lab.lab import Lab
from korch.lab.spec import NodeSpec, node_specs

BIN = Path(sys.executable).parent
NODES = ("n1", "n2", "n3")
MANY = 100


@contextmanager
def _lab(name: str, specs: Sequence[NodeSpec]) -> Iterator[Lab]:
    """A lab in a KORCH_HOME of its own; it is gone afterwards."""
    with TemporaryDirectory(prefix="korch-bench-") as home:
        lab = Lab(name, Path(home))
        lab.up(specs)
        try:
            yield lab
        finally:
            lab.down()


def korch_env(lab: Lab) -> dict[str, str]:
    """The settings with which `korch` works on this lab."""
    return {
        "KORCH_HOME": str(lab.folder.parent.parent),
        "KORCH_CLUSTER": "bench",
        "KORCH_INVENTORY": str(lab.inventory_path),
    }


def _ssh(lab: Lab, node: str) -> list[str]:
    options = ["-F", "none", "-i", str(lab.ssh_key), "-o", f"UserKnownHostsFile={lab.known_hosts}"]
    return ["ssh", *options, f"root@{lab.address(node)}"]


def _ansible(lab: Lab, folder: Path) -> tuple[str, dict[str, str]]:
    """The inventory for Ansible, with a Python that exists on the nodes, and quiet settings."""
    inventory = folder / "bench.yml"
    inventory.write_text(lab.inventory_path.read_text())
    env = {"ANSIBLE_HOST_KEY_CHECKING": "True", "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3", "ANSIBLE_FORKS": "50"}
    # Its default keeps connections for a minute: it would then begin warm, on those of the round before.
    env["ANSIBLE_SSH_ARGS"] = "-C -o ControlMaster=auto -o ControlPersist=1s"
    return str(inventory), env


def deploy(rounds: int) -> Figure:
    """One-shot deploy of three replicas, cold process, warm nodes."""
    with _lab("bench", [NodeSpec(name, "docker") for name in NODES]) as lab:
        image, env = lab.image("1"), korch_env(lab)
        folder = lab.folder
        inventory, ansible_env = _ansible(lab, folder)
        korch = [str(BIN / "korch")]
        swarm = _ssh(lab, "n1")

        def with_korch(number: int) -> None:
            call([*korch, "deploy", image, "--name", f"k{number}", "--replicas", "3", "--settle", "0"], env)

        def with_ssh(number: int) -> None:
            together([[*_ssh(lab, node), "docker", "run", "-d", "--name", f"ssh{number}", image] for node in NODES])

        def with_ansible(number: int) -> None:
            run = f"docker run -d --name ansible{number} {image}"
            call([str(BIN / "ansible"), "all", "-i", inventory, "-m", "command", "-a", run], ansible_env)

        def with_swarm(number: int) -> None:
            words = ["docker", "service", "create", "--quiet", "--name", f"swarm{number}", "--replicas", "3", image]
            call([*swarm, *words])

        _make_swarm(lab)
        contenders = {"korch": with_korch, "ssh": with_ssh, "ansible": with_ansible, "swarm": with_swarm}
        for run in contenders.values():  # images are pulled, host keys known, caches warm
            run(99)
        found = in_turn(rounds, contenders)
    return Figure(
        name="three replicas on three warm Docker nodes: the whole command, cold process",
        unit="s",
        ours=found["korch"],
        peers={"3 x ssh docker run": found["ssh"], "ansible": found["ansible"], "docker swarm": found["swarm"]},
        targets={"3 x ssh docker run": 1.4, "ansible": 0.5},
        commands={
            "korch": f"korch deploy {image} --replicas 3 --settle 0",
            "3 x ssh docker run": f"ssh NODE docker run -d {image}   (three at the same time)",
            "ansible": f"ansible all -m command -a 'docker run -d {image}'   (50 forks)",
            "docker swarm": f"ssh MANAGER docker service create --replicas 3 {image}   (a swarm that stands)",
        },
    )


def _make_swarm(lab: Lab) -> None:
    """The three nodes as a Docker swarm."""
    import subprocess

    address = lab.address("n1")
    call([*_ssh(lab, "n1"), "docker", "swarm", "init", "--advertise-addr", address])
    token = subprocess.run(
        [*_ssh(lab, "n1"), "docker", "swarm", "join-token", "-q", "worker"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for node in NODES[1:]:
        call([*_ssh(lab, node), "docker", "swarm", "join", "--token", token, f"{address}:2377"])


def nodes(rounds: int) -> Figure:
    """A look at many hosts, cold."""
    with _lab("bench", node_specs(nodes=0, engine="docker", sshd_only=MANY, busybox=0, cpus=1.0, memory="256M")) as lab:
        env = korch_env(lab)
        inventory, ansible_env = _ansible(lab, lab.folder)
        names = [found.name for found in lab.status().nodes]
        hosts = lab.folder / "hosts.py"
        hosts.write_text(_pyinfra_inventory(lab, names))

        def with_korch(_: int) -> None:
            call([str(BIN / "korch"), "nodes"], env)

        def with_ansible(_: int) -> None:
            call([str(BIN / "ansible"), "all", "-i", inventory, "-m", "raw", "-a", "cat /proc/loadavg"], ansible_env)

        def with_pyinfra(_: int) -> None:
            call([str(BIN / "pyinfra"), "-y", str(hosts), "exec", "--", "cat", "/proc/loadavg"])

        def with_ssh(_: int) -> None:
            together([[*_ssh(lab, node), "cat", "/proc/loadavg"] for node in names], at_once=16)

        contenders = {"korch": with_korch, "ansible": with_ansible, "pyinfra": with_pyinfra, "ssh": with_ssh}
        for run in contenders.values():
            run(0)
        found = in_turn(rounds, contenders)
    return Figure(
        name=f"the load of {MANY} hosts, cold",
        unit="s",
        ours=found["korch"],
        peers={"ansible -m raw": found["ansible"], "pyinfra": found["pyinfra"], "openssh 16 at a time": found["ssh"]},
        targets={"ansible -m raw": 0.4, "pyinfra": 0.6, "openssh 16 at a time": 1.0},
        commands={
            "korch": "korch nodes   (load, CPU, memory, disk, facts and state)",
            "ansible -m raw": "ansible all -m raw -a 'cat /proc/loadavg'   (50 forks)",
            "pyinfra": "pyinfra -y hosts.py exec -- cat /proc/loadavg",
            "openssh 16 at a time": "ssh NODE cat /proc/loadavg   (16 at a time)",
        },
    )


def _pyinfra_inventory(lab: Lab, names: list[str]) -> str:
    data = {
        "ssh_user": "root",
        "ssh_key": str(lab.ssh_key),
        "ssh_known_hosts_file": str(lab.known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }
    return f"hosts = [(host, {data!r}) for host in {[lab.address(name) for name in names]!r}]\n"


def startup(rounds: int) -> list[Figure]:
    """CPU time of commands that should feel like nothing."""
    with TemporaryDirectory(prefix="korch-bench-") as home:
        env = {"KORCH_HOME": home, "KORCH_INVENTORY": "nobody@127.0.0.1:9,"}
        call([str(BIN / "korch"), "get", "pods"], env)
        click = [sys.executable, "-c", "import click"]
        found = []
        for words, target in ((("--help",), 2.5), (("get", "pods"), 5.0)):
            found.append(
                Figure(
                    name=f"start-up of korch {shlex.join(words)}, CPU",
                    unit="s",
                    ours=cpu_seconds([str(BIN / "korch"), *words], env, rounds * 3),
                    peers={"import click": cpu_seconds(click, None, rounds * 3)},
                    targets={"import click": target},
                    commands={"korch": f"korch {shlex.join(words)}", "import click": 'python -c "import click"'},
                )
            )
        return found


def cores() -> str:
    """What the figures were measured on, in a few words."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
