"""What a person reads while and after replicas change."""

import asyncio
import io
import sys
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console
from rich.live import Live

from korch.cli.live import Board, Lines, rows_that_fit
from korch.cli.rollout_view import addresses, carry_out, follow
from korch.client.base import Outcome, Progress, Workload
from korch.client.declare import Declared
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, ContainerPort, ContainerStatus, HTTPGetAction, Pod, PodSpec, PodStatus, Probe
from korch.resources.workload import Deployment
from tests.unit.client.test_declare import FakeClient as FakeObjects
from tests.unit.client.test_declare import app
from tests.unit.nodes.virtual_loop import run_virtually

from .world import FakeClient, World, a_deployment

WEB = Workload("default", "web")


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


@pytest.mark.parametrize(("pull_s", "left_s"), [(1.0, 60), (20.0, 40.0)])
def test_the_time_for_the_first_pull_is_part_of_the_time(
    capsys: pytest.CaptureFixture[str], pull_s: float, left_s: float
) -> None:
    class Slow(FakeObjects):
        async def resolve_image(self, image: str, **more: Any) -> str:
            more["on_asking"]("n1")
            await asyncio.sleep(pull_s)
            return f"{image}@sha256:1"

        async def converge(self, workloads: Any, *, timeout_s: float, **_: Any) -> tuple[Outcome, ...]:
            assert timeout_s == left_s
            return tuple(Outcome(workload, changed=True) for workload in workloads)

    async def body() -> None:
        assert await carry_out(Slow(), [app()], 60, wait=True)  # type: ignore[arg-type]

    run_virtually(body)
    note = "asking n1 for image web:1: pulling ...\n"
    assert capsys.readouterr().err == (note if pull_s > 2 else "")


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
        Lines().show(Progress(WEB, "p", "n1", phase))
    sys.stdout.flush()
    marks = [line.split()[0] for line in raw.getvalue().decode(encoding).splitlines()]
    assert len(set(marks)) == len(phases)


def drawn(phases: list[str], *, height: int, encoding: str = "utf-8") -> str:
    """What a terminal shows after one step of each phase."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=80, height=height, force_terminal=True, highlight=False, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        board = Board(live)
        for number, phase in enumerate(phases):
            board.show(Progress(WEB, f"p{number}", "n1", phase, "[bold]why" if phase == "failed" else ""))
        live.refresh()
    file.flush()
    return raw.getvalue().decode(encoding)


def test_a_terminal_shows_one_row_a_replica() -> None:
    text = drawn(["pulling", "ready", "failed"], height=20)
    for words in ("·  p0  n1  pulling", "✓  p1  n1  ready", "✗  p2  n1  failed   [bold]why"):
        assert words in text


def test_an_ascii_terminal_gets_ascii_marks() -> None:
    assert "+  p0  n1  ready" in drawn(["ready"], height=20, encoding="ascii")


def test_a_low_terminal_shows_the_replicas_at_work() -> None:
    steps = [Progress(WEB, f"p{number}", "n1", "ready") for number in range(8)]
    steps += [Progress(WEB, f"p{number}", "n1", "pulling") for number in range(8, 11)]
    shown, others = rows_that_fit(steps, 6)
    assert [step.pod for step in shown] == ["p0", "p1", "p8", "p9", "p10"]
    assert others == "and 6 more: 6 ready"
    assert rows_that_fit(steps, 11) == (steps, "")
    assert len(rows_that_fit(steps, -2)[0]) == 1
    assert "p10" in drawn(["ready"] * 10 + ["pulling"], height=9)


def reached(*ports: ContainerPort, node: str = "10.0.0.5", probe: HTTPGetAction | None = None) -> tuple[str, ...]:
    readiness = None if probe is None else Probe(http_get=probe)
    named = tuple(ContainerPort(container_port=port.container_port, name=port.name) for port in ports)
    container = Container(name="c", ports=named, readiness_probe=readiness)
    published = tuple(replace(port, protocol=port.protocol or "TCP") for port in ports)
    statuses = (ContainerStatus(name="c", published=published),)
    status = PodStatus(host_ip=node, container_statuses=statuses)
    return addresses(Pod(metadata=ObjectMeta(name="p"), spec=PodSpec(containers=(container,)), status=status))


def port(inside: int, outside: int = 30000, **more: str) -> ContainerPort:
    return ContainerPort(container_port=inside, host_port=outside, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (port(5432), "10.0.0.5:30000"),
        (port(8080), "http://10.0.0.5:30000"),
        (port(3000), "http://10.0.0.5:30000"),
        (port(9000), "10.0.0.5:30000"),
        (port(5000, 80), "http://10.0.0.5:80"),
        (port(443), "https://10.0.0.5:30000"),
        (port(53, protocol="UDP"), "10.0.0.5:30000/udp"),
        (port(8080, host_ip="0.0.0.0"), "http://10.0.0.5:30000"),
        (port(8080, host_ip="127.0.0.1"), "http://127.0.0.1:30000"),
    ],
)
def test_only_what_speaks_http_is_a_link(of: ContainerPort, expected: str) -> None:
    assert reached(of) == (expected,)


def test_a_check_by_http_says_what_a_port_speaks() -> None:
    assert reached(port(5432), probe=HTTPGetAction(port=5432)) == ("http://10.0.0.5:30000",)
    assert reached(port(9090), port(5432, name="x"), probe=HTTPGetAction(port="x", scheme="HTTPS")) == (
        "10.0.0.5:30000",
        "https://10.0.0.5:30000",
    )


def test_an_ipv6_address_is_in_brackets() -> None:
    assert reached(port(8080, host_ip="::"), node="fd00::5") == ("http://[fd00::5]:30000",)
    assert reached(port(5432), node="fd00::5") == ("[fd00::5]:30000",)
