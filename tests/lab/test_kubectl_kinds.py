"""The real kubectl with jobs, services, autoscalers, histories and configuration, on real nodes of both engines."""

from collections.abc import Iterator

import pytest

from tests.kubetools import KUBECTL
from tests.lab.faulty import Faulty
from tests.lab.mastering import mastered
from tests.lab.test_api_access import Kubectl, let_in
from tests.lab.test_kubectl import names, of, until, web

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")]

DAEMON = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: each, annotations: {{kubernetes.io/change-cause: "{colour}"}}}}
spec:
  selector: {{matchLabels: {{app: each}}}}
  template:
    metadata: {{labels: {{app: each}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: each, image: "{image}", env: [{{name: COLOUR, value: {colour}}}]}}]
"""


@pytest.fixture
def kubectl(faulty: Faulty) -> Iterator[Kubectl]:
    with mastered(faulty):
        yield let_in(faulty, "root")


def test_jobs_are_created_awaited_and_read(faulty: Faulty, kubectl: Kubectl) -> None:
    image = faulty.image()
    kubectl("create", "job", "hello", f"--image={image}", "--", "sh", "-c", "echo hello; sleep 1")
    kubectl("wait", "job/hello", "--for=condition=complete", "--timeout=90s")
    (line,) = [row.split() for row in kubectl("get", "jobs", "--no-headers").splitlines()]
    assert line[:3] == ["hello", "Complete", "1/1"]
    (pod,) = names(kubectl, "pods", "-l", "job-name=hello")
    assert faulty.korch("logs", pod.removeprefix("pod/")).out == "hello\n"
    described = kubectl("describe", "job", "hello")
    assert "0 Active (0 Ready) / 1 Succeeded / 0 Failed" in described, described

    kubectl("create", "cronjob", "nightly", f"--image={image}", "--schedule=0 3 * * *", "--", "true")
    kubectl("create", "job", "now", "--from=cronjob/nightly")
    kubectl("wait", "job/now", "--for=condition=complete", "--timeout=90s")
    assert "0 3 * * *" in kubectl("get", "cronjobs")
    assert "Schedule:" in kubectl("describe", "cronjob", "nightly")
    kubectl("patch", "cronjob/nightly", "-p", '{"spec":{"suspend":true}}')
    assert of(kubectl, "cronjob/nightly")["spec"]["suspend"] is True
    kubectl("delete", "cronjob", "nightly")
    until("its job to go", lambda: names(kubectl, "jobs") == ["job.batch/hello"])
    kubectl("delete", "job", "hello")
    until("all pods to go", lambda: not names(kubectl, "pods") and not faulty.seen())


def test_a_service_has_the_endpoints_of_what_it_exposes(faulty: Faulty, kubectl: Kubectl) -> None:
    text = web(faulty).replace(
        "          env:", "          ports: [{containerPort: 8080, hostPort: 18081}]\n          env:"
    )
    kubectl("apply", "-f", "-", stdin=text)
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    exposed = kubectl.run("expose", "deployment/web", "--port=80", "--target-port=8080")
    assert exposed.returncode == 0, exposed
    assert "Warning: a Service has no virtual address yet" in exposed.stderr
    slices = "-l=kubernetes.io/service-name=web"
    until(
        "two endpoints",
        lambda: sum(len(one.get("endpoints", ())) for one in of(kubectl, "endpointslices", slices)["items"]) == 2,
    )
    described = kubectl("describe", "service", "web")
    assert ":18081" in described, described
    assert "None" in kubectl("get", "service", "web")
    kubectl("delete", "service,deployment", "web")
    until("the slices to go", lambda: not names(kubectl, "endpointslices"))


def test_an_autoscaler_of_either_version(faulty: Faulty, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=web(faulty))
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    kubectl("autoscale", "deployment/web", "--min=3", "--max=5", "--cpu-percent=80")
    until("three of them", lambda: of(kubectl, "deployment/web")["spec"]["replicas"] == 3)
    old = of(kubectl, "horizontalpodautoscalers.v1.autoscaling/web")
    assert old["spec"].get("targetCPUUtilizationPercentage") == 80, old
    assert "Deployment/web" in kubectl("get", "hpa")
    described = kubectl("describe", "hpa", "web")
    assert "ScalingActive" in described, described
    kubectl("delete", "hpa/web", "deployment/web")


def test_a_daemon_set_goes_back(faulty: Faulty, kubectl: Kubectl) -> None:
    for colour in ("red", "blue"):
        kubectl("apply", "-f", "-", stdin=DAEMON.format(image=faulty.image(), colour=colour))
        kubectl("rollout", "status", "daemonset/each", "--timeout=120s")
    history = kubectl("rollout", "history", "daemonset/each")
    assert [line.split() for line in history.splitlines() if line[:1].isdigit()] == [["1", "red"], ["2", "blue"]]
    kubectl("rollout", "undo", "daemonset/each")
    kubectl("rollout", "status", "daemonset/each", "--timeout=120s")
    until("all of them red", lambda: {one.env["COLOUR"] for one in faulty.of("each") if one.running} == {"red"})
    history = kubectl("rollout", "history", "daemonset/each")
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["2", "3"]
    kubectl("delete", "daemonset", "each")
    until("its history to go", lambda: not names(kubectl, "controllerrevisions"))


def test_configuration_reaches_containers(faulty: Faulty, kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "conf", "--from-literal=level=debug")
    kubectl("create", "secret", "generic", "keys", "--from-literal=password=hunter2")
    text = web(faulty, replicas=1).replace(
        "          env:",
        """\
          envFrom: [{configMapRef: {name: conf}}]
          volumeMounts: [{name: keys, mountPath: /etc/keys}]
          env:""",
    )
    kubectl("apply", "-f", "-", stdin=text + "      volumes: [{name: keys, secret: {secretName: keys}}]\n")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    script = 'echo "$level $(cat /etc/keys/password)"'
    (pod,) = names(kubectl, "pods", "-l", "app=web")
    assert faulty.korch("exec", pod.removeprefix("pod/"), "--", "sh", "-c", script).out == "debug hunter2\n"
    kubectl("set", "env", "deployment/web", "--from=configmap/conf", "--prefix=C_")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    assert "DATA" in kubectl("get", "configmaps")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("role", "r", "--verb=get", "--resource=pods"), ""),
        (("rolebinding", "rb", "--clusterrole=view", "--user=jane"), ""),
        (("ingress", "i", "--rule=web.lab/*=web:80"), "nothing serves it"),
        (("quota", "q", "--hard=pods=3"), "not enforced"),
        (("priorityclass", "pc", "--value=5"), "same priority"),
        (("service", "nodeport", "np", "--tcp=80"), "NodePort"),
        (("serviceaccount", "sa"), ""),
    ],
)
def test_kinds_that_are_kept_are_told_to_be_so(
    faulty: Faulty, kubectl: Kubectl, words: tuple[str, ...], told: str
) -> None:
    made = kubectl.run("create", *words)
    assert made.returncode == 0, made
    assert told in made.stderr
    assert bool(told) == ("Warning:" in made.stderr), made.stderr
    name = words[2] if words[:2] == ("service", "nodeport") else words[1]
    kubectl("delete", words[0], name)
