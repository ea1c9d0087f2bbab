"""The way to containers on their nodes: engine commands and TCP over SSH, on connections of the API's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

from korch.api.streams.targets import Target
from korch.engines.base import Command, Script
from korch.engines.names import container_name
from korch.engines.observed import parse_time
from korch.engines.wish import EngineName
from korch.errors import HostUnreachableError, NotFoundError
from korch.resources.podstate import published_of
from korch.ssh.base import Stream, TcpTunnel

if TYPE_CHECKING:
    from korch.nodes.machine import Machine

LOOK_S = 20.0
DIAL_S = 10.0
_TEMPLATE = "{{.State.Status}}|{{json .State.StartedAt}}|{{json .State.FinishedAt}}"
_LOOK = 'date +%s; "$1" inspect --type container --format "$2" "$3" 2>/dev/null'
_LOG = 'exec "$@" 2>&1'  # one stream, so that both of the container's keep their order
_LOG_TAIL = 'korch_lines=$1; shift; "$@" 2>&1 | tail -n "$korch_lines"'
# The terminal's own echo and line editing are off before the engine sees it: what a client types early counts once.
_ON_TERMINAL = 'stty raw -echo 2>/dev/null; exec "$@"'
_MARK = "KORCH_SESSION"  # in the environment of what exec starts: the only trace that finds it in its container
# Words: MARK=TOKEN ENGINE NAME. Engines leave a program running when their own command ends, so it is looked for: from
# outside, which needs nothing in the container, else (no right to look there) from inside.
_KILL = """korch_kill() {
    korch_found=1
    for korch_signal in HUP TERM KILL; do
        korch_left=
        for korch_process in /proc/[0-9]*; do
            if 2>/dev/null tr '\\0' '\\n' <"$korch_process/environ" | grep -qxF -- "$1" 2>/dev/null; then
                kill "-$korch_signal" "${korch_process#/proc/}" 2>/dev/null
                korch_left=1 korch_found=0
            fi
        done
        [ -n "$korch_left" ] || break
        [ "$korch_signal" = HUP ] || sleep 1
    done
    return $korch_found
}
"""
_KILL_INSIDE = f'{_KILL}\nkorch_kill "$1"'
_KILL_THERE = f'{_KILL}\nkorch_kill "$1" || "$2" exec "$3" sh -c "$4" sh "$1"'
_END_S = 0.05  # for an exit status that has arrived
_DETACH_NEVER = ("ctrl-^,ctrl-^,ctrl-^,ctrl-^", "")  # Docker has no word for none; Podman's is ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A container as its engine shows it. Times are seconds since 1970 on the node's clock."""

    state: str
    now: float
    started_at: float | None
    finished_at: float | None  # of the run before, while it runs


@dataclass(frozen=True, slots=True)
class LogWish:
    """What is wanted of a log. `since`, `until`: seconds since 1970 on the node's clock."""

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    until: float | None = None
    timestamps: bool = False


class Door:
    """Leads to the containers of one cluster. `machine_of` gives the machine of a node, which connects by itself."""

    def __init__(self, machine_of: "Callable[[str], Awaitable[Machine]]", cluster_name: str) -> None:
        self._machine_of, self._cluster_name = machine_of, cluster_name

    async def look(self, target: Target) -> Seen | None:
        """The container now; None when the engine has none."""
        machine = await self._machine(target)
        engine = await machine.ready()
        script = Script(_LOOK, (engine, _TEMPLATE, self._name(target)), timeout_s=LOOK_S)
        result = await machine.transport.run(script, become=machine.become)
        return parse_look(result.text)

    @asynccontextmanager
    async def logs(self, target: Target, wish: LogWish) -> AsyncIterator[Stream]:
        """The running log command; its output is on channel 1."""
        machine = await self._machine(target)
        script = log_script(await machine.ready(), self._name(target), wish)
        async with machine.transport.stream(script, become=machine.become) as stream:
            await stream.write_eof()
            yield stream

    @asynccontextmanager
    async def exec(
        self, target: Target, argv: Sequence[str], *, stdin: bool, size: tuple[int, int] | None
    ) -> AsyncIterator[Stream]:
        """A program in the container, on a terminal if `size` is given. It is ended if it has not when this is left."""
        machine = await self._machine(target)
        engine, name, mark = await machine.ready(), self._name(target), f"{_MARK}={token_hex(8)}"
        words = exec_words(engine, name, argv, mark=mark, stdin=stdin, tty=size is not None)
        ended = False
        try:
            async with self._running(machine, words, size) as stream:
                try:
                    yield stream
                finally:
                    ended = await _has_ended(stream)
        finally:
            if not ended:
                script = Script(_KILL_THERE, (mark, engine, name, _KILL_INSIDE), timeout_s=LOOK_S)
                killing = asyncio.ensure_future(machine.transport.run(script, become=machine.become))
                await asyncio.shield(asyncio.gather(killing, return_exceptions=True))

    @asynccontextmanager
    async def attach(self, target: Target, *, stdin: bool, size: tuple[int, int] | None) -> AsyncIterator[Stream]:
        """The container's own process: its output from now on, its input; it goes on when this is left."""
        machine = await self._machine(target)
        words = attach_words(await machine.ready(), self._name(target), stdin=stdin, tty=size is not None)
        async with self._running(machine, words, size) as stream:
            yield stream

    async def forward(self, target: Target, port: int) -> TcpTunnel:
        """TCP to a port of the pod: at its own address, else where the port is published on the node.

        Raises `OSError` (refused, forbidden, no answer) or a `KorchError`.
        """
        transport = (await self._machine(target)).transport
        problem: OSError | None = None
        for address, number in addresses(target, port):
            try:
                return await transport.forward(address, number, timeout_s=DIAL_S)
            except OSError as error:
                problem = problem or error
        raise problem or ConnectionRefusedError(f"pod {target.name} has no address on {target.node} yet")

    async def _machine(self, target: Target) -> "Machine":
        try:
            return await self._machine_of(target.node)
        except NotFoundError as error:  # of the node: the pod is there
            raise HostUnreachableError(str(error), host=target.node, hint=error.hint) from error

    @asynccontextmanager
    async def _running(
        self, machine: "Machine", words: tuple[str, ...], size: tuple[int, int] | None
    ) -> AsyncIterator[Stream]:
        command = Script(_ON_TERMINAL, words, timeout_s=0) if size else Command(words, timeout_s=0)
        async with machine.transport.stream(command, pty=size, become=machine.become) as stream:
            yield stream

    def _name(self, target: Target) -> str:
        meta = target.pod.metadata
        return container_name(self._cluster_name, meta.namespace, meta.name, target.container, meta.uid)


async def _has_ended(stream: Stream) -> bool:
    try:
        async with asyncio.timeout(_END_S):
            return await stream.wait() >= 0
    except TimeoutError:
        return False


def parse_look(text: str) -> Seen | None:
    """What `_LOOK` prints."""
    lines = text.split("\n")
    if len(lines) < 2 or lines[1].count("|") != 2 or not lines[0].isdecimal():
        return None
    state, started, finished = lines[1].split("|")
    return Seen(state, float(lines[0]), parse_time(started.strip('"')), parse_time(finished.strip('"')))


def log_script(engine: EngineName, name: str, wish: LogWish) -> Script:
    """The log command. With an end, the last lines are taken after it: engines count them before."""
    cut_here = wish.tail is not None and wish.until is not None
    words = (
        *(("--follow",) if wish.follow else ()),
        *(("--tail", str(wish.tail)) if wish.tail is not None and not cut_here else ()),
        *(("--since", _moment(wish.since)) if wish.since is not None else ()),
        *(("--until", _moment(wish.until)) if wish.until is not None else ()),
        *(("--timestamps",) if wish.timestamps else ()),
    )
    whole = (engine, "logs", *words, name)
    return Script(_LOG_TAIL, (str(wish.tail), *whole), timeout_s=0) if cut_here else Script(_LOG, whole, timeout_s=0)


def exec_words(
    engine: EngineName, name: str, argv: Sequence[str], *, mark: str, stdin: bool, tty: bool
) -> tuple[str, ...]:
    """The engine's command for a program in a container."""
    flags = (*(("--interactive",) if stdin else ()), *(("--tty", *_detach(engine)) if tty else ()))
    return (engine, "exec", *flags, "--env", mark, name, *argv)


def attach_words(engine: EngineName, name: str, *, stdin: bool, tty: bool) -> tuple[str, ...]:
    """The engine's command for joining a container's own process."""
    flags = (*(() if stdin else ("--no-stdin",)), *(_detach(engine) if tty else ()))
    return (engine, "attach", "--sig-proxy=false", *flags, name)


def _detach(engine: EngineName) -> tuple[str, str]:
    return "--detach-keys", _DETACH_NEVER[engine == "podman"]


def addresses(target: Target, port: int) -> list[tuple[str, int]]:
    """Where a port of the pod may answer, as its node sees it."""
    own = [(target.pod.status.pod_ip, port)] if target.pod.status.pod_ip else []
    return own + [
        (found.host_ip or "127.0.0.1", found.host_port)
        for found in published_of(target.pod)
        if found.container_port == port and found.host_port and (found.protocol or "TCP") == "TCP"
    ]


def _moment(seconds: float) -> str:
    """As both engines take it: seconds since 1970, with nine digits behind the dot."""
    return f"{seconds:.9f}"
