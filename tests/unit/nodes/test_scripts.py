"""korch's shell scripts in real shells (dash, bash, bare busybox), against an engine that only remembers."""

import asyncio
import contextlib
import glob
import json
import os
import platform
import re
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from korch.engines import sandbox
from korch.engines.base import Script
from korch.engines.names import SANDBOX, Identity
from korch.engines.wish import ContainerWish, EnvValue, Mount
from korch.errors import ClaimedByOtherError, FencedError, HostUnreachableError, KorchError
from korch.nodes.errors import EngineCallError
from korch.nodes.machine import ClusterIdentity, Machine
from korch.nodes.parcels import WorkloadRecord, start_values
from korch.nodes.texts import NAMES, PARTS, script_part, script_text
from korch.scheduler.filters import DISK_FLOOR_BYTES, DISK_FLOOR_SHARE
from tests.unit.nodes.shells import SHELLS, ShellTransport

CLUSTER = ClusterIdentity("c1-1111", "lab", "master.lab")
OTHER = ClusterIdentity("c2-2222", "work", "other.master")


@pytest.fixture(params=[name for name in SHELLS if name != "bash"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> ShellTransport:
    return ShellTransport(tmp_path / "machine", request.param)


@pytest.fixture(params=SHELLS)
def any_shell(request: pytest.FixtureRequest, tmp_path: Path) -> ShellTransport:
    """For the tests that between them run every line of the scripts."""
    return ShellTransport(tmp_path / "machine", request.param)


def machine(shell: ShellTransport, cluster: ClusterIdentity = CLUSTER, *, shared: bool = False) -> Machine:
    root = str(shell.folder / "korch")
    return Machine(shell, cluster, engine="docker", become=False, shared=shared, state_root=root)  # type: ignore[arg-type]


def wish(
    uid: str = "aaaaaaaa-1", *, spec_hash: str = "h1", env: tuple[EnvValue, ...] = (), **more: object
) -> ContainerWish:
    identity = Identity(CLUSTER.id, "default", "web-1", uid, "web", "web", 1, spec_hash)
    return ContainerWish(identity, CLUSTER.name, "web:1", env=env, **more)  # type: ignore[arg-type]


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def containers(shell: ShellTransport) -> list[str]:
    return sorted(shell.data["containers"])


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_plain_text_without_comments(name: str) -> None:
    text = script_text(name)
    assert text.isascii()
    assert not re.search(r"^\s*#", text, re.MULTILINE)
    assert len(text) < 16_000  # beside 64 kB of words it must fit one argument of 128 KiB in base64


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_script_do_not_share_variables(name: str) -> None:
    # POSIX sh has no local variables: two parts that set the same one break each other.
    setters: dict[str, set[str]] = {}
    for part in PARTS[name]:
        text = script_part(part)
        found = set(re.findall(r"\b(korch_\w+)=", text)) | set(re.findall(r"\bfor (korch_\w+) in", text))
        for words in re.findall(r"\bread -r ([\w ]+)", text):
            found |= {word for word in words.split() if word.startswith("korch_")}
        for variable in found - {"korch_ticket", "korch_tmp"}:
            setters.setdefault(variable, set()).add(part)
    assert {variable: parts for variable, parts in setters.items() if len(parts) > 1} == {}


def test_start_makes_one_container_and_tells_what_it_is(any_shell: ShellTransport) -> None:
    async def work() -> None:
        found = await machine(any_shell).start(wish(), epoch=3)
        assert found.state == "running"
        assert found.identity == wish().identity
        assert found.name == "korch_lab_default_web-1_web_aaaaaaaa"
        assert (any_shell.folder / "korch" / CLUSTER.id / "epoch").read_text() == "3\n"
        again = await machine(any_shell).start(wish(), epoch=3)
        assert again.id == found.id
        assert containers(any_shell) == [found.name]

    run(work)


HOSTILE = {
    "PLAIN": "x",
    "EMPTY": "",
    "SPACES": "  two  words ",
    "LINES": "first\nsecond\n\n",
    "QUOTES": "a'b\"c`d$(id)$HOME;|&\\",
    "UNICODE": "grüße ☃",
    "EQUALS": "a=b=c",
    "PATH": "/nowhere:/bin",
    "HOME": "/root",
    "DOCKER_HOST": "tcp://nowhere:1",
    "LD_PRELOAD": "/lib/none.so",
    "korch_engine": "rm",
}


def test_environment_arrives_unchanged_and_never_in_the_arguments(any_shell: ShellTransport) -> None:
    async def work() -> None:
        env = tuple(EnvValue(name, value) for name, value in HOSTILE.items())
        found = await machine(any_shell).start(wish(env=env), epoch=1)
        assert any_shell.data["containers"][found.name]["env"] == HOSTILE
        (call,) = any_shell.calls("run")
        assert not any(value in word for word in call["argv"] for value in HOSTILE.values() if len(value) > 2)

    run(work)


def test_an_exited_container_of_the_pod_is_started_again(shell: ShellTransport) -> None:
    async def work() -> None:
        found = await machine(shell).start(wish(), epoch=1)
        shell.change(lambda data: data["containers"][found.name]["State"].update(Status="exited"))
        again = await machine(shell).start(wish(), epoch=1)
        assert (again.id, again.state) == (found.id, "running")

    run(work)


def test_a_container_that_was_seen_is_started_without_a_look_and_made_anew_if_it_is_gone(
    any_shell: ShellTransport,
) -> None:
    async def work() -> None:
        found = await machine(any_shell).start(wish(), epoch=1)
        any_shell.change(lambda data: data["containers"][found.name]["State"].update(Status="exited"))
        looks, runs = len(any_shell.calls("inspect")), len(any_shell.calls("run"))
        again = await machine(any_shell).start(wish(), epoch=1, existing=found.id)
        assert (again.id, again.state) == (found.id, "running")
        assert len(any_shell.calls("inspect")) == looks + 1  # how it stands now
        assert len(any_shell.calls("run")) == runs
        any_shell.change(lambda data: data["containers"].pop(found.name))
        anew = await machine(any_shell).start(wish(), epoch=1, existing=found.id)
        assert anew.id != found.id

    run(work)


@pytest.mark.parametrize("other", [wish("aaaaaaaa-2"), wish(spec_hash="h2")], ids=["uid", "hash"])
def test_a_container_of_that_name_with_other_labels_is_left_alone(shell: ShellTransport, other: ContainerWish) -> None:
    async def work() -> None:
        await machine(shell).start(wish(), epoch=1)
        before = shell.data
        with pytest.raises(EngineCallError, match="exists and is another one"):
            await machine(shell).start(other, epoch=1)
        assert shell.data == before

    run(work)


def test_what_cannot_be_started_leaves_nothing(shell: ShellTransport) -> None:
    async def work() -> None:
        (shell.state / "fail-run").write_text(
            "125 docker: Error response from daemon: Bind for 10.0.0.1:80 failed: port is already allocated."
        )
        with pytest.raises(EngineCallError) as caught:
            await machine(shell).start(wish(), epoch=1)
        assert caught.value.pod_reason == "PortTaken"
        assert containers(shell) == []

    run(work)


LEFT = (
    "Error response from daemon: task 1: already exists",
    "failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/1: file exists: unknown",
)


@pytest.mark.parametrize(("state", "seen", "text"), [("exited", True, LEFT[0]), ("exited", False, LEFT[1])])
def test_a_container_that_what_a_killed_daemon_left_keeps_from_starting_is_made_anew(
    any_shell: ShellTransport, state: str, seen: bool, text: str
) -> None:
    async def work() -> None:
        found = await machine(any_shell).start(wish(), epoch=1)
        any_shell.change(lambda data: data["containers"][found.name]["State"].update(Status=state))
        (any_shell.state / "fail-start").write_text(f"1 {text}")
        anew = await machine(any_shell).start(wish(), epoch=1, existing=found.id if seen else "")
        assert anew.id != found.id
        assert containers(any_shell) == [found.name]

    run(work)


def test_a_container_that_never_ran_goes_when_it_cannot_be_started(shell: ShellTransport) -> None:
    async def work() -> None:
        found = await machine(shell).start(wish(), epoch=1)
        shell.change(lambda data: data["containers"][found.name]["State"].update(Status="created"))
        (shell.state / "fail-start").write_text("1 mkdir /somewhere: read-only file system")
        anew = await machine(shell).start(wish(), epoch=1)
        assert anew.id != found.id

    run(work)


def test_a_container_that_stood_before_stays_when_it_cannot_be_started(shell: ShellTransport) -> None:
    async def work() -> None:
        found = await machine(shell).start(wish(), epoch=1)
        shell.change(lambda data: data["containers"][found.name]["State"].update(Status="exited"))
        (shell.state / "fail-start").write_text("1 no space left on device")
        with pytest.raises(EngineCallError) as caught:
            await machine(shell).start(wish(), epoch=1)
        assert caught.value.pod_reason == "DiskPressure"
        assert containers(shell) == [found.name]

    run(work)


def test_values_cut_on_their_way_start_nothing(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        whole = start_values("docker", wish(env=(EnvValue("A", "long value"),)))
        courier = asked._courier
        words = ("1", *courier.ownership, wish().name, "u", "h", "{{.Id}}", "--name", "x", "img")
        for length in range(len(whole) - 1):
            with pytest.raises(HostUnreachableError):
                await courier.ask("start", *words, stdin=whole[:length])
        assert shell.calls("run") == []

    run(work)


def test_folders_and_records_are_written_before_the_start(any_shell: ShellTransport) -> None:
    async def work() -> None:
        folder = any_shell.folder / "a b;$(x)"
        mount = Mount("bind", "/data", str(folder), make=True)
        record = WorkloadRecord("default", "Deployment/web", b'{"kind":\n "Deployment", "x": "\\u00fc$(id)"}')
        await machine(any_shell).start(wish(mounts=(mount,)), epoch=1, records=[record])
        assert folder.is_dir()
        (stored,) = await machine(any_shell).read_wishes()
        assert json.loads(stored.content) == json.loads(record.content)

    run(work)


# Rule (node fencing)


def test_a_lower_epoch_is_refused_and_nothing_is_touched(any_shell: ShellTransport) -> None:
    async def work() -> None:
        new, old = machine(any_shell), machine(any_shell)
        found = await new.start(wish(), epoch=7)
        before = any_shell.data
        assert found.identity is not None
        actions = (
            lambda: old.start(wish("bbbbbbbb-1"), epoch=6),
            lambda: old.remove(wish().identity, grace_s=0, epoch=6),
            lambda: old.stop(wish().identity, grace_s=0, epoch=6),
            lambda: old.set_epoch(6),
            lambda: old.write_wish("default", "web", b"{}", epoch=6),
            lambda: old.remove_wish("default", "web", epoch=6),
            lambda: old.unclaim(epoch=6),
        )
        for action in actions:
            with pytest.raises(FencedError, match="epoch 7"):
                await action()  # type: ignore[no-untyped-call]
        assert any_shell.data == before
        assert (any_shell.folder / "korch" / CLUSTER.id / "epoch").read_text() == "7\n"

    run(work)


def test_a_new_epoch_waits_until_the_engine_has_answered_the_old_one(shell: ShellTransport) -> None:
    async def work() -> None:
        hold = shell.state / "hold-run"
        asked = machine(shell)
        await asked.claim()
        hold.touch()
        starting = asyncio.create_task(asked.start(wish(), epoch=1))
        await until(lambda: len(shell.calls("run")) == 1)
        raising = asyncio.create_task(machine(shell).set_epoch(2))
        await asyncio.sleep(0.5)
        assert not raising.done()
        assert (shell.folder / "korch" / CLUSTER.id / "epoch").read_text() == "1\n"
        hold.unlink()
        await starting
        assert await raising == 2
        with pytest.raises(FencedError):
            await asked.start(wish("bbbbbbbb-1"), epoch=1)

    run(work)


def test_no_engine_program_holds_the_lock_and_a_killed_script_lets_go(shell: ShellTransport) -> None:
    async def work() -> None:
        hold = shell.state / "hold-run"
        await machine(shell).claim()
        hold.touch()
        starting = asyncio.create_task(machine(shell).start(wish(), epoch=1))
        await until(lambda: len(shell.calls("run")) == 1)
        shell.processes[-1].send_signal(signal.SIGKILL)
        async with asyncio.timeout(10):  # the engine's program is still there: it must not have the lock
            assert await machine(shell).set_epoch(2) == 2
        assert not shell.calls("run")[0]["fd9"]
        hold.unlink()
        with pytest.raises(KorchError):
            await starting

    run(work)


def test_starts_under_one_epoch_need_not_wait_for_each_other(shell: ShellTransport) -> None:
    async def work() -> None:
        if shell.shell == "busybox" and not (shell.bin / "flock").exists():
            pytest.skip("without flock actions take turns")
        hold = shell.state / "hold-run"
        asked = machine(shell)
        await asked.set_epoch(1)
        hold.touch()
        one = asyncio.create_task(asked.start(wish("aaaaaaaa-1"), epoch=1))
        two = asyncio.create_task(asked.start(wish("bbbbbbbb-1"), epoch=1))
        await until(lambda: len(shell.calls("run")) == 2)
        hold.unlink()
        assert (await one).id != (await two).id

    run(work)


COUNTER = """
korch_open_lock
korch_lock -x
read -r korch_number <"$korch_root/number"
sleep 0.01
echo $((korch_number + 1)) >"$korch_root/number"
korch_unlock
echo '@korch end'
"""


def test_the_lock_excludes(any_shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        await asked.claim()
        number = any_shell.folder / "korch" / "number"
        number.write_text("0\n")
        text = script_part("base") + script_part("lock") + COUNTER
        script = Script(text, (CLUSTER.id, str(number.parent), "docker"))
        results = await asyncio.gather(*(any_shell.run(script) for _ in range(24)))
        assert [result.stderr for result in results if result.stderr] == []
        assert number.read_text() == "24\n"

    run(work)


def test_the_highest_of_many_epochs_stands(shell: ShellTransport) -> None:
    async def work() -> None:
        epochs = list(range(1, 13))
        raises = [machine(shell).set_epoch(epoch) for epoch in epochs]
        results = await asyncio.gather(*raises, return_exceptions=True)
        assert all(isinstance(result, FencedError) or result == epochs[i] for i, result in enumerate(results))
        assert (shell.folder / "korch" / CLUSTER.id / "epoch").read_text() == "12\n"

    run(work)


def test_tickets_of_dead_processes_do_not_block(tmp_path: Path) -> None:
    async def work() -> None:
        if "busybox" not in SHELLS:
            pytest.skip("no busybox here")
        shell = ShellTransport(tmp_path / "machine", "busybox")
        (shell.bin / "flock").unlink(missing_ok=True)
        await machine(shell).claim()
        tickets = shell.folder / "korch" / "tickets"
        tickets.mkdir(exist_ok=True)
        for name in ("t.1.999999999-5", f"t.2.{os.getpid()}-1", "c.999999998-7"):
            (tickets / name).touch()
        async with asyncio.timeout(10):
            assert await machine(shell).set_epoch(1) == 1
        assert list(tickets.iterdir()) == []

    run(work)


def test_a_damaged_epoch_is_reported_not_overwritten(shell: ShellTransport) -> None:
    async def work() -> None:
        await machine(shell).set_epoch(5)
        file = shell.folder / "korch" / CLUSTER.id / "epoch"
        file.write_text("rubbish\n")
        with pytest.raises(KorchError, match="damaged"):
            await machine(shell).start(wish(), epoch=9)
        assert file.read_text() == "rubbish\n"
        assert containers(shell) == []

    run(work)


# Claims


def test_the_first_cluster_has_the_machine(shell: ShellTransport) -> None:
    async def work() -> None:
        token = await machine(shell).claim()
        assert await machine(shell).claim() == token
        for action in (
            lambda: machine(shell, OTHER).claim(),
            lambda: machine(shell, OTHER).start(wish(), epoch=1),
            lambda: machine(shell, OTHER).pull("web:1"),
        ):
            with pytest.raises(ClaimedByOtherError, match=r'"lab", whose master lives on master\.lab'):
                await action()
        assert containers(shell) == []
        assert shell.calls("pull") == []
        report = await machine(shell, OTHER).report()
        assert report.state == "ClaimedByOther"
        assert "master.lab" in report.message
        assert report.machine_token == token

    run(work)


def test_a_shared_machine_takes_both_and_shows_one_token(shell: ShellTransport) -> None:
    async def work() -> None:
        token = await machine(shell).claim()
        other = machine(shell, OTHER, shared=True)
        assert await other.claim() == token
        await other.set_epoch(9)
        report = await machine(shell).report()
        assert (report.state, report.epoch) == ("Ready", 0)
        assert [claim.name for claim in report.foreign_claims] == ["work"]
        await other.unclaim(epoch=9)
        assert (await machine(shell).report()).foreign_claims == ()
        assert (await machine(shell).report()).machine_token == token

    run(work)


def test_unclaim_leaves_nothing_of_the_last_cluster(shell: ShellTransport) -> None:
    async def work() -> None:
        await machine(shell).write_wish("default", "web", b"{}", epoch=1)
        await machine(shell).unclaim(epoch=1)
        left = sorted(path.name for path in (shell.folder / "korch").rglob("*"))
        assert [name for name in left if name not in {"lock", "tickets"}] == []
        await machine(shell, OTHER).claim()

    run(work)


def test_a_claim_that_was_cut_short_is_nobodys_claim(shell: ShellTransport) -> None:
    (shell.bin / "mv").unlink(missing_ok=True)
    (shell.bin / "mv").write_text(
        '#!/bin/sh\ncase $3 in */claims/*) kill -9 $PPID; exit 1 ;; esac\nexec /bin/mv "$@"\n'
    )
    (shell.bin / "mv").chmod(0o755)

    async def work() -> None:
        with contextlib.suppress(KorchError):
            await machine(shell).claim()
        (shell.bin / "mv").write_text('#!/bin/sh\nexec /bin/mv "$@"\n')
        assert (await machine(shell).report()).state == "Ready"
        await machine(shell).claim()
        await machine(shell).unclaim(epoch=1)
        await machine(shell, OTHER).claim()
        assert not list((shell.folder / "korch").rglob("new.*"))

    run(work)


def test_files_are_private_and_claims_readable(shell: ShellTransport) -> None:
    async def work() -> None:
        await machine(shell).write_wish("default", "web", b"{}", epoch=1)
        root = shell.folder / "korch"
        modes = {path.relative_to(root).as_posix(): path.stat().st_mode & 0o777 for path in root.rglob("*")}
        assert modes[CLUSTER.id] == 0o700
        assert modes[f"{CLUSTER.id}/wishes/default_web"] == 0o600
        assert modes[f"claims/{CLUSTER.id}"] == 0o644
        assert modes["machine"] == 0o644

    run(work)


# Removing


def test_remove_ends_only_this_pod_of_this_cluster_and_may_be_repeated(any_shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        await asked.start(wish("aaaaaaaa-1"), epoch=1)
        stays = await asked.start(wish("bbbbbbbb-1"), epoch=1)
        shared = machine(any_shell, OTHER, shared=True)
        await shared.remove(wish("bbbbbbbb-1").identity, grace_s=0, epoch=1)
        for _ in range(2):
            await asked.remove(wish("aaaaaaaa-1").identity, grace_s=5, epoch=1)
        assert containers(any_shell) == [stays.name]
        assert any_shell.calls("stop")[0]["argv"][:3] == ["stop", "-t", "5"]
        assert not any(call["fd9"] for call in any_shell.calls("rm"))

    run(work)


def test_stop_keeps_the_container(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        await asked.start(wish(), epoch=1)
        ended = await asked.stop(wish().identity, grace_s=1, epoch=1)
        (found,) = await asked.containers()
        assert found.state == "exited"
        assert ended.containers == (found,)
        await asked.remove(wish().identity, grace_s=1, epoch=1)
        assert (await asked.stop(wish().identity, grace_s=1, epoch=1)).containers == ()

    run(work)


def test_a_late_end_of_one_container_leaves_the_one_that_took_its_place(any_shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        old = await asked.start(wish(), epoch=1)
        await asked.remove(wish().identity, grace_s=1, epoch=1, only=old.id)
        new = await asked.start(wish(), epoch=1)
        assert new.id != old.id
        assert (await asked.stop(wish().identity, grace_s=9, epoch=1, hook=HOOK, only=old.id)).containers == ()
        await asked.remove(wish().identity, grace_s=9, epoch=1, hook=HOOK, only=old.id)
        (found,) = await asked.containers()
        assert (found.id, found.state, any_shell.calls("exec")) == (new.id, "running", [])
        assert (await asked.stop(wish().identity, grace_s=9, epoch=1, only=new.id)).containers[0].id == new.id

    run(work)


HOOK = ("exec", "drain", "a b", "$(id)", "", "'\"")


def test_a_hook_runs_before_the_end_and_only_in_a_container_that_runs(any_shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        found = await asked.start(wish(), epoch=1)
        assert (await asked.stop(wish().identity, grace_s=9, epoch=1, hook=HOOK)).hook_problem == ""
        assert (await asked.remove(wish().identity, grace_s=9, epoch=1, hook=HOOK)).hook_problem == ""
        (call,) = any_shell.calls("exec")
        assert call["argv"] == ["exec", found.id, *HOOK[1:]]
        assert not call["fd9"]
        order = [json.loads(line)["word"] for line in (any_shell.state / "calls").read_text().splitlines()]
        assert order.index("exec") < order.index("stop") < order.index("rm")
        assert 7 <= int(any_shell.calls("stop")[0]["argv"][2]) <= 9

    run(work)


def test_a_hook_that_fails_is_told_with_its_words(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        await asked.start(wish(), epoch=1)
        (shell.state / "fail-exec").write_text("3 no such\n@korch done\nthing\n")
        ended = await asked.remove(wish().identity, grace_s=9, epoch=1, hook=("exec", "drain", "it"))
        assert ended.hook_problem == "drain it: ended with status 3: no such @korch done thing"
        assert containers(shell) == []

    run(work)


@pytest.mark.parametrize("hook", [("exec", "drain"), ("sleep", "1")], ids=lambda hook: hook[0])
def test_a_hook_takes_part_of_the_grace_time_and_leaves_two_seconds(
    any_shell: ShellTransport, hook: tuple[str, ...]
) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        await asked.start(wish(), epoch=1)
        (any_shell.state / "hold-exec").touch()
        ended = await asked.remove(wish().identity, grace_s=1, epoch=1, hook=hook)
        (any_shell.state / "hold-exec").unlink()
        assert ended.hook_problem == ("drain: was not done in time" if hook[0] == "exec" else "")
        assert containers(any_shell) == []
        assert any_shell.calls("stop")[0]["argv"][:3] == ["stop", "-t", "2"]

    run(work)


def test_without_grace_no_hook_runs_and_a_late_master_runs_none(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        await asked.start(wish(), epoch=2)
        with pytest.raises(FencedError):
            await asked.remove(wish().identity, grace_s=9, epoch=1, hook=HOOK)
        await asked.remove(wish().identity, grace_s=0, epoch=2, hook=HOOK)
        assert shell.calls("exec") == []
        assert containers(shell) == []

    run(work)


# Wishes


@pytest.mark.parametrize("workload", ["web", "Deployment/web", "a b;$(id)'\"\n", "..", "ü"], ids=repr)
def test_wishes_come_back_as_they_were(shell: ShellTransport, workload: str) -> None:
    async def work() -> None:
        asked = machine(shell)
        content = {"name": workload, "text": "a'b\"c $(id)\n\\ü", "colon": "/x/wishes/y:z"}
        await asked.write_wish("default", workload, json.dumps(content).encode(), epoch=1)
        await asked.write_wish("default", "another", b"{}", epoch=1)
        found = [json.loads(wish.content) for wish in await asked.read_wishes()]
        assert sorted(found, key=len) == [{}, content]
        await asked.remove_wish("default", workload, epoch=1)
        await asked.remove_wish("default", workload, epoch=1)
        assert [wish.file for wish in await asked.read_wishes()] == ["default_another"]

    run(work)


def test_wish_goes_with_the_last_container_of_its_workload(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        record = WorkloadRecord("default", "Deployment/web", b"{}")
        other = WorkloadRecord("default", "Deployment/web-2", b"{}")
        first, second = wish("aaaaaaaa-1"), wish("bbbbbbbb-1")
        for found in (first, second):
            await asked.start(found, epoch=1, records=(record, other))
        await asked.remove(first.identity, grace_s=0, epoch=1)
        assert {found.file for found in await asked.read_wishes()} == {record.file, other.file}
        for _ in range(2):
            await asked.remove(second.identity, grace_s=0, epoch=1)
            assert {found.file for found in await asked.read_wishes()} == {other.file}
        await asked.write_wish("default", "Deployment/web", b"{}", epoch=1)  # its container went without korch
        await asked.remove(second.identity, grace_s=0, epoch=1)
        assert {found.file for found in await asked.read_wishes()} == {other.file}

    run(work)


# Images


def test_credentials_live_in_a_tmpfs_folder_for_one_pull(any_shell: ShellTransport) -> None:
    async def work() -> None:
        auth = b'{"auths": {"reg": {"auth": "c2VjcmV0"}}}'
        info = await machine(any_shell).pull("reg.lab/web:1", auth=auth)
        assert info.digest_ref == "reg.lab/web@sha256:" + "a" * 64
        (call,) = any_shell.calls("pull")
        assert call["config"]["text"] == auth.decode()
        assert call["config"]["mode"] == oct(0o40700)
        assert call["config"]["folder"].startswith(("/dev/shm/", "/run/"))
        assert call["config"]["folder"] not in glob.glob("/dev/shm/korch.*") + glob.glob("/run/korch.*")
        assert not any("c2VjcmV0" in word for word in call["argv"])

    run(work)


def test_policies_of_pulling(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        with pytest.raises(EngineCallError) as caught:
            await asked.resolve_image("web:1", pull="Never")
        assert caught.value.pod_reason == "ErrImageNeverPull"
        await asked.resolve_image("web:1", pull="IfNotPresent")
        await asked.resolve_image("web:1", pull="IfNotPresent")
        assert len(shell.calls("pull")) == 1
        await asked.resolve_image("web:1", pull="Always")
        assert len(shell.calls("pull")) == 2

    run(work)


def test_a_refused_pull_says_why(shell: ShellTransport) -> None:
    async def work() -> None:
        (shell.state / "fail-pull").write_text("1 Error response from daemon: manifest unknown: manifest unknown")
        with pytest.raises(EngineCallError, match='n1: image "web:9" is not in the registry') as caught:
            await machine(shell).pull("web:9")
        assert caught.value.pod_reason == "ImageNotFound"

    run(work)


@pytest.mark.parametrize(("total_kib", "left_kib", "fits"), [(10 << 20, 400_000, False), (10 << 20, 600_000, True)])
def test_a_pull_that_fills_the_disk_is_ended(
    any_shell: ShellTransport, total_kib: int, left_kib: int, fits: bool
) -> None:
    if any_shell.shell == "busybox":
        pytest.skip("busybox takes its own df, whatever is on PATH")

    async def work() -> None:
        (any_shell.bin / "df").unlink(missing_ok=True)
        table = f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x {total_kib} 1 {left_kib} 1% /data\n"
        (any_shell.bin / "df").write_text(f"#!/bin/sh\n>>{any_shell.bin}/asked\nprintf %s '{table}'\n")
        (any_shell.bin / "df").chmod(0o755)
        spool = any_shell.folder / "storage123"
        spool.mkdir()
        (any_shell.state / "spool-pull").write_text(str(spool / "1"))
        (any_shell.state / "hold-pull").touch()
        pulling = asyncio.create_task(machine(any_shell).pull("web:9"))
        await until((any_shell.bin / "asked").exists)
        (any_shell.bin / "asked").unlink()
        if fits:
            await until((any_shell.bin / "asked").exists)
            (any_shell.state / "hold-pull").unlink()
            await pulling
            assert spool.exists()
            return
        with pytest.raises(EngineCallError, match='image "web:9" does not fit on the engine\'s disk') as caught:
            await pulling
        assert caught.value.pod_reason == "DiskPressure"
        assert not spool.exists()

    run(work)


def test_the_floor_of_a_pull_is_the_schedulers() -> None:
    text = script_part("image")
    assert f'"$korch_left" -lt {DISK_FLOOR_BYTES >> 10} ]' in text
    assert f"$((korch_total / {1 / DISK_FLOOR_SHARE:.0f})) ]" in text


# Rule (pruning)


def test_prune_removes_only_what_korch_brought_and_nobody_uses(any_shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        image = {"RepoTags": ["users:1"], "Id": "sha256:" + "7" * 64}
        any_shell.change(lambda data: data["images"].update({"users:1": image}))
        await asked.pull("users:1")  # was there: stays the user's
        used, kept, old, named = [(await asked.pull(f"web:{n}")).id for n in range(4)]
        await asked.resolve_image("users:1", pull="IfNotPresent")
        found = await asked.start(wish(), epoch=1)
        any_shell.change(lambda data: data["containers"][found.name].update(Image=used))
        any_shell.change(lambda data: data["images"]["web:3"]["RepoTags"].append("mine:3"))
        assert await asked.prune(["web:1"], epoch=1) == (old,)
        left = {image["Id"] for image in any_shell.data["images"].values()}
        assert left == {"sha256:" + "7" * 64, used, kept, named}
        assert await asked.prune(["web:1"], epoch=1) == ()
        await asked.set_epoch(2)
        await asked.pull("web:9")
        with pytest.raises(FencedError):
            await asked.prune([], epoch=1)
        assert all(call["argv"][1:] in ([old[7:]],) for call in any_shell.calls("rmi"))

    run(work)


def test_an_image_that_the_engine_will_not_give_up_stays_on_the_list(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        info = await asked.pull("web:1")
        (shell.state / "fail-rmi").write_text("1 conflict: image is being used by running container 1234")
        assert await asked.prune([], epoch=1) == ()
        (shell.state / "fail-rmi").unlink()
        assert await asked.prune([], epoch=1) == (info.id,)

    run(work)


# Reports


def test_a_report_reads_this_machine(any_shell: ShellTransport) -> None:
    cpus = len(re.findall(r"^cpu\d", Path("/proc/stat").read_text(), re.MULTILINE))

    async def work() -> None:
        any_shell.noise = b"Welcome!\n@korch refuse nothing\n" * 100
        asked = machine(any_shell)
        await asked.start(wish(), epoch=4)
        any_shell.change(lambda data: data["volumes"].extend(["korch_c11111_default_data", "other"]))
        report = await asked.report(measure_cpu=True)
        assert report.state == "Ready"
        assert (report.engine.name, report.engine.version) == ("docker", "20.10.24")
        assert report.epoch == 4
        assert report.claim is not None
        assert (report.claim.name, report.claim.master_host) == ("lab", "master.lab")
        assert [found.identity for found in report.containers] == [wish().identity]
        assert report.facts.memory_total_bytes > report.facts.memory_available_bytes > 0
        assert report.facts.cpu_count == cpus
        assert report.cpu_busy is not None
        assert 0 <= report.cpu_busy <= 1
        assert report.disk_total_bytes > report.disk_free_bytes > 0
        assert report.uid == os.getuid()
        assert report.arch == {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        assert report.clock_offset_s is not None
        assert abs(report.clock_offset_s) < 2

    run(work)


def test_a_first_look_writes_nothing(shell: ShellTransport) -> None:
    async def work() -> None:
        report = await machine(shell).report()
        assert (report.claim, report.machine_token, report.epoch) == (None, "", 0)
        assert report.cpu_busy is None
        assert not (shell.folder / "korch").exists()

    run(work)


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "EngineDown",
        ),
        ("permission denied while trying to connect to the Docker daemon socket at unix:///x", "NoPermission"),
    ],
)
def test_a_silent_engine_is_a_state_with_a_cure(shell: ShellTransport, words: str, state: str) -> None:
    async def work() -> None:
        for word in ("info", "ps"):
            (shell.state / f"fail-{word}").write_text(f"1 {words}")
        asked = machine(shell)
        report = await asked.report()
        assert report.state == state
        assert report.message.startswith("n1: ")
        assert report.hint
        with pytest.raises(KorchError) as caught:
            await asked.start(wish(), epoch=1)
        assert caught.value.reason == state
        assert not (shell.folder / "korch").exists()

    run(work)


def test_an_engine_that_has_the_containers_is_not_replaced_by_another_while_it_is_down(shell: ShellTransport) -> None:
    """Or its containers would count as gone, be started again by the other engine, and be there twice."""

    async def work() -> None:
        if os.getuid() != 0:
            pytest.skip("Podman without root is refused")
        shell.install("podman")
        before = Machine(shell, CLUSTER, state_root=str(shell.folder / "korch"))  # type: ignore[arg-type]
        await before.start(wish(), epoch=1)
        assert before.engine == "docker"
        for word in ("info", "ps"):
            (shell.state / f"fail-{word}").write_text("1 Cannot connect to the Docker daemon")
        for asked in (before, Machine(shell, CLUSTER, state_root=str(shell.folder / "korch"))):  # type: ignore[arg-type]
            assert (await asked.report()).state == "EngineDown"

    run(work)


def test_no_engine_at_all(shell: ShellTransport) -> None:
    async def work() -> None:
        (shell.bin / "docker").unlink()
        if shell.shell != "busybox":  # this machine may have a real one
            shell.path = str(shell.bin)
            for name in ("grep", "id", "uname", "df", "date", "cat", "rm", "mktemp", "sudo"):
                (shell.bin / name).symlink_to(shutil.which(name) or "/nonexistent")
        report = await machine(shell).report()
        assert report.state == "EngineMissing"
        assert report.facts.memory_total_bytes > 0

    run(work)


def test_podman_that_calls_itself_docker_is_asked_by_its_own_name(shell: ShellTransport) -> None:
    async def work() -> None:
        if os.getuid() != 0:
            pytest.skip("Podman without root is refused")
        shell.install("podman")
        (shell.state / "fail-info").write_text(
            """125 Error: template: 1: can't evaluate field ServerVersion in type *define.Info"""
        )
        (shell.bin / "docker.py").write_text((shell.bin / "docker.py").read_text().replace('print("|||null")', "pass"))
        asked = Machine(shell, CLUSTER, state_root=str(shell.folder / "korch"))  # type: ignore[arg-type]
        report = await asked.report()
        assert (report.state, report.engine.name, report.engine.version) == ("Ready", "podman", "4.3.1")
        assert asked.engine == "podman"

    run(work)


def test_the_last_log_lines_cannot_pretend_to_be_an_answer(shell: ShellTransport) -> None:
    async def work() -> None:
        assert await machine(shell).last_logs("x") == "hello\n@korch end\n>x"

    run(work)


# --- sandboxes ---


def sandbox_of(uid: str = "aaaaaaaa-1") -> ContainerWish:
    """A sandbox with two volumes."""
    who = Identity(CLUSTER.id, "default", "web-1", uid, SANDBOX, "web", 1, "h1")
    mounts = tuple(Mount("scratch", sandbox.volume_folder(number)) for number in range(11))
    return ContainerWish(who, CLUSTER.name, sandbox.image_name(), mounts=mounts)


def test_the_image_of_sandboxes_is_brought_once_and_is_on_record(any_shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        await asked.bring_sandbox()
        await asked.bring_sandbox()
        (call,) = any_shell.calls("import")
        assert call["argv"][1:] == ["--change", 'ENTRYPOINT ["/pause"]', "-", sandbox.image_name()]
        brought = (any_shell.state / "imported").read_bytes()
        assert brought == sandbox.archive(platform.machine())
        (image,) = any_shell.data["images"].values()
        recorded = (any_shell.folder / "korch" / CLUSTER.id / "images").read_text()
        assert recorded == image["Id"].removeprefix("sha256:") + "\n"

    run(work)


def test_a_member_joins_the_network_and_has_the_volumes_of_its_sandbox(any_shell: ShellTransport) -> None:
    async def work() -> None:
        first = await machine(any_shell).start(sandbox_of(), epoch=1)
        mounts = (Mount("shared", "/data", "/volumes/1"), Mount("shared", "/ro", "/volumes/10", read_only=True))
        found = await machine(any_shell).start(wish(sandbox=first.name, mounts=mounts), epoch=1)
        options = any_shell.data["containers"][found.name]["options"]
        volumes = {one["Destination"]: one["Name"] for one in any_shell.data["containers"][first.name]["Mounts"]}
        assert [value for flag, value in options if flag == "--network"] == [f"container:{first.id}"]
        assert [value for flag, value in options if flag == "--volume"] == [
            f"{volumes['/volumes/1']}:/data:nocopy",
            f"{volumes['/volumes/10']}:/ro:ro,nocopy",
        ]

    run(work)


def test_a_sandbox_that_does_not_run_takes_in_nobody(any_shell: ShellTransport) -> None:
    async def work() -> None:
        first = await machine(any_shell).start(sandbox_of(), epoch=1)
        any_shell.change(lambda data: data["containers"][first.name]["State"].update(Status="exited"))
        with pytest.raises(EngineCallError, match="the pod's sandbox does not run"):
            await machine(any_shell).start(wish(sandbox=first.name), epoch=1)
        with pytest.raises(EngineCallError):
            await machine(any_shell).start(wish(sandbox="no-such"), epoch=1)
        assert containers(any_shell) == [first.name]

    run(work)


def test_all_of_a_pod_ends_and_goes_with_its_sandbox_last(any_shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(any_shell)
        first = await asked.start(sandbox_of(), epoch=1)
        second = await asked.start(wish(sandbox=first.name), epoch=1)
        other = await asked.start(sandbox_of("bbbbbbbb-1"), epoch=1)
        whole = replace(wish().identity, container="")
        ended = await asked.stop(whole, grace_s=3, epoch=1)
        assert {found.name: found.state for found in ended.containers} == {first.name: "exited", second.name: "exited"}
        await asked.remove(whole, grace_s=3, epoch=1)
        assert containers(any_shell) == [other.name]
        for word, where in (("stop", 3), ("rm", 3)):
            named = [call["argv"][where:] for call in any_shell.calls(word)]
            assert named[-2:] == [[second.id], [first.id]]
        await asked.remove(whole, grace_s=3, epoch=1)  # none there is fine

    run(work)


def test_a_single_container_costs_no_more_programs_than_before(shell: ShellTransport) -> None:
    async def work() -> None:
        asked = machine(shell)
        await asked.start(wish(), epoch=1)
        await asked.remove(wish().identity, grace_s=0, epoch=1)
        words = [json.loads(line)["word"] for line in (shell.state / "calls").read_text().splitlines()]
        assert words == ["run", "inspect", "ps", "stop", "ps", "rm", "ps"]

    run(work)
