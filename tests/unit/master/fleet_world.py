"""A fleet on hosts that only remember: what they show, whether they answer, and when."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from korch.engines.images import ImageInfo
from korch.errors import CommandFailedError, HostUnreachableError
from korch.inventory.model import Host, Inventory
from korch.master.cluster import ClusterRecord
from korch.master.fleet import Fleet
from korch.nodes.facts import Facts
from korch.nodes.report import Claim, EngineState, NodeReport
from korch.objects.objects import Objects
from korch.settings import Settings
from tests.unit.nodes.fake_machine import CLUSTER, FakeMachine
from tests.unit.nodes.virtual_loop import LoopClock
from tests.unit.objects.memory_store import MemoryStore


class Box:
    """A machine. `token`: what it shows, "" before the first claim; `answers` is set while it can be reached."""

    def __init__(self, name: str, token: str = "", *, after_s: float = 0.0) -> None:
        self.name, self.token, self.own_token = name, token, token or f"token-of-{name}"
        self.after_s = after_s  # how long it takes to connect; infinity: it is off
        self.disk_free_bytes = 50 << 30
        self.events: list[str] = []  # NAME dial, NAME connected, NAME silent, NAME start; several may share one
        self.claims = 0
        self.machine = FakeMachine(name)
        self.asked: list[str] = []  # about images
        self.images: set[str] = set()
        self.no_registry = False

    def report(self) -> NodeReport:
        return NodeReport(
            host=self.name,
            facts=Facts(cpu_count=4, cpu_ticks=(10, 100), memory_total_bytes=8 << 30, memory_available_bytes=6 << 30),
            engine=EngineState("docker", "20.10", "/var/lib/docker", said="20.10|/var/lib/docker|x86_64|[]"),
            arch="amd64",
            cpu_busy=None,
            disk_total_bytes=100 << 30,
            disk_free_bytes=self.disk_free_bytes,
            state_root="/var/lib/korch",
            claim=Claim("c1") if self.token else None,
            machine_token=self.token,
            containers=tuple(self.machine.held.values()),
        )


class BoxMachine(FakeMachine):
    """The box behind a name, as a fleet drives it."""

    def __init__(self, box: Box) -> None:
        super().__init__(box.name)
        self.box, self.held, self.calls, self.faults = box, box.machine.held, box.machine.calls, box.machine.faults

    async def _call(self, word: str, what: str = "") -> None:
        self.box.events.append(f"{self.box.name} {word}")
        await super()._call(word, what)

    def assume(self, engine: str) -> None:
        pass

    async def report(self, **_: object) -> NodeReport:
        return self.box.report()

    async def resolve_image(self, image: str, *, auth: bytes | None = None, pull: str = "IfNotPresent") -> ImageInfo:
        self.box.asked.append(f"{image} {pull}")
        if pull == "Never" and image not in self.box.images:
            raise CommandFailedError(f"{self.box.name} has no {image}", host=self.box.name)
        if pull == "Always" and self.box.no_registry:
            raise CommandFailedError(f"{self.box.name}: no route to the registry", host=self.box.name)
        return ImageInfo("sha256:1", "1", f"{image}@sha256:1", "amd64")

    async def claim(self) -> str:
        self.box.claims += 1
        self.box.token = self.box.own_token
        return self.box.token

    async def write_wish(self, namespace: str, workload: str, content: bytes, *, epoch: int) -> None:
        await self._call("wish", f"{namespace}/{workload}")

    async def prune(self, keep: object, *, epoch: int) -> tuple[str, ...]:
        return ()


class BoxTransport:
    def __init__(self, box: Box) -> None:
        self.box = box

    async def connect(self, *, timeout_s: float) -> None:
        self.box.events.append(f"{self.box.name} dial")
        await asyncio.sleep(min(self.box.after_s, timeout_s))
        how = "silent" if self.box.after_s > timeout_s else "connected"
        self.box.events.append(f"{self.box.name} {how}")
        if self.box.after_s > timeout_s:
            raise HostUnreachableError(f"{self.box.name} did not answer for {timeout_s:.0f} s", host=self.box.name)

    async def close(self) -> None:
        pass


class BoxFleet(Fleet):
    """`boxes`: by the name that leads to it."""

    def __init__(self, cluster: Any, boxes: Mapping[str, Box]) -> None:
        super().__init__(cluster)
        self.boxes = dict(boxes)
        self._history: Any = SimpleNamespace(append=self._keep, close=self._keep)

    async def _keep(self, *_: object) -> None:
        pass

    def transport(self, node: str) -> Any:
        return BoxTransport(self.boxes[node])

    def machine(self, node: str) -> Any:
        if node not in self._machines:
            self._machines[node] = BoxMachine(self.boxes[node])  # type: ignore[assignment]
        return self._machines[node]

    def swap(self, boxes: Mapping[str, Box]) -> None:
        """The names lead elsewhere from now on."""
        self.boxes = dict(boxes)
        self._machines.clear()

    async def _ssh_address(self, host: Host) -> str:
        return ""


def a_cluster(folder: Path, names: Sequence[str], *, limit: str = "", store: MemoryStore | None = None) -> Any:
    store = store or MemoryStore()
    hosts = tuple(
        Host(name=name, address=f"10.0.0.{at}", node_address=f"10.0.0.{at}") for at, name in enumerate(names, 1)
    )
    inventory = Inventory(hosts=hosts, groups={"all": tuple(names)}, limit=limit)
    return SimpleNamespace(
        store=store,
        objects=Objects(store, clock=LoopClock()),
        clock=LoopClock(),
        settings=Settings(home=folder, cluster="c", inventories=()),
        record=ClusterRecord(id=CLUSTER.id, name=CLUSTER.name, created="", master_host=CLUSTER.master_host),
        inventory=inventory,
        hosts=lambda: inventory,
    )


def a_fleet(folder: Path, *boxes: Box, **more: Any) -> BoxFleet:
    """The boxes by their own names."""
    return BoxFleet(a_cluster(folder, [box.name for box in boxes], **more), {box.name: box for box in boxes})
