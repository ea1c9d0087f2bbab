"""What a quota says that there is."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.quota import KINDS, Counting, plan_quota
from korch.master.background import background
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.config import ConfigMap
from korch.resources.limits import ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.pod import Container, Pod, PodSpec, PodStatus, ResourceRequirements
from korch.resources.service import Service, ServicePort, ServiceSpec
from korch.resources.workload import Deployment
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

NUMBERS = itertools.count()


def meta(namespace: str = "default") -> ObjectMeta:
    return ObjectMeta(name=f"o{next(NUMBERS)}", namespace=namespace)


def pod(phase: str = "Running", **resources: Any) -> Pod:
    containers = (Container(name="c", image="x", resources=ResourceRequirements(**resources)),)
    return Pod(metadata=meta(), spec=PodSpec(containers=containers), status=PodStatus(phase=phase))


def service(type_: str) -> Service:
    return Service(metadata=meta(), spec=ServiceSpec(type=type_, ports=(ServicePort(port=80),)))


def quota(*words: str, **spec: Any) -> ResourceQuota:
    return ResourceQuota(metadata=meta(), spec=ResourceQuotaSpec(hard=dict.fromkeys(words, "9"), **spec))


PODS = [
    pod(requests={"cpu": "250m", "memory": "64Mi"}, limits={"cpu": 1}),
    pod("Pending", limits={"cpu": "500m", "memory": "1Gi"}),
    pod("Succeeded", requests={"cpu": 8}, limits={"cpu": 8}),
    pod("Failed"),
]
THERE: dict[type, list[Any]] = {
    Pod: PODS,
    Service: [service("ClusterIP"), service("NodePort"), service("LoadBalancer")],
    ConfigMap: [ConfigMap(metadata=meta())],
    Deployment: [],
}


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("pods", "2"),
        ("count/pods", "4"),
        ("requests.cpu", "750m"),
        ("cpu", "750m"),
        ("requests.memory", "1088Mi"),
        ("limits.cpu", "1500m"),
        ("limits.memory", "1Gi"),
        ("services", "3"),
        ("services.nodeports", "2"),
        ("services.loadbalancers", "1"),
        ("configmaps", "1"),
        ("count/configmaps", "1"),
        ("count/deployments.apps", "0"),
        ("deployments", None),
        ("persistentvolumeclaims", None),
        ("requests.nvidia.com/gpu", None),
    ],
)
def test_what_is_counted(word: str, count: str | None) -> None:
    status = plan_quota(quota(word), THERE)
    assert status.hard == {word: "9"}
    assert status.used == ({} if count is None else {word: count})


def test_a_quota_of_some_pods_only_counts_nothing() -> None:
    for some in ({"scopes": ("BestEffort",)}, {"scope_selector": {"matchExpressions": []}}):
        assert plan_quota(quota("pods", **some), THERE) == ResourceQuotaStatus(hard={"pods": "9"})


@given(st.permutations(PODS))
def test_the_order_is_irrelevant(pods: list[Pod]) -> None:
    wanted = quota("pods", "limits.cpu", "requests.memory")
    assert plan_quota(wanted, {Pod: pods}) == plan_quota(wanted, THERE)


def test_it_follows_what_comes_and_goes_and_writes_nothing_else() -> None:
    async def main() -> None:
        store = MemoryStore()
        objects = Objects(store, clock=LoopClock())  # type: ignore[arg-type]
        await objects.ensure_default_namespace()
        await objects.create(Namespace(metadata=ObjectMeta(name="other")))
        view = View(objects, KINDS)

        async def used(name: str) -> Any:
            await asyncio.sleep(3)
            return (await objects.get(ResourceQuota, name)).status.used

        async with background() as group:
            old = await objects.create(quota("configmaps"))
            await view.start(group)
            group.create_task(Counting(view).run())
            assert await used(old.metadata.name) == {"configmaps": "0"}
            new = await objects.create(quota("pods", "configmaps"))
            made = await objects.create(PODS[0])
            await objects.create(ConfigMap(metadata=meta()))
            assert await used(new.metadata.name) == {"pods": "1", "configmaps": "1"}
            assert await used(old.metadata.name) == {"configmaps": "1"}
            done = replace(made, status=PodStatus(phase="Succeeded"))
            await objects.modify(
                Pod, made.metadata.name, "default", lambda found: replace(found, status=done.status), status=True
            )
            assert await used(new.metadata.name) == {"pods": "0", "configmaps": "1"}
            writes = store.writes
            await objects.create(ConfigMap(metadata=meta("other")))
            await objects.modify(
                Pod,
                made.metadata.name,
                "default",
                lambda found: replace(found, metadata=replace(found.metadata, labels={"a": "b"})),
            )
            await used(new.metadata.name)
            assert store.writes == writes + 2

    run_virtually(main)
