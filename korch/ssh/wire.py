"""paramiko made to fit an event loop: nothing here blocks, and whoever waits is woken instead of polling.

paramiko gives each connection one thread that reads, decrypts and sorts packets; korch adds no other. What changes:

- `pipes.py` stands where paramiko expects a socket, and never makes a sender wait.
- `WireTransport.open_nowait` asks for a channel and returns. Messages that must wait for a key renewal are held back in
  order instead of blocking their sender.
- `WireChannel` calls its watchers at every change, from paramiko's thread; `WireChannel.until` turns that into `await`.

This file leans on names that paramiko calls private; they have been stable since its 1.x, and the transport contract
suite runs on the installed version.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_CHANNEL_OPEN,
    cMSG_CHANNEL_REQUEST,
    cMSG_GLOBAL_REQUEST,
)
from paramiko.kex_curve25519 import KexCurve25519

from korch.ssh.pipes import BROKEN, Pipe


class WireChannel(paramiko.Channel):
    """A channel that tells when anything about it changed."""

    def __init__(self, chanid: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(chanid)
        self.open_error: tuple[int, str] | None = None  # RFC 4254 section 5.1: reason code, text
        self.exit_seen = False
        self._loop = loop
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._waiters: list[asyncio.Future[None]] = []
        self._waking = False

    @property
    def is_open(self) -> bool:
        """The other side agreed."""
        return bool(self.active)

    @property
    def has_ended(self) -> bool:
        """Nothing runs at the other end any more: it told an exit status, or the channel is gone."""
        return self.exit_seen or bool(self.closed)

    @property
    def is_closed(self) -> bool:
        """The channel is gone."""
        return bool(self.closed)

    @property
    def eof_seen(self) -> bool:
        """The other side sends no more."""
        return bool(self.eof_received)

    @property
    def cannot_send(self) -> bool:
        """Nothing can be written any more."""
        return bool(self.eof_sent)

    def ask_to_end(self) -> None:
        """Send SIGTERM to the program's process group (OpenSSH 8.1 and newer), without waiting."""
        transport = self.transport
        if isinstance(transport, WireTransport) and not self.has_ended:
            transport.request_nowait(self, "signal", "TERM", reply=False)

    def hang_up(self) -> None:
        """Close, however the connection does."""
        with contextlib.suppress(*BROKEN):
            self.close()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after every change, in paramiko's thread."""
        self._watchers = (*self._watchers, watcher)

    async def until(self, true: Callable[[], bool]) -> None:
        """Return when `true()`, which is asked again after every change."""
        while not true():
            future = self._loop.create_future()
            self._waiters.append(future)
            await future

    def changed(self) -> None:
        """Wake everyone; from any thread."""
        for watcher in self._watchers:
            watcher()
        if not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._waking = False
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    def _set_closed(self) -> None:
        super()._set_closed()  # type: ignore[misc]
        # Called with the channel's lock held, which watchers may need.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.changed)

    def _handle_request(self, m: paramiko.Message) -> None:
        """RFC 4254 section 6.10: a program ends with exit-status or with exit-signal; paramiko knows the first only."""
        kind = m.get_text()
        if kind == "exit-signal":
            m.get_boolean()
            number = getattr(signal, "SIG" + m.get_text(), None)
            self.exit_status = 128 + int(number) if isinstance(number, signal.Signals) else -1
            self.exit_seen = True
            self.status_event.set()
            return
        m.rewind()
        m.get_int()  # the channel's number, read before
        super()._handle_request(m)  # type: ignore[misc]
        if kind == "exit-status":
            self.exit_seen = True


def _dispatch(name: str) -> Callable[[WireChannel, paramiko.Message], None]:
    """A handler that calls the channel's method `name` and then tells its watchers."""

    def handle(channel: WireChannel, message: paramiko.Message) -> None:
        getattr(channel, name)(message)
        channel.changed()

    return handle


class WireTransport(paramiko.Transport):
    """paramiko's connection with channels that never block their callers."""

    _channels: Any

    _active_check_timeout: ClassVar[float] = 2.0  # how often the thread looks up; closing wakes it by `Pipe.close`
    _channel_handler_table: ClassVar[dict[int, Any]] = {
        MSG_CHANNEL_SUCCESS: _dispatch("_request_success"),
        MSG_CHANNEL_FAILURE: _dispatch("_request_failed"),
        MSG_CHANNEL_DATA: _dispatch("_feed"),
        MSG_CHANNEL_EXTENDED_DATA: _dispatch("_feed_extended"),
        MSG_CHANNEL_WINDOW_ADJUST: _dispatch("_window_adjust"),
        MSG_CHANNEL_REQUEST: _dispatch("_handle_request"),
        MSG_CHANNEL_EOF: _dispatch("_handle_eof"),
        MSG_CHANNEL_CLOSE: _dispatch("_handle_close"),
    }
    # RFC 8731 names the key exchange that paramiko knows only by its older name.
    _kex_info: ClassVar[dict[str, Any]] = {
        **paramiko.Transport._kex_info,  # type: ignore[attr-defined]
        "curve25519-sha256": KexCurve25519,
    }
    _preferred_kex: ClassVar[tuple[str, ...]] = ("curve25519-sha256", *paramiko.Transport._preferred_kex)  # type: ignore[attr-defined]
    _preferred_ciphers: ClassVar[tuple[str, ...]] = tuple(
        sorted(
            (name for name in paramiko.Transport._preferred_ciphers if not name.endswith("-cbc")),  # type: ignore[attr-defined]
            key=lambda name: (not name.startswith("aes128-gcm"), not name.startswith("aes256-gcm")),
        )
    )

    def __init__(self, pipe: Pipe, *, loop: asyncio.AbstractEventLoop, key_types: tuple[str, ...] = ()) -> None:
        super().__init__(pipe)  # type: ignore[arg-type]
        self.daemon = True
        self.pipe = pipe
        self._loop = loop
        self._key_types = key_types
        self._held: list[Any] = []

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Host key algorithms in the order that known_hosts suggests."""
        return self._key_types or tuple(super().preferred_keys)

    def open_nowait(self, kind: str, destination: tuple[str, int] | None = None) -> WireChannel:
        """A channel that is asked for: wait `until` it is open, has an `open_error`, or is closed."""
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        window, packet = self._sanitize_window_size(None), self._sanitize_packet_size(None)  # type: ignore[attr-defined]
        with self.lock:
            number = self._next_channel()  # type: ignore[attr-defined]
            channel = WireChannel(number, self._loop)
            self._channels.put(number, channel)
            self.channel_events[number] = threading.Event()
            self.channels_seen[number] = True
            channel._set_transport(self)  # type: ignore[attr-defined]
            channel._set_window(window, packet)  # type: ignore[attr-defined]
        for part in (number, window, packet):
            message.add_int(part)
        if destination is not None:
            message.add_string(destination[0])
            message.add_int(destination[1])
            message.add_string("127.0.0.1")  # the originator, which only appears in sshd's log
            message.add_int(0)
        self._send_user_message(message)
        if not self.active:
            channel._unlink()  # type: ignore[attr-defined]
        return channel

    def request_nowait(self, channel: WireChannel, kind: str, *fields: str | bytes | int, reply: bool = True) -> None:
        """Send a channel request; a refusal closes the channel."""
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string(kind)
        message.add_boolean(reply)
        for field in fields:
            if isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        self._send_user_message(message)

    def ask_alive(self) -> None:
        """Make the other side answer: OpenSSH's keepalive, which every server must reply to, if only with a refusal."""
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_user_message(message)

    def _send_user_message(self, data: Any) -> None:
        """Send, or keep in order while keys are being renewed; paramiko's own blocks its caller then."""
        if not self.active:
            return
        with self.clear_to_send_lock:
            if self.clear_to_send.is_set() and not self._held:
                self._send_message(data)  # type: ignore[attr-defined]
            else:
                self._held.append(data)

    def _parse_newkeys(self, m: paramiko.Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        with self.clear_to_send_lock:
            while self._held:
                self._send_message(self._held.pop(0))  # type: ignore[attr-defined]

    def _parse_channel_open_success(self, m: paramiko.Message) -> None:
        channel = self._channels.get(m.get_int())
        m.rewind()
        super()._parse_channel_open_success(m)  # type: ignore[misc]
        if channel is not None:
            channel.changed()

    def _parse_channel_open_failure(self, m: paramiko.Message) -> None:
        channel = self._channels.get(m.get_int())
        error = (m.get_int(), m.get_text())
        m.rewind()
        super()._parse_channel_open_failure(m)  # type: ignore[misc]
        if channel is not None:
            channel.open_error = error
            channel.changed()
