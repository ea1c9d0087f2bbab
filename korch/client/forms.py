"""How what a client hands out and gets crosses HTTP: its values as JSON, errors with their class, words and hint."""

import base64
from typing import Any, TypeVar

import msgspec

from korch import errors
from korch.errors import KorchError

V = TypeVar("V")

LOOKS, ACTS = "looks", "acts"
PREFIX = "/apis/korch.dev/v1"
_MORE = ("host", "status", "stderr")  # what some errors know besides


def encode(value: object) -> bytes:
    """The value as JSON."""
    return msgspec.json.encode(value, enc_hook=_plain)


def decode(data: bytes, type_: type[V]) -> V:
    """The value in JSON; raises `msgspec.MsgspecError` for what is none."""
    return msgspec.json.decode(data, type=type_, dec_hook=_typed)


def error_data(error: KorchError) -> dict[str, Any]:
    """The error as plain data."""
    name = next(found.__name__ for found in type(error).__mro__ if found.__module__ == errors.__name__)
    more = {key: getattr(error, key) for key in _MORE if hasattr(error, key)}
    return {"error": name, "message": str(error), "hint": error.hint, **more}


def error_of(data: object) -> KorchError | None:
    """The error in plain data, None when there is none."""
    if not isinstance(data, dict) or not isinstance(data.get("message"), str):
        return None
    class_ = getattr(errors, str(data.get("error")), None)
    if not (isinstance(class_, type) and issubclass(class_, KorchError)):
        class_ = KorchError
    error = class_.__new__(class_)
    KorchError.__init__(error, data["message"], hint=str(data.get("hint", "")))
    for key in _MORE:
        if key in data:
            setattr(error, key, data[key])
    return error


def _plain(value: object) -> object:
    match value:
        case KorchError():
            return error_data(value)
        case frozenset():
            return sorted(value)
    raise NotImplementedError(type(value).__name__)


def _typed(type_: type, data: object) -> object:
    if issubclass(type_, KorchError):
        return error_of(data)
    raise NotImplementedError(type_.__name__)


def text_of(data: bytes | None) -> str | None:
    """Bytes as text that JSON can hold."""
    return None if data is None else base64.b64encode(data).decode()
