"""Sessions on real nodes: what they tell, and that nothing of them stays, seen from outside the node."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from korch.engines.events import EngineEvent
from korch.errors import EngineMissingError, HostUnreachableError
from korch.lab.lab import Lab
from korch.nodes.machine import Machine
from korch.nodes.news import EngineWatch, News, Pulse, Sample
from korch.nodes.session import Session
from tests.lab.conftest import node_host, ssh, wiped
from tests.lab.nodes import machine_of, wish

# A master of nothing but one session: tells when it hears the node, lives until it is killed.
MASTER = """
import asyncio, sys
from pathlib import Path
from korch.lab.lab import Lab
from tests.lab.nodes import machine_of

async def main(name, home, node, user):
    async with machine_of(Lab(name, Path(home)), node, user=user) as machine, machine.session() as session:
        async for news in session:
            print(type(news).__name__, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class Site:
    """A node as a user sees it."""

    lab: Lab
    node: str
    user: str = "root"

    @property
    def machine(self) -> AbstractAsyncContextManager[Machine]:
        return machine_of(self.lab, self.node, user=self.user)

    @property
    def engine(self) -> str:
        return self.lab.spec(self.node).engine

    def processes(self) -> Counter[str]:
        """Everything that runs in the node's process tree, but for sshd and what containers run."""
        inside = os.readlink(f"/proc/{self.lab.pid(self.node)}/ns/pid")
        found: Counter[str] = Counter()
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and os.readlink(folder / "ns/pid") == inside:
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                    found[words] += bool(words) and "sshd" not in words
        return +found

    def left(self, before: Counter[str]) -> Counter[str]:
        """What runs now and did not before."""
        return self.processes() - before

    def master(self) -> "subprocess.Popen[str]":
        """Another process with a session to it, from which news come."""
        words = (sys.executable, "-c", MASTER, self.lab.name, str(self.lab.ssh_key.parents[2]), self.node, self.user)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        seen = {process.stdout.readline().strip() for _ in range(3)}
        assert {"Sample", "EngineWatch"} <= seen
        return process


def gone(sites: dict[Site, Counter[str]], within_s: float) -> None:
    """Wait until nothing is left on any site."""
    deadline = time.monotonic() + within_s
    while left := {site.node: more for site, before in sites.items() if (more := site.left(before))}:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.fixture(params=["docker", "podman", "busybox-docker", "busybox-podman", "sudo"])
def site(request: pytest.FixtureRequest) -> Site:
    return make_site(request.param, request.getfixturevalue)


def make_site(kind: str, fixture: Callable[[str], Lab]) -> Site:
    if kind.startswith("busybox"):
        return Site(wiped(fixture("bare_lab")), "d1" if kind.endswith("docker") else "p1")
    return Site(wiped(fixture("mixed_lab")), "p1" if kind == "podman" else "d1", "lab" if kind == "sudo" else "root")


async def take(session: Session, kind: type[News], within_s: float = 20) -> News:
    """The next news of that kind."""
    async with asyncio.timeout(within_s):
        async for news in session:
            if isinstance(news, kind):
                return news
    raise AssertionError("the session ended")


def test_a_session_tells_load_and_events_and_leaves_nothing(site: Site) -> None:
    before = site.processes()

    async def work() -> None:
        async with site.machine as machine:
            await machine.pull(site.lab.image())
            async with machine.session() as session:
                sample = await take(session, Sample)
                assert isinstance(sample, Sample)
                assert sample.facts.memory_total_bytes == site.lab.spec(site.node).memory_limit
                assert await take(session, Pulse) == Pulse()
                asked = wish(site.lab)
                await machine.start(asked, epoch=1)
                started = await take(session, EngineEvent)
                await asyncio.to_thread(ssh, site.lab, site.node, f"{site.engine} kill {asked.name}")
                died = await take(session, EngineEvent)
                assert isinstance(started, EngineEvent)
                assert isinstance(died, EngineEvent)
                assert (started.action, started.name, started.identity) == ("start", asked.name, asked.identity)
                assert (died.action, died.uid, died.exit_code) == ("die", asked.identity.uid, 137)
                seen = await machine.container(died.name)
                assert seen is not None
                assert (seen.state, seen.exit_code) == ("exited", 137)
                await machine.remove(asked.identity, grace_s=0, epoch=1)
                removed = await take(session, EngineEvent)
                assert isinstance(removed, EngineEvent)
                assert removed.action == "remove"
                assert await machine.container(died.name) is None
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert names.isdisjoint({f"session of {site.node}", f"heartbeat of {site.node}"})

    asyncio.run(work())
    gone({site: before}, 3)


def test_containers_of_other_clusters_and_checks_make_no_events(site: Site) -> None:
    async def work() -> None:
        async with site.machine as machine:
            await machine.pull(site.lab.image())
            asked = wish(site.lab)
            await machine.start(asked, epoch=1)
            other = f"{site.engine} run -d --name theirs --label korch.dev/cluster=another {site.lab.image()}"
            async with machine.session() as session:
                await take(session, EngineWatch)
                await asyncio.to_thread(ssh, site.lab, site.node, f"{other}; {site.engine} rm -f theirs")
                assert (await machine.exec_probe(asked.name, ("true",), 10)).status == 0
                await machine.stop(asked.identity, grace_s=0, epoch=1)
                event = await take(session, EngineEvent)
                assert isinstance(event, EngineEvent)
                # Podman's command may tell that it stopped the container before its helper tells that this ended.
                assert event.action in {"die", "stop"}
                assert event.name == asked.name
            await machine.remove(asked.identity, grace_s=0, epoch=1)

    asyncio.run(work())


def test_nothing_stays_when_the_master_is_killed(site: Site) -> None:
    before = site.processes()
    master = site.master()
    assert site.left(before)
    master.kill()
    master.communicate()
    gone({site: before}, 5)


@pytest.fixture
def sites(mixed_lab: Lab, bare_lab: Lab) -> Iterator[list[Site]]:
    """One of each kind; the network is whole again afterwards."""
    labs = {"mixed_lab": mixed_lab, "bare_lab": bare_lab}
    made = [make_site(kind, labs.__getitem__) for kind in ("docker", "podman", "busybox-docker", "busybox-podman")]
    made.append(Site(mixed_lab, "d2", "lab"))
    yield made
    for site in made:
        site.lab.heal(site.node)


def test_nothing_stays_when_the_network_is_cut(sites: list[Site]) -> None:
    before = {site: site.processes() for site in sites}

    async def cut_off(site: Site) -> None:
        async with site.machine as machine, machine.session() as session:
            await take(session, EngineWatch)
            site.lab.partition(site.node)
            with pytest.raises(HostUnreachableError, match=site.node):
                await take(session, EngineEvent, 60)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for site in sites:
                group.create_task(cut_off(site))

    asyncio.run(all_of_them())
    gone(before, 40)


def test_nothing_stays_when_the_master_is_frozen(sites: list[Site]) -> None:
    before = {site: site.processes() for site in sites}
    masters = [site.master() for site in sites]
    try:
        for master in masters:
            master.send_signal(signal.SIGSTOP)
        gone(before, 45)
    finally:
        for master in masters:
            master.kill()
            master.communicate()


@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
def test_a_restart_of_the_engine_is_survived(clean_docker_lab: Lab, hard: bool) -> None:
    lab = clean_docker_lab

    async def work() -> None:
        async with machine_of(lab) as machine:
            await machine.pull(lab.image())
            async with machine.session() as session:
                assert await take(session, EngineWatch) == EngineWatch(True)
                lab.stop_engine("n1", hard=hard)
                assert await take(session, EngineWatch) == EngineWatch(False)
                assert await take(session, Sample)
                await asyncio.to_thread(lab.start_engine, "n1")
                assert await take(session, EngineWatch, 40) == EngineWatch(True)
                await machine.start(wish(lab), epoch=1)
                event = await take(session, EngineEvent)
                assert isinstance(event, EngineEvent)
                assert event.action == "start"
            await machine.remove(wish(lab).identity, grace_s=0, epoch=1)

    try:
        asyncio.run(work())
    finally:
        lab.start_engine("n1")


def test_a_node_without_an_engine_has_sessions_without_events(clean_docker_lab: Lab) -> None:
    host = node_host(clean_docker_lab, "n3")
    host.check_output("mv /usr/bin/docker /usr/bin/docker.away")

    async def work() -> None:
        async with machine_of(clean_docker_lab, "n3") as machine:
            with pytest.raises(EngineMissingError):
                async with machine.session():
                    pass
            async with machine.session(every_s=1, events=False) as session:
                kinds = [type(await anext(session)) for _ in range(6)]
                assert kinds == [Sample, *[Pulse] * 4, Sample]

    try:
        asyncio.run(work())
    finally:
        host.check_output("mv /usr/bin/docker.away /usr/bin/docker")
