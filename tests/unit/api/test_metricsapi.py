"""metrics.k8s.io: what `kubectl top` shows."""

from pathlib import Path

from korch.api.services import Services
from korch.client.base import ContainerUsage, NodeUsage
from korch.resources.meta import ObjectMeta
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.times import rfc3339
from tests.unit.api.serving import PODS, World, pod, run

METRICS = "/apis/metrics.k8s.io/v1beta1"
GIB = 2**30


def test_nodes_come_from_their_newest_samples(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        for name, age_s in (("fresh", 5), ("old", 1000)):
            await world.objects.create(Node(metadata=ObjectMeta(name=name)))
            load = NodeLoad(
                metadata=ObjectMeta(name=name),
                sampled_at=rfc3339(world.clock.now() - age_s),
                cpu_busy=0.25,
                cpu_count=4,
                memory_total_bytes=8 * GIB,
                memory_available_bytes=6 * GIB,
            )
            await world.objects.create(load)
        found = await world.get(f"{METRICS}/nodes")
        assert [item["metadata"]["name"] for item in found["items"]] == ["fresh"]
        assert found["items"][0]["usage"] == {"cpu": "1000m", "memory": f"{2 * GIB // 1024}Ki"}
        one = await world.get(f"{METRICS}/nodes/fresh")
        assert (one["kind"], one["usage"]["cpu"]) == ("NodeMetrics", "1000m")
        assert (await world.http.get(f"{METRICS}/nodes/none")).status_code == 404

    run(tmp_path, check)


def test_pods_are_measured_once_for_all_who_ask(tmp_path: Path) -> None:
    asked: list[int] = []
    uids: list[str] = []

    async def usage() -> tuple[NodeUsage, ...]:
        asked.append(1)
        return (NodeUsage("n1", (ContainerUsage(uids[0], "c", 250, 64 * 2**20), ContainerUsage("gone", "c", 1, 1))),)

    async def check(world: World) -> None:
        body = pod()
        body["metadata"]["labels"] = {"app": "web"}
        await world.make(PODS, body)
        uids.append((await world.objects.get(Pod, "web-1")).metadata.uid)
        path = f"{METRICS}/namespaces/default/pods"
        found = await world.get(path)
        assert found["items"][0]["containers"] == [{"name": "c", "usage": {"cpu": "250m", "memory": "65536Ki"}}]
        assert (await world.get(path, labelSelector="app=db"))["items"] == []
        assert (await world.get(f"{path}/web-1"))["kind"] == "PodMetrics"
        assert len(asked) == 1
        world.clock.time_s += 60
        await world.get(path)
        assert len(asked) == 2

    run(tmp_path, check, Services(usage=usage))


def test_without_a_master_nothing_is_measured(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        assert (await world.http.get(f"{METRICS}/pods")).status_code == 503

    run(tmp_path, check)
