"""How environment values travel to an engine without ever standing in an argument list. Pure.

`-e NAME` takes the value from the environment of the engine's own program: whole, newlines included, in every version.
But a value named PATH or DOCKER_HOST would then change that program. Those, and names that no shell exports (`a.b`), go
through `--env-file /dev/stdin`, whose format has no newlines, and in Podman's later versions no quotes either.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from korch.engines.wish import EngineName, EnvValue
from korch.errors import InvalidError

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KUBE_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
# Names that a shell or an engine's program reads (or that a shell forbids to set).
_RISKY_NAMES = re.compile(
    "PATH|HOME|IFS|ENV|PWD|OLDPWD|_|TMPDIR|OPT(IND|ARG|ERR)|PPID|LINENO|S?RANDOM|SECONDS|EPOCH(SECONDS|REALTIME)|SHELLOPTS"
    "|E?UID|GROUPS|FUNCNAME|DIRSTACK|HISTCMD|POSIXLY_CORRECT|SHLVL|CDPATH|((HTTPS?|NO|ALL)_PROXY)|((https?|no|all)_proxy)"
    "|SSL_CERT_(FILE|DIR)|NOTIFY_SOCKET|LISTEN_(PID|FDS|FDNAMES)|DBUS_SESSION_BUS_ADDRESS"
)
_RISKY_START = re.compile(
    "LD_|GLIBC_|DOCKER_|BUILDKIT_|COMPOSE_|CONTAINER|STORAGE_|REGISTRY_|BUILDAH_|PODMAN_|NETAVARK_|XDG_|GO[A-Z]|BASH"
    "|PS[0-9]|korch_"
)
_FILE_VALUE_LIMIT = 32_000  # characters of a line; Docker's reader stops at 64 KiB
_VALUE_LIMIT = 120_000  # bytes; Linux allows 128 KiB for one variable


@dataclass(frozen=True, slots=True)
class Environment:
    """Values by the way they take: `exported` as (name, value) for `-e NAME`, `file` as the text of an env-file."""

    exported: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    file: str = field(default="", repr=False)


def split_environment(engine: EngineName, env: Sequence[EnvValue]) -> Environment:
    """Each value on the way that brings it whole; the last of equal names wins.

    Raises `InvalidError`, naming the variable, for values that no way can bring.
    """
    last = {entry.name: entry for entry in env}
    exported: list[tuple[str, str]] = []
    lines: list[str] = []
    for entry in last.values():
        _refuse_impossible(entry)
        if _exportable(entry.name):
            exported.append((entry.name, entry.value))
        elif _fits_file(engine, entry.value):
            lines.append(f"{entry.name}={entry.value}\n")
        else:
            raise InvalidError(
                f"the value of environment variable {entry.name} cannot be handed to {engine} unchanged",
                hint="Variables of this name may hold one line without quotes; use another name or a file in a volume.",
            )
    return Environment(tuple(exported), "".join(lines))


def value_bytes(name: str, value: str) -> bytes:
    """The bytes of a value; bytes that were not UTF-8 (kept by `surrogateescape`) come out as they were."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidError(f"environment variable {name} holds half of a surrogate pair, which is no text") from None


def _refuse_impossible(entry: EnvValue) -> None:
    if not _KUBE_NAME.fullmatch(entry.name):
        raise InvalidError(
            f'"{entry.name}" is not a name for an environment variable',
            hint="Use letters, digits, _, - and '.', not starting with a digit.",
        )
    if "\0" in entry.value:
        raise InvalidError(f"environment variable {entry.name} holds a NUL byte, which no system can pass on")
    if len(value_bytes(entry.name, entry.value)) > _VALUE_LIMIT:
        raise InvalidError(
            f"environment variable {entry.name} is longer than {_VALUE_LIMIT} bytes",
            hint="Put it into a file in a volume.",
        )


def _exportable(name: str) -> bool:
    return bool(_SHELL_NAME.fullmatch(name)) and not (_RISKY_NAMES.fullmatch(name) or _RISKY_START.match(name))


def _fits_file(engine: EngineName, value: str) -> bool:
    if len(value) > _FILE_VALUE_LIMIT or any(ch in value for ch in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return engine == "docker" or (value == value.strip() and not any(ch in value for ch in "'\"`\\#$"))
