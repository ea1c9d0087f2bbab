"""Both layouts of control groups, on plain files in place of the kernel's."""

from pathlib import Path

import pytest

from korch.errors import SetupError
from korch.lab.cgroups import Groups, parse_mounts

HYBRID = """\
proc /proc proc rw 0 0
tmpfs /sys/fs/cgroup tmpfs ro,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
"""


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """A version 2 tree as a systemd machine has it, after the kernel has made its files in the new groups."""
    for folder in ("", "korch-lab", "korch-lab/n1"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")
        (tmp_path / folder / "cgroup.procs").write_text("")
        for name in ("cgroup.subtree_control", "cpu.max", "memory.max", "cgroup.freeze"):
            (tmp_path / folder / name).write_text("")
    return tmp_path


def groups_v2(tree: Path) -> Groups:
    return Groups("korch-lab", f"cgroup2 {tree} cgroup2 rw,nosuid,nsdelegate 0 0\n")


def test_mounts_of_a_hybrid_machine() -> None:
    found = {str(tree.mount): tree for tree in parse_mounts(HYBRID)}
    assert found["/sys/fs/cgroup/cpu,cpuacct"].controllers == {"cpu", "cpuacct"}
    assert found["/sys/fs/cgroup/systemd"].controllers == frozenset()
    assert found["/sys/fs/cgroup/unified"].unified
    assert len(found) == 4
    assert Groups("korch-lab", HYBRID).version == 1


def test_no_control_groups_at_all() -> None:
    with pytest.raises(SetupError, match="no control groups"):
        Groups("korch-lab", "proc /proc proc rw 0 0\n")


def test_unified_limits(unified: Path) -> None:
    groups = groups_v2(unified)
    assert groups.version == 2
    groups.create("n1", cpus=1.5, memory_bytes=1 << 30)
    node = unified / "korch-lab/n1"
    assert (node / "cpu.max").read_text() == "150000 100000"
    assert (node / "memory.max").read_text() == str(1 << 30)
    for above in (unified, unified / "korch-lab"):
        assert (above / "cgroup.subtree_control").read_text() == "+cpu +cpuset +io +memory +pids"


def test_unified_node_lives_one_level_down(unified: Path) -> None:
    groups = groups_v2(unified)
    assert groups.joins("n1") == (unified / "korch-lab/n1/cgroup.procs",)
    assert groups.inner_joins("n1") == (unified / "korch-lab/n1/init.scope/cgroup.procs",)
    assert (unified / "korch-lab/n1/init.scope").is_dir()


def test_unified_freeze(unified: Path) -> None:
    groups = groups_v2(unified)
    groups.freeze("n1", True)
    assert (unified / "korch-lab/n1/cgroup.freeze").read_text() == "1"
    assert groups.is_frozen("n1")
    groups.freeze("n1", False)
    assert not groups.is_frozen("n1")


def test_unified_in_a_container_is_explained(unified: Path) -> None:
    (unified / "cgroup.subtree_control").unlink()
    with pytest.raises(SetupError, match="cannot be limited") as caught:
        groups_v2(unified).create("n1", cpus=1)
    assert "not in a container" in caught.value.hint


def test_processes_are_found_at_any_depth(unified: Path) -> None:
    deep = unified / "korch-lab/n1/docker/abc"
    deep.mkdir(parents=True)
    (deep / "cgroup.procs").write_text("123\n456\n")
    groups = groups_v2(unified)
    assert groups.pids("n1") == {123, 456}
    assert groups.pids() == {123, 456}
    assert groups.pids("n2") == frozenset()
    assert groups.children() == ("n1",)


def test_separate_trees_get_their_own_limits(tmp_path: Path) -> None:
    mounts = ""
    for name in ("cpu,cpuacct", "cpuset", "memory", "freezer"):
        node = tmp_path / name / "korch-lab/n1"
        node.mkdir(parents=True)
        mounts += f"cgroup {tmp_path / name} cgroup rw,{name} 0 0\n"
    for name in ("cpu.cfs_period_us", "cpu.cfs_quota_us"):
        (tmp_path / "cpu,cpuacct/korch-lab/n1" / name).write_text("")
    for group in ("", "korch-lab", "korch-lab/n1"):
        (tmp_path / "cpuset" / group / "cpuset.cpus").write_text("" if group else "0-1\n")
        (tmp_path / "cpuset" / group / "cpuset.mems").write_text("" if group else "0\n")
    (tmp_path / "memory/korch-lab/n1/memory.limit_in_bytes").write_text("")
    (tmp_path / "freezer/korch-lab/n1/freezer.state").write_text("THAWED\n")
    groups = Groups("korch-lab", mounts)
    groups.create("n1", cpus=0.5, memory_bytes=300)
    assert (tmp_path / "cpu,cpuacct/korch-lab/n1/cpu.cfs_quota_us").read_text() == "50000"
    assert (tmp_path / "cpuset/korch-lab/n1/cpuset.cpus").read_text() == "0-1"
    assert (tmp_path / "memory/korch-lab/n1/memory.limit_in_bytes").read_text() == "300"
    assert groups.inner_joins("n1") == ()
    groups.freeze("n1", True)
    assert (tmp_path / "freezer/korch-lab/n1/freezer.state").read_text().strip() == "FROZEN"
