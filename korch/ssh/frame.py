"""The one line that a remote login shell sees, and how its output is told from the shell's own noise.

Whatever the login shell is (dash, bash, busybox, zsh, tcsh, fish), the line it must pass on holds nothing but
`exec sh -c '...'` around one base64 word; the words of the command are inside it, quoted for POSIX sh by `shlex.join`.
Before the command starts, the shell prints a marker that was never used before: what comes earlier is a start-up
file talking, and a line without a marker means that the command never ran. Pure.
"""

import base64
import math
import re
import secrets
import shlex
from dataclasses import dataclass
from typing import Final

from korch.engines.base import Command, Script
from korch.errors import InvalidError

LINE_LIMIT_BYTES: Final = 130_000  # one word of execve may have 131,072 bytes (MAX_ARG_STRLEN, linux/binfmts.h)
KILL_GRACE_S: Final = 5  # `timeout -k`: SIGKILL follows SIGTERM after this
STATUS_TIMED_OUT: Final = 124
NOISE_KEPT_BYTES: Final = 4096


def words_of(command: Command | Script) -> tuple[str, ...]:
    """The argv that does it: a script becomes `sh -c TEXT sh ARGS`."""
    if isinstance(command, Script):
        return ("sh", "-c", command.text, "sh", *command.args)
    if not command.argv or command.argv[0].startswith("-") or not command.argv[0]:
        raise InvalidError(f"a command needs a program name first, not {command.argv[:1]!r}")
    return command.argv


def timed_words(command: Command | Script) -> tuple[str, ...]:
    """The argv with its deadline on the host; whole seconds and short options, as busybox knows them."""
    words = words_of(command)
    if command.timeout_s <= 0:
        return words
    return ("timeout", "-k", str(KILL_GRACE_S), str(math.ceil(command.timeout_s)), *words)


def remote_line(command: Command | Script, marker: str, *, become: bool = False, pty: bool = False) -> str:
    """The line for the login shell. Raises `InvalidError` when the words are too long for a command line.

    With a terminal there is no deadline on the host: `timeout` would take the program out of the foreground.
    """
    words = words_of(command) if pty else timed_words(command)
    if any("\0" in word for word in words):
        raise InvalidError("a word of a command holds a NUL byte, which no program can receive")
    also_stderr = "" if pty else f"printf '\\n%s\\n' {marker} >&2\n"
    body = f"printf '\\n%s %s\\n' {marker} $$\n{also_stderr}exec {shlex.join(words)}\n"
    packed = base64.b64encode(body.encode("utf-8", "surrogateescape")).decode("ascii")
    prefix = "sudo -n -- " if become else ""
    line = f"exec {prefix}sh -c 'eval \"$(printf %s {packed} | base64 -d)\"'"
    if len(line) > LINE_LIMIT_BYTES:
        raise InvalidError(
            f"a command of {len(body)} bytes does not fit a command line (limit about {LINE_LIMIT_BYTES * 3 // 4})",
            hint="Long values belong on stdin.",
        )
    return line


def new_marker() -> str:
    """A word that no output has held before."""
    return f"korch-{secrets.token_hex(8)}"


def true_status(status: int, elapsed_s: float, timeout_s: float) -> int:
    """124 for a program that its deadline ended, whichever way that `timeout` reports it.

    GNU's says 137 when SIGKILL was needed; busybox's lets the program's own death by SIGTERM (143) show through.
    """
    if timeout_s > 0 and status in {137, 143} and elapsed_s >= timeout_s - 0.5:
        return STATUS_TIMED_OUT
    return status


@dataclass(slots=True)
class Unframer:
    """Takes one output stream of a login shell, gives what follows the marker."""

    marker: str
    pid: int | None = None  # of the process that became the command
    started: bool = False
    noise: bytes = b""  # the last of what came before the marker

    def feed(self, data: bytes) -> bytes:
        """The part of `data` that belongs to the command."""
        if self.started:
            return data
        text = self.noise + data
        found = re.search(rb"\n" + self.marker.encode("ascii") + rb"(?: (\d+))?\r?\n", text)
        if found is None:
            self.noise = text[-NOISE_KEPT_BYTES:]
            return b""
        self.started = True
        self.noise = text[: found.start()].rstrip(b"\r\n")[-NOISE_KEPT_BYTES:]
        self.pid = int(found[1]) if found[1] else None
        return text[found.end() :]
