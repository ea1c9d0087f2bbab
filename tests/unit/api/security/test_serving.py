"""The real server on loopback: TLS, credentials, refusals, limits, the end."""

import asyncio
import json
import os
import socket
import ssl
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from korch.api.security import transport
from korch.api.security.credentials import KnownCredentials
from korch.api.security.limits import Limits
from korch.api.security.users import group_for
from korch.api.server import RECORD_KEY, ApiRecord, Place, serving, where
from korch.errors import SetupError
from korch.objects.objects import Objects
from korch.objects.values import SystemClock
from korch.resources.meta import ObjectMeta
from korch.resources.rbac import PolicyRule, RoleBinding, RoleRef, Subject
from korch.resources.rbac import Role as RbacRole
from tests.unit.api.security.site import PODS, Site, admin, site


async def _status(site: Site, path: str = PODS, **client: object) -> int:
    async with site.client(**client) as http:  # type: ignore[arg-type]
        return (await http.get(path)).status_code


def test_certificates_and_tokens_say_who_asks(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            certificate = await here.certificate(group_for("view", "shop"))
            async with here.client(certificate=certificate) as http:
                answer = (await http.get(PODS)).json()
            assert answer == {"user": "jane", "groups": ["korch:view:shop", "system:authenticated"], "got": 0}
            async with here.client(token=await here.token(admin())) as http:
                answer = (await http.post(PODS, content=b"x" * 1000)).json()
            assert answer == {"user": "tom", "groups": ["system:masters", "system:authenticated"], "got": 1000}

    asyncio.run(main())


def test_nothing_answers_without_a_credential_but_health_and_version(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here, here.client() as http:
            for path in ("/healthz", "/livez", "/readyz", "/version", "/version/"):
                assert (await http.get(path)).status_code == 200, path
            before = len(here.app.calls)
            for path in ("/", "/api", "/apis", "/openapi/v3", PODS, "/healthz/x", "/metrics", "/%68ealthz/../api"):
                assert (await http.get(path)).status_code in {401, 400}, path
            assert (await http.post("/version")).status_code == 401
            refused = await http.get(PODS)
            assert len(here.app.calls) == before
            assert refused.headers["content-type"] == "application/json"
            assert refused.text == (
                '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized",'
                '"reason":"Unauthorized","code":401}\n'
            )

    asyncio.run(main())


def test_what_is_worth_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            good = await here.token(admin())
            word, id_, secret = good.split("_")
            other = (await here.token(admin())).split("_")[2]
            for token in (secret, f"{word}_{id_}_{other}", f"{word}_{'0' * 12}_{secret}", good[:-1], good + "0", "a b"):
                assert await _status(here, token=token) == 401, token
            assert await _status(here, token=await here.token(admin(), ttl_s=-1)) == 401
            unrecorded = await here.certificate(admin(), record=False)
            assert await _status(here, certificate=unrecorded) == 401
            assert await _status(here, certificate=unrecorded, token=good) == 200
            recorded = await here.certificate(admin())
            assert await _status(here, certificate=recorded, token="wrong") == 401
            async with here.client(certificate=recorded, headers={"Authorization": "Basic eDp5"}) as http:
                assert (await http.get(PODS)).status_code == 401

    asyncio.run(main())


def test_certificates_of_other_authorities_and_of_the_server_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with site(tmp_path / "a") as here, site(tmp_path / "b") as there:
            foreign = await there.certificate(admin())
            expired = await here.certificate(admin(), ttl_s=-600)
            for certificate in (foreign, expired, tmp_path / "a" / "pki" / "server.pem"):
                with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                    await _status(here, certificate=certificate)
            with pytest.raises(httpx.ConnectError):  # a client that trusts the other authority does not talk to us
                async with httpx.AsyncClient(verify=there.context(), trust_env=False) as http:
                    await http.get(here.url)

    asyncio.run(main())


def test_a_role_in_one_namespace(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here, here.client(token=await here.token(group_for("view", "shop"))) as http:
            assert (await http.get(PODS)).status_code == 200
            refused = await http.delete(f"{PODS}/web-1")
            assert refused.status_code == 403
            assert refused.json() == {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": 'pods "web-1" is forbidden: User "tom" cannot delete resource "pods" in API group "" in the'
                ' namespace "shop"',
                "reason": "Forbidden",
                "details": {"name": "web-1", "kind": "pods"},
                "code": 403,
            }
            for path in ("/api/v1/pods", "/api/v1/namespaces/bank/pods", "/api/v1/namespaces/shop/secrets"):
                assert (await http.get(path)).status_code == 403, path

    asyncio.run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/shop%2Fsecrets/pods",
        "/api/v1/namespaces/shop/pods%2fx",
        "/api/v1/namespaces/shop/../bank/pods",
        "/api/v1/namespaces/shop/%2e%2e/bank/pods",
        "/api/v1/namespaces/%2573hop/pods",
        "/api/v1/namespaces/sh%00op/pods",
        "/api/v1/namespaces/shop/secrets%3Fx",
        "/api/v1/namespaces/shop/secrets%23x",
        "/api/v1/namespaces/shop/secrets;x",
        "/api/v1/namespaces/shop/secr%C3%A9ts",
    ],
)
def test_paths_that_can_be_read_in_two_ways_are_read_in_none(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            token = await here.token(admin())
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", int(here.url.rsplit(":", 1)[1]), ssl=here.context(), server_hostname="localhost"
            )
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
            writer.transport.abort()
            assert here.app.calls == []

    asyncio.run(main())


def test_pages_of_other_sites_get_nothing_though_browsers_add_certificates(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            certificate = await here.certificate(admin())
            for word, code in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
                async with here.client(certificate=certificate, headers={"Sec-Fetch-Site": word}) as http:
                    assert (await http.post(PODS)).status_code == code, word

    asyncio.run(main())


def test_acting_as_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            acting = {"Impersonate-User": "eve", "Impersonate-Group": group_for("view", "shop")}
            async with here.client(token=await here.token(admin()), headers=acting) as http:
                assert (await http.get(PODS)).json()["user"] == "eve"
                assert (await http.get("/api/v1/nodes")).status_code == 403
            async with here.client(token=await here.token(group_for("edit")), headers=acting) as http:
                refused = await http.get(PODS)
            assert (refused.status_code, refused.json()["reason"]) == (403, "Forbidden")
            assert any((line.get("user"), line.get("as")) == ("tom", "eve") for line in here.audited())

    asyncio.run(main())


def test_a_revoked_credential_ends_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownCredentials, "FRESH_S", 0.0)

    async def main() -> None:
        async with site(tmp_path, limits=Limits(recheck_s=0.05)) as here:
            token = await here.token(admin())
            async with here.client(token=token, timeout=20) as http, http.stream("GET", f"{PODS}?watch=1") as answer:
                lines = answer.aiter_lines()
                assert json.loads(await anext(lines)) == {"type": "ADDED"}
                await here.credentials.revoke(token.split("_")[1])
                with pytest.raises(StopAsyncIteration):  # a clean end, after which clients list again
                    await anext(lines)
            assert here.app.open == 0
            assert await _status(here, token=token) == 401

    asyncio.run(main())


def test_what_is_open_ends_when_its_role_is_taken_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, limits=Limits(recheck_s=0.05)) as here:
            objects, token = Objects(here.store), await here.token()
            rule = PolicyRule(verbs=("watch",), api_groups=("",), resources=("pods",))
            who = (Subject(kind="User", name="tom"),)
            ref = RoleRef(kind="Role", name="r", api_group="rbac.authorization.k8s.io")
            meta = ObjectMeta(name="r", namespace="default")
            await objects.create(RbacRole(metadata=meta, rules=(rule,)))
            await objects.create(RoleBinding(metadata=meta, role_ref=ref, subjects=who))
            path = "/api/v1/namespaces/default/pods?watch=1"
            async with here.client(token=token, timeout=20) as http, http.stream("GET", path) as answer:
                lines = answer.aiter_lines()
                assert json.loads(await anext(lines)) == {"type": "ADDED"}
                await asyncio.sleep(0.2)
                assert here.app.open == 1
                await objects.delete(RoleBinding, "r")
                with pytest.raises(StopAsyncIteration):
                    await anext(lines)
            assert here.app.open == 0

    asyncio.run(main())


def test_watches_end_with_the_server(tmp_path: Path) -> None:
    async def main() -> None:
        ended = asyncio.Event()
        watching = asyncio.Event()

        async def watch(here: Site) -> None:
            async with (
                here.client(token=await here.token(admin()), timeout=20) as http,
                http.stream("GET", f"{PODS}?watch=1") as answer,
            ):
                async for _ in answer.aiter_lines():
                    watching.set()
                ended.set()

        async with site(tmp_path) as here:
            task = asyncio.create_task(watch(here))
            await watching.wait()
        await task
        assert ended.is_set()
        assert here.app.open == 0

    asyncio.run(main())


def test_too_much_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, limits=Limits(at_once=2, streams=1)) as here:
            one, other = await here.token(admin()), await here.token(admin(), user="ann")
            async with here.client(token=one, timeout=20) as http, here.client(token=other, timeout=20) as her:
                waiting = [asyncio.create_task(http.get(f"{PODS}/slow")) for _ in range(2)]
                while here.app.open < 2:
                    here.app.more.clear()
                    await here.app.more.wait()
                refused = await http.get(PODS)
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "1"
                assert refused.json()["details"] == {"retryAfterSeconds": 1}
                assert (await her.get(PODS)).status_code == 200  # others do not wait for that
                async with http.stream("GET", f"{PODS}?watch=1") as first:
                    assert first.status_code == 200
                    assert (await http.get(f"{PODS}?watch=1")).status_code == 429
                here.app.unblock.set()
                assert [one.status_code for one in await asyncio.gather(*waiting)] == [200, 200]
                assert (await http.get(PODS)).status_code == 200

    asyncio.run(main())


def test_so_many_requests_a_second(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            site(tmp_path, limits=Limits(rate_per_s=0.001, burst=3)) as here,
            here.client(token=await here.token(admin())) as http,
        ):
            codes = [(await http.get(PODS)).status_code for _ in range(5)]
            assert codes == [200, 200, 200, 429, 429]

    asyncio.run(main())


def test_so_many_failed_logins(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path, limits=Limits(failures_per_s=0.001, failures_burst=3)) as here, here.client() as http:
            codes = [(await http.get(PODS)).status_code for _ in range(5)]
            assert codes == [401, 401, 401, 429, 429]
            assert await _status(here, token=await here.token(admin())) == 200  # others at the same address get in
            assert [one["result"] for one in here.audited()] == [401, 401, 401, 429, 200]
            assert (await http.get("/healthz")).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(tmp_path: Path, chunked: bool) -> None:
    async def main() -> None:
        async with site(tmp_path, limits=Limits(body_bytes=100_000)) as here:
            token = await here.token(admin())

            async def parts() -> "asyncio.AsyncIterator[bytes]":  # type: ignore[name-defined]
                for _ in range(11):
                    yield b"x" * 10_000

            async with here.client(token=token) as http:
                refused = await http.post(PODS, content=parts() if chunked else b"x" * 100_001)
                assert (refused.status_code, refused.json()["reason"]) == (413, "RequestEntityTooLarge")
                assert (await http.post(PODS, content=b"x" * 100_000)).json()["got"] == 100_000

    asyncio.run(main())


def test_a_request_that_takes_too_long_and_one_that_meets_a_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with site(tmp_path, limits=Limits(request_s=0.2)) as here:
            async with here.client(token=await here.token(admin()), timeout=20) as http:
                slow, bug = await http.get(f"{PODS}/slow"), await http.get(f"{PODS}/bug")
            assert (slow.status_code, slow.json()["reason"]) == (504, "Timeout")
            assert (bug.status_code, bug.json()["reason"]) == (500, "InternalError")
            assert "a bug" not in bug.text

    asyncio.run(main())
    assert "this is a bug in korch" in caplog.text


@pytest.mark.parametrize("sent", [b"", b"GET /api HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_on_which_nothing_is_asked_is_hung_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(transport, "FIRST_REQUEST_S", 0.1)

    async def main() -> None:
        async with site(tmp_path) as here:
            port = int(here.url.rsplit(":", 1)[1])
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=here.context(), server_hostname="localhost"
            )
            writer.write(sent)
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            port = int(here.url.rsplit(":", 1)[1])
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=here.context(), server_hostname="localhost"
            )
            writer.write(b"GET /api HTTP/1.1\r\nX: " + b"y" * 200_000)
            assert (await reader.readline()).startswith(b"HTTP/1.1 4")
            writer.transport.abort()

    asyncio.run(main())


async def _nothing_open(here: Site) -> None:
    """Wait until the last request has left the door."""
    async with asyncio.timeout(30):
        while here.guard.open_now:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("credential", [True, False])
def test_a_websocket_is_let_in_or_refused_before_the_upgrade(tmp_path: Path, credential: bool) -> None:
    async def main() -> bytes:
        async with site(tmp_path) as here:
            token = await here.token(admin()) if credential else "none"
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", int(here.url.rsplit(":", 1)[1]), ssl=here.context(), server_hostname="localhost"
            )
            writer.write(
                f"GET {PODS}/web/exec?command=sh HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if not credential:
                assert b'"reason":"Unauthorized"' in await reader.read()
            writer.transport.abort()
            await _nothing_open(here)
            lines = here.audited()
            assert "sh" not in json.dumps([line.get("path") for line in lines])
            assert [line["result"] for line in lines] == (["started", 101] if credential else [401])
            assert {line["resource"] for line in lines} == {"pods/exec"}
            assert ["seconds" in line for line in lines] == ([False, True] if credential else [False])
            return head

    assert asyncio.run(main()).startswith(b"HTTP/1.1 101" if credential else b"HTTP/1.1 401")


def test_the_audit_log_says_who_did_what_and_holds_no_secret(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            token = await here.token(group_for("edit", "shop"))
            async with here.client(token=token) as http:
                await http.post(f"{PODS}?secret=hunter2", content=b"hunter3")
                await http.delete("/api/v1/namespaces/bank/pods/web")
                await http.get("/api")
                await http.get("/healthz")
            async with here.client(token="korch_bad_hunter4") as http:
                await http.get(PODS)
            lines = here.audited()
            assert [(one.get("user"), one["verb"], one["result"]) for one in lines] == [
                ("tom", "create", 200),
                ("tom", "delete", 403),
                (None, "list", 401),
            ]
            assert lines[1] | {"time": "", "credential": "", "agent": ""} == {
                "time": "",
                "credential": "",
                "agent": "",
                "user": "tom",
                "from": "127.0.0.1",
                "verb": "delete",
                "resource": "pods",
                "namespace": "bank",
                "name": "web",
                "result": 403,
            }
            text = (tmp_path / "audit.log").read_text()
            assert "hunter" not in text
            assert token.split("_")[2] not in text
            assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600

    asyncio.run(main())


def test_the_audit_log_says_how_a_stream_ended_and_how_long_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnownCredentials, "FRESH_S", 0.0)

    async def main() -> None:
        async with site(tmp_path, limits=Limits(recheck_s=0.02)) as here:
            token = await here.token(admin())
            async with here.client(token=token, timeout=30) as http:
                async with http.stream("GET", PODS, params={"watch": "1"}) as answer:
                    lines = answer.aiter_lines()
                    assert await anext(lines) == '{"type":"ADDED"}'
                    assert await here.credentials.revoke(token.split("_")[1])
                    assert [line async for line in lines] == []
                assert (await http.get(f"{PODS}/web/log")).status_code == 401
                http.headers["Authorization"] = f"Bearer {await here.token(admin())}"
                await http.get(f"{PODS}/web/log")
            await _nothing_open(here)
            found = [(line["verb"], line["result"], line.get("seconds", -1) >= 0) for line in here.audited()]
            assert found == [
                ("watch", "started", False),
                ("watch", 200, True),
                ("get", 401, False),
                ("get", 200, False),
            ]

    asyncio.run(main())


def test_a_port_that_others_have_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    async def main() -> None:
        other = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        async with other, site(tmp_path) as here:
            with pytest.raises(SetupError, match=str(port)) as caught:
                async with serving(
                    here.guard, Place(tmp_path, "test", port=port), store=here.store, clock=SystemClock()
                ):
                    pass
            assert "--api-port" in caught.value.hint

    asyncio.run(main())


@pytest.mark.parametrize("recorded", [True, False])
def test_a_port_whose_owner_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool) -> None:
    monkeypatch.setattr("korch.api.server._ANSWER_S", 0.1)

    async def main() -> None:
        with socket.socket() as frozen:
            frozen.bind(("127.0.0.1", 0))
            frozen.listen()
            port = frozen.getsockname()[1]
            async with site(tmp_path) as here:
                if recorded:
                    record = ApiRecord(url=f"https://127.0.0.1:{port}", host=socket.gethostname(), pid=os.getpid())
                    await here.store.put(RECORD_KEY, msgspec.json.encode(record))
                place = Place(tmp_path, "test", port=port)
                with nullcontext() if recorded else pytest.raises(SetupError):
                    async with serving(here.guard, place, store=here.store, clock=SystemClock()) as url:
                        assert url() == ""

    asyncio.run(main())


def test_a_second_master_takes_the_port_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("korch.api.server._TAKEN_POLL_S", 0.05)

    async def main() -> None:
        async with site(tmp_path) as here:
            token = await here.token(admin())
            first = serving(here.guard, Place(tmp_path, "test", port=0), store=here.store, clock=SystemClock())
            url = await first.__aenter__()
            place = Place(tmp_path, "test", port=int(url().rsplit(":", 1)[1]))
            async with serving(here.guard, place, store=here.store, clock=SystemClock()) as second:
                assert second() == ""
                await first.__aexit__(None, None, None)
                async with asyncio.timeout(30):
                    while not second():  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                assert second() == await where(here.store)
                async with httpx.AsyncClient(verify=here.context(), trust_env=False) as http:
                    answer = await http.get(second() + PODS, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == 200

    asyncio.run(main())


def test_a_renewed_certificate_is_shown_to_new_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("korch.api.server._RENEWAL_POLL_S", 0.02)

    async def shown(here: Site) -> str:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", int(here.url.rsplit(":", 1)[1]), ssl=here.context(), server_hostname="localhost"
        )
        serial = str(writer.get_extra_info("peercert")["serialNumber"])
        writer.transport.abort()
        return serial

    async def main() -> None:
        async with site(tmp_path) as here:
            before = await shown(here)
            (tmp_path / "pki" / "server.pem").unlink()  # as old as one of a machine that slept
            async with asyncio.timeout(30):
                while await shown(here) == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    asyncio.run(main())


class Sleeper:
    """The clock of a machine that sleeps: the wall clock, so far off."""

    def __init__(self, behind_s: float) -> None:
        self.behind_s = behind_s

    def now(self) -> float:
        return SystemClock().now() - self.behind_s


def test_a_server_that_slept_for_months_is_trusted_again_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("korch.api.server._RENEWAL_POLL_S", 0.02)

    async def main() -> None:
        clock = Sleeper(behind_s=200 * 86_400)
        async with site(tmp_path, clock=clock) as here:
            token = await here.token(admin())
            with pytest.raises(httpx.ConnectError, match="expired"):
                await _status(here, token=token)
            clock.behind_s = 0.0
            async with asyncio.timeout(30):
                while True:
                    with suppress(httpx.ConnectError):
                        assert await _status(here, token=token) == 200
                        return
                    await asyncio.sleep(0.02)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["token", "certificate"])
def test_what_expires_ends_what_is_open_with_it(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        clock = Sleeper(behind_s=0.0)
        async with site(tmp_path, limits=Limits(recheck_s=0.05), clock=clock) as here:
            shown: dict[str, Any] = (
                {"token": await here.token(admin(), ttl_s=600)}
                if kind == "token"
                else {"certificate": await here.certificate(admin(), ttl_s=600)}
            )
            async with here.client(**shown, timeout=20) as http, http.stream("GET", f"{PODS}?watch=1") as answer:
                lines = answer.aiter_lines()
                assert json.loads(await anext(lines)) == {"type": "ADDED"}
                clock.behind_s = -601.0
                with pytest.raises(StopAsyncIteration):
                    await anext(lines)
            assert await _status(here, **shown) == 401

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here:
            context = here.context()
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
            async with httpx.AsyncClient(verify=context, trust_env=False) as http:
                with pytest.raises(httpx.ConnectError):
                    await http.get(here.url)

    asyncio.run(main())
