"""Connections by the system's `ssh` as ControlMaster (`korch_transport: openssh`): for what paramiko cannot do.

That is GSSAPI (Kerberos), certificates of hosts, FIDO and PKCS#11 keys, the newest key exchanges, and every option of
ssh_config that the other transport does not know. The price is a process of `ssh` a connection.

One `ssh -N` is one connection; programs and TCP connections are asked for at its control socket (`mux.py`), so that
the rest of the transport (slots, streams, deadlines) is the same as with paramiko. That `ssh` is started by a small
shell which waits for the end of its own standard input: the other end of that pipe is held by korch alone, so the
`ssh` ends with korch, however korch ends.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from korch.errors import SetupError
from korch.ssh import mux
from korch.ssh.channels import ChannelRefusedError, NeverOpenedError
from korch.ssh.muxchannel import Ends, MuxChannel
from korch.ssh.openssh_words import ASK_ALIVE_AFTER_S, refusal
from korch.ssh.options import SshOptions

START_TIMEOUT_S: Final = 10.0
ALIVE_TIMEOUT_S: Final = 5.0
KEPT_LINES: Final = 60
READY_WORDS: Final = "Authenticated to "
_WATCH: Final = '"$@" </dev/null & ssh=$!; exec 2>/dev/null; read -r _; kill "$ssh"; wait "$ssh"'
_TOLD_PAUSE_S: Final = 0.005  # the socket is there some microseconds after the words
_UNTOLD_PAUSE_S: Final = 0.25


class Master:
    """A running `ssh` and what it says on its standard error."""

    def __init__(self, words: tuple[str, ...], environment: dict[str, str]) -> None:
        if shutil.which(words[0]) is None:
            raise SetupError(
                f'the program "{words[0]}" is not installed', hint="Install it: apt-get install openssh-client"
            )
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.refusals: deque[tuple[float, tuple[int, str]]] = deque(maxlen=KEPT_LINES)
        self.has_ended = False
        self.on_end: Callable[[], None] = lambda: None
        self._part = b""
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._process = subprocess.Popen(
                ("sh", "-c", _WATCH, "sh", *(os.fsencode(word) for word in words)),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for korch, which ends it in good order
            )
        except OSError as error:
            raise _exhausted("ssh cannot be started", error) from error
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        self._loop.add_reader(self._stderr, self.read)

    def read(self) -> None:
        """Take in what it said until now."""
        while not self.has_ended:
            try:
                data = os.read(self._stderr.fileno(), 65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._end()
                break
            *lines, self._part = (self._part + data).split(b"\n")
            for line in lines:
                self._note(line.decode("utf-8", "replace").strip())
        self._news.set()

    async def news(self, timeout_s: float) -> None:
        """Wait until it said something or ended, at most so long."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    def close(self) -> None:
        """End it; waiting for that is left to a thread of its own."""
        if not self.has_ended:
            self._end()
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            threading.Thread(target=self._reap, name="ssh-reaper", daemon=True).start()

    def _note(self, line: str) -> None:
        if not line:
            return
        self.lines.append(line)
        if (refused := refusal(line)) is not None:
            self.refusals.append((self._loop.time(), refused))

    def _end(self) -> None:
        if self._part:
            self._note(self._part.decode("utf-8", "replace").strip())
            self._part = b""
        self.has_ended = True
        self._loop.remove_reader(self._stderr)
        self._stderr.close()
        self._news.set()
        self.on_end()

    def _reap(self) -> None:
        try:
            self._process.wait(3.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class MuxLink:
    """Implements `Connection` on a master that is logged in. `ServerAliveInterval` has it watch the other side."""

    def __init__(self, name: str, options: SshOptions, master: Master, socket: Path, pid: int) -> None:
        self.name, self.options, self.socket = name, options, socket
        self._master, self._pid = master, pid
        self._why = ""
        self._channels: set[MuxChannel] = set()
        master.on_end = self._ended
        if master.has_ended:
            self._ended()

    @property
    def is_alive(self) -> bool:
        """False once either side hung up."""
        return not self._master.has_ended

    def why_lost(self) -> str:
        """A few words on the end of this connection: `ssh` said them before it ended."""
        self._master.read()
        last = self._master.lines[-1] if self._master.lines else ""
        if "not responding" in last and not self._why:
            silent_s = (self.options.alive_interval_s or ASK_ALIVE_AFTER_S) * self.options.alive_count
            return f"the host was silent for {silent_s:.0f} s"
        return self._why or ("the host hung up" if "closed by" in last or READY_WORDS in last else last)

    async def start(self, line: str, pty: tuple[int, int] | None) -> MuxChannel:
        """A channel on which the login shell was given `line`."""
        try:
            ends = Ends.terminal(*pty) if pty is not None else Ends.pipes(err=True)
        except OSError as error:
            raise _exhausted(f"{self.name}: no pipes for a program", error) from error
        return await self._open(mux.session_request(line, tty=pty is not None), ends, START_TIMEOUT_S)

    async def reach(self, address: str, port: int, timeout_s: float) -> MuxChannel:
        """TCP from the host."""
        try:
            ends = Ends.pipes(err=False)
        except OSError as error:
            raise _exhausted(f"{self.name}: no pipes for a connection", error) from error
        return await self._open(mux.forward_request(address, port), ends, timeout_s)

    def busy(self) -> None:
        """`ssh` watches all the time."""

    def idle(self) -> None:
        """`ssh` watches all the time."""

    def close(self, why: str = "closed here") -> None:
        """Hang up; everything that waits on a channel is woken."""
        self._why = self._why or why
        self._master.close()
        for channel in tuple(self._channels):
            channel.hang_up()
        with contextlib.suppress(OSError):
            self.socket.unlink()

    async def _open(self, request: bytes, ends: Ends, timeout_s: float) -> MuxChannel:
        sock, since = None, asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout_s):
                sock = await mux.greeted(str(self.socket))
                await mux.ask(sock, request, ends.theirs)
                said = await mux.answer(sock)
            if said.kind != mux.SESSION_OPENED:
                raise self._refused(said, since)
            ends.sent()
            channel = MuxChannel(
                sock, ends, master=self._pid, is_alive=self._still_there, on_end=self._channels.discard
            )
            self._channels.add(channel)
            sock = None
            return channel
        except TimeoutError:
            raise NeverOpenedError(f"no answer for {timeout_s:.0f} s") from None
        except (OSError, EOFError, mux.MuxError) as error:
            raise NeverOpenedError(self.why_lost()) from error
        finally:
            ends.close()
            if sock is not None:
                sock.close()

    def _refused(self, said: mux.Message, since: float) -> Exception:
        """Why no channel opened, asked for at `since`. The master has told the reason on standard error just before.

        Two that are refused in the same moment may each get the other's reason.
        """
        self._master.read()
        if said.kind not in {mux.FAILURE, mux.PERMISSION_DENIED}:
            return mux.MuxError(f"an answer of kind {said.kind:#x}")
        told = self._master.refusals
        while told and told[0][0] < since:  # of those who connect through this host, or of a caller who has gone
            told.popleft()
        return ChannelRefusedError(*(told.popleft()[1] if told else (2, said.reason)))

    async def _still_there(self) -> bool:
        try:
            async with asyncio.timeout(ALIVE_TIMEOUT_S):
                await mux.master_pid(str(self.socket))
        except (OSError, EOFError, mux.MuxError, TimeoutError):
            return False
        return True

    def _ended(self) -> None:
        self._why = self.why_lost()
        self._master.close()


def _exhausted(what: str, error: OSError) -> SetupError:
    """This machine has no more processes or open files to give."""
    return SetupError(f"{what}: {error.strerror or error}", hint="Look at `ulimit -n` and `ulimit -u` of this shell.")


async def ready(master: Master, socket: Path) -> int:
    """The process id of the master, once it is logged in and answers. Raises `EOFError` when it ended before."""
    told = False
    while True:
        told = told or any(READY_WORDS in line for line in master.lines)
        with contextlib.suppress(OSError, EOFError, mux.MuxError):
            return await mux.master_pid(str(socket))
        if master.has_ended:
            raise EOFError
        await master.news(_TOLD_PAUSE_S if told else _UNTOLD_PAUSE_S)
