"""What containers use, read from the figures of both versions of cgroups."""

from korch.client.base import ContainerUsage
from korch.nodes.answer import parse_answer
from korch.nodes.usage import parse_usage

V1 = """@korch begin
@korch usage u1 web 100.00
/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes:5000000
/sys/fs/cgroup/memory/docker/abc/memory.stat:total_inactive_file 1000000
/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpuacct.usage:7000000000
@korch usage u1 web 100.50
/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes:6000000
/sys/fs/cgroup/memory/docker/abc/memory.stat:total_inactive_file 1000000
/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpuacct.usage:7125000000
@korch end
"""
V2 = """@korch begin
@korch usage u2 db 50.00
/sys/fs/cgroup/machine.slice/libpod-1.scope/container/cpu.stat:usage_usec 1000000
/sys/fs/cgroup/machine.slice/libpod-1.scope/container/memory.current:900
/sys/fs/cgroup/machine.slice/libpod-1.scope/container/memory.stat:inactive_file 1000
@korch usage u1 web 50.00
@korch usage u2 db 51.00
/sys/fs/cgroup/machine.slice/libpod-1.scope/container/cpu.stat:usage_usec 3000000
/sys/fs/cgroup/machine.slice/libpod-1.scope/container/memory.current:900
/sys/fs/cgroup/machine.slice/libpod-1.scope/container/memory.stat:inactive_file 1000
@korch usage u1 web 51.00
@korch usage u3 late 51.01
/sys/fs/cgroup/x/cpu.stat:usage_usec 5
/sys/fs/cgroup/x/memory.current:7
@korch usage broken
nonsense
@korch end
"""


def test_cgroups_of_version_1() -> None:
    assert parse_usage(parse_answer(V1)) == (ContainerUsage("u1", "web", 250, 5_000_000),)


def test_cgroups_of_version_2_and_what_cannot_be_told() -> None:
    assert parse_usage(parse_answer(V2)) == (
        ContainerUsage("u1", "web", None, None),
        ContainerUsage("u2", "db", 2000, 0),
        ContainerUsage("u3", "late", None, 7),
    )


def test_a_counter_that_goes_back_tells_nothing() -> None:
    """The container was started again between the looks."""
    again = V1.replace("cpuacct.usage:7125000000", "cpuacct.usage:5")
    assert parse_usage(parse_answer(again))[0].cpu_millis is None
