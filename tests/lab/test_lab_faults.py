"""Every fault does what it says, on nodes of each engine, and can be undone."""

import socket
import time
from pathlib import Path

import pytest

from korch.errors import InvalidError, NotFoundError, SetupError
from korch.lab.lab import Lab
from tests.lab.conftest import node_host, ssh


def engine_of(lab: Lab) -> str:
    return lab.spec("n1").engine


def state(lab: Lab, node: str) -> str:
    return {found.name: found.state for found in lab.status().nodes}[node]


def run_web(lab: Lab, node: str) -> None:
    done = ssh(lab, node, f"{engine_of(lab)} run -d --name web --restart unless-stopped -p 80:8080 {lab.image('1')}")
    assert done.returncode == 0, done.stderr


def handshake_s(address: str, port: int = 22) -> float:
    begin = time.monotonic()
    with socket.create_connection((address, port), timeout=10):
        return time.monotonic() - begin


def test_killed_node_is_silent_and_comes_back_with_its_disk(lab: Lab) -> None:
    run_web(lab, "n1")
    lab.write_file("n1", "/var/lib/korch/claim", "mine")
    lab.kill("n1")
    assert state(lab, "n1") == "off"
    gone = ssh(lab, "n1", "true", timeout_s=1)
    assert gone.returncode == 255
    assert "refused" not in gone.stderr
    with pytest.raises(SetupError, match="is off"):
        lab.exec_in("n1", ("true",))
    lab.start("n1")
    assert state(lab, "n1") == "running"
    host = node_host(lab, "n1")
    assert host.file("/var/lib/korch/claim").content_string == "mine"
    assert "web" in host.check_output(f"{engine_of(lab)} ps -a")
    if engine_of(lab) == "docker":  # Podman has nobody who would start it
        for _ in range(50):
            if host.check_output("docker ps -q"):
                break
            time.sleep(0.1)
        assert host.check_output("docker ps -q")


def test_a_node_that_boots_with_a_full_disk_says_so_at_once(docker_lab: Lab) -> None:
    docker_lab.fill_disk("n1")
    try:
        docker_lab.kill("n1")
        with pytest.raises(SetupError, match=r"docker ended instead of starting: .*no space left") as caught:
            docker_lab.start("n1")
        assert "fill-disk n1 --undo" in caught.value.hint
    finally:
        docker_lab.free_disk("n1")
    docker_lab.start_engine("n1")
    assert state(docker_lab, "n1") == "running"


def test_paused_node_accepts_and_says_nothing(lab: Lab) -> None:
    lab.pause("n2")
    try:
        assert state(lab, "n2") == "paused"
        with socket.create_connection((lab.address("n2"), 22), timeout=3) as connection:
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert state(lab, "n1") == "running"
    finally:
        lab.resume("n2")
    assert ssh(lab, "n2", "true").returncode == 0


def test_partition_and_heal(lab: Lab) -> None:
    lab.partition("n1")
    assert state(lab, "n1") == "partitioned"
    assert ssh(lab, "n1", "true", timeout_s=1).returncode == 255
    lab.heal("n1")
    assert ssh(lab, "n1", "true").returncode == 0


def test_partition_from_the_master_only(lab: Lab) -> None:
    lab.partition("n1", ("host",))
    try:
        assert ssh(lab, "n1", "true", timeout_s=1).returncode == 255
        hello = lab.exec_in("n2", ("busybox", "nc", "-w", "2", lab.address("n1"), "22"), stdin="").stdout
        assert hello.startswith("SSH-2.0")
    finally:
        lab.heal("n1")
    assert ssh(lab, "n1", "true").returncode == 0


def test_delay_is_felt_both_ways_and_ends(lab: Lab) -> None:
    run_web(lab, "n1")
    lab.delay("n1", 60)
    try:
        assert handshake_s(lab.address("n1")) >= 0.119
        assert handshake_s(lab.address("n1"), 80) >= 0.119  # through the engine's port forwarding too
        sent = ssh(lab, "n1", "head -c 3000000 /dev/zero | sha256sum")
        assert sent.returncode == 0
        big = ssh(lab, "n1", "head -c 3000000 /dev/zero")  # large frames survive the slow cable
        assert len(big.stdout) == 3_000_000
    finally:
        lab.delay("n1", 0)
    assert min(handshake_s(lab.address("n1")) for _ in range(5)) < 0.06
    assert ssh(lab, "n1", "true").returncode == 0


def test_partition_of_a_delayed_node_heals(docker_lab: Lab) -> None:
    docker_lab.delay("n1", 5, 2)
    docker_lab.partition("n1")
    assert ssh(docker_lab, "n1", "true", timeout_s=1).returncode == 255
    docker_lab.heal("n1")
    assert ssh(docker_lab, "n1", "true").returncode == 0


def test_loss_is_about_what_was_asked_for(docker_lab: Lab) -> None:
    docker_lab.loss("n2", 40)
    lost = 0
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((docker_lab.address("n2"), 9))  # a closed port answers each packet with an error
            probe.settimeout(0.05)
            for _ in range(60):
                try:
                    probe.send(b"?")
                    probe.recv(1)
                except TimeoutError:
                    lost += 1
                except ConnectionRefusedError:
                    continue
    finally:
        docker_lab.heal("n2")
    assert lost > 10  # expected 1 - 0.6 * 0.6 = 64 % (and the kernel limits how fast it answers)
    with pytest.raises(InvalidError, match="not possible"):
        docker_lab.loss("n2", 101)


def test_full_disk_is_full_for_the_engine_and_has_room_again(lab: Lab) -> None:
    engine = engine_of(lab)
    before = Path(lab.folder).stat().st_dev
    assert before  # the host's own disk
    ssh(lab, "n3", f"{engine} rmi -f {lab.image('2')}")
    lab.fill_disk("n3")
    try:
        pulled = ssh(lab, "n3", f"{engine} pull {lab.image('2')}")
        assert pulled.returncode != 0
        assert "no space left on device" in pulled.stderr
        assert ssh(lab, "n3", "echo x > /var/lib/korch/x").returncode != 0
        blocks = sum(path.stat().st_blocks for path in lab.folder.glob("nodes/n3/disk.img"))
        assert blocks * 512 < 1 << 30  # filled without costing this machine its space
    finally:
        lab.free_disk("n3")
    assert ssh(lab, "n3", f"{engine} pull {lab.image('2')}").returncode == 0


def test_engine_stopped_hard_leaves_containers_running(clean_docker_lab: Lab) -> None:
    lab = clean_docker_lab
    run_web(lab, "n1")
    lab.stop_engine("n1", hard=True)
    assert ssh(lab, "n1", "docker ps").returncode != 0
    assert ssh(lab, "n1", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c /app/answer").returncode == 0
    lab.start_engine("n1")
    assert ssh(lab, "n1", "docker ps").returncode == 0
    lab.stop_engine("n1")
    assert ssh(lab, "n1", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[/]app/answer'").returncode != 0
    lab.start_engine("n1")


def test_login_shell_can_be_changed(docker_lab: Lab) -> None:
    docker_lab.set_shell("n2", "lab", "/bin/dash")
    try:
        assert ssh(docker_lab, "n2", "echo $0", user="lab").stdout.strip() == "dash"
    finally:
        docker_lab.set_shell("n2", "lab", "/bin/bash")
    assert "bash" in ssh(docker_lab, "n2", "echo $0", user="lab").stdout


def test_unknown_node_is_named(docker_lab: Lab) -> None:
    with pytest.raises(NotFoundError, match='has no node "n9"') as caught:
        docker_lab.kill("n9")
    assert "n1, n2, n3" in caught.value.hint
