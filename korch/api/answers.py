"""Answers as Kubernetes gives them: compact JSON with a trailing newline, refusals as `Status`, warnings as headers.

Clients compare these texts: the order of keys, the wording of messages and what `details` holds are a contract.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

from korch.api.requestinfo import RequestInfo
from korch.client.forms import error_data
from korch.errors import (
    AlreadyExistsError,
    ApplyConflictError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    KorchError,
    NotFoundError,
    TransientError,
)
from korch.resources.kinds import Kind
from korch.resources.problems import Problem, ProblemsError

log = logging.getLogger(__name__)

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
NO_RESOURCE = "the server could not find the requested resource"
_WARNING_CHARS, _WARNINGS = 500, 20  # clients read no more than some KiB of headers
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(slots=True, eq=False)
class Refusal(Exception):
    """A request that is answered with a `Status` of failure."""

    code: int
    message: str
    details: dict[str, Any] | None = None
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The Status object."""
        return failure(self.code, self.message, details=self.details, reason=self.reason)


def failure(code: int, message: str, *, details: dict[str, Any] | None = None, reason: str = "") -> dict[str, Any]:
    """A `Status` that tells of a failure; `reason` is Kubernetes' word for the code unless it is given."""
    shown = {} if details is None else {"details": details}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason or _REASONS.get(code, "Unknown"),
        **shown,
        "code": code,
    }


def success(details: dict[str, Any] | None = None, *, code: int | None = None) -> dict[str, Any]:
    """A `Status` that tells of a success."""
    more = {"code": code} if code else {}
    shown = {"details": details} if details else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **shown, **more}


def encode_json(value: Any) -> bytes:
    """As it stands in an answer."""
    return msgspec.json.encode(value) + b"\n"


def json_answer(
    value: Any, code: int = 200, *, warnings: Iterable[str] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """An answer of one JSON document."""
    return bytes_answer(encode_json(value), code, warnings=warnings, headers=headers)


def bytes_answer(
    body: bytes, code: int = 200, *, warnings: Iterable[str] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """An answer of JSON that is encoded already."""
    answer = Response(body, code, dict(headers or {}), media_type="application/json")
    told = [*dict.fromkeys(warnings)]
    rest = len(told) - _WARNINGS
    for warning in (*told[:_WARNINGS], *([f"and {rest} warnings more"] if rest > 0 else [])):
        answer.headers.append("Warning", warning_header(warning))
    return answer


def warning_header(text: str) -> str:
    """One `Warning` header (RFC 7234): code 299, no agent, quoted text of one line; "?" for what no header may hold."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in " ".join(text.split()))
    line = plain[:_WARNING_CHARS].replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{line}"'


def refusal_answer(refusal: Refusal, told: Exception | None = None) -> Response:
    """The refusal as an answer; of `told`, what went wrong, korch's own client hears what korch itself says."""
    said = told.__cause__ if isinstance(told, Refusal) else told
    ours = {"korch": error_data(said)} if isinstance(said, KorchError) else {}
    return json_answer({**refusal.body(), **ours}, refusal.code, headers=refusal.headers)


# --- what korch says, in Kubernetes' words ---


def qualified(kind: Kind) -> str:
    """`pods`, `deployments.apps`: the resource in messages."""
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


def details_of(
    kind: Kind, name: str, *, resource: bool = True, causes: Sequence[dict[str, str]] = ()
) -> dict[str, Any]:
    """What an error is about. `group` is absent for core kinds; invalid objects name their kind, not its plural."""
    group = {"group": kind.group} if kind.group else {}
    shown = {"causes": list(causes)} if causes else {}
    return {"name": name, **group, "kind": kind.plural if resource else kind.name, **shown}


def no_resource() -> Refusal:
    """There is no such path or resource."""
    return Refusal(404, NO_RESOURCE, {})


def not_allowed() -> Refusal:
    """Nothing is done there in this way."""
    return Refusal(405, "the server does not allow this method on the requested resource", {})


def bad_request(message: str) -> Refusal:
    """The request makes no sense, whatever is stored."""
    return Refusal(400, message)


def too_new(wanted: int, newest: int) -> Refusal:
    """A revision that has not been yet: clients try it again."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    message = f"Timeout: Too large resource version: {wanted}, current: {newest}"
    return Refusal(504, message, details, headers={"Retry-After": "1"})


def not_found(kind: Kind, name: str) -> Refusal:
    """There is no such object."""
    return Refusal(404, f'{qualified(kind)} "{name}" not found', details_of(kind, name))


def conflict(kind: Kind, name: str, why: str = MODIFIED) -> Refusal:
    """It has changed since, or is another one."""
    message = f'Operation cannot be fulfilled on {qualified(kind)} "{name}": {why}'
    return Refusal(409, message, details_of(kind, name))


def forbidden(kind: Kind, name: str, why: str) -> Refusal:
    """korch does not allow it, whoever asks."""
    about = f'{qualified(kind)} "{name}"' if name else qualified(kind)
    return Refusal(403, f"{about} is forbidden: {why}", details_of(kind, name))


def invalid(kind: Kind, name: str, problems: Sequence[Problem]) -> Refusal:
    """The object is not legal: all its mistakes, each with its field."""
    texts = [str(problem) for problem in problems]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    about = f"{kind.name}.{kind.group}" if kind.group else kind.name
    causes = [
        {"reason": "FieldValueInvalid", "message": problem.message, "field": problem.path} for problem in problems
    ]
    return Refusal(422, f'{about} "{name}" is invalid: {text}', details_of(kind, name, resource=False, causes=causes))


def translate(error: Exception, info: RequestInfo, kind: Kind | None) -> Refusal:
    """The refusal for an error of the layers below; what nobody foresaw is logged and told without its text."""
    if isinstance(error, Refusal):
        return error
    if not isinstance(error, KorchError):
        log.error("%s %s failed; this is a bug in korch", info.verb, info.path, exc_info=error)
        return Refusal(500, "Internal error occurred: see the log of the master")
    text = f"{error} {error.hint}".strip()
    if kind is None:
        return Refusal(error.http_status, text, reason=error.reason)
    return _of_object(error, info, kind, text)


def _of_object(error: KorchError, info: RequestInfo, kind: Kind, text: str) -> Refusal:
    details = details_of(kind, info.name)
    match error:
        case ProblemsError():
            return invalid(kind, info.name, error.problems)
        case InvalidError() if type(error) is InvalidError:
            return Refusal(422, text)  # no field is to blame: with details kubectl would leave the text out
        case NotFoundError() if info.verb == "create" and not info.subresource:
            space = {"name": info.namespace, "kind": "namespaces"}
            return Refusal(404, f'namespaces "{info.namespace}" not found', space)
        case NotFoundError():
            return not_found(kind, info.name)
        case AlreadyExistsError():
            return Refusal(409, f'{qualified(kind)} "{info.name}" already exists', details, "AlreadyExists")
        case ApplyConflictError():
            causes = [
                {"reason": "FieldManagerConflict", "message": text, "field": path}
                for text, (_, _, path) in zip(error.causes, error.conflicts, strict=True)
            ]
            return Refusal(409, str(error), {"causes": causes}, "Conflict")
        case ConflictError() if error.reason == "Conflict":
            return conflict(kind, info.name)
        case ExpiredError():
            return Refusal(410, str(error))
        case ForbiddenError():
            return forbidden(kind, info.name, text)
        case TransientError():
            return Refusal(503, text, details, headers={"Retry-After": "1"})
    return Refusal(error.http_status, text, details, error.reason)
