"""The real kubectl at its everyday work against a real master: containers run, roll, move and go on real nodes."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from korch.lab.machine import CLEAN_ENV
from tests.kubetools import KUBECTL
from tests.lab.faulty import Faulty, wait_for
from tests.lab.mastering import mastered
from tests.lab.test_api_access import Kubectl, let_in

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")]

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{tier: front}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - name: web
          image: "{image}"
          env: [{{name: COLOUR, value: {colour}}}]
"""


@pytest.fixture
def kubectl(faulty: Faulty) -> Iterator[Kubectl]:
    with mastered(faulty):
        yield let_in(faulty, "root")


def web(site: Faulty, *, replicas: int = 2, colour: str = "red") -> str:
    return WEB.format(image=site.image(), replicas=replicas, colour=colour)


def of(kubectl: Kubectl, *words: str) -> Any:
    """What `get -o json` gives."""
    return json.loads(kubectl("get", *words, "-o", "json"))


def names(kubectl: Kubectl, *words: str) -> list[str]:
    return kubectl("get", *words, "-o", "name").split()


def colours(site: Faulty) -> set[str]:
    """Of the containers that really run."""
    return {one.env["COLOUR"] for one in site.of("web") if one.running}


def until(what: str, fits: Callable[[], object]) -> None:
    wait_for(what, lambda: bool(fits()), timeout_s=60)


def test_a_deployment_is_applied_rolled_undone_scaled_and_deleted(faulty: Faulty, kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", stdin=web(faulty)) == "deployment.apps/web created\n"
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    assert len([one for one in faulty.of("web") if one.running]) == 2
    assert kubectl("apply", "-f", "-", stdin=web(faulty)) == "deployment.apps/web unchanged\n"
    columns, row = (line.split() for line in kubectl("get", "deployments").splitlines())
    assert (columns, row[:4]) == (["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"], ["web", "2/2", "2", "2"])

    differs = kubectl.run("diff", "-f", "-", stdin=web(faulty, colour="blue"))
    assert differs.returncode == 1, differs
    assert "+          value: blue" in differs.stdout.replace("+        ", "+          ") or "blue" in differs.stdout
    kubectl("apply", "-f", "-", stdin=web(faulty, colour="blue"))
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    until("the old ones to go", lambda: colours(faulty) == {"blue"})
    history = kubectl("rollout", "history", "deployment/web").split()
    assert {"1", "2"} <= set(history)
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    until("the way back", lambda: colours(faulty) == {"red"})

    kubectl("scale", "deployment/web", "--replicas=4")
    kubectl("wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=4", "--timeout=90s")
    assert len(names(kubectl, "pods", "-l", "app=web")) == 4
    kubectl("delete", "deployment", "web")
    kubectl("wait", "pod", "-l", "app=web", "--for=delete", "--timeout=90s")
    until("the containers to go", lambda: not faulty.of("web"))


def test_small_changes(faulty: Faulty, kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=web(faulty))
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    kubectl("label", "deployment/web", "team=a")
    kubectl("annotate", "deployment/web", "note=b")
    kubectl("patch", "deployment/web", "-p", '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":3}}}}')
    merge = '{"metadata":{"labels":{"tier":null}}}'
    kubectl("patch", "deployment/web", "--type=merge", "-p", merge)
    operations = '[{"op":"add","path":"/metadata/labels/x","value":"y"}]'
    kubectl("patch", "deployment/web", "--type=json", "-p", operations)
    found = of(kubectl, "deployment/web")
    assert found["metadata"]["labels"] == {"team": "a", "x": "y"}
    assert found["spec"]["template"]["spec"]["containers"][0]["env"], "a strategic patch keeps what it does not name"
    kubectl("set", "env", "deployment/web", "COLOUR=green")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    until("the new colour", lambda: colours(faulty) == {"green"})
    before = set(names(kubectl, "pods"))
    kubectl("rollout", "pause", "deployment/web")
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    until("other pods", lambda: not before & set(names(kubectl, "pods", "--field-selector=status.phase=Running")))
    replaced = kubectl.run("replace", "-f", "-", stdin=web(faulty, replicas=1))
    assert replaced.returncode == 0, replaced
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    described = kubectl("describe", "deployment", "web")
    assert "1 desired | 1 updated | 1 total | 1 available | 0 unavailable" in described
    assert "Normal" in kubectl("events", "--for", "deployment/web") + kubectl("get", "events")


def test_two_appliers_share_an_object(faulty: Faulty, kubectl: Kubectl) -> None:
    shared = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{{}}}\n"
    one, other = ("--server-side", "--field-manager=one"), ("--server-side", "--field-manager=other")
    kubectl("apply", *one, "-f", "-", stdin=shared.format("a: '1', b: '1'"))
    kubectl("apply", *other, "-f", "-", stdin=shared.format("c: '1'"))
    assert of(kubectl, "configmap/c")["data"] == {"a": "1", "b": "1", "c": "1"}
    clash = kubectl.run("apply", *other, "-f", "-", stdin=shared.format("a: '2', c: '1'"))
    assert (clash.returncode, 'conflict with "one": .data.a' in clash.stderr) == (1, True)
    kubectl("apply", *other, "--force-conflicts", "-f", "-", stdin=shared.format("a: '2', c: '1'"))
    kubectl("apply", *one, "-f", "-", stdin=shared.format("x: '1'"))
    assert of(kubectl, "configmap/c")["data"] == {"a": "2", "c": "1", "x": "1"}


def test_mistakes_are_refused_with_their_field(faulty: Faulty, kubectl: Kubectl) -> None:
    wrong = web(faulty).replace("image:", "imagee:")
    assert 'unknown field "spec.template.spec.containers[0].imagee"' in refused(
        kubectl, "create", "-f", "-", stdin=wrong
    )
    negative = web(faulty, replicas=-1)
    assert "spec.replicas" in refused(kubectl, "apply", "-f", "-", stdin=negative)
    assert 'deployments.apps "none" not found' in kubectl.refused("get", "deployment", "none")
    assert "doesn't have a resource type" in kubectl.refused("get", "unicorns")
    assert 'namespaces "none" not found' in refused(kubectl, "create", "-n", "none", "-f", "-", stdin=web(faulty))


def refused(kubectl: Kubectl, *words: str, stdin: str) -> str:
    done = kubectl.run(*words, stdin=stdin)
    assert done.returncode != 0, done
    return done.stderr


def test_a_pod_is_run_watched_and_deleted(faulty: Faulty, kubectl: Kubectl) -> None:
    watch = subprocess.Popen(
        (KUBECTL, "--kubeconfig", str(kubectl.config), "get", "pods", "--watch", "--no-headers"),
        stdout=subprocess.PIPE,
        text=True,
        env={**CLEAN_ENV, "HOME": str(kubectl.config.parent)},
    )
    try:
        kubectl("run", "one", f"--image={faulty.image()}", "--labels=app=one")
        kubectl("wait", "pod/one", "--for=condition=Ready", "--timeout=90s")
        columns, row = (line.split() for line in kubectl("get", "pods", "-o", "wide").splitlines())
        assert row[:4] == ["one", "1/1", "Running", "0"]
        assert row[columns.index("NODE")] in faulty.nodes
        assert "Scheduled" in kubectl("describe", "pod", "one") or "Started" in kubectl("describe", "pod", "one")
        kubectl("delete", "pod", "one", "--grace-period=1", "--timeout=60s")
        assert kubectl.run("get", "pod", "one").returncode == 1
    finally:
        watch.kill()
        seen, _ = watch.communicate()
    states = [line.split()[2] for line in seen.splitlines()]
    assert states[0] == "Pending"
    assert "Running" in states


def test_nodes_are_cordoned_tainted_and_drained(faulty: Faulty, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=web(faulty, replicas=4))
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    victim = of(kubectl, "pods", "-l", "app=web")["items"][0]["spec"]["nodeName"]
    kubectl("cordon", victim)
    assert "SchedulingDisabled" in kubectl("get", "node", victim)
    kubectl("drain", victim, "--ignore-daemonsets", "--timeout=120s")
    pods = of(kubectl, "pods", "-l", "app=web")["items"]
    assert victim not in {pod["spec"]["nodeName"] for pod in pods}
    kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=90s")
    kubectl("uncordon", victim)
    assert "SchedulingDisabled" not in kubectl("get", "node", victim)
    kubectl("taint", "nodes", victim, "what=ever:NoSchedule")
    assert of(kubectl, "node", victim)["spec"]["taints"][-1]["key"] == "what"
    kubectl("taint", "nodes", victim, "what-")
    assert "korch node" in kubectl.refused("delete", "node", victim)


def test_a_namespace_goes_with_its_containers(faulty: Faulty, kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "other")
    kubectl("-n", "other", "create", "configmap", "c", "--from-literal=a=b")
    kubectl("-n", "other", "apply", "-f", "-", stdin=web(faulty))
    kubectl("-n", "other", "rollout", "status", "deployment/web", "--timeout=90s")
    assert len(faulty.of("web")) == 2
    kubectl("delete", "namespace", "other", "--timeout=90s")
    until("the containers to go", lambda: not faulty.of("web"))
    assert kubectl.run("get", "namespace", "other").returncode == 1


def test_how_what_is_owned_goes(faulty: Faulty, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=web(faulty))
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    before = set(names(kubectl, "pods"))
    kubectl("delete", "deployment", "web", "--cascade=orphan")
    (replicaset,) = of(kubectl, "replicasets")["items"]
    assert not replicaset["metadata"].get("ownerReferences")
    assert set(names(kubectl, "pods")) == before
    kubectl("delete", "replicaset", replicaset["metadata"]["name"], "--cascade=foreground", "--timeout=90s")
    assert names(kubectl, "pods") == []


def test_what_the_cluster_says_of_itself(faulty: Faulty, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=web(faulty))
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    assert "deployments" in kubectl("api-resources")
    assert "apps/v1" in kubectl("api-versions")
    assert "FIELDS:" in kubectl("explain", "deployment.spec.template.spec.containers")
    assert kubectl("auth", "can-i", "create", "deployments").strip() == "yes"
    assert kubectl("get", "--raw", "/readyz") == "ok"
    until("figures of nodes", lambda: kubectl.run("top", "nodes").returncode == 0)
    assert {line.split()[0] for line in kubectl("top", "nodes", "--no-headers").splitlines()} <= set(faulty.nodes)
    until("figures of pods", lambda: len(kubectl.run("top", "pods", "--no-headers").stdout.splitlines()) == 2)
    everything = kubectl("get", "all")
    assert "deployment.apps/web" in everything
    assert "replicaset.apps/web-" in everything
