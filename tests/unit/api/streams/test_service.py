"""The whole way of a request over ASGI, through the door that asks for roles, to containers that a test plays."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from korch.api.app import create_app
from korch.api.security.authenticate import Authenticator
from korch.api.security.credentials import Credentials, KnownCredentials
from korch.api.security.guard import Guard
from korch.api.security.permissions import Permissions
from korch.api.security.users import Role, group_for
from korch.api.services import Services
from korch.api.streams.door import Door, LogWish, Seen
from korch.api.streams.service import Streams
from korch.api.streams.targets import Target
from korch.errors import HostUnreachableError
from korch.objects.objects import Objects
from korch.objects.values import SystemClock
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, ContainerState, ContainerStateRunning, ContainerStatus, Pod, PodSpec
from korch.store.sqlite import open_sqlite
from tests.unit.api.streams.fakes import FakeStream, FakeTunnel

RUNS = (ContainerStatus(name="c", state=ContainerState(running=ContainerStateRunning()), container_id="x"),)
EXEC = "/api/v1/namespaces/default/pods/p/exec?command=cat&stdin=true&stdout=true&stderr=true"
FORWARD = "/api/v1/namespaces/default/pods/p/portforward"
V5 = ("v5.channel.k8s.io",)


class FakeDoor:
    """Implements what `Streams` uses of `Door`."""

    def __init__(self) -> None:
        self.state, self.node_is_gone = "running", False
        self.calls: list[tuple[Any, ...]] = []

    async def look(self, target: Target) -> Seen | None:
        if self.node_is_gone:
            raise HostUnreachableError("n1 does not answer", host="n1")
        return Seen(self.state, 100.0, 50.0, None) if self.state else None

    @asynccontextmanager
    async def logs(self, target: Target, wish: LogWish) -> AsyncIterator[FakeStream]:
        stream = FakeStream()
        stream.print(1, b"a line\n")
        stream.end()
        yield stream

    @asynccontextmanager
    async def exec(self, target: Target, argv: Sequence[str], **how: Any) -> AsyncIterator[FakeStream]:
        self.calls.append(("exec", target.container, *argv))
        yield FakeStream(status=4)

    @asynccontextmanager
    async def attach(self, target: Target, **how: Any) -> AsyncIterator[FakeStream]:
        self.calls.append(("attach", target.container))
        yield FakeStream(status=4)

    async def forward(self, target: Target, port: int) -> FakeTunnel:
        return FakeTunnel()


class Site:
    """The API with a pod, as somebody with a role asks it."""

    def __init__(self, guard: Guard, door: FakeDoor, objects: Objects, token: str) -> None:
        self.guard, self.door, self.objects, self._token = guard, door, objects, token

    def _scope(self, kind: str, url: str, method: str, more: dict[str, Any]) -> dict[str, Any]:
        path, _, query = url.partition("?")
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "server": ("korch", 443),
            "client": ("127.0.0.1", 1),
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"authorization", f"Bearer {self._token}".encode())],
            **more,
        }

    async def ask(self, url: str, method: str = "GET") -> tuple[int, bytes]:
        """An ordinary request."""
        heard: list[Any] = []
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            heard.append(message)

        await self.guard(self._scope("http", url, method, {}), receive, send)
        return heard[0]["status"], b"".join(message.get("body", b"") for message in heard[1:])

    async def talk(self, url: str, said: Sequence[bytes | str] = (), offers: Sequence[str] = V5) -> list[Any]:
        """All messages of a WebSocket on which this was said."""
        heard: list[Any] = []
        waiting = [{"type": "websocket.connect"}]
        for one in said:
            waiting.append({"type": "websocket.receive", "text" if isinstance(one, str) else "bytes": one})  # type: ignore[dict-item]

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        async def send(message: Any) -> None:
            heard.append(message)

        more = {"subprotocols": list(offers), "extensions": {"websocket.http.response": {}}}
        await self.guard(self._scope("websocket", url, "GET", more), receive, send)
        return heard


def run(tmp_path: Path, test: Callable[[Site], Coroutine[Any, Any, None]], role: Role = "edit") -> FakeDoor:
    async def main() -> FakeDoor:
        store, clock, door = await open_sqlite(tmp_path / "state.db"), SystemClock(), FakeDoor()
        objects, credentials = Objects(store), Credentials(store)
        app = create_app(objects, store, services=Services(streams=Streams(objects, cast(Door, door))))
        guard = Guard(app, Authenticator(KnownCredentials(credentials), clock), Permissions(store), clock=clock)
        try:
            async with asyncio.timeout(30):
                await objects.ensure_default_namespace()
                spec = PodSpec(node_name="n1", containers=(Container(name="c", image="web:1"),))
                pod = await objects.create(Pod(metadata=ObjectMeta(name="p", namespace="default"), spec=spec))
                await objects.modify(Pod, "p", "default", _running, status=True)
                assert pod.metadata.name == "p"
                minted = await credentials.mint_token("tom", (group_for(role, ""),), now=clock.now(), ttl_s=3600)
                await test(Site(guard, door, objects, minted.token))
        finally:
            await app.state.api.close()
            await store.close()
        return door

    return asyncio.run(main())


def _running(pod: Pod) -> Pod:
    return replace(pod, status=replace(pod.status, phase="Running", container_statuses=RUNS))


def refusal(heard: list[Any]) -> tuple[int, str]:
    """How a WebSocket was refused before it was one."""
    assert heard[0]["type"] == "websocket.http.response.start", heard
    return heard[0]["status"], json.loads(heard[1]["body"])["message"]


def test_a_program_is_talked_to(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        heard = await site.talk(EXEC, [b"\x00hello", "\x00 you", b"\xff\x00"])
        assert (heard[0]["type"], heard[0]["subprotocol"]) == ("websocket.accept", "v5.channel.k8s.io")
        assert [one["bytes"] for one in heard[1:3]] == [b"\x01hello", b"\x01 you"]
        assert b"exit status 4" in heard[3]["bytes"]
        assert heard[4]["type"] == "websocket.close"
        assert heard[4]["code"] == 1000

    assert run(tmp_path, test).calls == [("exec", "c", "cat")]


def test_who_attaches_hears_that_it_ended(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        heard = await site.talk(EXEC.replace("exec?command=cat&", "attach?"), [b"\xff\x00"])
        assert b'"Success"' in heard[1]["bytes"]

    assert run(tmp_path, test).calls == [("attach", "c")]


@pytest.mark.parametrize(
    ("url", "offers", "code", "words"),
    [
        (EXEC.replace("/p/", "/q/"), V5, 404, 'pods "q" not found'),
        (EXEC, ("base64.channel.k8s.io",), 400, "none of the offered protocols"),
        (EXEC + "&container=x", V5, 400, "container x is not valid for pod p"),
        (EXEC.replace("command=cat", "a=b"), V5, 422, "command: Required value"),
        (EXEC.partition("&")[0] + "&stdout=false&stderr=false", V5, 400, "at least one of stdin, stdout, stderr"),
        (FORWARD, V5, 400, "ports=NUMBER"),
        (FORWARD + "?ports=0", V5, 400, "ports=NUMBER"),
        ("/api/v1/namespaces/default/pods/p/log", V5, 400, "nothing here to talk to"),
        ("/api/v1/namespaces/default/pods/p", V5, 400, "nothing here to talk to"),
        ("/apis/apps/v1/namespaces/default/deployments/p/exec", V5, 400, "nothing here to talk to"),
    ],
    ids=lambda value: str(value)[-30:],
)
def test_what_is_refused_before_the_upgrade(
    tmp_path: Path, url: str, offers: Sequence[str], code: int, words: str
) -> None:
    async def test(site: Site) -> None:
        status, message = refusal(await site.talk(url, offers=offers))
        assert (status, words in message) == (code, True), message

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("state", "gone", "code", "words"),
    [
        ("exited", False, 400, "does not run: it is exited"),
        ("", False, 404, "not on n1 any more"),
        ("", True, 503, "n1"),
    ],
)
def test_a_container_that_cannot_be_entered(tmp_path: Path, state: str, gone: bool, code: int, words: str) -> None:
    async def test(site: Site) -> None:
        site.door.state, site.door.node_is_gone = state, gone
        status, message = refusal(await site.talk(EXEC))
        assert (status, words in message) == (code, True), message

    run(tmp_path, test)


def test_spdy_is_refused_after_the_true_reason(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        for url in (EXEC, FORWARD):
            status, body = await site.ask(url, "POST")
            assert (status, "SPDY is not served" in body.decode()) == (400, True)
        status, body = await site.ask(EXEC.replace("/p/", "/q/"), "POST")
        assert (status, 'pods \\"q\\" not found' in body.decode()) == (404, True)

    run(tmp_path, test)


def test_who_may_look_reads_logs_and_enters_nothing(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        assert await site.ask("/api/v1/namespaces/default/pods/p/log") == (200, b"a line\n")
        for url in (EXEC, EXEC.replace("exec", "attach"), FORWARD + "?ports=80"):
            status, message = refusal(await site.talk(url))
            assert (status, 'User "tom" cannot create resource "pods/' in message) == (403, True)
            assert (await site.ask(url, "POST"))[0] == 403

    assert run(tmp_path, test, role="view").calls == []


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("?container=x", 400, "container x is not valid for pod p"),
        ("?previous=true", 400, "previous terminated container"),
        ("?tailLines=-1", 422, "must be greater than or equal to 0"),
    ],
)
def test_logs_that_there_are_not(tmp_path: Path, query: str, code: int, words: str) -> None:
    async def test(site: Site) -> None:
        status, body = await site.ask("/api/v1/namespaces/default/pods/p/log" + query)
        assert (status, words in json.loads(body)["message"]) == (code, True), body

    run(tmp_path, test)


def test_a_port_is_forwarded_to_pythons_clients(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        heard = await site.talk(FORWARD + "?ports=80", [b"\x00hello", b"\xff\x00"])
        assert heard[0]["subprotocol"] == V5[0]
        assert [one["bytes"] for one in heard[1:4]] == [b"\x00\x50\x00", b"\x01\x50\x00", b"\x00hello"]
        assert heard[4]["code"] == 1000

    run(tmp_path, test)
