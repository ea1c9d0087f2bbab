"""Whatever comes in, the answer is an answer: never a 5xx, and what is refused has changed nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from korch.api import registry
from korch.resources.kinds import KINDS
from korch.store.sqlite import open_sqlite
from tests.fuzzing import TIMES
from tests.unit.api.serving import CONFIGMAPS, DEPLOYMENTS, PODS, World, configmap, deployment, pod

PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
WORDS = st.sampled_from(
    [
        *("metadata", "spec", "status", "name", "namespace", "labels", "annotations", "finalizers", "ownerReferences"),
        *("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "manager", "fieldsV1"),
        *("replicas", "selector", "matchLabels", "template", "containers", "image", "env", "ports", "resources"),
        *("limits", "volumes", "data", "stringData", "type", "kind", "apiVersion", "target", "deleteOptions"),
        *("op", "path", "value", "from", "$patch", "$retainKeys", "$setElementOrder/containers", "preconditions"),
        *("propagationPolicy", "dryRun", "gracePeriodSeconds", "", "f:spec", "."),
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    WORDS,
    st.sampled_from(["c", "web", "web-1", "default", "100%", "1Gi", "/spec/replicas", "/metadata/finalizers/-", "add"]),
)
BODIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[World, asyncio.Runner]]:
    with asyncio.Runner() as runner:

        async def begin() -> World:
            from korch.api.services import Services

            store = await open_sqlite(tmp_path / "state.db")
            made = World(store, Services())
            await made.objects.ensure_default_namespace()
            for path, body in ((PODS, pod()), (DEPLOYMENTS, deployment()), (CONFIGMAPS, configmap(a="b"))):
                await made.make(path, body)
            return made

        async def end(made: World) -> None:
            await made.app.state.api.close()
            await made.http.aclose()
            await made.store.close()

        made = runner.run(begin())
        yield made, runner
        runner.run(end(made))


async def asked(world: World, method: str, path: str, **more: Any) -> None:
    before = await world.store.revision()
    answer = await world.http.request(method, path, **more)
    assert answer.status_code < 500, (method, path, more, answer.text)
    if answer.status_code >= 400:
        assert answer.json()["code"] == answer.status_code
        assert await world.store.revision() == before, (method, path, more, answer.text)


@settings(max_examples=70 * TIMES, deadline=None, suppress_health_check=SLOW)
@given(
    method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]),
    path=st.sampled_from(
        [
            *(PODS, DEPLOYMENTS, CONFIGMAPS, f"{PODS}/web-1", f"{DEPLOYMENTS}/web", f"{CONFIGMAPS}/c"),
            *(f"{DEPLOYMENTS}/web/status", f"{DEPLOYMENTS}/web/scale", f"{PODS}/web-1/eviction"),
            *(f"{PODS}/web-1/binding", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
            "/apis/authentication.k8s.io/v1/tokenreviews",
        ]
    ),
    media=st.sampled_from(
        [*PATCHES, "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", ""]
    ),
    body=BODIES,
)
def test_bodies(world: tuple[World, asyncio.Runner], method: str, path: str, media: str, body: object) -> None:
    import json

    made, runner = world
    content = json.dumps(body).encode()
    runner.run(asked(made, method, f"{path}?dryRun=All", content=content, headers={"content-type": media}))


@settings(max_examples=70 * TIMES, deadline=None, suppress_health_check=SLOW)
@given(
    raw=st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: b"k8s\0" + tail)),
    media=st.sampled_from(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", PATCHES[3]]),
)
def test_bytes(world: tuple[World, asyncio.Runner], raw: bytes, media: str) -> None:
    made, runner = world
    method = "PATCH" if media in PATCHES else "POST"
    path = f"{CONFIGMAPS}/c" if method == "PATCH" else CONFIGMAPS
    runner.run(asked(made, method, path, content=raw, headers={"content-type": media}))


@settings(max_examples=70 * TIMES, deadline=None, suppress_health_check=SLOW)
@given(
    path=st.sampled_from([PODS, DEPLOYMENTS, "/api/v1/nodes", f"{PODS}/web-1", "/apis/metrics.k8s.io/v1beta1/nodes"]),
    query=st.dictionaries(
        st.sampled_from(
            [
                *("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch"),
                *("sendInitialEvents", "allowWatchBookmarks", "includeObject", "timeout"),
            ]
        ),
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(["1", "0", "true", "Exact", "NotOlderThan", "a=b", "a in (b,c)", "metadata.name=x", "-1"]),
        ),
        max_size=4,
    ),
    watch=st.booleans(),
    accept=st.sampled_from(
        [
            *("application/json", "*/*", "text/html", "application/yaml", "", "application/vnd.kubernetes.protobuf"),
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "application/json;as=Table;v=v9;g=meta.k8s.io",
        ]
    ),
)
def test_queries(
    world: tuple[World, asyncio.Runner], path: str, query: dict[str, str], watch: bool, accept: str
) -> None:
    made, runner = world
    made.app.state.api._ending.set()  # a watch tells what there is and ends
    more = {"watch": "true"} if watch else {}
    params = {key: text.encode("utf-8", "replace").decode() for key, text in {**query, **more}.items()}
    if params.get("resourceVersion", "0").isdigit() and len(params.get("resourceVersion", "")) > 1:
        params["resourceVersion"] = "1"  # one that has not been is waited for
    runner.run(asked(made, "GET", path, params=params, headers={"accept": accept}))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "create" in registry.verbs_of(kind)], ids=lambda kind: kind.plural
)
def test_every_kind_can_be_made_listed_and_deleted(world: tuple[World, asyncio.Runner], kind: Any) -> None:
    """With as little as its own checks allow: an empty object is stored or refused, and never a fault."""
    made, runner = world
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    path = f"{base}/namespaces/default/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"

    async def check() -> None:
        answer = await made.http.post(path, json={"metadata": {"name": "thing"}})
        assert answer.status_code in (201, 400, 422), answer.text
        listing = await made.get(path)
        assert listing["kind"] == f"{kind.name}List"
        table = await made.http.get(path, headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
        rows, columns = table.json()["rows"], table.json()["columnDefinitions"]
        assert all(len(row["cells"]) == len(columns) for row in rows)
        if answer.status_code == 201:
            assert (await made.http.delete(f"{path}/thing")).status_code == 200

    runner.run(check())
