"""The lab keeps its promises: separate machines, with load, limits, users and engines of their own."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from korch.cli.lab import lab as lab_command
from korch.errors import ForbiddenError
from korch.lab import network
from korch.lab.cgroups import Groups
from korch.lab.lab import Lab
from korch.lab.spec import NodeSpec
from tests.lab.conftest import node_host, ssh

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def page(lab: Lab, node: str, path: str = "/", port: int = 80) -> str:
    with OPENER.open(f"http://{lab.address(node)}:{port}{path}", timeout=5) as response:
        return str(response.read().decode())


def engine_of(lab: Lab) -> str:
    return lab.spec("n1").engine


def test_nodes_are_machines_of_their_own(docker_lab: Lab) -> None:
    first, second = node_host(docker_lab, "n1"), node_host(docker_lab, "n2")
    assert (first.check_output("hostname"), second.check_output("hostname")) == ("n1", "n2")
    first.check_output("touch /root/only-here /tmp/only-here /etc/only-here /var/lib/only-here /usr/bin/only-here")
    for folder in ("/root", "/tmp", "/etc", "/var/lib", "/usr/bin"):
        assert first.file(f"{folder}/only-here").exists
        assert not second.file(f"{folder}/only-here").exists
        assert not Path(folder, "only-here").exists()
    assert first.file("/etc/machine-id").content_string != second.file("/etc/machine-id").content_string
    assert not first.file(str(docker_lab.folder)).exists  # nothing of this machine, nor of other nodes
    assert len(docker_lab.known_hosts.read_text().splitlines()) == 6
    assert len(set(docker_lab.known_hosts.read_text().split()[2::3])) == 6


def test_node_shows_its_own_memory_processes_and_cpus(docker_lab: Lab) -> None:
    meminfo = ssh(docker_lab, "n1", "cat /proc/meminfo").stdout
    assert meminfo.split("\n")[0].split()[1] == str(1024 * 1024)
    assert ssh(docker_lab, "n1", "cat /proc/1/comm").stdout.strip() == "tini"
    assert ssh(docker_lab, "n1", "grep -c ^processor /proc/cpuinfo").stdout.strip() == "1"
    killed = ssh(docker_lab, "n1", "python3 -c 'bytearray(1500 << 20)'; echo $?")
    assert killed.stdout.strip() == "137"


def test_load_of_one_node_is_not_the_load_of_another(docker_lab: Lab) -> None:
    docker_lab.burn("n1", tasks=4, seconds=120)
    try:
        busy = 0.0
        for _ in range(60):
            busy = float(ssh(docker_lab, "n1", "sleep 1; cat /proc/loadavg").stdout.split()[0])
            if busy > 0.5:
                break
        quiet = float(ssh(docker_lab, "n2", "cat /proc/loadavg").stdout.split()[0])
    finally:
        docker_lab.stop_burning("n1")
    assert busy > 0.5
    assert quiet < busy / 2
    assert "korch-lab-burn" not in ssh(docker_lab, "n1", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout


def test_sudo_user_has_no_engine_but_sudo(lab: Lab) -> None:
    engine = engine_of(lab)
    assert ssh(lab, "n1", "id -un; sudo -n id -un", user="lab").stdout.split() == ["lab", "root"]
    assert ssh(lab, "n1", f"sudo -n {engine} ps -q", user="lab").returncode == 0
    if engine == "docker":
        refused = ssh(lab, "n1", "docker ps", user="lab")
        assert refused.returncode != 0
        assert "permission denied" in refused.stderr


def test_other_engine_is_not_installed(lab: Lab) -> None:
    other = {"docker": "podman", "podman": "docker"}[engine_of(lab)]
    host = node_host(lab, "n1")
    assert host.exists(engine_of(lab))
    assert not host.exists(other)


def test_sshd_has_its_ordinary_limits(docker_lab: Lab) -> None:
    settings = ssh(docker_lab, "n1", "/usr/sbin/sshd -T").stdout.splitlines()
    assert {"maxstartups 10:30:100", "maxsessions 10", "usepam yes", "allowtcpforwarding yes"} <= set(settings)


def test_sample_app_answers_logs_and_stops_at_once(lab: Lab) -> None:
    engine, image = engine_of(lab), lab.image("1")
    started = ssh(lab, "n1", f"{engine} run -d --name web --hostname w1 -p 80:8080 {image}")
    assert started.returncode == 0, started.stderr
    _wait_for_page(lab, "n1")
    assert page(lab, "n1") == "web version 1 on w1\n"
    assert page(lab, "n1", "/healthz") == "ok\n"
    assert "GET /healthz 200" in ssh(lab, "n1", f"{engine} logs web 2>&1").stdout
    stopped = ssh(lab, "n1", f"{engine} stop -t 60 web && {engine} inspect -f '{{{{.State.ExitCode}}}}' web")
    assert stopped.stdout.split()[-1] == "143"  # SIGTERM did it, not SIGKILL (137) after a minute


@pytest.mark.parametrize(
    ("version", "status", "reason"), [("crash", "3", "cannot read"), ("broken", "0", "does not answer")]
)
def test_bad_versions_say_why(lab: Lab, version: str, status: str, reason: str) -> None:
    engine = engine_of(lab)
    check = "wget -q -O - http://127.0.0.1:8080/healthz 2>&1; sleep 0.2"
    ssh(lab, "n1", f"{engine} run -d --name bad {lab.image(version)}")
    answer = ssh(lab, "n1", f"{engine} exec bad sh -c '{check}' 2>&1; {engine} logs bad 2>&1")
    assert reason in answer.stdout
    assert ("500" in answer.stdout) == (version == "broken")
    shown = ssh(lab, "n1", f"{engine} inspect -f '{{{{.State.ExitCode}}}}' bad").stdout.strip()
    assert shown == status


def test_unknown_registry_is_refused_soon(lab: Lab) -> None:
    pulled = ssh(lab, "n1", f"timeout 5 {engine_of(lab)} pull nowhere.example/app:1")
    assert pulled.returncode not in (0, 124)
    assert "nowhere.example" in pulled.stderr


def test_private_registry_wants_its_password(lab: Lab) -> None:
    engine, address = engine_of(lab), lab.open_private_registry("ann", "se cret")
    image = f"{address}/web:1"
    assert ssh(lab, "n2", f"{engine} pull {image}").returncode != 0
    login = f"printf 'se cret' | {engine} login -u ann --password-stdin {address} && {engine} pull {image}"
    allowed = ssh(lab, "n2", f"{login}; code=$?; {engine} logout {address}; exit $code")
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.parametrize("node", ["d1", "p1"])
def test_bare_node_has_nothing_but_busybox_and_the_engine(bare_lab: Lab, node: str) -> None:
    engine = bare_lab.spec(node).engine
    path = ssh(bare_lab, node, "echo $PATH").stdout.strip().split(":")
    seen = ssh(bare_lab, node, f"ls {' '.join(path)} 2>/dev/null").stdout.split()
    programs = {word for word in seen if not word.endswith(":")}
    applets = set(ssh(bare_lab, node, "busybox --list").stdout.split())
    assert programs - applets == {engine} - applets
    assert ssh(bare_lab, node, "readlink /bin/sh").stdout.strip() == "busybox"
    assert ssh(bare_lab, node, "python3 --version || bash --version").returncode == 127
    image = bare_lab.image("1")
    ran = ssh(bare_lab, node, f"{engine} run -d --name web -p 80:8080 {image}")
    assert ran.returncode == 0, ran.stderr
    _wait_for_page(bare_lab, node)
    assert page(bare_lab, node).startswith("web version 1 on ")
    assert ssh(bare_lab, node, f"{engine} rm -f web").returncode == 0


def test_second_up_keeps_what_runs_and_starts_what_is_dead(docker_lab: Lab) -> None:
    specs = tuple(docker_lab.spec(name) for name in ("n1", "n2", "n3"))
    pids = {name: docker_lab.pid(name) for name in ("n1", "n2", "n3")}
    docker_lab.kill("n2")
    docker_lab.pause("n3")
    status = docker_lab.up(specs)
    assert [node.state for node in status.nodes] == ["running"] * 3
    assert docker_lab.pid("n1") == pids["n1"]
    assert docker_lab.pid("n2") != pids["n2"]
    assert docker_lab.pid("n3") == pids["n3"]


def test_up_makes_exactly_the_nodes_asked_for(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("grow", (NodeSpec("s1", engine="none"), NodeSpec("s2", engine="none")))
    pid = lab.pid("s2")
    strict = NodeSpec("s3", engine="none", sshd_config=("AllowTcpForwarding no", "MaxSessions 2"))
    lab.up((NodeSpec("s2", engine="none"), strict))
    assert [node.name for node in lab.status().nodes] == ["s2", "s3"]
    assert lab.pid("s2") == pid
    assert not any(name.endswith("-s1") for name in network.namespaces() if name.startswith(lab.names.prefix))
    settings = ssh(lab, "s3", "/usr/sbin/sshd -T").stdout.splitlines()
    assert {"allowtcpforwarding no", "maxsessions 2"} <= set(settings)
    assert ssh(lab, "s2", "command -v docker || command -v podman").returncode != 0
    pid = lab.pid("s3")
    key = lab.known_hosts.read_text()
    lab.up((NodeSpec("s2", engine="none"), NodeSpec("s3", engine="none")))
    assert lab.pid("s3") != pid  # another spec is another node
    assert lab.known_hosts.read_text() != key
    lab.down()
    assert_no_trace(lab)


def test_lab_of_somebody_else_is_left_alone(docker_lab: Lab, tmp_path: Path) -> None:
    other = Lab(docker_lab.name, tmp_path)
    pid = docker_lab.pid("n1")
    with pytest.raises(ForbiddenError, match="is up already"):
        other.up((NodeSpec("n1"),))
    with pytest.raises(ForbiddenError, match="left alone") as caught:
        other.down()
    assert str(docker_lab.folder.parents[1]) in caught.value.hint
    assert docker_lab.pid("n1") == pid
    assert docker_lab.inventory_path.exists()


def test_down_cleans_up_after_crashes(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("crash", (NodeSpec("n1"), NodeSpec("n2", engine="podman"), NodeSpec("n3", engine="none")))
    groups = Groups(lab.names.prefix)
    lab.pause("n1")
    lab.delay("n2", 5)
    for helper in ("_lxcfs", "_registry"):
        groups.kill(helper)
    (lab.folder / "lab.json").write_text("{half")  # nothing may depend on the record
    network.remove_namespace(lab.names.netns("n3"))
    lab.down()
    assert_no_trace(lab)
    lab.down()  # again, and nothing is there
    assert_no_trace(lab)


@pytest.mark.parametrize("after_s", [0.25, 0.5, 0.8, 1.2])
def test_up_killed_half_way_goes_on_or_goes_away(make_lab: Callable[..., Lab], after_s: float) -> None:
    specs = (NodeSpec("n1"), NodeSpec("n2", engine="podman"))
    lab = make_lab(f"half{int(after_s * 100)}", ())
    lab.down()
    program = (
        "import sys; from pathlib import Path; from korch.lab.lab import Lab; from korch.lab.spec import NodeSpec; "
        "Lab(sys.argv[1], Path(sys.argv[2])).up((NodeSpec('n1'), NodeSpec('n2', engine='podman')))"
    )
    words = (sys.executable, "-c", program, lab.name, str(lab.folder.parents[1]))
    for _ in range(2):
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as half:
            time.sleep(after_s)
            half.kill()
    assert [node.state for node in lab.up(specs).nodes] == ["running", "running"]
    assert ssh(lab, "n1", f"docker run --rm --entrypoint /bin/true {lab.image('1')}").returncode == 0
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as half:
        time.sleep(after_s)
        half.kill()
    lab.down()
    assert_no_trace(lab)


def test_up_repairs_a_lab_whose_helpers_died(make_lab: Callable[..., Lab]) -> None:
    specs = (NodeSpec("n1", engine="podman"),)
    lab = make_lab("repair", specs)
    groups = Groups(lab.names.prefix)
    lab.write_file("n1", "/root/kept", "yes")
    for helper in ("_lxcfs", "_registry"):
        groups.kill(helper)
    lab.up(specs)
    assert ssh(lab, "n1", "cat /proc/loadavg /root/kept").stdout.endswith("yes")
    assert ssh(lab, "n1", f"podman pull -q {lab.image('2')}").returncode == 0
    lab.down()
    assert_no_trace(lab)


def test_rebuilt_node_is_new_and_shows_another_host_key(docker_lab: Lab) -> None:
    docker_lab.write_file("n3", "/etc/profile.d/noise.sh", "echo noise\n")
    before = docker_lab.known_hosts.read_text().splitlines()
    docker_lab.rebuild("n3")
    after = docker_lab.known_hosts.read_text().splitlines()
    assert before[:4] == after[:4]
    assert not set(before[4:]) & set(after[4:])
    assert not node_host(docker_lab, "n3").file("/etc/profile.d/noise.sh").exists


def test_status_for_programs(docker_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORCH_HOME", str(docker_lab.folder.parents[1]))
    result = CliRunner().invoke(lab_command, ["--name", docker_lab.name, "status", "-o", "json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.output)
    assert shown["inventory"] == str(docker_lab.inventory_path)
    assert shown["image"] == f"{shown['registry']}/web:1"
    assert shown["nodes"][0] == {
        "name": "n1",
        "address": docker_lab.address("n1"),
        "state": "running",
        "engine": "docker",
    }


def assert_no_trace(lab: Lab) -> None:
    assert not lab.folder.exists()
    assert not [name for name in network.namespaces() if name.startswith(f"{lab.names.prefix}-")]
    assert not [name for name in network.links() if name == lab.names.bridge or name.startswith(lab.names.link_prefix)]
    assert Groups(lab.names.prefix).children() == ()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{lab.names.prefix}"))
    assert str(lab.folder) not in Path("/proc/self/mounts").read_text()
    assert not [
        path for path in Path("/sys/block").glob("loop*/loop/backing_file") if str(lab.folder) in path.read_text()
    ]


def _wait_for_page(lab: Lab, node: str) -> None:
    for _ in range(100):
        try:
            page(lab, node)
        except OSError:
            ssh(lab, node, "sleep 0.1")
        else:
            return
    raise AssertionError(f"nothing answers on {node}")
