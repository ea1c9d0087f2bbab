"""The doctor on real hosts: what is in order, what is not, and what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from korch.lab.lab import Lab
from korch.lab.spec import NodeSpec
from tests.lab.korch_cli import Korch, write_inventory


@pytest.fixture(scope="module")
def sick(make_lab: Callable[..., Lab]) -> Lab:
    """f1: strict sshd settings; s1: fine but for the engine; m1: a program is missing; p1: Podman."""
    return make_lab(
        "doctor",
        (
            NodeSpec("f1", engine="none", sshd_config=("AllowTcpForwarding no", "MaxSessions 4", "MaxStartups 2:50:5")),
            NodeSpec("s1", engine="none"),
            NodeSpec("m1", engine="none", busybox=True, hidden=("flock",)),
            NodeSpec("p1", engine="podman"),
        ),
    )


def checks(korch: Korch, *words: str, status: int) -> dict[tuple[str, str], tuple[str, str]]:
    """(node, check) to (result, detail and cure)."""
    data: list[dict[str, Any]] = korch("node", "check", *words, "-o", "json", status=status).data()
    for one in data:
        assert one["result"] == "ok" or one["cure"], one
    return {(one["node"], one["check"]): (one["result"], f"{one['detail']} {one['cure']}") for one in data}


def korch_for(lab: Lab, tmp_path: Path, hosts: dict[str, dict[str, object]], **all_vars: object) -> Korch:
    inventory = write_inventory(tmp_path / "hosts.yml", lab, hosts, **all_vars)
    return Korch(tmp_path / "home", inventory=inventory)


def test_what_is_missing_is_named_with_a_cure(sick: Lab, tmp_path: Path) -> None:
    korch = korch_for(sick, tmp_path, {name: {} for name in ("f1", "s1", "m1", "p1")})
    found = checks(korch, status=8)
    assert found["f1", "forwarding"][0] == "warn"
    assert "AllowTcpForwarding no" in found["f1", "forwarding"][1]
    assert (found["f1", "MaxSessions"][0], found["f1", "MaxStartups"][0]) == ("warn", "warn")
    assert found["s1", "engine"][0] == "fail"
    assert "korch node prepare" in found["s1", "engine"][1]
    for name in ("reachable", "host key", "login", "forwarding", "MaxSessions", "disk", "memory", "clock", "address"):
        assert found["s1", name][0] == "ok", name
    assert found["m1", "programs"][0] in {"ok", "warn"}
    assert {result for (node, _), (result, _) in found.items() if node == "p1"} == {"ok"}
    assert "podman" in found["p1", "engine"][1]
    assert not sick.path_in("p1", "/var/lib/korch/claims").exists(), "the doctor leaves no claim"


def test_ports_and_addresses_that_cannot_work(sick: Lab, tmp_path: Path) -> None:
    hosts: dict[str, dict[str, object]] = {"p1": {"korch_address": "10.99.99.99"}, "s1": {}}
    found = checks(korch_for(sick, tmp_path, hosts), "p1", status=8)
    assert found["p1", "interfaces"][0] == "fail"
    assert found["p1", "address"][0] == "fail"
    assert "s1" in found["p1", "address"][1]


def test_hosts_that_let_nobody_in(sick: Lab, tmp_path: Path) -> None:
    strange = "-F /dev/null -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
    hosts: dict[str, dict[str, object]] = {
        "gone": {"node": "s1", "ansible_port": 1},
        "nobody": {"node": "s1", "ansible_user": "stranger"},
        "unknown": {"node": "p1", "ansible_ssh_common_args": strange},
    }
    found = checks(korch_for(sick, tmp_path, hosts), "gone", "nobody", "unknown", status=8)
    assert found["gone", "reachable"][0] == "fail"
    assert found["nobody", "login"][0] == "fail"
    assert found["unknown", "host key"][0] == "fail"
    assert "korch node trust" in found["unknown", "host key"][1]


def test_a_user_works_through_sudo_and_is_told_so(sick: Lab, tmp_path: Path) -> None:
    found = checks(korch_for(sick, tmp_path, {"p1": {"ansible_user": "lab"}}), status=0)
    assert found["p1", "sudo"] == ("ok", "without a password ")
    assert "through sudo" in found["p1", "rights"][1]
    assert found["p1", "MaxSessions"] == ("ok", "10 "), "sshd -T needs root"
