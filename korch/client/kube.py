"""Objects, paths and errors as they stand in Kubernetes' HTTP, for korch's own client. Pure."""

import re
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

import msgspec

from korch.client import forms
from korch.client.kubeconfig import Access
from korch.errors import (
    AlreadyExistsError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidError,
    KorchError,
    NotFoundError,
    TransientError,
)
from korch.resources.codec import encode
from korch.resources.defaults import with_defaults
from korch.resources.kinds import Kind
from korch.resources.meta import Object

T = TypeVar("T", bound=Object)
V = TypeVar("V")

AS = (("fieldManager", "korch"), ("fieldValidation", "Ignore"))  # how objects are written
_PATH_WORD = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~:@=,+-]+", re.ASCII)
_CLASSES: dict[int, type[KorchError]] = {
    400: InvalidError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ExpiredError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
    429: TransientError,
    502: TransientError,
    503: TransientError,
    504: TransientError,
}


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = "0"


class Listing(msgspec.Struct, Generic[V]):
    """A list of objects."""

    items: tuple[V, ...] = ()
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class Event(msgspec.Struct):
    """A line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class BusyError(TransientError):
    """The API is there, and asks for patience."""


def beside_the_state(what: str, server: str) -> ForbiddenError:
    """The refusal of what is not done over the API."""
    return ForbiddenError(
        f"{what} is not done over the API ({server}): it belongs where the cluster's folder is",
        hint="Run it there, without --server, --context, --kubeconfig, KORCH_SERVER and KORCH_CONTEXT.",
    )


def own_path(resource: str, name: str, namespace: str) -> str:
    """Where one of korch's own calls is."""
    space = f"/namespaces/{namespace}" if namespace else ""
    return f"{forms.PREFIX}{space}/{resource}/{name}"


def path_of(kind: Kind, namespace: str, name: str = "") -> str:
    """Where objects of a kind are, or one of them; `InvalidError` for what can be no name in a path."""
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    words = (*(("namespaces", namespace) if kind.namespaced and namespace else ()), kind.plural, *filter(None, (name,)))
    for word in words:
        if not _PATH_WORD.fullmatch(word):
            raise InvalidError(f'"{word}" is no name')
    return "/".join((base, *words))


def body_of(wanted: Object, stored: Object) -> bytes:
    """The object as it is written back: over what was read, and nothing newer."""
    meta = msgspec.structs.replace(wanted.metadata, resource_version=stored.metadata.resource_version)
    return encode(msgspec.structs.replace(wanted, metadata=meta))


@lru_cache(maxsize=128)
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def typed(type_: type[T], body: bytes) -> T:
    """The object as it is stored: answers hold some things for others' sake, which defaults leave out."""
    obj: T = _decoder(type_).decode(body)
    return with_defaults(obj)


def listing(type_: type[T], body: bytes) -> Listing[T]:
    """A list, its objects as they are stored."""
    found: Listing[T] = _decoder(Listing[type_]).decode(body)  # type: ignore[valid-type]
    found.items = tuple(map(with_defaults, found.items))
    return found


def code_in(status: msgspec.Raw) -> int:
    """The code in a Status."""
    found = msgspec.json.decode(status)
    code = found.get("code") if isinstance(found, dict) else None
    return code if isinstance(code, int) else 500


def is_name(text: str) -> bool:
    """Whether it may stand in a path."""
    return _PATH_WORD.fullmatch(text) is not None


def error_in(status: int, body: bytes, access: Access) -> KorchError:
    """What an answer that is no success tells of: in korch's words if it has them, else in Kubernetes'."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        said = {}
    said = said if isinstance(said, dict) else {}
    if (ours := forms.error_of(said.get("korch"))) is not None:
        return BusyError(str(ours), hint=ours.hint) if type(ours) is TransientError else ours
    message = str(said.get("message") or f"the API at {access.server} answers with status {status}")
    if status == 401:
        return ForbiddenError(
            f"the API at {access.server} does not know the credential of {access.source}",
            hint="It has ended or was taken back: `korch kubeconfig` makes a new one.",
        )
    if status in {429, 503}:
        return BusyError(message)
    if status == 409 and said.get("reason") == "AlreadyExists":
        return AlreadyExistsError(message)
    hint = "The credential has a role that does not include it: `korch kubeconfig --role`." if status == 403 else ""
    return _CLASSES.get(status, KorchError)(message, hint=hint)
