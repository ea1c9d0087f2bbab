"""Real kubectl of two minor versions against the API alone: what it works out on its own before it asks."""

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
    assert kubectl("get", "deploy", "web", "--subresource=scale").split()[:6] == (
        "NAME DESIRED AVAILABLE AGE web 3".split()
    )


def test_a_pod_stays_what_it_is_and_who_tries_to_change_it_hears_what_to_do(kubectl: Kubectl) -> None:
    kubectl("run", "p", "--image=x:1")
    assert "kubectl replace --force" in kubectl("set", "image", "pod/p", "p=x:2", code=1)
    made = kubectl("get", "pod", "p", "-o", "yaml").replace("x:1", "x:2")
    assert "pod/p replaced" in kubectl("replace", "--force", "-f", "-", given=made)
    assert kubectl("get", "pod", "p", "-o", "jsonpath={.spec.containers[0].image}") == "x:2"
