"""`pods/exec` and `pods/attach`: a program's input, output, terminal and end, as frames of a WebSocket."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from korch.api.streams.channels import (
    STDERR,
    STDIN,
    STDOUT,
    Data,
    End,
    Frame,
    Size,
    decode,
    encode,
    exit_frame,
    failure_frame,
)
from korch.api.streams.sockets import GoneError, Talk, first_of
from korch.errors import KorchError
from korch.ssh.base import Stream

USUAL_SIZE = (80, 24)
_FIRST_FRAME_S = 0.5  # kubectl sends the size of its terminal first
_MESSAGE_BYTES = 32 * 1024

Start = Callable[[tuple[int, int] | None], AbstractAsyncContextManager[Stream]]
"""Starts the program, on a terminal of so many columns and rows if they are given."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams a client asks for, and whether it hears how the program ended."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    status: bool = True  # of a program that was started for this client; of others the pod tells


@dataclass(slots=True)
class Session:
    """One program and its client, until either ends."""

    talk: Talk
    start: Start
    wanted: Wanted
    early: list[Frame] = field(default_factory=list)

    async def run(self) -> None:
        """Start the program, and say how it ended."""
        try:
            size = await self._first_size() if self.wanted.tty else None
            async with self.start(size) as stream:
                last = await self._converse(stream)
        except KorchError as error:
            last = failure_frame(f"{error} {error.hint}".strip())
        except GoneError:
            return
        try:
            await self.talk.send(last)
        except GoneError:
            return
        await self.talk.close()

    async def _converse(self, stream: Stream) -> bytes:
        """The last frame. Raises `GoneError` when the client went, or nobody said anything for too long."""
        ended: list[int] = []
        done = await first_of((self._copy(stream, ended), self._feed(stream), self.talk.idle()))
        if done != 0:
            raise GoneError
        if ended[0] < 0:
            return failure_frame("the connection to the node broke: how the program ended is not known")
        return exit_frame(ended[0] if self.wanted.status else 0)

    async def _copy(self, stream: Stream, ended: list[int]) -> None:
        """Output to the client, no faster than it reads."""
        shown = {1: self.wanted.stdout or self.wanted.tty, 2: self.wanted.stderr}
        async for number, data in stream.chunks():
            if not shown[number]:
                continue
            channel = STDOUT if number == 1 else STDERR
            for at in range(0, len(data), _MESSAGE_BYTES):
                await self.talk.send(encode(channel, data[at : at + _MESSAGE_BYTES]))
        ended.append(await stream.wait())

    async def _feed(self, stream: Stream) -> None:
        """Input to the program, no faster than it reads; returns when the client has gone."""
        taken = self.wanted.stdin
        if not taken and not self.wanted.tty:  # on a terminal that would be typed
            await _quietly(stream.write_eof)
        for frame in self.early:
            taken = await self._pass_on(stream, frame, taken)
        while (message := await self.talk.receive()) is not None:
            if (frame_ := decode(message)) is not None:
                taken = await self._pass_on(stream, frame_, taken)

    async def _pass_on(self, stream: Stream, frame: Frame, taken: bool) -> bool:
        """Do what a frame says; whether input is still taken then."""
        match frame:
            case Data(channel, data) if channel == STDIN and taken:
                return await _quietly(lambda: stream.write(data))
            case End(channel) if channel == STDIN and taken:
                await _quietly(stream.write_eof)
                return False
            case Size(columns, rows) if self.wanted.tty:
                await _quietly(lambda: stream.resize(columns, rows))
        return taken

    async def _first_size(self) -> tuple[int, int]:
        """Of the client's terminal, if it tells at once."""
        try:
            async with asyncio.timeout(_FIRST_FRAME_S):
                message = await self.talk.receive()
        except TimeoutError:
            return USUAL_SIZE
        if message is None:
            raise GoneError
        match decode(message):
            case Size(columns, rows):
                return columns, rows
            case None:
                return USUAL_SIZE
            case frame:
                self.early.append(frame)
                return USUAL_SIZE


async def _quietly(act: Callable[[], Awaitable[None]]) -> bool:
    """Whether the program took it. One that reads no more, or has gone, ends by itself: `_copy` tells how."""
    try:
        await act()
    except (BrokenPipeError, KorchError):
        return False
    return True
