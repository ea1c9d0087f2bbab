"""What the doctor's findings mean."""

import re
from pathlib import Path

import pytest

import korch.nodes
from korch.client.base import Check
from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer
from korch.engines.wish import PublishedPort
from korch.errors import AuthFailedError, HostKeyUnknownError, HostUnreachableError, KorchError, NoCommonAlgorithmError
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
        (NoCommonAlgorithmError("old", host="n1", hint="x"), [("reachable", "ok"), ("algorithms", "fail")]),
        (AuthFailedError("no", host="n1", hint="x"), [("reachable", "ok"), ("host key", "ok"), ("login", "fail")]),
    ],
    ids=["in order", "no answer", "unknown key", "nothing in common", "no login"],
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


# What is not built into a shell and a script might call.
KNOWN = frozenset(
    re.findall(
        r"\w+",
        """
        awk base64 basename bunzip2 bzip2 cat chgrp chmod chown chroot cksum cmp comm cp curl cut date dd df diff
        dirname dmesg du env expand expr factor fallocate file find flock fold free fsync fuser getconf getent
        gpg grep gunzip gzip head hexdump host hostid hostname iconv id install ionice ip ipcs jq join kill
        killall last less link ln locale logger login logname ls lsof lsblk md5sum mkdir mkfifo mknod mktemp
        modprobe more mount mountpoint mv nc nice nl nohup nproc nsenter nslookup od openssl passwd paste patch
        pathchk pgrep pidof ping pkill printenv ps pv python python3 readlink realpath renice reset rm rmdir
        rsync runuser script sed seq setpriv setsid sha1sum sha256sum shred shuf sleep socat sort split ss stat
        strings stty sudo sum sync sysctl systemctl tac tail tar taskset tee telnet timeout top touch tr
        traceroute true truncate tsort tty uname unexpand uniq unlink unshare unxz uptime usleep users uudecode
        uuencode vmstat w wc wget which who whoami xargs xxd xz yes zcat
        """,
    )
)
NOT_NEEDED = {
    "kill": "built into every shell",
    "stat": "a file of /proc",
    "sudo": "a check of its own",
    "true": "built into every shell",
    "uptime": "a file of /proc",
    "usleep": "for a `sleep` that knows no fractions, and never alone",
}


def called_programs(script: str) -> frozenset[str]:
    """The words of a script that are names of programs; neither in comments nor in single quotes nor in sentences."""
    script = re.sub(r"(?m)(^|\s)#.*$", "", script)
    script = re.sub(r'(?:"\$korch_engine"|\bpodman|\bdocker) [a-z]+(?: [a-z]+)?', "", script)
    script = re.sub(r"""'[^']*'|"([^"]*)\"""", lambda text: text[1] if "$(" in (text[1] or "") else "", script)
    script = re.sub(r"(?m)^\s*[\w |*-]+\)", "", script)  # an arm of a case
    return KNOWN & set(re.findall(r"(?<![\w./$-])[a-z][a-z0-9]*(?![\w.=-])", script))


def test_every_program_that_the_scripts_call_is_looked_for() -> None:
    folder = Path(korch.nodes.__file__).parent / "scripts"
    called = {path.name: called_programs(path.read_text("utf-8")) for path in folder.glob("*.sh")}
    assert frozenset().union(*called.values()) - NOT_NEEDED.keys() == set(checks.PROGRAMS), called


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("x=$(tail -n 3)", {"tail"}),
        ('printf "%s" "$x" | dd of="$korch_dir/y" && sync', {"dd", "sync"}),
        ('echo "@korch x $(uname -m)"', {"uname"}),
        ('"$korch_engine" top "$x" | head; podman volume ls', {"head"}),
        ("# a tail\n[ -f x ] # and a head\n", set()),
        ("echo 'sort of' >stat.x; korch_stat=1; cat", {"cat"}),
        ('env | file) korch_fail 1 "the date is split" ;;', set()),
        ("timeout -k 2 20 ln -s a b || exec stat", {"timeout", "ln", "stat"}),
    ],
)
def test_how_called_programs_are_found(script: str, expected: set[str]) -> None:
    assert called_programs(script) == expected


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
        (sshd(maxsessions="2", maxstartups="2:50:5"), "", ["ok", "warn", "warn"]),
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
