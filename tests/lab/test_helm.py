"""helm with the chart that `helm create` makes, on real nodes: installed, upgraded, rolled back and taken away."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from korch.lab.machine import CLEAN_ENV
from tests.kubetools import HELM, KUBECTL
from tests.lab.faulty import Faulty, wait_for
from tests.lab.mastering import mastered
from tests.lab.test_api_access import Kubectl, let_in

PORT = "8080"  # where the lab's image listens

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not (HELM and KUBECTL), reason="there is no helm or no kubectl")]


@dataclass(frozen=True)
class Helm:
    """The real one, with one kubeconfig, in a folder with a chart."""

    kubectl: Kubectl
    folder: Path

    def __call__(self, *words: str) -> str:
        """What a run that must succeed prints."""
        env = {**CLEAN_ENV, "HOME": str(self.folder), "KUBECONFIG": str(self.kubectl.config)}
        argv = (HELM, *words)
        done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=self.folder, timeout=240, check=False)
        assert done.returncode == 0, done
        return done.stdout

    def releases(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("list", "-o", "json"))
        return found


@pytest.fixture
def helm(faulty: Faulty, tmp_path: Path) -> Iterator[Helm]:
    with mastered(faulty):
        made = Helm(let_in(faulty, "root"), tmp_path)
        made("create", "chart")
        yield made


def test_the_life_of_a_release(faulty: Faulty, helm: Helm) -> None:
    repository, _, tag = faulty.image().rpartition(":")
    values = ("--set", f"image.repository={repository},image.tag={tag},service.port={PORT}")
    waiting = ("--wait", "--timeout", "120s")
    helm("install", "web", "./chart", *values, *waiting)
    name = "web-chart"
    assert len([one for one in faulty.of(name) if one.running]) == 1
    assert [(one["name"], one["status"], one["revision"]) for one in helm.releases()] == [("web", "deployed", "1")]
    assert helm.kubectl("get", "service", name, "-o", "jsonpath={.spec.ports[0].port}") == PORT

    helm("upgrade", "web", "./chart", *values, "--set", "replicaCount=3", *waiting)
    assert len([one for one in faulty.of(name) if one.running]) == 3
    helm("rollback", "web", "1", *waiting)
    wait_for("one replica", lambda: len([one for one in faulty.of(name) if one.running]) == 1, timeout_s=60)
    assert [one["revision"] for one in json.loads(helm("history", "web", "-o", "json"))] == [1, 2, 3]
    assert "STATUS: deployed" in helm("status", "web")
    helm("uninstall", "web", *waiting)
    assert helm.releases() == []
    wait_for("the containers to go", lambda: not faulty.of(name), timeout_s=60)
    left = helm.kubectl("get", "deployments,services,serviceaccounts,secrets", "-o", "name").split()
    assert not [one for one in left if "web" in one]
