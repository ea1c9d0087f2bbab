"""The door and the real app behind it: what roles may do shows in what is answered, and in what `can-i` says."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from korch.api.app import create_app
from korch.api.security.accounts import AccountTokens
from korch.api.security.authenticate import Authenticator
from korch.api.security.credentials import Credentials, KnownCredentials
from korch.api.security.guard import Guard
from korch.api.security.limits import Limits
from korch.api.security.permissions import Permissions
from korch.api.security.pki import load_authority
from korch.api.security.users import ROLES, Role, group_for
from korch.api.server import Place, serving
from korch.api.services import Services
from korch.client.base import NodeUsage
from korch.objects.objects import Objects, SystemClock
from korch.resources.kinds import KINDS, NAMESPACE, Kind
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Namespace
from korch.store.base import Store
from korch.store.sqlite import open_sqlite

NO_LIMITS = Limits(rate_per_s=1e9, burst=1e9)
API = "https://kubernetes.default.svc"
VERBS = {
    "get": ("GET", "/x", {}),
    "list": ("GET", "", {}),
    "create": ("POST", "", {"dryRun": "All"}),
    "update": ("PUT", "/x", {"dryRun": "All"}),
    "patch": ("PATCH", "/x", {"dryRun": "All"}),
    "delete": ("DELETE", "/x", {"dryRun": "All"}),
    "deletecollection": ("DELETE", "", {"dryRun": "All"}),
}


class Site:
    """The whole API in this process."""

    def __init__(self, app: Guard, credentials: Credentials, objects: Objects, store: Store) -> None:
        self.guard, self._credentials, self.objects, self.store = app, credentials, objects, store

    async def client(self, role: Role, namespace: str = "") -> httpx.AsyncClient:
        """Asks as somebody with a role."""
        groups = (group_for(role, namespace),)
        minted = await self._credentials.mint_token("tom", groups, now=SystemClock().now(), ttl_s=3600)
        transport = httpx.ASGITransport(self.guard, client=("192.0.2.9", 1))  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {minted.token}", "Content-Type": "application/json"}
        return httpx.AsyncClient(transport=transport, base_url="https://korch", headers=headers)


async def nothing_used() -> tuple[NodeUsage, ...]:
    return ()


@asynccontextmanager
async def whole(folder: Path) -> AsyncIterator[Site]:
    store, clock = await open_sqlite(folder / "state.db"), SystemClock()
    objects = Objects(store)
    credentials, permissions = Credentials(store), Permissions(store)
    authenticator = Authenticator(KnownCredentials(credentials), clock)
    tokens = AccountTokens(credentials, store, clock)
    services = Services(permissions, authenticator.user_of_token, usage=nothing_used, token=tokens.answer)
    app = create_app(objects, store, services=services)
    try:
        await objects.ensure_default_namespace()
        for name in ("shop", "bank"):
            await objects.create(Namespace(metadata=ObjectMeta(name=name)))
        yield Site(Guard(app, authenticator, permissions, clock=clock, limits=NO_LIMITS), credentials, objects, store)
    finally:
        await app.state.api.close()
        await store.close()


def path_of(kind: Kind, namespace: str) -> str:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/namespaces/{namespace}/{kind.plural}" if namespace else f"{base}/{kind.plural}"


def refused(answer: httpx.Response) -> bool:
    """By the door: the app has refusals of its own, in other words."""
    assert answer.status_code in {*range(100, 500), 501}, answer.text
    return answer.status_code == 403 and 'User "tom" cannot' in answer.json()["message"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("own", ["", "shop"])
def test_every_verb_of_every_kind_is_answered_as_the_role_says(tmp_path: Path, role: Role, own: str) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client(role, own) as http:
            for kind, (verb, how), namespace in itertools.product(KINDS, VERBS.items(), ("shop", "bank", "")):
                if not namespace and kind.namespaced and verb != "list":
                    continue
                method, tail, query = how
                path = path_of(kind, namespace) + tail
                answer = await http.request(method, path, params=query, json={} if method != "GET" else None)
                assert refused(answer) is not may(role, own, kind, verb, namespace), (kind.plural, verb, answer.text)
                if namespace and not kind.namespaced:
                    assert answer.status_code in {403, 404}, (kind.plural, verb, answer.text)

    asyncio.run(main())


def may(role: Role, own: str, kind: Kind, verb: str, namespace: str) -> bool:
    """The roles in other words than the program's."""
    reads = verb in {"get", "list"}
    if role == "admin" and not own:
        return True
    if not kind.namespaced:
        namespace = ""
    if own and namespace != own:
        return False
    if not kind.namespaced or kind.plural in {"resourcequotas", "limitranges"}:
        return reads and not (kind.group.startswith("rbac.") and role != "admin")
    if role == "admin":
        return True
    return not kind.group.startswith("rbac.") and (role == "edit" or (reads and kind.plural != "secrets"))


def test_nothing_is_deleted_in_all_namespaces_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin") as http:
            for kind in (kind for kind in KINDS if kind.namespaced or kind is NAMESPACE):
                for query in ({}, {"fieldSelector": "metadata.name=shop"}, {"labelSelector": "a!=b"}):
                    answer = await http.delete(path_of(kind, ""), params=query)
                    assert answer.status_code == 405, (kind.plural, answer.text)
            names = [one["metadata"]["name"] for one in (await http.get("/api/v1/namespaces")).json()["items"]]
            assert names == ["bank", "default", "shop"]
            core = {one["name"]: one["verbs"] for one in (await http.get("/api/v1")).json()["resources"]}
            assert "deletecollection" in core["configmaps"]
            assert "deletecollection" not in core["namespaces"]

    asyncio.run(main())


PARTS = {  # part of a pod or of something else → how it is asked for, and which roles may ("root": an admin of all)
    "pods/x/log": ("GET", {"admin", "edit", "view"}),
    "pods/x/status": ("GET", {"admin", "edit", "view"}),
    "pods/x/exec?command=sh": ("POST", {"admin", "edit"}),
    "pods/x/attach": ("GET", {"admin", "edit"}),
    "pods/x/portforward": ("POST", {"admin", "edit"}),
    "pods/x/proxy/": ("GET", {"admin", "edit"}),
    "pods/x/eviction": ("POST", {"admin", "edit"}),
    "pods/x/binding": ("POST", {"root"}),
    "pods/x/status?x": ("PATCH", {"root"}),
    "serviceaccounts/x/token": ("POST", {"admin", "edit"}),
    "apps/v1/deployments/x/scale": ("PATCH", {"admin", "edit"}),
    "apps/v1/deployments/x/status": ("PUT", {"admin"}),
    "authorization.k8s.io/v1/localsubjectaccessreviews": ("POST", {"admin"}),
}
REVIEWS = {
    "authorization.k8s.io/v1/selfsubjectaccessreviews": True,
    "authorization.k8s.io/v1/selfsubjectrulesreviews": True,
    "authentication.k8s.io/v1/selfsubjectreviews": True,
    "authorization.k8s.io/v1/subjectaccessreviews": False,
    "authentication.k8s.io/v1/tokenreviews": False,
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("own", ["", "shop"])
def test_every_part_and_review_is_answered_as_the_role_says(tmp_path: Path, role: Role, own: str) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client(role, own) as http:
            for (part, (method, roles)), namespace in itertools.product(PARTS.items(), ("shop", "bank")):
                group, version, rest = part.split("/", 2) if ".k8s.io/" in part or "apps/" in part else ("", "v1", part)
                base = f"/apis/{group}/{version}" if group else "/api/v1"
                answer = await http.request(method, f"{base}/namespaces/{namespace}/{rest}", json={})
                wanted = (role in roles and own in {"", namespace}) or (role == "admin" and not own)
                assert refused(answer) is not wanted, (part, namespace, answer.text)
            for (path, everybody), space in itertools.product(
                REVIEWS.items(), ("", "namespaces/shop/", "namespaces/bank/")
            ):
                answer = await http.post(f"/apis/{path.replace('/v1/', f'/v1/{space}')}", json={"spec": {}})
                assert refused(answer) is not (everybody or (role == "admin" and not own)), (path, answer.text)
                assert answer.status_code == 403 or bool(space) is (answer.status_code == 404), (path, answer.text)
            for kind in ("nodes", "nodes/n", "pods/p"):
                for space in ("namespaces/bank/", "namespaces/shop/", ""):
                    answer = await http.get(f"/apis/metrics.k8s.io/v1beta1/{space}{kind}")
                    inside = own in space if kind == "pods/p" else not own
                    assert refused(answer) is not (not own or inside), (kind, space, answer.text)
                    right = bool(space) is (kind == "pods/p")
                    assert answer.status_code in ({200, 403, 404} if right else {403, 404}), (kind, space)
            for kind, namespace in itertools.product(KINDS, ("shop", "bank")):
                watch = {"watch": "true", "resourceVersion": "999999999", "timeoutSeconds": "1"}
                if kind.namespaced and not may(role, own, kind, "list", namespace):
                    assert refused(await http.get(path_of(kind, namespace), params=watch)), kind.plural

    asyncio.run(main())


@pytest.mark.parametrize("role", ROLES)
def test_can_i_says_what_then_happens(tmp_path: Path, role: Role) -> None:
    async def main() -> None:
        reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        async with whole(tmp_path) as site, await site.client(role, "shop") as http:
            for kind, (verb, how), namespace in itertools.product(KINDS, VERBS.items(), ("shop", "bank")):
                method, tail, query = how  # kubectl names the namespace of its context for what is in none, too
                asked = {"verb": verb, "group": kind.group, "resource": kind.plural, "namespace": namespace}
                review = await http.post(reviews, json={"spec": {"resourceAttributes": asked}})
                path = path_of(kind, namespace if kind.namespaced else "") + tail
                answer = await http.request(method, path, params=query)
                assert review.json()["status"]["allowed"] is not refused(answer), (asked, answer.text)
                for name in ("shop", "bank"):
                    asked = {"verb": verb, "resource": "namespaces", "namespace": namespace, "name": name}
                    review = await http.post(reviews, json={"spec": {"resourceAttributes": asked}})
                    answer = await http.request(method, f"/api/v1/namespaces/{name}", params=query)
                    wanted = not refused(answer) if tail else review.json()["status"]["allowed"]
                    assert review.json()["status"]["allowed"] is wanted, (asked, answer.text)

    asyncio.run(main())


def test_a_review_inside_a_namespace_is_of_that_namespace(tmp_path: Path) -> None:
    async def main() -> None:
        path = "/apis/authorization.k8s.io/v1/{}localsubjectaccessreviews"
        async with whole(tmp_path) as site, await site.client("admin", "shop") as http:
            for where, code in (("shop", 201), ("bank", 400), ("", 400), (None, 400)):
                asked = {"verb": "get", "resource": "pods", "namespace": where}
                body = {"spec": {"user": "eve", "resourceAttributes": asked}}
                answer = await http.post(path.format("namespaces/shop/"), json=body)
                assert answer.status_code == code, answer.text
            for spec in ({"user": "eve", "nonResourceAttributes": {"verb": "get", "path": "/x"}}, {}):
                assert (await http.post(path.format("namespaces/shop/"), json={"spec": spec})).status_code == 400
            wrong = {"spec": {"groups": 5, "resourceAttributes": {**asked, "namespace": "shop"}}}
            assert (await http.post(path.format("namespaces/shop/"), json=wrong)).status_code == 400
            moved = {"metadata": {"namespace": "bank"}, "spec": {"user": "eve", "resourceAttributes": {**asked}}}
            assert (await http.post(path.format("namespaces/shop/"), json=moved)).status_code == 400
            async with await site.client("admin") as admin:
                assert (await admin.post(path.format(""), json=body)).status_code == 404

    asyncio.run(main())


def test_a_body_does_not_lead_into_another_namespace(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("edit", "shop") as http:
            there = {"metadata": {"name": "x", "namespace": "bank"}, "data": {"a": "b"}}
            path = "/api/v1/namespaces/shop/configmaps"
            assert (await http.post(path, json=there)).status_code == 400
            assert (await http.post(path, json={"metadata": {"name": "x"}})).status_code == 201
            assert (await http.put(f"{path}/x", json=there)).status_code == 400
            headers = {"Content-Type": "application/merge-patch+json"}
            moved = await http.patch(f"{path}/x", json={"metadata": {"namespace": "bank"}}, headers=headers)
            assert 400 <= moved.status_code < 500
            async with await site.client("admin") as admin:
                found = (await admin.get("/api/v1/configmaps")).json()["items"]
            assert [one["metadata"]["namespace"] for one in found if one["metadata"]["name"] == "x"] == ["shop"]

    asyncio.run(main())


def test_what_korch_itself_writes_and_what_leads_into_containers(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("edit", "shop") as http:
            path = "/api/v1/namespaces/shop/pods/x"
            assert refused(await http.put(f"{path}/status", json={}))
            assert refused(await http.post(f"{path}/binding", json={}))
            assert not refused(await http.get(f"{path}/status"))
            assert not refused(await http.post(f"{path}/eviction", json={}))
            async with await site.client("view", "shop") as viewer:
                for sub in ("exec", "attach", "portforward"):
                    assert refused(await viewer.get(f"{path}/{sub}", params={"command": "sh"}))
                    assert refused(await viewer.post(f"{path}/{sub}"))
                assert not refused(await viewer.get(f"{path}/log"))

    asyncio.run(main())


def test_a_body_without_end_and_a_client_that_goes_are_no_bugs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 1_000_000

    async def main() -> None:
        async with whole(tmp_path) as site:
            http = await site.client("admin")
            answer = await http.post("/api/v1/namespaces/shop/configmaps", content=parts())
            assert (answer.status_code, answer.json()["reason"]) == (413, "RequestEntityTooLarge")

            async def gone() -> dict[str, object]:
                return {"type": "http.disconnect"}

            sent: list[object] = []

            async def send(message: object) -> None:
                sent.append(message)

            headers = [(name.lower(), value) for name, value in http.headers.raw] + [(b"content-length", b"9")]
            path = "/api/v1/namespaces/shop/configmaps"
            scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
            more = {"headers": headers, "server": ("x", 1), "scheme": "https", "root_path": ""}
            await site.guard({**scope, **more}, gone, send)  # type: ignore[arg-type]
            await http.aclose()

    asyncio.run(main())
    assert "bug" not in caplog.text


def test_a_service_account_has_tokens_that_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownCredentials, "FRESH_S", 0.0)

    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin", "shop") as http:
            accounts = "/api/v1/namespaces/shop/serviceaccounts"
            assert (await http.post(f"{accounts}/bot/token", json={})).status_code == 404
            assert (await http.post(accounts, json={"metadata": {"name": "bot"}})).status_code == 201
            asked = {"kind": "TokenRequest", "spec": {"expirationSeconds": 900, "audiences": [API]}}
            made = await http.post(f"{accounts}/bot/token", json=asked)
            assert made.status_code == 201
            assert made.json()["spec"]["audiences"] == [API]
            for bad in (
                {"spec": {"expirationSeconds": 5}},
                {"spec": 5},
                {"kind": "Pod"},
                {"spec": {"expirationSeconds": "x"}},
                {"spec": {"audiences": ["vault"]}},  # it would be good for the API, whoever gets it
                {"spec": {"audiences": [{}]}},
                {"spec": {"audiences": 5}},
            ):
                assert (await http.post(f"{accounts}/bot/token", json=bad)).status_code == 422, bad
            async with await site.client("view", "shop") as viewer:
                assert refused(await viewer.post(f"{accounts}/bot/token", json={}))

            token = made.json()["status"]["token"]
            http.headers["Authorization"] = f"Bearer {token}"
            whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
            info = (await http.post(whoami, json={})).json()["status"]["userInfo"]
            assert info["username"] == "system:serviceaccount:shop:bot"
            assert "system:serviceaccounts:shop" in info["groups"]
            assert (await http.get(accounts)).status_code == 403  # nobody gave it a role
            async with await site.client("admin") as admin:
                await admin.delete(f"{accounts}/bot")
                await admin.post(accounts, json={"metadata": {"name": "bot"}})  # another one of that name
            assert (await http.post(whoami, json={})).status_code == 401

    asyncio.run(main())


def test_a_watcher_that_goes_is_not_counted_any_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site:
            token = (await site.client("view", "shop")).headers["authorization"]
            place, clock = Place(tmp_path, "test", port=0), SystemClock()
            async with serving(site.guard, place, store=site.store, clock=clock) as url:
                authority = load_authority(place.pki, "test", now=clock.now())
                context = ssl.create_default_context(cadata=authority.pem.decode())
                reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url()).port, ssl=context)
                head = f"GET /api/v1/namespaces/shop/pods?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n"
                writer.write(head.encode())
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                assert [one.streams for one in site.guard.open_now.values()] == [1]
                writer.transport.abort()
                async with asyncio.timeout(30):
                    while site.guard.open_now:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)

    asyncio.run(main())
