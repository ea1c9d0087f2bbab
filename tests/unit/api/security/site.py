"""The real server with a small app behind it, on a port of loopback, and clients with credentials."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from korch.api.security.audit import AuditLog
from korch.api.security.authenticate import Authenticator
from korch.api.security.credentials import Credentials, KnownCredentials
from korch.api.security.guard import Guard
from korch.api.security.limits import Limits
from korch.api.security.permissions import Permissions
from korch.api.security.pki import Authority, load_authority
from korch.api.security.statuses import Message, Receive, Scope, Send
from korch.api.security.users import group_for
from korch.api.server import Place, serving
from korch.objects.values import Clock, SystemClock
from korch.store.base import Store
from korch.store.sqlite import open_sqlite

PODS = "/api/v1/namespaces/shop/pods"


@dataclass
class App:
    """Says who asked; watches last until they are ended."""

    calls: list[str] = field(default_factory=list)
    open: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)  # set at each call
    unblock: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(scope["path"])
        self.open += 1
        self.more.set()
        try:
            await self._answer(scope, receive, send)
        finally:
            self.open -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        else:
            raise ConnectionError("the client went")
        if scope["path"].endswith("/bug"):
            raise ValueError("a bug")
        if scope["path"].endswith("/slow"):
            await self.unblock.wait()
        user = scope.get("state", {}).get("user")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if b"watch=1" in scope["query_string"]:
            await send({"type": "http.response.body", "body": b'{"type":"ADDED"}\n', "more_body": True})
            await asyncio.Event().wait()
        answer = {"user": user.name if user else "", "groups": user.groups if user else (), "got": len(body)}
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@dataclass
class Site:
    """A server that runs."""

    folder: Path
    url: str
    app: App
    store: Store
    authority: Authority
    credentials: Credentials
    guard: Guard
    audit: AuditLog

    def context(self) -> ssl.SSLContext:
        """Trusts this server and no other."""
        return ssl.create_default_context(cadata=self.authority.pem.decode())

    async def certificate(self, *groups: str, user: str = "jane", ttl_s: float = 3600.0, record: bool = True) -> Path:
        """A file with a client's certificate and key."""
        now = SystemClock().now()
        pair = self.authority.issue_client(user, groups, now=now, ttl_s=ttl_s)
        if record:
            await self.credentials.add_certificate(pair.serial, user, groups, now=now, expires=pair.expires)
        path = self.folder / f"{pair.serial}.pem"
        path.write_bytes(pair.certificate + pair.key)
        return path

    async def token(self, *groups: str, user: str = "tom", ttl_s: float = 3600.0) -> str:
        """A token."""
        minted = await self.credentials.mint_token(user, groups, now=SystemClock().now(), ttl_s=ttl_s)
        return minted.token

    def client(self, *, token: str = "", certificate: Path | None = None, **extra: Any) -> httpx.AsyncClient:
        """Calls the server."""
        context = self.context()
        if certificate is not None:
            context.load_cert_chain(certificate)
        headers = {**extra.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        return httpx.AsyncClient(base_url=self.url, verify=context, headers=headers, trust_env=False, **extra)

    def audited(self) -> list[dict[str, Any]]:
        """The lines of the audit log; it is closed by that."""
        self.audit.close()
        path = self.folder / "audit.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@asynccontextmanager
async def site(
    folder: Path, *, limits: Limits | None = None, clock: Clock | None = None, **place: Any
) -> AsyncIterator[Site]:
    """A server for the length of a block."""
    store, clock, app = await open_sqlite(folder / "state.db"), clock or SystemClock(), App()
    audit = AuditLog(folder / "audit.log")
    try:
        credentials = Credentials(store)
        authenticator = Authenticator(KnownCredentials(credentials), clock)
        guard = Guard(app, authenticator, Permissions(store), clock=clock, limits=limits, audit=audit)
        where = Place(folder, "test", port=0, **place)
        async with serving(guard, where, store=store, clock=clock) as url:
            authority = load_authority(where.pki, "test", now=clock.now())
            yield Site(folder, url(), app, store, authority, credentials, guard, audit)
    finally:
        audit.close()
        await store.close()


def admin() -> str:
    """The group of who may do everything."""
    return group_for("admin")


async def no_message() -> Message:
    """For apps that must not ask for one."""
    raise AssertionError("nothing was sent")
