"""DaemonSets: which nodes get a pod, and how a change is rolled out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.daemonset import (
    HASH_LABEL,
    DaemonPlan,
    concerns_daemons,
    daemon_for,
    node_of,
    plan_daemons,
)
from korch.controllers.outcome import standing_of_daemons
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.meta import Condition, LabelSelector, ObjectMeta
from korch.resources.node import Node, NodeSpec, NodeStatus, Taint
from korch.resources.pod import (
    Affinity,
    Container,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    PodSpec,
    Toleration,
)
from korch.resources.podstate import is_available, is_counted, with_condition
from korch.resources.templates import template_hash
from korch.resources.times import rfc3339
from korch.resources.validation import problems_of
from korch.resources.workload import (
    DaemonSet,
    DaemonSetSpec,
    DaemonSetUpdateStrategy,
    PodTemplateSpec,
    RollingUpdateDaemonSet,
)
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import snapshot
from tests.unit.scheduler.world import NOW, load
from tests.unit.scheduler.world import node as real_node

SERIAL = itertools.count()


def daemonset(image: str = "log:1", *, limit: int | str = 1, min_ready: int = 0, **spec: object) -> DaemonSet:
    labels = {"app": "log"}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels),
        spec=PodSpec(containers=(Container(name="log", image=image),), **spec),  # type: ignore[arg-type]
    )
    strategy = DaemonSetUpdateStrategy(
        type="RollingUpdate", rolling_update=RollingUpdateDaemonSet(max_unavailable=limit)
    )
    made = DaemonSet(
        metadata=ObjectMeta(name="log", namespace="default", uid="ds1", generation=1),
        spec=DaemonSetSpec(
            selector=LabelSelector(match_labels=labels),
            template=template,
            update_strategy=strategy,
            min_ready_seconds=min_ready,
        ),
    )
    return with_defaults(made)


def node(
    name: str, *, state: str = "Ready", cordoned: bool = False, taints: tuple[Taint, ...] = (), **labels: str
) -> Node:
    ready = Condition(type="Ready", status="True" if state == "Ready" else "False", reason=state)
    return Node(
        metadata=ObjectMeta(name=name, labels=labels),
        spec=NodeSpec(unschedulable=cordoned, taints=taints),
        status=NodeStatus(conditions=() if state == "NotSeen" else (ready,)),
    )


class Toy:
    """Carries plans out on values; a deleted pod is gone when `end` is called."""

    def __init__(self, wish: DaemonSet, nodes: list[Node], now: float = 1_000_000.0) -> None:
        self.wish, self.nodes, self.now = wish, nodes, now
        self.pods: dict[str, Pod] = {}

    def plan(self) -> DaemonPlan:
        return plan_daemons(self.wish, self.nodes, tuple(self.pods.values()), self.now)

    def step(self) -> DaemonPlan:
        plan = self.plan()
        for pod in plan.delete:
            if pod.spec.node_name:
                self.pods[pod.metadata.name] = with_meta(pod, deletion_timestamp=rfc3339(self.now))
            else:
                del self.pods[pod.metadata.name]
        for name in plan.create:
            made = with_meta(daemon_for(self.wish, name), uid=f"uid-{next(SERIAL)}")
            assert made.metadata.name not in self.pods
            self.pods[made.metadata.name] = made
        self.wish = replace(self.wish, status=plan.status)
        return plan

    def end(self) -> None:
        self.pods = {name: pod for name, pod in self.pods.items() if pod.metadata.deletion_timestamp is None}

    def run(self, *, ready: bool = True) -> None:
        """What is bound and runs; pods of nodes that are down stay as they are."""
        up = {found.metadata.name for found in self.nodes if found.status.conditions[0].status == "True"}
        for name, pod in self.pods.items():
            if node_of(pod) in up and is_counted(pod):
                condition = Condition(type="Ready", status="True" if ready else "False")
                conditions = with_condition(pod.status.conditions, condition, rfc3339(self.now))
                bound = replace(pod, spec=replace(pod.spec, node_name=node_of(pod)))
                self.pods[name] = replace(bound, status=replace(bound.status, phase="Running", conditions=conditions))

    def settle(self) -> None:
        for _ in range(50):
            plan = self.step()
            self.end()
            self.run()
            if not (plan.create or plan.delete):
                return
        raise AssertionError("it never settles")

    def available(self) -> set[str]:
        return {node_of(pod) for pod in self.pods.values() if is_available(pod, 0, self.now)}

    def change(self, **more: object) -> None:
        made = daemonset(**more)  # type: ignore[arg-type]
        self.wish = replace(self.wish, spec=made.spec, metadata=replace(self.wish.metadata, generation=2))


NODES = [node("a", zone="x"), node("b", zone="x"), node("c", zone="y")]
GPU = Taint(key="gpu", effect="NoSchedule")


@pytest.mark.parametrize(
    ("nodes", "spec", "expected"),
    [
        pytest.param(NODES, {}, "abc", id="every node"),
        pytest.param(NODES, {"node_selector": {"zone": "x"}}, "ab", id="a node selector"),
        pytest.param([*NODES, node("d", taints=(GPU,))], {}, "abc", id="a taint keeps it away"),
        pytest.param(
            [*NODES, node("d", taints=(GPU,))],
            {"tolerations": (Toleration(key="gpu", operator="Exists"),)},
            "abcd",
            id="a taint is tolerated",
        ),
        pytest.param([*NODES, node("d", cordoned=True)], {}, "abcd", id="a cordon does not matter"),
        pytest.param([*NODES, node("d", state="Unreachable")], {}, "abcd", id="a node that is away is waited for"),
        pytest.param(
            [*NODES, *(node(name, state=state) for name, state in (("d", "EngineMissing"), ("e", "NotInInventory")))],
            {},
            "abc",
            id="no engine, and not ours",
        ),
        pytest.param([*NODES, node("d", state="NotSeen")], {}, "abc", id="never seen"),
    ],
)
def test_which_nodes_get_one(nodes: list[Node], spec: dict[str, object], expected: str) -> None:
    plan = plan_daemons(daemonset(**spec), nodes, (), 0.0)  # type: ignore[arg-type]
    assert "".join(plan.create) == expected
    assert plan.status.desired_number_scheduled == len(expected)


def test_a_required_affinity_counts() -> None:
    here = NodeSelectorTerm(match_expressions=(NodeSelectorRequirement(key="zone", operator="In", values=("y",)),))
    near = NodeAffinity(required_during_scheduling_ignored_during_execution=NodeSelector(node_selector_terms=(here,)))
    wish = daemonset(affinity=Affinity(node_affinity=near))
    assert plan_daemons(wish, NODES, (), 0.0).create == ("c",)
    (term,) = _terms(daemon_for(wish, "c"))
    assert term.match_expressions == here.match_expressions
    assert term.match_fields[0].values == ("c",)


def _terms(pod: Pod) -> tuple[NodeSelectorTerm, ...]:
    assert pod.spec.affinity is not None
    assert pod.spec.affinity.node_affinity is not None
    required = pod.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    assert required is not None
    return required.node_selector_terms


def test_its_pods_are_legal_and_the_scheduler_binds_them_to_their_nodes() -> None:
    nodes = [real_node("a"), real_node("b")]
    pods = [with_meta(with_defaults(daemon_for(daemonset(), name)), uid=name) for name in ("a", "b")]
    assert [problems_of(pod) for pod in pods] == [[], []]
    loads = {found.metadata.name: load() for found in nodes}
    decisions = schedule(snapshot(nodes, loads, [], now=NOW), pods)
    assert {decision.uid: decision.node for decision in decisions} == {"a": "a", "b": "b"}


def test_a_settled_set_is_left_alone_and_its_numbers_say_so() -> None:
    toy = Toy(daemonset(), list(NODES))
    toy.settle()
    assert toy.plan() == DaemonPlan(status=toy.wish.status)
    status = toy.wish.status
    assert (status.desired_number_scheduled, status.current_number_scheduled, status.number_ready) == (3, 3, 3)
    assert (status.updated_number_scheduled, status.number_available, status.number_unavailable) == (3, 3, 0)


def test_nodes_that_come_go_and_change() -> None:
    toy = Toy(daemonset(node_selector={"zone": "x"}), list(NODES))
    toy.settle()
    toy.nodes[2] = node("c", zone="x")
    toy.nodes[0] = node("a", zone="y")
    toy.settle()
    assert toy.available() == {"b", "c"}
    toy.nodes[1] = node("b", zone="x", taints=(GPU,))
    toy.settle()
    assert toy.available() == {"b", "c"}, "a taint for newcomers makes nobody leave"
    assert toy.wish.status.number_misscheduled == 1
    toy.nodes[1] = node("b", zone="x", taints=(replace(GPU, effect="NoExecute"),))
    toy.nodes[2] = node("c", zone="x", state="NotInInventory")
    toy.settle()
    assert toy.available() == {"c"}, "what runs on a machine that left the inventory is left there"


def test_a_node_gets_its_next_pod_only_when_the_old_one_is_gone() -> None:
    toy = Toy(daemonset(), [node("a")])
    toy.settle()
    toy.change(image="log:2")
    assert len(toy.step().delete) == 1
    assert toy.step() == DaemonPlan(status=toy.wish.status), "it is still there"
    toy.end()
    assert toy.step().create == ("a",)


@pytest.mark.parametrize(("limit", "at_once"), [(1, 1), (2, 2), ("50%", 2), ("1%", 1)], ids=str)
def test_an_update_goes_as_fast_as_it_may(limit: int | str, at_once: int) -> None:
    toy = Toy(daemonset(), list(NODES))
    toy.settle()
    toy.change(image="log:2", limit=limit)
    assert len(toy.step().delete) == at_once


def test_an_update_does_not_wait_for_nodes_that_are_away_and_replaces_what_is_broken_first() -> None:
    toy = Toy(daemonset(), list(NODES))
    toy.settle()
    toy.nodes[0] = node("a", state="Unreachable", zone="x")
    broken = next(pod for pod in toy.pods.values() if node_of(pod) == "c")
    conditions = (Condition(type="Ready", status="False"),)
    toy.pods[broken.metadata.name] = replace(broken, status=replace(broken.status, conditions=conditions))
    toy.change(image="log:2")
    assert {node_of(pod) for pod in toy.step().delete} == {"c"}
    for _ in range(10):
        toy.end()
        toy.run()
        toy.step()
    current = {node_of(pod) for pod in toy.pods.values() if pod.metadata.labels[HASH_LABEL] == _hash(toy)}
    assert {"b", "c"} <= current


def _hash(toy: Toy) -> str:
    return template_hash(toy.wish.spec.template)


def test_on_delete_nothing_is_replaced_by_itself() -> None:
    toy = Toy(daemonset(), list(NODES))
    toy.settle()
    toy.change(image="log:2")
    toy.wish = replace(toy.wish, spec=replace(toy.wish.spec, update_strategy=DaemonSetUpdateStrategy(type="OnDelete")))
    assert toy.step().delete == ()
    assert (
        standing_of_daemons(toy.wish, toy.nodes, tuple(toy.pods.values()), toy.now, dead_nodes=frozenset()).state
        == "done"
    )
    del toy.pods[min(toy.pods)]
    toy.settle()
    assert toy.wish.status.updated_number_scheduled == 1


def test_ended_and_doubled_pods_go() -> None:
    toy = Toy(daemonset(), list(NODES))
    toy.settle()
    first, second, _ = sorted(toy.pods.values(), key=node_of)
    toy.pods[first.metadata.name] = replace(first, status=replace(first.status, phase="Failed"))
    toy.pods["twin"] = replace(with_meta(second, name="twin", uid="twin"), status=replace(second.status, conditions=()))
    assert {pod.metadata.name for pod in toy.step().delete} == {first.metadata.name, "twin"}
    toy.end()
    toy.settle()
    assert toy.available() == {"a", "b", "c"}
    assert len(toy.pods) == 3


def test_a_set_that_is_being_deleted_makes_nothing() -> None:
    assert plan_daemons(with_meta(daemonset(), deletion_timestamp="2026-01-01T00:00:00Z"), NODES, (), 0.0).create == ()


def test_only_some_changes_of_a_node_matter() -> None:
    before = node("a", zone="x")
    assert concerns_daemons(before, None)
    assert not concerns_daemons(with_meta(before, annotations={"k": "v"}), before)
    for after in (node("a", zone="y"), node("a", zone="x", taints=(GPU,)), node("a", zone="x", state="Unreachable")):
        assert concerns_daemons(after, before)


# --- properties ---

STATES = st.sampled_from(["Ready", "Ready", "Unreachable", "EngineMissing", "NotInInventory", "NotSeen"])
CLUSTERS = st.lists(
    st.builds(
        lambda state, zone, taint: (state, zone, taint),
        STATES,
        st.sampled_from("xy"),
        st.sampled_from([(), (GPU,), (replace(GPU, effect="NoExecute"),)]),
    ),
    max_size=6,
).map(lambda found: [node(f"n{i}", state=s, taints=t, zone=z) for i, (s, z, t) in enumerate(found)])


@given(CLUSTERS.filter(lambda nodes: all(found.status.conditions for found in nodes)), st.integers(1, 3), st.randoms())
def test_order_is_irrelevant_and_a_rolling_update_keeps_its_floor(nodes: list[Node], limit: int, dice: object) -> None:
    toy = Toy(daemonset(), nodes)
    toy.settle()
    before = toy.available()
    toy.change(image="log:2", limit=limit)
    for _ in range(40):
        pods, shuffled = list(toy.pods.values()), list(nodes)
        dice.shuffle(pods)  # type: ignore[attr-defined]
        dice.shuffle(shuffled)  # type: ignore[attr-defined]
        plan = plan_daemons(toy.wish, shuffled, pods, toy.now)
        assert plan == toy.plan()
        toy.step()
        assert len(toy.available()) >= len(before) - limit
        toy.end()
        if not (plan.create or plan.delete):
            break
        toy.step()
        toy.run()
    assert toy.plan() == DaemonPlan(status=toy.wish.status)
    assert toy.available() == before
    assert all(
        pod.metadata.labels[HASH_LABEL] == _hash(toy)
        for pod in toy.pods.values()
        if next(found for found in nodes if found.metadata.name == node_of(pod)).status.conditions[0].status == "True"
    )


# --- what a person who waits is told ---


def told(toy: Toy, *dead: str) -> tuple[str, str]:
    found = standing_of_daemons(toy.wish, toy.nodes, tuple(toy.pods.values()), toy.now, dead_nodes=frozenset(dead))
    return found.state, found.message


def test_it_is_done_when_every_wanted_pod_is_available() -> None:
    toy = Toy(daemonset(), list(NODES))
    assert told(toy)[0] == "going"
    toy.step()
    assert told(toy)[0] == "going"
    toy.run(ready=False)
    assert told(toy)[0] == "going"
    toy.run()
    assert told(toy) == ("done", "")
    state, message = told(toy, "a")
    assert state == "stuck"
    assert "no answer from a" in message
    toy.change(image="log:2")
    assert told(toy)[0] == "going"
