"""The API of a master in a process of its own, over a state that is filled first: what `benchmarks.api` measures.

`python -m benchmarks.apiserver FOLDER PODS` prints the path of a kubeconfig once it serves, and goes when its input
ends. It is what a master serves that does not lead: the same door, port, TLS and audit log, and no controllers beside.
"""

import asyncio
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

from korch.api.security.kubeconfig import write
from korch.api.security.minting import Wish, mint
from korch.api.server import where
from korch.cli.api import api_served
from korch.master.cluster import Cluster, open_cluster
from korch.resources.defaults import with_defaults
from korch.resources.meta import Condition, ObjectMeta, OwnerReference
from korch.resources.pod import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateRunning,
    ContainerStatus,
    EnvVar,
    Pod,
    PodSpec,
    PodStatus,
    ResourceRequirements,
)
from korch.settings import Settings

BORN = "2026-01-02T03:04:05Z"
A_NODE, AN_APP = 100, 10  # pods
_TOGETHER = 2000


def pods(count: int) -> Iterator[Pod]:
    """Running pods as a cluster has them, ten to an app."""
    for number in range(count):
        yield a_pod(f"app-{number // AN_APP:05d}", number)


def a_pod(app: str, number: int) -> Pod:
    """One of them."""
    labels = {"app": app, "pod-template-hash": "6b7f8c9d5", "tier": ("front", "back")[number % 2]}
    owner = OwnerReference(api_version="apps/v1", kind="ReplicaSet", name=f"{app}-6b7f8c9d5", uid=app, controller=True)
    conditions = tuple(
        Condition(type=name, status="True", last_transition_time=BORN)
        for name in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    )
    node = f"node-{number // A_NODE:04d}"
    container = Container(
        name="main",
        image=f"registry.example.com/team/{app}:1.4.{number % 20}",
        ports=(ContainerPort(container_port=8080),),
        env=(EnvVar(name="MODE", value="production"), EnvVar(name="WORKERS", value="4")),
        resources=ResourceRequirements(
            requests={"cpu": "100m", "memory": "128Mi"}, limits={"cpu": "500m", "memory": "256Mi"}
        ),
    )
    state = ContainerState(running=ContainerStateRunning(started_at=BORN))
    status = ContainerStatus(
        name="main",
        ready=True,
        image=container.image,
        image_id=f"docker.io/{app}@sha256:{number:064x}",
        container_id=f"docker://{number:064x}",
        state=state,
    )
    return Pod(
        metadata=ObjectMeta(
            name=f"{app}-6b7f8c9d5-{number:06d}",
            namespace="default",
            uid=f"00000000-0000-4000-8000-{number:012d}",
            labels=labels,
            creation_timestamp=BORN,
            owner_references=(owner,),
            annotations={"korch.dev/image": status.image_id},
        ),
        spec=PodSpec(containers=(container,), node_name=node, termination_grace_period_seconds=30),
        status=PodStatus(
            phase="Running",
            host_ip="10.0.0.1",
            pod_ip=f"172.17.{number // 250 % 250}.{number % 250 + 2}",
            start_time=BORN,
            conditions=conditions,
            container_statuses=(status,),
        ),
    )


async def _fill(cluster: Cluster, count: int) -> None:
    waiting: list[Pod] = []
    for pod in pods(count):
        waiting.append(with_defaults(pod))
        if len(waiting) == _TOGETHER:
            await cluster.objects.restore_together(waiting)
            waiting = []
    await cluster.objects.restore_together(waiting)


async def serve(folder: Path, count: int) -> None:
    """Fill the state and serve it until the input ends."""
    settings = Settings(folder, "bench", ("127.0.0.1,",))
    async with open_cluster(settings, need_inventory=False) as cluster:
        await _fill(cluster, count)
        async with api_served(cluster, "127.0.0.1", 0, ()):
            url, now, pki = await where(cluster.store), cluster.clock.now(), settings.cluster_dir / "pki"
            wish = Wish("bench", "admin", "", 86_400.0)
            access, _ = await mint(cluster.store, pki, "bench", wish, now=now, server=url)
            write(folder / "kubeconfig", access)
            print(folder / "kubeconfig", flush=True)
            await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """As the command line says."""
    gc.set_threshold(50_000, 20, 20)  # as `korch` does at its start
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
