"""What every engine offers: argv out, parsed output in. Pure; transports make shell text of the words."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Command:
    """One program call on a host: words, never shell text. `timeout_s` is seconds of wall clock on the host."""

    argv: tuple[str, ...]
    stdin: bytes | None = field(default=None, repr=False)  # bodies and secrets; kept out of logs
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Script:
    """A fixed POSIX sh text with positional words `$1`...; a transport sends both as one base64 word, stdin stays free.

    `text` must never be built from values: values are `args`, or `stdin` for secrets and long ones.
    """

    text: str = field(repr=False)
    args: tuple[str, ...] = ()
    stdin: bytes | None = field(default=None, repr=False)
    timeout_s: float = 30.0
