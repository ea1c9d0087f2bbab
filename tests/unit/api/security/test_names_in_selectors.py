"""Who may see one object by its name sees no other one, whatever a field selector looks like."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.answers import Refusal
from korch.api.requestinfo import request_info
from korch.api.selecting import selection
from korch.resources.kinds import SECRET
from tests.unit.api.security.test_whole import Site, whole

SECRETS = "/api/v1/namespaces/shop/secrets"
ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop"
PIECES = st.sampled_from(["metadata.name", "mine", "other", "=", "==", "!=", ",", "\\", "\\,", " ", "", "type", "\\="])


@asynccontextmanager
async def one_secret_only(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who may do anything with the secret "mine", beside others."""
    async with await site.client("admin") as admin:
        for name in ("mine", "other"):
            assert (await admin.post(SECRETS, json={"metadata": {"name": name}})).status_code == 201
        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"], "resourceNames": ["mine"]}
        await admin.post(f"{ROLES}/roles", json={"metadata": {"name": "one"}, "rules": [rule]})
        group = "rbac.authorization.k8s.io"
        who = [{"kind": "User", "name": "tom", "apiGroup": group}]
        ref = {"kind": "Role", "name": "one", "apiGroup": group}
        binding = {"metadata": {"name": "one"}, "roleRef": ref, "subjects": who}
        assert (await admin.post(f"{ROLES}/rolebindings", json=binding)).status_code == 201
    async with await site.client("view", "bank") as http:
        yield http


def test_a_selector_that_two_readers_could_read_in_two_ways(tmp_path: Path) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site, one_secret_only(site) as http:
            for text, names in (
                ("metadata.name=mine", ["mine"]),
                ("metadata.name==mine,type!=x", ["mine"]),
                ("metadata.name!=x\\,metadata.name=mine", None),
                ("type!=x\\,metadata.name=mine", None),
                ("metadata.name!=mine", None),
                ("", None),
            ):
                answer = await http.get(SECRETS, params={"fieldSelector": text})
                found = [one["metadata"]["name"] for one in answer.json().get("items", ())]
                assert (answer.status_code, found) == ((403, []) if names is None else (200, names)), text
                watch = {"fieldSelector": text, "watch": "1", "timeoutSeconds": "1"}
                assert (await http.get(SECRETS, params=watch)).status_code == (403 if names is None else 200)
                if names is None:
                    assert (await http.delete(SECRETS, params={"fieldSelector": text})).status_code == 403

    asyncio.run(main())


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_name_that_the_door_reads_is_the_only_one_that_is_selected(text: str) -> None:
    name = request_info("GET", SECRETS, {"fieldSelector": text}).name
    if not name:
        return
    try:
        chosen = selection(SECRET, "shop", {"fieldSelector": text})
    except Refusal:
        return  # what is refused selects nothing
    for other in ("mine", "other", "x", ""):
        assert other == name or not chosen.has("shop", {}, {"metadata.name": other, "type": "Opaque"}), text
