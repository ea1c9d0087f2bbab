"""Declaring: exact images first, nothing written before all is known to be right, failed revisions tried again."""

import asyncio
import base64
from typing import Any

import pytest
from msgspec.structs import replace

from korch.client.base import Workload
from korch.client.declare import Declared, check_ports, declare, in_inventory, pin_images, title
from korch.errors import CommandTimeoutError, InvalidError
from korch.objects.objects import Objects
from korch.resources.annotations import FAILED_REVISION
from korch.resources.codec import with_meta
from korch.resources.images import PINNED
from korch.resources.meta import Condition, Object, ObjectMeta
from korch.resources.misc import Secret
from korch.resources.node import Node
from korch.resources.pod import Container, ContainerPort, LocalObjectReference, Pod, PodSpec
from korch.resources.podstate import with_condition
from korch.resources.workload import Deployment
from tests.unit.controllers.cluster import deployment
from tests.unit.nodes.virtual_loop import run_virtually
from tests.unit.objects.memory_store import MemoryStore


class FakeClient(Objects):
    """Objects in memory; images are what the test says."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())  # type: ignore[arg-type]
        self.asked: list[tuple[str, bytes | None]] = []
        self.held_only: list[str] = []  # images that no registry may be asked for

    async def node_names(self) -> tuple[str, ...]:
        return tuple(node.metadata.name for node in (await self.list(Node)).items if in_inventory(node))

    async def resolve_image(self, image: str, *, auth: bytes | None = None, pull: bool = True, **_: Any) -> str:
        self.asked.append((image, auth))
        self.held_only += [] if pull else [image]
        return f"{image.partition(':')[0]}@sha256:{len(self.asked)}"


def app(name: str = "web", image: str = "web:1", *, replicas: int = 3, port: int = 0, pull: str = "") -> Deployment:
    found = deployment(image, replicas)
    ports = (ContainerPort(container_port=80, host_port=port),) if port else ()
    spec = PodSpec(
        containers=(Container(name="c", image=image, ports=ports),),
        image_pull_secrets=(LocalObjectReference(name=pull),) if pull else (),
    )
    template = replace(found.spec.template, spec=spec)
    meta = ObjectMeta(name=name, namespace="default", annotations=found.metadata.annotations)
    return replace(found, metadata=meta, spec=replace(found.spec, template=template))


def pinned(client: FakeClient, *objects: Object) -> tuple[Any, ...]:
    return asyncio.run(pin_images(client, objects))  # type: ignore[arg-type]


def test_an_image_that_is_never_to_be_pulled_is_looked_for_on_the_nodes() -> None:
    client = FakeClient()
    container = Container(name="c", image="web:1", image_pull_policy="Never")
    never = Pod(metadata=ObjectMeta(name="one"), spec=PodSpec(containers=(container,)))
    pinned(client, app("a"), never)
    assert (len(client.asked), client.held_only) == (2, ["web:1"])


def test_each_image_is_asked_for_once_and_put_on_record() -> None:
    client = FakeClient()
    pod = Pod(metadata=ObjectMeta(name="one"), spec=PodSpec(containers=(Container(name="c", image="web:1"),)))
    first, second, single, secret = pinned(client, app("a"), app("b"), pod, Secret(metadata=ObjectMeta(name="s")))
    assert client.asked == [("web:1", None)]
    for template in (first.spec.template, second.spec.template, single):
        assert template.metadata.annotations[PINNED] == "web@sha256:1"
    assert first.spec.template.spec.containers[0].image == "web:1", "the tag stays as it was written"
    assert secret.metadata.name == "s"


def test_each_container_of_a_pod_has_its_own_image_on_record() -> None:
    client = FakeClient()
    spec = PodSpec(
        containers=(Container(name="web", image="web:1"), Container(name="log", image="log:1")),
        init_containers=(Container(name="first", image="web:1"),),
    )
    (found,) = pinned(client, Pod(metadata=ObjectMeta(name="one"), spec=spec))
    assert found.metadata.annotations[PINNED] == "first=web@sha256:1,web=web@sha256:1,log=log@sha256:2"


def test_a_registry_is_asked_with_the_credentials_of_the_very_wish() -> None:
    client, config = FakeClient(), b'{"auths": {}}'
    data = {".dockerconfigjson": base64.b64encode(config).decode()}
    fresh = Secret(metadata=ObjectMeta(name="new", namespace="default"), data=data)
    plain = Secret(metadata=ObjectMeta(name="plain", namespace="default"), string_data={".dockerconfigjson": "{}"})
    pinned(client, fresh, plain, app("a", pull="new"), app("b", pull="plain"), app("c", pull="missing"), app("d"))
    assert client.asked == [("web:1", config), ("web:1", b"{}"), ("web:1", None), ("web:1", None)]


@pytest.mark.parametrize(
    ("replicas", "port", "refused"),
    [(2, 8080, False), (3, 8080, True), (9, 0, False), (0, 8080, False)],
    ids=["fits", "one too many", "a free port each", "none wanted"],
)
def test_more_replicas_than_nodes_cannot_share_a_port(replicas: int, port: int, refused: bool) -> None:
    async def main() -> None:
        client = FakeClient()
        for name, reason in (("n1", "Ready"), ("n2", "Unreachable"), ("n3", "NotInInventory")):
            await client.create(Node(metadata=ObjectMeta(name=name)))
            state = with_condition((), Condition(type="Ready", status="True", reason=reason), "2026-01-01T00:00:00Z")
            await client.modify(
                Node, name, "", lambda node, state=state: replace(node, status=replace(node.status, conditions=state)),
                status=True,
            )  # fmt: skip
        await check_ports(client, [app(replicas=replicas, port=port)])  # type: ignore[arg-type]

    if refused:
        with pytest.raises(InvalidError, match="2 node"):
            asyncio.run(main())
    else:
        asyncio.run(main())


def test_declaring_twice_changes_nothing_and_a_failed_revision_is_tried_again() -> None:
    async def main() -> None:
        client: Any = FakeClient()
        (first,) = await declare(client, [app()])
        assert (first.what, first.since, first.workload) == ("created", 1, Workload("default", "web"))
        (again,) = await declare(client, [app()])
        assert (again.what, again.since) == ("unchanged", 1)
        await client.modify(
            Deployment,
            "web",
            "default",
            lambda found: with_meta(found, annotations={**found.metadata.annotations, FAILED_REVISION: "x"}),
        )
        (tried,) = await declare(client, [app()])
        assert tried.what == "configured"
        assert FAILED_REVISION not in tried.obj.metadata.annotations

    asyncio.run(main())


def test_what_is_waited_for() -> None:
    assert title(app()) == "deployment/web"
    assert Declared(Secret(metadata=ObjectMeta(name="s")), "created").workload is None


def test_pulls_that_take_too_long_end_with_a_sentence_and_tell_whom_they_wait_for() -> None:
    said: list[str] = []

    class Slow(FakeClient):
        async def resolve_image(self, image: str, **more: Any) -> str:
            for name in ("n1", "n2"):
                more["on_asking"](name)
                await asyncio.sleep(10)
            raise AssertionError("nobody stopped it")

    async def body() -> None:
        with pytest.raises(CommandTimeoutError, match="within 15 s; nothing was declared"):
            await pin_images(Slow(), [app()], timeout_s=15, say=said.append)  # type: ignore[arg-type]

    run_virtually(body)
    assert said == [f"asking {name} for image web:1: pulling ..." for name in ("n1", "n2")]
