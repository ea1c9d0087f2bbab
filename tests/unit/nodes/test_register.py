"""What a look at a host makes of its Node and NodeLoad."""

import dataclasses

import msgspec.structs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.engines.images import ImageInfo, ListedImage
from korch.errors import (
    AuthFailedError,
    CommandTimeoutError,
    ConflictError,
    HostRefusedError,
    HostUnreachableError,
    MalformedError,
    NotRespondingError,
)
from korch.inventory.model import Host
from korch.nodes.errors import EngineCallError
from korch.nodes.facts import Facts
from korch.nodes.news import Sample
from korch.nodes.register import (
    ENGINE_SAID,
    MAX_IMAGES,
    begins_difference,
    declared_node,
    failed_status,
    known_engine,
    load_of,
    load_of_sample,
    new_node,
    noted,
    seen_status,
    with_images,
)
from korch.nodes.report import EngineState, NodeReport
from korch.resources.node import ContainerImage, NodeStatus, Taint
from korch.resources.podstate import condition

CLUSTER = "0f1e2d3c-0000-4000-8000-000000000000"
HOST = Host(name="web_1", address="10.0.0.1", labels={"disk": "ssd"}, taints=("a=b:NoSchedule",), zone="r1")


def report(**changes: object) -> NodeReport:
    base = NodeReport(
        host="web_1",
        facts=Facts(load=(1.0, 0.5, 0.2), cpu_count=4, cpu_ticks=(10, 100), memory_total_bytes=8 << 30),
        engine=EngineState("docker", "20.10", "/var/lib/docker", said="20.10|/var/lib/docker|x86_64|[]"),
        arch="amd64",
        cpu_busy=0.5,
        disk_total_bytes=100 << 30,
        disk_free_bytes=50 << 30,
        state_root="/var/lib/korch",
        machine_token="t1",
    )
    enough = dataclasses.replace(base.facts, memory_available_bytes=6 << 30)
    return dataclasses.replace(base, facts=enough, **changes)


def test_a_node_has_a_kubernetes_name_and_remembers_the_host() -> None:
    node = new_node(HOST)
    assert node.metadata.name == "web-1"
    assert node.metadata.annotations["korch.dev/host"] == "web_1"
    assert node.metadata.labels["topology.kubernetes.io/zone"] == "r1"


def test_labels_and_taints_follow_the_inventory_and_leave_others_alone() -> None:
    from msgspec.structs import replace

    from korch.resources.codec import with_meta

    node = new_node(HOST)
    node = with_meta(node, labels={**node.metadata.labels, "mine": "yes"})
    node = replace(node, spec=replace(node.spec, taints=(*node.spec.taints, Taint(key="own", effect="NoSchedule"))))
    changed = msgspec.structs.replace(HOST, labels={"tier": "web"}, taints=(), zone=None)
    after = declared_node(changed, node)
    assert after.metadata.labels["mine"] == "yes"
    assert after.metadata.labels["tier"] == "web"
    assert "disk" not in after.metadata.labels
    assert "topology.kubernetes.io/zone" not in after.metadata.labels
    assert after.spec.taints == (Taint(key="own", effect="NoSchedule"),)
    assert declared_node(changed, after) == after


def test_reserved_resources_are_not_allocatable() -> None:
    host = msgspec.structs.replace(HOST, reserved={"cpu": "500m", "memory": "1Gi"}, max_pods=7)
    status = seen_status(new_node(host), host, report(), "10.0.0.1", 1000.0)
    assert status.allocatable["cpu"] == "3500m"
    assert status.allocatable["memory"] == str(7 << 30)
    assert status.allocatable["pods"] == "7"
    assert status.capacity["cpu"] == "4"


def test_a_quick_look_leaves_images_and_volumes_as_they_were() -> None:
    full = report(images=(ListedImage("sha256:1", ("web:1",), 5),), volumes=("default/data",))
    node = new_node(HOST)
    from msgspec.structs import replace

    node = replace(node, status=seen_status(node, HOST, full, "10.0.0.1", 1000.0))
    assert node.status.volumes_in_use == ("default/data",)
    later = seen_status(node, HOST, report(full=False), "10.0.0.1", 1001.0)
    assert later.images == node.status.images
    assert later.volumes_in_use == node.status.volumes_in_use


def test_an_image_that_came_is_known_once_and_the_list_stays_short() -> None:
    held = NodeStatus(images=tuple(ContainerImage(names=(f"old:{number}",)) for number in range(MAX_IMAGES)))
    info = ImageInfo("web@sha256:1", "1", "web@sha256:1", "amd64", 7)
    found = with_images(held, {"web@sha256:1": info, "old:3": info})
    assert found.images[0] == ContainerImage(names=("web@sha256:1",), size_bytes=7)
    assert len(found.images) == MAX_IMAGES
    assert with_images(found, {"web@sha256:1": info}) == found


def test_an_engine_is_asked_again_after_some_minutes() -> None:
    node = noted(new_node(HOST), report(), 10_000.0)
    assert known_engine(node, 10_100.0) == ("docker", "20.10|/var/lib/docker|x86_64|[]")
    assert known_engine(node, 10_000.0 + 900) is None
    assert known_engine(None, 0.0) is None
    assert noted(node, report(), 10_001.0) == node  # looks in a row write nothing
    down = report(engine=EngineState("docker", state="EngineDown", message="no answer"))
    assert ENGINE_SAID not in noted(node, down, 10_002.0).metadata.annotations


def test_what_the_engine_told_a_user_who_may_need_sudo_is_asked_again() -> None:
    node = noted(new_node(HOST), report(), 10_000.0)
    assert ENGINE_SAID in node.metadata.annotations
    assert ENGINE_SAID not in noted(node, report(uid=1000, sudo=True), 10_001.0).metadata.annotations


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (HostUnreachableError("no route", host="web_1"), "Unknown", "Unreachable"),
        (CommandTimeoutError("silent", host="web_1"), "Unknown", "Unreachable"),
        (NotRespondingError("greets", host="web_1"), "Unknown", "NotResponding"),
        (AuthFailedError("no key", host="web_1"), "False", "AuthFailed"),
        (HostRefusedError("ssh does not accept the key", host="web_1"), "False", "HostRefused"),
        (EngineCallError("it printed nothing", host="web_1"), "False", "CommandFailed"),
        (MalformedError("no ProxyJump"), "False", "Invalid"),
        (ConflictError("somebody was faster"), "False", "InternalError"),
    ],
    ids=["unreachable", "silent", "greets", "auth", "refused", "command", "options", "other"],
)
def test_states_are_told_apart(error: Exception, status: str, reason: str) -> None:
    ready = condition(failed_status(new_node(HOST), error, 1000.0).conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == (status, reason)


def test_a_full_disk_is_told_with_what_to_do() -> None:
    status = seen_status(new_node(HOST), HOST, report(disk_free_bytes=1 << 20), "10.0.0.1", 1000.0)
    found = condition(status.conditions, "DiskPressure")
    assert found is not None
    assert (found.status, found.message.startswith("web_1: 1 MiB of ")) == ("True", True)
    assert "korch prune" in found.message
    relieved = condition(seen_status(new_node(HOST), HOST, report(), "10.0.0.1", 1000.0).conditions, "DiskPressure")
    assert relieved is not None
    assert (relieved.reason, relieved.message) == ("Enough", "")


def test_without_an_address_a_node_is_ready_and_says_so() -> None:
    status = seen_status(new_node(HOST), HOST, report(), None, 1000.0)
    ready = condition(status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("True", "AddressUnknown")
    assert "korch_address" in ready.message


def test_cpu_use_is_smoothed_over_samples() -> None:
    first = load_of("web-1", report(cpu_busy=0.0), None, 1000.0)
    second = load_of("web-1", report(cpu_busy=1.0), first, 1010.0)
    third = load_of("web-1", report(cpu_busy=None), second, 1011.0)
    assert first.cpu_busy_smoothed == 0.0
    assert second.cpu_busy_smoothed == 0.4
    assert (third.cpu_busy, third.cpu_busy_smoothed) == (None, 0.4)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 200), st.integers(0, 200))
def test_smoothing_goes_by_time_and_not_by_the_number_of_looks(old: float, new: float, a: int, b: int) -> None:
    first = load_of("web-1", report(cpu_busy=old), None, 1000.0)
    between = load_of("web-1", report(cpu_busy=new), first, 1000.0 + a)
    twice = load_of("web-1", report(cpu_busy=new), between, 1000.0 + a + b)
    once = load_of("web-1", report(cpu_busy=new), first, 1000.0 + a + b)
    assert twice.cpu_busy_smoothed == pytest.approx(once.cpu_busy_smoothed, abs=0.001)


def with_facts(load1: float, ticks: tuple[int, int], **facts: object) -> NodeReport:
    """A quick look at one CPU, which measures nothing."""
    found: dict[str, object] = {"uptime_s": 1e6, "boot_id": "b1", **facts}
    told = Facts(load=(load1, 0.0, 0.0), cpu_ticks=ticks, **found)  # type: ignore[arg-type]
    return dataclasses.replace(report(cpu_busy=None), facts=told)


def test_after_a_gap_the_load_average_counts_and_not_the_mean_since_then() -> None:
    idle = load_of("web-1", with_facts(0.0, (100, 1000)), None, 0.0)
    idle = replace(idle, cpu_busy_smoothed=0.0)
    day = 86_400.0
    now_busy = load_of("web-1", with_facts(1.0, (60_100, 8_641_000)), idle, day)
    assert (now_busy.cpu_busy, now_busy.cpu_busy_smoothed) == (None, 1.0)
    was_busy = replace(idle, cpu_busy_smoothed=0.9)
    now_idle = load_of("web-1", with_facts(0.0, (100, 8_641_000)), was_busy, day)
    assert now_idle.cpu_busy_smoothed == 0.0


def test_counters_of_two_boots_are_not_mixed() -> None:
    old = replace(load_of("web-1", with_facts(0.0, (100, 1000)), None, 0.0), cpu_busy_smoothed=0.0)
    after = with_facts(0.5, (3000, 4000))
    assert load_of("web-1", after, old, 40.0).cpu_busy == pytest.approx(2900 / 3000, abs=1e-4)
    assert load_of("web-1", after, old, 40.0, boot_id="b0").cpu_busy is None
    assert load_of("web-1", with_facts(0.5, (3000, 4000), uptime_s=20.0), old, 40.0).cpu_busy is None
    sample = Sample(dataclasses.replace(after.facts, boot_id="", uptime_s=20.0))
    assert load_of_sample("web-1", sample, old, 40.0).cpu_busy is None


def test_a_sample_of_the_last_minute_begins_a_difference() -> None:
    sample = load_of("web-1", dataclasses.replace(report(), facts=Facts(cpu_ticks=(100, 1000))), None, 1000.0)
    ages = (0.0, 1.9, 2.0, 60.0, 61.0)
    assert [begins_difference(sample, 1000.0 + age) for age in ages] == [False, False, True, True, False]
    assert not begins_difference(None, 1000.0)
    unknown = load_of("web-1", dataclasses.replace(report(), facts=Facts()), None, 1000.0)
    assert not begins_difference(unknown, 1010.0)


def test_a_sessions_sample_goes_on_where_the_look_left_off() -> None:
    found = report(cpu_busy=0.5, clock_offset_s=2.0, disk_total_bytes=100, disk_free_bytes=40)
    look = load_of("web-1", dataclasses.replace(found, facts=Facts(cpu_ticks=(100, 1000))), None, 0.0)
    facts = Facts(load=(1.0, 2.0, 3.0), cpu_count=2, cpu_ticks=(500, 2000), memory_available_bytes=5)
    load = load_of_sample("web-1", Sample(facts), look, 10.0)
    assert (load.cpu_busy, load.cpu_busy_smoothed) == (0.4, 0.46)
    assert (load.load1, load.cpu_count, load.memory_available_bytes) == (1.0, 2, 5)
    assert (load.disk_total_bytes, load.disk_free_bytes, load.clock_offset_seconds) == (100, 40, 2.0)
    assert load_of_sample("web-1", Sample(facts, 200, 30), load, 20.0).disk_free_bytes == 30


def test_a_first_sample_and_one_after_a_reboot_tell_no_cpu_use() -> None:
    first = load_of_sample("web-1", Sample(Facts(cpu_ticks=(500, 2000))), None, 0.0)
    rebooted = load_of_sample("web-1", Sample(Facts(cpu_ticks=(5, 20))), first, 10.0)
    assert (first.cpu_busy, rebooted.cpu_busy) == (None, None)
