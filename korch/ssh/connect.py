"""From hosts to transports: what a process needs once, and calls to many hosts that wait for none of them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from korch.errors import (
    HostKeyChangedError,
    HostKeyUnknownError,
    HostRefusedError,
    HostUnreachableError,
    InvalidError,
    KorchError,
)
from korch.inventory.model import Host
from korch.settings import Settings
from korch.ssh.base import Transport
from korch.ssh.channels import Connection, Dialer
from korch.ssh.hostkeys import HostKey, KnownHosts
from korch.ssh.local import LocalTransport
from korch.ssh.options import OptionsReader, SshOptions, jump_question, question
from korch.ssh.rundir import RunDir
from korch.ssh.slots import SingleFlight
from korch.ssh.transport import SshTransport

if TYPE_CHECKING:
    from korch.ssh.login import Shared

Kind = Literal["fabric", "openssh"]
MOST_JUMPS: Final = 8
Route = list[tuple[tuple[str, ...], SshOptions]]  # jump hosts, nearest to here first: the question and its answer


class ShownKey(msgspec.Struct, frozen=True):
    """The key that a host shows, for a person who decides whether to trust it."""

    host: str  # "jump host b" for one on the way
    name: str  # the name under which it will be known
    key: HostKey
    is_known: bool


@dataclass(slots=True)
class _Bastion:
    """A jump host's one connection, shared by everything behind it."""

    connecting: SingleFlight[Connection]
    link: Connection | None = None


class Connector:
    """Makes transports. One a process; use it as an async context manager, or `close` it.

    `prompt` shows a question and returns what was typed without echo; give it only when there is a terminal.
    """

    def __init__(self, settings: Settings, *, prompt: Callable[[str], str] | None = None) -> None:
        self._settings, self._prompt = settings, prompt
        self._options = OptionsReader()
        self._known_hosts = KnownHosts(settings.known_hosts)
        self._shared: Shared | None = None
        self._folder = RunDir(settings.home)
        self._dialers: dict[Kind, Dialer] = {}
        self._loading = asyncio.Lock()
        self._bastions: dict[tuple[Kind, tuple[str, ...]], _Bastion] = {}

    async def __aenter__(self) -> "Connector":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def transport_for(self, host: Host) -> Transport:
        """A transport that connects when it is first used. The caller closes it."""
        if host.connection == "local":
            return LocalTransport(host)
        return SshTransport(host, lambda timeout_s: self._open(host, timeout_s))

    async def shown_key(self, host: Host, *, timeout_s: float = 10.0) -> ShownKey:
        """The key that the host shows now, or a jump host before it whose key is not accepted yet."""
        options, route, dialer = await self._plan(host)
        via: Connection | None = None
        with _on_the_way_to(host):
            for asked, jump_options in route:
                try:
                    via = await self._bastion_link(host.transport, asked, jump_options, via, timeout_s)
                except (HostKeyUnknownError, HostKeyChangedError):
                    return await self._shown(dialer, _jump_name(jump_options), asked, jump_options, via, timeout_s)
        return await self._shown(dialer, host.name, question(host), options, via, timeout_s)

    async def _shown(
        self,
        dialer: Dialer,
        name: str,
        asked: Sequence[str],
        options: SshOptions,
        via: Connection | None,
        timeout_s: float,
    ) -> ShownKey:
        key = await dialer.host_key(name, asked, options, via=via, timeout_s=timeout_s)
        known = self._known_hosts.lines_for(options.key_name, options.known_hosts)
        return ShownKey(name, options.key_name, key, any(line.key == key and not line.marker for line in known))

    def trust(self, shown: ShownKey) -> None:
        """Accept the key from now on, in place of what korch knew of that host."""
        self._known_hosts.replace(shown.name, shown.key)

    async def greets(self, host: Host, *, timeout_s: float = 1.0) -> bool:
        """Whether the host's sshd speaks on a new connection: a sign of life that needs no login."""
        try:
            options, via, dialer = await self._way_to(host, timeout_s)
        except HostUnreachableError:
            return False
        return await dialer.greets(host.name, options, via=via, timeout_s=timeout_s)

    async def options_for(self, host: Host) -> SshOptions:
        """How OpenSSH would reach the host."""
        return await self._options.read(question(host), host.name)

    async def close(self) -> None:
        """Hang up on the jump hosts and end the threads. Transports are closed by those who use them."""
        for bastion in self._bastions.values():
            bastion.connecting.cancel()
            if bastion.link is not None:
                bastion.link.close()
        self._bastions.clear()
        self._options.close()
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        self._dialers.clear()
        self._folder.close()

    async def _open(self, host: Host, timeout_s: float) -> Connection:
        try:
            options, via, dialer = await self._way_to(host, timeout_s)
            return await dialer.open(host.name, question(host), options, via=via, timeout_s=timeout_s)
        except KorchError:
            self._options.forget(question(host))
            raise

    async def _way_to(self, host: Host, timeout_s: float) -> tuple[SshOptions, Connection | None, Dialer]:
        options, route, dialer = await self._plan(host)
        via: Connection | None = None
        with _on_the_way_to(host):
            for asked, jump_options in route:
                via = await self._bastion_link(host.transport, asked, jump_options, via, timeout_s)
        return options, via, dialer

    async def _plan(self, host: Host) -> tuple[SshOptions, Route, Dialer]:
        words = question(host)
        reading = asyncio.ensure_future(self._options.read(words, host.name))
        try:
            dialer = await self._load(host.transport)  # Fabric's import and `ssh -G` at the same time
        finally:
            options = await reading
        return options, await self._route(host.name, options.jumps, words), dialer

    async def _load(self, kind: Kind) -> Dialer:
        """What makes connections; importing it takes 0.1 s, so it is done once and off the loop."""
        async with self._loading:
            if self._shared is None:
                await asyncio.get_running_loop().run_in_executor(None, _import_login)
                from korch.ssh.login import Shared

                self._shared = Shared(self._known_hosts, self._settings.host_key, prompt=self._prompt)
            if kind not in self._dialers:
                self._dialers[kind] = _dialer(kind, self._shared, self._folder)
        return self._dialers[kind]

    async def _route(self, host: str, jumps: tuple[str, ...], words: tuple[str, ...]) -> Route:
        """The jump hosts on the way."""
        route: Route = []
        while jumps:
            asked = jump_question(jumps, words)
            names = [question[-1] for question, _ in route]
            if asked[-1] in names or len(route) >= MOST_JUMPS:
                raise InvalidError(
                    f"{host}: the jump hosts form a circle: {' -> '.join((*names, asked[-1]))}",
                    hint="Give the jump host `ProxyJump none` in ~/.ssh/config.",
                )
            options = await self._options.read(asked, f"{host}: jump host {jumps[-1]}")
            route.append((asked, options))
            jumps, words = options.jumps, asked
        return route[::-1]

    async def _bastion_link(
        self, kind: Kind, asked: tuple[str, ...], options: SshOptions, via: Connection | None, timeout_s: float
    ) -> Connection:
        """The one connection to a jump host."""
        name = _jump_name(options)
        bastion = self._bastions.setdefault((kind, asked), _Bastion(SingleFlight(name)))
        if bastion.link is not None and bastion.link.is_alive:
            return bastion.link

        async def connect() -> Connection:
            dialer = await self._load(kind)
            try:
                link = await dialer.open(name, asked, options, via=via, timeout_s=timeout_s)
            except KorchError:
                self._options.forget(asked)
                raise
            link.busy()  # watched all the time, so that a dead one is replaced
            bastion.link = link
            return link

        return await bastion.connecting(connect, f"connect {name}")


def _jump_name(options: SshOptions) -> str:
    return f"jump host {options.asked}"


@contextlib.contextmanager
def _on_the_way_to(host: Host) -> Iterator[None]:
    """Errors of jump hosts become errors of the host behind them."""
    try:
        yield
    except (HostRefusedError, HostUnreachableError) as error:
        hint = error.hint
        if isinstance(error, HostKeyUnknownError):
            hint = f"Compare the fingerprint with the jump host's own, then: korch node trust {host.name}"
        elif isinstance(error, HostKeyChangedError):
            hint = f"If the jump host was really set up anew: korch node trust {host.name} (asks about that key first)"
        raise type(error)(f"{host.name}: {error}", host=host.name, hint=hint) from error


def _dialer(kind: Kind, shared: "Shared", folder: RunDir) -> Dialer:
    if kind == "openssh":
        from korch.ssh.openssh_login import OpensshDialer

        return OpensshDialer(shared, folder)
    from korch.ssh.login import FabricDialer

    return FabricDialer(shared)


def _import_login() -> None:
    import korch.ssh.login  # noqa: F401
