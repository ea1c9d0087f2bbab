"""A cluster for the command line to talk to: real objects on SQLite, and nodes whose answers the test writes."""

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from korch.cli.main import cli
from korch.client.base import Check, ClusterInfo, LogOptions, NodeSeen, NodeUsage, Outcome, PlannedStep, Workload
from korch.errors import KorchError, NotFoundError
from korch.objects.objects import Objects
from korch.resources.meta import Condition, LabelSelector, Object, ObjectMeta, OwnerReference
from korch.resources.misc import Namespace
from korch.resources.node import Node, NodeAddress, NodeLoad, NodeSpec, NodeStatus, NodeSystemInfo
from korch.resources.pod import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateRunning,
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
)
from korch.resources.podstate import chosen_container
from korch.resources.times import rfc3339
from korch.resources.workload import Deployment, DeploymentSpec, DeploymentStatus, PodTemplateSpec, ReplicaSet
from korch.settings import Settings
from korch.store.sqlite import open_sqlite

GIB = 2**30


class FakeStream:
    """A remote program that says `output` and ends with `status`; what it is sent is kept in `received`."""

    def __init__(self, output: Sequence[tuple[int, bytes]] = (), status: int = 0, gate: asyncio.Event | None = None):
        self.output, self.status, self.gate = output, status, gate
        self.received = b""
        self.ended = False
        self.sizes: list[tuple[int, int]] = []

    async def chunks(self) -> AsyncIterator[tuple[int, bytes]]:
        for chunk in self.output:
            yield chunk
            await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()

    async def write(self, data: bytes) -> None:
        self.received += data

    async def write_eof(self) -> None:
        self.ended = True

    async def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def wait(self) -> int:
        return self.status


class World:
    """What the test prepares, and what commands did with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.seen: list[NodeSeen] = []
        self.checks: dict[str, tuple[Check, ...] | KorchError] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.jumps: dict[str, str] = {}  # node → the jump host before it
        self.trusted: list[tuple[str, str]] = []
        self.accepted: list[tuple[str, str]] = []
        self.streams: dict[str, Callable[[], FakeStream] | KorchError] = {}
        self.opened: list[tuple[Settings, str, bool]] = []
        self.log_options: list[LogOptions] = []
        self.executed: list[tuple[str, tuple[str, ...], bool, tuple[int, int] | None]] = []
        self.entered: list[str] = []  # containers
        self.info = ClusterInfo("cluster-id", "default", ("/hosts.yml",), "2026-01-01T00:00:00Z")
        self.converged: list[tuple[Workload, ...]] = []
        self.on_converge: Callable[[FakeClient], Coroutine[Any, Any, None]] | None = None
        self.usage: list[NodeUsage] = []
        self.auto_rebalance: bool | None = None
        self.history: dict[str, tuple[dict[str, float], ...]] = {}
        self.closed = 0
        self.looked: list[tuple[str, ...]] = []  # the names of each survey
        self.on_open: Callable[[], Coroutine[Any, Any, None]] | None = None

    @property
    def path(self) -> Path:
        return self.home / "clusters" / "default" / "state.db"

    def put(self, *objects: Object) -> None:
        """Store objects as they are."""

        async def store() -> None:
            async with self.objects() as found:
                homes = {obj.metadata.namespace for obj in objects} - {"", "default"}
                for name in homes:
                    if await found.find(Namespace, name) is None:
                        await found.restore(Namespace(metadata=ObjectMeta(name=name)))
                for obj in objects:
                    await found.restore(obj)

        asyncio.run(store())

    def read(self, type_: type[Any], name: str, namespace: str = "default") -> Any:
        """The stored object, or None."""

        async def find() -> Any:
            async with self.objects() as found:
                return await found.find(type_, name, namespace)

        return asyncio.run(find())

    @asynccontextmanager
    async def objects(self) -> AsyncIterator[Objects]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        store = await open_sqlite(self.path)
        try:
            yield Objects(store)
        finally:
            await store.close()

    async def open_client(self, settings: Settings, *, limit: str = "", need_inventory: bool = True) -> "FakeClient":
        self.opened.append((settings, limit, need_inventory))
        if self.on_open is not None:
            await self.on_open()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FakeClient(self, await open_sqlite(self.path), limit)

    def run(self, *args: str, input: str | None = None, env: dict[str, str] | None = None) -> Result:
        """One call of the program."""
        runner = CliRunner(env={"KORCH_HOME": str(self.home), **(env or {})})
        return runner.invoke(cli, list(args), input=input, prog_name="korch")


class FakeClient:
    """`korch.client.base.Client` on the world."""

    warnings: tuple[str, ...] = ()

    def __init__(self, world: World, store: Any, limit: str = "") -> None:
        self.world, self.store, self.objects = world, store, Objects(store)
        self.within = limit.split(",") if limit else [one.node.metadata.name for one in world.seen]

    async def info(self) -> ClusterInfo:
        return self.world.info

    async def get(self, type_: type[Any], name: str, namespace: str = "default") -> Any:
        return await self.objects.get(type_, name, namespace)

    async def list(self, type_: type[Any], namespace: str = "", *, selector: str | LabelSelector | None = None) -> Any:
        return await self.objects.list(type_, namespace, selector=selector)

    def watch(self, type_: type[Any], namespace: str = "", *, after: int) -> AbstractAsyncContextManager[Any]:
        return self.objects.watch(type_, namespace, after=after)

    async def modify(self, type_: type[Any], name: str, namespace: str, change: Callable[[Any], Any]) -> Any:
        return await self.objects.modify(type_, name, namespace, change)

    async def apply(self, obj: Object) -> Any:
        return await self.objects.apply(obj)

    async def resolve_image(self, image: str, *, auth: bytes | None = None, pull: bool = True, **_: Any) -> str:
        return f"{image}@sha256:{'1' * 64}"

    async def preview(self, objects: Sequence[Object]) -> tuple[PlannedStep, ...]:
        return tuple(PlannedStep("start", obj.metadata.name, "n1", "", "it fits") for obj in objects)

    async def fail_over(self) -> tuple[str, ...]:
        return ("n9: web-1 is replaced elsewhere",)

    async def delete(self, type_: type[Any], name: str, namespace: str = "default") -> None:
        await self.objects.delete(type_, name, namespace)

    async def converge(self, workloads: Sequence[Workload], **_: Any) -> tuple[Outcome, ...]:
        self.world.converged.append(tuple(workloads))
        if self.world.on_converge is not None:
            await self.world.on_converge(self)
        return tuple(Outcome(workload, changed=True) for workload in workloads)

    async def node_names(self) -> tuple[str, ...]:
        return tuple(one.node.metadata.name for one in self.world.seen if one.node.metadata.name in self.within)

    async def survey(self, names: Sequence[str] = (), *, measure_cpu: bool = True) -> tuple[NodeSeen, ...]:
        self.world.looked.append(tuple(names))
        return tuple(one for one in self.world.seen if not names or one.node.metadata.name in names)

    async def set_auto_rebalance(self, on: bool) -> None:
        self.world.auto_rebalance = on

    async def usage(self) -> tuple[NodeUsage, ...]:
        return tuple(self.world.usage)

    async def load_history(self, count: int) -> dict[str, tuple[dict[str, float], ...]]:
        return {name: samples[-count:] for name, samples in self.world.history.items()}

    async def check(self, name: str) -> tuple[Check, ...]:
        found = self.world.checks.get(name, NotFoundError(f'node "{name}" not found'))
        if isinstance(found, KorchError):
            raise found
        return found

    async def forget_node(self, name: str, *, force: bool) -> tuple[str, ...]:
        from korch.master.removal import forget_node

        return await forget_node(self.objects, name, force=force)

    async def fetch_host_key(self, name: str) -> tuple[str, str, str]:
        jump = self.world.jumps.get(name, "")
        whose = jump if jump and self.world.keys[jump] not in self.world.accepted else name
        return whose, *self.world.keys[whose]

    async def trust_host_key(self, name: str, fingerprint: str) -> None:
        self.world.trusted.append((name, fingerprint))
        self.world.accepted.append(("ssh-ed25519", fingerprint))

    @asynccontextmanager
    async def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[FakeStream]:
        self.world.log_options.append(options)
        yield self._stream(pod)

    @asynccontextmanager
    async def exec(
        self, pod: Pod, argv: Sequence[str], *, stdin: bool, pty: tuple[int, int] | None, container: str = ""
    ) -> AsyncIterator[FakeStream]:
        self.world.executed.append((pod.metadata.name, tuple(argv), stdin, pty))
        self.world.entered.append(chosen_container(pod, container))
        yield self._stream(pod)

    def _stream(self, pod: Pod) -> FakeStream:
        found = self.world.streams[pod.metadata.name]
        if isinstance(found, KorchError):
            raise found
        return found()

    async def close(self) -> None:
        self.world.closed += 1
        await self.store.close()


def installed(world: World, monkeypatch: Any) -> Iterator[World]:
    """The world in place of the in-process client."""
    module = types.ModuleType("korch.master.local")
    module.open_client = world.open_client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "korch.master.local", module)
    yield world


# --- things ---


def ago(seconds: float) -> str:
    """A time so long ago."""
    import time

    return rfc3339(time.time() - seconds)


def meta(name: str, *, namespace: str = "default", created_s: float = 690, **fields: Any) -> ObjectMeta:
    fields.setdefault("uid", f"uid-{namespace}-{name}")
    return ObjectMeta(name=name, namespace=namespace, creation_timestamp=ago(created_s), **fields)


def owned_by(kind: str, name: str) -> tuple[OwnerReference, ...]:
    return (OwnerReference(api_version="apps/v1", kind=kind, name=name, uid=f"uid-default-{name}", controller=True),)


def running(name: str = "app", *, restarts: int = 0, ready: bool = True) -> ContainerStatus:
    state = ContainerState(running=ContainerStateRunning(started_at=ago(200)))
    return ContainerStatus(name=name, ready=ready, restart_count=restarts, image="web:1", state=state)


def a_pod(
    name: str,
    *,
    node: str = "n1",
    phase: str = "Running",
    owner: str = "",
    status: PodStatus | None = None,
    spec: PodSpec | None = None,
    **fields: Any,
) -> Pod:
    """A pod that runs well, unless told otherwise."""
    container = Container(name="app", image="web:1", ports=(ContainerPort(container_port=80, host_port=8080),))
    good = PodStatus(
        phase=phase,
        host_ip="10.0.0.1",
        pod_ip="172.17.0.2",
        container_statuses=(running(),) if phase == "Running" else (),
        conditions=(Condition(type="Ready", status="True" if phase == "Running" else "False"),),
    )
    return Pod(
        metadata=meta(name, owner_references=owned_by("ReplicaSet", owner) if owner else (), **fields),
        spec=spec or PodSpec(containers=(container,), node_name=node),
        status=status or good,
    )


def a_deployment(name: str, replicas: int = 3, **fields: Any) -> Deployment:
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels={"app": name}), spec=PodSpec(containers=(Container(name="app", image="web:1"),))
    )
    return Deployment(
        metadata=meta(name, **fields),
        spec=DeploymentSpec(replicas=replicas, selector=LabelSelector(match_labels={"app": name}), template=template),
        status=DeploymentStatus(replicas=2, ready_replicas=2, updated_replicas=1, available_replicas=2),
    )


def a_set(name: str, deployment: str) -> ReplicaSet:
    return ReplicaSet(metadata=meta(name, owner_references=owned_by("Deployment", deployment)))


def a_workload(name: str, pods: int) -> list[Object]:
    """A deployment, its replica set and its pods NAME-bcdfg-1..."""
    return [
        a_deployment(name, pods),
        a_set(f"{name}-bcdfg", name),
        *(a_pod(f"{name}-bcdfg-{n}", owner=f"{name}-bcdfg", node=f"n{n}") for n in range(1, pods + 1)),
    ]


def a_node(name: str, *, state: str = "Ready", message: str = "", cordoned: bool = False, **fields: Any) -> Node:
    ready = Condition(
        type="Ready",
        status="True" if state == "Ready" else "False",
        reason=state,
        message=message,
        last_transition_time=ago(3700),
    )
    return Node(
        metadata=ObjectMeta(name=name, uid=f"uid-{name}", creation_timestamp=ago(7200), **fields),
        spec=NodeSpec(unschedulable=cordoned),
        status=NodeStatus(
            capacity={"cpu": "2", "memory": "2Gi"},
            allocatable={"cpu": "2", "memory": "2Gi"},
            conditions=(ready,),
            addresses=(NodeAddress(type="InternalIP", address="10.0.0.1"),),
            node_info=NodeSystemInfo(
                kernel_version="6.1.0",
                os_image="Debian GNU/Linux 12",
                architecture="amd64",
                container_runtime_version="docker://20.10.24",
                kubelet_version="korch-0.1.0",
            ),
        ),
    )


def a_load(name: str = "", **fields: Any) -> NodeLoad:
    values: dict[str, Any] = {
        "sampled_at": ago(5),
        "load1": 0.5,
        "cpu_count": 2,
        "cpu_busy": 0.25,
        "memory_total_bytes": 2 * GIB,
        "memory_available_bytes": GIB,
        "disk_total_bytes": 40 * GIB,
        "disk_free_bytes": 30 * GIB,
    }
    return NodeLoad(metadata=ObjectMeta(name=name), **{**values, **fields})
