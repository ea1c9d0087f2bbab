"""Small objects, a clock that stands still, and a runner for the tests of this folder."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from korch.objects.objects import Objects
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.workload import Deployment, DeploymentSpec, PodTemplateSpec
from tests.unit.objects.memory_store import MemoryStore

START = 1_700_000_000.0


class FakeClock:
    def __init__(self) -> None:
        self.time_s = START

    def now(self) -> float:
        return self.time_s


class World:
    """Objects over a store in memory; `fence` may be set at any time."""

    def __init__(self, **options: Any) -> None:
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.fence = None
        self.objects = Objects(self.store, clock=self.clock, fence=lambda: self.fence, **options)


def run(test: Callable[[World], Awaitable[None]], **options: Any) -> None:
    """Run one test in a fresh world; a test that hangs fails."""

    async def main() -> None:
        async with asyncio.timeout(30):
            await test(World(**options))

    asyncio.run(main())


def pod_spec(image: str = "web:1", **fields: Any) -> PodSpec:
    return PodSpec(containers=(Container(name="web", image=image, **fields),))


def pod(name: str = "web-1", namespace: str = "", **meta: Any) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, **meta), spec=pod_spec())


def deployment(name: str = "web", image: str = "web:1", replicas: int | None = 2, **meta: Any) -> Deployment:
    template = PodTemplateSpec(metadata=ObjectMeta(labels={"app": name}), spec=pod_spec(image))
    return Deployment(metadata=ObjectMeta(name=name, **meta), spec=DeploymentSpec(replicas=replicas, template=template))


def with_replicas(obj: Deployment, replicas: int | None) -> Deployment:
    return replace(obj, spec=replace(obj.spec, replicas=replicas))


def with_image(obj: Deployment, image: str) -> Deployment:
    template = replace(obj.spec.template, spec=pod_spec(image))
    return replace(obj, spec=replace(obj.spec, template=template))
