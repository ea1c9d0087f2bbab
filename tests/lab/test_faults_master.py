"""Faults of the master's side: signals, killed and frozen deploys, several at the same time, trouble with the state."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.budget import KILLS_S, seed, within
from tests.chaos.kills import kill_rounds
from tests.lab.faulty import Faulty, Hold, Seen, finish, strike, wait_for
from tests.lab.korch_cli import KORCH, Run

pytestmark = pytest.mark.faults
KILLS = 10
AT_ONCE = ("--settle", "0")


def names(found: list[Seen]) -> set[str]:
    return {one.name for one in found}


def any_of(holds: tuple[Hold, ...], process: subprocess.Popen[str] | None = None) -> None:
    """Returns when one of the nodes has come to its word, or the process to its end."""
    wait_for(
        "the moment", lambda: any(h.is_held for h in holds) or (process is not None and process.poll() is not None)
    )


def app_image(faulty: Faulty) -> set[str]:
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in faulty.korch.objects("pods")}


STRIKES = (
    (signal.SIGINT, 130, "pull", "before"),
    (signal.SIGTERM, 143, "run", "before"),
    (signal.SIGKILL, -9, "run", "after"),
    (signal.SIGINT, 130, "stop", "before"),
    (signal.SIGKILL, -9, "stop", "after"),
)


def test_a_deploy_that_is_ended_half_way_converges_when_it_is_run_again(faulty: Faulty) -> None:
    for turn, (number, status, word, when) in enumerate(STRIKES):
        version = "12"[turn % 2]
        command = ("deploy", faulty.image(version), "--replicas", "3", *AT_ONCE)
        with faulty.hold(word, "d1", "p1", when=when) as holds:
            deploy = faulty.start(*command)
            any_of(holds, deploy)
            strike(deploy, number)
            run = finish(deploy, status=None)
        assert run.status in {status, 0}, run  # 0: nothing was to be done on those two nodes
        faulty.korch(*command)
        faulty.check({"web": 3})
        assert app_image(faulty) == {version}


def test_deploys_killed_at_random_moments_and_run_again(faulty: Faulty) -> None:
    kill_rounds(faulty, within(KILLS_S, range(1, KILLS + 1)), random.Random(seed()), node_faults=False, tell=print)


def test_a_frozen_deploy_changes_nothing_when_it_goes_on(faulty: Faulty) -> None:
    with faulty.hold("run", "d1", "p1") as holds:
        frozen = faulty.start("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
        any_of(holds)
        strike(frozen, signal.SIGSTOP)
    taken_over = faulty.korch("deploy", faulty.image("2"), "--replicas", "3", *AT_ONCE)
    assert "following" in taken_over.err, taken_over  # until the other had been silent for too long
    before = faulty.check({"web": 3})
    pods = faulty.korch.objects("pods")

    strike(frozen, signal.SIGCONT)
    run = finish(frozen, status=9)
    assert "another command changed it" in run.err, run
    assert names(faulty.check({"web": 3})) == names(before)
    assert [pod["metadata"]["uid"] for pod in faulty.korch.objects("pods")] == [pod["metadata"]["uid"] for pod in pods]
    assert app_image(faulty) == {"2"}


def test_two_deploys_of_one_app_at_the_same_time(faulty: Faulty) -> None:
    command = ("deploy", faulty.image(), "--replicas", "3", *AT_ONCE)
    both = [faulty.start(*command), faulty.start(*command)]  # both make the cluster, too
    for process in both:
        finish(process)
    faulty.check({"web": 3})

    with faulty.hold("run", "d1", "d2", "p1", "p2") as holds:
        first = faulty.start("deploy", faulty.image("2"), "--replicas", "3", *AT_ONCE)
        any_of(holds)
        second = faulty.start("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
        wait_for("the second wish", lambda: faulty.korch.objects("deployment", "web")[0]["spec"]["replicas"] == 4)
    overtaken, won = finish(first, status=9), finish(second)
    assert "another command changed it" in overtaken.err, overtaken
    assert "following" in won.err, won
    faulty.check({"web": 4})
    assert app_image(faulty) == {"1"}


def test_two_apps_at_the_same_time(faulty: Faulty) -> None:
    with faulty.hold("run", "d1", "d2", "p1", "p2") as holds:
        one = faulty.start("deploy", faulty.image(), "--name", "one", "--replicas", "3", *AT_ONCE)
        any_of(holds)
        two = faulty.start("deploy", faulty.image(), "--name", "two", "--replicas", "3", *AT_ONCE)
        wait_for("the second wish", lambda: "two" in faulty.korch("get", "deployments").out)
    finish(one)
    assert "following" in finish(two).err
    faulty.check({"one": 3, "two": 3})


def test_a_node_that_has_seen_a_newer_master(faulty: Faulty) -> None:
    faulty.korch("deploy", faulty.image(), "--replicas", "4", *AT_ONCE)
    faulty.shell("d1", "echo 500 >$(echo /var/lib/korch/*/epoch)")  # a state that was brought back from a copy
    faulty.korch("deploy", faulty.image("2"), "--replicas", "4", *AT_ONCE)
    faulty.check({"web": 4})
    assert int(faulty.shell("p1", "cat /var/lib/korch/*/epoch")) >= 500

    faulty.forget_images()
    faulty.korch("deploy", faulty.image(), "--replicas", "8", "--no-wait")  # one node has told what the tag means
    with faulty.hold("pull", "d1", "p1") as holds:  # no lock is held while it pulls
        sync = faulty.start("sync")
        any_of(holds)
        for hold in holds:
            faulty.shell(hold.node, "echo 100000 >$(echo /var/lib/korch/*/epoch)")
    run = finish(sync, status=5)
    assert run.err.count("Error: ") == 1, run
    assert "a newer master has acted there (epoch 100000" in run.err, run
    faulty.korch("deploy", faulty.image(), "--replicas", "8", *AT_ONCE)
    faulty.check({"web": 8})


# The state


@pytest.fixture
def small_home(faulty: Faulty) -> Iterator[Path]:
    """KORCH_HOME on a file system of its own, of 8 MiB."""
    home = faulty.korch.home
    home.mkdir(parents=True, exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "korch-test", home), check=True)
    yield home
    subprocess.run(("umount", "-l", home), check=True)


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return path
    raise AssertionError("the disk does not get full")


def test_a_full_disk_on_the_master(faulty: Faulty, small_home: Path) -> None:
    faulty.korch("deploy", faulty.image(), "--replicas", "3", *AT_ONCE)
    filler = fill(small_home)
    command = ("deploy", faulty.image("2"), "--replicas", "3", *AT_ONCE)
    faulty.korch.fails(*command, status=11, says=["no space left", str(small_home)])
    filler.unlink()
    faulty.check({"web": 3})
    assert app_image(faulty) == {"1"}

    with faulty.hold("run", "d1", "d2", "p1", "p2") as holds:
        deploy = faulty.start(*command)
        any_of(holds)
        filler = fill(small_home)
    run = finish(deploy, status=11)
    assert run.err.count("Error: ") == 1, run
    assert "no space left" in run.err, run
    filler.unlink()
    faulty.korch(*command)
    faulty.check({"web": 3})
    assert app_image(faulty) == {"2"}


def read_only(faulty: Faulty, *words: str) -> Run:
    """`korch` where KORCH_HOME is on a read-only mount."""
    script = 'mount --bind "$KORCH_HOME" "$KORCH_HOME" && mount -o remount,ro,bind "$KORCH_HOME" && exec "$@"'
    line = ("unshare", "-m", "sh", "-c", script, "sh", str(KORCH), *words)
    done = subprocess.run(line, capture_output=True, text=True, env=faulty.korch.environment(), check=False)
    return Run(words, done.returncode, done.stdout, done.stderr)


def test_a_state_file_that_cannot_be_used(faulty: Faulty) -> None:
    command = ("deploy", faulty.image(), "--replicas", "3", *AT_ONCE)
    faulty.korch(*command)
    before = faulty.check({"web": 3})
    state = next(faulty.korch.home.glob("clusters/*/state.db"))

    run = read_only(faulty, "deploy", faulty.image("2"), "--replicas", "2", *AT_ONCE)
    assert run.status == 11, run
    assert "read-only" in run.err, run
    assert "Hint: " in run.err, run

    locker = sqlite3.connect(state)
    locker.execute("BEGIN IMMEDIATE")
    faulty.korch.fails(*command, status=11, says=["locked by", f"pid {os.getpid()}"])
    locker.rollback()
    locker.close()

    copy = shutil.copy(state, state.with_suffix(".copy"))
    for damage, text in ((state.stat().st_size // 2, "damaged"), (0, "damaged")):
        os.truncate(state, damage)
        faulty.korch.fails(*command, status=11, says=[str(state), text, "korch adopt"])
        shutil.copy(copy, state)
    state.write_bytes(random.Random(1).randbytes(state.stat().st_size))
    faulty.korch.fails(*command, status=11, says=[str(state), "damaged", "korch adopt"])
    shutil.copy(copy, state)

    faulty.korch(*command)
    assert names(faulty.check({"web": 3})) == names(before)
