"""`korch top`: the busiest first, against what was asked for; what is not known is told."""

import pytest

from korch.cli.top_view import bar_text, sparkline
from korch.client.base import ContainerUsage, NodeSeen, NodeUsage
from korch.errors import EngineMissingError, HostUnreachableError
from korch.resources.pod import Container, Pod, PodSpec, ResourceRequirements

from .world import World, a_load, a_node, a_pod

MIB = 2**20


def hungry(name: str, **limits: str) -> Pod:
    resources = ResourceRequirements(requests=dict(limits), limits={"memory": "64Mi"} if limits else {})
    return a_pod(name, spec=PodSpec(containers=(Container(name="app", resources=resources),), node_name="n1"))


def cells(text: str) -> list[list[str]]:
    return [line.split("   ") for line in text.splitlines()]


def test_pods_by_cpu_against_their_bounds(world: World) -> None:
    world.put(hungry("a", cpu="250m", memory="32Mi"), hungry("b"), hungry("c"))
    world.usage = [
        NodeUsage(
            "n1",
            (
                ContainerUsage("uid-default-a", "app", 125, 16 * MIB),
                ContainerUsage("uid-default-b", "app", 900, 5 * MIB),
            ),
        ),
        NodeUsage("n2", error=EngineMissingError("n2: neither docker nor podman was found", host="n2", hint="")),
    ]
    lines = [" ".join(line.split()) for line in world.run("top", "pods").stdout.splitlines()]
    assert lines[1:4] == [
        "b n1 900m – – 5Mi – –",
        "a n1 125m 50% of 250m – 16Mi 50% of 32Mi 25% of 64Mi",
        "c n1 – – – – – –",
    ]
    assert lines[4] == "n2 could not be asked: neither docker nor podman was found"
    by_memory = world.run("top", "pods", "--sort", "memory").stdout.splitlines()
    assert [line.split()[0] for line in by_memory[1:4]] == ["a", "b", "c"]
    assert [line.split()[0] for line in world.run("top", "pods", "b").stdout.splitlines()[1:2]] == ["b"]
    assert "No pods run." in world.run("top", "pods", "-n", "other").stdout


def test_nodes_by_load_with_what_they_were_lately(world: World) -> None:
    silent = HostUnreachableError("n3: no route to host", host="n3", hint="Look at its power.")
    world.seen = [
        NodeSeen(a_node("n1"), a_load("n1", cpu_busy=0.1)),
        NodeSeen(a_node("n2"), a_load("n2", cpu_busy=0.8)),
        NodeSeen(a_node("n3"), None, silent),
    ]
    world.history = {"n2": ({"cpu": 0.0}, {"cpu": 1.0, "load1": 3.0}, {"load1": 1.0})}
    out = world.run("top", "nodes").stdout
    rows = out.splitlines()
    assert [row.split()[0] for row in rows[1:4]] == ["n2", "n1", "n3"]
    assert "▁█" in rows[1] or "_@" in rows[1]
    assert "80%" in rows[1]
    assert "n3: HostUnreachable" in out or "n3: Unreachable" in out
    assert "no route to host" in out


@pytest.mark.parametrize(("fancy", "line"), [(True, "▁▅█"), (False, "_+@")])
def test_a_character_a_sample(fancy: bool, line: str) -> None:
    assert sparkline([-1.0, 0.5, 7.0], fancy=fancy) == line
    assert sparkline([], fancy=fancy) == ""


def test_bars() -> None:
    assert bar_text(0.42, fancy=False) == "####......  42%"
    assert bar_text(None, fancy=True) == "–"
