"""One node, and everything that korch does there. Thin: it builds a script or a command, runs it, reads the answer.

What a script does stands in `scripts/`; what an answer means in `report.py`, `errors.py` and `korch/engines`. Every
action carries the epoch of the master that asks, and the node refuses it when it has seen a higher one.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from korch.client.base import ContainerUsage
from korch.engines.base import Command
from korch.engines.events import events as event_words
from korch.engines.images import (
    LIST_TEMPLATE,
    ImageInfo,
    check_reference,
    engine_reference,
    image_template,
    parse_image,
    parse_image_list,
    prunable,
)
from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer, image_id, inspect_template, parse_containers
from korch.engines.run import run
from korch.engines.wish import ContainerWish, EngineName, FileVolume
from korch.errors import (
    CommandFailedError,
    EngineDownError,
    EngineMissingError,
    HostRefusedError,
    KorchError,
    NoPermissionError,
)
from korch.nodes.answer import Answer, Section
from korch.nodes.courier import Courier
from korch.nodes.errors import engine_error, port_holder
from korch.nodes.parcels import StoredWish, WorkloadRecord, files_values, one_line, packed, start_values
from korch.nodes.report import ClusterIdentity, NodeReport, parse_clock, parse_report
from korch.nodes.session import SILENCE_S, Session, open_session, pulses_a_sample
from korch.nodes.usage import TEMPLATE, parse_usage
from korch.ssh.base import Result, Transport

__all__ = ["ClusterIdentity", "Ended", "Machine"]

_NO_CONTAINER = re.compile(r"no such (container|object)", re.IGNORECASE)
_START_TIMEOUT_S = 180.0
_REPORT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container stands after its end, unless it is gone; and what went wrong with its hook."""

    container: ObservedContainer | None = None
    hook_problem: str = ""


class Machine:
    """One node.

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
        previous_ticks: tuple[int, int] | None = None,
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
        async with self._settling:
            return await self._report(
                previous_ticks, measure_cpu=measure_cpu, inventory=inventory, doctor=doctor, known=known
            )

    async def _report(
        self,
        previous_ticks: tuple[int, int] | None = None,
        *,
        measure_cpu: bool = False,
        inventory: bool = True,
        doctor: bool = False,
        known: tuple[EngineName, str] | None = None,
    ) -> NodeReport:
        found = await self._look(
            previous_ticks, measure_cpu=measure_cpu, inventory=inventory, doctor=doctor, known=known
        )
        if known is not None and found.engine.state != "Ready":
            return await self._report(previous_ticks, measure_cpu=measure_cpu, inventory=inventory, doctor=doctor)
        if found.engine.state == "NoPermission" and self._may_become and self._courier.become is None and found.uid:
            found = await self._look_with_sudo(found, previous_ticks, measure_cpu, inventory, doctor)
        self._known, self._assumed = found.engine.state == "Ready", False
        if self._known:
            self._courier.engine, self._data_folder = found.engine.name, found.engine.data_folder
        return found

    async def _look_with_sudo(
        self,
        found: NodeReport,
        previous_ticks: tuple[int, int] | None,
        measure_cpu: bool,
        inventory: bool,
        doctor: bool,
    ) -> NodeReport:
        if found.sudo is False:
            return found
        self._courier.become = True
        try:
            better = await self._look(previous_ticks, measure_cpu=measure_cpu, inventory=inventory, doctor=doctor)
        except KorchError:
            self._courier.become = None
            return found
        if better.engine.state == "NoPermission":
            self._courier.become = None
            return found
        return replace(better, user=found.user, uid=found.uid, sudo=True)

    async def _look(
        self,
        previous_ticks: tuple[int, int] | None,
        *,
        measure_cpu: bool,
        inventory: bool,
        doctor: bool,
        known: tuple[EngineName, str] | None = None,
    ) -> NodeReport:
        asked: tuple[EngineName, ...] = (self._wanted,) if self._wanted else ("docker", "podman")
        if known is not None:
            asked = (known[0],)
        flags = ("1" if flag else "0" for flag in (inventory, measure_cpu, doctor))
        templates = (inspect_template("docker"), inspect_template("podman"), LIST_TEMPLATE)
        answer, received_at, took_s = await self._courier.timed(
            "report", *templates, *flags, " ".join(asked), known[1] if known else "", timeout_s=_REPORT_TIMEOUT_S
        )
        return parse_report(
            answer,
            host=self.host,
            cluster_id=self.cluster.id,
            asked=asked,
            received_at=received_at,
            took_s=took_s,
            previous_ticks=previous_ticks,
            shared=self._courier.shared,
        )

    async def containers(self) -> tuple[ObservedContainer, ...]:
        """The containers of every korch cluster there, by name."""
        engine = await self._settled()
        answer = await self._courier.ask("containers", inspect_template(engine))
        look = answer.first("look")
        if look is None or look.rest != "0":
            text = look.text if look else ""
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
            raise engine_error(self.host, f"container {name}", text, step="look", engine=engine)
        return next(iter(self._observed(look, answer)), None)

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
                    self._refuse(await self._report(inventory=False))
        assert self._courier.engine is not None
        return self._courier.engine

    def _refuse(self, found: NodeReport) -> None:
        errors = {"NoPermission": NoPermissionError, "EngineMissing": EngineMissingError}
        kind: type[HostRefusedError] = errors.get(found.engine.state, EngineDownError)
        if found.engine.state != "Ready":
            raise kind(f"{self.host}: {found.engine.message}", host=self.host, hint=found.engine.hint)

    # Belonging

    async def claim(self) -> str:
        """Mark the machine as this cluster's; the machine's token. Raises `ClaimedByOtherError`. Repeating is safe."""
        await self._settled()
        answer = await self._courier.ask("claim", *self._courier.ownership, "")
        return self._first(answer, "claimed").partition(" ")[0]

    async def set_epoch(self, epoch: int) -> int:
        """Raise the node's epoch (after adopt or restore); what stands there now. `FencedError` if that is higher."""
        await self._settled()
        answer = await self._courier.ask("claim", *self._courier.ownership, str(epoch), epoch=epoch)
        return int(self._first(answer, "claimed").partition(" ")[2])

    async def unclaim(self, *, epoch: int) -> None:
        """Take back the claim and remove what korch wrote there for this cluster. Containers are not touched."""
        await self._settled()
        await self._courier.ask("unclaim", str(epoch), epoch=epoch)

    # Images

    async def resolve_image(self, image: str, *, auth: bytes | None = None, pull: str = "IfNotPresent") -> ImageInfo:
        """What a reference means on this node: id and digest. `pull`: "IfNotPresent", "Always" or "Never"."""
        return await self._image(image, auth, pull, 600.0)

    async def pull(
        self, image_ref: str, *, auth: bytes | None = None, policy: str = "IfNotPresent", timeout_s: float = 600.0
    ) -> ImageInfo:
        """Have the image there. Ids that this brings are recorded: only those may be pruned. `policy`: as in a pod."""
        return await self._image(image_ref, auth, policy, timeout_s)

    async def _image(self, image: str, auth: bytes | None, policy: str, timeout_s: float) -> ImageInfo:
        check_reference(image)
        assumed = self._assumed
        try:
            return await self._image_once(image, auth, policy, timeout_s)
        except HostRefusedError:
            if not assumed:
                raise
        self._known = self._known and not self._assumed  # what was assumed is wrong: look, then try once more
        return await self._image_once(image, auth, policy, timeout_s)

    async def _image_once(self, image: str, auth: bytes | None, policy: str, timeout_s: float) -> ImageInfo:
        engine = await self._settled()
        answer = await self._courier.ask(
            "image",
            *self._courier.ownership,
            engine_reference(engine, image),
            policy,
            image_template(engine),
            "0" if auth is None else "1",
            stdin=auth,
            timeout_s=timeout_s,
        )
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, "", failed.text, step="pull", engine=engine, image=image)
        found = answer.first("image")
        line = next((line for line in (found.lines if found else ()) if line.startswith("{")), None)
        if line is None:
            raise CommandFailedError(f'{self.host}: {engine} does not describe image "{image}"', host=self.host)
        info = parse_image(line, image)
        loaded = {image_id(name.removeprefix("sha256:")) for name in self._lines(answer, "loaded")}
        return replace(info, digest_ref=None) if info.id in loaded else info

    async def load_image(self, source: AsyncIterable[bytes], *, timeout_s: float = 3600.0) -> tuple[ImageInfo, ...]:
        """Load an archive (`docker save`) that comes in pieces; the images in it. Ids it brings are recorded."""
        engine = await self._settled()
        script = self._courier.script("load", *self._courier.ownership, timeout_s=timeout_s)
        async with self.transport.stream(script, become=self._courier.become) as stream:

            async def feed() -> None:
                with contextlib.suppress(BrokenPipeError):
                    async for piece in source:
                        await stream.write(piece)
                    await stream.write_eof()

            feeding = asyncio.create_task(feed(), name=f"image to {self.host}")
            out, err = bytearray(), bytearray()
            try:
                async for number, data in stream.chunks():
                    (out if number == 1 else err).extend(data)
                await feeding
            finally:
                feeding.cancel()
            result = Result(await stream.wait(), bytes(out), bytes(err))
        answer = self._courier.read(result, timeout_s=timeout_s)
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, "the image", failed.text, step="load", engine=engine)
        loaded = answer.first("loaded")
        names = loaded_names(loaded.text if loaded else "")
        return tuple([await self.resolve_image(name, pull="Never") for name in names])

    async def prune(self, keep_refs: Collection[str], *, epoch: int) -> tuple[str, ...]:
        """Remove images that korch brought and nobody uses or wants (`keep_refs`); the ids that are gone."""
        engine = await self._settled()
        answer = await self._courier.ask("prune-look", LIST_TEMPLATE, timeout_s=60.0)
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, "the images", failed.text, step="look", engine=engine)
        brought, used, held = (self._lines(answer, word) for word in ("brought", "used", "images"))
        ids = prunable(
            [image_id(line) for line in brought],
            parse_image_list("\n".join(held)),
            {image_id(line) for line in used},
            set(keep_refs),
        )
        if not ids:
            return ()
        gone = await self._courier.ask(
            "prune", str(epoch), *self._courier.ownership, *ids, timeout_s=300.0, epoch=epoch
        )
        return self._lines(gone, "pruned")

    # Containers

    async def start(
        self, wish: ContainerWish, *, epoch: int, records: Sequence[WorkloadRecord] = (), existing: str = ""
    ) -> ObservedContainer:
        """Have the container run, in one round trip; its first state. `records` are written there before.

        `existing`: the id of this very container as it was seen there; starting it is tried before making it.

        Repeating is safe: the same pod's container is found by its name, and started if it does not run. Raises
        `FencedError`, `ClaimedByOtherError`, `EngineCallError`.
        """
        engine = await self._settled()
        words = run(engine, wish)
        answer = await self._courier.ask(
            "start",
            str(epoch),
            *self._courier.ownership,
            wish.name,
            wish.identity.uid,
            wish.identity.spec_hash,
            inspect_template(engine),
            existing,
            *words,
            stdin=start_values(engine, wish, records),
            timeout_s=_START_TIMEOUT_S,
            epoch=epoch,
        )
        what = f"container {wish.identity.container} of pod {wish.identity.pod}"
        failed = answer.first("failed")
        if failed is not None:
            error = engine_error(self.host, what, failed.text, step="start", engine=engine, image=wish.image)
            holder = port_holder(str(error), self._lines(answer, "others"))
            error.hint = f"{error.hint} It is published by container {holder}." if holder else error.hint
            raise error
        found = parse_containers("\n".join(self._lines(answer, "containers")))
        if not found:
            text = "\n".join(self._lines(answer, "containers"))
            raise engine_error(self.host, what, text, step="start", engine=engine, image=wish.image)
        return found[0]

    async def place(self, uid: str, volumes: Sequence[FileVolume], *, epoch: int) -> None:
        """Bring the files of a pod's volumes up to date there, each volume at once. Repeating is safe.

        Nothing is made for a pod that has no files there: it has not begun, or is gone.
        """
        await self._settled()
        words = (str(epoch), *self._courier.ownership, uid)
        await self._courier.ask("place", *words, stdin=files_values(volumes), timeout_s=60.0, epoch=epoch)

    async def stop(self, identity: Identity, *, grace_s: int, epoch: int, hook: Sequence[str] = ()) -> Ended:
        """End the pod's container and keep it; it is not started again by the engine. None there is fine.

        `hook` is run before, within the grace time: `exec WORD...` or `sleep SECONDS`.
        """
        return await self._remove(identity, grace_s, epoch, hook, remove=False)

    async def remove(self, identity: Identity, *, grace_s: int, epoch: int, hook: Sequence[str] = ()) -> Ended:
        """End the pod's container, remove it with its anonymous volumes. None there is fine; repeating is safe.

        The wish of the workload that `identity.owner` names goes with its last container here. `hook`: as for `stop`.
        """
        return await self._remove(identity, grace_s, epoch, hook, remove=True)

    async def _remove(
        self, identity: Identity, grace_s: int, epoch: int, hook: Sequence[str], *, remove: bool
    ) -> Ended:
        engine = await self._settled()
        answer = await self._courier.ask(
            "remove",
            str(epoch),
            *self._courier.ownership,
            identity.uid,
            identity.container,
            str(grace_s),
            "1" if remove else "0",
            identity.namespace,
            identity.owner,
            inspect_template(engine),
            *hook,
            timeout_s=grace_s + 60.0,
            epoch=epoch,
        )
        failed = answer.first("failed")
        if failed is not None:
            what = f"container {identity.container} of pod {identity.pod}"
            raise engine_error(self.host, what, failed.text, step="remove" if remove else "stop", engine=engine)
        found = parse_containers("\n".join(self._lines(answer, "containers")))
        return Ended(next(iter(found), None), _hook_problem(answer, hook))

    # Logs and programs in containers

    async def ready(self) -> EngineName:
        """The engine that answers there, after a look if there was none. Raises what is wrong with it."""
        return await self._settled()

    async def logs_command(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: str = "", timestamps: bool = False
    ) -> Command:
        """For `Transport.stream`, with `self.become`. `since`: `10m`, or an RFC 3339 time of the node's clock."""
        engine = await self._settled()
        words = (
            *(("--follow",) if follow else ()),
            *(("--tail", str(tail)) if tail is not None else ()),
            *(("--since", since) if since else ()),
            *(("--timestamps",) if timestamps else ()),
        )
        return Command((engine, "logs", *words, name), timeout_s=0)

    async def exec_command(self, name: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False) -> Command:
        """For `Transport.stream`, with `self.become`: a program in the container."""
        engine = await self._settled()
        flags = (*(("--interactive",) if stdin else ()), *(("--tty",) if tty else ()))
        return Command((engine, "exec", *flags, name, *argv), timeout_s=0)

    @property
    def become(self) -> bool | None:
        """What to tell the transport beside a command of this machine."""
        return self._courier.become

    async def last_logs(self, name: str, lines: int = 20) -> str:
        """The end of the container's log, both streams in their order."""
        engine = await self._settled()
        answer = await self._courier.ask("logs", name, str(lines))
        failed = answer.first("failed")
        if failed is not None:
            raise engine_error(self.host, f"the log of {name}", failed.text, step="look", engine=engine)
        return "\n".join(line.removeprefix(">") for line in self._lines(answer, "log"))

    async def exec_probe(self, name: str, argv: Sequence[str], timeout_s: float) -> Result:
        """How a program in the container ended; status 124 when it took too long."""
        engine = await self._settled()
        command = Command((engine, "exec", name, *argv), timeout_s=timeout_s)
        return await self.transport.run(command, become=self._courier.become)

    # Wishes

    async def write_wish(self, namespace: str, workload: str, json_bytes: bytes, *, epoch: int) -> None:
        """Keep the last full wish of a workload on the node."""
        record = WorkloadRecord(namespace, workload, json_bytes)
        word = packed(one_line(record.content))
        await self._wish(record.file, word, epoch)

    async def remove_wish(self, namespace: str, workload: str, *, epoch: int) -> None:
        """Forget it there; none is fine."""
        await self._wish(WorkloadRecord(namespace, workload, b"").file, "", epoch)

    async def _wish(self, file: str, word: str, epoch: int) -> None:
        await self._settled()
        words = (str(epoch), *self._courier.ownership, file, str(len(word)))
        await self._courier.ask("wish", *words, stdin=f"{word}\n".encode("ascii"), epoch=epoch)

    async def read_wishes(self) -> tuple[StoredWish, ...]:
        """The wishes that the node keeps for this cluster, by file name."""
        await self._settled()
        answer = await self._courier.ask("wishes")
        found = []
        for line in self._lines(answer, "wishes"):
            match = re.match(r"/[^:]*/wishes/([^:/]+):(.*)", line)
            if match:
                found.append(StoredWish(match[1], match[2].encode("utf-8", "surrogateescape")))
        return tuple(sorted(found, key=lambda wish: wish.file))

    @staticmethod
    def _lines(answer: Answer, word: str) -> tuple[str, ...]:
        section = answer.first(word)
        return tuple(line for line in section.lines if line) if section else ()

    @staticmethod
    def _first(answer: Answer, word: str) -> str:
        section = answer.first(word)
        return section.rest if section else ""


def _hook_problem(answer: Answer, hook: Sequence[str]) -> str:
    section = answer.first("hook")
    if section is None:
        return ""
    said = " ".join(line.removeprefix(">").strip() for line in section.lines)[:512]
    how = "was not done in time" if section.rest in {"124", "143"} else f"ended with status {section.rest}"
    return f"{' '.join(hook[1:])}: {how}{': ' + said if said else ''}"


def loaded_names(text: str) -> tuple[str, ...]:
    """The images that `docker load` or `podman load` says it has loaded."""
    names: list[str] = []
    for line in text.splitlines():
        match = re.match(r"Loaded image(?: ID|\(s\))?: (.+)", line.strip())
        if match:
            names += [image_id(name.strip()) for name in match[1].split(",")]
    return tuple(dict.fromkeys(names))
