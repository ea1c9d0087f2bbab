"""Real kubectl of two minor versions against the API alone: what it works out on its own before it asks."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.apiserver import Served, served
from tests.kubetools import MINORS, tool

FOUND = [minor for minor in MINORS if tool("kubectl", minor)]
pytestmark = pytest.mark.skipif(not FOUND, reason="there is no kubectl")
Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(params=FOUND)
def kubectl(request: pytest.FixtureRequest, api: Served, tmp_path: Path) -> Kubectl:
    """It runs in a namespace of the test's own, and gives what it said on both channels."""
    program = tool("kubectl", request.param)
    env = {**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(api.config)}
    space = f"{request.function.__name__[5:].replace('_', '-')[:50]}-{request.param}"

    def run(*words: str, given: str = "", code: int = 0) -> str:
        told = subprocess.run(
            (program, "-n", space, *words), input=given, env=env, capture_output=True, text=True, timeout=60
        )
        assert told.returncode == code, (words, told.stdout, told.stderr)
        return told.stdout + told.stderr

    if space not in run("get", "namespaces", "--output=name"):  # a second try finds the first one's
        run("create", "namespace", space)
    return run


LIST = """\
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {k: v}}
"""
REVIEW = """\
apiVersion: authorization.k8s.io/v1
kind: SelfSubjectAccessReview
spec: {resourceAttributes: {verb: get, resource: pods}}
"""


def test_lists_and_reviews_are_manifests_too(kubectl: Kubectl) -> None:
    assert "configmap/b created" in kubectl("apply", "-f", "-", given=LIST)
    kept = kubectl("get", "configmaps", "-o", "yaml")
    assert "configmap/a configured" in kubectl("apply", "-f", "-", given=kept), "its annotation has an uid now"
    assert "allowed: true" in kubectl("create", "-f", "-", "-o", "yaml", given=REVIEW)


def test_the_scale_of_a_deployment_is_printed_as_such(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=web:1", "--replicas=3")
    assert kubectl("get", "deploy", "web", "--subresource=scale").split()[:6] == [
        "NAME",
        "DESIRED",
        "AVAILABLE",
        "AGE",
        "web",
        "3",
    ]


def test_a_pod_stays_what_it_is_and_who_tries_to_change_it_hears_what_to_do(kubectl: Kubectl) -> None:
    kubectl("run", "p", "--image=x:1")
    assert "kubectl replace --force" in kubectl("set", "env", "pod/p", "A=b", code=1)
    made = kubectl("get", "pod", "p", "-o", "yaml").replace("x:1", "x:2")
    assert "pod/p replaced" in kubectl("replace", "--force", "-f", "-", given=made)
    assert kubectl("get", "pod", "p", "-o", "jsonpath={.spec.containers[0].image}") == "x:2"


def test_only_the_image_of_a_pod_may_change(kubectl: Kubectl) -> None:
    kubectl("run", "p", "--image=x:1")
    assert "pod/p image updated" in kubectl("set", "image", "pod/p", "p=x:2")
    assert kubectl("get", "pod", "p", "-o", "jsonpath={.spec.containers[0].image}") == "x:2"


def running(kubectl: Kubectl, name: str) -> None:
    """A pod on the node, ready, as a master would report it."""
    given = json.dumps({"spec": {"nodeName": "n1"}})
    kubectl("run", name, "--image=x:1", "--labels=app=web", f"--overrides={given}")
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def test_evictions_and_drains_keep_to_budgets(kubectl: Kubectl) -> None:
    for name in ("a", "b"):
        running(kubectl, name)
    kubectl("create", "pdb", "web", "--selector=app=web", "--min-available=2")
    space = kubectl("get", "pod", "a", "-o", "jsonpath={.metadata.namespace}")
    wish = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a", "namespace": space}}
    path = f"/api/v1/namespaces/{space}/pods/a/eviction"
    assert "violate the pod's disruption budget" in kubectl(
        "create", "--raw", path, "-f", "-", given=json.dumps(wish), code=1
    )
    drain = ("drain", "n1", "--force", "--pod-selector=app=web")
    held = kubectl(*drain, "--timeout=1s", code=1)
    assert "Cannot evict pod as it would violate the pod's disruption budget" in held
    assert len(kubectl("get", "pods", "-o", "name").split()) == 2
    kubectl(*drain, "--disable-eviction", "--grace-period=0", "--timeout=20s")
    assert "No resources found" in kubectl("get", "pods")
    kubectl("uncordon", "n1")


def test_a_pod_goes_at_once_by_force(kubectl: Kubectl) -> None:
    running(kubectl, "a")
    running(kubectl, "b")
    kubectl("delete", "pod", "a", "--wait=false")
    assert kubectl("get", "pods", "-o", "name").split() == ["pod/a", "pod/b"], "its node has to end it"
    kubectl("delete", "pods", "a", "b", "--force", "--grace-period=0")
    assert "No resources found" in kubectl("get", "pods")


def test_a_scale_may_depend_on_what_is_there(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=web:1", "--replicas=2")
    wrong = kubectl("scale", "deploy/web", "--current-replicas=5", "--replicas=3", code=1)
    assert "Expected replicas to be 5, was 2" in wrong
    kubectl("scale", "deploy/web", "--current-replicas=2", "--replicas=3")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"


def test_lists_come_in_pages(kubectl: Kubectl) -> None:
    for name in "abcde":
        kubectl("create", "configmap", name)
    told = kubectl("get", "configmaps", "--chunk-size=2", "-o", "name", "-v=8")
    assert told.count("continue=") >= 2
    assert [line for line in told.splitlines() if line.startswith("configmap/")] == [f"configmap/{n}" for n in "abcde"]


def test_what_is_only_kept_is_made_and_shown_too(kubectl: Kubectl, api: Served) -> None:
    warning = kubectl("create", "quota", "q", "--hard=cpu=2,pods=3")
    assert "Warning" in warning
    kubectl("create", "ingress", "i", "--rule=x.io/*=web:80")
    space = kubectl("get", "quota", "q", "-o", "jsonpath={.metadata.namespace}")
    kubectl("create", "priorityclass", space[-20:], "--value=10")
    described = kubectl("describe", "namespace", space)
    assert "Status:       Active" in described
    assert "Resource Quotas" in described
    assert "x.io" in kubectl("describe", "ingress", "i")
    assert "condition met" in kubectl("wait", "--for=create", "ingress/i", "--timeout=10s")
    assert "timed out" in kubectl("wait", "--for=create", "ingress/none", "--timeout=1s", code=1)
    kubectl("delete", "priorityclass", space[-20:])


def test_a_new_object_replaces_the_old_one_by_force(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    before = kubectl("get", "cm", "c", "-o", "jsonpath={.metadata.uid}")
    made = kubectl("create", "configmap", "c", "--from-literal=a=2", "--dry-run=client", "-o", "yaml")
    assert "configmap/c replaced" in kubectl("replace", "--force", "-f", "-", given=made)
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.metadata.uid}") != before


def test_pruning_needs_to_know_of_what(kubectl: Kubectl) -> None:
    labelled = LIST.replace("metadata: {", "metadata: {labels: {set: s}, ")
    kubectl("apply", "-f", "-", given=labelled)
    fewer = "\n".join(line for line in labelled.splitlines() if "name: b" not in line)
    prune = ("apply", "--prune", "-l", "set=s", "-f", "-")
    assert 'no matches for kind "Endpoints"' in kubectl(*prune, given=fewer, code=1)
    assert "configmap/b pruned" in kubectl(*prune, "--prune-allowlist=core/v1/ConfigMap", given=fewer)


def test_what_is_only_answered_is_explained_too(kubectl: Kubectl) -> None:
    for word, kind in (("selfsubjectaccessreview", "SelfSubjectAccessReview"), ("tokenreviews", "TokenReview")):
        assert f"KIND:       {kind}" in kubectl("explain", word)
