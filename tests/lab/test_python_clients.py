"""lightkube, kr8s and kopf through the real door, with TLS and client certificates, on real containers."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.faulty import Faulty, wait_for
from tests.lab.mastering import mastered

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore")]  # their warnings, not ours

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: default}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: c, image: "{image}"}}]
"""
OPERATOR = """\
import kopf

@kopf.on.event("pods", labels={"app": "kr"})
def seen(type, name, **_):
    print("saw", type, name, flush=True)
"""


@pytest.fixture
def config(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A kubeconfig of a master that runs."""
    with mastered(faulty):
        path = faulty.korch.cwd / "root.kubeconfig"
        faulty.korch("kubeconfig", "--name", "root", "-o", str(path))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield path
        wait_for("the containers to go", lambda: not faulty.seen(), timeout_s=60)


@contextmanager
def operator(config: Path) -> Iterator[Path]:
    """One on kopf that is there, and its log; without complaints at its end."""
    folder = config.parent
    (folder / "operator.py").write_text(OPERATOR)
    log = folder / "operator.log"
    words = (sys.executable, "-m", "kopf", "run", "--standalone", "-n", "default", "operator.py")
    env = {**os.environ, "KUBECONFIG": str(config), "HOME": str(folder)}
    with log.open("w") as out:
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=out, stderr=out)
    try:
        yield log
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()


def test_the_python_clients_run_containers(faulty: Faulty, config: Path) -> None:
    manifests = {name: yaml.safe_load(WEB.format(name=name, image=faulty.image())) for name in ("lk", "kr")}
    with operator(config) as log:
        on_kr8s(config, manifests["kr"])
        wait_for("kopf to see pods go", lambda: "saw DELETED kr-" in log.read_text(), timeout_s=30)
    on_lightkube(manifests["lk"])


def on_kr8s(config: Path, manifest: dict[str, Any]) -> None:
    kr8s = pytest.importorskip("kr8s")
    client = kr8s.api(kubeconfig=str(config))
    deployment = kr8s.objects.Deployment(manifest, api=client)
    deployment.create()
    deployment.wait("condition=Available", timeout=60)
    pod = deployment.pods()[0]
    assert "listens" in "\n".join(pod.logs())
    done = pod.exec(["sh", "-c", "cat /app/version; echo no >&2; exit 3"], check=False)
    assert (done.stdout.strip(), done.stderr.strip(), done.returncode) == (b"1", b"no", 3)
    with pod.portforward(remote_port=8080) as port:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
    assert answer.startswith(b"web version 1")
    deployment.delete(propagation_policy="Foreground")
    wait_for("the end of the deployment", lambda: not deployment.exists(), timeout_s=60)


def on_lightkube(manifest: dict[str, Any]) -> None:
    lightkube = pytest.importorskip("lightkube")
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import Pod

    client = lightkube.Client()
    client.create(Deployment.from_dict(manifest))
    client.wait(Deployment, "lk", for_conditions=["Available"])
    pods = list(client.list(Pod, labels={"app": "lk"}))
    assert len(pods) == 2
    assert any("listens" in line for line in client.log(pods[0].metadata.name, tail_lines=5))
    client.delete(Deployment, "lk")
    wait_for("its pods to go", lambda: not list(client.list(Pod, labels={"app": "lk"})), timeout_s=60)
