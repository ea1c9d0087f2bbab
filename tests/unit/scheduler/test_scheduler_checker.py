"""The independent checker objects to what is wrong: a judge that never objects would prove nothing."""

from typing import Any

import pytest

from benchmarks.checker import problems
from korch.resources.pod import Pod
from tests.unit.scheduler.world import (
    GI,
    MI,
    NOW,
    ZONE,
    apart,
    load,
    near,
    node,
    on_nodes,
    pod,
    spread,
)

PLAIN = pod("new")


@pytest.mark.parametrize(
    ("one", "wanted", "running", "sample", "word"),
    [
        ({"state": "Unreachable"}, PLAIN, [], {}, "not ready"),
        ({"state": "AddressUnknown"}, pod("new", ports=["80"]), [], {}, "not ready"),
        ({"pressure": "DiskPressure"}, PLAIN, [], {}, "pressure"),
        ({"cordoned": True}, PLAIN, [], {}, "cordoned"),
        ({"taints": ["x:NoExecute"]}, PLAIN, [], {}, "taint x"),
        ({}, pod("new", node_selector={"a": "b"}), [], {}, "node selector"),
        ({}, pod("new", affinity=on_nodes("a", "Exists")), [], {}, "node affinity"),
        ({"arch": "arm64"}, pod("new", annotations={"korch.dev/arch": "amd64"}), [], {}, "architecture"),
        ({}, PLAIN, [], {"age_s": 301}, "stale"),
        ({}, PLAIN, [], {"disk_free": MI}, "disk"),
        ({}, pod("new", image="large:1"), [], {}, "disk for the image"),
        ({"pods": 1}, PLAIN, [pod("old", on="a")], {}, "pods"),
        ({}, pod("new", cpu="1"), [pod("old", on="a", cpu="3001m")], {}, "cpu"),
        ({}, pod("new", memory="1Gi"), [pod("old", on="a", memory="3073Mi")], {}, "memory"),
        ({}, pod("new", memory="1Gi"), [], {"free": GI - 1}, "real memory"),
        (
            {},
            pod("new", memory="1Gi"),
            [pod("old", on="a", memory="1Gi", started_s_ago=2)],
            {"free": GI},
            "real memory",
        ),
        ({}, pod("new", ports=["80"]), [pod("old", on="a", ports=["10.0.0.1:80"])], {}, "port 80"),
        ({}, pod("new", affinity=apart()), [pod("old", on="a")], {}, "anti-affinity"),
        ({}, PLAIN, [pod("old", on="a", affinity=apart())], {}, "anti-affinity of another"),
        ({}, pod("new", affinity=near("db")), [], {}, "affinity"),
        ({}, pod("new", volumes=["data"]), [pod("old", on="b", volumes=["data"])], {}, "volume data"),
        ({}, pod("new", topology_spread_constraints=spread(1)), [pod("old", on="a")], {}, "spread"),
    ],
)
def test_objects(one: dict[str, Any], wanted: Pod, running: list[Pod], sample: dict[str, Any], word: str) -> None:
    nodes = [node("a", zone="a", **one), node("b", zone="b", images=["large:1"], image_bytes=50 * GI)]
    loads = {"a": load(**sample), "b": load()}
    assert problems(nodes, loads, running, [(wanted, "a")], NOW) == [f"new on a: {word}"]


def test_replays_in_order_and_looks_at_pending_pods() -> None:
    nodes, loads = [node("a"), node("b")], {"a": load(), "b": load()}
    big = [pod(f"p{n}", cpu="3") for n in range(3)]
    assert problems(nodes, loads, [], [(big[0], "a"), (big[1], "b"), (big[2], None)], NOW, look_at_pending=1) == []
    assert problems(nodes, loads, [], [(big[0], "a"), (big[1], "a")], NOW) == ["p1 on a: cpu"]
    assert problems(nodes, loads, [], [(big[0], None)], NOW, look_at_pending=1) == ["p0 is pending, a could take it"]
    limited = problems(nodes, loads, [], [(PLAIN, "a")], NOW, allowed=frozenset({"b"}))
    assert limited == ["new on a: not allowed"]


def test_zones_are_domains_too() -> None:
    nodes, loads = [node("a", zone="z"), node("b", zone="z")], {"a": load(), "b": load()}
    wanted = pod("new", affinity=apart("web", ZONE))
    assert problems(nodes, loads, [pod("old", on="b")], [(wanted, "a")], NOW) == ["new on a: anti-affinity"]
