"""Who has a role in one namespace sees nothing of another one, by whatever path, selector or form they ask."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from korch.api import registry
from korch.api.security.users import ROLES, Role
from korch.resources.codec import with_meta
from korch.resources.kinds import KINDS
from korch.resources.meta import Object, ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.rbac import RoleRef
from tests.unit.api.security.test_reserved import CRDS, definition
from tests.unit.api.security.test_whole import Site, whole

MARK = "marked-as-not-theirs"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PLACES = ("", "namespaces/bank/", "namespaces/shop/", "namespaces/shop/namespaces/bank/", "watch/namespaces/bank/")
QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"fieldSelector": "metadata.namespace=bank"},
    {"fieldSelector": f"metadata.name={MARK}"},
    {"fieldSelector": "metadata.name!=x\\,metadata.name=shop"},
    {"limit": "1", "resourceVersion": "0"},
)
NEEDED: dict[str, dict[str, Any]] = {
    "controllerrevisions": {"revision": 1},
    "endpointslices": {"address_type": "IPv4"},
    "priorityclasses": {"value": 1},
    "storageclasses": {"provisioner": "x"},
    "rolebindings": {"role_ref": RoleRef(kind="Role", name="r")},
    "clusterrolebindings": {"role_ref": RoleRef(kind="ClusterRole", name="r")},
}


async def mark_all(site: Site) -> int:
    """One object of every kind in the namespace bank or in none, as a backup would bring them; how many."""
    for kind in KINDS:
        obj = kind.type(
            **NEEDED.get(kind.plural, {}),
            metadata=ObjectMeta(name=MARK, uid=f"uid-{kind.plural}", labels={"mark": MARK}),
        )
        if not isinstance(obj, Namespace):
            await site.objects.restore(_in_bank(obj) if kind.namespaced else obj)
    async with await site.client("admin") as admin:
        await admin.post("/api/v1/namespaces", json={"metadata": {"name": MARK}})
        kept = await admin.post(CRDS, json=definition("things.x.io", labels={"mark": MARK}))
        assert kept.status_code == 201, kept.text
        await admin.post("/apis/x.io/v1/things", json={"metadata": {"name": MARK}})
        found = [await admin.get(f"/apis/{one.group}/{one.version}/{one.plural}") for one in KINDS if one.group]
        return sum(MARK in answer.text for answer in found)


def _in_bank(obj: Object) -> Object:
    return with_meta(obj, namespace="bank")


def addresses() -> list[str]:
    """All that can be read, wherever it may be said to be."""
    found = []
    for group, versions in registry.groups().items():
        for version in versions:
            base = f"/apis/{group}/{version}" if group else f"/api/{version}"
            for one, place in itertools.product(registry.resources_of(group, version), PLACES):
                found += [f"{base}/{place}{one.plural}", f"{base}/{place}{one.plural}/{MARK}"]
    custom = [f"/apis/x.io/v1/{place}things{name}" for place in PLACES for name in ("", f"/{MARK}")]
    return [*found, *custom, "/api/v1/namespaces/bank", f"/api/v1/namespaces/{MARK}/status"]


@pytest.mark.parametrize("role", ROLES)
def test_nothing_of_another_namespace_is_seen(tmp_path: Path, role: Role) -> None:
    async def main() -> None:
        async with whole(tmp_path) as site:
            assert await mark_all(site) > 15
            async with await site.client(role, "shop") as http:
                asked: list[tuple[str, dict[str, str], str]] = [
                    (path, query, accept)
                    for path, query in itertools.product(addresses(), QUERIES)
                    for accept in (("application/json", TABLE) if not query else ("application/json",))
                ]
                assert len(asked) > 1000
                for path, query, accept in asked:
                    answer = await http.get(path, params=query, headers={"accept": accept})
                    told: Any = answer.json() if answer.text.startswith("{") else {}
                    if told.get("kind") == "Status":
                        assert answer.status_code >= 400, (path, query)
                    else:
                        assert MARK not in answer.text, (path, query, accept)

    asyncio.run(main())
