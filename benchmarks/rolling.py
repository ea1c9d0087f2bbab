"""A rolling update under steady load: requests that fail, and the time beside Docker Swarm's start-first.

wrk asks haproxy, haproxy asks the ready pods. A thread tells haproxy who they are, as the store tells it: what anybody
does who puts a proxy before korch. haproxy repeats no request, so that one sent to a dead container is a failed one.
"""

import asyncio
import re
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.mastered import Site, label
from benchmarks.peers import korch_env
from korch.resources.pod import Pod
from korch.resources.podstate import is_ready, main_status
from korch.settings import Settings

REPLICAS = 10
SLOTS = 24
CONNECTIONS = 4
PAUSE_MS = 20  # of each connection, after each answer
SERVE = ("/bin/tini", "--", "/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/app")
HEALTH = "wget -q -O /dev/null http://127.0.0.1:8080/version"
WRK = f"function delay() return {PAUSE_MS} end\n"
CONFIG = """global
    stats socket {folder}/admin.sock level admin
    maxconn 256
defaults
    mode http
    retries 0
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend web
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance roundrobin
    http-reuse never
    server-template pod 1-{slots} 127.0.0.1:9 disabled
"""
MANIFEST = """apiVersion: apps/v1
kind: Deployment
metadata: {{name: roll}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: roll}}}}
  strategy: {{type: RollingUpdate, rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  template:
    metadata:
      labels: {{app: roll}}
      annotations: {{korch.dev/publish: 8080/tcp}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: web
        image: {image}
        command: [{command}]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /version, port: 8080}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}
"""


class Proxy:
    """haproxy before the ready pods of the deployment."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/version"
        self._socket = folder / "admin.sock"
        self._slots: dict[tuple[str, int], int] = {}

    def follow(self, ready: set[tuple[str, int]]) -> None:
        """Requests go to these addresses from now on, and to no others."""
        for gone in self._slots.keys() - ready:
            self._say(f"set server pods/pod{self._slots.pop(gone)} state maint")
        for address in sorted(ready - self._slots.keys()):
            slot = min(set(range(1, SLOTS + 1)) - set(self._slots.values()))
            self._say(f"set server pods/pod{slot} addr {address[0]} port {address[1]}")
            self._say(f"set server pods/pod{slot} state ready")
            self._slots[address] = slot

    def __len__(self) -> int:
        return len(self._slots)

    def _say(self, words: str) -> None:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._socket))
            admin.sendall(f"{words}\n".encode())
            admin.recv(4096)


@contextmanager
def _proxy(folder: Path) -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=folder, port=port, slots=SLOTS))
    process = subprocess.Popen(
        ["haproxy", "-q", "-db", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (folder / "admin.sock").exists():
            if process.poll() is not None:
                raise SystemExit("haproxy does not start")
            time.sleep(0.02)
        yield Proxy(folder, port)
    finally:
        process.terminate()
        process.wait(timeout=10)


def ready_addresses(pods: tuple[Pod, ...]) -> set[tuple[str, int]]:
    """Where pods that are ready and stay are reached."""
    found = set()
    for pod in pods:
        status = main_status(pod)
        if status is None or not is_ready(pod) or pod.metadata.deletion_timestamp is not None:
            continue
        found |= {(pod.status.host_ip, port.host_port) for port in status.published if port.host_port}
    return found


@contextmanager
def _following(site: Site, proxy: Proxy) -> Iterator[None]:
    """A thread that reads pods from the store as they change, and tells the proxy."""
    env = korch_env(site.lab)
    settings = Settings(home=Path(env["KORCH_HOME"]), cluster=env["KORCH_CLUSTER"])
    loop = asyncio.new_event_loop()

    async def follow() -> None:
        from korch.master.local import open_client

        client = await open_client(settings, need_inventory=False)
        try:
            listing = await client.list(Pod, "default", selector="app=roll")
            proxy.follow(ready_addresses(listing.items))
            async with client.watch(Pod, "default", after=listing.revision) as changes:
                async for _ in changes:
                    listing = await client.list(Pod, "default", selector="app=roll")
                    proxy.follow(ready_addresses(listing.items))
        finally:
            await client.close()

    task = loop.create_task(follow())

    def work() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        loop.close()


class Load:
    """wrk at work. `end` gives (answers, failed requests)."""

    def __init__(self, url: str, folder: Path, at_most_s: int) -> None:
        script = folder / "pause.lua"
        script.write_text(WRK)
        words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{at_most_s}s", "--timeout", "4s", "-s", str(script), url]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def end(self) -> tuple[int, int]:
        """wrk prints what it found when it is interrupted."""
        self._process.send_signal(2)
        text, _ = self._process.communicate(timeout=30)
        answers = re.search(r"(\d+) requests in", text)
        if answers is None:
            raise SystemExit(f"wrk says: {text}")
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        failed = sum(map(int, errors.groups())) if errors else 0
        return int(answers[1]), failed + (int(refused[1]) if refused else 0)


def figure(site: Site, rounds: int) -> Figure:
    """Updates there and back in turn with the swarm's; failed requests of all of them."""
    folder = site.lab.folder
    images = [site.lab.image("1"), site.lab.image("2")]
    manifest = folder / "roll.yml"
    asked = failed = 0
    times: dict[str, list[float]] = {"korch": [], "swarm": []}

    def apply(image: str) -> None:
        words = ", ".join(f'"{word}"' for word in SERVE)
        manifest.write_text(MANIFEST.format(replicas=REPLICAS, image=image, command=words))
        site.korch("deploy", "-f", str(manifest), "--settle", "0", "--timeout", "300")

    apply(images[0])
    site.docker(
        *("service", "create", "--quiet", "--detach", "--name", "roll", "--replicas", str(REPLICAS)),
        *("--update-order", "start-first", "--health-cmd", HEALTH, "--health-interval", "1s"),
        *("--entrypoint", " ".join(SERVE), images[0]),
    )
    site.eye.wait_running(label("swarm", "roll"), REPLICAS)
    with _proxy(folder) as proxy, _following(site, proxy):
        site.eye.wait("ready pods behind the proxy", lambda: len(proxy) == REPLICAS)
        for number in range(rounds):
            image = images[(number + 1) % 2]
            load = Load(proxy.url, folder, 600)
            time.sleep(1.0)
            began = time.perf_counter()
            apply(image)
            times["korch"].append(time.perf_counter() - began)
            time.sleep(3.0)
            round_asked, round_failed = load.end()
            asked, failed = asked + round_asked, failed + round_failed
            times["swarm"].append(_update_swarm(site, image))
    site.korch("delete", "roll")
    site.docker("service", "rm", "roll")
    return Figure(
        name=f"rolling update of {REPLICAS} replicas on free node ports, one at a time, new before old",
        unit="s",
        ours=statistics.median(times["korch"]),
        peers={"swarm start-first": statistics.median(times["swarm"])},
        targets={},
        commands={
            "korch": "korch deploy -f roll.yml   (readiness every second, preStop sleeps 2 s)",
            "swarm start-first": "docker service update --image IMAGE roll   (health check every second, no ports)",
        },
        notes=(
            f"{asked} requests through haproxy ({CONNECTIONS} connections, a pause of {PAUSE_MS} ms after each answer)",
            f"failed requests: {failed}; target 0: {'MISSED' if failed else 'reached'}",
        ),
    )


def _update_swarm(site: Site, image: str) -> float:
    began = time.perf_counter()
    site.docker("service", "update", "--quiet", "--detach", "--image", image, "roll")

    def updated() -> bool:
        state = site.docker("service", "inspect", "--format", "{{.UpdateStatus.State}}", "roll")
        if state in {"paused", "rollback_started"}:
            raise SystemExit(f"the swarm's update is {state}")
        return state == "completed"

    site.eye.wait("the swarm's update", updated, 300.0)
    return time.perf_counter() - began
