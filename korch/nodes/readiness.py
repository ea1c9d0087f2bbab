"""Runs a container's checks: HTTP and TCP through the SSH connection, exec through the engine."""

import asyncio
import contextlib
from collections.abc import Mapping

from korch.engines.observed import ObservedContainer
from korch.errors import CommandTimeoutError, KorchError
from korch.nodes.machine import Machine
from korch.resources.pod import HTTPGetAction, Pod, Probe
from korch.ssh.base import Tunnel

ANSWER_LIMIT = 512  # bytes of an answer that a message may show


def probe_port(pod: Pod, port: int | str) -> int:
    """The number of a probe's port, which may be named after one of the container's."""
    if isinstance(port, int):
        return port
    named = {found.name: found.container_port for found in pod.spec.containers[0].ports if found.name}
    return named.get(port) or int(port)


async def run_probe(machine: Machine, pod: Pod, seen: ObservedContainer, probe: Probe) -> str:
    """One try: "" when it passes, else what was seen, in words for people."""
    timeout_s = float(probe.timeout_seconds or 1)
    try:
        if probe.exec is not None:
            return await _exec(machine, seen, probe.exec.command, timeout_s)
        async with asyncio.timeout(timeout_s):
            if probe.http_get is not None:
                return await _http(machine, pod, seen, probe.http_get)
            if probe.tcp_socket is not None:
                tunnel = await _reach(machine, seen, probe_port(pod, probe.tcp_socket.port), probe.tcp_socket.host)
                await tunnel.close()
    except TimeoutError:
        return f"{_what(pod, probe)}: no answer within {timeout_s:g} s"
    except PermissionError:
        return "the node's sshd forbids forwarding (AllowTcpForwarding no): use an exec check"
    except ConnectionError as error:
        return f"{_what(pod, probe)}: {error or 'connection refused'}"
    except CommandTimeoutError:
        return f"the command gave no answer within {timeout_s:g} s"
    return ""


def _what(pod: Pod, probe: Probe) -> str:
    if probe.http_get is not None:
        return f"GET {probe.http_get.path or '/'} on port {probe_port(pod, probe.http_get.port)}"
    if probe.tcp_socket is not None:
        return f"TCP port {probe_port(pod, probe.tcp_socket.port)}"
    return "command"


async def _exec(machine: Machine, seen: ObservedContainer, argv: tuple[str, ...], timeout_s: float) -> str:
    result = await machine.exec_probe(seen.name, argv, timeout_s)
    if result.status == 0:
        return ""
    output = (result.stdout + result.stderr).decode("utf-8", "replace").strip()[:ANSWER_LIMIT]
    return f"{' '.join(argv)}: exit status {result.status}{': ' + output if output else ''}"


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


async def _http(machine: Machine, pod: Pod, seen: ObservedContainer, get: HTTPGetAction) -> str:
    if (get.scheme or "HTTP").upper() != "HTTP":
        return "HTTPS checks are not supported: use an exec or TCP check"
    port = probe_port(pod, get.port)
    tunnel = await _reach(machine, seen, port, get.host)
    try:
        await tunnel.write(http_request(get.path or "/", {item.name: item.value for item in get.http_headers}, seen.ip))
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer) < ANSWER_LIMIT:
            piece = await tunnel.read()
            if not piece:
                break
            answer += piece
    finally:
        with contextlib.suppress(KorchError, OSError):
            await tunnel.close()
    status, body = http_answer(answer)
    if 200 <= status < 400:
        return ""
    said = f": {body}" if body else ""
    return f"GET {get.path or '/'} on port {port} answered {status or 'nothing that is HTTP'}{said}"


def http_request(path: str, headers: Mapping[str, str], host: str) -> bytes:
    """A GET in HTTP/1.1 that asks for the connection to be closed."""
    lines = {
        "Host": host or "localhost",
        "User-Agent": "korch-probe",
        "Accept": "*/*",
        **headers,
        "Connection": "close",
    }
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
