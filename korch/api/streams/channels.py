"""Frames of `v4.channel.k8s.io` and `v5.channel.k8s.io`: a byte for the channel, then its data. Pure.

A frame travels as one WebSocket message. v5 adds channel 255, with which a client says that another one has ended.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
_SERVED = (V5, V4)
_MOST_CELLS = 65_535


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a channel."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more comes on a channel."""

    channel: int


@dataclass(frozen=True, slots=True)
class Size:
    """The client's terminal."""

    columns: int
    rows: int


Frame = Data | End | Size


def choose_protocol(offered: Sequence[str]) -> str | None:
    """The best of the offered protocols; "" for a client that offers none, None when all of them are strange."""
    if not offered:
        return ""
    return next((protocol for protocol in _SERVED if protocol in offered), None)


def decode(message: bytes) -> Frame | None:
    """What a client says; None for what means nothing, such as a frame without data."""
    if len(message) < 2:
        return None
    channel, data = message[0], message[1:]
    if channel == CLOSE:
        return End(data[0])
    return _size(data) if channel == RESIZE else Data(channel, data)


def encode(channel: int, data: bytes) -> bytes:
    """A frame."""
    return bytes((channel,)) + data


def _size(data: bytes) -> Size | None:
    try:
        found = json.loads(data)
        columns, rows = found["Width"], found["Height"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    cells = (columns, rows)
    if not all(isinstance(one, int) and not isinstance(one, bool) and 0 < one <= _MOST_CELLS for one in cells):
        return None
    return Size(columns, rows)


def exit_frame(status: int) -> bytes:
    """The last frame of a program that ended with this status."""
    if status == 0:
        return _status_frame({"metadata": {}, "status": "Success"})
    return _status_frame(
        {
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": f"command terminated with non-zero exit code: exit status {status}",
            "details": {"causes": [{"reason": "ExitCode", "message": str(status)}]},
        }
    )


def failure_frame(message: str) -> bytes:
    """The last frame when nobody knows how the program ended, or it never began."""
    failure = {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500}
    return _status_frame(failure)


def _status_frame(status: dict[str, object]) -> bytes:
    return encode(STATUS, json.dumps(status, separators=(",", ":")).encode())
