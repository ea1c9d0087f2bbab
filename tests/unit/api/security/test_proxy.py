"""The plain HTTP door on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import httpx
import pytest

from korch.api.security.proxy import Proxy, Upstream, head_for, reach, refusal
from korch.errors import HostUnreachableError, SetupError
from tests.unit.api.security.site import PODS, Site, admin, site


@asynccontextmanager
async def _door(folder: Path) -> AsyncIterator[tuple[Site, httpx.AsyncClient]]:
    async with site(folder) as here:
        upstream = Upstream(here.url, here.context(), await here.token(admin()))
        await reach(upstream)
        async with await Proxy(upstream).serve(0) as server:
            port = server.sockets[0].getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as http:
                yield here, http


def test_requests_go_through_with_our_credential_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with _door(tmp_path) as (_, http):
            headers = {"Authorization": "Bearer other", "Impersonate-User": "eve"}
            answer = await http.post(PODS, content=b"x" * 300_000, headers=headers)
            assert answer.json() == {
                "user": "tom",
                "groups": ["system:masters", "system:authenticated"],
                "got": 300_000,
            }
            async with http.stream("GET", f"{PODS}?watch=1") as stream:
                assert await anext(stream.aiter_lines()) == '{"type":"ADDED"}'

    asyncio.run(main())


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8001"},
        {"Host": "[::1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_strangers_get_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    async def main() -> None:
        async with _door(tmp_path) as (here, http):
            refused = await http.get(PODS, headers=headers)
            assert (refused.status_code, refused.json()["reason"]) == (403, "Forbidden")
            assert here.app.calls == []

    asyncio.run(main())


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"localhost:8001")],
        [(b"host", b"[::1]:8001"), (b"origin", b"http://localhost:8001"), (b"sec-fetch-site", b"same-origin")],
        [(b"host", b"127.0.0.1"), (b"sec-fetch-site", b"none")],
    ],
)
def test_this_machine_gets_in(headers: list[tuple[bytes, bytes]]) -> None:
    assert refusal(headers, "127.0.0.1") == ""


def test_the_head_that_goes_on() -> None:
    asked = h11.Request(
        method="GET",
        target="/api?x=1",
        headers=[
            ("Host", "localhost"),
            ("Connection", "Upgrade, X-Drop, Content-Length"),
            ("Upgrade", "websocket"),
            ("X-Drop", "1"),
            ("Content-Length", "0"),
            ("Accept", "*/*"),
        ],
    )
    head = head_for(asked, Upstream("https://a:1", None, "secret"))  # type: ignore[arg-type]
    assert head == (
        b"GET /api?x=1 HTTP/1.1\r\nhost: a:1\r\nauthorization: Bearer secret\r\nconnection: Upgrade\r\n"
        b"upgrade: websocket\r\ncontent-length: 0\r\naccept: */*\r\n\r\n"
    )


def test_rubbish_is_hung_up_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with _door(tmp_path) as (here, http):
            reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port or 0)
            writer.write(b"\x16\x03\x01 hello\r\n\r\n")
            assert await reader.read() == b""
            writer.close()
            assert here.app.calls == []

    asyncio.run(main())


def test_an_api_that_is_not_there_and_a_port_that_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with _door(tmp_path) as (here, http):
            with pytest.raises(SetupError, match=str(http.base_url.port)) as caught:
                await Proxy(Upstream(here.url, here.context(), "")).serve(http.base_url.port or 0)
            assert "--port" in caught.value.hint
            with pytest.raises(HostUnreachableError):
                await reach(Upstream(f"https://127.0.0.1:{http.base_url.port}", here.context(), ""))

    asyncio.run(main())
