"""States of a node, rights, belonging: `Machine` against real hosts with something wrong with them."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from korch.engines.wish import ContainerWish, PublishedPort
from korch.errors import ClaimedByOtherError, EngineDownError, FencedError, KorchError, NoPermissionError
from korch.lab.lab import Lab
from korch.nodes.errors import EngineCallError
from korch.nodes.machine import ClusterIdentity, Machine
from korch.nodes.report import choose_address
from tests.lab.conftest import node_host, wiped
from tests.lab.nodes import lab_host, machine_of, wish

OTHER = ClusterIdentity("9c9c9c9c-other", "work", "desk.example")
SUDOERS = "/etc/sudoers.d/lab"
SHIMS = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -E '^/[^ ]*/containerd-shim[^ ]*$'"


def run(lab: Lab, work: Callable[[Machine], Awaitable[None]], *, node: str = "n1", user: str = "root") -> None:
    async def whole() -> None:
        async with machine_of(lab, node, user=user) as machine:
            await work(machine)

    asyncio.run(whole())


def test_a_report_of_a_real_node(lab: Lab) -> None:
    async def work(machine: Machine) -> None:
        report = await machine.report(measure_cpu=True, doctor=True)
        assert report.state == "Ready"
        assert report.engine.name == lab.spec("n1").engine
        assert report.engine.version
        assert report.facts.hostname == "n1"
        assert report.facts.memory_total_bytes == lab.spec("n1").memory_limit
        assert report.cpu_busy is not None
        assert 0 <= report.cpu_busy <= 1
        assert 0 < report.disk_free_bytes <= report.disk_total_bytes <= lab.spec("n1").disk_mb << 20
        assert 22 in report.listening_tcp
        assert lab.address("n1") in {ip.address for ip in report.addresses if ip.interface == "eth0"}
        assert choose_address(report, lab_host(lab, "n1")) == lab.address("n1")
        assert abs(report.clock_offset_s or 9) < 2
        assert (report.claim, report.machine_token, report.uid) == (None, "", 0)
        assert not node_host(lab, "n1").file("/var/lib/korch/claims").exists

    run(lab, work)


def test_a_user_without_rights_on_the_engine_works_through_sudo(lab: Lab) -> None:
    async def work(machine: Machine) -> None:
        report = await machine.report()
        assert (report.state, report.user, report.sudo, machine.become) == ("Ready", "lab", True, True)
        asked = wish(lab)
        await machine.pull(asked.image)
        found = await machine.start(asked, epoch=1)
        assert found.state == "running"
        command = await machine.logs_command(found.name)
        async with machine.transport.stream(command, become=machine.become) as stream:
            await stream.write_eof()
            async for _ in stream.chunks():
                pass
            assert await stream.wait() == 0
        await machine.remove(asked.identity, grace_s=1, epoch=1)
        assert node_host(lab, "n1").file("/var/lib/korch/claims").is_directory
        assert not node_host(lab, "n1").file("/home/lab/.local/state/korch").exists

    run(lab, work, user="lab")


def test_a_user_without_sudo_is_told_what_to_do(lab: Lab) -> None:
    rule = lab.path_in("n1", SUDOERS)
    kept = rule.read_bytes()
    rule.unlink()

    async def work(machine: Machine) -> None:
        report = await machine.report()
        assert (report.state, report.sudo) == ("NoPermission", False)
        assert report.message.startswith("n1: ")
        assert "sudo" in report.hint
        with pytest.raises(NoPermissionError):
            await machine.claim()

    try:
        run(lab, work, user="lab")
        assert not node_host(lab, "n1").file("/var/lib/korch/claims").exists
    finally:
        lab.write_file("n1", SUDOERS, kept.decode(), 0o440)


def test_an_engine_that_stopped(clean_docker_lab: Lab) -> None:
    async def work(machine: Machine) -> None:
        assert (await machine.report()).state == "Ready"
        clean_docker_lab.stop_engine("n1")
        report = await machine.report()
        assert (report.state, report.engine.name) == ("EngineDown", "docker")
        assert "systemctl start docker" in report.hint
        assert report.facts.memory_total_bytes > 0
        with pytest.raises(EngineDownError, match="n1"):
            await machine.containers()

    try:
        run(clean_docker_lab, work)
    finally:
        clean_docker_lab.start_engine("n1")


def test_an_engine_that_stops_between_two_calls(clean_docker_lab: Lab) -> None:
    async def work(machine: Machine) -> None:
        await machine.pull(clean_docker_lab.image())
        clean_docker_lab.stop_engine("n1")
        with pytest.raises(EngineDownError):
            await machine.start(wish(clean_docker_lab), epoch=1)

    try:
        run(clean_docker_lab, work)
    finally:
        clean_docker_lab.start_engine("n1")


def test_the_first_cluster_keeps_the_machine(clean_docker_lab: Lab) -> None:
    lab = clean_docker_lab

    async def work(machine: Machine) -> None:
        token = await machine.claim()
        async with machine_of(lab, cluster=OTHER) as stranger:
            assert (await stranger.report()).state == "ClaimedByOther"
            with pytest.raises(ClaimedByOtherError, match=r'n1 belongs to the korch cluster "lab".*master\.lab'):
                await stranger.claim()
        async with machine_of(lab, cluster=OTHER, shared=True) as guest:
            assert await guest.claim() == token
            await guest.set_epoch(50)
        report = await machine.report()
        assert (report.state, report.epoch) == ("Ready", 0)
        assert [claim.master_host for claim in report.foreign_claims] == ["desk.example"]

    run(lab, work)


def test_every_machine_has_its_own_token(clean_docker_lab: Lab) -> None:
    lab = clean_docker_lab

    async def token(node: str, user: str) -> str:
        async with machine_of(lab, node, user=user) as machine:
            return await machine.claim()

    async def tokens() -> list[str]:
        return [await token("n1", "root"), await token("n1", "lab"), await token("n2", "root")]

    one, same, other = asyncio.run(tokens())
    assert one == same != other


def test_a_full_disk_stops_starts_and_not_removals(lab: Lab) -> None:
    async def work(machine: Machine) -> None:
        await machine.pull(lab.image())
        first = wish(lab)
        await machine.start(first, epoch=1)
        lab.exec_in("n1", ("sh", "-c", '"$1" rmi -f "$2" || :', "sh", str(machine.engine), lab.image("2")))
        lab.fill_disk("n1")
        assert (await machine.report()).state == "DiskPressure"
        with pytest.raises((EngineCallError, NoPermissionError)) as caught:
            await machine.pull(lab.image("2"))
        assert getattr(caught.value, "pod_reason", "") == "DiskPressure"
        await machine.remove(first.identity, grace_s=0, epoch=1)
        assert await machine.containers() == ()

    try:
        run(lab, work)
    finally:
        lab.free_disk("n1")


def test_a_slow_and_talkative_login_shell(lab: Lab) -> None:
    profile = "for i in 1 2 3 4 5 6 7 8 9 10; do echo '@korch begin'; echo '@korch refuse fenced 99'; done\nsleep 0.2\n"
    files = ("/root/.profile", "/root/.bashrc", "/root/.bash_profile")
    for path in files:
        lab.write_file("n1", path, profile)

    async def work(machine: Machine) -> None:
        assert (await machine.report()).state == "Ready"
        assert await machine.set_epoch(3) == 3
        with pytest.raises(FencedError, match="epoch 3"):
            await machine.set_epoch(2)

    try:
        run(lab, work)
    finally:
        for path in files:
            lab.path_in("n1", path).unlink()


def test_other_containers_are_neither_shown_nor_touched(lab: Lab) -> None:
    engine = lab.spec("n1").engine
    host = node_host(lab, "n1")
    port = PublishedPort(8080, 0, "tcp", lab.address("n1"))

    async def work(machine: Machine) -> None:
        await machine.pull(lab.image())
        host.check_output(f"{engine} run -d --name theirs --label korch.dev/cluster=another {lab.image()}")
        await machine.start(wish(lab, ports=(port,)), epoch=1)
        report = await machine.report()
        assert [found.identity.pod for found in report.containers if found.identity] == ["web-1"]
        await machine.remove(wish(lab).identity, grace_s=0, epoch=1)
        await machine.prune([], epoch=1)
        await machine.unclaim(epoch=1)
        assert host.check_output(engine + " ps --format '{{.Names}}'").split() == ["theirs"]
        assert not host.file("/var/lib/korch/claims").exists

    run(lab, work)


def test_a_node_without_an_engine(make_lab: Callable[..., Lab]) -> None:
    from korch.lab.spec import node_specs

    bare = make_lab("none", node_specs(nodes=0, sshd_only=1))

    async def work(machine: Machine) -> None:
        report = await machine.report()
        assert (report.state, report.facts.hostname) == ("EngineMissing", "s1")
        assert "korch node prepare" in report.hint

    run(bare, work, node="s1")


def test_a_wiped_lab_is_what_tests_start_from(docker_lab: Lab) -> None:
    async def work(machine: Machine) -> None:
        report = await machine.report()
        assert (report.claim, report.containers) == (None, ())

    run(wiped(docker_lab), work)


@pytest.mark.parametrize(("node", "ran_before"), [("n1", False), ("n3", True)])  # n3 has nothing but busybox
def test_what_a_docker_daemon_leaves_that_is_killed_in_the_middle_of_a_start(
    clean_docker_lab: Lab, node: str, ran_before: bool
) -> None:
    lab = clean_docker_lab

    async def half_started(machine: Machine, asked: ContainerWish, delay: float) -> bool:
        """Whether Docker alone gets no further with it."""
        if ran_before:
            await machine.start(asked, epoch=1)
            lab.exec_in(node, ("docker", "kill", asked.name))
        pid = lab.path_in(node, "/run/docker.pid").read_text()
        script = f'until {SHIMS} -q; do :; done; sleep "$2"; kill -9 "$1"'
        with ThreadPoolExecutor() as pool:
            killer = pool.submit(lab.exec_in, node, ("timeout", "20", "sh", "-c", script, "sh", pid, f"{delay:.2f}"))
            with suppress(KorchError):
                await machine.start(asked, epoch=1)
            killer.result()
        lab.start_engine(node)
        again = lab.exec_in(node, ("docker", "start", asked.name), check=False)
        return "already" in again.stderr or "file exists" in again.stderr

    async def work(machine: Machine) -> None:
        await machine.pull(lab.image())
        tries = ((wish(lab, f"cccccccc-{number}"), number % 5 / 100) for number in range(30))
        for asked, delay in tries:
            if await half_started(machine, asked, delay):
                break
            await machine.remove(asked.identity, grace_s=0, epoch=1)
        assert (await machine.start(asked, epoch=1)).state == "running"
        assert shims(lab, node) == 1
        await machine.remove(asked.identity, grace_s=0, epoch=1)
        for asked, delay in tries:
            found = await half_started(machine, asked, delay)
            await machine.remove(asked.identity, grace_s=0, epoch=1)
            assert shims(lab, node) == 0
            if found:
                return
        pytest.fail("the daemon never died in the middle of a start")

    run(lab, work, node=node)


def shims(lab: Lab, node: str) -> int:
    return int(lab.exec_in(node, ("sh", "-c", f"{SHIMS} | wc -l")).stdout)
