"""`dryRun=All` writes nothing, wherever it is said; and what tokens of service accounts are bound to."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import httpx
import pytest

from korch.api import registry
from korch.api.security.credentials import KnownCredentials
from korch.resources.kinds import DEPLOYMENT, KINDS, POD, SERVICEACCOUNT, Kind
from korch.resources.meta import ObjectMeta
from korch.resources.node import Node
from tests.unit.api.security.test_reserved import CRDS, definition
from tests.unit.api.security.test_whole import Site, path_of, whole
from tests.unit.api.serving import deployment, pod

MERGE = {"Content-Type": "application/merge-patch+json"}
BODIES: dict[str, dict[str, Any]] = {
    "": {"metadata": {"labels": {"x": "y"}}},
    "status": {"status": {"phase": "Running"}},
    "scale": {"spec": {"replicas": 7}},
    "binding": {"target": {"name": "n1"}},
    "eviction": {"metadata": {"name": "x"}},
    "token": {"spec": {"expirationSeconds": 900}},
}


def place(kind: Kind) -> str:
    return f"{path_of(kind, 'shop' if kind.namespaced else '')}/x"


async def furnish(site: Site, http: httpx.AsyncClient) -> list[tuple[str, str]]:
    """One object of some kinds; the addresses of all that can be written, with the part that it is."""
    await site.objects.create(Node(metadata=ObjectMeta(name="x")))
    made = {POD: pod("x"), DEPLOYMENT: deployment("x"), SERVICEACCOUNT: {"metadata": {"name": "x"}}}
    for kind, body in made.items():
        assert (await http.post(path_of(kind, "shop"), json=body)).status_code == 201
    assert (await http.post(CRDS, json=definition("things.x.io"))).status_code == 201
    assert (await http.post("/apis/x.io/v1/things", json={"metadata": {"name": "x"}})).status_code == 201
    found = [("/apis/x.io/v1/things/x", ""), (f"{CRDS}/things.x.io", "")]
    for kind in KINDS:
        parts = [part.name for part in registry.subresources(kind) if part.name in BODIES]
        found += [(f"{place(kind)}/{part}" if part else place(kind), part) for part in ("", *parts)]
    return found


def test_nothing_that_is_only_tried_is_written(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin") as http:
            addresses = await furnish(site, http)
            before, done = await site.store.revision(), set()
            for (path, part), method in itertools.product(addresses, ("POST", "PUT", "PATCH", "DELETE")):
                body = BODIES[part]
                if method == "POST" and not part:
                    path, body = path.rpartition("/")[0], {"metadata": {"name": "new"}}
                if method == "PUT":
                    live = await http.get(path)
                    body = {**live.json(), **body} if live.status_code == 200 else body
                if method == "DELETE":
                    body = {}
                headers = MERGE if method == "PATCH" else {}
                answer = await http.request(method, path, params={"dryRun": "All"}, json=body, headers=headers)
                assert await site.store.revision() == before, (method, path, answer.text)
                if answer.status_code < 300:
                    done.add((method, part))
            assert {("POST", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "binding"), ("POST", "token")} <= done
            assert {("POST", "eviction"), ("PATCH", "scale"), ("PATCH", "status"), ("PUT", "scale")} <= done
            for path in (path_of(POD, "shop"), path_of(DEPLOYMENT, "shop"), path_of(SERVICEACCOUNT, "shop")):
                assert (await http.delete(path, params={"dryRun": "All"})).status_code == 200
            assert await site.store.revision() == before

    asyncio.run(main())


@pytest.mark.parametrize("part", ["binding", "token", "eviction"])
def test_a_dry_run_of_a_part_is_all_or_nothing(tmp_path: Path, part: str) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin") as http:
            await furnish(site, http)
            path = f"{place(SERVICEACCOUNT if part == 'token' else POD)}/{part}"
            assert (await http.post(path, params={"dryRun": "Some"}, json=BODIES[part])).status_code == 422
            missing = path.replace("/x/", "/nobody/")
            answer = await http.post(missing, params={"dryRun": "All"}, json=BODIES[part])
            assert answer.status_code == 404
            tried = await http.post(path, params={"dryRun": "All"}, json=BODIES[part])
            assert tried.status_code == 201
            assert part != "token" or tried.json()["status"]["token"] == ""

    asyncio.run(main())


def test_a_token_ends_with_the_pod_that_it_is_bound_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownCredentials, "FRESH_S", 0.0)

    async def main() -> None:
        async with whole(tmp_path) as site, await site.client("admin", "shop") as http:
            spaced = "/api/v1/namespaces/shop"
            for name in ("bot", "other"):
                assert (
                    await http.post(f"{spaced}/serviceaccounts", json={"metadata": {"name": name}})
                ).status_code == 201
            made = await http.post(f"{spaced}/pods", json=pod("p", serviceAccountName="bot"))
            uid = made.json()["metadata"]["uid"]
            token = f"{spaced}/serviceaccounts/bot/token"

            async def ask(**ref: Any) -> httpx.Response:
                return await http.post(token, json={"spec": {"boundObjectRef": ref}})

            for code, ref in (
                (409, {"kind": "Pod", "name": "p", "uid": "other"}),
                (422, {"kind": "Pod", "name": "nobody"}),
                (422, {"kind": "Pod"}),
                (422, {"kind": "Pod", "name": 5}),
                (422, {"kind": "Deployment", "apiVersion": "apps/v1", "name": "p"}),
            ):
                assert (await ask(**ref)).status_code == code, ref
            stranger = {"spec": {"boundObjectRef": {"kind": "Pod", "name": "p"}}}
            assert (await http.post(f"{spaced}/serviceaccounts/other/token", json=stranger)).status_code == 422
            bound = await ask(kind="Pod", apiVersion="v1", name="p", uid=uid)
            assert bound.json()["spec"]["boundObjectRef"] == {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": "p",
                "uid": uid,
            }
            headers = {"Authorization": f"Bearer {bound.json()['status']['token']}"}
            whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
            assert (await http.post(whoami, json={}, headers=headers)).status_code == 201
            assert (await http.delete(f"{spaced}/pods/p")).status_code == 200
            assert (await http.post(f"{spaced}/pods", json=pod("p", serviceAccountName="bot"))).status_code == 201
            assert (await http.post(whoami, json={}, headers=headers)).status_code == 401

    asyncio.run(main())
