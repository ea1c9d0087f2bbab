import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.engines.names import (
    Identity,
    container_name,
    identity_of,
    labels_of,
    short_uid,
    volume_name,
    volume_of,
)

UID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def test_names_are_those_of_the_design() -> None:
    assert container_name("lab", "default", "web-5d-x", "web", UID) == "korch_lab_default_web-5d-x_web_6f9619ff"


@given(LABEL, LABEL, st.lists(LABEL, min_size=1, max_size=4).map(".".join), LABEL, st.uuids().map(str))
def test_names_are_legal_for_both_engines(cluster: str, namespace: str, pod: str, container: str, uid: str) -> None:
    name = container_name(cluster, namespace, pod, container, uid)
    assert len(name) <= 200
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-")
    assert name.endswith(short_uid(uid))
    assert name == container_name(cluster, namespace, pod, container, uid)


@given(st.lists(LABEL, min_size=8, max_size=8))
def test_other_parts_give_other_names(parts: list[str]) -> None:
    one, two = tuple(parts[:4]), tuple(parts[4:])
    assert (container_name(*one, UID) == container_name(*two, UID)) == (one == two)


def test_long_names_differ_by_their_middle() -> None:
    pods = ("x" * 200 + "a" + "x" * 30, "x" * 200 + "b" + "x" * 30)
    one, two = (container_name("lab", "default", pod, "web", UID) for pod in pods)
    assert one != two


def test_labels_and_back() -> None:
    identity = Identity("id", "default", "web-1", UID, "web", "Deployment/web", 7, "abc")
    assert identity_of(labels_of(identity)) == identity


@pytest.mark.parametrize(
    "labels", [{}, {"korch.dev/cluster": "x"}, {"korch.dev/uid": "x"}, {"com.docker.compose.project": "x"}]
)
def test_other_containers_have_no_identity(labels: dict[str, str]) -> None:
    assert identity_of(labels) is None


def test_a_broken_generation_is_no_error() -> None:
    found = identity_of({"korch.dev/cluster": "c", "korch.dev/uid": "u", "korch.dev/generation": "x"})
    assert found == Identity("c", "", "", "u", "")


def test_volumes_and_back() -> None:
    name = volume_name("c1-2222-3333", "default", "my_data")
    assert volume_of("c1-2222-3333", name) == "default/my_data"
    assert volume_of("c2-2222-3333", name) == ""
    assert volume_of("c1-2222-3333", "data") == ""
