"""`korch delete`: what goes, what is waited for, what is left alone."""

import base64
from pathlib import Path

from korch.client.base import Workload
from korch.resources.expand import REGISTRY_OF_LABEL, SECRETS_OF_LABEL
from korch.resources.misc import Secret
from korch.resources.pod import Pod
from korch.resources.workload import Deployment
from tests.unit.cli.world import World, a_deployment, a_pod, a_workload, meta

WEB = Workload("default", "web")


def test_an_app_goes_and_its_containers_are_waited_for(world: World) -> None:
    world.put(*a_workload("web", 2), a_deployment("web-a"))
    result = world.run("delete", "web")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "deployment/web deleted")
    assert world.converged == [(WEB,)]
    assert world.read(Deployment, "web") is None
    assert world.read(Deployment, "web-a") is not None


def test_a_replica_that_is_deleted_is_replaced_so_the_app_is_waited_for(world: World) -> None:
    waiting = a_pod("web-bcdfg-9", owner="web-bcdfg", node="", labels={"pod-template-hash": "bcdfg"})
    world.put(*a_workload("web", 1), waiting)
    assert world.run("delete", "pod", "web-bcdfg-9").exit_code == 0
    assert world.read(Pod, "web-bcdfg-9") is None, "it ran nowhere, so it is gone at once"
    assert world.converged == [(WEB,)]


def test_all_or_nothing(world: World) -> None:
    world.put(a_deployment("web"))
    result = world.run("delete", "web", "wbe")
    assert result.exit_code == 4
    assert world.read(Deployment, "web") is not None


def test_manifests_and_short_forms_from_stdin(world: World) -> None:
    world.put(a_deployment("web"), a_deployment("api"))
    manifest = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n"
    )
    template = "  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n"
    assert world.run("delete", "-f", "-", input=manifest + template).exit_code == 0
    assert world.run("delete", "-f", "-", input="name: api\nimage: api:1\n").exit_code == 0
    assert world.converged == [(WEB,), (Workload("default", "api"),)]


def test_a_folder_of_manifests(world: World, tmp_path: Path) -> None:
    world.put(a_deployment("web"))
    (tmp_path / "web.yml").write_text("name: web\nimage: web:1\n")
    assert world.run("delete", "-f", str(tmp_path), "--no-wait").exit_code == 0
    assert (world.read(Deployment, "web"), world.converged) == (None, [])


def a_secret(name: str, label: str, of: str) -> Secret:
    return Secret(metadata=meta(name, labels={label: of}), data={"K": base64.b64encode(b"v").decode()})


def test_secrets_of_the_app_go_and_those_of_another_wish_stay(world: World) -> None:
    world.put(
        a_deployment("web"),
        a_secret("web-1", SECRETS_OF_LABEL, "web"),
        a_secret("web-reg", REGISTRY_OF_LABEL, "web"),
        a_secret("new-1", SECRETS_OF_LABEL, "new"),  # its deployment is about to be written
        Secret(metadata=meta("by-hand")),
    )
    assert world.run("delete", "web").exit_code == 0
    left = [name for name in ("web-1", "web-reg", "new-1", "by-hand") if world.read(Secret, name) is not None]
    assert left == ["new-1", "by-hand"]


def test_nothing_named(world: World) -> None:
    assert world.run("delete").exit_code == 2
    assert "say which" in world.run("delete", "pods").stderr
