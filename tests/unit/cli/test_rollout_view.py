"""What a person reads while and after replicas change."""

import asyncio
import io
import sys

import pytest
from msgspec.structs import replace

from korch.cli.live import Lines
from korch.cli.rollout_view import follow
from korch.client.base import Outcome, Progress
from korch.client.declare import Declared
from korch.resources.workload import Deployment

from .world import FakeClient, World, a_deployment


class Waiting(FakeClient):
    """A client whose wait ends well at once."""

    async def converge(self, workloads: list[object], **_: object) -> tuple[Outcome, ...]:
        return tuple(Outcome(workload, changed=True) for workload in workloads)  # type: ignore[arg-type]


def followed(world: World, meant: Deployment) -> bool:
    async def act() -> bool:
        client = Waiting(world, (await world.open_client(None)).store)  # type: ignore[arg-type]
        try:
            return await follow(client, [Declared(meant, "configured")], 10)  # type: ignore[arg-type]
        finally:
            await client.close()

    return asyncio.run(act())


def with_image(deployment: Deployment, image: str) -> Deployment:
    spec = deployment.spec.template.spec
    changed = replace(spec, containers=(replace(spec.containers[0], image=image),))
    return replace(
        deployment, spec=replace(deployment.spec, template=replace(deployment.spec.template, spec=changed), replicas=9)
    )


def test_a_wish_that_came_true_is_done(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put(a_deployment("web", 3))
    assert followed(world, world.read(Deployment, "web"))
    assert capsys.readouterr().err == ""


def test_another_number_of_replicas_is_no_other_version(world: World) -> None:
    world.put(a_deployment("web", 3))
    meant = world.read(Deployment, "web")
    assert followed(world, replace(meant, spec=replace(meant.spec, replicas=9)))


def test_a_wish_that_another_one_replaced_is_not_done(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put(a_deployment("web", 3))
    assert not followed(world, with_image(world.read(Deployment, "web"), "web:2"))
    assert '"web": another command changed it meanwhile' in capsys.readouterr().err


def test_a_wish_that_was_deleted_meanwhile_is_not_done(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert not followed(world, a_deployment("web"))
    assert "another command deleted it meanwhile" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_marks_differ_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    phases = ("ready", "failed", "waiting", "gone", "pulling")
    for phase in phases:
        Lines().show(Progress("web", "p", "n1", phase, ""))  # type: ignore[arg-type]
    sys.stdout.flush()
    marks = [line.split()[0] for line in raw.getvalue().decode(encoding).splitlines()]
    assert len(set(marks)) == len(phases)
