"""Probes, hooks and daemon sets on real nodes: a keeper over SSH, looked at from outside."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from korch.lab.lab import Lab
from korch.master.background import background
from korch.nodes.keeper import Keeper
from korch.nodes.machine import Machine
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Event, Secret
from korch.resources.pod import (
    Container,
    EnvVar,
    ExecAction,
    HostPathVolumeSource,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    Pod,
    PodSpec,
    Probe,
    SleepAction,
    TCPSocketAction,
    Volume,
    VolumeMount,
)
from korch.resources.podstate import is_ready, main_status
from korch.resources.service import EndpointSlice
from korch.resources.workload import ReplicaSet
from tests.lab.conftest import node_host
from tests.lab.korch_cli import make_site
from tests.lab.nodes import machine_of
from tests.unit.objects.memory_store import MemoryStore

pytestmark = pytest.mark.filterwarnings("error")
HEALTH = HTTPGetAction(path="/healthz", port=8080)
PATIENCE_S = 90  # for anything; most of it takes a second


class WallClock:
    def now(self) -> float:
        return time.time()


@dataclass
class Kept:
    """Node n1 with a keeper on a store in memory."""

    lab: Lab
    objects: Objects
    view: View
    machine: Machine
    address: str

    def keeper(self) -> Keeper:
        return Keeper(
            "n1",
            self.machine,
            self.view,
            WallClock(),
            address=self.address,
            epoch=lambda: 1,
            mine=lambda _: True,
            on_contact=lambda *_: None,
        )

    async def pod(self, container: Container, **spec: Any) -> Pod:
        meta = ObjectMeta(name="web-1", namespace="default")
        return await self.objects.create(
            Pod(metadata=meta, spec=PodSpec(containers=(container,), node_name="n1", **spec))
        )

    async def now(self) -> Pod:
        return await self.objects.get(Pod, "web-1")

    async def until(self, condition: Callable[[Pod], bool]) -> Pod:
        """The pod once it is like this."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(pod := await self.now()):  # noqa: ASYNC110 - the store is of another loop's making
                await asyncio.sleep(0.05)
        return pod

    async def until_gone(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.objects.find(Pod, "web-1") is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def messages(self, reason: str) -> list[str]:
        return [event.message for event in (await self.objects.list(Event)).items if event.reason == reason]

    async def outside(self) -> list[dict[str, Any]]:
        """The containers as the node's own engine shows them."""
        engine = self.lab.spec("n1").engine
        script = f'ids=$({engine} ps -aq); [ -z "$ids" ] || {engine} inspect --type container $ids'
        return list(json.loads(await asyncio.to_thread(node_host(self.lab, "n1").check_output, script) or "[]"))

    async def shell(self, script: str) -> str:
        return str(await asyncio.to_thread(node_host(self.lab, "n1").check_output, script))

    async def in_container(self, *words: str) -> None:
        (found,) = await self.outside()
        await self.shell(f"{self.lab.spec('n1').engine} exec {found['Id']} {' '.join(words)}")


def with_node(lab: Lab, body: Callable[[Kept], Awaitable[None]], *, keeping: bool = True) -> None:
    @asynccontextmanager
    async def kept() -> AsyncIterator[Kept]:
        async with machine_of(lab) as machine:
            objects = Objects(MemoryStore(), clock=WallClock())  # type: ignore[arg-type]
            view = View(objects, (Pod, ReplicaSet, EndpointSlice, ConfigMap, Secret))
            async with background() as group:
                await view.start(group)
                node = Kept(lab, objects, view, machine, lab.address("n1"))
                if keeping:
                    keeper = node.keeper()
                    view.listen(lambda change: keeper.wake(change.object))  # type: ignore[arg-type]
                    group.create_task(keeper.run())
                yield node

    async def whole() -> None:
        async with kept() as node:
            await body(node)

    asyncio.run(whole())


def app(lab: Lab, script: str = "", **more: Any) -> Container:
    command = ("/bin/sh", "-c", script) if script else ()
    return Container(name="web", image=lab.image(), command=command, **more)


def restarted(pod: Pod) -> bool:
    status = main_status(pod)
    return status is not None and status.restart_count == 1 and is_ready(pod)


@pytest.mark.parametrize("how", ["exec", "tcp", "http"])
def test_a_container_that_fails_its_liveness_probe_is_started_again(lab: Lab, how: str) -> None:
    """It stops listening, or gets a file that its check does not like; both are mended by a start."""
    checks = {
        "exec": Probe(exec=ExecAction(command=("test", "!", "-e", "/sick"))),
        "tcp": Probe(tcp_socket=TCPSocketAction(port=8080)),
        "http": Probe(http_get=HEALTH),
    }
    listen = f"nc -{'l' * 64} -p 8080 -e /bin/sh -c \"printf 'HTTP/1.1 200 OK\\r\\n\\r\\nfine'\""
    script = f"rm -f /sick; while :; do if [ -e /sick ]; then sleep 0.2; else timeout 1 {listen}; fi; done"
    liveness = Probe(
        **{name: getattr(checks[how], name) for name in ("exec", "tcp_socket", "http_get")},
        period_seconds=1,
        timeout_seconds=2,
        failure_threshold=3,
        termination_grace_period_seconds=1,
    )

    async def body(node: Kept) -> None:
        await node.pod(app(lab, script, liveness_probe=liveness))
        await node.until(is_ready)
        (before,) = await node.outside()
        await node.in_container("touch", "/sick")
        pod = await node.until(restarted)
        (after,) = await node.outside()
        assert before["Id"] == after["Id"]
        assert before["State"]["StartedAt"] != after["State"]["StartedAt"]
        status = main_status(pod)
        assert status is not None
        assert status.last_state.terminated is not None
        assert status.last_state.terminated.exit_code in (137, 143)
        (told,) = await node.messages("Unhealthy")
        assert told.startswith("Liveness probe failed: ")
        assert {"exec": "test ! -e /sick: exit status 1", "tcp": "port 8080", "http": "/healthz"}[how] in told
        await asyncio.sleep(4)
        assert (await node.outside())[0]["State"]["StartedAt"] == after["State"]["StartedAt"]

    with_node(lab, body)


def test_a_startup_probe_holds_the_others_back(lab: Lab) -> None:
    strict = Probe(http_get=HEALTH, period_seconds=1, failure_threshold=1)
    patient = Probe(http_get=HEALTH, period_seconds=1, failure_threshold=60)
    container = app(
        lab,
        env=(EnvVar(name="READY_AFTER_S", value="5"),),
        startup_probe=patient,
        liveness_probe=strict,
        readiness_probe=strict,
    )

    async def body(node: Kept) -> None:
        await node.pod(container)
        pod = await node.until(lambda pod: bool(pod.status.conditions) and "503" in pod.status.conditions[-1].message)
        status = main_status(pod)
        assert status is not None
        assert (status.started, status.ready) == (False, False)
        pod = await node.until(is_ready)
        status = main_status(pod)
        assert status is not None
        assert (status.started, status.restart_count) == (True, 0)
        assert await node.messages("Unhealthy") == []

    with_node(lab, body)


def test_a_cut_network_ends_no_container(lab: Lab) -> None:
    strict = Probe(http_get=HEALTH, period_seconds=1, failure_threshold=1)

    async def body(node: Kept) -> None:
        await node.pod(app(lab, liveness_probe=strict, readiness_probe=strict))
        await node.until(is_ready)
        (before,) = await node.outside()
        await asyncio.to_thread(lab.partition, "n1")
        try:
            await asyncio.sleep(6)
        finally:
            await asyncio.to_thread(lab.heal, "n1")
        await asyncio.sleep(6)
        (after,) = await node.outside()
        assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
        assert await node.messages("Unhealthy") == []
        await node.until(is_ready)

    with_node(lab, body)


# --- hooks ---

NOTES = (Volume(name="notes", host_path=HostPathVolumeSource(path="/tmp/notes", type="DirectoryOrCreate")),)
AT = (VolumeMount(name="notes", mount_path="/notes"),)
TRAP = "trap 'echo term >>/notes/log; exit 0' TERM; while :; do sleep 0.1; done"


def hooked(lab: Lab, **hook: Any) -> Container:
    return app(lab, TRAP, volume_mounts=AT, lifecycle=Lifecycle(pre_stop=LifecycleHandler(**hook)))


def note(*words: str) -> ExecAction:
    return ExecAction(command=("sh", "-c", "; ".join(words)))


async def noted(node: Kept) -> list[str]:
    return (await node.shell("cat /tmp/notes/log 2>/dev/null || true")).split()


def test_a_hook_runs_before_the_signal(lab: Lab) -> None:
    async def body(node: Kept) -> None:
        await node.shell("rm -rf /tmp/notes")
        await node.pod(
            hooked(lab, exec=note("echo hook >>/notes/log", "sleep 1", "echo done >>/notes/log")), volumes=NOTES
        )
        await node.until(is_ready)
        await node.objects.delete(Pod, "web-1")
        await node.until_gone()
        assert await noted(node) == ["hook", "done", "term"]
        assert await node.outside() == []

    with_node(lab, body)


def test_a_hook_that_hangs_holds_nothing_up(lab: Lab) -> None:
    async def body(node: Kept) -> None:
        await node.shell("rm -rf /tmp/notes")
        await node.pod(hooked(lab, exec=note("echo hook >>/notes/log", "sleep 1000")), volumes=NOTES)
        await node.until(is_ready)
        await node.objects.delete(Pod, "web-1", grace_s=2)
        await node.until_gone()
        assert await noted(node) == ["hook", "term"], "it is asked to end all the same"
        assert await node.outside() == []
        (told,) = await node.messages("FailedPreStopHook")
        assert "was not done in time" in told

    with_node(lab, body)


def test_a_hook_over_http_and_one_that_sleeps(lab: Lab) -> None:
    async def body(node: Kept) -> None:
        for hook in ({"http_get": HTTPGetAction(path="/drain", port=8080)}, {"sleep": SleepAction(seconds=1)}):
            lifecycle = Lifecycle(pre_stop=LifecycleHandler(**hook))  # type: ignore[arg-type]
            await node.pod(app(lab, lifecycle=lifecycle, readiness_probe=Probe(http_get=HEALTH, period_seconds=1)))
            await node.until(is_ready)
            await node.objects.delete(Pod, "web-1")
            await node.until_gone()
            assert await node.outside() == []
        (told,) = await node.messages("FailedPreStopHook")
        assert "GET /drain on port 8080 answered 404" in told, "the sample app knows no such page, but it was asked"

    with_node(lab, body)


def test_a_keeper_that_dies_during_a_hook_is_made_up_for(lab: Lab) -> None:
    async def keep(node: Kept, goal: Callable[[], Awaitable[bool]]) -> None:
        """Keep the node until the goal is reached, then be gone."""
        async with background() as group:
            keeper = node.keeper()
            keeper.adopt(await node.machine.containers(), frozenset())
            node.view.listen(lambda change: keeper.wake(change.object))  # type: ignore[arg-type]
            group.create_task(keeper.run())
            async with asyncio.timeout(PATIENCE_S):
                while not await goal():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    async def body(node: Kept) -> None:
        await node.shell("rm -rf /tmp/notes")
        await node.pod(hooked(lab, exec=note("echo hook >>/notes/log", "sleep 4")), volumes=NOTES)

        async def ready() -> bool:
            return is_ready(await node.now())

        async def in_the_hook() -> bool:
            return await noted(node) == ["hook"]

        async def gone() -> bool:
            return await node.objects.find(Pod, "web-1") is None

        await keep(node, ready)
        await node.objects.delete(Pod, "web-1")
        await keep(node, in_the_hook)
        assert len(await node.outside()) == 1
        await keep(node, gone)
        assert await node.outside() == []
        assert (await noted(node))[-1] == "term"

    with_node(lab, body, keeping=False)


# --- daemon sets ---

DAEMONS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: log}}
spec:
  selector: {{matchLabels: {{app: log}}}}
  template:
    metadata: {{labels: {{app: log}}}}
    spec:
      containers:
      - name: log
        image: {image}
        imagePullPolicy: IfNotPresent
        env: [{{name: WORD, value: "{word}"}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
"""


def test_a_daemon_set_from_the_command_line(lab: Lab, tmp_path: Path) -> None:
    site = make_site(lab, tmp_path / "home")
    before = site.foreign()
    file = tmp_path / "log.yml"

    def apply(word: str, *words: str) -> Sequence[Any]:
        file.write_text(DAEMONS.format(image=site.image(), word=word))
        site.korch("apply", "-f", str(file), *words)
        found = site.of("log")
        assert sorted(one.node for one in found) == ["n1", "n2", "n3"]
        assert all(one.running and one.env["WORD"] == word for one in found)
        return found

    first = {one.birth for one in apply("a")}
    site.korch("node", "cordon", "n2")
    assert {one.birth for one in apply("a")} == first, "the same again changes nothing"
    assert first.isdisjoint({one.birth for one in apply("b")})
    site.korch("node", "uncordon", "n2")
    assert "log: 3 of 3 pods are up to date, 3 are available" in site.korch("rollout", "status", "ds/log").out
    row = site.korch("get", "ds").out.splitlines()[1].split()
    assert row[:6] == ["log", "3", "3", "3", "3", "3"]
    assert "n3" in site.korch("why", "ds/log").out
    site.korch.fails("deploy", site.image(), "--name", "log", status=3, says=("there is a DaemonSet of that name",))
    site.korch("delete", "ds", "log")
    assert site.containers() == []
    assert site.traces("log") == []
    assert site.foreign() == before
