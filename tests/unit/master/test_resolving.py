"""Which nodes are asked for an image: those that may run the workload, and no others are made to pull."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from korch.errors import CommandFailedError, RolloutFailedError
from korch.master.hosting import may_run
from korch.master.local import LocalClient
from korch.resources.codec import with_meta
from korch.resources.meta import LabelSelector, Object, ObjectMeta
from korch.resources.node import Node, NodeSpec, Taint
from korch.resources.pod import Container, Pod, PodSpec, Toleration
from korch.resources.workload import DaemonSet, DaemonSetSpec, PodTemplateSpec
from tests.unit.controllers.cluster import deployment
from tests.unit.master.fleet_world import Box, BoxFleet, a_cluster

TAINT = Taint(key="a", value="b", effect="NoSchedule")


def web(**spec: Any) -> Object:
    found = deployment("web:1", 1)
    template = replace(found.spec.template, spec=PodSpec(containers=(Container(name="c", image="web:1"),), **spec))
    return replace(found, spec=replace(found.spec, template=template))


def resolve(folder: Path, boxes: Sequence[Box], *, of: Object, limit: str = "", nodes: Sequence[Node] = ()) -> str:
    async def main() -> str:
        cluster = a_cluster(folder, [box.name for box in boxes], limit=limit)
        for node in nodes:
            await cluster.objects.restore(node)
        client = LocalClient(cluster, BoxFleet(cluster, {box.name: box for box in boxes}))
        return await client.resolve_image("web:1", of=of)

    return asyncio.run(main())


def boxes(count: int = 4) -> list[Box]:
    return [Box(f"n{number}", f"t{number}") for number in range(1, count + 1)]


def asked(found: Sequence[Box]) -> list[str]:
    return [box.name for box in found if box.asked]


def a_node(name: str, **spec: Any) -> Node:
    return Node(metadata=ObjectMeta(name=name, labels={"disk": "ssd"} if name == "n3" else {}), spec=NodeSpec(**spec))


def test_a_node_outside_the_limit_is_left_alone(tmp_path: Path) -> None:
    found = boxes()
    assert resolve(tmp_path, found, of=web(), limit="n3") == "web:1@sha256:1"
    assert asked(found) == ["n3"]


@pytest.mark.parametrize(
    ("closed", "spec"),
    [
        ({"unschedulable": True}, {}),
        ({"taints": (TAINT,)}, {}),
        ({}, {"node_selector": {"disk": "ssd"}}),
    ],
)
def test_so_is_one_that_may_not_run_it(tmp_path: Path, closed: dict[str, Any], spec: dict[str, Any]) -> None:
    found = boxes(3)
    nodes = [a_node("n1", **closed), a_node("n2", **closed), a_node("n3")]
    assert resolve(tmp_path, found, of=web(**spec), nodes=nodes) == "web:1@sha256:1"
    assert asked(found) == ["n3"]


def test_so_is_one_with_a_full_disk(tmp_path: Path) -> None:
    found = boxes(2)
    found[0].disk_free_bytes = 1
    assert resolve(tmp_path, found, of=web()) == "web:1@sha256:1"
    assert asked(found) == ["n2"]


def test_nodes_that_it_may_not_use_do_not_make_it_fail(tmp_path: Path) -> None:
    found = boxes()
    for box in found[:3]:
        box.no_registry = True
    assert resolve(tmp_path, found, of=web(), limit="n4") == "web:1@sha256:1"
    with pytest.raises(CommandFailedError, match="n1: no route to the registry"):
        resolve(tmp_path, found, of=web())


def test_when_none_may_run_it_what_nodes_hold_counts_and_nothing_is_pulled(tmp_path: Path) -> None:
    found = boxes(2)
    nodes = [a_node("n1", unschedulable=True), a_node("n2", unschedulable=True)]
    with pytest.raises(RolloutFailedError, match=r"0/2 nodes: 2 cordoned"):
        resolve(tmp_path, found, of=web(), nodes=nodes)
    found[1].images.add("web:1")
    assert resolve(tmp_path, found, of=web(), nodes=nodes) == "web:1@sha256:1"
    assert {question for box in found for question in box.asked} == {"web:1 Never"}


def test_who_tolerates_it_may_run_there() -> None:
    closed = a_node("n1", unschedulable=True, taints=(TAINT,))
    every = (Toleration(operator="Exists"),)
    assert not may_run(web(), closed)
    assert may_run(web(tolerations=every), closed)
    template = PodTemplateSpec(spec=PodSpec(containers=(Container(name="c", image="web:1"),)))
    daemon = DaemonSet(spec=DaemonSetSpec(selector=LabelSelector(match_labels={"a": "b"}), template=template))
    assert may_run(daemon, a_node("n1", unschedulable=True))
    one = Pod(metadata=ObjectMeta(name="p"), spec=PodSpec(node_name="n1"))
    assert may_run(one, closed)
    assert not may_run(one, with_meta(closed, name="n2"))
