"""Failing over on request: on whose word, which pods, and what becomes of those that changed meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from korch.errors import AuthFailedError, ForbiddenError, HostUnreachableError, KorchError
from korch.master.failover import fail_over
from korch.objects.objects import Objects
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.node import Node, NodeAddress
from korch.resources.pod import Container, HostPathVolumeSource, Pod, PodSpec, Volume
from korch.resources.podstate import with_condition
from korch.resources.times import rfc3339
from korch.ssh.base import Result
from tests.unit.objects.memory_store import MemoryStore

NOW = 1_000_000.0


class Witness:
    """A node that is asked: `answer` an error or None for "I reach it"."""

    def __init__(self, answer: Exception | None, *, heard: bool = True) -> None:
        self.answer, self.heard, self.asked = answer, heard, 0

    async def forward(self, address: str, port: int, *, timeout_s: float) -> Any:
        self.asked += 1
        if self.answer is not None:
            raise self.answer
        return SimpleNamespace(close=lambda: asyncio.sleep(0))

    async def run(self, command: object) -> Result:
        if not self.heard:
            raise HostUnreachableError("gone too", host="w")
        return Result(0, b"", b"")


def nobody() -> Witness:
    return Witness(ConnectionRefusedError("no route"))


class FakeFleet:
    def __init__(self, errors: dict[str, KorchError], witnesses: dict[str, Witness]) -> None:
        self.errors, self.witnesses = errors, witnesses
        self.node_names = tuple(sorted({*errors, *witnesses}))
        self.answering = frozenset(witnesses)
        self.connector = self
        self.addresses: dict[str, str] = {}
        self.before_options: Callable[[], Any] | None = None

    async def survey(self) -> None: ...

    def host(self, name: str) -> str:
        return name

    async def options_for(self, host: str) -> Any:
        if self.before_options is not None:
            await self.before_options()
        return SimpleNamespace(hostname=self.addresses.get(host, "10.0.0.9"), port=22)

    def transport(self, name: str) -> Witness:
        return self.witnesses[name]


def away(*names: str) -> dict[str, KorchError]:
    return {name: HostUnreachableError(f"{name}: no route", host=name) for name in names}


def run(fleet: FakeFleet, tmp_path: Path, *pods: Pod, ready: str = "True", during: Any = None) -> tuple[Any, Objects]:
    store = MemoryStore()
    objects = Objects(store)  # type: ignore[arg-type]

    async def main() -> tuple[str, ...]:
        for name in fleet.node_names:
            await objects.create(Node(metadata=ObjectMeta(name=name)))
            state = with_condition((), Condition(type="Ready", status=ready), rfc3339(NOW - 3600))
            known = (NodeAddress(type="InternalIP", address=fleet.addresses[name]),) if fleet.addresses else ()
            status = replace(Node().status, conditions=state, addresses=known)
            await objects.modify(Node, name, "", lambda node, to=status: replace(node, status=to), status=True)
        for pod in pods:
            await objects.create(pod)
        if during is not None:
            fleet.before_options = lambda: during(objects)
        clock = SimpleNamespace(now=lambda: NOW)
        cluster: Any = SimpleNamespace(
            objects=objects, store=store, clock=clock, settings=SimpleNamespace(cluster_dir=tmp_path)
        )
        return await fail_over(cluster, fleet)  # type: ignore[arg-type]

    return asyncio.run(main()), objects


def pod(name: str = "web-1", node: str = "n9", *, local: bool = False) -> Pod:
    volumes = (Volume(name="v", host_path=HostPathVolumeSource(path="/data")),) if local else ()
    return Pod(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec=PodSpec(containers=(Container(name="web", image="w"),), node_name=node, volumes=volumes),
    )


def phase(objects: Objects, name: str = "web-1") -> str:
    return asyncio.run(objects.get(Pod, name)).status.phase


def test_two_nodes_that_do_not_reach_it_settle_it(tmp_path: Path) -> None:
    witnesses = {"n1": nobody(), "n2": nobody(), "n3": nobody()}
    lines, objects = run(FakeFleet(away("n9"), witnesses), tmp_path, pod(), pod("web-2", "n1"))
    assert lines == ("n9: web-1 is replaced elsewhere",)
    assert (phase(objects), phase(objects, "web-2")) == ("Failed", "Pending")
    assert [witness.asked for witness in witnesses.values()] == [1, 1, 0]


def test_one_that_reaches_it_is_enough_to_move_nothing(tmp_path: Path) -> None:
    lines, objects = run(FakeFleet(away("n9"), {"n1": nobody(), "n2": Witness(None)}), tmp_path, pod())
    assert "n2 still reaches it" in lines[0]
    assert phase(objects) == "Pending"


@pytest.mark.parametrize(
    "dumb",
    [
        pytest.param(Witness(PermissionError("AllowTcpForwarding no")), id="sshd forbids forwarding"),
        pytest.param(Witness(HostUnreachableError("gone", host="n1")), id="it went away itself"),
        pytest.param(Witness(TimeoutError("no answer"), heard=False), id="silence of one that is not heard"),
    ],
)
def test_who_cannot_tell_is_no_witness(dumb: Witness, tmp_path: Path) -> None:
    lines, objects = run(FakeFleet(away("n9"), {"n1": dumb}), tmp_path, pod())
    assert "no other node can tell" in lines[0]
    assert phase(objects) == "Pending"
    lines, objects = run(FakeFleet(away("n9"), {"n1": dumb, "n2": nobody(), "n3": Witness(None)}), tmp_path, pod())
    assert "n3 still reaches it" in lines[0], "the next one is asked instead"


def test_silence_of_one_that_is_heard_counts(tmp_path: Path) -> None:
    lines, _ = run(FakeFleet(away("n9"), {"n1": Witness(TimeoutError("no answer"))}), tmp_path, pod())
    assert lines == ("n9: web-1 is replaced elsewhere",)


class Firewalled(Witness):
    """Reaches what its `open` holds."""

    def __init__(self, *places: str) -> None:
        super().__init__(None)
        self.open = places

    async def forward(self, address: str, port: int, *, timeout_s: float) -> Any:
        if address not in self.open:
            raise ConnectionRefusedError
        return await super().forward(address, port, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        pytest.param({"n1": (), "n2": ()}, "no other node can tell", id="nobody reaches anybody"),
        pytest.param({"n1": (), "n2": ("10.0.0.1",)}, "web-1 is replaced elsewhere", id="one that reaches others"),
        pytest.param({"n1": (), "n2": ("10.0.0.9",)}, "n2 still reaches it", id="one that reaches it"),
    ],
)
def test_who_reaches_no_other_node_either_is_no_witness(
    others: dict[str, tuple[str, ...]], expected: str, tmp_path: Path
) -> None:
    fleet = FakeFleet(away("n9"), {name: Firewalled(*places) for name, places in others.items()})
    fleet.addresses = {name: f"10.0.0.{name[1:]}" for name in fleet.node_names}
    lines, _ = run(fleet, tmp_path, pod())
    assert expected in lines[0]


def test_pods_with_data_there_stay(tmp_path: Path) -> None:
    lines, objects = run(FakeFleet(away("n9"), {"n1": nobody()}), tmp_path, pod(local=True))
    assert "its volume is there" in lines[0]
    assert phase(objects) == "Pending"


def test_a_node_that_refuses_is_not_lost(tmp_path: Path) -> None:
    fleet = FakeFleet({"n9": AuthFailedError("n9: no key fits", host="n9")}, {"n1": nobody()})
    lines, objects = run(fleet, tmp_path, pod())
    assert lines == ()
    assert phase(objects) == "Pending"


def test_most_nodes_at_once_is_this_machines_network(tmp_path: Path) -> None:
    with pytest.raises(ForbiddenError, match="nothing was moved"):
        run(FakeFleet(away("n8", "n9"), {"n1": nobody()}), tmp_path, pod())


def test_a_pod_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    async def replaced(objects: Objects) -> None:
        await objects.finish_delete(await objects.get(Pod, "web-1"))
        await objects.create(pod(node="n1"))
        await objects.finish_delete(await objects.get(Pod, "web-2"))

    fleet = FakeFleet(away("n9"), {"n1": nobody()})
    lines, objects = run(fleet, tmp_path, pod(), pod("web-2"), during=replaced)
    assert lines == ()
    assert phase(objects) == "Pending", "the successor of the same name runs elsewhere, and well"


def test_nodes_that_were_not_ready_before_do_not_thin_out_a_mass_loss() -> None:
    from korch.master.failover import _sight

    def node(ready: str) -> Node:
        state = with_condition((), Condition(type="Ready", status=ready), rfc3339(NOW))
        return replace(Node(), status=replace(Node().status, conditions=state))

    assert _sight("n", node("True"), False, NOW).was_ready
    assert not _sight("n", node("False"), False, NOW).was_ready
    assert not _sight("n", None, False, NOW).was_ready
