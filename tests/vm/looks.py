"""Looks at a virtual machine from outside, by testinfra."""

import time
from collections.abc import Callable

from testinfra.host import Host

from tests.vm.transcript import StepFailedError, Transcript


def check_replica(transcript: Transcript, engine: str, host: Host, version: str) -> None:
    """One container, with systemd's limits around it, that serves the version."""
    identifiers = ids(engine, host)
    transcript.check(f"{engine}: containers that run", len(identifiers), 1)
    pid = host.check_output("%s inspect --format '{{.State.Pid}}' %s", engine, identifiers[0])
    group = host.check_output("cut -d: -f3 /proc/%s/cgroup", pid)
    limit = host.check_output("cat %s", f"/sys/fs/cgroup{group}/memory.max")
    transcript.check(f"{engine}: memory limit in systemd's tree", ("/" in group, limit), (True, str(32 << 20)))
    page = host.check_output("nsenter -t %s -n busybox wget -qO- http://127.0.0.1:8080/", pid)
    transcript.check(f"{engine}: page", page.rpartition(" on ")[0], f"web version {version}")


def ids(engine: str, host: Host) -> list[str]:
    """The korch containers that run there."""
    return sorted(host.check_output(f"{engine} ps -q --no-trunc --filter label=korch.dev/cluster").split())


def has_one(engine: str, host: Host) -> bool:
    """Whether exactly one runs."""
    return len(ids(engine, host)) == 1


def until(what: str, ready: Callable[[], bool], timeout_s: float = 300.0) -> None:
    """Return when it is so; StepFailedError when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise StepFailedError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.5)
