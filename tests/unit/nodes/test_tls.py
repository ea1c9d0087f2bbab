"""HTTPS checks against a real TLS server."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from korch.nodes.readiness import Verdict, run_probe
from korch.resources.pod import HTTPGetAction, Probe
from tests.unit.nodes.fake_machine import FakeMachine
from tests.unit.nodes.test_readiness import POD, SEEN


@pytest.fixture(scope="module")
def server_context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """With a certificate that nobody trusts and that is out of date."""
    file: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere")])
    long_ago = datetime.datetime(2001, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(long_ago)
        .not_valid_after(long_ago + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


class Tunnel:
    """A plain TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, limit: int = 65536) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()


async def asked(context: ssl.SSLContext | None, answer: bytes) -> Verdict:
    """The verdict of an HTTPS check of a server that answers like this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\n" if context is None else b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    machine = FakeMachine()

    async def forward(address: str, _: int) -> Tunnel:
        return Tunnel(*await asyncio.open_connection("127.0.0.1", port))

    machine.forward = forward  # type: ignore[method-assign, assignment]
    probe = Probe(http_get=HTTPGetAction(port=80, path="/healthz", scheme="HTTPS"), timeout_seconds=20)
    try:
        return await run_probe(machine, POD.spec.containers[0], SEEN, probe)  # type: ignore[arg-type]
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000, "", id="200"),
        pytest.param(b"HTTP/1.1 503 Busy\r\n\r\nloading", "GET /healthz on port 80 answered 503: loading", id="503"),
        pytest.param(b"", "GET /healthz on port 80 answered nothing that is HTTP", id="hangs up"),
    ],
)
def test_https(server_context: ssl.SSLContext, answer: bytes, problem: str) -> None:
    assert asyncio.run(asked(server_context, answer)) == Verdict(problem)


def test_a_server_without_tls() -> None:
    verdict = asyncio.run(asked(None, b"HTTP/1.1 400 Bad\r\n\r\n"))
    assert verdict.problem.startswith("GET /healthz on port 80: TLS: ")
