"""Opening connections with the system's `ssh`: start it, answer its questions, judge the host's key, explain failures.

Host keys are judged by korch's own code, as with paramiko: `ssh` is strict, and when it refuses a key, another `ssh`
fetches that key so that korch can say which it is, or accept it where the settings say so.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from korch.errors import AuthFailedError, HostRefusedError, HostUnreachableError, NoCommonAlgorithmError
from korch.ssh.askpass import Answers, Questions
from korch.ssh.channels import ChannelRefusedError, Connection, NeverOpenedError
from korch.ssh.dial import DroppedError, hint_for
from korch.ssh.hostkeys import HostKey, algorithms, parse_known_hosts
from korch.ssh.keys import LockedError, LoginRefusedError
from korch.ssh.login import LEAST_LOGIN_S, Shared, auth_failed, greets, no_answer, typed, with_retries
from korch.ssh.openssh import Master, MuxLink, ready
from korch.ssh.openssh_words import Told, key_words, master_words, meaning
from korch.ssh.options import SshOptions
from korch.ssh.rundir import RunDir

HANDSHAKE_S: Final = 2.0  # how long a login keeps others waiting: a healthy one is done, a silent host needs no CPU


class UnverifiedError(Exception):
    """`ssh` did not accept the host's key."""


class OpensshDialer:
    """Makes connections; one a process."""

    def __init__(self, shared: Shared, folder: RunDir) -> None:
        self._shared, self._folder = shared, folder
        self._answers = Answers()

    async def open(
        self, name: str, question: Sequence[str], options: SshOptions, *, via: Connection | None, timeout_s: float
    ) -> MuxLink:
        """A connection that is logged in. Raises `HostUnreachableError` or a `HostRefusedError`, naming `name`."""

        async def once() -> MuxLink:
            return await self._try(name, question, options, via, timeout_s)

        try:
            return await with_retries(name, options, self._shared, via, timeout_s, once)
        except UnverifiedError:
            key = await self.host_key(name, question, options, via=via, timeout_s=timeout_s)
            accept_new = self._shared.accepts_new(options)
            self._shared.known_hosts.check(name, options.key_name, options.known_hosts, key, accept_new=accept_new)
        try:
            return await with_retries(name, options, self._shared, via, timeout_s, once)
        except UnverifiedError as error:
            raise HostRefusedError(
                f"{name}: ssh does not accept the host's key: {error}", host=name, hint=f"Try: ssh {options.asked}"
            ) from error

    async def host_key(
        self, name: str, question: Sequence[str], options: SshOptions, *, via: Connection | None, timeout_s: float
    ) -> HostKey:
        """The key that the host shows now. Nobody is logged in."""
        known = self._shared.known_hosts.lines_for(options.key_name, options.known_hosts)
        socket = _socket(via)

        async def once() -> HostKey:
            file = self._folder.new_name()
            words = key_words(question, options, file=file, timeout_s=timeout_s, types=algorithms(known), via=socket)
            said = await _ended(words, timeout_s + LEAST_LOGIN_S)
            text = file.read_text("utf-8", "replace") if file.exists() else ""
            file.unlink(missing_ok=True)
            keys = parse_known_hosts(text, str(file))
            if keys:
                return keys[0].key
            raise await self._explained(name, options, said, timeout_s)

        try:
            return await with_retries(name, options, self._shared, via, timeout_s, once)
        except (AuthFailedError, UnverifiedError) as error:
            raise HostUnreachableError(f"{name}: the host showed no key", host=name) from error

    async def greets(self, name: str, options: SshOptions, *, via: Connection | None, timeout_s: float) -> bool:
        """Whether an sshd speaks there now, on a new connection; nothing is negotiated."""
        if via is None:
            return await greets(name, options, via=None, timeout_s=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                channel = await via.reach(options.hostname, options.port, timeout_s)
                try:
                    await channel.until(lambda: channel.recv_ready() or channel.eof_seen)
                    return channel.recv(4) == b"SSH-"
                finally:
                    channel.hang_up()
        except (ChannelRefusedError, NeverOpenedError, TimeoutError):
            return False

    async def _try(
        self, name: str, question: Sequence[str], options: SshOptions, via: Connection | None, timeout_s: float
    ) -> MuxLink:
        """One connection, one login."""
        socket = self._folder.new_name()
        limit_s = min(timeout_s, options.connect_timeout_s or timeout_s) + LEAST_LOGIN_S
        words = master_words(question, options, self._told(socket, options, via, timeout_s))
        async with contextlib.AsyncExitStack() as slot, contextlib.AsyncExitStack() as undo:
            await slot.enter_async_context(self._shared.governor.login())
            master: Master | None = None
            try:
                async with asyncio.timeout(limit_s) as deadline:
                    with self._asking(name, socket, deadline, limit_s) as environment:
                        master = Master(words, environment)
                        undo.callback(master.close)
                        login = asyncio.create_task(ready(master, socket), name=f"login {name}")
                        undo.callback(login.cancel)
                        await asyncio.wait({login}, timeout=HANDSHAKE_S)
                        await slot.aclose()
                        pid = await login
            except TimeoutError:
                raise no_answer(name, options, timeout_s, "connection or login") from None
            except EOFError:
                raise await self._explained(name, options, tuple(master.lines if master else ()), timeout_s) from None
            undo.pop_all()
            return MuxLink(name, options, master, socket, pid)

    def _told(self, socket: Path, options: SshOptions, via: Connection | None, timeout_s: float) -> Told:
        known = (str(self._shared.known_hosts.own), *options.known_hosts)
        return Told(socket, known, timeout_s, self._shared.prompt is not None, _socket(via))

    @contextlib.contextmanager
    def _asking(self, name: str, socket: Path, deadline: asyncio.Timeout, limit_s: float) -> Iterator[dict[str, str]]:
        """The environment of an `ssh` whose questions are answered within the context."""
        if self._shared.prompt is None:
            yield {"SSH_ASKPASS_REQUIRE": "never"}
            return
        questions = Questions(socket, lambda asked, refused: self._ask(name, asked, refused, deadline, limit_s))
        try:
            yield questions.environment
        finally:
            questions.close()

    async def _ask(self, name: str, question: str, refused: set[str], deadline: asyncio.Timeout, limit_s: float) -> str:
        """What a person types, or has typed for another host. The login's time stands still meanwhile."""
        deadline.reschedule(None)
        try:
            async with self._shared.asking:
                answer = self._answers.known(question, refused)
                if not answer:
                    answer = await typed(self._shared, f"{question.strip().rstrip(':')} ({name}): ")
                    self._answers.learn(question, answer)
                return answer
        finally:
            with contextlib.suppress(RuntimeError):  # the login is over
                deadline.reschedule(asyncio.get_running_loop().time() + limit_s)

    async def _explained(self, name: str, options: SshOptions, lines: Sequence[str], timeout_s: float) -> Exception:
        """What the last words of an `ssh` that made no connection mean."""
        said = meaning(lines)
        where = f"{options.hostname} port {options.port}"
        match said.kind:
            case "unverified":
                return UnverifiedError(said.text)
            case "refused login":
                return await self._refused(name, options, said.more[0])
            case "no common":
                return no_common(name, options, *said.more)
            case "no jump":
                return HostUnreachableError(
                    f"{name}: the jump host cannot connect to {where}",
                    host=name,
                    hint="The jump host's sshd must allow TCP forwarding, and reach that address.",
                )
            case "no name":
                return HostUnreachableError(
                    f'{name}: the name "{options.hostname}" has no address: {said.more[0]}',
                    host=name,
                    hint="Set ansible_host in the inventory, or HostName in ~/.ssh/config.",
                )
            case "no answer":
                return no_answer(name, options, timeout_s, "connection or login")
            case "no connection":
                reason = said.more[0]
                text = f"{name}: no connection to {where}: {reason}"
                return HostUnreachableError(text, host=name, hint=hint_for(reason))
            case "dropped":
                return DroppedError(said.text)
        return HostUnreachableError(
            f"{name}: ssh makes no connection to {where}: {said.text}", host=name, hint=f"Try: ssh {options.asked}"
        )

    async def _refused(self, name: str, options: SshOptions, allowed: str) -> AuthFailedError:
        """Who was refused, and with which keys."""

        def look() -> LoginRefusedError:
            kinds = {path: self._shared.keys.from_file(path) for path in options.identity_files}
            tried = [path for path, kind in kinds.items() if kind is not None and not isinstance(kind, LockedError)]
            locked = [path for path, kind in kinds.items() if isinstance(kind, LockedError)]
            agent = ["the agent's keys"] if options.agent is not None and not options.identities_only else []
            return LoginRefusedError(agent + tried, locked, {word for word in allowed.split(",") if word})

        self._shared.keys.refresh()
        refused = await asyncio.to_thread(look)
        return auth_failed(name, options, refused, can_ask=self._shared.prompt is not None)


def _socket(via: Connection | None) -> Path | None:
    assert via is None or isinstance(via, MuxLink)
    return via.socket if via is not None else None


def no_common(name: str, options: SshOptions, what: str, offer: str) -> NoCommonAlgorithmError:
    """The error for two sides of too different an age."""
    return NoCommonAlgorithmError(
        f"{name}: sshd on {options.hostname} and the installed ssh share no {what}; it offers {offer}",
        host=name,
        hint="Allow one more in that machine's sshd_config, or in ~/.ssh/config here (`ssh -Q help`).",
    )


async def _ended(words: tuple[str, ...], timeout_s: float) -> tuple[str, ...]:
    """What a program said until it ended, or for so long."""
    program = Master(words, {"SSH_ASKPASS_REQUIRE": "never"})
    try:
        async with asyncio.timeout(timeout_s):
            while not program.has_ended:
                await program.news(timeout_s)
    except TimeoutError:
        program.lines.append(f"timed out after {timeout_s:.0f} s")
    finally:
        program.close()
    return tuple(program.lines)
