"""Every filter: what it refuses, in which words, and what it lets pass."""

from typing import Any

import pytest

from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod, Toleration
from korch.scheduler.select import schedule
from tests.unit.scheduler.world import (
    GI,
    HOST,
    MI,
    NOW,
    ZONE,
    apart,
    counts,
    decide,
    load,
    near,
    node,
    on_nodes,
    pod,
    pods,
    shot,
    spread,
)

EXISTS = (Toleration(operator="Exists"),)


def refusal(one: Node, wanted: Pod, *running: Pod, **more: Any) -> str:
    """The sentence for a pod that its only node refuses."""
    decision = decide([one], wanted, *running, **more)
    assert decision.node is None
    assert decision.refused[0].count == 1
    assert decision.verdicts[0].refusal is not None
    assert decision.verdicts[0].refusal.detail
    return decision.message.removeprefix("0/1 nodes: 1 ")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("Unreachable", "unreachable"),
        ("AuthFailed", "refuses korch's login"),
        ("HostKeyUnknown", "has a host key that is not trusted yet"),
        ("HostKeyChanged", "shows a changed host key"),
        ("HostKeyRevoked", "shows a revoked host key"),
        ("NoCommonAlgorithm", "has an sshd too new or too old for korch"),
        ("NoPermission", "does not let korch use its container engine"),
        ("EngineMissing", "has no container engine"),
        ("EngineDown", "has a container engine that does not answer"),
        ("ClaimedByOther", "belongs to another cluster"),
        ("NotInInventory", "not in the inventory any more"),
        ("DiskPressure", "low on disk"),
        ("MemoryPressure", "low on memory"),
        ("Cordoned", "cordoned"),
        ("SomethingNew", "not ready (SomethingNew)"),
        ("", "not ready"),
    ],
)
def test_states_in_peoples_words(state: str, words: str) -> None:
    assert refusal(node("a", state=state), pod()) == words


def test_a_states_message_is_in_the_detail() -> None:
    decision = decide([node("a", state="Unreachable", message="no answer for 12 s")], pod())
    assert decision.verdicts[0].refusal is not None
    assert decision.verdicts[0].refusal.detail == "unreachable: no answer for 12 s"


def test_a_node_without_condition_was_never_seen() -> None:
    bare = Node(metadata=node("a").metadata)
    assert refusal(bare, pod()) == "not contacted yet"


@pytest.mark.parametrize(
    "wanted", [pod(ports=["8080"]), pod(annotations={"korch.dev/publish": "80/tcp"})], ids=["fixed", "free port"]
)
def test_unknown_address_refuses_ports_only(wanted: Pod) -> None:
    unknown = node("a", state="AddressUnknown")
    assert refusal(unknown, wanted) == "has no known address for ports"
    assert decide([unknown], pod()).node == "a"


@pytest.mark.parametrize("kind", ["DiskPressure", "MemoryPressure"])
def test_pressure_conditions(kind: str) -> None:
    assert refusal(node("a", pressure=kind), pod()).startswith("low on")


def test_pressure_is_worse_than_an_unknown_address() -> None:
    assert refusal(node("a", state="AddressUnknown", pressure="DiskPressure"), pod()) == "low on disk"


def test_cordon_and_its_toleration() -> None:
    cordoned = node("a", cordoned=True)
    assert refusal(cordoned, pod()) == "cordoned"
    assert decide([cordoned], pod(tolerations=EXISTS)).node == "a"


def test_limit() -> None:
    decision = decide([node("a"), node("b")], pod(), allowed_nodes=frozenset({"b"}))
    assert decision.node == "b"
    assert refusal(node("a"), pod(), allowed_nodes=frozenset()) == "left out by --limit"


@pytest.mark.parametrize(
    ("toleration", "passes"),
    [
        (None, False),
        (Toleration(key="dedicated", operator="Exists"), True),
        (Toleration(key="dedicated", value="db"), True),
        (Toleration(key="dedicated", operator="Equal", value="web"), False),
        (Toleration(key="dedicated", operator="Exists", effect="NoExecute"), False),
        (Toleration(key="other", operator="Exists"), False),
        (Toleration(operator="Exists"), True),
    ],
)
@pytest.mark.parametrize("effect", ["NoSchedule"])
def test_taints(toleration: Toleration | None, passes: bool, effect: str) -> None:
    tainted, wanted = node("a", taints=[f"dedicated=db:{effect}"]), pod(tolerations=(toleration,) if toleration else ())
    if passes:
        assert decide([tainted], wanted).node == "a"
    else:
        assert refusal(tainted, wanted) == "tainted dedicated=db"


def test_no_execute_taints_refuse_too() -> None:
    assert refusal(node("a", taints=["broken:NoExecute"]), pod()) == "tainted broken"


def test_node_selector() -> None:
    wanted = pod(node_selector={"zone": "rack-1"})
    assert refusal(node("a"), wanted) == "does not match the node selector (zone=rack-1)"
    decision = decide([node("a", labels={"zone": "rack-2"}), node("b", labels={"zone": "rack-1"})], wanted)
    assert decision.node == "b"
    assert "has zone=rack-2" in str(decision.verdicts)


@pytest.mark.parametrize(
    ("affinity", "passes"),
    [
        (on_nodes("rank", "In", "2", "3"), True),
        (on_nodes("rank", "In", "4"), False),
        (on_nodes("rank", "NotIn", "3"), False),
        (on_nodes("gpu", "NotIn", "yes"), True),
        (on_nodes("rank", "Exists"), True),
        (on_nodes("gpu", "Exists"), False),
        (on_nodes("gpu", "DoesNotExist"), True),
        (on_nodes("rank", "Gt", "2"), True),
        (on_nodes("rank", "Gt", "3"), False),
        (on_nodes("rank", "Lt", "10"), True),
        (on_nodes("gpu", "Lt", "10"), False),
        (on_nodes("metadata.name", "In", "a", field=True), True),
        (on_nodes("metadata.name", "In", "b", field=True), False),
        (on_nodes(HOST, "In", "a"), True),
        (on_nodes("kubernetes.io/arch", "In", "amd64"), True),
    ],
)
def test_node_affinity(affinity: Any, passes: bool) -> None:
    one, wanted = node("a", labels={"rank": "3"}), pod(affinity=affinity)
    if passes:
        assert decide([one], wanted).node == "a"
    else:
        assert refusal(one, wanted) == "does not match the node affinity"


@pytest.mark.parametrize(("arches", "passes"), [("amd64,arm64", True), ("arm64", False), ("", True)])
def test_architecture(arches: str, passes: bool) -> None:
    wanted = pod(annotations={"korch.dev/arch": arches})
    if passes:
        assert decide([node("a")], wanted).node == "a"
    else:
        assert refusal(node("a"), wanted) == "of another architecture (the image is for arm64)"


def test_freshness() -> None:
    assert decide([node("a")], pod(), loads={"a": load(age_s=299)}).node == "a"
    stale = decide([node("a")], pod(), loads={"a": load(age_s=640)})
    assert stale.message == "0/1 nodes: 1 not measured for more than 300 s"
    assert "last measured 640 s ago" in str(stale.verdicts)
    assert refusal(node("a"), pod(), loads={"a": NodeLoad()}) == "without a load sample"


@pytest.mark.parametrize(
    ("total", "free", "passes"),
    [
        (1000 * GI, 2 * GI, True),
        (1000 * GI, GI - 1, False),
        (4 * GI, GI // 2, True),
        (4 * GI, GI // 6, False),
        (0, 0, True),
    ],
)
def test_disk_floor_is_the_smaller_of_a_gib_and_a_twentieth(total: int, free: int, passes: bool) -> None:
    decision = decide([node("a")], pod(), loads={"a": load(disk=total, disk_free=free)})
    assert (decision.node == "a") is passes
    assert passes or "low on disk" in decision.message


def test_requested_memory_is_kept_within_allocatable() -> None:
    busy = [pod("old", on="a", memory="3Gi", started_s_ago=3600)]
    assert refusal(node("a"), pod(memory="2Gi"), *busy) == "lacks memory (2Gi asked)"
    assert decide([node("a")], pod(memory="1Gi"), *busy).node == "a"
    assert "1Gi not yet promised" in str(decide([node("a")], pod(memory="2Gi"), *busy).verdicts)


def test_requested_cpu_is_kept_within_allocatable() -> None:
    busy = [pod("old", on="a", cpu="3500m")]
    assert refusal(node("a"), pod(cpu="501m"), *busy) == "lacks CPU (501m asked)"
    assert decide([node("a")], pod(cpu="500m"), *busy).node == "a"


def test_who_asks_for_nothing_fits_where_all_is_promised() -> None:
    assert decide([node("a")], pod(), pod("old", on="a", cpu="9", memory="9Gi")).node == "a"


def test_really_free_memory_counts_too() -> None:
    full = {"a": load(free=100 * MI)}
    assert refusal(node("a"), pod(memory="128Mi"), loads=full) == "lacks really free memory (128Mi asked)"
    assert decide([node("a")], pod(memory="100Mi"), loads=full).node == "a"


@pytest.mark.parametrize(("started_s_ago", "passes"), [(3600, True), (5, False), (None, False)])
def test_memory_of_pods_placed_after_the_sample_is_not_free_any_more(started_s_ago: float | None, passes: bool) -> None:
    phase = "Pending" if started_s_ago is None else "Running"
    recent = pod("old", on="a", memory="512Mi", started_s_ago=started_s_ago, phase=phase)
    decision = decide([node("a")], pod(memory="256Mi"), recent, loads={"a": load(free=600 * MI)})
    assert (decision.node == "a") is passes


def test_ended_pods_hold_nothing_and_leaving_ones_still_do() -> None:
    old = {"cpu": "4", "ports": ["80"]}
    assert decide([node("a")], pod(**old), pod("old", on="a", phase="Succeeded", **old)).node == "a"
    assert decide([node("a")], pod(**old), pod("old", on="a", phase="Failed", **old)).node == "a"
    assert decide([node("a")], pod(**old), pod("old", on="a", leaving=True, **old)).node is None


def test_max_pods() -> None:
    full = [pod(f"old-{n}", on="a") for n in range(3)]
    assert refusal(node("a", pods=3), pod(), *full) == "full (pods)"
    assert decide([node("a", pods=4)], pod(), *full).node == "a"


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ("8080", False),
        ("8081", True),
        ("8080/UDP", True),
        ("0.0.0.0:8080", False),
        ("10.0.0.1:8080", False),
        ("9000", False),
        ("10.0.0.1:9000", False),
        ("10.0.0.2:9000", True),
    ],
)
def test_host_ports_by_protocol_and_address(wanted: str, passes: bool) -> None:
    holder = pod("old", on="a", ports=["8080", "10.0.0.1:9000"])
    if passes:
        assert decide([node("a")], pod(ports=[wanted]), holder).node == "a"
    else:
        number = wanted.rpartition(":")[2]
        assert refusal(node("a"), pod(ports=[wanted]), holder) == f"has port {number} taken"


def test_anti_affinity_binds_both_sides() -> None:
    nodes = [node("a")]
    assert refusal(nodes[0], pod(affinity=apart("db")), pod("old", app="db", on="a")).startswith(
        "already has a pod app=db"
    )
    assert refusal(nodes[0], pod(app="db"), pod("old", on="a", affinity=apart("db"))).startswith(
        "already has a pod that"
    )
    assert decide(nodes, pod(affinity=apart("db")), pod("old", app="cache", on="a")).node == "a"


def test_anti_affinity_over_zones() -> None:
    nodes = [node("a", zone="z1"), node("b", zone="z1"), node("c", zone="z2")]
    decision = decide(nodes, pod(affinity=apart("web", ZONE)), pod("old", on="a"))
    assert decision.node == "c"
    assert {r.phrase: r.count for r in decision.refused} == {
        "already have a pod app=web in the same zone it must keep away from": 2
    }


def test_affinity_needs_a_pod_nearby() -> None:
    nodes = [node("a"), node("b")]
    assert decide(nodes, pod(affinity=near("db")), pod("old", app="db", on="b")).node == "b"
    lonely = decide(nodes, pod(affinity=near("db")))
    assert lonely.message == "0/2 nodes: 2 not near pods app=db (node)"
    assert "no label rack" in decide(nodes, pod(affinity=near("db", "rack")), pod("o", app="db", on="b")).message


def test_the_first_of_a_group_may_start_anywhere_and_the_others_follow() -> None:
    nodes = [node("a", zone="z1"), node("b", zone="z1"), node("c", zone="z2")]
    decisions = schedule(shot(nodes), pods(6, affinity=near("web", ZONE)))
    zones = {"a": "z1", "b": "z1", "c": "z2"}
    assert len({zones[d.node or ""] for d in decisions}) == 1


def test_hard_spread_keeps_within_the_skew() -> None:
    nodes = [node("a", zone="z1"), node("b", zone="z2", memory="256Mi"), node("c")]
    decisions = schedule(shot(nodes), pods(5, memory="128Mi", topology_spread_constraints=spread(1)))
    assert counts(decisions) == {"a": 3, "b": 2}
    late = schedule(shot(nodes), pods(9, memory="128Mi", topology_spread_constraints=spread(1)))
    assert counts(late) == {"a": 3, "b": 2, None: 4}
    pending = next(d for d in late if d.node is None)
    assert {r.category: r.phrase for r in pending.refused} == {
        "Memory": "lacks memory (128Mi asked)",
        "Spread": "would spread unevenly over zones",
        "TopologyLabel": f"has no label {ZONE}",
    }


def test_a_halted_zone_does_not_hold_up_spreading() -> None:
    nodes = [node("a", zone="z1"), node("b", zone="z2", state="Unreachable")]
    decisions = schedule(shot(nodes), pods(3, topology_spread_constraints=spread(1)))
    assert {d.node for d in decisions} == {"a"}


def test_volumes_are_followed() -> None:
    wanted = pod(volumes=["data"])
    nodes = [node("a"), node("b", volumes=["data"]), node("c", volumes=["default/data"])]
    assert decide(nodes[:2], wanted, loads={"b": load(0.9)}).node == "b"
    assert decide([nodes[0], nodes[2]], wanted, loads={"c": load(0.9)}).node == "c"
    assert decide(nodes[:1], wanted, pod("old", on="a", volumes=["data"])).node == "a"
    gone = decide([nodes[0], node("b", volumes=["data"], state="Unreachable")], wanted)
    assert gone.message == "0/2 nodes: 1 unreachable, 1 without volume data (it is on b)"


def test_replicas_on_a_new_volume_stay_together() -> None:
    decisions = schedule(shot([node("a"), node("b")]), pods(3, volumes=["data"]))
    assert len({d.node for d in decisions}) == 1


def test_the_sentence_of_the_readme() -> None:
    nodes = [node("a", memory="256Mi"), node("b", memory="256Mi"), node("c", cordoned=True)]
    assert decide(nodes, pod(memory="512Mi")).message == "0/3 nodes: 2 lack memory (512Mi asked), 1 cordoned"


def test_no_nodes_at_all() -> None:
    assert decide([], pod()).message == "0/0 nodes: the cluster has no nodes"


def test_pods_on_unknown_nodes_hold_nothing() -> None:
    assert decide([node("a")], pod(cpu="4"), pod("old", on="gone", cpu="4")).node == "a"


def test_now_is_passed_in() -> None:
    assert shot([node("a")]).now == NOW


def test_no_image_is_pulled_that_does_not_fit() -> None:
    has = node("a", images=["web:1"], image_bytes=3 * GI)
    loads = {"a": load(disk=100 * GI, disk_free=2 * GI), "b": load(disk=100 * GI, disk_free=4 * GI - 1)}
    decision = decide([has, node("b")], pod(image="web:1", name="one"), loads=loads)
    assert decision.node == "a", "it is there already"
    cordoned = node("a", images=["web:1"], image_bytes=3 * GI, cordoned=True)
    decision = decide([cordoned, node("b")], pod(image="web:1"), loads=loads)
    assert decision.node is None
    assert "1 lacks disk for the image (3Gi unpacked)" in decision.message
    roomy = {**loads, "b": load(disk=100 * GI, disk_free=4 * GI)}
    assert decide([cordoned, node("b")], pod(image="web:1"), loads=roomy).node == "b", "a GiB stays free"
    assert decide([cordoned, node("b")], pod(image="web:2"), loads=loads).node == "b", "nobody knows how large it is"
