"""Looking at one node: what it is, which engine answers there and as which user, which containers stand, what happens.

Whatever else is done there (`holding.py`, `machine.py`) builds on the engine that was found here.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from korch.client.base import ContainerUsage
from korch.engines.events import events as event_words
from korch.engines.images import LIST_TEMPLATE
from korch.engines.observed import ObservedContainer, inspect_template, parse_containers
from korch.engines.wish import EngineName
from korch.errors import EngineDownError, EngineMissingError, HostRefusedError, KorchError, NoPermissionError
from korch.nodes.answer import Answer, Section
from korch.nodes.courier import Courier
from korch.nodes.errors import engine_error
from korch.nodes.leftovers import Leftovers
from korch.nodes.report import HUNG_HINT, ClusterIdentity, NodeReport, parse_clock, parse_report
from korch.nodes.session import SILENCE_S, Session, open_session, pulses_a_sample
from korch.nodes.usage import TEMPLATE, parse_usage
from korch.ssh.base import Transport

_NO_CONTAINER = re.compile(r"no such (container|object)", re.IGNORECASE)
_REPORT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look asks for: the parameters of `Looking.report`."""

    measure_cpu: bool = False
    inventory: bool = True
    doctor: bool = False
    known: tuple[EngineName, str] | None = None


class Looking:
    """One node, as it is looked at.

    `engine`: as the inventory says; None = the one that answers, Docker first. `become`: as the inventory says; None =
    with sudo only when the user may not use the engine without. `state_root` is for tests.
    """

    def __init__(
        self,
        transport: Transport,
        cluster: ClusterIdentity,
        *,
        engine: EngineName | None = None,
        shared: bool = False,
        become: bool | None = None,
        state_root: str = "",
    ) -> None:
        self.transport, self.cluster = transport, cluster
        self._wanted = engine
        self._may_become = become is None
        self._known = engine is not None and become is not None  # else a look settles the user and the engine
        self._assumed = False  # what is known is an earlier look's: it may be another user's
        self._settling = asyncio.Lock()
        self._leftovers = Leftovers()
        self._data_folder = ""  # of the engine, as the last look found it
        self._courier = Courier(transport, cluster, shared=shared, become=become, engine=engine, state_root=state_root)

    @property
    def host(self) -> str:
        """The host's name in the inventory."""
        return self.transport.host

    @property
    def engine(self) -> EngineName | None:
        """The engine that answers there; None before the first look."""
        return self._courier.engine

    def assume(self, engine: EngineName) -> None:
        """Take over what a look some minutes ago found, so that the first act need not wait for another look."""
        if not self._known:
            self._known, self._assumed, self._courier.engine = True, True, engine

    # Looking

    async def report(
        self,
        *,
        measure_cpu: bool = False,
        inventory: bool = True,
        doctor: bool = False,
        known: tuple[EngineName, str] | None = None,
    ) -> NodeReport:
        """Everything about the node in one round trip; a second one only if the engine turns out to need sudo.

        `measure_cpu` samples for 0.6 s there; `inventory` adds images and volumes; `doctor` asks sudo too. Trouble with
        the engine or a foreign claim is a state of the report, not an error. `known`: the engine and what it `said`
        about itself lately, which is then not asked again.
        """
        look = _Look(measure_cpu, inventory, doctor, known)
        async with self._settling:
            return await self._report(look)

    async def _report(self, look: _Look) -> NodeReport:
        found = await self._look(look)
        if look.known is not None and found.engine.state != "Ready":
            return await self._report(replace(look, known=None))
        if found.engine.state == "NoPermission" and self._may_become and self._courier.become is None and found.uid:
            found = await self._look_with_sudo(found, replace(look, known=None))
        self._known, self._assumed = found.engine.state == "Ready", False
        if self._known:
            self._courier.engine, self._data_folder = found.engine.name, found.engine.data_folder
        return found

    async def _look_with_sudo(self, found: NodeReport, look: _Look) -> NodeReport:
        if found.sudo is False:
            return found
        self._courier.become = True
        try:
            better = await self._look(look)
        except KorchError:
            self._courier.become = None
            return found
        if better.engine.state == "NoPermission":
            self._courier.become = None
            return found
        return replace(better, user=found.user, uid=found.uid, sudo=True)

    async def _look(self, look: _Look) -> NodeReport:
        asked: tuple[EngineName, ...] = (self._wanted,) if self._wanted else ("docker", "podman")
        said = ""
        if look.known is not None:
            asked, said = (look.known[0],), look.known[1]
        flags = ("1" if flag else "0" for flag in (look.inventory, look.measure_cpu, look.doctor))
        templates = (inspect_template("docker"), inspect_template("podman"), LIST_TEMPLATE)
        answer, received_at, took_s = await self._courier.timed(
            "report", *templates, *flags, " ".join(asked), said, timeout_s=_REPORT_TIMEOUT_S
        )
        return parse_report(
            answer,
            host=self.host,
            cluster_id=self.cluster.id,
            asked=asked,
            received_at=received_at,
            took_s=took_s,
            shared=self._courier.shared,
        )

    async def containers(self) -> tuple[ObservedContainer, ...]:
        """The containers of every korch cluster there, by name."""
        engine = await self._settled()
        answer = await self._courier.ask("containers", inspect_template(engine))
        look = answer.first("look")
        if look is None or look.rest != "0":
            text = look.text if look else ""
            self._refuse_hung(text)
            raise engine_error(self.host, "the containers", text, step="look", engine=engine)
        return self._observed(look, answer)

    async def container(self, name: str) -> ObservedContainer | None:
        """One container, in one call of the engine; None when there is none of that name."""
        engine = await self._settled()
        answer = await self._courier.ask("container", inspect_template(engine), name)
        look = answer.first("look")
        text = look.text if look else ""
        if look is None or look.rest != "0":
            if _NO_CONTAINER.search(text):
                return None
            self._refuse_hung(text)
            raise engine_error(self.host, f"container {name}", text, step="look", engine=engine)
        return next(iter(self._observed(look, answer)), None)

    def _refuse_hung(self, text: str) -> None:
        """A look that its deadline ended, and that has nothing to say: the engine is there, and hangs."""
        if not text.strip():
            raise EngineDownError(
                f"{self.host}: {self._courier.engine} did not answer within 20 s",
                host=self.host,
                hint=HUNG_HINT,
            )

    @staticmethod
    def _observed(look: Section, answer: Answer) -> tuple[ObservedContainer, ...]:
        clock = answer.first("clock")
        return parse_containers(look.text, node_now=parse_clock(clock.text) if clock else None)

    async def living(self, ids: Collection[str]) -> frozenset[str] | None:
        """Which of these containers have processes, asked of the kernel; None when this user cannot see them all."""
        answer = await self._courier.ask("processes")
        found = answer.first("processes")
        if found is None or found.rest != "all":
            return None
        return frozenset(one for one in ids if one in found.text)

    @asynccontextmanager
    async def session(self, *, every_s: int = 2, events: bool = True) -> AsyncIterator[Session]:
        """News of the node as they happen, for as long as the context: a pulse every `every_s`, its load, its events.

        `events`: those of this cluster's containers, through a restart of the engine too. To begin with it must
        answer (`EngineDownError` and its like say if not); a node without one has sessions without events.
        """
        engine: EngineName | None = await self._settled() if events else None
        words = event_words(engine, self.cluster.id) if engine else ()
        numbers = (str(every_s), str(pulses_a_sample(every_s)), str(SILENCE_S))
        script = self._courier.script("session", *numbers, self._data_folder, *words, timeout_s=0)
        become = self._courier.become if events else False
        async with open_session(self.transport, script, become=become, engine=engine or "docker") as session:
            yield session

    async def usage(self) -> tuple[ContainerUsage, ...]:
        """What the cluster's running containers use now: CPU over 0.6 s, memory without what the kernel can drop."""
        engine = await self._settled()
        answer = await self._courier.ask("usage", TEMPLATE)
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, "the containers", failed.text, step="look", engine=engine)
        return parse_usage(answer)

    async def _settled(self) -> EngineName:
        """The engine that answers, after a look if there was none. Raises what is wrong with it."""
        if not self._known:
            async with self._settling:
                if not self._known:
                    self._refuse(await self._report(_Look(inventory=False)))
        assert self._courier.engine is not None
        return self._courier.engine

    def _refuse(self, found: NodeReport) -> None:
        errors = {"NoPermission": NoPermissionError, "EngineMissing": EngineMissingError}
        kind: type[HostRefusedError] = errors.get(found.engine.state, EngineDownError)
        if found.engine.state != "Ready":
            raise kind(f"{self.host}: {found.engine.message}", host=self.host, hint=found.engine.hint)

    @staticmethod
    def _lines(answer: Answer, word: str) -> tuple[str, ...]:
        section = answer.first(word)
        return tuple(line for line in section.lines if line) if section else ()

    @staticmethod
    def _first(answer: Answer, word: str) -> str:
        section = answer.first(word)
        return section.rest if section else ""
