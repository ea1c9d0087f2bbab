"""Bare nodes become korch nodes by `korch node prepare`, a second run changes nothing, and reset.yml takes it back.

A lab node without an engine is made truly bare (the engine's packages are purged there), and gets a package source of
its own in a folder, as nodes have no way out.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from korch.lab.lab import Lab
from korch.lab.spec import NodeSpec
from tests.lab.conftest import ssh

ROOT = Path(__file__).parents[2]
PACKAGES = ("docker.io", "containerd", "podman", "conmon", "apparmor")
SOURCE = "/srv/packages"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the engines' packages and an index, as `deb [trusted=yes] file:` wants it."""
    folder = tmp_path_factory.mktemp("packages")
    got = subprocess.run(
        ["apt-get", "download", "-q", *PACKAGES], cwd=folder, capture_output=True, text=True, check=False
    )
    if got.returncode:
        pytest.skip(f"no mirror to take the engines' packages from: {got.stderr.strip()[-200:]}")
    entries = []
    for file in sorted(folder.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "-f", str(file)], capture_output=True, text=True, check=True).stdout
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        entries.append(f"{control}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n")
    (folder / "Packages").write_text("\n".join(entries))
    return folder


@pytest.fixture(scope="module")
def bare(make_lab: Callable[..., Lab], packages: Path) -> Lab:
    """d1 and p1: Debian as installed, without engine; only root can log in with the lab's key."""
    lab = make_lab("prepare", (NodeSpec("d1", engine="none"), NodeSpec("p1", engine="none")))
    for node in ("d1", "p1"):
        target = lab.path_in(node, SOURCE)
        target.mkdir(parents=True)
        for file in packages.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        script = f"""
            set -e
            rm -rf /etc/apt/sources.list.d/* /etc/apt/sources.list
            echo 'deb [trusted=yes] file:{SOURCE} ./' > /etc/apt/sources.list
            mkdir -p /var/lib/apt/lists/partial /var/cache/apt/archives/partial /var/log/apt
            dpkg --purge --force-depends {" ".join(PACKAGES)}
            # Docker's script for hosts without systemd raises limits, which a process of a namespace may not.
            echo 'ulimit() {{ :; }}' > /etc/default/docker
        """
        lab.exec_in(node, ("sh", "-c", script), timeout_s=120)
    return lab


@pytest.fixture(scope="module")
def inventory(bare: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nodes as their owner writes them down: with the user that korch shall log in as, who is not there yet."""
    file = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    file.write_text(
        f"""
all:
  vars:
    ansible_user: deploy
    ansible_ssh_private_key_file: {bare.ssh_key}
    ansible_ssh_common_args: -F /dev/null -o UserKnownHostsFile={bare.known_hosts} -o IdentitiesOnly=yes
    prepare_key_files: [{bare.ssh_key}.pub]
  hosts:
    d1: {{ansible_host: {bare.address("d1")}}}
    p1: {{ansible_host: {bare.address("p1")}, korch_engine: podman}}
"""
    )
    return file


def call(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "KORCH_"))}
    environ |= {
        "KORCH_HOME": str(home / "korch"),
        "ANSIBLE_HOME": str(home / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "true",
    }
    program = Path(sys.executable).parent / words[0]
    return subprocess.run(
        [str(program), *words[1:]], cwd=home, env=environ, capture_output=True, text=True, timeout=300, check=False
    )


def recap(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """host → {"ok": 9, "changed": 0, ...}"""
    assert "PLAY RECAP" in done.stdout, done.stdout + done.stderr
    lines = done.stdout.split("PLAY RECAP")[1].splitlines()
    rows = (re.match(r"(\S+)\s+: (.*)", line) for line in lines)
    return {row[1]: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row[2])} for row in rows if row}


def prepared(inventory: Path, home: Path, *words: str) -> dict[str, dict[str, int]]:
    done = call("korch", "-i", str(inventory), "node", "prepare", "d1", "p1", *words, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return recap(done)


def reset(inventory: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    playbook = str(ROOT / "playbooks" / "reset.yml")
    return call("ansible-playbook", "-i", str(inventory), "-e", "ansible_user=root", *words, playbook, home=home)


def on(lab: Lab, node: str, script: str, user: str = "root") -> str:
    done = ssh(lab, node, script, user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prepare_then_again_then_reset(bare: Lab, inventory: Path, tmp_path: Path) -> None:
    looked = prepared(inventory, tmp_path, "--login", "root", "--check")
    assert all(row["changed"] for row in looked.values()), looked
    assert ssh(bare, "d1", "command -v docker || test -e /etc/ssh/sshd_config.d/10-korch.conf").returncode != 0

    first = prepared(inventory, tmp_path, "--login", "root", "--firewall")
    assert all(row["changed"] and not row["failed"] for row in first.values()), first
    assert on(bare, "d1", "docker info --format '{{.ServerVersion}}'", user="deploy").strip()
    assert on(bare, "p1", "sudo -n podman info --format '{{.Version.Version}}'", user="deploy").strip()
    for node in ("d1", "p1"):
        assert on(bare, node, "sudo -n id -u", user="deploy") == "0\n"
        limits = on(bare, node, "sshd -T | grep -E '^(maxsessions|maxstartups) '").splitlines()
        assert sorted(limits) == ["maxsessions 30", "maxstartups 30:30:200"]
        assert "tcp dport 22 accept" in on(bare, node, "nft list table inet korch_firewall")

    again = prepared(inventory, tmp_path, "--firewall")  # now as the user itself
    assert {name: row["changed"] for name, row in again.items()} == {"d1": 0, "p1": 0}

    make = (
        "tar -cf - -C /etc hostname | docker import - one && docker create --label korch.dev/cluster=c --name k1 one x"
    )
    on(bare, "d1", make)
    refused = reset(inventory, tmp_path)
    assert refused.returncode != 0
    assert "d1 holds containers of korch" in refused.stdout
    assert recap(refused)["d1"]["changed"] == 0

    everything = (
        "-e",
        '{"prepare_user": "deploy", "reset_containers": true, "reset_user": true, "reset_engine": true}',
    )
    done = reset(inventory, tmp_path, *everything)
    assert done.returncode == 0, done.stdout + done.stderr
    for node in ("d1", "p1"):
        left = on(
            bare, node, "ls -d /home/deploy /etc/sudoers.d/korch-* /etc/korch-firewall.nft /var/lib/korch 2>&1; true"
        )
        assert left.count("No such file") == 4, left
        assert ssh(bare, node, "command -v docker podman || nft list table inet korch_firewall").returncode != 0
        assert "maxsessions 10" in on(bare, node, "sshd -T")
    once_more = recap(reset(inventory, tmp_path, *everything))
    assert {name: row["changed"] for name, row in once_more.items()} == {"d1": 0, "p1": 0}


def test_reset_does_not_remove_the_user_of_its_login(bare: Lab, inventory: Path, tmp_path: Path) -> None:
    done = reset(inventory, tmp_path, "-e", "reset_user=true")
    assert done.returncode != 0
    assert "you are logged in as root" in done.stdout


def test_prepare_needs_a_key_for_the_user(bare: Lab, inventory: Path, tmp_path: Path) -> None:
    words = ("d1", "--login", "root", "--", "-e", "prepare_public_key=")
    done = call("korch", "-i", str(inventory), "node", "prepare", *words, home=tmp_path)
    assert done.returncode == 8, done.stdout + done.stderr
    assert "a public key (prepare_public_key)" in done.stdout
    assert "preparing d1 failed" in done.stderr
