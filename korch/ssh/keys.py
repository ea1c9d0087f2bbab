"""Who korch is for a host: keys of the agent, identity files, and what a person types.

The order is OpenSSH's: agent keys that the configuration names, other agent keys, identity files. Nothing is asked for
before everything that needs no person has been refused, and only where a `Prompt` was given, which means a terminal.
Everything here blocks and runs in the login threads; keys are read once a process.
"""

import base64
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import paramiko
from paramiko.agent import AgentKey, AgentSSH

from korch.ssh.options import SshOptions

Prompt = Callable[[str], str]  # shows a question, returns what was typed without echo
REFRESH_S: Final = 10.0
AGENT_TIMEOUT_S: Final = 20.0  # an agent may wait for a person's confirmation


class Offer(msgspec.Struct, frozen=True):
    """A private key that may be shown to hosts."""

    label: str  # for messages: "~/.ssh/id_ed25519", "agent key ann@desk"
    key: paramiko.PKey


class LockedError(Exception):
    """A private key file needs its passphrase."""


class LoginRefusedError(Exception):
    """Every offer was refused. `locked` are key files that a passphrase would open."""

    def __init__(self, tried: list[str], locked: list[str], allowed: set[str]) -> None:
        super().__init__("; ".join(tried))
        self.tried, self.locked, self.allowed = tried, locked, allowed


class KeyRing:
    """Private keys by file and agents by socket, shared by all hosts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, paramiko.PKey | LockedError | str] = {}
        self._agents: dict[str, tuple[Offer, ...]] = {}
        self._open_agents: list[_Agent] = []
        self._refreshed_at = 0.0

    def from_file(self, path: str) -> paramiko.PKey | LockedError | str | None:
        """The key; `LockedError`; a sentence that says why it is unusable; or None when there is no such file."""
        with self._lock:
            if path not in self._files:
                if not os.path.isfile(path):
                    return None
                self._files[path] = _load(path, None)
            return self._files[path]

    def unlock(self, path: str, passphrase: str) -> bool:
        """Open an encrypted key file for the rest of the process; False when the passphrase is wrong."""
        key = _load(path, passphrase)
        if not isinstance(key, paramiko.PKey):
            return False
        with self._lock:
            self._files[path] = key
        return True

    def from_agent(self, path: str | None) -> tuple[Offer, ...]:
        """The agent's keys; none when no agent answers."""
        if path is None:
            return ()
        with self._lock:
            if path not in self._agents:
                self._agents[path] = ()
                with contextlib.suppress(OSError, paramiko.SSHException):
                    agent = _Agent(path)
                    self._open_agents.append(agent)
                    self._agents[path] = agent.offers()
            return self._agents[path]

    def refresh(self) -> None:
        """Look at agents and unusable files again: after a refusal, when a person may have mended something."""
        with self._lock:
            self._files = {path: key for path, key in self._files.items() if isinstance(key, paramiko.PKey)}
            if time.monotonic() - self._refreshed_at > REFRESH_S:
                self._refreshed_at = time.monotonic()
                self.close()

    def close(self) -> None:
        """Hang up on the agents."""
        for agent in self._open_agents:
            agent.hang_up()
        self._open_agents.clear()
        self._agents.clear()


class _Agent(AgentSSH):
    """An agent at any socket, used by one thread at a time."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._one_at_a_time = threading.Lock()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(AGENT_TIMEOUT_S)
        try:
            sock.connect(path)
            self._connect(sock)  # type: ignore[attr-defined]
        except BaseException:
            sock.close()
            raise

    def offers(self) -> tuple[Offer, ...]:
        """Its keys."""
        keys: tuple[AgentKey, ...] = self.get_keys()
        return tuple(Offer(f"agent key {key.comment or key.get_name()}", key) for key in keys)

    def hang_up(self) -> None:
        """Close the socket when nobody is using it."""
        with self._one_at_a_time:
            self._close()  # type: ignore[attr-defined]

    def _send_message(self, msg: Any) -> Any:
        with self._one_at_a_time:
            if self._conn is None:  # type: ignore[attr-defined]
                raise paramiko.SSHException("the agent's socket is closed")
            return super()._send_message(msg)  # type: ignore[misc]


def _load(path: str, passphrase: str | None) -> paramiko.PKey | LockedError | str:
    """A key with its certificate, when `FILE-cert.pub` is there."""
    if path.endswith(".pub"):
        return "its private half is not in the agent"
    try:
        return paramiko.PKey.from_path(path, None if passphrase is None else passphrase.encode())
    except (paramiko.PasswordRequiredException, TypeError):
        return LockedError(path)
    except OSError as error:
        return str(error.strerror or error)
    except Exception as error:  # the loaders raise half a dozen unrelated classes for a file that is no key
        if passphrase is None and "password" in str(error).lower():
            return LockedError(path)
        return f"not a private key that korch can use ({type(error).__name__}); with korch_transport: openssh, ssh may"


def offers(ring: KeyRing, options: SshOptions) -> tuple[list[Offer], list[str], list[str]]:
    """Keys in the order to try, encrypted files that are not in the agent, and sentences on unusable files."""
    in_agent = ring.from_agent(options.agent)
    by_blob = {offer.key.asbytes(): offer for offer in in_agent}
    named: list[Offer] = []
    from_files: list[Offer] = []
    locked: list[str] = []
    unusable: list[str] = []
    for path in options.identity_files:
        blob = _public_blob(path)
        if blob is not None and blob in by_blob:
            named.append(by_blob[blob])
            continue
        match ring.from_file(path):
            case paramiko.PKey() as key if key.asbytes() in by_blob:
                named.append(by_blob[key.asbytes()])
            case paramiko.PKey() as key:
                from_files.append(Offer(path, _with_certificate(key, options.certificate_files)))
            case LockedError():
                locked.append(path)
            case str(reason):
                unusable.append(f"{path} ({reason})")
            case None:
                pass
    others = [] if options.identities_only else [offer for offer in in_agent if offer not in named]
    return [*named, *others, *from_files], locked, unusable


def _public_blob(path: str) -> bytes | None:
    """The public half from `FILE.pub`, or from FILE if that is it: it tells an agent's key without a private file."""
    try:
        return base64.b64decode(
            Path(path if path.endswith(".pub") else path + ".pub").read_text("utf-8").split()[1], validate=True
        )
    except (OSError, ValueError, IndexError):
        return None


def _with_certificate(key: paramiko.PKey, files: tuple[str, ...]) -> paramiko.PKey:
    """The key, carrying the CertificateFile that was made for it."""
    for path in files:
        with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
            key.load_certificate(path)
            break
    return key


@dataclass(slots=True)
class Login:
    """An `auth_strategy` for paramiko, which calls `authenticate` when the host's key was found good."""

    ring: KeyRing
    options: SshOptions
    password: str | None = None
    tried: list[str] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)

    def authenticate(self, transport: paramiko.Transport) -> Any:
        """Log in. Raises `LoginRefusedError`, or whatever a broken connection raises."""
        keys, locked, unusable = offers(self.ring, self.options)
        self.tried, self.allowed = list(unusable), set()
        for label, attempt in self._attempts(transport, keys):
            note = ""
            try:
                remaining = attempt()
            except paramiko.BadAuthenticationType as error:
                self.allowed = set(error.allowed_types)
            except paramiko.AuthenticationException:
                if not transport.is_active():
                    self.tried.append(f"{label} (then the host hung up: too many keys?)")
                    break
            else:
                if not remaining:
                    return remaining
                self.allowed = set(remaining)
                note = " (accepted, but the host wants more)"
            if label != "none":
                self.tried.append(label + note)
        raise LoginRefusedError(self.tried, locked, self.allowed)

    def _attempts(
        self, transport: paramiko.Transport, keys: list[Offer]
    ) -> Iterator[tuple[str, Callable[[], list[str]]]]:
        user = self.options.user
        if "publickey" in self.options.auth_methods:
            for offer in keys:
                yield offer.label, lambda key=offer.key: transport.auth_publickey(user, key)  # type: ignore[misc]
        if self.password is not None:
            yield "password", lambda: transport.auth_password(user, self.password or "")
        yield "none", lambda: transport.auth_none(user)  # some gateways know who calls; others tell what they accept
