"""Who is asked about a silent node, at which of its addresses, and whose word counts."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from korch.errors import HostUnreachableError
from korch.master.witnesses import TRY_AGAIN_S, TRY_EVERY_S, Target, Witnesses, is_elsewhere, targets_of
from korch.resources.node import Node, NodeAddress
from korch.resources.pod import ContainerPort, ContainerStatus, Pod, PodStatus
from tests.unit.master.test_lifecycle import World, lives


class Options:
    """A fleet that only knows how the master's SSH reaches a node."""

    def __init__(self, hostname: str, port: int) -> None:
        self.connector, self.known = self, SimpleNamespace(hostname=hostname, port=port)

    def host(self, name: str) -> str:
        return name

    async def options_for(self, _: str) -> Any:
        if not self.known.hostname:
            raise HostUnreachableError("no such alias", host="n1")
        return self.known


def at(address: str) -> Node:
    node = Node()
    addresses = (NodeAddress(type="InternalIP", address=address), NodeAddress(type="ExternalIP", address="127.0.0.1"))
    return replace(node, status=replace(node.status, addresses=addresses if address else addresses[1:]))


def places(hostname: str, port: int, node: Node | None, *pods: Pod) -> list[tuple[str, int]]:
    fleet: Any = Options(hostname, port)
    return [(one.address, one.port) for one in asyncio.run(targets_of("n1", fleet, node, pods))]


@pytest.mark.parametrize(
    ("hostname", "port", "address", "expected"),
    [
        pytest.param(
            "127.0.0.1", 2222, "192.168.56.11", {("192.168.56.11", 22), ("192.168.56.11", 2222)}, id="Vagrant"
        ),
        pytest.param("192.168.56.11", 2201, "192.168.56.11", {("192.168.56.11", 2201)}, id="the inventory's address"),
        pytest.param("web.lan", 2201, "10.0.0.5", {("10.0.0.5", 2201), ("10.0.0.5", 22)}, id="a name of the master's"),
        pytest.param("", 0, "10.0.0.5", {("10.0.0.5", 22)}, id="no options"),
        pytest.param("10.0.0.5", 22, "", {("10.0.0.5", 22)}, id="no node address"),
        pytest.param("127.0.0.1", 2222, "", set(), id="only a forwarded port"),
        pytest.param("localhost", 2222, "", set(), id="the same by name"),
    ],
)
def test_the_node_address_is_asked_for_and_never_loopback(
    hostname: str, port: int, address: str, expected: set[tuple[str, int]]
) -> None:
    assert set(places(hostname, port, at(address))) == expected


def test_ports_that_the_engine_chose_are_asked_for() -> None:
    published = (
        ContainerPort(container_port=80, host_port=32768, host_ip="10.0.0.5"),
        ContainerPort(container_port=81, host_port=32769, host_ip="127.0.0.1"),
        ContainerPort(container_port=53, host_port=32770, host_ip="10.0.0.5", protocol="UDP"),
    )
    status = ContainerStatus(name="web", image="w", published=published)
    pod = Pod(status=PodStatus(phase="Running", container_statuses=(status,)))
    pod = replace(pod, spec=replace(pod.spec, node_name="n1"))
    other = replace(pod, spec=replace(pod.spec, node_name="n2"))
    assert places("10.0.0.5", 22, at("10.0.0.5"), pod, other) == [("10.0.0.5", 22), ("10.0.0.5", 32768)]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "", "localhost", "localhost.lan"])
def test_addresses_that_mean_whoever_asks(address: str) -> None:
    assert not is_elsewhere(address)


SSHD = Target("10.0.0.1", 22)


def test_only_who_reached_it_counts_and_is_asked_again_now_and_then() -> None:
    known = Witnesses()
    assert known.is_due("n1", 0)
    assert known.to_try("n1", ["n2", "n3", "n4"], 0) == ("n2", "n3")
    known.learn("n1", "n2", [SSHD], 0)
    known.learn("n1", "n3", [], 0)
    assert known.to_try("n1", ["n2", "n3", "n4"], 1) == ("n4",)
    known.learn("n1", "n4", [SSHD], 1)
    assert not known.is_due("n1", TRY_AGAIN_S + 1), "two are enough"
    assert known.is_due("n1", TRY_EVERY_S + 1)
    assert [known.counts("n1", witness, SSHD) for witness in ("n2", "n3", "n4", "n5")] == [True, False, True, False]
    assert not known.counts("n1", "n2", Target("10.0.0.1", 80, own=False))
    assert known.in_order("n1", ["n2", "n3", "n4", "n5"]) == ["n2", "n4", "n3", "n5"]


def test_where_nobody_reaches_anybody_few_are_asked() -> None:
    known, asked = Witnesses(), 0
    names = [f"n{number:03}" for number in range(100)]
    for second in range(600):
        chosen = known.to_try("n000", names[1:], second) if known.is_due("n000", second) else ()
        asked += len(chosen)
        for other in chosen:
            known.learn("n000", other, [], second)
    assert asked <= 4 * 600 / TRY_AGAIN_S


def test_of_a_node_that_was_never_well_those_count_who_reach_others() -> None:
    known = Witnesses()
    assert not known.counts("n1", "n3", SSHD)
    known.learn("n2", "n3", [Target("10.0.0.2", 22)], 0)
    known.learn("n2", "n4", [Target("10.0.0.2", 80, own=False)], 0)
    assert known.counts("n1", "n3", SSHD)
    assert not known.counts("n1", "n4", SSHD)
    assert not known.counts("n1", "n3", Target("10.0.0.1", 80, own=False))
    known.forget("n3")
    assert not known.counts("n1", "n3", SSHD)


class Forwarded(World):
    """The master reaches every node through a forwarded port of its own; the nodes one another at their addresses."""

    open = frozenset({22})

    async def options_for(self, host: str) -> Any:
        return SimpleNamespace(hostname="127.0.0.1", port=2200 + int(host[1:]))

    def transport(self, witness: str) -> Any:
        async def forward(address: str, port: int, *, timeout_s: float) -> Any:
            self.asked.append((witness, address))
            meant = f"n{address.rpartition('.')[2]}" if address.startswith("10.") else witness
            if port not in self.open or meant in self.off:
                raise ConnectionRefusedError
            return SimpleNamespace(close=lambda: asyncio.sleep(0))

        return SimpleNamespace(forward=forward)

    async def start(self, group: asyncio.TaskGroup) -> None:
        await super().start(group)
        for name in self.names:
            await self.objects.modify(Node, name, "", self._addressed, status=True)
        await asyncio.sleep(100)

    def _addressed(self, node: Node) -> Node:
        mine = NodeAddress(type="InternalIP", address=f"10.0.0.{node.metadata.name[1:]}")
        return replace(node, status=replace(node.status, addresses=(mine,)))


class Firewalled(Forwarded):
    """And nodes do not let one another in."""

    open = frozenset()


def test_behind_forwarded_ports_the_node_itself_is_asked_for() -> None:
    @lives("n1", "n2", "n3", world=Forwarded)
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        world.cut.add("n1")
        await asyncio.sleep(120)
        assert await world.phase("web-1") == "Running", "n2 and n3 reach it"
        assert "reaches it, so its pods stay" in await world.reason("n1")
        world.off.add("n1")
        await asyncio.sleep(10)
        assert await world.phase("web-1") == "Failed"
        assert not any(address.startswith("127.") for _, address in world.asked)


def test_nodes_that_never_reach_one_another_cannot_tell_and_failing_over_takes_longer() -> None:
    @lives("n1", "n2", "n3", world=Firewalled)
    async def body(world: World) -> None:
        await world.pod("web-1", "n1")
        world.off.add("n1")
        await asyncio.sleep(20)
        assert await world.phase("web-1") == "Running"
        assert "no other node can tell" in await world.reason("n1")
        await asyncio.sleep(15)
        assert await world.phase("web-1") == "Failed"
