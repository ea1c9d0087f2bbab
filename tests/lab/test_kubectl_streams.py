"""The real kubectl's streams on real nodes of both engines: logs, exec, attach, cp, port-forward, run -i."""

import hashlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest

from korch.lab.machine import CLEAN_ENV
from tests.kubetools import KUBECTL
from tests.lab.faulty import Faulty, wait_for
from tests.lab.mastering import mastered
from tests.lab.test_api_access import Kubectl, let_in

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")]

TEN_MB = 10 * 1024 * 1024
PODS = {"d": "d1", "p": "p1"}  # a pod on a node of each engine
POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      image: "{image}"
---
"""


@pytest.fixture
def kubectl(faulty: Faulty) -> Iterator[Kubectl]:
    """With the two pods, and at the end the promise that nothing stays on the nodes."""
    with mastered(faulty):
        kubectl = let_in(faulty, "root")
        manifest = "".join(POD.format(name=name, node=node, image=faulty.image()) for name, node in PODS.items())
        kubectl("apply", "-f", "-", stdin=manifest)
        kubectl("wait", "pod/d", "pod/p", "--for=condition=Ready", "--timeout=90s")
        yield kubectl
        wait_for("the end of all streams", lambda: not engine_clients(faulty), timeout_s=20)


def engine_clients(site: Faulty) -> list[str]:
    """Engine commands that a stream has left on the nodes."""
    script = """for p in /proc/[0-9]*; do
        tr '\\0' ' ' <"$p/cmdline" 2>/dev/null | grep -E '^(/usr/bin/)?(docker|podman) (logs|exec|attach) '
        done; :"""
    return [line for node in PODS.values() for line in site.shell(node, script).splitlines()]


def words(kubectl: Kubectl, *more: str) -> tuple[str, ...]:
    return (KUBECTL, "--kubeconfig", str(kubectl.config), *more)


def environment(kubectl: Kubectl) -> dict[str, str]:
    return {**CLEAN_ENV, "HOME": str(kubectl.config.parent)}


def piped(kubectl: Kubectl, *more: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A run with bytes through both ends."""
    argv, env = words(kubectl, *more), environment(kubectl)
    return subprocess.run(argv, input=data, capture_output=True, env=env, timeout=120, check=False)


@contextmanager
def running(kubectl: Kubectl, *more: str) -> Iterator[subprocess.Popen[str]]:
    """One that goes on until the block ends."""
    process = subprocess.Popen(
        words(kubectl, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(kubectl)
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("pod", PODS)
def test_logs(faulty: Faulty, kubectl: Kubectl, pod: str) -> None:
    first = "web 1 listens on port 8080\n"
    assert kubectl("logs", pod) == first
    with running(kubectl, "logs", "-f", pod) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == first
        for number, word in ((1, "one"), (2, "two"), (1, "three")):  # engines order what is of one stream only
            kubectl("exec", pod, "--", "sh", "-c", f"echo {word} >/proc/1/fd/{number}")
        assert [follower.stdout.readline() for _ in range(3)] == ["one\n", "two\n", "three\n"]
    assert kubectl("logs", pod, "--tail=2") == "two\nthree\n"
    assert kubectl("logs", pod, "--tail=0") == ""
    assert kubectl("logs", pod, "--limit-bytes=5") == first[:5]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) three\n",
        kubectl("logs", pod, "--timestamps", "--tail=1"),
    )
    assert kubectl("logs", pod, "--since=1h").endswith("three\n")
    assert kubectl("logs", pod, "--since-time=2100-01-01T00:00:00Z") == ""
    assert "not found" in kubectl.refused("logs", pod, "--previous")
    kubectl.run("exec", pod, "--", "kill", "1")  # its own end may go with the container
    wait_for("the second run", lambda: kubectl.run("logs", pod, "--previous").returncode == 0, timeout_s=60)
    assert kubectl("logs", pod, "--previous", "--tail=1") == "three\n"
    wait_for("its own first line", lambda: kubectl("logs", pod) == first, timeout_s=20)


@pytest.mark.parametrize("pod", PODS)
def test_exec(faulty: Faulty, kubectl: Kubectl, pod: str) -> None:
    done = kubectl.run("exec", pod, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr.startswith("err\n")
    assert kubectl("exec", pod, "--", "echo", "$HOME", "a b", "'\"") == "$HOME a b '\"\n"
    data = os.urandom(TEN_MB)
    assert piped(kubectl, "exec", "-i", pod, "--", "cat", data=data).stdout == data
    sizes = kubectl("exec", pod, "--", "sh", "-c", "head -c 10485760 /dev/zero | wc -c; head -c 10485760 /dev/zero")
    assert len(sizes) == len("10485760\n") + TEN_MB
    missing = kubectl.run("exec", pod, "--", "there-is-no-such-program")
    assert missing.returncode in {126, 127}
    assert "there-is-no-such-program" in missing.stderr + missing.stdout
    assert "not found" in kubectl.refused("exec", "nobody", "--", "id")


@pytest.mark.parametrize("pod", PODS)
def test_a_program_whose_client_goes_is_ended(faulty: Faulty, kubectl: Kubectl, pod: str) -> None:
    with running(kubectl, "exec", pod, "--", "sh", "-c", "trap '' HUP TERM; echo began; sleep 7777") as lost:
        assert lost.stdout is not None
        assert lost.stdout.readline() == "began\n"
        assert "sleep 7777" in kubectl("exec", pod, "--", "ps")
    wait_for("its end", lambda: "sleep 7777" not in kubectl("exec", pod, "--", "ps"), timeout_s=30)


@pytest.mark.parametrize("pod", PODS)
def test_a_terminal(faulty: Faulty, kubectl: Kubectl, pod: str) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execve(KUBECTL, words(kubectl, "exec", "-it", pod, "--", "sh"), environment(kubectl))
    try:
        ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        os.kill(pid, signal.SIGWINCH)
        reads_until(master, b"# ")
        reads_until_asked(master, b"stty size\r", b"33 101")
        ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 50, 0, 0))
        os.kill(pid, signal.SIGWINCH)
        reads_until_asked(master, b"stty size\r", b"20 50")
        os.write(master, b"sleep 7777\r")
        wait_for("the program", lambda: "sleep 7777" in kubectl("exec", pod, "--", "ps"))
        os.write(master, b"\x03")  # Ctrl-C reaches it there
        reads_until_asked(master, b"echo alive$((1+1))\r", b"alive2")
        os.write(master, b"exit 9\r")
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 9
    finally:
        os.close(master)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def reads_until(terminal: int, what: bytes, timeout_s: float = 20.0) -> bool:
    """Whether that appeared."""
    seen, deadline = b"", time.monotonic() + timeout_s
    while what not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        seen += os.read(terminal, 65536)
    return True


def reads_until_asked(terminal: int, ask: bytes, answer: bytes) -> None:
    """The answer comes, though perhaps only when asked again: a size takes a moment to arrive."""

    def asked() -> bool:
        os.write(terminal, ask)
        return reads_until(terminal, b"\n" + answer, 1.0)

    wait_for(f"{answer!r} on the terminal", asked, timeout_s=30)


@pytest.mark.parametrize("pod", PODS)
def test_cp_both_ways(faulty: Faulty, kubectl: Kubectl, pod: str, tmp_path: Path) -> None:
    folder = tmp_path / "some folder"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(TEN_MB))
    (folder / "small").write_text("x")
    kubectl("cp", str(folder), f"{pod}:/tmp/there")
    assert kubectl("exec", pod, "--", "cat", "/tmp/there/small") == "x"
    kubectl("cp", f"{pod}:/tmp/there", str(tmp_path / "back"))
    digests = [hashlib.sha256((path / "big").read_bytes()).digest() for path in (folder, tmp_path / "back")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("pod", PODS)
def test_port_forward(faulty: Faulty, kubectl: Kubectl, pod: str) -> None:
    with running(kubectl, "port-forward", f"pod/{pod}", ":8080") as forward:
        assert forward.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) -> 8080", forward.stdout.readline())
        assert found
        url = f"http://127.0.0.1:{found[1]}/"
        with ThreadPoolExecutor(20) as pool:
            answers = set(pool.map(get, [url] * 60))
        assert answers == {f"web version 1 on {pod}\n"}
    with running(kubectl, "port-forward", f"pod/{pod}", ":9") as forward:
        assert forward.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) -> 9", forward.stdout.readline())
        assert found
        with pytest.raises((urllib.error.URLError, OSError)):
            get(f"http://127.0.0.1:{found[1]}/")
        assert any("error forwarding port 9 to pod" in line for line in forward.stdout)


@pytest.mark.parametrize("node", PODS.values())
def test_run_with_input(faulty: Faulty, kubectl: Kubectl, node: str) -> None:
    there = f'--overrides={{"spec":{{"nodeName":"{node}"}}}}'
    how = ("-i", "--rm", "--restart=Never", f"--image={faulty.image()}", there, "--command", "--")
    lines = "".join(f"{number}\n" for number in range(20_000))
    done = kubectl.run("run", "one", *how, "cat", stdin=lines)
    assert done.returncode == 0, done
    assert done.stdout.startswith(lines), "what was read first came back first"
    assert kubectl.run("run", "two", *how, "sh", "-c", "read a; exit $a", stdin="6\n").returncode == 6
    wait_for("the pods to go", lambda: len(kubectl("get", "pods", "-o", "name").split()) == len(PODS))


def test_attach_sees_what_comes_and_leaves_the_program_alone(faulty: Faulty, kubectl: Kubectl) -> None:
    for pod in PODS:
        with running(kubectl, "attach", pod) as attached:
            assert attached.stdout is not None
            wait_for("the engine's attach", lambda: any(" attach " in line for line in engine_clients(faulty)))
            time.sleep(0.5)  # it is listening a moment after it has begun
            kubectl("exec", pod, "--", "sh", "-c", "echo ping >/proc/1/fd/1")
            assert any("ping" in line for line in attached.stdout)
    assert {line.split()[3] for line in kubectl("get", "pods", "--no-headers").splitlines()} == {"0"}


def test_who_may_look_reads_logs_and_enters_nothing(faulty: Faulty, kubectl: Kubectl) -> None:
    viewer = let_in(faulty, "vic", "--role", "view", "-n", "default")
    assert "listens" in viewer("logs", "d")
    for command in (("exec", "d", "--", "id"), ("attach", "d"), ("port-forward", "pod/d", ":8080")):
        assert "forbidden" in viewer.refused(*command)


def test_streams_end_with_their_master(faulty: Faulty) -> None:
    with mastered(faulty) as master:
        kubectl = let_in(faulty, "root")
        kubectl("apply", "-f", "-", stdin=POD.format(name="d", node="d1", image=faulty.image()))
        kubectl("wait", "pod/d", "--for=condition=Ready", "--timeout=90s")
        with running(kubectl, "logs", "-f", "d") as follower, running(kubectl, "exec", "d", "--", "sleep", "7777"):
            assert follower.stdout is not None
            follower.stdout.readline()
            wait_for("both commands", lambda: len(engine_clients(faulty)) >= 2)
            master.stop()
        wait_for("their end", lambda: not engine_clients(faulty), timeout_s=20)
        assert "7777" not in faulty.shell("d1", "docker top $(docker ps -q --filter label=korch.dev/pod=d)")


PYTHON = """
import sys
from kubernetes import client, config, stream
api = client.CoreV1Api(config.new_client_from_config(sys.argv[1]))
for pod in sys.argv[2:]:
    how = dict(stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
    command = ["sh", "-c", "read a; echo got $a; exit 3"]
    talk = stream.stream(api.connect_get_namespaced_pod_exec, pod, "default", command=command, **how)
    talk.write_stdin("hello\\n")
    talk.run_forever(timeout=30)
    assert (talk.read_stdout(), talk.returncode) == ("got hello\\n", 3)
    assert stream.stream(api.connect_get_namespaced_pod_exec, pod, "default", command=["echo", "hi"]) == "hi\\n"
    forward = stream.portforward(api.connect_get_namespaced_pod_portforward, pod, "default", ports="8080")
    sock = forward.socket(8080)
    sock.setblocking(True)
    sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    answer = b""
    while data := sock.recv(65536):
        answer += data
    assert answer.endswith(f"web version 1 on {pod}\\n".encode()), answer
    assert "listens" in api.read_namespaced_pod_log(pod, "default")
print("all well")
"""


def test_pythons_client_talks_to_a_program(faulty: Faulty, kubectl: Kubectl) -> None:
    pytest.importorskip("kubernetes")
    argv = (sys.executable, "-c", PYTHON, str(kubectl.config), *PODS)
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(kubectl), timeout=120, check=False)
    assert done.stdout == "all well\n", done
