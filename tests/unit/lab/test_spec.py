import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import InvalidError
from korch.lab.spec import LAST_NUMBER, Names, NodeSpec, assign_numbers, check_lab_name, memory_bytes, node_specs

LAB_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
NODE_NAMES = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=32)


@pytest.mark.parametrize(("text", "size"), [("1024M", 1 << 30), ("2G", 2 << 30), ("512Mi", 512 << 20), ("4096", 4096)])
def test_memory_sizes(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "1T", "-1M", "1.5G", "M"])
def test_memory_that_is_no_size(text: str) -> None:
    with pytest.raises(InvalidError, match="not a size"):
        memory_bytes(text)


@pytest.mark.parametrize("name", ["", "n-1", "N1", "n_1", "_lxcfs", "a/b", "n" * 33, "n1\n"])
def test_node_names_that_the_kernel_or_we_could_not_tell_apart(name: str) -> None:
    with pytest.raises(InvalidError, match="not usable"):
        NodeSpec(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a" * 33, "a.b", "a\n"])
def test_lab_names(name: str) -> None:
    with pytest.raises(InvalidError, match="not usable"):
        check_lab_name(name)


def test_usual_lab() -> None:
    specs = node_specs(nodes=2, engine="podman", sshd_only=1, busybox=1)
    assert [(spec.name, spec.engine, spec.busybox) for spec in specs] == [
        ("n1", "podman", False),
        ("n2", "podman", False),
        ("s1", "none", False),
        ("b1", "podman", True),
    ]
    assert specs[0].login_shell == "/bin/bash"
    assert specs[3].login_shell == "/bin/sh"


@given(LAB_NAMES)
def test_link_names_fit_the_kernel(name: str) -> None:
    names = Names(name)
    for link in (names.bridge, names.link(LAST_NUMBER), names.tap(LAST_NUMBER)):
        assert len(link) <= 15  # IFNAMSIZ with its final zero
    assert int(names.mac(LAST_NUMBER)[:2], 16) & 3 == 2  # locally administered, not multicast


@given(LAB_NAMES, NODE_NAMES, LAB_NAMES, NODE_NAMES)
def test_namespace_names_tell_lab_and_node(lab: str, node: str, other_lab: str, other_node: str) -> None:
    same = (lab, node) == (other_lab, other_node)
    assert (Names(lab).netns(node) == Names(other_lab).netns(other_node)) == same
    assert Names(lab).netns(node).rpartition("-")[::2] == (Names(lab).prefix, node)


def test_default_lab_has_its_own_network() -> None:
    assert Names("lab").subnet_candidates() == ("10.78.0",)
    assert Names("lab").bridge == "korch-lab"
    assert Names("lab").netns("n1") == "korch-lab-n1"


@given(LAB_NAMES.filter(lambda name: name != "lab"))
def test_other_labs_stay_off_the_default_network(name: str) -> None:
    candidates = Names(name).subnet_candidates()
    assert "10.78.0" not in candidates
    assert len(set(candidates)) == 250


@given(st.lists(NODE_NAMES, unique=True, max_size=30), st.lists(NODE_NAMES, unique=True, max_size=30))
def test_numbers_are_unique_and_kept(before: list[str], after: list[str]) -> None:
    first = assign_numbers(tuple(before), {})
    second = assign_numbers(tuple(after), first)
    assert list(second) == after
    assert len(set(second.values())) == len(after)
    assert all(second[name] == first[name] for name in set(before) & set(after))


def test_full_network_is_said() -> None:
    with pytest.raises(InvalidError, match="room for 244"):
        assign_numbers(tuple(f"n{number}" for number in range(245)), {})
