"""A real sshd on 127.0.0.1 for tests, run by whoever runs the tests: no root, no PAM, nothing left behind."""

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest

from korch.inventory.model import Host
from korch.settings import Settings
from korch.ssh.base import Transport
from korch.ssh.connect import Connector

TRANSPORTS: Final = ("fabric", "openssh")  # what `korch_transport` may be
SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if os.path.exists("/usr/sbin/sshd") else None)
needs_sshd = pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="needs sshd and ssh")


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A private key file; its public half is beside it."""
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", path.name, "-f", path], check=True)
    return path


def public(path: Path) -> str:
    """`TYPE BASE64` of a key file."""
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Chosen:
    """The transport of the hosts that tests make."""

    transport: Literal["fabric", "openssh"] = "fabric"


def a_host(*args: object, **kwargs: object) -> Host:
    """A host of the chosen transport."""
    return Host(*args, transport=Chosen.transport, **kwargs)  # type: ignore[arg-type]


@dataclass
class Sshd:
    """One server. `user_key` logs in; `known_hosts` knows its key."""

    folder: Path
    port: int
    user_key: Path
    process: subprocess.Popen[bytes] | None = None
    host_keys: list[Path] = field(default_factory=list)
    wrapper: list[str] = field(default_factory=list)  # words before sshd's own

    @property
    def name(self) -> str:
        return f"[127.0.0.1]:{self.port}"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def host(self, name: str = "n1", *args: str, key: Path | None = None, known: Path | None = None) -> Host:
        """How an inventory would describe it. No configuration of the machine's own takes part."""
        config = self.folder / "ssh_config"
        config.touch()
        options = ("-F", str(config), *args, "-o", f"UserKnownHostsFile={known or self.known_hosts}")
        quiet = ("-o", "GlobalKnownHostsFile=none", "-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes")
        return a_host(name, "127.0.0.1", self.port, getpass.getuser(), str(key or self.user_key), options + quiet)

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        assert SSHD is not None
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            argv = [*self.wrapper, SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                if sock.recv(4) == b"SSH-":
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"sshd did not start: {self.log()}")

    def stop(self) -> None:
        if self.process is not None:
            for pid in (*children(self.process.pid), self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def children(pid: int) -> list[int]:
    """Processes below `pid`, deepest first."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [*children(int(child)), int(child)]
    return found


@contextlib.contextmanager
def sshd(
    folder: Path, *lines: str, host_keys: tuple[str, ...] = ("ed25519",), rc: str = "", kind: type[Sshd] = Sshd
) -> Iterator[Sshd]:
    """A running server. `lines` go first in its configuration; `rc` is the login shell's start-up file."""
    folder.mkdir(parents=True, exist_ok=True)
    server = kind(folder, free_port(), folder / "id")
    if not server.user_key.exists():
        make_key(server.user_key)
    (folder / "authorized_keys").write_text(public(server.user_key) + "\n")
    server.host_keys = [make_key(folder / f"host_{kind}", kind) for kind in host_keys]
    server.known_hosts.write_text("".join(f"{server.name} {public(key)}\n" for key in server.host_keys))
    server.home.mkdir()
    (server.home / ".bashrc").write_text(rc)
    config = [
        *lines,
        f"Port {server.port}",
        "ListenAddress 127.0.0.1",
        "PidFile none",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        "UsePAM no",
        "StrictModes no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        f"SetEnv HOME={server.home}",
        *(f"HostKey {key}" for key in server.host_keys),
    ]
    (folder / "sshd_config").write_text("\n".join(config) + "\n")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass
class Bench:
    """One event loop for many calls, so that a connection can be shared by the examples of a property."""

    runner: asyncio.Runner
    connector: Connector
    transport: Transport


@contextlib.contextmanager
def bench(home: Path, host: Host, *, host_key: str = "", prompt: Callable[[str], str] | None = None) -> Iterator[Bench]:
    """A transport to `host`."""
    connector = Connector(Settings(home, "test", host_key=host_key), prompt=prompt)
    with asyncio.Runner() as runner:
        made = Bench(runner, connector, connector.transport_for(host))
        try:
            yield made
        finally:
            runner.run(made.transport.close())
            runner.run(connector.close())
