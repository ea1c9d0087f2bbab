"""The hosts of a cluster as this process reaches them: connected and looked at all at once, each with its outcome."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
import msgspec.structs
from msgspec.structs import replace

from korch.client.base import NodeSeen
from korch.engines.images import ImageInfo
from korch.errors import (
    AlreadyExistsError,
    ClaimedByOtherError,
    EngineDownError,
    EngineMissingError,
    HostRefusedError,
    KorchError,
    NoPermissionError,
    NotFoundError,
)
from korch.inventory.hostnames import node_name
from korch.inventory.model import Host
from korch.master.cluster import Cluster
from korch.master.gathering import each
from korch.master.twins import Tokens
from korch.nodes.machine import ClusterIdentity, Machine
from korch.nodes.register import (
    CLAIM_TOKEN,
    begins_difference,
    declared_node,
    failed_status,
    known_engine,
    load_of,
    new_node,
    noted,
    seen_status,
    with_images,
    without_inventory,
)
from korch.nodes.report import NodeReport, choose_address
from korch.resources.meta import Object
from korch.resources.node import Node, NodeLoad
from korch.resources.podstate import condition
from korch.ssh.base import Transport
from korch.ssh.connect import Connector
from korch.store.history import LoadHistory, Sample

CONNECT_S = 10.0
T = TypeVar("T")
A = TypeVar("A")
AnObject = TypeVar("AnObject", bound=Object)


class Contact(msgspec.Struct, frozen=True):
    """A host that answers. `address` is its node address, "" when it is not clear."""

    host: Host
    machine: Machine
    report: NodeReport
    address: str
    images: frozenset[str]  # names of images that it holds, as far as is known


class Fleet:
    """Connections and the last look at each host. `errors` says why a node is not among the contacts."""

    def __init__(self, cluster: Cluster, *, prompt: Callable[[str], str] | None = None) -> None:
        self._cluster = cluster
        self._connector = Connector(cluster.settings, prompt=prompt)
        self._hosts = {node_name(host.name): host for host in cluster.hosts().hosts}
        self._transports: dict[str, Transport] = {}
        self._machines: dict[str, Machine] = {}
        self._contacts: dict[str, Contact] = {}
        self._lost: dict[str, Contact] = {}  # the last look at nodes that went away in this run
        self._arrivals: list[asyncio.Queue[Node]] = []
        self._tokens = Tokens()
        self._looking: asyncio.Task[dict[str, Contact]] | None = None
        self._history = LoadHistory(cluster.settings.cluster_dir / "load.db")
        self.errors: dict[str, KorchError] = {}

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes of the inventory, in its order."""
        return tuple(self._hosts)

    @property
    def placeable(self) -> frozenset[str]:
        """Nodes that were reached and that `--limit` leaves."""
        return self.listed & self._contacts.keys()

    @property
    def listed(self) -> frozenset[str]:
        """Nodes that `--limit` leaves, reached or not."""
        return frozenset(node_name(name) for name in self._cluster.hosts().placeable)

    @property
    def reached(self) -> frozenset[str]:
        """Nodes that were reached."""
        return frozenset(self._contacts)

    @property
    def problems(self) -> dict[str, KorchError]:
        """Why each node that cannot be worked with cannot: not reached, or no engine to work with."""
        refused = {
            name: _REFUSALS.get(found.report.state, HostRefusedError)(
                found.report.message, host=name, hint=found.report.hint
            )
            for name, found in self._contacts.items()
            if found.report.state not in _USABLE
        }
        return {**refused, **self.errors}

    def host(self, node: str) -> Host:
        """The inventory's entry of a node (or of a host by its own name)."""
        found = self._hosts.get(node) or next((host for host in self._hosts.values() if host.name == node), None)
        if found is None:
            known = ", ".join(sorted(self._hosts)) or "none"
            raise NotFoundError(f'"{node}" is not in the inventory', hint=f"It has: {known}.")
        return found

    def machine(self, node: str) -> Machine:
        """The machine behind a node; it connects when it is first used."""
        host = self.host(node)
        name = node_name(host.name)
        if name not in self._machines:
            record = self._cluster.record
            identity = ClusterIdentity(id=record.id, name=record.name, master_host=record.master_host)
            self._machines[name] = Machine(
                self.transport(name), identity, engine=host.engine, shared=host.shared, become=host.become
            )
        return self._machines[name]

    def transport(self, node: str) -> Transport:
        """The transport to a node."""
        host = self.host(node)
        name = node_name(host.name)
        if name not in self._transports:
            self._transports[name] = self._connector.transport_for(host)
        return self._transports[name]

    @property
    def connector(self) -> Connector:
        """Host keys and SSH options."""
        return self._connector

    @property
    def answering(self) -> Mapping[str, Contact]:
        """Every node that answered the last look, whatever its state."""
        return self._contacts

    def act_for(self, cluster: Cluster) -> None:
        """Go on as another cluster (after an adoption), over the same connections. The next step is a look."""
        self._cluster = cluster
        self._machines.clear()
        self._contacts.clear()
        self._lost.clear()
        self._tokens.forget()
        self.errors.clear()

    def differing(self, cluster: Cluster) -> frozenset[str]:
        """The nodes that this inventory does not have, or describes otherwise."""
        new = {node_name(host.name): msgspec.structs.replace(host, origin="") for host in cluster.hosts().hosts}
        return frozenset(
            name for name, host in self._hosts.items() if new.get(name) != msgspec.structs.replace(host, origin="")
        )

    async def renew(self, cluster: Cluster) -> frozenset[str]:
        """Go on with another inventory; the nodes that are gone from it or reached otherwise now. Those are hung up."""
        hosts = {node_name(host.name): host for host in cluster.hosts().hosts}
        other = self.differing(cluster)
        self._cluster, self._hosts = cluster, hosts
        leaving = [transport for name in other if (transport := self._transports.pop(name, None)) is not None]
        for name in other:
            self._machines.pop(name, None)
            self._contacts.pop(name, None)
            self._lost.pop(name, None)
            self.errors.pop(name, None)
        self._tokens.forget(other)
        await asyncio.gather(*(transport.close() for transport in leaving), return_exceptions=True)
        return other

    def mark_lost(self, node: str, error: KorchError) -> None:
        """A node that was reached in this run went away."""
        if node in self._contacts:
            self._lost[node] = self._contacts.pop(node)
        self.errors[node] = error

    def mark_found(self, node: str) -> None:
        """A lost node answers again, as it was when it went away."""
        if node in self._lost:
            self._contacts[node] = self._lost.pop(node)
            self.errors.pop(node, None)

    async def contacts(self, *, claim: bool) -> dict[str, Contact]:
        """Every host that can be worked with, looked at at least once; `claim` marks them as this cluster's."""
        if not self._contacts and not self.errors:
            await self.survey(quick=True)
        usable = {name: found for name, found in self._contacts.items() if found.report.state in _USABLE}
        if claim:
            fresh = {name: found for name, found in usable.items() if found.report.claim is None}
            for name, result in (await self._claim(fresh)).items():
                if isinstance(result, KorchError):
                    self.mark_lost(name, result)
                    usable.pop(name)
        return usable

    async def _claim(self, fresh: Mapping[str, Contact]) -> dict[str, str | KorchError]:
        """Mark machines as this cluster's. Only now a machine shows whether two names lead to it."""
        if not fresh:
            return {}
        results = await each(fresh, lambda _, found: found.machine.claim())
        for name, result in results.items():
            if isinstance(result, str):
                self._tokens.note(name, result)
        nodes = {node.metadata.name: node for node in (await self._cluster.objects.list(Node)).items}
        self._refuse_twins(fresh, nodes)
        return results

    async def attach(self, name: str) -> Contact:
        """Connect to one node, look at it in full, record it and claim it. Raises why it cannot be worked with."""
        await self.transport(name).connect(timeout_s=CONNECT_S)
        (seen,) = await self.survey([name])
        if seen.error is not None:
            raise seen.error
        found = self._contacts[name]
        if found.report.state not in _USABLE:
            raise self.problems[name]
        if found.report.claim is None and isinstance(refused := (await self._claim({name: found}))[name], KorchError):
            raise refused
        return found

    async def close_unlisted(self) -> None:
        """Nodes on record that the inventory no longer has take no new pods."""
        nodes = (await self._cluster.objects.list(Node)).items
        await self._record_gone({node.metadata.name: node for node in nodes})

    async def record_failure(self, name: str, error: KorchError) -> None:
        """The node cannot be worked with: its state, and why, go on record."""
        self.mark_lost(name, error)
        host = self._hosts[name]
        node = await self._cluster.objects.find(Node, name) or await self._created(new_node(host))
        await self._set_status(node, failed_status(node, error, self._cluster.clock.now()))

    async def record_images(self, name: str, fetched: Mapping[str, ImageInfo]) -> None:
        """Images that came to a node since the look: the next run need not ask for them."""
        if fetched:
            with contextlib.suppress(NotFoundError):
                await self._cluster.objects.modify(
                    Node, name, "", lambda old: replace(old, status=with_images(old.status, fetched)), status=True
                )

    async def record_sample(self, name: str, sample: NodeLoad, *, score_changes: bool) -> None:
        """A measurement between looks: into the history always, into the store only when it would change a score."""
        if score_changes:
            await self._cluster.objects.modify(NodeLoad, name, "", lambda old: _newer(old, sample))
        with contextlib.suppress(KorchError, OSError):
            await self._history.append(Sample(name, self._cluster.clock.now(), _measured(sample)))

    def _announce(self, host: Host, node: Node | None, report: NodeReport | None) -> None:
        """A node can be worked with. `node`: as it is on record; `report`: what a full look has brought since then."""
        if not self._arrivals:
            return
        found = new_node(host) if node is None else declared_node(host, node)
        if report is not None:
            found = replace(found, status=seen_status(found, host, report, "", self._cluster.clock.now()))
        for queue in self._arrivals:
            queue.put_nowait(found)

    async def usable(self, suits: Callable[[Node], bool] | None = None) -> AsyncGenerator[Machine, None]:
        """Machines that can be worked with, each as soon as it has answered: the first need not wait for the last.

        `suits` judges by what is known of the node.
        """
        async with contextlib.aclosing(self._answering()) as nodes:
            async for node in nodes:
                if suits is None or suits(node):
                    yield self.machine(node.metadata.name)

    async def _answering(self) -> AsyncGenerator[Node, None]:
        if self._contacts or self.errors:
            for node in (await self._cluster.objects.list(Node)).items:
                found = self._contacts.get(node.metadata.name)
                if found is not None and found.report.state in _USABLE:
                    yield node
            return
        queue: asyncio.Queue[Node] = asyncio.Queue()
        self._arrivals.append(queue)
        looking = self._looking = asyncio.create_task(self.contacts(claim=False))
        try:
            while not (looking.done() and queue.empty()):
                arrival = asyncio.create_task(queue.get())
                await asyncio.wait({arrival, looking}, return_when=asyncio.FIRST_COMPLETED)
                if arrival.done():
                    yield arrival.result()
                else:
                    arrival.cancel()
        except asyncio.CancelledError:
            looking.cancel()
            raise
        finally:
            self._arrivals.remove(queue)
            await looking

    async def recorded(self, suits: Callable[[Node], bool] | None = None) -> AsyncGenerator[Machine, None]:
        """Machines that are on record as Ready, as a master keeps them; none is looked at, each connects when used."""
        for node in (await self._cluster.objects.list(Node)).items:
            ready = condition(node.status.conditions, "Ready")
            if node.metadata.name not in self._hosts or ready is None or ready.status != "True":
                continue
            if suits is not None and not suits(node):
                continue
            machine = self.machine(node.metadata.name)
            if known := known_engine(node, self._cluster.clock.now()):
                machine.assume(known[0])
            yield machine

    def stop_looking(self) -> None:
        """Let a caller of `usable` that is cancelled itself leave without waiting for silent nodes."""
        if self._looking is not None:
            self._looking.cancel()

    async def survey(
        self, names: Sequence[str] = (), *, measure_cpu: bool = False, quick: bool = False
    ) -> tuple[NodeSeen, ...]:
        """Look at nodes now and record it, in the inventory's order. No names: all, and those that left it.

        A `quick` look leaves images and volumes as they were seen some minutes ago.
        """
        wanted = {node_name(self.host(name).name): self.host(name) for name in names} or self._hosts
        loads = {load.metadata.name: load for load in (await self._cluster.objects.list(NodeLoad)).items}
        nodes = {node.metadata.name: node for node in (await self._cluster.objects.list(Node)).items}

        async def look(name: str, host: Host) -> NodeReport:
            await self.transport(name).connect(timeout_s=CONNECT_S)
            old = loads.get(name)
            known = known_engine(nodes.get(name), self._cluster.clock.now()) if quick else None
            if known is not None:
                self.machine(name).assume(known[0])
                self._announce(host, nodes.get(name), None)
            report = await self.machine(name).report(
                measure_cpu=measure_cpu and not begins_difference(old, self._cluster.clock.now()),
                inventory=known is None,
                known=known,
            )
            if known is None and report.state in _USABLE:
                self._announce(host, nodes.get(name), report)
            return report

        looked = await each(wanted, look)
        for name, report in looked.items():
            if not isinstance(report, KorchError):
                self._tokens.note(name, report.machine_token)
        self._refuse_twins(looked, nodes)
        seen = await asyncio.gather(
            *(self._record(name, host, looked[name], nodes.get(name), loads.get(name)) for name, host in wanted.items())
        )
        gone = () if names else await self._record_gone(nodes)
        await self._keep_history(seen)
        return (*seen, *gone)

    def _refuse_twins(self, names: Iterable[str], nodes: Mapping[str, Node]) -> None:
        """Two names for one machine; as of now where this process has asked, else as it is on record."""
        found = {name: nodes.get(name) for name in self._hosts}
        self._tokens.refuse_twins(
            names,
            {name: node.metadata.annotations.get(CLAIM_TOKEN, "") if node else "" for name, node in found.items()},
        )

    async def _record(
        self, name: str, host: Host, found: NodeReport | KorchError, node: Node | None, load: NodeLoad | None
    ) -> NodeSeen:
        objects, now = self._cluster.objects, self._cluster.clock.now()
        if node is None:
            node = await self._created(new_node(host))
        elif declared_node(host, node) != node:
            node = await objects.modify(Node, name, "", lambda old: declared_node(host, old))
        booted = node.status.node_info.boot_id
        self._lost.pop(name, None)
        if isinstance(found, KorchError):
            self._contacts.pop(name, None)
            self.errors[name] = found
            node = await self._set_status(node, failed_status(node, found, now))
            return NodeSeen(node, load, found)
        self.errors.pop(name, None)
        address = choose_address(found, host, ssh_address=await self._ssh_address(host))
        if noted(node, found, now) != node:
            node = await objects.modify(Node, name, "", lambda old: noted(old, found, now))
        node = await self._set_status(node, seen_status(node, host, found, address, now))
        images = frozenset(image for held in node.status.images for image in held.names)
        self._contacts[name] = Contact(host, self.machine(name), found, address or "", images | found.image_names)
        sample = load_of(name, found, load, now, boot_id=booted)
        sample = await (
            self._created(sample) if load is None else objects.modify(NodeLoad, name, "", lambda _: _newer(_, sample))
        )
        return NodeSeen(node, sample)

    async def _set_status(self, node: Node, status: object) -> Node:
        return await self._cluster.objects.modify(
            Node, node.metadata.name, "", lambda old: replace(old, status=status), status=True
        )

    async def _created(self, obj: AnObject) -> AnObject:
        """The new object, or the one that another korch has made at the same time."""
        try:
            return await self._cluster.objects.create(obj)
        except AlreadyExistsError:
            return await self._cluster.objects.get(type(obj), obj.metadata.name, "")

    async def _ssh_address(self, host: Host) -> str:
        if host.connection == "local":
            return ""
        return (await self._connector.options_for(host)).hostname

    async def _record_gone(self, nodes: dict[str, Node]) -> tuple[NodeSeen, ...]:
        """Nodes that the inventory no longer has: never lost, only closed to new pods."""
        gone = []
        for name in sorted(nodes.keys() - self._hosts.keys()):
            status = without_inventory(nodes[name], self._cluster.clock.now())
            gone.append(NodeSeen(await self._set_status(nodes[name], status), None))
        return tuple(gone)

    async def _keep_history(self, seen: Sequence[NodeSeen]) -> None:
        """Into the bounded local file of samples; a full disk there spoils nothing else."""
        now = self._cluster.clock.now()
        samples = [
            Sample(found.node.metadata.name, now, _measured(found.load))
            for found in seen
            if found.load is not None and found.error is None
        ]
        with contextlib.suppress(KorchError, OSError):
            await self._history.append(*samples)

    async def close(self) -> None:
        """Hang up everywhere."""
        await asyncio.gather(*(transport.close() for transport in self._transports.values()), return_exceptions=True)
        await self._history.close()
        await self._connector.close()


_REFUSALS: dict[str, type[HostRefusedError]] = {
    kind.reason: kind for kind in (EngineDownError, EngineMissingError, NoPermissionError, ClaimedByOtherError)
}
_USABLE = frozenset({"Ready", "DiskPressure", "MemoryPressure"})


def _measured(load: NodeLoad) -> dict[str, float]:
    """The figures of a sample that a history is kept of."""
    used = load.memory_total_bytes - load.memory_available_bytes
    figures = {"load1": load.load1, "memory": used / load.memory_total_bytes if load.memory_total_bytes else 0.0}
    return figures | ({"cpu": load.cpu_busy} if load.cpu_busy is not None else {})


def _newer(old: NodeLoad, sample: NodeLoad) -> NodeLoad:
    """The new sample with the identity of the stored one."""
    return replace(sample, metadata=old.metadata)
