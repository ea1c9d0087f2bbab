"""Pods with several containers on both engines: what they share, what restarts what, and that nothing is left."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.kubetools import KUBECTL
from tests.lab.faulty import Faulty, at_each, finish, strike
from tests.lab.mastering import all_ready, eventually, mastered
from tests.lab.test_api_access import Kubectl, let_in

pytestmark = pytest.mark.faults
PORT = 8087
CONF = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {greeting: hello}
---
"""
SPEC = """\
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      terminationGracePeriodSeconds: 1
      initContainers:
        - name: first
          image: "{image}"
          command: [sh, -c, "cat /conf/greeting >/data/told"]
          volumeMounts: [{{name: data, mountPath: /data}}, {{name: conf, mountPath: /conf}}]
        - name: second
          image: "{image}"
          securityContext: {{runAsUser: 1234, runAsGroup: 1234}}
          command: [sh, -c, "echo ' twice' >/data/other; touch /app/mine; ls /app; echo second was here"]
          volumeMounts: [{{name: data, mountPath: /data}}, {{name: cover, mountPath: /app}}]
      containers:
        - name: web
          image: "{image}"
          ports: [{{containerPort: 8080, hostPort: 8087}}]
          readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}
          volumeMounts: [{{name: data, mountPath: /data, readOnly: true}}]
        - name: beside
          image: "{image}"
          lifecycle: {{postStart: {{exec: {{command: [sh, -c, "echo warm >/data/warm"]}}}}}}
          command: [sh, -c]
          args:
            - echo beside; while sleep 1; do wget -q -O /data/new localhost:8080 && mv /data/new /data/seen; done
          volumeMounts: [{{name: data, mountPath: /data}}, {{name: conf, mountPath: /conf}}]
      volumes:
        - {{name: conf, configMap: {{name: conf}}}}
        - {{name: data, emptyDir: {{}}}}
        - {{name: cover, emptyDir: {{}}}}
---
"""
APP = (
    """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
"""
    + SPEC
)
JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  backoffLimit: 4
  template:
    spec:
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      restartPolicy: OnFailure
      containers:
        - name: quick
          image: "{image}"
          command: [sh, -c, "exit 0"]
        - name: slow
          image: "{image}"
          command: [sh, -c, "[ -e /data/tried ] || {{ touch /data/tried; exit 3; }}"]
          volumeMounts: [{{name: data, mountPath: /data}}]
      volumes: [{{name: data, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-stuck}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  initContainers: [{{name: never, image: "{image}", command: [sh, -c, "echo no way; exit 7"]}}]
  containers: [{{name: web, image: "{image}"}}]
---
"""
THREE = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, annotations: {{kubectl.kubernetes.io/default-container: log}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  initContainers:
    - name: beside
      image: "{image}"
      restartPolicy: Always
      command: [sh, -c, "echo beside; exec sleep 1000"]
      startupProbe: {{exec: {{command: [hostname]}}, periodSeconds: 1}}
  containers:
    - {{name: web, image: "{image}"}}
    - {{name: log, image: "{image}", command: [sh, -c, "echo log; exec sleep 1000"]}}
---
"""
ONE = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}-one}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers: [{{name: web, image: "{image}", ports: [{{containerPort: 8080, hostPort: 8087}}]}}]
---
"""
BOTH = {"d1": "on-docker", "p1": "on-podman"}


def applied(site: Faulty, text: str) -> tuple[str, ...]:
    """The words that apply a manifest."""
    manifest = site.korch.cwd / "sandbox.yml"
    manifest.write_text(text)
    return ("apply", "-f", str(manifest))


def apps(site: Faulty) -> str:
    return CONF + "".join(APP.format(name=name, node=node, image=site.image()) for node, name in BOTH.items())


def volumes(site: Faulty) -> dict[str, str]:
    """All of the engines' volumes and of korch's folders for pods."""
    script = '"$1" volume ls -q; find /var/lib/korch/*/volumes -mindepth 1 2>/dev/null || :'
    return {node: site.shell(node, script, site.engine(node)) for node in BOTH}


def container(site: Faulty, node: str, name: str) -> str:
    """The id of a container of the node's app."""
    labels = f"--filter label=korch.dev/owner={BOTH[node]} --filter label=korch.dev/container={name}"
    return site.shell(node, f"{site.engine(node)} ps -aq {labels}").strip()


def restarts(site: Faulty, name: str) -> list[int]:
    """Of the app's containers, init containers first."""
    (pod,) = [one for one in site.korch.objects("pods") if one["metadata"]["name"].startswith(name)]
    every = (*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"])
    return [one.get("restartCount", 0) for one in every]


def works(site: Faulty, node: str) -> bool:
    """Whether the app answers where it is published, and its containers reach one another."""
    url = f"http://{site.lab.address(node)}:{PORT}"
    script = "cat /data/told /data/other /data/warm /data/seen; hostname"
    inside = site.korch("exec", f"deploy/{BOTH[node]}", "-c", "web", "--", "sh", "-c", script, status=None)
    try:
        page = site.page(url)
    except OSError:
        return False
    return inside.out.startswith("hello twice\nwarm\n") and f"\n{page}" in inside.out


def test_containers_of_a_pod_share_its_life(faulty: Faulty) -> None:
    before = volumes(faulty)
    with mastered(faulty):
        faulty.korch(*applied(faulty, apps(faulty)), "--no-wait")
        eventually("both are ready", lambda: all_ready(faulty, "on-", 2))
        for node, name in BOTH.items():
            eventually(f"{node}: it works", lambda node=node: works(faulty, node))
            assert faulty.korch("logs", name, "-c", "second").out == "mine\nsecond was here\n"
            logs = faulty.korch("logs", name, "--all-containers").out
            assert "second] second was here" in logs
            assert "beside] beside" in logs
            assert restarts(faulty, name) == [0, 0, 0, 0]
            faulty.shell(node, '"$1" kill -s KILL "$2"', faulty.engine(node), container(faulty, node, "beside"))
        for node, name in BOTH.items():
            eventually(f"{node}: only one", lambda name=name: restarts(faulty, name) == [0, 0, 0, 1])
            eventually(f"{node}: it works", lambda node=node: works(faulty, node))
            faulty.shell(node, '"$1" kill -s KILL "$2"', faulty.engine(node), container(faulty, node, "POD"))
        for node, name in BOTH.items():
            eventually(f"{node}: all of it", lambda name=name: restarts(faulty, name) == [1, 1, 1, 2])
            eventually(f"{node}: it works", lambda node=node: works(faulty, node))
            faulty.lab.kill(node)
        for node in BOTH:
            faulty.lab.start(node)
        for node in BOTH:
            eventually(f"{node}: it works after a boot", lambda node=node: works(faulty, node))
        eventually("both are ready", lambda: all_ready(faulty, "on-", 2))
        faulty.korch("delete", *BOTH.values())
        eventually("they are gone", lambda: not faulty.korch.objects("pods") and not faulty.seen())
    assert volumes(faulty) == before


def word_of(site: Faulty, name: str) -> str:
    """What `korch get pods` calls its state."""
    rows = [line.split() for line in site.korch("get", "pods").out.splitlines()]
    return next((row[2] for row in rows if row and row[0] == name), "")


def status_of(pod: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in pod["status"]["containerStatuses"] if one["name"] == name)
    return found


def test_jobs_of_several_containers_end_and_init_containers_that_fail_are_told(faulty: Faulty) -> None:
    before = volumes(faulty)
    text = "".join(JOB.format(name=name, node=node, image=faulty.image()) for node, name in BOTH.items())
    with mastered(faulty):
        faulty.korch(*applied(faulty, text), "--no-wait")
        for name in BOTH.values():
            eventually(
                f"{name} is complete",
                lambda name=name: faulty.korch.objects("job", name)[0].get("status", {}).get("succeeded") == 1,
            )
            (pod,) = [
                one
                for one in faulty.korch.objects("pods")
                if one["metadata"]["name"].startswith(f"{name}-") and not one["metadata"]["name"].endswith("-stuck")
            ]
            assert pod["status"]["phase"] == "Succeeded"
            assert status_of(pod, "slow")["restartCount"] == 1
            assert status_of(pod, "quick").get("restartCount", 0) == 0
            stuck = f"{name}-stuck"
            eventually(f"{stuck} backs off", lambda stuck=stuck: word_of(faulty, stuck) == "Init:CrashLoopBackOff")
            assert "no way" in faulty.korch("logs", stuck, "-c", "never").out
        running = [one for one in faulty.seen() if one.running]
        assert {one.labels["korch.dev/pod"] for one in running} == {f"{name}-stuck" for name in BOTH.values()}
        for name in BOTH.values():
            faulty.korch("delete", "pod", f"{name}-stuck")
            faulty.korch("delete", "job", name)
        eventually("they are gone", lambda: not faulty.korch.objects("pods") and not faulty.seen())
    assert volumes(faulty) == before


@pytest.mark.parametrize("word", ["import", "run"])
def test_a_run_that_is_killed_between_two_containers_is_gone_on_from(faulty: Faulty, word: str) -> None:
    faulty.forget_images()
    before = volumes(faulty)
    words = applied(faulty, apps(faulty))
    with faulty.hold(word, *BOTH, when="after") as holds:
        first = faulty.start(*words)
        at_each(holds, lambda hold: None)
        strike(first, signal.SIGKILL)
        finish(first, status=None)
    faulty.korch(*words)
    found = faulty.seen()
    assert sorted((one.node, one.labels["korch.dev/container"]) for one in found) == sorted(
        (node, name) for node in BOTH for name in ("POD", "first", "second", "web", "beside")
    ), json.dumps([one.name for one in found])
    for node in BOTH:
        eventually(f"{node}: it works", lambda node=node: works(faulty, node))
    faulty.korch("delete", *BOTH.values())
    assert faulty.seen() == []
    assert volumes(faulty) == before


@pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")
def test_kubectl_reaches_each_container_of_a_pod(faulty: Faulty, tmp_path: Path) -> None:
    before = volumes(faulty)
    with mastered(faulty):
        kubectl = let_in(faulty, "root")
        pods = "".join(THREE.format(name=name, node=node, image=faulty.image()) for node, name in BOTH.items())
        kubectl("apply", "-f", "-", stdin=pods)
        kubectl("wait", "pod", *BOTH.values(), "--for=condition=Ready", "--timeout=90s")
        for name in BOTH.values():
            assert kubectl("get", "pod", name, "--no-headers").split()[1:3] == ["3/3", "Running"]
            assert kubectl("logs", name) == "log\n"
            assert kubectl("logs", name, "-c", "web") == "web 1 listens on port 8080\n"
            every = kubectl("logs", name, "--all-containers", "--prefix")
            assert sorted(line.rpartition("/")[2] for line in every.splitlines()) == [
                "beside] beside",
                "log] log",
                "web] web 1 listens on port 8080",
            ]
            told = kubectl("exec", name, "--", "sh", "-c", "hostname; touch /in-log")
            assert told == f"{name}\n"
            assert kubectl("exec", name, "-c", "beside", "--", "wget", "-q", "-O", "-", "localhost:8080").startswith(
                "web"
            )
            assert "No such file" in kubectl.refused("exec", name, "-c", "web", "--", "ls", "/in-log")
            (tmp_path / "file").write_text("brought")
            kubectl("cp", str(tmp_path / "file"), f"{name}:/tmp/file", "-c", "web")
            assert kubectl("exec", name, "-c", "web", "--", "cat", "/tmp/file") == "brought"
            assert "lgo" in kubectl.refused("logs", name, "-c", "lgo")
        changes_images(faulty, kubectl)
        kubectl("delete", "pod", *BOTH.values(), *(f"{name}-one" for name in BOTH.values()))
        eventually("they are gone", lambda: not faulty.seen())
    assert volumes(faulty) == before


def changes_images(site: Faulty, kubectl: Kubectl) -> None:
    """A container whose image is changed gives way to another one, alone; one that cannot be pulled ends nothing."""
    pods = "".join(ONE.format(name=name, node=node, image=site.image()) for node, name in BOTH.items())
    kubectl("apply", "-f", "-", stdin=pods)
    ones = [f"{name}-one" for name in BOTH.values()]
    kubectl("wait", "pod", *ones, "--for=condition=Ready", "--timeout=90s")
    counts = "-o=jsonpath={.status.initContainerStatuses[*].restartCount}{.status.containerStatuses[*].restartCount}"
    for name, one in zip(BOTH.values(), ones, strict=True):
        kubectl("set", "image", f"pod/{name}", f"log={site.image('2')}")
        kubectl("set", "image", f"pod/{one}", f"web={site.image('none')}")
    for node, name in BOTH.items():
        one = f"{name}-one"
        kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.containerStatuses[1].restartCount}=1", "--timeout=90s")
        kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=90s")
        assert kubectl("get", "pod", name, counts) == "00 1"
        assert [kubectl("exec", name, "-c", of, "--", "cat", "/app/version") for of in ("web", "log")] == ["1\n", "2\n"]
        assert "No such file" in kubectl.refused("exec", name, "--", "ls", "/in-log")
        assert "Container log definition changed, will be restarted" in kubectl("describe", "pod", name)
        eventually(f"{one}: it cannot be pulled", lambda one=one: "goes on with" in kubectl("describe", "pod", one))
        kubectl("wait", f"pod/{one}", "--for=condition=Ready", "--timeout=1s")
        assert site.page(f"http://{site.lab.address(node)}:{PORT}") == f"web version 1 on {one}"
        kubectl("set", "image", f"pod/{one}", f"web={site.image('2')}")
        kubectl("wait", f"pod/{one}", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=90s")
        kubectl("wait", f"pod/{one}", "--for=condition=Ready", "--timeout=90s")
        assert kubectl("exec", one, "--", "cat", "/app/version") == "2\n"
        assert site.page(f"http://{site.lab.address(node)}:{PORT}") == f"web version 2 on {one}"
