"""The client over HTTPS against the API as a master serves it: restarts, conflicts, roles, streams, refusals."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from korch.api.streams.service import Streams
from korch.client.base import ClusterInfo, LogOptions, NodeSeen, Progress, Workload
from korch.client.http import HttpClient
from korch.client.kubeconfig import Access, access_of, read_config
from korch.errors import (
    AlreadyExistsError,
    CommandTimeoutError,
    ExpiredError,
    ForbiddenError,
    HostRefusedError,
    HostUnreachableError,
    InvalidError,
    KorchError,
    NotFoundError,
)
from korch.master.following import follow
from korch.objects.objects import Objects
from korch.resources.codec import with_meta
from korch.resources.config import ConfigMap, ServiceAccount
from korch.resources.meta import Condition, LabelSelector, ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.node import Node, NodeStatus
from korch.resources.pod import Container, ContainerState, ContainerStateRunning, ContainerStatus, Pod, PodSpec
from korch.resources.workload import Deployment, DeploymentSpec, PodTemplateSpec
from korch.store.sqlite import open_sqlite
from tests.unit.api.streams.test_service import FakeDoor
from tests.unit.client.served import Served, served

WEB = Workload("default", "web")


class Master:
    """What stands behind korch's own paths."""

    def __init__(self) -> None:
        self.info_ = ClusterInfo("id", "test", (), "2026-01-01T00:00:00Z", "m1/1/ab", "master")
        self.error: KorchError | None = None

    async def info(self) -> ClusterInfo:
        return self.info_

    async def survey(self, names: Any = (), *, measure_cpu: bool = True) -> tuple[NodeSeen, ...]:
        if self.error is not None:
            raise self.error
        node = Node(metadata=ObjectMeta(name="n1", labels={"measured": str(measure_cpu)}))
        return tuple(NodeSeen(node, None) for name in names or ("n1",) if name == "n1")

    async def resolve_image(self, image: str, *, auth: bytes | None = None, pull: bool = True, **_: Any) -> str:
        return f"{image} {auth!r} {pull}"


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
def site(tmp_path: Path, master: Master, door: FakeDoor) -> Iterator[Served]:
    def streams(objects: Objects) -> Streams:
        return Streams(objects, door)  # type: ignore[arg-type]

    with served(tmp_path / "state.db", tmp_path / "api", lambda _: master, streams) as found:
        yield found


def access(site: Served, *who: str, **options: Any) -> Access:
    name = "-".join(("config", *who))
    return access_of(read_config([site.kubeconfig(*who, name=name, **options)], must_exist=True))


def run(site: Served, test: Callable[[HttpClient], Awaitable[None]], way: Access | None = None) -> None:
    async def main() -> None:
        client = HttpClient(way or access(site), follow=follow)
        try:
            async with asyncio.timeout(60):
                await client.meet()
                await test(client)
        finally:
            await client.close()

    asyncio.run(main())


async def beside(site: Served, act: Callable[[Objects], Awaitable[Any]]) -> Any:
    """What another process does with the same state."""
    store = await open_sqlite(site.state)
    try:
        return await act(Objects(store))
    finally:
        await store.close()


def config(name: str = "c", **labels: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, labels=labels))


def a_pod(name: str = "p", node: str = "n1") -> Pod:
    return Pod(
        metadata=ObjectMeta(name=name), spec=PodSpec(containers=(Container(name="c", image="x"),), node_name=node)
    )


async def runs(objects: Objects) -> Pod:
    made = await objects.create(a_pod())
    running = ContainerState(running=ContainerStateRunning())
    statuses = (ContainerStatus(name="c", state=running, container_id="x"),)
    status = replace(made.status, phase="Running", container_statuses=statuses)
    return await objects.update_status(replace(made, status=status))


@pytest.mark.parametrize("token", [False, True], ids=["certificate", "token"])
def test_objects_are_made_read_changed_and_removed(site: Served, token: bool) -> None:
    async def check(client: HttpClient) -> None:
        made, what = await client.apply(config(app="a"))
        assert (what, made.metadata.namespace) == ("created", "default")
        assert (await client.apply(config(app="a")))[1] == "unchanged"
        assert (await client.apply(config(app="b")))[1] == "configured"
        await client.create(config("d"))
        with pytest.raises(AlreadyExistsError, match='configmap "d" in namespace "default" exists already'):
            await client.create(config("d"))
        for selector in ("app=b", LabelSelector(match_labels={"app": "b"})):
            assert [one.metadata.name for one in (await client.list(ConfigMap, selector=selector)).items] == ["c"]
        found = await client.list(ConfigMap, "default")
        assert [one.metadata.name for one in found.items] == ["c", "d"]
        assert found.revision >= int(found.items[-1].metadata.resource_version)
        await client.delete(ConfigMap, "d")
        with pytest.raises(NotFoundError, match='configmap "d" not found in namespace "default"'):
            await client.get(ConfigMap, "d")
        with pytest.raises(NotFoundError):
            await client.get(ConfigMap, "../../secrets/s")
        with pytest.raises(InvalidError, match="no name"):
            await client.list(ConfigMap, "a/b")

    run(site, check, access(site, token=token))


def test_a_change_is_made_again_on_what_somebody_else_left(site: Served) -> None:
    calls = []

    async def check(client: HttpClient) -> None:
        await client.create(config(n="0"))

        def change(found: ConfigMap) -> ConfigMap:
            calls.append(found.metadata.labels["n"])
            return with_meta(found, labels={"n": found.metadata.labels["n"] + "x"})

        real = client.requests.ask

        async def overtaken(call: Any, **options: Any) -> Any:
            if call.method == "PUT" and len(calls) == 1:
                await beside(
                    site, lambda o: o.modify(ConfigMap, "c", "default", lambda c: with_meta(c, labels={"n": "1"}))
                )
            return await real(call, **options)

        client.requests.ask = overtaken  # type: ignore[method-assign]
        assert (await client.modify(ConfigMap, "c", "default", change)).metadata.labels == {"n": "1x"}
        assert calls == ["0", "1"]
        stands = await client.get(ConfigMap, "c")
        assert await client.modify(ConfigMap, "c", "default", lambda _: None) == stands

    run(site, check)


def test_a_namespace_that_holds_something_stays(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        await client.create(Namespace(metadata=ObjectMeta(name="shop")))
        await client.create(with_meta(config(), namespace="shop"))
        with pytest.raises(ForbiddenError, match='"shop" still holds configmaps'):
            await client.delete(Namespace, "shop", "")
        with pytest.raises(ForbiddenError, match="always exists"):
            await client.delete(Namespace, "default", "")
        await client.delete(ConfigMap, "c", "shop")
        await client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="shop")))
        await client.delete(Namespace, "shop", "")  # every namespace has that one

    run(site, check)


# --- a master that goes and comes back ---


async def away(site: Served, meanwhile: Callable[[Objects], Awaitable[Any]]) -> None:
    await asyncio.to_thread(site.stop)
    await beside(site, meanwhile)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(site.start)


def test_a_watch_goes_on_where_it_was_when_the_master_is_back(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        start = (await client.list(ConfigMap)).revision
        async with client.watch(ConfigMap, after=start) as changes:
            await client.create(config("a"))
            first = await anext(changes)
            assert (first.type, first.object.metadata.name, first.previous) == ("ADDED", "a", None)

            async def meanwhile(objects: Objects) -> None:
                await objects.modify(ConfigMap, "a", "default", lambda c: with_meta(c, labels={"x": "1"}))
                await objects.create(config("b"))
                await objects.delete(ConfigMap, "a")

            going = asyncio.create_task(away(site, meanwhile))
            seen = [await anext(changes) for _ in range(3)]
            await going
            assert [(one.type, one.object.metadata.name) for one in seen] == [
                ("MODIFIED", "a"),
                ("ADDED", "b"),
                ("DELETED", "a"),
            ]
            assert seen[0].previous == first.object
            revisions = [one.revision for one in (first, *seen)]
            assert revisions == sorted(set(revisions))

    run(site, check)


def test_a_request_waits_for_a_master_that_restarts(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        going = asyncio.create_task(away(site, lambda objects: objects.create(config("b"))))
        await asyncio.sleep(0.1)
        found, what = await client.apply(config("c"))
        assert (what, found.metadata.name) == ("created", "c")
        await going
        assert {one.metadata.name for one in (await client.list(ConfigMap)).items} == {"b", "c"}

    run(site, check)


def test_a_revision_that_is_forgotten_is_told(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        for number in range(5):
            await client.apply(config(n=str(number)))
        await asyncio.to_thread(site.stop)
        store = await open_sqlite(site.state)
        await store.compact(await store.revision())
        await store.close()
        await asyncio.to_thread(site.start)
        with pytest.raises(ExpiredError):
            async with client.watch(ConfigMap, after=1) as changes:
                await anext(changes)

    run(site, check)


def a_deployment(replicas: int = 0) -> Deployment:
    labels = {"app": "web"}
    template = PodTemplateSpec(metadata=ObjectMeta(labels=labels), spec=a_pod(node="").spec)
    spec = DeploymentSpec(replicas=replicas, selector=LabelSelector(match_labels=labels), template=template)
    return Deployment(metadata=ObjectMeta(name="web"), spec=spec)


async def settle(objects: Objects) -> None:
    """What the controllers of a master write in the end."""
    done = Condition(type="Progressing", status="True", reason="NewReplicaSetAvailable")

    def change(found: Deployment) -> Deployment:
        status = replace(found.status, observed_generation=found.metadata.generation, conditions=(done,))
        return replace(found, status=status)

    await objects.modify(Deployment, "web", "default", change, status=True)


def test_a_rollout_is_followed_over_a_restart_of_the_master(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        said: list[Progress] = []
        made = await client.create(a_deployment())
        following = asyncio.create_task(
            client.converge((WEB,), since={WEB: made.metadata.generation}, timeout_s=30, on_progress=said.append)
        )
        while not said:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
        assert said[0].message == "following m1/1/ab, which leads now"
        await away(site, settle)
        (outcome,) = await following
        assert (outcome.workload, outcome.error) == (WEB, None)

    run(site, check)


def test_time_is_over_also_while_nothing_is_to_be_seen(site: Served, master: Master) -> None:
    master.info_ = replace(master.info_, doing="deploying")

    async def check(client: HttpClient) -> None:
        await client.create(a_deployment(1))
        (outcome,) = await client.converge((WEB,), since={}, timeout_s=0.5, on_progress=lambda _: None)
        assert "not finished after" in str(outcome.error)

    run(site, check)


# --- who answers, and who asks ---


def test_an_api_that_is_not_there_is_told_at_once(site: Served) -> None:
    way = access(site)
    site.stop()
    client = HttpClient(way, follow=follow)
    with pytest.raises(HostUnreachableError, match=f"does not answer at {way.server}: ") as caught:
        asyncio.run(client.meet())
    assert "korch master" in caught.value.hint
    site.start()


def test_a_cluster_that_is_not_korchs_is_left_alone(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("korch.api.plain.version", lambda: {"gitVersion": "v1.35.0"})
    with pytest.raises(ForbiddenError, match=r"not served by korch, but says v1\.35\.0"):
        run(site, lambda client: client.list(Pod))  # type: ignore[arg-type, return-value]
    assert site.asked == ["/version"]


def test_somebody_else_at_that_address_gets_no_credential(site: Served, tmp_path: Path) -> None:
    with served(tmp_path / "o.db", tmp_path / "o", lambda _: Master()) as other:
        way = dataclasses.replace(access(site, token=True), server=other.url)
        with pytest.raises(HostRefusedError, match="not the API that the kubeconfig means"):
            run(site, lambda client: client.info(), way)  # type: ignore[arg-type, return-value]
        assert other.asked == []


def test_a_credential_that_nobody_knows(site: Served) -> None:
    way = dataclasses.replace(access(site, token=True), token="nonsense")
    with pytest.raises(ForbiddenError, match=r"does not know the credential of .*config, context"):
        run(site, lambda client: client.list(Pod), way)  # type: ignore[arg-type, return-value]


def test_roles_hold_for_korchs_own_paths_too(site: Served) -> None:
    async def view(client: HttpClient) -> None:
        assert (await client.info()).has_master
        assert await client.survey() != ()
        for refused in (client.resolve_image("x"), client.prune(), client.create(config())):
            with pytest.raises(ForbiddenError, match="forbidden"):
                await refused

    async def edit_one(client: HttpClient) -> None:
        assert (await client.info()).name == "test"
        assert await client.resolve_image("x", auth=b"k", pull=False) == "x b'k' False"
        for refused in (client.survey(), client.fail_over(), client.set_auto_rebalance(True), client.list(Pod)):
            with pytest.raises(ForbiddenError, match="forbidden"):
                await refused
        assert (await client.list(Pod, "default")).items == ()

    run(site, view, access(site, "view"))
    run(site, edit_one, access(site, "edit", "default"))


def test_the_nodes_are_those_of_the_inventory(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        store = await open_sqlite(site.state)
        for name, why in (("n2", "Unreachable"), ("n3", "NotInInventory"), ("n1", "Ready")):
            ready = Condition(type="Ready", status="False", reason=why)
            await Objects(store).restore(Node(metadata=ObjectMeta(name=name), status=NodeStatus(conditions=(ready,))))
        await store.close()
        assert await client.node_names() == ("n1", "n2")

    run(site, check)


def test_looks_carry_their_question_and_errors_their_words(site: Served, master: Master) -> None:
    async def check(client: HttpClient) -> None:
        (seen,) = await client.survey(("n1", "n2"), measure_cpu=False)
        assert seen.node.metadata.labels == {"measured": "False"}
        master.error = HostUnreachableError("no node can be worked with", host="")  # the API itself is there
        with pytest.raises(HostUnreachableError, match="no node"):
            await client.survey()
        assert site.asked.count("/apis/korch.dev/v1/looks/survey") == 2, "it was asked again and again"
        master.error = CommandTimeoutError("n1: too slow", host="n1", hint="Wait.")
        with pytest.raises(CommandTimeoutError, match="n1: too slow") as caught:
            await client.survey()
        assert (caught.value.host, caught.value.hint) == ("n1", "Wait.")

    run(site, check)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.adopt(dry_run=True),
        lambda client: client.take_over(),
        lambda client: client.push_image(None, "", print),
        lambda client: client.pushed_images(),
        lambda client: client.forget_pushed("x"),
        lambda client: client.fetch_host_key("n1"),
        lambda client: client.trust_host_key("n1", "x"),
    ],
)
def test_what_belongs_beside_the_state_is_refused_with_the_way(site: Served, call: Any) -> None:
    with pytest.raises(ForbiddenError, match="not done over the API") as caught:
        run(site, call)
    assert "--context" in caught.value.hint


# --- streams ---


def test_a_log_is_read_to_its_end(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        pod = await beside(site, runs)
        async with client.logs(pod, LogOptions(tail=3, since_s=0, timestamps=True)) as stream:
            assert [part async for part in stream.chunks()] == [(1, b"a line\n")]
            assert await stream.wait() == 0
        with pytest.raises(InvalidError, match="runs nowhere yet"):
            async with client.logs(a_pod(node=""), LogOptions()):
                pass
        with pytest.raises(NotFoundError):
            async with client.logs(with_meta(pod, name="gone"), LogOptions()):
                pass

    run(site, check)


def test_a_program_gets_its_input_and_tells_its_status(site: Served, door: FakeDoor) -> None:
    async def check(client: HttpClient) -> None:
        pod = await beside(site, runs)
        sent = bytes(range(256)) * 512
        async with client.exec(pod, ("cat", "a b", ""), stdin=True, pty=None) as stream:
            feeding = asyncio.create_task(stream.write(sent))
            got = b""
            async for channel, data in stream.chunks():
                assert channel == 1
                got += data
                if len(got) == len(sent):
                    await stream.write_eof()
            await feeding
            assert got == sent
            assert await stream.wait() == 4
        assert door.calls == [("exec", "c", "cat", "a b", "")]
        door.state = "exited"
        with pytest.raises(InvalidError, match="does not run"):
            async with client.exec(pod, ("ls",), stdin=False, pty=None):
                pass

    run(site, check)


def test_a_master_that_goes_during_exec_leaves_no_status(site: Served) -> None:
    async def check(client: HttpClient) -> None:
        pod = await beside(site, runs)
        async with client.exec(pod, ("cat",), stdin=True, pty=(80, 24)) as stream:
            await asyncio.to_thread(site.stop)
            assert [part async for part in stream.chunks()] == []
            assert await stream.wait() == -1
        await asyncio.to_thread(site.start)

    run(site, check)
