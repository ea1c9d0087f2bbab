"""`korch rollout`: history, undo, restart, status."""

import yaml
from msgspec.structs import replace

from korch.client.base import Workload
from korch.controllers.deployment import set_from
from korch.errors import ForbiddenError
from korch.resources.annotations import COMPLETED, FAILED_REVISION
from korch.resources.codec import with_meta
from korch.resources.templates import TEMPLATE_HASH_LABEL, template_hash
from korch.resources.workload import Deployment, PodTemplateSpec, ReplicaSet
from tests.unit.cli.world import World, a_deployment, ago


def template(image: str) -> PodTemplateSpec:
    found = a_deployment("web").spec.template
    main = replace(found.spec.containers[0], image=image)
    return replace(found, spec=replace(found.spec, containers=(main,)))


def wish(image: str) -> Deployment:
    found = a_deployment("web")
    return replace(found, spec=replace(found.spec, template=template(image)))


def revision(number: int, image: str, *, ran: bool = True, replicas: int = 0) -> ReplicaSet:
    made = set_from(wish(image), number)
    notes = {**made.metadata.annotations, **({COMPLETED: "true"} if ran else {})}
    named = with_meta(made, annotations=notes, uid=f"set-{number}", creation_timestamp=ago(60))
    return replace(named, spec=replace(named.spec, replicas=replicas))


def three(world: World, **annotations: str) -> None:
    now = wish("web:3")
    world.put(
        with_meta(now, annotations=annotations),
        revision(1, "web:1"),
        revision(2, "web:2", ran=False),
        revision(3, "web:3", replicas=3),
    )


def image_of(world: World) -> str:
    return world.read(Deployment, "web").spec.template.spec.containers[0].image


def test_history_shows_what_ran_well(world: World) -> None:
    three(world)
    lines = world.run("rollout", "history", "web").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["1", "yes"], ["2", "never"], ["3", "yes"]]


def test_undo_goes_to_the_last_that_ran_well(world: World) -> None:
    three(world)
    result = world.run("rollout", "undo", "web")
    assert "goes back to revision 1" in result.stdout
    assert image_of(world) == "web:1"
    assert world.converged == [(Workload("default", "web"),)]


def test_undo_to_one_that_failed_tries_it_again(world: World) -> None:
    three(world, **{FAILED_REVISION: template_hash(template("web:2"))})
    assert world.run("rollout", "undo", "deploy/web", "--to-revision", "2").exit_code == 0
    assert image_of(world) == "web:2"
    assert FAILED_REVISION not in world.read(Deployment, "web").metadata.annotations


def test_undo_names_what_there_is(world: World) -> None:
    three(world)
    result = world.run("rollout", "undo", "web", "--to-revision", "9")
    assert result.exit_code == 4
    assert "It has: 1, 2, 3." in result.stderr
    world.put(a_deployment("new"))
    assert "no earlier revision" in world.run("rollout", "undo", "new").stderr


def test_restart_makes_another_template_of_the_same_image(world: World) -> None:
    three(world)
    before = template_hash(world.read(Deployment, "web").spec.template)
    assert world.run("rollout", "restart", "web").exit_code == 0
    assert image_of(world) == "web:3"
    assert template_hash(world.read(Deployment, "web").spec.template) != before


def test_status_of_a_wish_that_is_not_true(world: World) -> None:
    three(world)
    result = world.run("rollout", "status", "web")
    assert result.exit_code == 9
    assert "1 of 3 replicas are up to date, 2 are available" in result.stdout


def test_pause_and_resume(world: World) -> None:
    three(world)
    assert "deployment/web paused" in world.run("rollout", "pause", "web").stdout
    assert world.read(Deployment, "web").spec.paused
    assert "is paused already" in world.run("rollout", "pause", "deploy/web").stdout
    for command in ("undo", "restart"):
        result = world.run("rollout", command, "web")
        assert result.exit_code == ForbiddenError.exit_code
        assert "korch rollout resume web" in result.stderr
    assert world.converged == []
    assert "deployment/web resumed" in world.run("rollout", "resume", "web").stdout
    assert not world.read(Deployment, "web").spec.paused
    assert world.converged == [(Workload("default", "web"),)]
    assert "is not paused" in world.run("rollout", "resume", "web").stdout


def test_history_shows_one_revision_in_full(world: World) -> None:
    three(world)
    found = yaml.safe_load(world.run("rollout", "history", "web", "--revision", "2").stdout)
    assert found["spec"]["containers"][0]["image"] == "web:2"
    assert TEMPLATE_HASH_LABEL not in found["metadata"]["labels"]
    assert "It has: 1, 2, 3." in world.run("rollout", "history", "web", "--revision", "7").stderr
