"""The hosts of a cluster as this process reaches them: connected and looked at all at once, each with its outcome."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence

from msgspec.structs import replace

from korch.client.base import NodeSeen
from korch.errors import HostUnreachableError, InvalidError, KorchError
from korch.inventory.hostnames import node_name
from korch.inventory.model import Host
from korch.master.cluster import Cluster
from korch.master.contacts import Contact, Contacts, is_usable
from korch.master.gathering import each
from korch.master.ledger import Ledger, OnRecord
from korch.master.rounds import Round
from korch.master.twins import Tokens
from korch.nodes.machine import Machine
from korch.nodes.register import CLAIM_TOKEN, begins_difference, declared_node, known_engine, new_node, seen_status
from korch.nodes.report import NodeReport
from korch.resources.meta import Object
from korch.resources.node import Node, node_address
from korch.resources.podstate import condition

CONNECT_S = 10.0


class Fleet(Ledger):
    """Connections to the hosts, and what the last look at each came to."""

    def __init__(self, cluster: Cluster, *, prompt: Callable[[str], str] | None = None) -> None:
        super().__init__(cluster, prompt=prompt)
        self._contacts = Contacts()
        self._tokens = Tokens()
        self._before_round = OnRecord({}, {})
        self._round: Round | None = None  # of a quick look at all, until the last answer is taken

    @property
    def placeable(self) -> frozenset[str]:
        """Nodes that were reached and that `--limit` leaves."""
        return self.listed & self._contacts.answering.keys()

    @property
    def answering(self) -> Mapping[str, Contact]:
        """Every node that answered the last look, whatever its state."""
        return self._contacts.answering

    @property
    def errors(self) -> Mapping[str, KorchError]:
        """Why each of the others did not."""
        return self._contacts.errors

    @property
    def problems(self) -> dict[str, KorchError]:
        """Why each node that cannot be worked with cannot: not reached, or no engine to work with."""
        return self._contacts.problems

    def act_for(self, cluster: Cluster) -> None:
        """Go on as another cluster (after an adoption), over the same connections. The next step is a look."""
        self._cluster = cluster
        self._machines.clear()
        self._contacts.clear()
        self._tokens.forget()

    async def renew(self, cluster: Cluster) -> frozenset[str]:
        """Go on with another inventory; the nodes that are gone from it or reached otherwise now. Those are hung up."""
        hosts = {node_name(host.name): host for host in cluster.hosts().hosts}
        other = self.differing(cluster)
        self._cluster, self._hosts = cluster, hosts
        leaving = [transport for name in other if (transport := self._transports.pop(name, None)) is not None]
        for name in other:
            self._machines.pop(name, None)
        self._contacts.forget(other)
        self._tokens.forget(other)
        await asyncio.gather(*(transport.close() for transport in leaving), return_exceptions=True)
        return other

    def mark_lost(self, node: str, error: KorchError) -> None:
        """A node that was reached in this run went away."""
        self._contacts.lose(node, error)

    def mark_found(self, node: str) -> None:
        """A lost node answers again, as it was when it went away."""
        self._contacts.find(node)

    # Looking

    async def survey(
        self, names: Sequence[str] = (), *, measure_cpu: bool = False, quick: bool = False
    ) -> tuple[NodeSeen, ...]:
        """Look at nodes now and record it, in the inventory's order. No names: all, and those that left it.

        A `quick` look leaves images and volumes as they were seen some minutes ago.
        """
        wanted = {node_name(self.host(name).name): self.host(name) for name in names} or self._hosts
        if not names:
            await self._stop_round()
        before = await self.on_record()
        look = self._look(before, measure_cpu=measure_cpu, quick=quick)
        looks = Round(wanted, look)
        try:
            await looks.all()
        finally:
            await looks.stop()
        answers = looks.take()
        self._check_twins(answers, before.nodes)
        seen = await self._record_all({name: answers[name] for name in wanted}, before)
        return (*seen, *(() if names else await self._record_gone(before.nodes)))

    def _look(
        self, before: OnRecord, *, measure_cpu: bool = False, quick: bool = False
    ) -> Callable[[str, Round], Coroutine[None, None, NodeReport]]:
        """How to look at one host."""

        async def look(name: str, looks: Round) -> NodeReport:
            await self.transport(name).connect(timeout_s=CONNECT_S)
            host, node, now = self._hosts[name], before.nodes.get(name), self._cluster.clock.now()
            found = new_node(host) if node is None else declared_node(host, node)
            known = known_engine(node, now) if quick else None
            if known is not None:
                self.machine(name).assume(known[0])
                looks.arrive(found)
            report = await self.machine(name).report(
                measure_cpu=measure_cpu and not begins_difference(before.loads.get(name), now),
                inventory=known is None,
                known=known,
            )
            if known is None and is_usable(report):
                looks.arrive(replace(found, status=seen_status(found, host, report, "", now)))
            return report

        return look

    async def _opened(self) -> Round:
        """The quick look at all that is under way, or begins now."""
        if self._round is None:
            before = await self.on_record()
            doubtful = frozenset(name for name, node in before.nodes.items() if _was_silent(node))
            self._round, self._before_round = Round(self._hosts, self._look(before, quick=True), doubtful), before
        return self._round

    async def _stop_round(self) -> None:
        looks, self._round = self._round, None
        if looks is not None:
            await looks.stop()

    async def look_anew(self) -> None:
        """Whatever was seen so far is old: the next who needs hosts looks at them."""
        await self._stop_round()
        self._contacts.clear()

    async def contacts(self, *, claim: bool, hurried: bool = False) -> dict[str, Contact]:
        """Every host that can be worked with, looked at at least once; `claim` marks them as this cluster's.

        `hurried`: without those that let all others wait. They count as not reached until `late` tells of them.
        """
        if not self._contacts or (self._round is not None and not hurried):
            await self._gather(hurried=hurried)
        usable = self._contacts.usable
        if claim:
            fresh = {name: found for name, found in usable.items() if found.report.claim is None}
            for name, result in (await self._claim(fresh)).items():
                if isinstance(result, KorchError):
                    self.mark_lost(name, result)
                    usable.pop(name)
        return usable

    async def _gather(self, *, hurried: bool) -> None:
        """Take and record what the look at all has brought."""
        looks = await self._opened()
        await (looks.first() if hurried else looks.all())
        answers, before = looks.take(), self._before_round
        try:
            self._check_twins(answers, before.nodes)
        except InvalidError:  # by the record of a host that comes late, perhaps: it tells itself what it is now
            if not looks.pending:
                raise
            await looks.all()
            answers |= looks.take()
            self._check_twins(answers, before.nodes)
        for name in looks.pending:
            error = HostUnreachableError(f"{name} has not answered yet; this run goes on without it", host=name)
            if name in looks.doubtful:
                self._contacts.failed(name, error)
            else:
                answers[name] = error
        await self._record_all(answers, before)
        await self._record_gone(before.nodes)
        if not looks.left:
            self._round = None

    async def why_nowhere(self, obj: Object) -> str:
        """Why no node takes a pod of `obj` now; "" when one does."""
        from korch.master.hosting import why_nowhere

        before = await self.on_record()
        nodes, now = tuple(before.nodes.values()), self._cluster.clock.now()
        return why_nowhere(obj, nodes, before.loads, self.listed, now)

    @property
    def awaited(self) -> frozenset[str]:
        """Hosts that let the others wait, and answered the last time: they may still come."""
        return self._round.left - self._round.doubtful if self._round is not None else frozenset()

    async def late(self) -> AsyncGenerator[str, None]:
        """Hosts that answered, or failed, after `contacts` went on without them, each once it is on record."""
        looks = self._round
        while looks is not None and await looks.more() and self._round is looks:
            for name, found in looks.take().items():
                await self._record_late(name, found)
                yield name
        if self._round is looks:
            self._round = None

    async def _record_late(self, name: str, found: NodeReport | KorchError) -> None:
        before = await self.on_record()
        try:
            self._check_twins({name: found}, before.nodes)
        except InvalidError as error:
            found = error
        await self._record_all({name: found}, before)
        contact = self._contacts.usable.get(name)
        if contact is None or contact.report.claim is not None:
            return
        try:
            (result,) = (await self._claim({name: contact})).values()
        except InvalidError as error:
            result = error
        if isinstance(result, KorchError):
            self.mark_lost(name, result)

    def _check_twins(self, answers: Mapping[str, NodeReport | KorchError], nodes: Mapping[str, Node]) -> None:
        for name, report in answers.items():
            if not isinstance(report, KorchError):
                self._tokens.note(name, report.machine_token)
        self._refuse_twins(answers, nodes)

    async def _record_all(
        self, answers: Mapping[str, NodeReport | KorchError], before: OnRecord
    ) -> tuple[NodeSeen, ...]:
        looks = (self._record(self._hosts[name], found, before) for name, found in answers.items())
        seen = await asyncio.gather(*looks)
        await self._keep_history(seen)
        return tuple(seen)

    async def _record(self, host: Host, found: NodeReport | KorchError, before: OnRecord) -> NodeSeen:
        name = node_name(host.name)
        if isinstance(found, KorchError):
            self._contacts.failed(name, found)
        seen = await self.record_look(host, found, before)
        if not isinstance(found, KorchError):
            images = frozenset(image for held in seen.node.status.images for image in held.names) | found.image_names
            contact = Contact(host, self.machine(name), found, node_address(seen.node), images)
            self._contacts.answered(name, contact)
        return seen

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
        found = self._contacts.answering[name]
        if not is_usable(found.report):
            raise self.problems[name]
        if found.report.claim is None and isinstance(refused := (await self._claim({name: found}))[name], KorchError):
            raise refused
        return found

    async def usable(self, suits: Callable[[Node], bool] | None = None) -> AsyncGenerator[Machine, None]:
        """Machines that can be worked with, each as soon as it has answered: the first need not wait for the last.

        `suits` judges by what is known of the node.
        """
        async with contextlib.aclosing(self._answering()) as nodes:
            async for node in nodes:
                if suits is None or suits(node):
                    yield self.machine(node.metadata.name)

    async def _answering(self) -> AsyncGenerator[Node, None]:
        if self._contacts:
            for node in (await self._cluster.objects.list(Node)).items:
                if node.metadata.name in self._contacts.usable:
                    yield node
            return
        async with contextlib.aclosing((await self._opened()).arrivals()) as nodes:
            async for node in nodes:
                yield node

    async def record_failure(self, name: str, error: KorchError) -> None:
        """The node cannot be worked with: its state, and why, go on record."""
        self.mark_lost(name, error)
        await super().record_failure(name, error)

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

    def _refuse_twins(self, names: Iterable[str], nodes: Mapping[str, Node]) -> None:
        """Two names for one machine; as of now where this process has asked, else as it is on record."""
        found = {name: nodes.get(name) for name in self._hosts}
        self._tokens.refuse_twins(
            names,
            {name: node.metadata.annotations.get(CLAIM_TOKEN, "") if node else "" for name, node in found.items()},
        )

    async def close(self) -> None:
        """Hang up everywhere."""
        await self._stop_round()
        await asyncio.gather(*(transport.close() for transport in self._transports.values()), return_exceptions=True)
        await self._history.close()
        await self._connector.close()


def _was_silent(node: Node) -> bool:
    """Whether it did not answer the last look."""
    ready = condition(node.status.conditions, "Ready")
    return ready is not None and ready.status == "Unknown"
