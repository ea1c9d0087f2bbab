import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.inventory.model import Host
from korch.nodes.answer import parse_answer
from korch.nodes.facts import Facts, NodeIP, cpu_busy, listening_ports, parse_facts, parse_ticks
from korch.nodes.report import (
    Claim,
    NodeReport,
    choose_address,
    claim_text,
    parse_claim,
    parse_clock,
    parse_report,
)

STAT = ("cpu  100 0 50 800 50 0 0 0 0 0", "cpu0 50 0 25 400 25 0 0 0 0 0", "cpu1 50 0 25 400 25 0 0 0 0 0")
TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
Local:
     +-- 10.0.2.0/24 2 0 2
           |-- 10.0.2.0
              /24 link UNICAST
           |-- 10.0.2.15
              /32 host LOCAL
           |-- 10.0.2.255
              /32 link BROADCAST
        |-- 192.168.56.11
           /32 host LOCAL
        |-- 172.17.0.1
           /32 host LOCAL
        |-- 169.254.1.1
           /32 host LOCAL
        |-- 10.0.2.15
           /32 host LOCAL"""
ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0202000A	0003	0	0	100	00000000	0	0	0
eth1	00000000	0202000A	0003	0	0	200	00000000	0	0	0
eth0	0002000A	00000000	0001	0	0	100	00FFFFFF	0	0	0
eth1	0038A8C0	00000000	0001	0	0	101	00FFFFFF	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0"""
FILES = {
    "/proc/loadavg": ("0.50 0.25 0.10 1/100 999",),
    "/proc/stat": STAT,
    "/proc/uptime": ("1000.50 900.00",),
    "/proc/meminfo": ("MemTotal:  2048 kB", "MemFree:  100 kB", "MemAvailable:  1024 kB"),
    "/proc/pressure/cpu": ("some avg10=12.50 avg60=1.00 avg300=0.00 total=1", "full avg10=50.00 avg60=0 total=0"),
    "/etc/os-release": ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"', "ID=debian"),
    "/proc/sys/kernel/hostname": ("node1",),
    "/proc/sys/kernel/osrelease": ("6.1.0",),
    "/proc/net/route": tuple(ROUTES.split("\n")),
    "/proc/net/fib_trie": tuple(TRIE.split("\n")),
    "/proc/net/if_inet6": (
        "fd000000000000000000000000000011 03 40 00 80 eth1",
        "fe800000000000000000000000000011 03 40 20 80 eth1",
        "00000000000000000000000000000001 01 80 10 80 lo",
    ),
}
LINES = tuple(f"{path}:{line}" for path, lines in FILES.items() for line in lines)
VAGRANT = (
    NodeIP("10.0.2.15", "eth0", True),
    NodeIP("172.17.0.1", "docker0"),
    NodeIP("192.168.56.11", "eth1"),
    NodeIP("fd00::11", "eth1"),
)


def test_facts_of_a_vagrant_machine() -> None:
    facts = parse_facts(LINES)
    assert facts == Facts(
        load=(0.5, 0.25, 0.1),
        cpu_count=2,
        cpu_ticks=(150, 1000),
        memory_total_bytes=2 << 20,
        memory_available_bytes=1 << 20,
        pressure_cpu=0.125,
        uptime_s=1000.5,
        hostname="node1",
        kernel="6.1.0",
        os_image="Debian GNU/Linux 12 (bookworm)",
        addresses=VAGRANT,
    )


@given(st.lists(st.sampled_from(LINES)))
def test_any_part_of_the_facts_may_be_missing(lines: list[str]) -> None:
    assert parse_facts(lines).cpu_count >= 1


def test_old_kernels_guess_what_is_available() -> None:
    lines = ("MemTotal: 100 kB", "MemFree: 10 kB", "Buffers: 5 kB", "Cached: 20 kB", "Shmem: 4 kB")
    assert parse_facts(f"/proc/meminfo:{line}" for line in lines).memory_available_bytes == 31 * 1024


@pytest.mark.parametrize(
    ("before", "after", "busy"),
    [
        ((0, 0), (50, 200), 0.25),
        ((0, 0), (200, 200), 1.0),
        ((0, 0), (10, 60), None),  # 300 ms of two CPUs
        ((500, 9000), (10, 300), None),  # a reboot between
        (None, (1, 1000), None),
        ((1, 1000), None, None),
        ((7, 100), (7, 100), None),
    ],
)
def test_cpu_use_needs_half_a_second(
    before: tuple[int, int] | None, after: tuple[int, int] | None, busy: float | None
) -> None:
    assert cpu_busy(before, after, 2) == busy


def test_ticks_count_stolen_time_and_guests_once() -> None:
    assert parse_ticks(["cpu  10 1 5 100 20 2 3 4 9 9"]) == (25, 145)
    assert parse_ticks(["cpu  0 0 0 0"]) == (0, 0)
    assert parse_ticks([]) is None


def test_listening_ports_are_those_in_state_listen() -> None:
    lines = (
        "  0: 00000000:0016 00000000:0000 0A 00000000:00000000",
        "  1: 0100007F:1F90 0100007F:CB21 01 00000000:00000000",
        "  2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0",
    )
    assert listening_ports(lines) == (22, 80)


# Answers


def test_answers_begin_after_the_noise() -> None:
    text = "motd\n@korch refuse fenced 9\n@korch begin\n@korch a b c\none\n\ntwo\r\n\n@korch end\n"
    answer = parse_answer(text)
    assert [(section.word, section.rest, section.lines) for section in answer.sections] == [
        ("begin", "", ()),
        ("a", "b c", ("one", "", "two")),
        ("end", "", ()),
    ]
    assert parse_answer("no script ran").sections == ()


# Reports

REPORT = "\n".join(
    (
        "@korch begin",
        "@korch began 1000.00",
        "@korch facts",
        *LINES,
        "@korch listening",
        "@korch machine x86_64 0 root",
        "@korch try docker",
        '20.10.24|/data|x86_64|["name=seccomp"]',
        "@korch engine docker",
        '20.10.24|/data|x86_64|["name=seccomp"]',
        "@korch containers",
        "@korch disk /data",
        "Filesystem 1024-blocks Used Available Capacity Mounted on",
        "/dev/my disk 1000000 1 900000 1% /data dir",
        "@korch state /var/lib/korch",
        'claim mine {"id":"mine","name":"lab","master":"m"}',
        "claim theirs rubbish",
        "machine tok",
        "epoch 7",
        "@korch ended 1000.80 2000000000.250000000",
        "@korch end",
    )
)


def report(text: str = REPORT, **more: object) -> NodeReport:
    settings: dict[str, object] = {"received_at": 1999999990.0, "took_s": 1.0, **more}
    return parse_report(parse_answer(text), host="n1", cluster_id="mine", asked=("docker", "podman"), **settings)  # type: ignore[arg-type]


def test_a_report_is_read_whole() -> None:
    found = report()
    assert (found.engine.name, found.engine.version, found.engine.data_folder) == ("docker", "20.10.24", "/data")
    assert (found.disk_total_bytes, found.disk_free_bytes) == (1024000000, 921600000)
    assert (found.claim, found.foreign_claims) == (Claim("mine", "lab", "m"), (Claim("theirs"),))
    assert (found.machine_token, found.epoch, found.arch, found.user) == ("tok", 7, "amd64", "root")
    assert found.round_trip_s == pytest.approx(0.2)
    assert found.clock_offset_s == pytest.approx(10.35)  # 250 ms on the node, seen half a round trip (100 ms) later
    assert found.state == "Ready"


def test_pressure_needs_little_in_both_measures() -> None:
    lines = REPORT.replace("MemAvailable:  1024 kB", "MemAvailable:  50 kB")
    assert report(lines).state == "MemoryPressure"
    assert "MiB of memory" in report(lines).message
    enough = REPORT.replace("MemTotal:  2048 kB", "MemTotal:  16000000 kB").replace("1024 kB", "8000000 kB")
    assert report(enough).state == "Ready"
    full = enough.replace("900000 1%", "20000 98%")
    assert report(full).state == "DiskPressure"
    assert "19 MiB of 976 MiB are free in /data" in report(full).message


@pytest.mark.parametrize(
    ("engine", "state", "text"),
    [
        ("", "EngineMissing", "no Docker and no Podman"),
        ("@korch try podman\nrootless\n", "NoPermission", "rootless Podman"),
        ("@korch try docker\n|||\n\n", "EngineDown", "did not answer within 20 s"),
        ("@korch try docker\n", "EngineDown", "did not answer within 20 s"),
        ("@korch try docker\n|||\nCannot connect to the Docker daemon at unix:///x\n", "EngineDown", "does not answer"),
        (
            "@korch try docker\nCannot connect to the Docker daemon\n@korch try podman\nrootless\n",
            "NoPermission",
            "rootless Podman",
        ),
        ('@korch engine docker\n24.0|/x|x86_64|["name=rootless"]\n', "NoPermission", "rootless Docker"),
    ],
)
def test_engines_that_cannot_be_used(engine: str, state: str, text: str) -> None:
    start, end = REPORT.index("@korch try"), REPORT.index("@korch containers")
    found = report(REPORT[:start] + engine + REPORT[end:])
    assert found.state == state
    assert text in found.message
    assert found.hint


def test_foreign_claims_matter_without_an_own_one_only() -> None:
    text = REPORT.replace("claim mine", "claim third")
    assert report(text).state == "ClaimedByOther"
    assert report(text).message == 'n1 belongs to the korch cluster "theirs"'
    assert report(text, shared=True).state != "ClaimedByOther"


def test_claims_and_back() -> None:
    claim = Claim("id", 'na"me', "höst")
    assert parse_claim("id", claim_text(claim)) == claim
    assert "\n" not in claim_text(Claim("id", "a\nb", ""))
    assert parse_claim("id", "[]") == Claim("id")
    assert json.loads(claim_text(claim))["id"] == "id"


def test_clocks() -> None:
    assert parse_clock("100.250000000") == 100.25
    assert parse_clock("100.N") == 100.5
    assert parse_clock("100") == 100.5
    assert parse_clock("rubbish") == 0.0


# The node address


def at(addresses: tuple[NodeIP, ...], **host: object) -> str | None:
    settings: dict[str, object] = {"name": "n1", "address": "n1.lab", **host}
    ssh_address = str(settings.pop("ssh_address", ""))
    found = report()
    shown = NodeReport(
        **{
            field: getattr(found, field)
            for field in ("host", "engine", "arch", "cpu_busy", "disk_total_bytes", "disk_free_bytes", "state_root")
        },
        facts=Facts(addresses=addresses),
    )
    return choose_address(shown, Host(**settings), ssh_address=ssh_address)  # type: ignore[arg-type]


ONE_NIC = (NodeIP("192.168.1.5", "eth0", True), NodeIP("172.17.0.1", "docker0"))


@pytest.mark.parametrize(
    ("addresses", "host", "address"),
    [
        (VAGRANT, {"node_address": "203.0.113.7"}, "203.0.113.7"),
        (VAGRANT, {"address": "127.0.0.1"}, "192.168.56.11"),  # Vagrant's forwarded port
        (VAGRANT, {"address": "10.0.2.15"}, "10.0.2.15"),
        (VAGRANT, {"address": "fd00::11"}, "fd00::11"),
        (ONE_NIC, {"address": "192.168.1.5"}, "192.168.1.5"),
        (ONE_NIC, {"address": "203.0.113.7"}, None),  # behind NAT
        (ONE_NIC, {"ssh_address": "192.168.1.5"}, "192.168.1.5"),
        (ONE_NIC, {"connection": "local", "address": "localhost"}, "192.168.1.5"),
        ((*VAGRANT, NodeIP("10.9.9.9", "eth2")), {"address": "127.0.0.1"}, None),  # two that it could be
        ((*ONE_NIC, NodeIP("8.8.8.8", "eth1")), {}, None),
        ((), {}, None),
    ],
)
def test_the_node_address(addresses: tuple[NodeIP, ...], host: dict[str, object], address: str | None) -> None:
    assert at(addresses, **host) == address
