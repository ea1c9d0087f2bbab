"""The errors that korch explains: one tree, a message for people, a hint for the next step.

`exit_code` is what the command line ends with (documented in README.md, "Exit codes"), `http_status` and `reason` what
the API answers. Only `TransientError` means that trying the same again may help. This module imports nothing of korch.
"""

from typing import ClassVar


class KorchError(Exception):
    """Something korch can explain. `hint` tells the user what to try next."""

    http_status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def at(host: str, error: Exception) -> str:
    """The message with the host before it, once."""
    text = str(error)
    return text if text.startswith((f"{host}: ", f"{host} ")) else f"{host}: {text}"


class InvalidError(KorchError):
    """The input is wrong: nothing was done, and nothing will be until it changes."""

    http_status, reason, exit_code = 422, "Invalid", 3


class MalformedError(InvalidError):
    """A request cannot be read at all: no JSON, no object, a field that nobody knows where that matters."""

    http_status, reason = 400, "BadRequest"


class TooLargeError(InvalidError):
    """More than korch takes at once."""

    http_status, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaTypeError(InvalidError):
    """A body in a format that korch does not read, or not for this."""

    http_status, reason = 415, "UnsupportedMediaType"


class NotFoundError(KorchError):
    """The named object does not exist."""

    http_status, reason, exit_code = 404, "NotFound", 4


class AlreadyExistsError(KorchError):
    """An object of that kind and name exists."""

    http_status, reason, exit_code = 409, "AlreadyExists", 5


class ConflictError(KorchError):
    """The record changed since it was read; read it again."""

    http_status, reason, exit_code = 409, "Conflict", 5


class ApplyConflictError(ConflictError):
    """Fields that others set would change. `conflicts`: who holds which, as (manager, its apiVersion, path)."""

    def __init__(self, message: str, conflicts: tuple[tuple[str, str, str], ...], causes: tuple[str, ...]) -> None:
        super().__init__(message, hint="Apply with force to take the fields over, or leave them out.")
        self.conflicts, self.causes = conflicts, causes  # a sentence for each conflict


class FencedError(ConflictError):
    """Another master leads now: what this one still wanted to do is refused."""

    reason = "Fenced"


class ExpiredError(KorchError):
    """The revision asked for has been compacted away: list again."""

    http_status, reason, exit_code = 410, "Expired", 5


class StoreError(KorchError):
    """The state file cannot be used: full disk, read-only, damaged, or on a network file system."""

    http_status, reason, exit_code = 500, "StoreFailure", 11


class SetupError(KorchError):
    """Something this machine needs is missing: a program, root, an engine."""

    http_status, reason, exit_code = 500, "SetupMissing", 10


class CommandFailedError(KorchError):
    """A program on a host ended with an error."""

    http_status, reason, exit_code = 502, "CommandFailed", 8

    def __init__(self, message: str, *, host: str, status: int = -1, stderr: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host, self.status, self.stderr = host, status, stderr


class RolloutFailedError(KorchError):
    """The workload did not become ready; the message says what happened to it and what it is now."""

    http_status, reason, exit_code = 500, "RolloutFailed", 9


class ForbiddenError(KorchError):
    """Refused: by a host, or by korch to keep someone's property safe."""

    http_status, reason, exit_code = 403, "Forbidden", 7


class HostRefusedError(ForbiddenError):
    """A host answers but does not let korch work there. `reason` is the node's state; this never moves pods."""

    reason = "HostRefused"

    def __init__(self, message: str, *, host: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host


class AuthFailedError(HostRefusedError):
    """No key or password that was offered is accepted."""

    reason = "AuthFailed"


class HostKeyUnknownError(HostRefusedError):
    """The host's key has never been accepted here."""

    reason = "HostKeyUnknown"


class HostKeyChangedError(HostRefusedError):
    """The host shows another key than the accepted one."""

    reason = "HostKeyChanged"


class HostKeyRevokedError(HostRefusedError):
    """The host shows a key that known_hosts marks as revoked: whoever shows it may be somebody else."""

    reason = "HostKeyRevoked"


class NoCommonAlgorithmError(HostRefusedError):
    """The host's sshd and this side share no key exchange, cipher or kind of host key."""

    reason = "NoCommonAlgorithm"


class NoPermissionError(HostRefusedError):
    """The user may not use the container engine there."""

    reason = "NoPermission"


class EngineMissingError(HostRefusedError):
    """No Docker and no Podman is installed there."""

    reason = "EngineMissing"


class EngineDownError(HostRefusedError):
    """The engine is installed and does not answer."""

    reason = "EngineDown"


class ClaimedByOtherError(HostRefusedError):
    """Another korch cluster uses that machine."""

    reason = "ClaimedByOther"


class TransientError(KorchError):
    """Trying again later may help."""

    http_status, reason, exit_code = 503, "ServiceUnavailable", 6


class HostUnreachableError(TransientError):
    """No SSH connection can be made, or it broke."""

    reason = "Unreachable"

    def __init__(self, message: str, *, host: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host


class NotRespondingError(HostUnreachableError):
    """The host's sshd greets, and nothing can be done there."""

    reason = "NotResponding"


class CommandTimeoutError(TransientError):
    """A program on a host did not end in time."""

    reason = "Timeout"

    def __init__(self, message: str, *, host: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host
