import json

import pytest
from msgspec.structs import replace

from korch.cli import base
from korch.client.base import Check, NodeSeen
from korch.errors import ForbiddenError, HostUnreachableError, NotFoundError
from korch.resources.node import Node
from korch.resources.pod import Pod

from .world import World, a_load, a_node, a_pod


def test_cordon_and_uncordon(world: World) -> None:
    world.put(a_node("n1"), a_node("n2", cordoned=True))
    assert world.run("node", "cordon", "n1", "n2").stdout == "node/n1 cordoned\nnode/n2 is cordoned already\n"
    assert world.read(Node, "n1", "").spec.unschedulable
    assert world.run("node", "uncordon", "n1").stdout == "node/n1 uncordoned\n"
    assert not world.read(Node, "n1", "").spec.unschedulable


def test_cordon_goes_on_after_a_wrong_name(world: World) -> None:
    world.put(a_node("n1"), a_node("n2"))
    result = world.run("node", "cordon", "n1", "nx", "n2")
    assert result.exit_code == NotFoundError.exit_code
    assert "nx" in result.stderr
    assert world.read(Node, "n2", "").spec.unschedulable


# --- trust ---


@pytest.fixture
def strange(world: World) -> World:
    world.keys = {"n1": ("ssh-ed25519", "SHA256:abc"), "n2": ("ssh-ed25519", "SHA256:def")}
    return world


@pytest.mark.parametrize("given", ["SHA256:abc", "abc", "SHA256:abc="])
def test_trust_the_right_fingerprint(strange: World, given: str) -> None:
    result = strange.run("node", "trust", "n1", "--fingerprint", given)
    assert result.exit_code == 0
    assert strange.trusted == [("n1", "SHA256:abc")]


def test_another_fingerprint_is_refused(strange: World) -> None:
    result = strange.run("node", "trust", "n1", "--fingerprint", "SHA256:xyz")
    assert result.exit_code == ForbiddenError.exit_code
    assert "n1 shows the ssh-ed25519 key SHA256:abc, not SHA256:xyz" in result.stderr
    assert strange.trusted == []


def test_without_a_terminal_trust_needs_a_word(strange: World) -> None:
    result = strange.run("node", "trust", "n1")
    assert result.exit_code == 2
    assert "--fingerprint" in result.stderr
    assert strange.opened == []


def test_trust_several_with_yes(strange: World) -> None:
    assert strange.run("node", "trust", "n1", "n2", "--yes").exit_code == 0
    assert strange.trusted == [("n1", "SHA256:abc"), ("n2", "SHA256:def")]


def test_a_jump_host_is_trusted_once_and_first(strange: World) -> None:
    strange.keys["jump host b"] = ("ssh-ed25519", "SHA256:jump")
    strange.jumps = {"n1": "jump host b", "n2": "jump host b"}
    result = strange.run("node", "trust", "n1", "n2", "--yes")
    assert result.exit_code == 0
    assert strange.trusted == [("n1", "SHA256:jump"), ("n1", "SHA256:abc"), ("n2", "SHA256:def")]
    assert [line for line in result.stdout.splitlines() if "trusted" in line] == [
        "jump host b is trusted.",
        "n1 is trusted.",
        "n2 is trusted.",
    ]


def test_a_fingerprint_is_of_the_key_that_was_shown(strange: World) -> None:
    strange.keys["jump host b"] = ("ssh-ed25519", "SHA256:jump")
    strange.jumps = {"n1": "jump host b"}
    result = strange.run("node", "trust", "n1", "--fingerprint", "SHA256:abc")
    assert "jump host b shows the ssh-ed25519 key SHA256:jump, not SHA256:abc" in result.stderr
    result = strange.run("node", "trust", "n1", "--fingerprint", "SHA256:jump")
    assert (result.exit_code, strange.trusted) == (0, [("n1", "SHA256:jump")])
    assert "korch node trust n1" in result.stdout


def test_a_fingerprint_belongs_to_one_node(strange: World) -> None:
    assert strange.run("node", "trust", "n1", "n2", "--fingerprint", "x").exit_code == 2


@pytest.mark.parametrize(
    ("answer", "code", "trusted"), [("y\n", 0, 1), ("n\n", 1, 0), ("", 130, 0)], ids=["yes", "no", "eof"]
)
def test_trust_asks_on_a_terminal(
    strange: World, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, trusted: int
) -> None:
    monkeypatch.setattr(base, "on_terminal", lambda: True)
    monkeypatch.setattr("korch.cli.node.on_terminal", lambda: True)
    result = strange.run("node", "trust", "n1", input=answer)
    assert "SHA256:abc" in result.stdout
    assert result.exit_code == code
    assert len(strange.trusted) == trusted


# --- check ---


@pytest.fixture
def checked(world: World) -> World:
    world.seen = [NodeSeen(a_node(name), a_load()) for name in ("n1", "n2", "n3")]
    world.checks = {
        "n1": (Check("reachable", "ok", "10.0.0.1:22"), Check("clock", "warn", "2h ahead", "Run NTP.")),
        "n2": (
            Check("reachable", "ok", "10.0.0.2:22"),
            Check("engine", "fail", "docker is down", "systemctl start docker"),
        ),
        "n3": HostUnreachableError("n3: no answer", host="n3", hint="Switch it on."),
    }
    return world


def test_the_doctor_looks_at_every_host(checked: World) -> None:
    result = checked.run("node", "check")
    assert result.exit_code == 8
    assert result.stdout.splitlines() == [
        "n1: 1 in order, 1 to look at",
        "  ok    reachable  10.0.0.1:22",
        "  warn  clock      2h ahead",
        "                   -> Run NTP.",
        "",
        "n2: 1 in order, 1 failed",
        "  ok    reachable  10.0.0.2:22",
        "  fail  engine     docker is down",
        "                   -> systemctl start docker",
        "",
        "n3: 1 failed",
        "  fail  Unreachable  n3: no answer",
        "                     -> Switch it on.",
    ]


def test_warnings_are_no_failure(checked: World) -> None:
    assert checked.run("node", "check", "n1").exit_code == 0


def test_the_doctor_dials_once_and_keeps_to_the_limit(checked: World) -> None:
    result = checked.run("node", "check", "--limit", "n1,n2")
    assert [line.split(":")[0] for line in result.stdout.splitlines() if line.startswith("n")] == ["n1", "n2"]
    assert checked.looked == []


def test_only_problems(checked: World) -> None:
    assert "10.0.0.1" not in checked.run("node", "check", "n1", "--problems").stdout


def test_check_as_json(checked: World) -> None:
    result = checked.run("node", "check", "n2", "-o", "json")
    assert result.exit_code == 8
    assert json.loads(result.stdout)[1] == {
        "node": "n2",
        "check": "engine",
        "result": "fail",
        "detail": "docker is down",
        "cure": "systemctl start docker",
    }


# --- rm ---


def test_a_node_of_the_inventory_is_not_removed(world: World) -> None:
    world.put(a_node("n1"))
    result = world.run("node", "rm", "n1", "--force")
    assert result.exit_code == ForbiddenError.exit_code
    assert "still in the inventory" in result.stderr
    assert world.read(Node, "n1", "") is not None


def test_a_node_that_left_goes_when_it_is_empty(world: World) -> None:
    world.put(a_node("n1", state="NotInInventory"))
    assert world.run("node", "rm", "n1").stdout == "node/n1 removed\n"
    assert world.read(Node, "n1", "") is None


def test_pods_are_given_up_with_force_only(world: World) -> None:
    world.put(a_node("n1", state="NotInInventory"), a_pod("web-1"), a_pod("web-2", node="n2"))
    result = world.run("node", "rm", "n1")
    assert result.exit_code == ForbiddenError.exit_code
    assert "1 pod(s): web-1" in result.stderr
    assert world.run("node", "rm", "n1", "--force").exit_code == 0
    assert world.read(Node, "n1", "") is None
    assert world.read(Pod, "web-1") is None
    assert world.read(Pod, "web-2").metadata.deletion_timestamp is None


def test_rm_of_an_unknown_node(world: World) -> None:
    assert world.run("node", "rm", "nx").exit_code == NotFoundError.exit_code


def test_a_node_without_conditions_is_not_taken_for_one_that_left(world: World) -> None:
    node = a_node("n1")
    world.put(replace(node, status=replace(node.status, conditions=())))
    assert world.run("node", "rm", "n1").exit_code == ForbiddenError.exit_code
