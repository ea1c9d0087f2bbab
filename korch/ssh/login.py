"""Opening connections: dial, judge the host's key, log in, ask a person where there is one, explain failures."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import fabric
import paramiko

from korch.errors import AuthFailedError, HostUnreachableError, KorchError, NoCommonAlgorithmError
from korch.ssh.channels import Connection
from korch.ssh.dial import DroppedError, TurnedAwayError, dial
from korch.ssh.governor import HANDSHAKES_AT_ONCE, PROXY_HOLD_S, Governor
from korch.ssh.hostkeys import HostKey, KnownHosts, algorithms
from korch.ssh.keys import KeyRing, Login, LoginRefusedError, Prompt
from korch.ssh.link import Link
from korch.ssh.options import SshOptions
from korch.ssh.pipes import Pipe
from korch.ssh.threads import detached
from korch.ssh.wire import WireTransport

MOST_TRIES: Final = 6
MOST_PASSWORDS: Final = 3
LEAST_LOGIN_S: Final = 5.0  # time for key exchange and login, however long the dialling took
T = TypeVar("T")
_LOG: Final = "korch.ssh.paramiko"
logging.getLogger(_LOG).setLevel(logging.CRITICAL)  # what it has to say is in the errors raised here


@dataclass(slots=True)
class Shared:
    """What all connections of a process have in common."""

    known_hosts: KnownHosts
    host_key: str = ""  # as in `Settings`
    governor: Governor = field(default_factory=Governor)
    prompt: Prompt | None = None
    keys: KeyRing = field(default_factory=KeyRing)
    logins: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(HANDSHAKES_AT_ONCE, thread_name_prefix="ssh-login")
    )
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def accepts_new(self, options: SshOptions) -> bool:
        """Whether a key that was never seen is taken: what was typed decides, else ssh's configuration."""
        return self.host_key == "accept-new" or (not self.host_key and options.new_keys)

    def close(self) -> None:
        """End the threads and hang up on the agents."""
        self.keys.close()
        self.logins.shutdown(wait=False, cancel_futures=True)


class FabricDialer:
    """Implements `Dialer`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def open(
        self, name: str, question: Sequence[str], options: SshOptions, *, via: Connection | None, timeout_s: float
    ) -> Link:
        """A connection that is logged in."""
        return await open_link(name, options, self._shared, via=_link(via), timeout_s=timeout_s)

    async def host_key(
        self, name: str, question: Sequence[str], options: SshOptions, *, via: Connection | None, timeout_s: float
    ) -> HostKey:
        """The key that the host shows now."""
        return await fetch_host_key(name, options, self._shared, via=_link(via), timeout_s=timeout_s)

    async def greets(self, name: str, options: SshOptions, *, via: Connection | None, timeout_s: float) -> bool:
        """Whether an sshd speaks there now."""
        return await greets(name, options, via=_link(via), timeout_s=timeout_s)


def _link(via: Connection | None) -> Link | None:
    assert via is None or isinstance(via, Link)
    return via


async def open_link(name: str, options: SshOptions, shared: Shared, *, via: Link | None, timeout_s: float) -> Link:
    """A connection that is logged in. Raises `HostUnreachableError` or a `HostRefusedError`, naming `name`.

    `timeout_s` bounds each try from the TCP connect on; waiting for the governor and for a person does not count.
    """
    password: str | None = None
    asked: set[str] = set()
    passwords_left = MOST_PASSWORDS
    while True:
        try:

            async def once(password: str | None = password) -> Link:
                return await _try(name, options, shared, via, timeout_s, password, None)

            return await with_retries(name, options, shared, via, timeout_s, once)
        except LoginRefusedError as refused:
            shared.keys.refresh()
            if shared.prompt is None:
                raise auth_failed(name, options, refused, can_ask=False) from None
            locked = [path for path in refused.locked if path not in asked]
            if locked:
                asked.update(locked)
                await _unlock(shared, name, locked)
                continue
            typed = options.auth_methods & {"password", "keyboard-interactive"} & refused.allowed
            if typed and passwords_left > 0:
                passwords_left -= 1
                password = await _ask(shared, f"{options.login}'s password ({name}): ")
                if password:
                    continue
            raise auth_failed(name, options, refused, can_ask=True) from None


async def fetch_host_key(
    name: str, options: SshOptions, shared: Shared, *, via: Link | None, timeout_s: float
) -> HostKey:
    """The key that the host shows now, for a person to judge. Nobody is logged in."""
    shown: list[HostKey] = []

    def stop(key: HostKey) -> None:
        shown.append(key)
        raise _KeySeenError

    try:

        async def once() -> Link:
            return await _try(name, options, shared, via, timeout_s, None, stop)

        link = await with_retries(name, options, shared, via, timeout_s, once)
    except _KeySeenError:
        return shown[0]
    link.close()
    raise HostUnreachableError(f"{name}: the host showed no key", host=name)


async def greets(name: str, options: SshOptions, *, via: Link | None, timeout_s: float) -> bool:
    """Whether an sshd speaks there now, on a new connection; nothing is negotiated."""
    try:
        async with asyncio.timeout(timeout_s):
            dialled = await dial(name, options, via.transport if via else None, timeout_s)
    except TurnedAwayError:
        return True
    except (DroppedError, HostUnreachableError, TimeoutError):
        return False
    dialled.close()
    return True


class _KeySeenError(Exception):
    """Ends a handshake after the host key."""


async def with_retries(
    name: str,
    options: SshOptions,
    shared: Shared,
    via: Connection | None,
    timeout_s: float,
    once: Callable[[], Awaitable[T]],
) -> T:
    """One login, tried again after drops that a crowded sshd makes, while the time lasts."""
    until = time.monotonic() + timeout_s
    sshd = options.proxy_template or f"{via.name if via else ''}/{options.hostname}:{options.port}"
    most_s = PROXY_HOLD_S if options.proxy_template else None
    for attempt in range(1, MOST_TRIES + 1):
        try:
            async with shared.governor.door(sshd, most_s=most_s):
                return await once()
        except DroppedError as error:
            if attempt == MOST_TRIES or time.monotonic() >= until:
                raise HostUnreachableError(
                    f"{name}: {options.hostname} port {options.port}: {error} ({attempt} tries)",
                    host=name,
                    hint="sshd's MaxStartups or PerSourcePenalties, fail2ban or a firewall may do that; see its log.",
                ) from error
        await shared.governor.pause(attempt)
    raise AssertionError("unreachable")


async def _try(
    name: str,
    options: SshOptions,
    shared: Shared,
    via: Link | None,
    timeout_s: float,
    password: str | None,
    judge: Callable[[HostKey], None] | None,
) -> Link:
    """One connection, one login."""
    began = time.monotonic()
    timeout_s = min(timeout_s, options.connect_timeout_s or timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            dialled = await dial(name, options, via.transport if via else None, timeout_s)
    except TimeoutError:
        raise no_answer(name, options, timeout_s, "connection") from None
    try:
        left_s = max(LEAST_LOGIN_S, timeout_s - (time.monotonic() - began))
        async with shared.governor.login():
            connection = await _log_in(name, options, shared, dialled.pipe, password, judge, left_s)
        return Link(name, options, connection, dialled)
    except BaseException:
        dialled.close()
        raise


async def _log_in(
    name: str,
    options: SshOptions,
    shared: Shared,
    pipe: Pipe,
    password: str | None,
    judge: Callable[[HostKey], None] | None,
    timeout_s: float,
) -> Any:
    """Fabric's connection, opened in a login thread on the pipe."""
    loop = asyncio.get_running_loop()
    known = shared.known_hosts.lines_for(options.key_name, options.known_hosts)
    check = judge or (
        lambda key: shared.known_hosts.check(
            name, options.key_name, options.known_hosts, key, accept_new=shared.accepts_new(options)
        )
    )
    connection = fabric.Connection(
        options.hostname,
        user=options.user,
        port=options.port,
        config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),  # of its own: threads must not share one
        connect_kwargs={
            "sock": pipe,
            "timeout": timeout_s,
            "banner_timeout": timeout_s,
            "auth_timeout": timeout_s,
            "auth_strategy": Login(shared.keys, options, password),
            "transport_factory": lambda sock, **_: WireTransport(sock, loop=loop, key_types=algorithms(known)),
        },
    )
    connection.client.set_log_channel(_LOG)
    connection.client.set_missing_host_key_policy(_Judge(check))  # Fabric's own choice would accept any key
    try:
        async with asyncio.timeout(timeout_s):
            await loop.run_in_executor(shared.logins, connection.open)
    except BaseException as error:
        pipe.close()
        connection.client.close()
        if isinstance(error, TimeoutError):
            raise no_answer(name, options, timeout_s, "login") from None
        if isinstance(error, KorchError | LoginRefusedError | _KeySeenError) or not isinstance(error, Exception):
            raise
        meaning = explain(name, options, error)
        if meaning is error:
            raise
        raise meaning from error
    return connection


class _Judge(paramiko.MissingHostKeyPolicy):
    """paramiko knows no keys here, so it asks this about each."""

    def __init__(self, check: Callable[[HostKey], None]) -> None:
        self._check = check

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        self._check(HostKey(key.get_name(), key.asbytes()))


def explain(name: str, options: SshOptions, error: Exception) -> Exception:
    """What a failed handshake means."""
    text = str(error)
    if isinstance(error, paramiko.SSHException) and "no acceptable" in text:
        what = text.partition("no acceptable ")[2].rstrip(")")
        cure = _CURES.get(what.split()[0], "Allow one that paramiko knows in that machine's sshd_config")
        return NoCommonAlgorithmError(
            f"{name}: sshd on {options.hostname} and korch share no {what}",
            host=name,
            hint=f"{cure}. Or let the installed ssh connect: korch_transport: openssh in the inventory.",
        )
    if isinstance(error, EOFError | ConnectionError) or "banner" in text or "No existing session" in text:
        return DroppedError(text or "the connection was closed during the handshake")
    if isinstance(error, paramiko.SSHException | OSError):
        return HostUnreachableError(f"{name}: the SSH handshake with {options.hostname} failed: {text}", host=name)
    return error


_CURES: Final = {
    "kex": "In that machine's sshd_config: KexAlgorithms +curve25519-sha256",
    "ciphers": "In that machine's sshd_config: Ciphers +aes128-gcm@openssh.com,aes128-ctr",
    "macs": "In that machine's sshd_config: MACs +hmac-sha2-256-etm@openssh.com",
    "host": "Give that machine an ed25519 host key: ssh-keygen -A",
}


def auth_failed(name: str, options: SshOptions, refused: LoginRefusedError, *, can_ask: bool) -> AuthFailedError:
    """Who was refused, with what, and how to mend it."""
    tried = ", ".join((*options.warnings, *refused.tried)) or "nothing: there is no key to try"
    locked = ", ".join(refused.locked)
    message = f"{name}: {options.login} does not accept korch; tried: {tried}"
    hint = f"Check: ssh {options.user}@{options.asked}; set ansible_user or ansible_ssh_private_key_file if needed."
    if locked and not can_ask:
        message += f"; {locked} is encrypted and there is no terminal to ask for its passphrase"
        hint = f"Put the key into the agent first: ssh-add {refused.locked[0]}"
    elif refused.allowed and "publickey" not in refused.allowed:
        message += f"; the host wants {' or '.join(sorted(refused.allowed))}"
    return AuthFailedError(message, host=name, hint=hint)


def no_answer(name: str, options: SshOptions, timeout_s: float, what: str) -> HostUnreachableError:
    """The error for silence during `what`."""
    return HostUnreachableError(
        f"{name}: no answer from {options.hostname} port {options.port} within {timeout_s:.0f} s ({what})",
        host=name,
        hint="Is the machine on, and is the address right?",
    )


async def _ask(shared: Shared, question: str) -> str:
    """What a person types, "" for nothing; one question at a time."""
    assert shared.prompt is not None
    async with shared.asking:
        return await typed(shared, question)


async def typed(shared: Shared, question: str) -> str:
    """What a person types, "" for nothing; `shared.asking` must be held."""
    prompt = shared.prompt
    assert prompt is not None
    try:
        return await detached(lambda: prompt(question), "ssh-prompt")
    except EOFError:
        return ""


async def _unlock(shared: Shared, name: str, paths: list[str]) -> None:
    """Ask for passphrases of key files that are still locked."""
    async with shared.asking:
        for path in paths:
            for _ in range(MOST_PASSWORDS):
                if isinstance(shared.keys.from_file(path), paramiko.PKey):
                    break  # opened just now, or by another host's question
                passphrase = await typed(shared, f"Passphrase of {path} ({name}): ")
                if not passphrase:
                    break
                await asyncio.to_thread(shared.keys.unlock, path, passphrase)
