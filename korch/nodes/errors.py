"""What goes wrong on a node, as errors for people: one place where an engine's complaint becomes an exception. Pure."""

import re
from collections.abc import Sequence

from korch.engines.errors import Explanation, Step, explain
from korch.engines.wish import EngineName
from korch.errors import (
    ClaimedByOtherError,
    CommandFailedError,
    CommandTimeoutError,
    EngineDownError,
    EngineMissingError,
    FencedError,
    HostUnreachableError,
    InvalidError,
    KorchError,
    NoPermissionError,
)
from korch.nodes.report import CLAIMED_HINT, claimed_message, parse_claim


class EngineCallError(CommandFailedError):
    """The engine did not do what it was asked. `pod_reason` is the word for the pod's status, such as ErrImagePull."""

    reason = "EngineCallFailed"

    def __init__(
        self,
        message: str,
        *,
        host: str,
        pod_reason: str = "RunContainerError",
        transient: bool = False,
        stderr: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, host=host, stderr=stderr, hint=hint)
        self.pod_reason, self.transient = pod_reason, transient


def pod_reason(error: KorchError) -> str:
    """The word for the status of a pod for which something could not be done."""
    if isinstance(error, EngineCallError):
        return error.pod_reason
    # Of what was asked for something is missing or wrong, such as a Secret that is not there.
    return "CreateContainerConfigError" if isinstance(error, InvalidError) else error.reason


def engine_error(
    host: str, what: str, stderr: str, *, step: Step, engine: EngineName, image: str = ""
) -> EngineCallError | NoPermissionError | EngineDownError | EngineMissingError:
    """The narrowest error for an engine's complaint; `what` is the object in the user's words, "" if the
    meaning names it."""
    return error_of(host, what, explain(stderr, step=step, image=image, engine=engine), stderr)


def port_holder(message: str, running: Sequence[str]) -> str:
    """The container that publishes the port which `message` calls taken, or ""; `running`: lines `NAME PORTS`."""
    port = re.search(r":(\d+) of the node is taken", message)
    if port is None:
        return ""
    holds = re.compile(rf"[:\s]{port[1]}->")
    return next((line.split(" ", 1)[0] for line in running if holds.search(line)), "")


def error_of(
    host: str, what: str, meaning: Explanation, stderr: str = ""
) -> EngineCallError | NoPermissionError | EngineDownError | EngineMissingError:
    """The error for a known meaning."""
    message = f"{what} on {host}: {meaning.message}" if what else f"{host}: {meaning.message}"
    match meaning.node_state:
        case "NoPermission":
            return NoPermissionError(f"{host}: {meaning.message}", host=host, hint=meaning.hint)
        case "EngineDown":
            return EngineDownError(f"{host}: {meaning.message}", host=host, hint=meaning.hint)
        case "EngineMissing":
            return EngineMissingError(f"{host}: {meaning.message}", host=host, hint=meaning.hint)
        case "":
            return EngineCallError(
                message,
                host=host,
                pod_reason=meaning.reason,
                transient=meaning.transient,
                stderr=stderr,
                hint=meaning.hint,
            )


def refusal_error(host: str, refusal: str, *, epoch: int | None = None) -> KorchError:
    """The error for a script's `@korch refuse WORD TEXT`."""
    word, _, text = refusal.partition(" ")
    match word:
        case "fenced":
            mine = "" if epoch is None else f", this one has {epoch}"
            return FencedError(
                f"{host}: a newer master has acted there (epoch {text}{mine})",
                hint="Another korch leads this cluster now. After a restore from a backup: `korch adopt`.",
            )
        case "claimed":
            return claimed_error(host, text)
        case "clash":
            return EngineCallError(
                f"{host}: {text}",
                host=host,
                pod_reason="CreateContainerError",
                hint="Look at it with the engine's `inspect`, and remove it if nobody needs it.",
            )
        case "input":
            return HostUnreachableError(
                f"{host}: {text}; nothing was done", host=host, hint="The connection broke: try again."
            )
        case "tmpfs":
            hint = "Make /dev/shm or /run a tmpfs there."
            return EngineCallError(f"{host}: {text}", host=host, pod_reason="ErrImagePull", hint=hint)
        case _:
            return CommandFailedError(
                f"{host}: korch's files there: {text}",
                host=host,
                hint="Is the disk full or read-only? `korch node check NODE` tells.",
            )


def claimed_error(host: str, text: str) -> ClaimedByOtherError:
    """The error for another cluster's claim, given as its file's line."""
    return ClaimedByOtherError(claimed_message(host, parse_claim("?", text)), host=host, hint=CLAIMED_HINT)


def silent_error(host: str, status: int, stderr: str, *, timeout_s: float, engine: EngineName) -> KorchError:
    """The error for a script that did not print its end."""
    if status in {124, 137, 143}:
        return CommandTimeoutError(
            f"{host}: korch's script did not end within {timeout_s:g} s",
            host=host,
            hint="The machine or its engine is very slow; `korch node check NODE` tells more.",
        )
    if status == -1:
        return HostUnreachableError(f"{host}: the connection broke during a command", host=host, hint="Try again.")
    meaning = explain(stderr, step="look", engine=engine)
    if meaning.node_state:
        return error_of(host, "the engine", meaning, stderr)
    return CommandFailedError(
        f"{host}: korch's script ended with status {status}: {stderr.strip()[-300:] or 'it printed nothing'}",
        host=host,
        status=status,
        stderr=stderr,
        hint="`korch node check NODE` looks at every precondition.",
    )
