"""One node, and everything that korch does there. Thin: it builds a script or a command, runs it, reads the answer.

What a script does stands in `scripts/`; what an answer means in `report.py`, `errors.py` and `korch/engines`. Every
action carries the epoch of the master that asks, and the node refuses it when it has seen a higher one.
"""

import asyncio
import contextlib
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from korch.engines import sandbox
from korch.engines.base import Command
from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer, inspect_template, parse_containers
from korch.engines.run import run
from korch.engines.wish import ContainerWish, EngineName, FileVolume
from korch.errors import KorchError
from korch.nodes.answer import Answer
from korch.nodes.errors import EngineCallError, engine_error, port_holder
from korch.nodes.holding import Holding
from korch.nodes.leftovers import MARK
from korch.nodes.parcels import (
    StoredWish,
    WorkloadRecord,
    files_values,
    one_line,
    packed,
    start_values,
)
from korch.nodes.report import ClusterIdentity
from korch.ssh.base import Result
from korch.ssh.frame import STATUS_TIMED_OUT, true_status

__all__ = ["ClusterIdentity", "Ended", "Machine"]

_START_TIMEOUT_S = 180.0
_SPARE_S = 5.0  # beyond a deadline that is kept on the node


@dataclass(frozen=True, slots=True)
class Ended:
    """How containers stand after their end, unless they are gone; and what went wrong with the hook."""

    containers: tuple[ObservedContainer, ...] = ()
    hook_problem: str = ""


class Machine(Holding):
    """One node: its claim, its containers, the wishes that it keeps."""

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

    # Containers

    async def start(
        self, wish: ContainerWish, *, epoch: int, records: Sequence[WorkloadRecord] = (), existing: str = ""
    ) -> ObservedContainer:
        """Have the container run, in one round trip; its first state. `records` are written there before.

        `existing`: the id of this very container as it was seen there; starting it is tried before making it.

        Repeating is safe: the same pod's container is found by its name, and started if it does not run. Raises
        `FencedError`, `ClaimedByOtherError`, `EngineCallError`. The image of sandboxes is brought there if need be.
        """
        try:
            return await self._start(wish, epoch, records, existing)
        except EngineCallError as error:
            if wish.image != sandbox.image_name() or error.pod_reason != "ErrImageNeverPull":
                raise
        await self.bring_sandbox()
        return await self._start(wish, epoch, records, existing)

    async def _start(
        self, wish: ContainerWish, epoch: int, records: Sequence[WorkloadRecord], existing: str
    ) -> ObservedContainer:
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
            wish.sandbox,
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

    async def stop(
        self, identity: Identity, *, grace_s: int, epoch: int, hook: Sequence[str] = (), only: str = ""
    ) -> Ended:
        """End a container of the pod and keep it; it is not started again by the engine. None there is fine.

        Without `identity.container` all of the pod's, its sandbox last.

        `hook` is run before, within the grace time: `exec WORD...` or `sleep SECONDS`. `only`: the id that it has; one
        that was made in its place meanwhile is left alone.
        """
        return await self._remove(identity, grace_s, epoch, hook, only, remove=False)

    async def remove(
        self, identity: Identity, *, grace_s: int, epoch: int, hook: Sequence[str] = (), only: str = ""
    ) -> Ended:
        """End a container of the pod, remove it with its anonymous volumes. None there is fine; repeating is safe.

        Without `identity.container` all of the pod's, its sandbox last.

        The wish of the workload that `identity.owner` names goes with its last container here. `hook` and `only`: as
        for `stop`.
        """
        return await self._remove(identity, grace_s, epoch, hook, only, remove=True)

    async def _remove(
        self, identity: Identity, grace_s: int, epoch: int, hook: Sequence[str], only: str, *, remove: bool
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
            only,
            *hook,
            timeout_s=grace_s + 60.0,
            epoch=epoch,
        )
        failed = answer.first("failed")
        if failed is not None:
            what = f"container {identity.container} of pod {identity.pod}" if identity.container else identity.pod
            raise engine_error(self.host, what, failed.text, step="remove" if remove else "stop", engine=engine)
        found = parse_containers("\n".join(self._lines(answer, "containers")))
        return Ended(found, _hook_problem(answer, hook))

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
        """How a program in the container ended; status 124 when it took too long, or an earlier one cannot be ended."""
        engine = await self._settled()
        if self._leftovers.marks(name) and not await self._clear(name):
            return Result(STATUS_TIMED_OUT, b"", b"")
        mark = secrets.token_hex(8)
        # SIGKILL: Podman's client ends with status 0 at a SIGTERM, and busybox's `timeout` with that of its program.
        limit_s, loop = math.ceil(timeout_s), asyncio.get_running_loop()
        words = ("timeout", "-s", "KILL", str(limit_s), engine, "exec", "--env", f"{MARK}={mark}", name, *argv)
        began = loop.time()
        try:
            result = await self.transport.run(Command(words, timeout_s=limit_s + _SPARE_S), become=self._courier.become)
        except BaseException:
            self._leftovers.add(name, mark, argv)
            raise
        status = true_status(result.status, loop.time() - began, limit_s)
        if status == STATUS_TIMED_OUT:
            self._leftovers.add(name, mark, argv)
            with contextlib.suppress(KorchError):  # else before the next check
                await self._clear(name)
        return Result(status, result.stdout, result.stderr)

    async def _clear(self, name: str) -> bool:
        """Whether nothing is left in the container of checks whose time was over."""
        marks = self._leftovers.marks(name)
        answer = await self._courier.ask("unprobe", name, *marks, timeout_s=10.0)
        found, programs = not self._first(answer, "left").startswith("0"), self._lines(answer, "programs")
        return not self._leftovers.looked(name, marks, found=found, programs=programs)

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


def _hook_problem(answer: Answer, hook: Sequence[str]) -> str:
    section = answer.first("hook")
    if section is None:
        return ""
    said = " ".join(line.removeprefix(">").strip() for line in section.lines)[:512]
    how = "was not done in time" if section.rest in {"124", "143"} else f"ended with status {section.rest}"
    return f"{' '.join(hook[1:])}: {how}{': ' + said if said else ''}"
