"""Runs a container's checks: HTTP and TCP through the SSH connection, exec through the engine."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from korch.engines.observed import ObservedContainer
from korch.errors import CommandTimeoutError, EngineDownError, KorchError
from korch.nodes.machine import Machine
from korch.nodes.tls import TlsTunnel
from korch.resources.pod import Container, HTTPGetAction, Probe
from korch.ssh.base import Tunnel

ANSWER_LIMIT = 512  # bytes of an answer's body that a message may show
HEAD_LIMIT = 64 * 1024  # bytes of an answer's head; what sends more is no HTTP server
BODY_WAIT_S = 0.2  # for what a failing server says about it
STATUS_TIMED_OUT = 124  # of a program that its deadline on the node ended
# The engine did not run the program: it does not answer, or the container is just ending. Words of Docker, then Podman.
_ENGINE_SAYS = re.compile(
    rb"\s*(?:Cannot connect to the Docker daemon|error during connect|Error response from daemon|"
    rb"Error: can only create exec sessions on running|Error: no container with name or ID|"
    rb"Error: (?:unable to connect to|Cannot connect to) [Pp]odman).*"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found: "" or a problem, in words for people.

    `silent`: nothing answered in time, which may be the fault of the connection to the node as well; `impossible`: the
    node does not let anybody make such a check.
    """

    problem: str = ""
    silent: bool = False
    impossible: bool = False


def probe_port(container: Container, port: int | str) -> int:
    """The number of a probe's port, which may be named after one of the container's."""
    if isinstance(port, int):
        return port
    named = {found.name: found.container_port for found in container.ports if found.name}
    return named.get(port) or int(port)


async def run_probe(machine: Machine, container: Container, seen: ObservedContainer, probe: Probe) -> Verdict:
    """One try. Raises `KorchError` when the node could not be asked, which says nothing about the container."""
    timeout_s = float(probe.timeout_seconds or 1)
    try:
        if probe.exec is not None:
            return await _exec(machine, seen, probe.exec.command, timeout_s)
        async with asyncio.timeout(timeout_s):
            if probe.http_get is not None:
                return Verdict(await _http(machine, container, seen, probe.http_get))
            if probe.tcp_socket is not None:
                port = probe_port(container, probe.tcp_socket.port)
                tunnel = await _reach(machine, seen, port, probe.tcp_socket.host)
                await tunnel.close()
    except (TimeoutError, CommandTimeoutError):
        return Verdict(f"{_what(container, probe)}: no answer within {timeout_s:g} s", silent=True)
    except PermissionError:
        text = "the node's sshd forbids forwarding (AllowTcpForwarding no): use an exec check"
        return Verdict(text, impossible=True)
    except ssl.SSLError as error:
        return Verdict(f"{_what(container, probe)}: TLS: {(error.reason or str(error)).replace('_', ' ').lower()}")
    except OSError as error:
        return Verdict(f"{_what(container, probe)}: {error if error.args else 'connection refused'}")
    return Verdict()


def _what(container: Container, probe: Probe) -> str:
    if probe.http_get is not None:
        return f"GET {_path(probe.http_get)} on port {probe_port(container, probe.http_get.port)}"
    if probe.tcp_socket is not None:
        return f"TCP port {probe_port(container, probe.tcp_socket.port)}"
    return " ".join(probe.exec.command) if probe.exec is not None else "check"


def _path(get: HTTPGetAction) -> str:
    path = get.path or "/"
    return path if path.startswith("/") else f"/{path}"


async def _exec(machine: Machine, seen: ObservedContainer, argv: tuple[str, ...], timeout_s: float) -> Verdict:
    result = await machine.exec_probe(seen.name, argv, timeout_s)
    words = " ".join(argv)
    if result.status == 0:
        return Verdict()
    if result.status == STATUS_TIMED_OUT:
        return Verdict(f"{words}: no answer within {timeout_s:g} s")
    if complaint := _ENGINE_SAYS.match(result.stderr):
        raise EngineDownError(f"{machine.host}: {complaint[0].decode('utf-8', 'replace')}", host=machine.host)
    output = (result.stdout + result.stderr).decode("utf-8", "replace").strip()[:ANSWER_LIMIT]
    return Verdict(f"{words}: exit status {result.status}{': ' + output if output else ''}")


async def _reach(machine: Machine, seen: ObservedContainer, port: int, host: str = "") -> Tunnel:
    """To the container's own address, else to where the port is published on the node."""
    if host:
        return await machine.transport.forward(host, port)
    published = next((found for found in seen.ports if found.container_port == port), None)
    if seen.ip:
        try:
            return await machine.transport.forward(seen.ip, port)
        except ConnectionError:
            if published is None:
                raise
    if published is None:
        raise ConnectionRefusedError("the container has no address that the node can reach")
    return await machine.transport.forward(published.host_ip or "127.0.0.1", published.host_port)


async def _http(machine: Machine, container: Container, seen: ObservedContainer, get: HTTPGetAction) -> str:
    port = probe_port(container, get.port)
    tunnel = await _reach(machine, seen, port, get.host)
    headers = {item.name: item.value for item in get.http_headers}
    try:
        if get.scheme == "HTTPS":
            tunnel = secured = TlsTunnel(tunnel)
            await secured.handshake()
        await tunnel.write(http_request(_path(get), headers, get.host or seen.ip))
        status, body = await _answer(tunnel)
    finally:
        with contextlib.suppress(KorchError, OSError):
            await tunnel.close()
    if 200 <= status < 400:
        return ""
    said = f": {body}" if body else ""
    return f"GET {_path(get)} on port {port} answered {status or 'nothing that is HTTP'}{said}"


async def _answer(tunnel: Tunnel) -> tuple[int, str]:
    """As `http_answer`. Success needs no body, and no server that keeps the connection open is waited for."""
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < HEAD_LIMIT and (piece := await tunnel.read()):
        answer += piece
    if not 200 <= http_answer(answer)[0] < 400:
        with contextlib.suppress(OSError):  # it takes too long, or is cut off: what came is told
            async with asyncio.timeout(BODY_WAIT_S):
                limit = len(answer) + ANSWER_LIMIT
                while len(answer) < limit and (piece := await tunnel.read()):
                    answer += piece
    return http_answer(answer)


def http_request(path: str, headers: Mapping[str, str], host: str) -> bytes:
    """A GET in HTTP/1.1 that asks for the connection to be closed. `headers` replace those that go by themselves."""
    usual = {
        "Host": (f"[{host}]" if ":" in host else host) or "localhost",
        "User-Agent": "korch-probe",
        "Accept": "*/*",
        "Connection": "close",
    }
    given = {name.lower() for name in headers}
    lines = {**{name: value for name, value in usual.items() if name.lower() not in given}, **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


def http_answer(answer: bytes) -> tuple[int, str]:
    """(status, start of the body as one line); status 0 when it is not HTTP."""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 0, ""
    text = body.decode("utf-8", "replace").strip().splitlines()
    return int(words[1]), text[0][:200] if text else ""
