"""Which containers may be removed as surplus: only proven ones, and never many in one pass."""

from korch.engines.names import Identity
from korch.engines.observed import ObservedContainer
from korch.nodes.plan import plan_strays
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec


def container(uid: str, name: str = "web", *, cluster: str = "c1", owner: str = "web") -> ObservedContainer:
    identity = Identity(cluster, "default", f"{owner}-{uid}", uid, name, owner, 1, "h")
    own = f"korch_{uid}" if name == "web" else f"korch_{name}_{uid}"
    return ObservedContainer(identity=identity, id=uid * 4, name=own, image="i", image_id="", state="running")


def pod(uid: str, node: str) -> Pod:
    return Pod(
        metadata=ObjectMeta(name=f"web-{uid}", uid=uid),
        spec=PodSpec(containers=(Container(name="web", image="i"),), node_name=node),
    )


def test_a_pod_of_this_node_is_no_stray() -> None:
    assert plan_strays([container("a")], "c1", "n1", {"a": pod("a", "n1")}, frozenset()).surplus == ()


def test_a_pod_bound_elsewhere_is_surplus_here() -> None:
    strays = plan_strays([container("a")], "c1", "n1", {"a": pod("a", "n2")}, frozenset())
    assert [found.name for found in strays.surplus] == ["korch_a"]


def test_an_ended_uid_is_surplus_and_an_unknown_one_an_orphan() -> None:
    strays = plan_strays([container("a"), container("b")], "c1", "n1", {}, frozenset({"a"}))
    assert [found.name for found in strays.surplus] == ["korch_a"]
    assert [found.name for found in strays.orphans] == ["korch_b"]


def test_another_cluster_is_never_looked_at() -> None:
    strays = plan_strays([container("a", cluster="c2")], "c1", "n1", {}, frozenset({"a"}))
    assert (strays.surplus, strays.orphans, strays.held_back) == ((), (), 0)


def test_one_pass_removes_at_most_three_or_a_fifth() -> None:
    few = [container(f"{number:02}") for number in range(8)]
    strays = plan_strays(few, "c1", "n1", {}, frozenset(f"{number:02}" for number in range(8)))
    assert (len(strays.surplus), strays.held_back) == (3, 5)
    many = [container(f"{number:02}") for number in range(40)]
    strays = plan_strays(many, "c1", "n1", {}, frozenset(f"{number:02}" for number in range(40)))
    assert (len(strays.surplus), strays.held_back) == (8, 32)


def test_others_surplus_does_not_use_up_the_limit_of_this_runs() -> None:
    seen = [container(f"{number}", owner="other") for number in range(5)] + [container("x", owner="web")]
    ended = frozenset([*map(str, range(5)), "x"])
    strays = plan_strays(seen, "c1", "n1", {}, ended, lambda identity: identity.owner == "web")
    assert [found.name for found in strays.surplus] == ["korch_x"]
    assert strays.held_back == 0


def test_a_pod_of_several_containers_counts_once_and_goes_as_a_whole() -> None:
    seen = [container(f"{number}", name) for number in range(5) for name in ("POD", "web", "log")]
    strays = plan_strays(seen, "c1", "n1", {}, frozenset(map(str, range(5))))
    uids = [found.identity.uid for found in strays.surplus if found.identity is not None]
    assert (len(uids), len(set(uids)), strays.held_back) == (9, 3, 2)
