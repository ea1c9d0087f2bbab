"""What korch asks of an engine, on real nodes: with Docker and with Podman, in full and with busybox alone."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from korch.engines.wish import ContainerWish, EnvValue, Mount, PublishedPort
from korch.errors import FencedError
from korch.lab.lab import Lab
from korch.nodes.errors import EngineCallError
from korch.nodes.machine import Machine
from korch.nodes.parcels import WorkloadRecord
from tests.lab.conftest import node_host, wiped
from tests.lab.nodes import CLUSTER, machine_of, wish

Site = tuple[Lab, str]


NODES = {"docker": "n1", "podman": "n1", "busybox-docker": "d1", "busybox-podman": "p1"}


@pytest.fixture(params=NODES)
def site(request: pytest.FixtureRequest) -> Site:
    """A lab and the node of it that the test uses, empty; those with nothing but busybox on PATH too."""
    return _emptied(request, request.param)


@pytest.fixture(params=["docker", "podman"])
def full_site(request: pytest.FixtureRequest) -> Site:
    """As `site`, for what only the engines could do differently."""
    return _emptied(request, request.param)


def _emptied(request: pytest.FixtureRequest, kind: str) -> Site:
    """Without containers, images and volumes."""
    lab: Lab = request.getfixturevalue("bare_lab" if "busybox" in kind else f"{kind}_lab")
    node = NODES[kind]
    lab.wipe(node)
    empty = """
        ids=$("$1" images -aq) && { [ -z "$ids" ] || "$1" rmi -f $ids; }
        ids=$("$1" volume ls -q) && { [ -z "$ids" ] || "$1" volume rm $ids; }
    """
    lab.exec_in(node, ("sh", "-c", empty, "sh", lab.spec(node).engine), check=False)
    return lab, node


def run(site: Site, work: Callable[[Machine], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with machine_of(*site) as machine:
            await work(machine)

    asyncio.run(whole())


def engine_says(site: Site, *words: str) -> str:
    """What the engine's own command answers on the node, asked past korch."""
    result = node_host(*site).run(shlex.join((site[0].spec(site[1]).engine, *words)))
    assert result.rc == 0, result.stderr
    return str(result.stdout).strip()


def names(site: Site) -> list[str]:
    return sorted(engine_says(site, "ps", "-a", "--format", "{{.Names}}").split())


def inspected(site: Site, name: str) -> dict[str, object]:
    found: list[dict[str, object]] = json.loads(engine_says(site, "inspect", name))
    return found[0]


async def started(machine: Machine, asked: ContainerWish, *, epoch: int = 1) -> str:
    """The image there and the container started; its name."""
    await machine.pull(asked.image)
    return (await machine.start(asked, epoch=epoch)).name


HOSTILE = {
    "PLAIN": "x",
    "EMPTY": "",
    "SPACES": "  two  words ",
    "LINES": "first\nsecond\n\n",
    "QUOTES": "a'b\"c`d$(id)$HOME;|&\\",
    "UNICODE": "grüße ☃",
    "EQUALS": "a=b=c",
    "PATH": "/app:/bin:/usr/bin",
    "HTTPS_PROXY": "http://proxy:3128",
}


def test_one_pod_from_start_to_removal(site: Site) -> None:
    lab, node = site
    address = lab.address(node)
    asked = wish(
        lab,
        env=tuple(EnvValue(name, value, secret=True) for name, value in HOSTILE.items()),
        ports=(PublishedPort(8080, 0, "tcp", address), PublishedPort(81, 18081, "tcp", address)),
        cpu_limit_millis=500,
        cpu_request_millis=250,
        memory_limit_bytes=64 << 20,
        hostname="web-1",
        restart="unless-stopped",
        mounts=(
            Mount("scratch", "/scratch"),
            Mount("tmpfs", "/memory", size_bytes=1 << 20),
            Mount("volume", "/named", "korch_5d0b63a2_default_data"),
            Mount("bind", "/bound", "/var/lib/a b;$(x)", make=True),
        ),
    )

    async def work(machine: Machine) -> None:
        info = await machine.pull(asked.image)
        assert info.digest_ref is not None
        assert info.digest_ref.startswith(f"{lab.registry}/web@sha256:")
        found = await machine.start(asked, epoch=3)
        assert (found.state, found.identity, found.image_id) == ("running", asked.identity, info.id)
        assert found.ip
        port = found.host_port(8080)
        assert port
        assert found.host_port(81) == 18081

        shown = inspected(site, found.name)
        config, limits = shown["Config"], shown["HostConfig"]
        assert isinstance(config, dict)
        assert isinstance(limits, dict)
        assert config["Hostname"] == "web-1"
        assert (limits["Memory"], limits["CpuQuota"], limits["CpuPeriod"], limits["CpuShares"]) == (
            64 << 20,
            50000,
            100000,
            256,
        )
        assert limits["RestartPolicy"]["Name"] == "unless-stopped"

        probe = await machine.exec_probe(found.name, ("/bin/busybox", "tr", "\\0", "\\1"), 10)
        assert probe.status == 0
        environ = await machine.exec_probe(found.name, ("/bin/busybox", "cat", "/proc/1/environ"), 10)
        values = dict(entry.split("=", 1) for entry in environ.stdout.decode().split("\0") if entry)
        assert {name: values.get(name) for name in HOSTILE} == HOSTILE
        mounted = (await machine.exec_probe(found.name, ("/bin/busybox", "cat", "/proc/mounts"), 10)).text
        assert {line.split()[1] for line in mounted.splitlines()} >= {"/scratch", "/memory", "/named", "/bound"}
        assert node_host(*site).file("/var/lib/a b;$(x)").is_directory

        for _ in range(2):
            hung = await machine.exec_probe(found.name, ("/bin/busybox", "sleep", "12345"), 1)
            assert hung.status == 124
            assert "12345" not in engine_says(site, "top", found.name), "engines end only their own client"

        again = await machine.start(asked, epoch=3)
        assert again.id == found.id
        assert names(site) == [found.name]
        report = await machine.report(doctor=True)
        assert report.epoch == 3
        assert report.volumes == ("default/data",)
        assert asked.image in {name for image in report.images for name in image.names}
        assert port in report.listening_tcp or machine.engine == "docker"
        (seen,) = report.containers
        assert (seen.id, seen.restart_policy) == (found.id, "unless-stopped")
        assert seen.running_s is not None
        assert 0 <= seen.running_s < 120

        volumes = engine_says(site, "volume", "ls", "-q").split()
        assert len(volumes) == 2
        for _ in range(2):
            await machine.remove(asked.identity, grace_s=5, epoch=3)
        assert names(site) == []
        assert engine_says(site, "volume", "ls", "-q").split() == ["korch_5d0b63a2_default_data"]

    run(site, work)


def test_an_exited_container_starts_again_and_its_end_is_seen(site: Site) -> None:
    lab, _ = site

    async def work(machine: Machine) -> None:
        asked = wish(
            lab,
            entrypoint=("/bin/busybox", "sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.1; echo last; exit 7"),
        )
        name = await started(machine, asked)
        await _until_exited(machine)
        (seen,) = await machine.containers()
        assert (seen.name, seen.state, seen.exit_code, seen.running_s) == (name, "exited", 7, None)
        assert seen.started_at is not None
        assert seen.finished_at is not None
        assert seen.finished_at >= seen.started_at
        assert await machine.last_logs(name) == "out\nerr\nlast"
        assert await machine.last_logs(name, 1) == "last"
        again = await machine.start(asked, epoch=1)
        assert again.id == seen.id
        await _until_exited(machine)
        assert await machine.last_logs(name, 4) == "last\nout\nerr\nlast"

    run(site, work)


async def _until_exited(machine: Machine) -> None:
    async with asyncio.timeout(30):
        while any(found.state != "exited" for found in await machine.containers()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def test_logs_and_programs_stream(full_site: Site) -> None:
    lab, _ = full_site

    async def work(machine: Machine) -> None:
        name = await started(
            machine,
            wish(lab, entrypoint=("/bin/busybox", "sh", "-c", "echo one; echo two; exec sleep 1000"), stop_grace_s=0),
        )
        command = await machine.logs_command(name, follow=True, tail=1)
        async with asyncio.timeout(20), machine.transport.stream(command, become=machine.become) as stream:
            async for _, data in stream.chunks():
                assert data == b"two\n"
                break
        command = await machine.exec_command(name, ("/bin/busybox", "cat"), stdin=True)
        async with asyncio.timeout(20), machine.transport.stream(command, become=machine.become) as stream:
            await stream.write(b"$(id) '\"\n")
            await stream.write_eof()
            assert b"".join([data async for _, data in stream.chunks()]) == b"$(id) '\"\n"
            assert await stream.wait() == 0

    run(full_site, work)


def test_arguments_arrive_word_by_word(site: Site) -> None:
    lab, _ = site
    words = ("a b", "", "$(id)", "`id`", "'\"\\", "-v", "ü", "*", "~", ";&|")

    async def work(machine: Machine) -> None:
        asked = wish(
            lab, entrypoint=("/bin/busybox", "sh", "-c", 'for w in "$@"; do printf "<%s>" "$w"; done', "sh"), args=words
        )
        name = await started(machine, asked)
        await _until_exited(machine)
        assert await machine.last_logs(name) == "".join(f"<{word}>" for word in words)

    run(site, work)


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        ({"entrypoint": ("/no/such",)}, "RunContainerError", "/no/such"),
        ({"ports": (PublishedPort(80, 8099, "tcp", "203.0.113.9"),)}, "AddressUnknown", "203.0.113.9"),
        ({"mounts": (Mount("bind", "/x", "/no/such"),)}, "CreateContainerError", "/no/such"),
        ({"image": "sha256:" + "0" * 64}, "ErrImageNeverPull", "not on the node"),
        ({"user": "nobodyhere"}, "CreateContainerError", "nobodyhere"),
    ],
    ids=["program", "address", "mount", "image", "user"],
)
def test_what_cannot_start_says_why_and_leaves_nothing(
    full_site: Site, change: dict[str, object], reason: str, text: str
) -> None:
    lab, node = full_site

    async def work(machine: Machine) -> None:
        await machine.pull(lab.image())
        with pytest.raises(EngineCallError) as caught:
            await machine.start(wish(lab, **change), epoch=1)
        assert caught.value.pod_reason == reason
        assert text in str(caught.value)
        assert node in str(caught.value)
        assert names(full_site) == []

    run(full_site, work)


def test_a_taken_port_names_the_container_that_has_it(full_site: Site) -> None:
    lab, node = full_site
    port = PublishedPort(8080, 18080, "tcp", lab.address(node))

    async def work(machine: Machine) -> None:
        name = await started(machine, wish(lab, ports=(port,)))
        with pytest.raises(EngineCallError) as caught:
            await machine.start(wish(lab, "bbbbbbbb-1", ports=(port,)), epoch=1)
        assert caught.value.pod_reason == "PortTaken"
        assert f"{lab.address(node)}:18080" in str(caught.value)
        assert name in caught.value.hint
        assert names(full_site) == [name]

    run(full_site, work)


def test_a_container_of_someone_else_keeps_its_name(full_site: Site) -> None:
    lab, _ = full_site

    async def work(machine: Machine) -> None:
        await machine.pull(lab.image())
        engine_says(full_site, "create", "--name", wish(lab).name, lab.image())
        with pytest.raises(EngineCallError, match="is another one"):
            await machine.start(wish(lab), epoch=1)
        await machine.remove(wish(lab).identity, grace_s=0, epoch=1)
        assert names(full_site) == [wish(lab).name]
        assert await machine.containers() == ()
        engine_says(full_site, "rm", wish(lab).name)

    run(full_site, work)


@pytest.mark.parametrize(
    ("image", "reason"),
    [("{registry}/none:1", "ImageNotFound"), ("{address}:9/web:1", "ErrImagePull")],
    ids=["unknown", "no-registry"],
)
def test_images_that_cannot_be_pulled(full_site: Site, image: str, reason: str) -> None:
    lab, node = full_site
    name = image.format(registry=lab.registry, address=lab.address(node))

    async def work(machine: Machine) -> None:
        with pytest.raises(EngineCallError) as caught:
            await machine.pull(name)
        assert caught.value.pod_reason == reason
        assert name in str(caught.value)

    run(full_site, work)


# Rule (node fencing)


def test_two_epochs(site: Site) -> None:
    lab, node = site

    async def work(machine: Machine) -> None:
        name = await started(machine, wish(lab), epoch=5)
        async with machine_of(lab, node) as late:
            refused = (
                late.start(wish(lab, "bbbbbbbb-1"), epoch=4),
                late.remove(wish(lab).identity, grace_s=0, epoch=4),
                late.set_epoch(4),
            )
            for action in refused:
                with pytest.raises(FencedError, match="epoch 5"):
                    await action
            assert names(site) == [name]
            await late.start(wish(lab, "bbbbbbbb-1"), epoch=6)
        with pytest.raises(FencedError):
            await machine.start(wish(lab, "cccccccc-1"), epoch=5)
        assert len(names(site)) == 2

    run(site, work)


def test_many_at_once_make_no_double(site: Site) -> None:
    lab, node = site

    async def work(machine: Machine) -> None:
        await machine.pull(lab.image())
        async with machine_of(lab, node) as other:
            starts = [
                each.start(wish(lab, uid), epoch=1) for each in (machine, other) for uid in ("aaaaaaaa-1", "bbbbbbbb-1")
            ]
            results = await asyncio.gather(*starts, return_exceptions=True)
        # Two that meet on a name both end well, or one of them fails and may be repeated.
        assert len(names(site)) == 2
        for uid in ("aaaaaaaa-1", "bbbbbbbb-1"):
            assert (await machine.start(wish(lab, uid), epoch=1)).state == "running"
        assert len(names(site)) == 2
        assert any(not isinstance(result, BaseException) for result in results)

    run(site, work)


# Rule (pruning)


def test_only_images_that_korch_brought_are_pruned(site: Site) -> None:
    lab, _ = site

    async def work(machine: Machine) -> None:
        engine_says(site, "pull", "-q", lab.image("2"))
        await machine.pull(lab.image("2"))  # the user's own: korch did not bring it
        name = await started(machine, wish(lab))
        brought = await machine.resolve_image(lab.image("broken"))
        assert await machine.prune([brought.pinned], epoch=1) == ()
        assert await machine.prune([], epoch=1) == (brought.id,)
        left = {tag for image in (await machine.report()).images for tag in image.names}
        assert left >= {lab.image("1"), lab.image("2")}
        assert lab.image("broken") not in left
        assert names(site) == [name]
        await machine.remove(wish(lab).identity, grace_s=0, epoch=1)
        engine_says(site, "create", "--name", "theirs", lab.image("1"))
        assert await machine.prune([], epoch=1) == ()
        engine_says(site, "rm", "theirs")
        assert len(await machine.prune([], epoch=1)) == 1
        engine_says(site, "rmi", lab.image("2"))

    run(site, work)


def test_an_archive_is_loaded_and_may_be_pruned(site: Site) -> None:
    lab, _ = site

    async def work(machine: Machine) -> None:
        info = await machine.pull(lab.image("crash"))
        local = "korch-test/app:7" if lab.spec(site[1]).engine == "docker" else "docker.io/korch-test/app:7"
        engine_says(site, "tag", info.id, local)
        engine_says(site, "save", "-o", "/tmp/app.tar", local)
        engine_says(site, "rmi", local)
        engine_says(site, "rmi", lab.image("crash"))
        archive = node_host(*site).check_output("base64 /tmp/app.tar")
        node_host(*site).check_output("rm /tmp/app.tar")

        async def pieces() -> AsyncIterator[bytes]:
            import base64

            data = base64.b64decode(archive)
            for start in range(0, len(data), 100_000):
                yield data[start : start + 100_000]

        (loaded,) = await machine.load_image(pieces())
        assert loaded.id == info.id
        assert loaded.digest_ref is None
        again = await machine.resolve_image("korch-test/app:7", pull="Never")
        assert (again.id, again.digest_ref) == (info.id, None)
        found = await machine.start(
            wish(lab, image=loaded.pinned, entrypoint=("/bin/busybox", "sleep", "1000")), epoch=1
        )
        assert found.image_id == info.id
        assert await machine.prune([], epoch=1) == ()
        await machine.remove(found.identity or wish(lab).identity, grace_s=0, epoch=1)
        assert await machine.prune([], epoch=1) == (info.id,)

    run(site, work)


def test_records_outlive_a_power_cut(docker_lab: Lab) -> None:
    lab = wiped(docker_lab)

    async def before() -> None:
        async with machine_of(lab) as machine:
            await machine.pull(lab.image())
            record = WorkloadRecord("default", "Deployment/web", b'{"kind": "Deployment"}')
            await machine.start(wish(lab, restart="unless-stopped"), epoch=4, records=[record])

    async def after() -> None:
        async with machine_of(lab) as machine:
            report = await machine.report()
            assert report.epoch == 4
            assert report.claim is not None
            assert report.claim.id == CLUSTER.id
            (stored,) = await machine.read_wishes()
            assert json.loads(stored.content) == {"kind": "Deployment"}
            assert [found.identity for found in report.containers] == [wish(lab).identity]

    asyncio.run(before())
    lab.kill("n1")
    lab.start("n1")
    asyncio.run(after())
