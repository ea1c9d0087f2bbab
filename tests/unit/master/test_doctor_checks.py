"""What the doctor's findings mean."""

import pytest

from korch.client.base import Check
from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer
from korch.engines.wish import PublishedPort
from korch.errors import AuthFailedError, HostKeyUnknownError, HostUnreachableError, KorchError
from korch.master import doctor_checks as checks
from korch.nodes.facts import Facts, NodeIP
from korch.nodes.report import Claim, EngineState, NodeReport

MIB = 1024 * 1024


def report(**more: object) -> NodeReport:
    """A node in order."""
    facts = Facts(memory_total_bytes=2048 * MIB, memory_available_bytes=1500 * MIB)
    fields: dict[str, object] = {
        "host": "n1",
        "facts": facts,
        "engine": EngineState("docker", "24.0.5", "/var/lib/docker"),
        "arch": "amd64",
        "cpu_busy": None,
        "disk_total_bytes": 40_000 * MIB,
        "disk_free_bytes": 20_000 * MIB,
        "state_root": "/var/lib/korch",
        "clock_offset_s": 0.1,
    }
    return NodeReport(**(fields | more))  # type: ignore[arg-type]


def words(*found: Check) -> list[tuple[str, str]]:
    return [(check.name, check.result) for check in found]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, [("reachable", "ok"), ("host key", "ok"), ("login", "ok")]),
        (HostUnreachableError("gone", host="n1", hint="x"), [("reachable", "fail")]),
        (HostKeyUnknownError("new", host="n1", hint="x"), [("reachable", "ok"), ("host key", "fail")]),
        (AuthFailedError("no", host="n1", hint="x"), [("reachable", "ok"), ("host key", "ok"), ("login", "fail")]),
    ],
    ids=["in order", "no answer", "unknown key", "no login"],
)
def test_how_far_the_connection_came(error: KorchError | None, expected: list[tuple[str, str]]) -> None:
    assert words(*checks.contact_checks(error, "10.0.0.1 port 22", "root")) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("engine", "ok"), ("rights", "ok"), ("sudo", "ok")]),
        ({"engine": EngineState("docker", "19.03.1")}, [("engine", "warn"), ("rights", "ok"), ("sudo", "ok")]),
        ({"engine": EngineState("podman", "4.3.1")}, [("engine", "ok"), ("rights", "ok"), ("sudo", "ok")]),
        (
            {"engine": EngineState(state="EngineMissing", message="none", hint="get one")},
            [("engine", "fail"), ("sudo", "ok")],
        ),
        ({"engine": EngineState("docker", state="EngineDown", hint="start")}, [("engine", "fail"), ("sudo", "ok")]),
        (
            {"engine": EngineState("docker", state="NoPermission", hint="sudo"), "uid": 1000, "sudo": False},
            [("rights", "fail"), ("sudo", "warn")],
        ),
        ({"uid": 1000, "sudo": False}, [("engine", "ok"), ("rights", "ok"), ("sudo", "ok")]),
    ],
    ids=["root", "old docker", "podman", "missing", "down", "no rights", "in the docker group"],
)
def test_engine_rights_and_sudo(changes: dict[str, object], expected: list[tuple[str, str]]) -> None:
    found = checks.engine_checks(report(**changes), login="ann")
    assert words(*found) == expected


def test_a_look_through_sudo_is_told_as_the_user_that_logged_in() -> None:
    _, rights, sudo = checks.engine_checks(report(), login="ann", through_sudo=True)
    assert rights.detail == "ann may use it through sudo"
    assert sudo.detail == "without a password"


def test_whose_node_it_is() -> None:
    other = (Claim("x", "prod", "boss@there"),)
    assert checks.claim_check(report()).result == "ok"
    assert checks.claim_check(report(foreign_claims=other)).result == "fail"
    assert "prod" in checks.claim_check(report(foreign_claims=other, shared=True, claim=Claim("y"))).detail


@pytest.mark.parametrize(("free", "result"), [(20_000, "ok"), (3_000, "warn"), (500, "fail")])
def test_disk(free: int, result: str) -> None:
    assert checks.room_checks(report(disk_free_bytes=free * MIB))[0].result == result


@pytest.mark.parametrize(("free", "result"), [(1500, "ok"), (150, "warn"), (50, "fail")])
def test_memory(free: int, result: str) -> None:
    facts = Facts(memory_total_bytes=2048 * MIB, memory_available_bytes=free * MIB)
    assert checks.room_checks(report(facts=facts))[1].result == result


def test_room_that_is_not_known_is_no_failure() -> None:
    found = checks.room_checks(report(disk_total_bytes=0, disk_free_bytes=0, facts=Facts()))
    assert [check.result for check in found] == ["warn", "warn"]


@pytest.mark.parametrize(
    ("offset", "result", "says"),
    [(0.4, "ok", "+0.4 s"), (-7200.0, "warn", "7200 s behind"), (90.0, "warn", "90 s ahead"), (None, "warn", "known")],
)
def test_clock(offset: float | None, result: str, says: str) -> None:
    check = checks.clock_check(report(clock_offset_s=offset))
    assert (check.result, says in check.detail) == (result, True)


def test_programs() -> None:
    assert checks.program_checks(()).result == "ok"
    assert checks.program_checks(("flock",)).result == "warn"
    found = checks.program_checks(("flock", "timeout"))
    assert (found.result, found.detail) == ("fail", "timeout: not there")


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("v2 cpuset cpu io memory pids", "ok"),
        ("v1 cpu memory", "ok"),
        ("v1 cpu", "warn"),
        ("v2 memory", "warn"),
        ("", "warn"),
    ],
)
def test_cgroups(text: str, result: str) -> None:
    assert checks.cgroup_check(text).result == result


def sshd(**more: str) -> dict[str, str]:
    return {"maxsessions": "10", "maxstartups": "10:30:100", "allowtcpforwarding": "yes"} | more


@pytest.mark.parametrize(
    ("settings", "forwarding", "expected"),
    [
        (sshd(), "", ["ok", "ok", "ok"]),
        (None, "", ["ok", "ok"]),
        (sshd(allowtcpforwarding="no"), "forbidden", ["warn", "ok", "ok"]),
        (sshd(), "no answer for 5 s", ["warn", "ok", "ok"]),
        (sshd(maxsessions="1"), "", ["ok", "fail", "ok"]),
        (sshd(maxsessions="2", maxstartups="2:50:5"), "", ["ok", "fail", "warn"]),
    ],
    ids=["in order", "not readable", "no forwarding", "odd", "one session", "few of all"],
)
def test_sshd(settings: dict[str, str] | None, forwarding: str, expected: list[str]) -> None:
    assert [check.result for check in checks.sshd_checks(settings, forwarding)] == expected


def test_ports_taken_by_something_else() -> None:
    mine = ObservedContainer(
        id="1",
        name="x",
        image="",
        image_id="",
        state="running",
        identity=Identity("c1", "default", "web-1", "u", "web"),
        ports=(PublishedPort(80, 8080),),
    )
    there = report(containers=(mine,), listening_tcp=(22, 8080, 9000))
    assert checks.port_check({8080: "web"}, there, "c1").result == "ok"
    taken = checks.port_check({8080: "web", 9000: "api"}, there, "c1")
    assert (taken.result, taken.detail) == ("warn", "taken by something else: 9000 (api)")
    assert checks.port_check({8080: "web"}, there, "c2").result == "warn", "another cluster's container"


LAN = NodeIP("192.168.1.7", "eth1")
NAT = NodeIP("10.0.2.15", "eth0", default_route=True)


@pytest.mark.parametrize(
    ("addresses", "chosen", "given", "result"),
    [
        ((LAN,), "192.168.1.7", False, "ok"),
        ((NAT, LAN), "192.168.1.7", False, "ok"),
        ((NAT,), "10.0.2.15", False, "warn"),
        ((NAT, LAN, NodeIP("192.168.2.7", "eth2")), None, False, "fail"),
        ((LAN,), "192.168.9.9", True, "fail"),
        ((NAT, LAN), "10.0.2.15", True, "ok"),
    ],
    ids=["one", "vagrant", "nat only", "not clear", "wrong korch_address", "told so"],
)
def test_interfaces(addresses: tuple[NodeIP, ...], chosen: str | None, given: bool, result: str) -> None:
    check = checks.interface_check(addresses, chosen, given=given)
    assert check.result == result
    assert (result == "ok") == (check.cure == "")


@pytest.mark.parametrize(
    ("address", "answers", "result"),
    [
        ("10.0.0.1", {"n2": "", "n3": ""}, "ok"),
        ("10.0.0.1", {}, "ok"),
        ("10.0.0.1", {"n2": "", "n3": "no answer"}, "warn"),
        ("10.0.0.1", {"n2": "no answer", "n3": "no answer"}, "fail"),
        (None, {}, "fail"),
    ],
    ids=["reached", "alone", "by some", "by none", "unknown"],
)
def test_the_address_that_others_reach(address: str | None, answers: dict[str, str], result: str) -> None:
    assert checks.address_check(address, answers).result == result


def test_an_address_that_two_nodes_claim() -> None:
    check = checks.address_check("10.0.0.1", {"n2": ""}, ("n3",))
    assert (check.result, check.detail) == ("fail", "10.0.0.1 is also the address of n3")
