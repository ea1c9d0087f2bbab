"""What a check asks, and what it makes of the answer."""

import asyncio
from dataclasses import replace

import pytest

from korch.engines.observed import ObservedContainer
from korch.engines.wish import PublishedPort
from korch.errors import CommandTimeoutError, HostUnreachableError
from korch.nodes.readiness import Verdict, http_answer, http_request, probe_port, run_probe
from korch.resources.meta import ObjectMeta
from korch.resources.pod import (
    Container,
    ContainerPort,
    ExecAction,
    HTTPGetAction,
    HTTPHeader,
    Pod,
    PodSpec,
    Probe,
    TCPSocketAction,
)
from korch.ssh.base import Result
from tests.unit.nodes.fake_machine import OK, FakeMachine, FakeTunnel
from tests.unit.nodes.virtual_loop import run_virtually

POD = Pod(
    metadata=ObjectMeta(name="web-1"),
    spec=PodSpec(
        containers=(Container(name="web", image="w", ports=(ContainerPort(name="http", container_port=80),)),)
    ),
)
SEEN = ObservedContainer(id="i", name="korch_web", image="w", image_id="", state="running", ip="172.17.0.2")
HTTP = Probe(http_get=HTTPGetAction(path="/healthz", port="http"), timeout_seconds=2)


class Machine(FakeMachine):
    """Answers checks as told."""

    result = Result(0, b"", b"")
    keep_open = False

    async def forward(self, address: str, port: int) -> FakeTunnel:
        tunnel = await super().forward(address, port)
        tunnel.keep_open = self.keep_open
        return tunnel

    async def exec_probe(self, name: str, argv: tuple[str, ...], timeout_s: float) -> Result:
        await self._call("exec", name)
        return self.result


def verdict(machine: Machine, probe: Probe = HTTP, seen: ObservedContainer = SEEN) -> Verdict:
    found: list[Verdict] = []

    async def body() -> None:
        found.append(await run_probe(machine, POD.spec.containers[0], seen, probe))  # type: ignore[arg-type]

    run_virtually(body)
    return found[0]


def answering(answer: bytes | Exception, *, keep_open: bool = False) -> Machine:
    machine = Machine()
    machine.answer, machine.keep_open = answer, keep_open
    return machine


@pytest.mark.parametrize("keep_open", [False, True], ids=["hangs up", "keeps the connection open"])
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(OK, "", id="200"),
        pytest.param(b"HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n", "", id="a redirect"),
        pytest.param(
            b"HTTP/1.1 503 Busy\r\n\r\n\r\nloading\r\nmore",
            "GET /healthz on port 80 answered 503: loading",
            id="503 with a reason",
        ),
        pytest.param(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "GET /healthz on port 80 answered 404", id="404"
        ),
        pytest.param(
            b"SSH-2.0-OpenSSH\r\n\r\n", "GET /healthz on port 80 answered nothing that is HTTP", id="not HTTP"
        ),
    ],
)
def test_http(answer: bytes, problem: str, keep_open: bool) -> None:
    machine = answering(answer, keep_open=keep_open)
    assert verdict(machine) == Verdict(problem)
    (tunnel,) = machine.tunnels
    assert tunnel.closed
    assert tunnel.sent.startswith(b"GET /healthz HTTP/1.1\r\nHost: 172.17.0.2\r\n")


def test_a_stream_without_end_is_no_answer() -> None:
    class Endless(FakeTunnel):
        read_bytes = 0

        async def read(self, limit: int = 65536) -> bytes:
            await asyncio.sleep(0)
            self.read_bytes += 8192
            return b"x" * 8192

    machine, tunnels = Machine(), []

    async def forward(address: str, port: int) -> FakeTunnel:
        tunnels.append(Endless(b""))
        return tunnels[-1]

    machine.forward = forward  # type: ignore[method-assign]
    assert verdict(machine).problem.endswith("nothing that is HTTP")
    assert tunnels[0].read_bytes < 1_000_000


def test_an_app_that_accepts_and_says_nothing_is_told_from_one_that_refuses() -> None:
    assert verdict(answering(b"", keep_open=True)) == Verdict(
        "GET /healthz on port 80: no answer within 2 s", silent=True
    )
    refused = verdict(answering(ConnectionRefusedError("n1: 172.17.0.2 port 80: refused")))
    assert (refused.silent, "refused" in refused.problem) == (False, True)
    assert "refused" in verdict(answering(ConnectionResetError())).problem


def test_where_the_address_is_not_reached_the_published_port_is_asked() -> None:
    machine = Machine()
    seen = replace(SEEN, ip="", ports=(PublishedPort(80, 32768, "tcp", "10.0.0.1"),))
    assert verdict(machine, seen=seen) == Verdict()
    assert machine.calls == ["forward 10.0.0.1:32768"]
    nowhere = verdict(Machine(), seen=replace(SEEN, ip=""))
    assert "no address" in nowhere.problem


def test_where_sshd_forbids_forwarding_the_way_out_is_named() -> None:
    assert "use an exec check" in verdict(answering(PermissionError("no"))).problem


def test_a_node_that_cannot_be_asked_says_nothing_about_the_app() -> None:
    machine = Machine()
    machine.cut()
    with pytest.raises(HostUnreachableError):
        verdict(machine)


def test_tcp() -> None:
    probe = Probe(tcp_socket=TCPSocketAction(port=5432))
    machine = Machine()
    assert verdict(machine, probe) == Verdict()
    assert machine.tunnels[0].closed
    assert verdict(answering(ConnectionRefusedError()), probe).problem == "TCP port 5432: connection refused"


def test_commands() -> None:
    probe = Probe(exec=ExecAction(command=("check", "it")), timeout_seconds=3)
    machine = Machine()
    assert verdict(machine, probe) == Verdict()
    machine.result = Result(2, b"disk ", b"full\n")
    assert verdict(machine, probe) == Verdict("check it: exit status 2: disk full")
    machine.result = Result(124, b"", b"")
    assert verdict(machine, probe) == Verdict("check it: no answer within 3 s"), "the node itself has answered"
    machine.faults["exec"] = CommandTimeoutError("n1 is silent", host="n1")
    assert verdict(machine, probe).silent


def test_a_request_says_what_the_probe_says() -> None:
    assert http_request("/", {}, "fd00::1").startswith(b"GET / HTTP/1.1\r\nHost: [fd00::1]\r\n")
    told = http_request("/", {"host": "web.lab", "X-A": "b"}, "10.0.0.1")
    assert told.lower().count(b"host:") == 1
    assert b"host: web.lab\r\n" in told
    assert b"X-A: b\r\n" in told
    get = HTTPGetAction(path="healthz", port=80, http_headers=(HTTPHeader(name="A", value="1"),))
    machine = Machine()
    assert verdict(machine, Probe(http_get=get)) == Verdict()
    assert machine.tunnels[0].sent.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"A: 1\r\n" in machine.tunnels[0].sent


def test_ports_by_name_and_number() -> None:
    assert (probe_port(POD.spec.containers[0], "http"), probe_port(POD.spec.containers[0], 8080)) == (80, 8080)


def test_answers_that_are_cut_off() -> None:
    assert http_answer(b"HTTP/1.1 200") == (200, "")
    assert http_answer(b"HTTP/1.1") == (0, "")
    assert http_answer(b"") == (0, "")
    assert http_answer(b"HTTP/1.1 500 X\r\n\r\n" + "é".encode() * 400)[1] == "é" * 200
