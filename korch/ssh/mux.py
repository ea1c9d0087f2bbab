"""How to talk to an `ssh` that is a ControlMaster: OpenSSH's own protocol between `ssh -S PATH` and its master.

Speaking it here instead of starting an `ssh` for every command saves that process, and gives exact answers where such
an `ssh` has only the exit status 255. Format: PROTOCOL.mux in OpenSSH's sources, version 4, unchanged since 2010. Each
conversation is one connection to the master's socket: greetings, one request with the descriptors that the master
shall read and write, its answer, and, when a program ends, its exit status.
"""

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

VERSION: Final = 4
HELLO: Final = 0x00000001
ALIVE_CHECK: Final = 0x10000004
NEW_SESSION: Final = 0x10000002
NEW_STDIO_FWD: Final = 0x10000008
PERMISSION_DENIED: Final = 0x80000002
FAILURE: Final = 0x80000003
EXIT_MESSAGE: Final = 0x80000004
ALIVE: Final = 0x80000005
SESSION_OPENED: Final = 0x80000006
TTY_ALLOC_FAIL: Final = 0x80000008
REQUEST: Final = 1  # one a conversation, so its number says nothing
NO_ESCAPE: Final = 0xFFFFFFFF
TERM: Final = "xterm-256color"
LONGEST_BYTES: Final = 256 * 1024
_PAUSE_S: Final = 0.01


class MuxError(Exception):
    """The master answers no, or in no way that this version understands."""


class Message(msgspec.Struct, frozen=True):
    """What the master says."""

    kind: int
    body: bytes

    @property
    def numbers(self) -> tuple[int, ...]:
        """The body as 32-bit numbers."""
        return struct.unpack(f">{len(self.body) // 4}I", self.body[: len(self.body) // 4 * 4])

    @property
    def reason(self) -> str:
        """The text of a refusal, which follows the number of the request."""
        return self.body[8:].decode("utf-8", "replace")


def packed(kind: int, *fields: int | str) -> bytes:
    """A message with its length; texts may hold any bytes, as file names do."""
    body = struct.pack(">I", kind)
    for field in fields:
        if isinstance(field, int):
            body += struct.pack(">I", field)
        else:
            data = field.encode("utf-8", "surrogateescape")
            body += struct.pack(">I", len(data)) + data
    return struct.pack(">I", len(body)) + body


def session_request(line: str, *, tty: bool) -> bytes:
    """Run a command line: no X11, no agent, no subsystem, no escape character, no variables."""
    return packed(NEW_SESSION, REQUEST, "", int(tty), 0, 0, 0, NO_ESCAPE, TERM if tty else "", line)


def forward_request(address: str, port: int) -> bytes:
    """A TCP connection from the host."""
    return packed(NEW_STDIO_FWD, REQUEST, "", address, port)


def unpack(buffer: bytearray) -> Message | None:
    """Take the first whole message out of the buffer. Raises `MuxError` for what cannot be one."""
    if len(buffer) < 4:
        return None
    (size,) = struct.unpack_from(">I", buffer)
    if not 4 <= size <= LONGEST_BYTES:
        raise MuxError(f"a message of {size} bytes")
    if len(buffer) < 4 + size:
        return None
    (kind,) = struct.unpack_from(">I", buffer, 4)
    message = Message(kind, bytes(buffer[8 : 4 + size]))
    del buffer[: 4 + size]
    return message


async def greeted(path: str) -> socket.socket:
    """A conversation with the master. Raises `OSError` when there is none, `MuxError` when it is of another kind."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
                break
            except BlockingIOError:  # its queue is full
                await asyncio.sleep(_PAUSE_S)
        await asyncio.get_running_loop().sock_sendall(sock, packed(HELLO, VERSION))
        hello = await answer(sock)
        if hello.kind != HELLO or hello.numbers[:1] != (VERSION,):
            raise MuxError(f"ssh speaks another version of its ControlMaster protocol: {hello.numbers[:1]}")
        return sock
    except BaseException:
        sock.close()
        raise


async def answer(sock: socket.socket) -> Message:
    """The next message; nothing that follows it is read. Raises `EOFError`."""
    buffer = bytearray(await _exactly(sock, 4))
    (size,) = struct.unpack(">I", buffer)
    if not 4 <= size <= LONGEST_BYTES:
        raise MuxError(f"a message of {size} bytes")
    buffer += await _exactly(sock, size)
    message = unpack(buffer)
    assert message is not None
    return message


async def ask(sock: socket.socket, request: bytes, descriptors: Sequence[int]) -> None:
    """Send a request, then its descriptors, each with a byte of its own as the master expects them."""
    await asyncio.get_running_loop().sock_sendall(sock, request)
    for descriptor in descriptors:
        while True:
            try:
                socket.send_fds(sock, [b"\0"], [descriptor])
                break
            except BlockingIOError:
                await asyncio.sleep(_PAUSE_S)


async def master_pid(path: str) -> int:
    """The process id of a master that answers. Raises `OSError`, `EOFError`, `MuxError`."""
    sock = await greeted(path)
    try:
        await ask(sock, packed(ALIVE_CHECK, REQUEST), ())
        said = await answer(sock)
        if said.kind != ALIVE or len(said.numbers) < 2:
            raise MuxError(f"the master does not say that it lives: {said.kind:#x}")
        return said.numbers[1]
    finally:
        sock.close()


async def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not more:
            raise EOFError("the master hung up")
        data += more
    return data
