"""`korch status`: who leads, what is wrong and since when; from the store alone."""

import json
import re
from typing import Any

from msgspec.structs import replace as changed

from korch.client.base import ClusterInfo, MasterSeen
from korch.resources.annotations import EVICT, EVICT_WHY
from korch.resources.codec import with_meta
from korch.resources.meta import Condition, ObjectReference
from korch.resources.misc import Event
from korch.resources.pod import Pod, PodStatus
from korch.resources.templates import TEMPLATE_HASH_LABEL
from korch.resources.workload import Deployment, DeploymentStatus

from .world import World, a_load, a_node, a_pod, a_workload, ago, meta


def hashed(obj: Any) -> Any:
    """With the label that tells the deployment of a pod."""
    return with_meta(obj, labels={TEMPLATE_HASH_LABEL: "bcdfg"}) if isinstance(obj, Pod) else obj


def well(name: str, pods: int) -> list[Any]:
    """A workload that is as wished."""
    app, *others = a_workload(name, pods)
    assert isinstance(app, Deployment)
    done = Condition(type="Progressing", status="True", reason="NewReplicaSetAvailable")
    status = DeploymentStatus(available_replicas=pods, conditions=(done,))
    return [changed(app, status=status), *map(hashed, others)]


def led(world: World, doing: str) -> None:
    world.info = ClusterInfo("id", "default", (), "2026-01-01T00:00:00Z", "host/1/abc", doing)


def test_all_is_well_in_few_lines(world: World) -> None:
    led(world, "master")
    world.put(a_node("n1"), a_node("n2"), *well("web", 2))
    result = world.run("status", "--check")
    assert result.exit_code == 0, result.stdout
    assert result.stdout.splitlines()[0] == "Cluster default: led by the master host/1/abc"
    assert "Nodes: 2 Ready\n" in result.stdout
    assert "Apps: 1 as wished\n" in result.stdout
    assert "korch why" not in result.stdout
    assert world.opened[0][2] is False, "the inventory and the hosts are not needed"


def test_masters_that_wait_are_shown(world: World) -> None:
    masters = (MasterSeen("host/1/abc", True, ago(300), ago(1)), MasterSeen("host/2/def", False, ago(120), ago(1)))
    world.info = ClusterInfo("id", "default", (), "2026-01-01T00:00:00Z", "host/1/abc", "master", masters=masters)
    text = world.run("status").stdout
    assert re.search(r"Masters: host/1/abc \(leads for 5m\d*s?\), host/2/def \(waits for 2m", text)
    data = json.loads(world.run("status", "-o", "json").stdout)
    assert [one["state"] for one in data["masters"]] == ["leads", "waits"]


def test_without_a_master_the_sight_has_an_age(world: World) -> None:
    world.put(a_node("n1"), with_meta(a_load("n1", sampled_at=ago(300)), name="n1"))
    text = world.run("status").stdout
    assert "nobody leads" in text
    assert "last looked at 5m" in text
    led(world, "web")
    text = world.run("status").stdout
    assert "host/1/abc leads now, for: web" in text
    assert "last looked at" not in text


def test_what_is_wrong_is_told_with_its_time_and_fails_the_check(world: World) -> None:
    pending = changed(
        a_pod("web-bcdfg-2", node="", owner="web-bcdfg", phase="Pending", created_s=125),
        status=PodStatus(
            phase="Pending",
            conditions=(
                Condition(type="PodScheduled", status="False", reason="Unschedulable", message="0/1 nodes: 1 cordoned"),
            ),
        ),
    )
    app, found, first, _ = a_workload("web", 2)
    world.put(
        a_node("n1", state="Unreachable", message="n1: no route to host"),
        a_node("n2", cordoned=True),
        *map(hashed, (app, found, first, pending)),
    )
    result = world.run("status", "--check")
    assert result.exit_code == 9
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "Nodes: 1 Unreachable, 1 Cordoned" in lines
    assert lines[-1] == "What such a word means, and what to do: korch why Unreachable"
    assert "n1 Unreachable 61m no route to host" in lines
    assert "n2 Cordoned takes no new pods: korch node uncordon n2" in lines
    (row,) = [line for line in lines if line.startswith("web ")]
    assert re.match(r"web 1/2 2m\d+s ", row)
    assert "1 cordoned" in row


def test_pods_that_are_to_leave_and_late_warnings(world: World) -> None:
    warning = Event(
        metadata=meta("e1"),
        involved_object=ObjectReference(kind="Pod", name="web-1"),
        type="Warning",
        reason="BackOff",
        message="it dies\nagain and again",
        last_timestamp=ago(90),
    )
    objects = well("web", 1)
    pod = objects[-1]
    assert isinstance(pod, Pod)
    objects[-1] = with_meta(pod, annotations={EVICT: "start-first", EVICT_WHY: "drain"})
    old = changed(with_meta(warning, name="e2"), last_timestamp=ago(9000), reason="Old")
    world.put(a_node("n1"), *objects, warning, old)
    text = world.run("status").stdout
    assert "web-bcdfg-1   leaves n1   drain: its successor is about to be made" in text
    assert "pod/web-1" in text
    assert "it dies ..." in text
    assert text.endswith("what to do: korch why BackOff\n")
    assert "Old" not in text
    data = json.loads(world.run("status", "-o", "json").stdout)
    assert data["healthy"] is False
    assert data["moves"][0]["state"] == "leaves n1"


def test_an_empty_cluster_says_what_to_do(world: World) -> None:
    text = world.run("status", "--check").stdout
    assert "Nodes: none yet. `korch nodes` looks at the inventory." in text
    assert "`korch deploy IMAGE`" in text
    assert "never looked at" in text
