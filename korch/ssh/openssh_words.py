"""What `ssh` is told and what it says: its command line, and the meaning of its last words. Pure.

The words were collected from OpenSSH 8.2 to 9.2 (ssh.c, sshconnect.c, kex.c, packet.c); a text that nobody here knows
still reaches the user as it is.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from korch.errors import InvalidError
from korch.ssh.options import SshOptions

ASK_ALIVE_AFTER_S: Final = 4  # when ServerAliveInterval is not set
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._:%@+-]+")
# What a user's configuration may say for sessions of his own has no place in a connection that only carries others.
_BARE: Final = (
    "ControlMaster=yes",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "Tunnel=no",
    "CheckHostIP=no",
    "UpdateHostKeys=no",
    "VisualHostKey=no",
    "LogLevel=VERBOSE",
)


class Told(msgspec.Struct, frozen=True):
    """What decides how a master is started, besides the user's own options."""

    socket: Path
    known_hosts: tuple[str, ...]
    timeout_s: float
    can_ask: bool
    via: Path | None = None  # the socket of the jump host's master


def master_words(question: Sequence[str], options: SshOptions, told: Told) -> tuple[str, ...]:
    """The argv of a master. The first value of an option counts for ssh, so korch's come before the user's."""
    given = (
        *_BARE,
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={quoted_files(told.known_hosts)}",
        f"ConnectTimeout={max(1, math.ceil(min(told.timeout_s, options.connect_timeout_s or told.timeout_s)))}",
        f"ServerAliveInterval={options.alive_interval_s or ASK_ALIVE_AFTER_S}",
        f"ServerAliveCountMax={options.alive_count}",
        f"BatchMode={'no' if told.can_ask else 'yes'}",
        *_jump(options, told.via),
    )
    return ("ssh", "-N", "-T", "-S", str(told.socket), *_options(given), *_users(question, via=told.via))


def key_words(
    question: Sequence[str],
    options: SshOptions,
    *,
    file: Path,
    timeout_s: float,
    types: Sequence[str],
    via: Path | None,
) -> tuple[str, ...]:
    """The argv of an `ssh` that writes the host's key into `file` and logs nobody in."""
    given = (
        "ControlPath=none",
        *(word for word in _BARE if not word.startswith("Control")),
        "StrictHostKeyChecking=accept-new",
        f"UserKnownHostsFile={quoted_files((str(file),))}",
        "GlobalKnownHostsFile=none",
        "HashKnownHosts=no",
        "VerifyHostKeyDNS=no",
        f"HostKeyAlgorithms={','.join(types)}",
        "PreferredAuthentications=none",
        f"ConnectTimeout={max(1, math.ceil(timeout_s))}",
        "BatchMode=yes",
        *_jump(options, via),
    )
    *words, last = _users(question, via=via)
    return ("ssh", "-T", *_options(given), *words, last, "exit")


def quoted_files(files: Sequence[str]) -> str:
    """Several file names as one value of ssh's configuration; what it would expand there cannot be named."""
    plain = (file for file in files if "${" not in file and "\n" not in file)
    escaped = (file.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for file in plain)
    return " ".join(f'"{file}"' for file in escaped) or "none"


def _options(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for option in given for word in ("-o", option))


def _jump(options: SshOptions, via: Path | None) -> tuple[str, ...]:
    """The way through the jump host's one connection. ssh gives the text to a shell: only plain names may be in it."""
    if via is None:
        return ()
    if not PLAIN_NAME.fullmatch(options.hostname):
        raise InvalidError(f'ProxyJump to "{options.hostname}": this is unsafe in a shell command')
    words = f"ssh -F none -o ControlMaster=no -o ProxyCommand=false -S {via} -W '[%h]:%p' korch-jump.invalid"
    return (f"ProxyCommand={words}",)


def _users(question: Sequence[str], *, via: Path | None) -> tuple[str, ...]:
    """The user's words, without those that make ssh do something else, and without the jumps that korch makes."""
    dropped = _OTHER_DEEDS | ({"-J"} if via is not None else set())
    words: list[str] = []
    rest = list(question)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return (*words, "--", *rest)
        value = [rest.pop(0)] if word in _WITH_VALUE and rest else []
        if word[:2] not in dropped:
            words += [word, *value]
    return tuple(words)


_WITH_VALUE: Final = frozenset(f"-{letter}" for letter in "BbcDEeFIiJLlmOoPpQRSWw")
_OTHER_DEEDS: Final = frozenset(("-q", "-M", "-S", "-O", "-W", "-f", "-n", "-t", "-s", "-E"))


class Said(msgspec.Struct, frozen=True):
    """The meaning of ssh's last words. `text` is for people."""

    kind: str
    text: str
    more: tuple[str, ...] = ()


_MEANINGS: Final = (
    ("unverified", re.compile(r"Host key verification failed\.$|No .* host key is known for .* strict checking")),
    ("refused login", re.compile(r"^\S+@.*: Permission denied \(([^)]*)\)|Too many authentication failures()")),
    ("no common", re.compile(r"Unable to negotiate with .*: no matching (.*) found\. Their offer: (.*)")),
    ("no jump", re.compile(r"[Ss]tdio forwarding (?:request )?failed(.*)")),
    ("no name", re.compile(r"Could not resolve hostname .*?: (.*)")),
    ("no answer", re.compile(r"(timed out|Timeout, server .* not responding)")),
    ("no connection", re.compile(r"connect to (?:host|address) .*?: (.*)")),
    ("dropped", re.compile(r"(Connection closed|Connection reset|Broken pipe|closed by remote host|banner)")),
)


def meaning(lines: Sequence[str]) -> Said:
    """What an `ssh` that did not get a connection said; the kinds are those of the table above, or "other"."""
    telling = [line for line in lines if not line.startswith(("debug", "Warning: Permanently added"))]
    for kind, pattern in _MEANINGS:
        for line in reversed(telling):
            if found := pattern.search(line):
                text = "; ".join(telling[-3:]) if kind == "dropped" else line
                return Said(kind, text, tuple(group for group in found.groups() if group is not None))
    return Said("other", telling[-1] if telling else "ssh ended without a word")


def refusal(line: str) -> tuple[int, str] | None:
    """Code and text when the line says that the server opened no channel (RFC 4254 section 5.1)."""
    found = re.search(r"channel \d+: open failed: ([a-z ]+)(?:: (.*))?$", line)
    if found is None:
        return None
    code = _CODES.get(found[1], 2)
    return code, found[2] or found[1]


_CODES: Final = {
    "administratively prohibited": 1,
    "connect failed": 2,
    "unknown channel type": 3,
    "resource shortage": 4,
}
