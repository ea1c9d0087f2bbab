"""Leaving, pruning, backups: what stays, what goes, what is refused."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from korch.controllers.history import revision_of
from korch.errors import ForbiddenError, InvalidError, NotFoundError, StoreError
from korch.master import pruning
from korch.master.backup import back_up, describe, restore_state
from korch.master.cluster import Cluster, open_cluster, remove_cluster, set_inventories
from korch.master.pruning import prune_after, wanted_images
from korch.master.removal import forget_node
from korch.nodes.register import not_ready
from korch.objects.objects import Objects
from korch.resources.batch import CronJob, CronJobSpec, JobSpec, JobTemplateSpec
from korch.resources.codec import with_meta
from korch.resources.history import ControllerRevision
from korch.resources.images import PINNED, pinned_template
from korch.resources.meta import ObjectMeta
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.workload import DaemonSet, DaemonSetSpec, PodTemplateSpec
from korch.settings import Settings
from tests.unit.controllers.cluster import deployment
from tests.unit.objects.memory_store import MemoryStore


def on_objects(body: Callable[[Objects], Awaitable[None]]) -> None:
    asyncio.run(body(Objects(MemoryStore())))  # type: ignore[arg-type]


def a_pod(name: str, node: str = "n1", image: str = "web:1", pinned: str = "") -> Pod:
    meta = ObjectMeta(name=name, annotations={PINNED: pinned} if pinned else {})
    return Pod(metadata=meta, spec=PodSpec(containers=(Container(name="web", image=image),), node_name=node))


# --- a node that is gone ---


async def gone_node(objects: Objects, reason: str = "NotInInventory") -> None:
    node = await objects.create(Node(metadata=ObjectMeta(name="n1")))
    status = not_ready(node, reason, "", 1e6, unknown=False)
    await objects.modify(Node, "n1", "", lambda old: replace(old, status=status), status=True)
    await objects.create(NodeLoad(metadata=ObjectMeta(name="n1")))


def test_pods_of_a_forgotten_node_leave_tombstones() -> None:
    async def body(objects: Objects) -> None:
        await gone_node(objects)
        lost = await objects.create(a_pod("web-1"))
        kept = await objects.create(a_pod("web-2", node="n2"))
        with pytest.raises(ForbiddenError, match="1 pod"):
            await forget_node(objects, "n1", force=False)
        assert await forget_node(objects, "n1", force=True) == ("web-1",)
        assert await objects.find(Node, "n1", "") is None
        assert await objects.find(NodeLoad, "n1", "") is None
        assert await objects.find(Pod, "web-1") is None
        assert await objects.tombstone(lost.metadata.uid) is not None, "its container is surplus, should it come back"
        assert await objects.find(Pod, "web-2") == kept

    on_objects(body)


def test_a_node_of_the_inventory_is_not_forgotten() -> None:
    async def body(objects: Objects) -> None:
        await gone_node(objects, "Unreachable")
        with pytest.raises(ForbiddenError, match="still in the inventory"):
            await forget_node(objects, "n1", force=True)

    on_objects(body)


# --- a cluster that is forgotten ---


def settings_in(tmp_path: Path, *sources: str) -> Settings:
    return Settings(tmp_path / "home", "c", sources or (str(tmp_path / "hosts.yml"),))


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """An inventory with one host, which nobody answers for."""
    path = tmp_path / "hosts.yml"
    path.write_text("all:\n  hosts:\n    n1: {ansible_host: 127.0.0.1, ansible_port: 1}\n")
    return path


def with_cluster(settings: Settings, body: Callable[[Cluster], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_cluster(settings) as cluster:
            await body(cluster)

    asyncio.run(main())


def test_an_empty_cluster_goes(tmp_path: Path, hosts: Path) -> None:
    settings = settings_in(tmp_path)

    async def nothing(cluster: Cluster) -> None: ...

    with_cluster(settings, nothing)
    (note,) = asyncio.run(remove_cluster(settings, force=False))
    assert note.startswith("n1: ")
    assert "stays" in note
    assert not settings.cluster_dir.exists()


def test_workloads_are_never_forgotten_by_accident(tmp_path: Path, hosts: Path) -> None:
    settings = settings_in(tmp_path)

    async def declare(cluster: Cluster) -> None:
        await cluster.objects.create(with_meta(deployment(), uid="", generation=0))

    with_cluster(settings, declare)
    with pytest.raises(ForbiddenError, match="deployment/web"):
        asyncio.run(remove_cluster(settings, force=False))
    assert settings.state_file.exists()
    assert len(asyncio.run(remove_cluster(settings, force=True))) == 1
    assert not settings.cluster_dir.exists()


def test_with_force_a_cluster_goes_even_if_its_inventory_or_state_is_lost(tmp_path: Path, hosts: Path) -> None:
    settings = settings_in(tmp_path)

    async def nothing(cluster: Cluster) -> None: ...

    with_cluster(settings, nothing)
    hosts.unlink()
    with pytest.raises((InvalidError, NotFoundError)) as caught:
        asyncio.run(remove_cluster(settings, force=False))
    assert "--force" in caught.value.hint
    settings.state_file.write_bytes(b"not a state" * 1000)
    (note,) = asyncio.run(remove_cluster(settings, force=True))
    assert "the nodes were not told" in note
    assert not settings.cluster_dir.exists()


# --- images that may go ---


class FakeMachine:
    def __init__(self, delay_s: float = 0.0) -> None:
        self.kept: list[frozenset[str]] = []
        self.delay_s = delay_s

    async def prune(self, keep: frozenset[str], *, epoch: int) -> tuple[str, ...]:
        await asyncio.sleep(self.delay_s)
        self.kept.append(keep)
        return ()


def digest(letter: str) -> str:
    return f"reg.lab/web@sha256:{letter * 64}"


def run_prune_after(*pods: Pod, before: dict[str, frozenset[str]], delay_s: float = 0.0) -> dict[str, FakeMachine]:
    machines = {name: FakeMachine(delay_s) for name in before}
    contacts: Any = {name: SimpleNamespace(machine=machines[name], images=images) for name, images in before.items()}

    async def main() -> None:
        store = MemoryStore()
        objects = Objects(store)  # type: ignore[arg-type]
        for pod in pods:
            await objects.create(pod)
        cluster: Any = SimpleNamespace(objects=objects, store=store)
        fleet: Any = None
        await prune_after(cluster, fleet, contacts, 7)

    asyncio.run(main())
    return machines


def test_only_nodes_where_the_run_brought_an_image_are_tidied() -> None:
    new, old = digest("b"), digest("a")
    machines = run_prune_after(
        a_pod("web-1", "n1", pinned=new),
        a_pod("web-2", "n2", pinned=new),
        before={"n1": frozenset({old}), "n2": frozenset({new}), "n3": frozenset()},
    )
    assert machines["n1"].kept == [frozenset({new})]
    assert machines["n2"].kept == machines["n3"].kept == []


def test_tidying_up_never_holds_a_deploy_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "AFTER_S", 0.05)
    assert run_prune_after(a_pod("w", pinned=digest("b")), before={"n1": frozenset()}, delay_s=60)["n1"].kept == []


def test_every_revision_on_record_keeps_its_image() -> None:
    async def body(objects: Objects) -> None:
        from korch.controllers.deployment import set_from

        now = deployment("reg.lab/web:2")
        pinned = replace(now, spec=replace(now.spec, template=pinned_template(now.spec.template, digest("b"))))
        old = replace(now, spec=replace(now.spec, template=pinned_template(now.spec.template, digest("a"))))
        await objects.create(with_meta(pinned, uid="", generation=0))
        await objects.create(with_meta(set_from(old, 1), owner_references=()))
        await objects.create(a_pod("single", image="tool:1"))
        store = MemoryStore()
        cluster: Any = SimpleNamespace(objects=objects, store=store)
        assert await wanted_images(cluster) == {digest("a"), digest("b"), "tool:1"}

    on_objects(body)


def test_what_an_undo_or_a_job_to_come_would_run_keeps_its_image() -> None:
    async def body(objects: Objects) -> None:
        def template(image: str) -> PodTemplateSpec:
            return pinned_template(deployment("reg.lab/web:2").spec.template, image)

        meta = ObjectMeta(name="web", namespace="default", uid="d")
        daemons = DaemonSet(metadata=meta, spec=DaemonSetSpec(template=template(digest("a"))))
        await objects.create(revision_of(daemons, 1))
        await objects.create(ControllerRevision(metadata=ObjectMeta(name="foreign"), revision=1, data={"spec": 7}))
        job = JobSpec(template=replace(template(digest("b")), spec=replace(template("").spec, restart_policy="Never")))
        cron = CronJobSpec(schedule="0 3 * * *", job_template=JobTemplateSpec(spec=job))
        await objects.create(CronJob(metadata=ObjectMeta(name="nightly"), spec=cron))
        cluster: Any = SimpleNamespace(objects=objects, store=MemoryStore())
        assert await wanted_images(cluster) == {digest("a"), digest("b")}

    on_objects(body)


# --- backups ---


def test_a_backup_tells_whose_it_is_and_comes_back(tmp_path: Path, hosts: Path) -> None:
    settings, file = settings_in(tmp_path), tmp_path / "b" / "one.db"
    ids: list[str] = []
    revisions: list[int] = []

    async def declare(cluster: Cluster) -> None:
        ids.append(cluster.record.id)
        await cluster.objects.create(with_meta(deployment(), uid="", generation=0))
        revisions.append(await cluster.store.revision())

    async def forget(cluster: Cluster) -> None:
        from korch.resources.workload import Deployment

        await cluster.objects.delete(Deployment, "web")

    async def there(cluster: Cluster) -> None:
        from korch.resources.workload import Deployment

        assert cluster.record.id == ids[0]
        assert (await cluster.objects.get(Deployment, "web")).metadata.name == "web"
        assert await cluster.store.revision() >= revisions[0] + 1_000_000

    with_cluster(settings, declare)
    asyncio.run(back_up(settings, file))
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert (describe(file).id, describe(file).name) == (ids[0], "c")
    with_cluster(settings, forget)
    kept_as = asyncio.run(restore_state(settings, file))
    assert kept_as is not None
    assert kept_as.exists()
    with_cluster(settings, there)


def test_a_restore_while_somebody_uses_the_state_is_refused(tmp_path: Path, hosts: Path) -> None:
    settings, file = settings_in(tmp_path), tmp_path / "one.db"

    async def meanwhile(cluster: Cluster) -> None:
        await back_up(settings, file)
        with pytest.raises(StoreError):
            await restore_state(settings, file)
        await set_inventories(cluster.store, (str(hosts),))  # the state goes on working

    with_cluster(settings, meanwhile)


def test_what_is_no_backup(tmp_path: Path, hosts: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello " * 1000)
    with pytest.raises(StoreError):
        describe(text)
    with pytest.raises(NotFoundError):
        describe(tmp_path / "none")
    with pytest.raises(StoreError):
        asyncio.run(restore_state(settings_in(tmp_path), text))
    assert not settings_in(tmp_path).state_file.exists()
