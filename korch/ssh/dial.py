"""From a name to a pipe on which an sshd has begun to speak: TCP, ProxyCommand, or a channel of a jump host.

All of it is awaited on the event loop: a host that is off or frozen costs a socket, never a thread.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from typing import Any

from korch.errors import HostUnreachableError
from korch.ssh.options import SshOptions
from korch.ssh.pipes import ChannelPipe, Pipe, SocketPipe
from korch.ssh.threads import detached
from korch.ssh.wire import WireChannel, WireTransport

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


class DroppedError(Exception):
    """The server hung up before it greeted: what sshd does with too many unauthenticated connections."""


class TurnedAwayError(DroppedError):
    """An sshd said that it does not take this connection: the machine is alive."""


class Proxy:
    """A running ProxyCommand."""

    def __init__(self, command: str, sock: socket.socket) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        end = sock.fileno()
        self._process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], stdin=end, stdout=end, stderr=self._errors, start_new_session=True
        )

    def last_words(self) -> str:
        """The last line that it wrote to stderr."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End it; waiting for that is left to a thread of its own."""
        self._errors.close()
        with contextlib.suppress(OSError):
            self._process.terminate()
        threading.Thread(target=self._reap, name="proxy-reaper", daemon=True).start()

    def _reap(self) -> None:
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(slots=True)
class Dialled:
    """A pipe that is ready for the SSH handshake, and the proxy program behind it."""

    pipe: Pipe
    proxy: Proxy | None = None

    def close(self) -> None:
        """Hang up; once."""
        self.pipe.close()
        if self.proxy is not None:
            self.proxy.close()
            self.proxy = None


async def dial(name: str, options: SshOptions, via: WireTransport | None, timeout_s: float) -> Dialled:
    """A pipe whose server has sent its first bytes. Raises `HostUnreachableError` or `DroppedError`.

    `name` is for messages. The caller enforces `timeout_s`; here it only bounds each of several addresses.
    """
    if via is not None:
        return Dialled(await _through(name, options, via))
    loop = asyncio.get_running_loop()
    proxy: Proxy | None = None
    if options.proxy_command is not None:
        sock, proxy = _proxied(options.proxy_command)
    else:
        sock = await _tcp(name, options, timeout_s)
    dialled = Dialled(SocketPipe(sock, loop), proxy)
    try:
        await _greeted(sock)
    except DroppedError as error:
        words = proxy.last_words() if proxy is not None else ""
        dialled.close()
        raise type(error)(f"{error}: {words}" if words else str(error)) from error
    except BaseException:
        dialled.close()
        raise
    return dialled


async def _tcp(name: str, options: SshOptions, timeout_s: float) -> socket.socket:
    """A connected socket; the addresses are tried in order, each with its share of the time."""
    loop = asyncio.get_running_loop()
    reason = "no address"
    addresses = await _addresses(name, options)
    for index, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _tune(sock)
            share = timeout_s / len(addresses) if index + 1 < len(addresses) else None
            async with asyncio.timeout(share):
                await loop.sock_connect(sock, address)
            return sock
        except TimeoutError:
            sock.close()
            reason = "no answer"
        except OSError as error:
            sock.close()
            reason = os.strerror(error.errno) if error.errno else str(error)
        except BaseException:
            sock.close()
            raise
    raise HostUnreachableError(
        f"{name}: no connection to {options.hostname} port {options.port}: {reason}",
        host=name,
        hint=hint_for(reason),
    )


def _tune(sock: socket.socket) -> None:
    """Small packets at once, and the kernel's own watch over a peer that vanished."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def _addresses(name: str, options: SshOptions) -> list[tuple[int, Any]]:
    """(family, address) to try. Numbers need no look-up and no thread."""
    with contextlib.suppress(ValueError):
        number = ipaddress.ip_address(options.hostname)
        if number.version == 4:
            return [(socket.AF_INET, (options.hostname, options.port))]
        if "%" not in options.hostname:
            return [(socket.AF_INET6, (options.hostname, options.port, 0, 0))]
    family = _FAMILIES.get(options.address_family, socket.AF_UNSPEC)

    def look_up() -> list[Any]:
        return list(socket.getaddrinfo(options.hostname, options.port, family, socket.SOCK_STREAM))

    try:
        found = await detached(look_up, "ssh-name")
    except (socket.gaierror, UnicodeError) as error:
        raise HostUnreachableError(
            f'{name}: the name "{options.hostname}" has no address: {getattr(error, "strerror", None) or error}',
            host=name,
            hint="Set ansible_host in the inventory, or HostName in ~/.ssh/config.",
        ) from error
    return [(entry[0], entry[4]) for entry in found]


def _proxied(command: str) -> tuple[socket.socket, Proxy]:
    """One end of a socket pair; the other is the proxy program's stdin and stdout."""
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        proxy = Proxy(command, theirs)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, proxy


async def _greeted(sock: socket.socket) -> None:
    """Wait for the server's first bytes, and understand those that mean no."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock.fileno())
    try:
        first = sock.recv(256, socket.MSG_PEEK)
    except OSError as error:
        raise DroppedError(os.strerror(error.errno or errno.EIO)) from error
    if first.startswith((b"Exceeded MaxStartups", b"Not allowed at this time")):
        raise TurnedAwayError(f'sshd says "{first.decode("ascii", "replace").strip()}"')
    if not first:
        raise DroppedError("the connection was closed before the SSH banner")


async def _through(name: str, options: SshOptions, via: WireTransport) -> ChannelPipe:
    """A pipe inside the jump host's connection."""
    channel = via.open_nowait("direct-tcpip", (options.hostname, options.port))
    try:
        await opened(channel)
        if channel.open_error is not None:
            raise HostUnreachableError(
                f"{name}: the jump host cannot connect to {options.hostname} port {options.port}: "
                f"{channel.open_error[1] or 'refused'}",
                host=name,
                hint="The jump host's sshd must allow TCP forwarding, and reach that address.",
            )
        await channel.until(lambda: channel.recv_ready() or bool(channel.eof_received) or bool(channel.closed))
        if not channel.recv_ready():
            raise DroppedError("the connection was closed before the SSH banner")
    except BaseException:
        abandon(channel)
        raise
    return ChannelPipe(channel)


async def opened(channel: WireChannel) -> None:
    """Wait until the other side has answered the request for a channel, either way."""
    await channel.until(lambda: channel.is_open or channel.open_error is not None or bool(channel.closed))


def abandon(channel: WireChannel) -> None:
    """Close a channel, now or as soon as it opens."""

    def close() -> None:
        if channel.is_open:
            with contextlib.suppress(OSError, EOFError):
                channel.close()

    channel.watch(close)
    close()


def hint_for(reason: str) -> str:
    """What to look at when TCP says `reason`."""
    if reason == os.strerror(errno.ECONNREFUSED):
        return "The machine is up, but no sshd listens on that port."
    return "Is the machine on, and is the address right?"
