"""How OpenSSH itself would reach a host: read from `ssh -G`, so that Include, Match and Host mean what they mean.

`parse_options` is pure. `OptionsReader` runs the program, once for each different question, in a few threads.
"""

import asyncio
import getpass
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import msgspec

from korch.errors import InvalidError, SetupError
from korch.inventory.model import Host

READERS: Final = 4  # `ssh -G` is 5 ms of CPU; more at once only fight for the cores
READ_TIMEOUT_S: Final = 20.0  # `Match exec` may run anything
_SAFE_FOR_SHELL: Final = re.compile(r"[A-Za-z0-9._:%@+-]*")


_One = Callable[..., str]  # the first value of a keyword, or the default
_Path = Callable[[str], str]  # a path with tokens, variables and ~ expanded


@dataclass(frozen=True, slots=True)
class Local:
    """What tokens such as %d and ${VAR} stand for on this machine."""

    home: str
    user: str
    uid: int
    hostname: str
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def here(cls) -> "Local":
        """This process's values."""
        return cls(os.path.expanduser("~"), getpass.getuser(), os.getuid(), socket.gethostname(), os.environ)


class SshOptions(msgspec.Struct, frozen=True):
    """What `ssh` would do for one destination. Paths are expanded; files need not exist."""

    asked: str  # the word that ssh was given
    hostname: str
    port: int
    user: str
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    agent: str | None = None  # path of the agent's socket
    identities_only: bool = False
    known_hosts: tuple[str, ...] = ()  # the user's, then the machine's
    host_key_alias: str | None = None
    jumps: tuple[str, ...] = ()  # nearest to here first
    proxy_command: str | None = None  # expanded
    proxy_template: str | None = None  # as configured: equal for all hosts behind one proxy
    connect_timeout_s: float | None = None
    new_keys: bool = False  # StrictHostKeyChecking accept-new, no or off
    auth_methods: frozenset[str] = frozenset({"publickey", "keyboard-interactive", "password"})
    alive_interval_s: int = 0
    alive_count: int = 3
    address_family: str = "any"
    warnings: tuple[str, ...] = ()  # what ssh said about identity files

    @property
    def key_name(self) -> str:
        """The name that known_hosts knows it by."""
        if self.host_key_alias:
            return self.host_key_alias.lower()
        name = self.hostname.lower()
        return name if self.port == 22 else f"[{name}]:{self.port}"

    @property
    def login(self) -> str:
        """`user@host`, with the port when it is not 22; for messages."""
        return f"{self.user}@{self.hostname}" + ("" if self.port == 22 else f" port {self.port}")


def parse_options(text: str, asked: str, local: Local, exists: Callable[[str], bool] = os.path.exists) -> SshOptions:
    """`ssh -G`'s answer as values. Unknown keywords are ignored: newer OpenSSH prints more."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.strip().partition(" ")
        values.setdefault(keyword.lower(), []).append(value.strip())

    def one(keyword: str, default: str = "") -> str:
        return values.get(keyword, [default])[0]

    tokens = _tokens(asked, one, local)

    def path(value: str) -> str:
        value = re.sub(r"\$\{(\w+)\}", lambda m: local.environ.get(m[1], ""), _expand(value, tokens))
        return local.home + value[1:] if value == "~" or value.startswith("~/") else os.path.expanduser(value)

    def paths(keyword: str) -> tuple[str, ...]:
        return tuple(path(value) for value in values.get(keyword, []) if value and value != "none")

    def files(keyword: str) -> tuple[str, ...]:
        return tuple(path(word) for word in _file_list(one(keyword), exists) if word not in {"none", "/dev/null"})

    proxy = one("proxycommand", "none")
    return SshOptions(
        asked=asked,
        hostname=one("hostname", asked),
        port=int(one("port", "22")),
        user=one("user", local.user),
        identity_files=paths("identityfile"),
        certificate_files=paths("certificatefile"),
        agent=_agent(one("identityagent", "SSH_AUTH_SOCK"), path, local),
        identities_only=one("identitiesonly") == "yes",
        known_hosts=files("userknownhostsfile") + files("globalknownhostsfile"),
        host_key_alias=one("hostkeyalias") or None,
        jumps=tuple(part for part in one("proxyjump", "none").split(",") if part and part != "none"),
        proxy_command=None if proxy == "none" else _proxy_command(proxy, tokens),
        proxy_template=None if proxy == "none" else proxy,
        connect_timeout_s=_seconds(one("connecttimeout", "none")),
        new_keys=one("stricthostkeychecking") in {"accept-new", "no", "off", "false"},
        auth_methods=_auth_methods(one),
        alive_interval_s=int(one("serveraliveinterval", "0")),
        alive_count=int(one("serveralivecountmax", "3")),
        address_family=one("addressfamily", "any"),
    )


def _tokens(asked: str, one: _One, local: Local) -> dict[str, str]:
    """ssh_config(5), TOKENS."""
    host = one("hostname", asked)
    return {
        "%": "%",
        "d": local.home,
        "h": host,
        "i": str(local.uid),
        "k": one("hostkeyalias") or asked,
        "L": local.hostname.partition(".")[0],
        "l": local.hostname,
        "n": asked,
        "p": one("port", "22"),
        "r": one("user", local.user),
        "u": local.user,
    }


def _expand(value: str, tokens: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda m: tokens.get(m[1], m[0]), value)


def _proxy_command(template: str, tokens: Mapping[str, str]) -> str:
    """The shell text to run. A host name that a shell could act on is refused (CVE-2023-51385)."""
    for token in ("h", "n", "p", "r", "k"):
        if not _SAFE_FOR_SHELL.fullmatch(tokens[token]):
            raise InvalidError(f'ProxyCommand for "{tokens["n"]}": "{tokens[token]}" is unsafe in a shell command')
    return _expand(template, tokens)


def _agent(value: str, path: _Path, local: Local) -> str | None:
    if value == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        return local.environ.get("SSH_AUTH_SOCK") or None
    if value.startswith("$") and not value.startswith("${"):
        return local.environ.get(value[1:]) or None
    return path(value)


def _auth_methods(one: _One) -> frozenset[str]:
    """The methods that the configuration allows; the order is fixed: keys before anything that must be typed."""
    on = {
        "publickey": one("pubkeyauthentication", "yes") not in {"no", "false"},
        "keyboard-interactive": one("kbdinteractiveauthentication", "yes") != "no",
        "password": one("passwordauthentication", "yes") != "no",
    }
    preferred = one("preferredauthentications")
    return frozenset(m for m, allowed in on.items() if allowed and (not preferred or m in preferred.split(",")))


def _file_list(value: str, exists: Callable[[str], bool]) -> list[str]:
    """Several files in one value. `ssh -G` prints names with spaces bare, so the longest existing name wins."""
    words, files = value.split(), []
    while words:
        size = next((n for n in range(len(words), 1, -1) if exists(" ".join(words[:n]))), 1)
        files.append(" ".join(words[:size]))
        words = words[size:]
    return files


def _seconds(value: str) -> float | None:
    """A time as ssh prints it: seconds, or none."""
    return float(value) if value.isdigit() and int(value) > 0 else None


def question(host: Host) -> tuple[str, ...]:
    """The words after `ssh -G` that ask about an inventory host."""
    words: list[str] = []
    if host.port is not None:
        words += ["-p", str(host.port)]
    if host.user is not None:
        words += ["-l", host.user]
    if host.identity_file is not None:
        words += ["-i", host.identity_file]
    return (*words, *host.ssh_args, "--", host.address)


def jump_question(jumps: tuple[str, ...], asked_with: tuple[str, ...]) -> tuple[str, ...]:
    """The words that ask about the last of some jump hosts, reached through the others.

    As OpenSSH does it: of the words that led here only `-F` goes on; the jump host's own configuration applies.
    """
    words = list(_config_file(asked_with))
    if len(jumps) > 1:
        words += ["-J", ",".join(jumps[:-1])]
    spec = jumps[-1].removeprefix("ssh://").rstrip("/")
    user, _, place = spec.rpartition("@")
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?", place) or re.fullmatch(r"()(.+)()", place)
    if found is None:
        raise InvalidError(f'jump host "{jumps[-1]}" is not [user@]host[:port]')
    if found[3]:
        words += ["-p", found[3]]
    if user:
        words += ["-l", user]
    return (*words, "--", found[1] or found[2])


def _config_file(words: tuple[str, ...]) -> tuple[str, ...]:
    """`-F FILE`, when it was given; the last one counts."""
    found: tuple[str, ...] = ()
    for index, word in enumerate(words):
        if word == "-F" and index + 1 < len(words):
            found = ("-F", words[index + 1])
        elif word.startswith("-F") and len(word) > 2:
            found = ("-F", word[2:])
    return found


class OptionsReader:
    """Asks `ssh -G`; the answer to one question is asked for once."""

    def __init__(self, program: str = "ssh", local: Local | None = None) -> None:
        self._program = program
        self._local = local or Local.here()
        self._answers: dict[tuple[str, ...], asyncio.Future[SshOptions]] = {}
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="ssh-G")

    async def read(self, words: tuple[str, ...], name: str) -> SshOptions:
        """Options for `words` (see `question`); `name` is for messages. Raises `InvalidError` or `SetupError`."""
        answer = self._answers.get(words)
        if answer is None:
            answer = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, words, name)
            self._answers[words] = answer
        try:
            return await asyncio.shield(answer)
        except (InvalidError, SetupError):
            self.forget(words)
            raise

    def forget(self, words: tuple[str, ...]) -> None:
        """Ask again next time: the configuration may be mended meanwhile."""
        self._answers.pop(words, None)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, words: tuple[str, ...], name: str) -> SshOptions:
        argv = [self._program, "-T", "-G", *words]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=READ_TIMEOUT_S, check=False
            )
        except FileNotFoundError as error:
            raise SetupError(
                f'the program "{self._program}" is not installed', hint="Install it: apt-get install openssh-client"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise InvalidError(
                f"{name}: `{shlex.join(argv)}` gave no answer in {READ_TIMEOUT_S:.0f} s",
                hint="Look for a `Match exec` in the SSH configuration.",
            ) from error
        if done.returncode != 0:
            reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise InvalidError(
                f"{name}: ssh cannot read its configuration: {reason[-1] if reason else done.returncode}",
                hint=f"Try: {shlex.join(argv)}",
            )
        options = parse_options(done.stdout.decode("utf-8", "surrogateescape"), words[-1], self._local)
        said = done.stderr.decode("utf-8", "replace").splitlines()
        warnings = tuple(line.strip().removeprefix("Warning: ") for line in said if "Identity file" in line)
        return msgspec.structs.replace(options, warnings=warnings)
