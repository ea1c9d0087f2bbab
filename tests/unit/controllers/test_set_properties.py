"""Daemon sets, their histories and endpoints from any state: floors, rest, and the order of input."""

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.daemonset import HASH_LABEL, DaemonPlan, daemon_for, node_of, plan_daemons
from korch.controllers.endpoints import plan_slices
from korch.controllers.history import HistoryPlan, plan_history
from korch.resources.codec import with_meta
from korch.resources.history import ControllerRevision
from korch.resources.node import Node
from korch.resources.podstate import is_available, is_counted
from korch.resources.templates import template_hash
from tests.unit.controllers.test_daemonset import CLUSTERS, Toy, daemonset, node
from tests.unit.controllers.test_endpoints import PODS, carried_out, service
from tests.unit.controllers.test_history import kept
from tests.unit.planners import DICE, NOW, STATES, mixed, steady

IMAGES = ("log:1", "log:2", "log:3")
OF = {image: daemonset(image) for image in IMAGES}
HASHES = {image: template_hash(found.spec.template) for image, found in OF.items()}


@st.composite
def daemons(draw: st.DrawFn) -> Toy:
    """A set that was left anywhere, with pods of two templates: doubled, ended, of nodes that are gone."""
    limit, min_ready = draw(st.integers(1, 2)), draw(st.sampled_from([0, 10]))
    wish = daemonset("log:2", limit=limit, min_ready=min_ready)
    nodes = [*draw(CLUSTERS), *(node(f"good{number}") for number in range(draw(st.integers(0, 4))))]
    toy = Toy(wish, nodes, now=NOW)
    names = [found.metadata.name for found in nodes] + ["gone"]
    for number in range(draw(st.integers(0, 9))):
        image = draw(st.sampled_from(["log:1", "log:2"]))
        pod = daemon_for(daemonset(image, limit=limit, min_ready=min_ready), draw(st.sampled_from(names)))
        state = draw(st.sampled_from([*STATES, "good", "good", "good"]))
        name = pod.metadata.name if pod.metadata.name not in toy.pods else f"twin-{number}"
        pod = with_meta(pod, name=name, uid=f"u{number}")
        pod = STATES[state](replace(pod, spec=replace(pod.spec, node_name="" if state == "new" else node_of(pod))))
        toy.pods[name] = pod
    return toy


def serving(toy: Toy) -> set[str]:
    wait_s = toy.wish.spec.min_ready_seconds
    return {node_of(pod) for pod in toy.pods.values() if is_available(pod, wait_s, toy.now)}


@steady(80)
@given(daemons(), DICE)
def test_daemons_from_any_state_come_to_rest_and_keep_their_floor(toy: Toy, dice: random.Random) -> None:
    limit = toy.wish.spec.update_strategy.rolling_update.max_unavailable  # type: ignore[union-attr]
    hashed = template_hash(toy.wish.spec.template)
    for turn in range(60):
        plan = toy.plan()
        assert plan_daemons(toy.wish, mixed(toy.nodes, dice), mixed(toy.pods.values(), dice), toy.now) == plan
        rolled = {
            node_of(pod)
            for pod in plan.delete
            if is_available(pod, toy.wish.spec.min_ready_seconds, toy.now) and pod.metadata.labels[HASH_LABEL] != hashed
        }
        stays = {found.metadata.name for found in toy.nodes if _may_stay(found)}
        wanted = {found.metadata.name for found in toy.nodes if _may_stay(found, new=True)}
        before = serving(toy)
        assert not set(plan.create) & {node_of(pod) for pod in toy.pods.values()}, "one after the other"
        toy.step()
        lost = (before - serving(toy)) & stays
        assert lost <= rolled
        assert len(lost) <= max(0, limit - len(wanted - before)), "more than may be away are taken"
        if turn % 2 or dice.random() < 0.5:
            toy.end()
        toy.now += 5
        if not (plan.create or plan.delete) and all(is_counted(pod) for pod in toy.pods.values()):
            if serving(toy) >= wanted:
                break
            _run(toy)
    assert (toy.plan().create, toy.step().delete) == ((), ())
    assert toy.plan() == DaemonPlan(status=toy.wish.status)
    assert serving(toy) >= wanted
    assert {node_of(pod) for pod in toy.pods.values()} <= stays


def _may_stay(node: Node, *, new: bool = False) -> bool:
    """Whether a pod that tolerates nothing special may run there; `new`: and shall, on a node that works."""
    (reason,) = [found.reason for found in node.status.conditions] or [""]
    if reason == "NotInInventory":
        return not new
    effects = {taint.effect for taint in node.spec.taints}
    return reason == "Ready" and not effects if new else "NoExecute" not in effects


def _run(toy: Toy) -> None:
    """What is bound to nodes that work runs, and for long enough."""
    for name, pod in toy.pods.items():
        home = next((found for found in toy.nodes if found.metadata.name == node_of(pod)), None)
        works = home is not None and any(found.status == "True" for found in home.status.conditions)
        if works and is_counted(pod) and not is_available(pod, toy.wish.spec.min_ready_seconds, toy.now):
            bound = replace(pod, spec=replace(pod.spec, node_name=node_of(pod)))
            toy.pods[name] = STATES["good"](replace(bound, status=replace(pod.status, container_statuses=())))


@steady(60)
@given(
    st.lists(st.sampled_from(IMAGES), max_size=5),
    st.integers(0, 2),
    st.lists(st.sampled_from(IMAGES), max_size=4),
    DICE,
)
def test_a_history_does_not_depend_on_the_order(
    images: list[str], limit: int, running: list[str], dice: random.Random
) -> None:
    history: dict[str, ControllerRevision] = {}
    pods = [daemon_for(OF[image], f"n{number}") for number, image in enumerate(running)]
    for image in [*images, "log:2"]:
        found = replace(OF[image], spec=replace(OF[image].spec, revision_history_limit=limit))
        plan = plan_history(found, tuple(history.values()), pods)
        assert plan_history(found, mixed(history.values(), dice), mixed(pods, dice)) == plan
        live = {HASHES[one] for one in {*running, image}}
        assert not any(one.metadata.labels[HASH_LABEL] in live for one in plan.delete)
        history = kept(plan, history)
        assert plan_history(found, mixed(history.values(), dice), pods) == HistoryPlan()


@steady(60)
@given(before=PODS, after=PODS, dice=DICE)
def test_endpoints_do_not_depend_on_the_order(before, after, dice):  # type: ignore[no-untyped-def]
    slices = carried_out(plan_slices(service(), before, ()))
    plan = plan_slices(service(), after, slices)
    assert plan_slices(service(), mixed(after, dice), mixed(slices, dice)) == plan
    again = plan_slices(service(), mixed(after, dice), carried_out(plan, slices))
    assert again == replace(plan, create=(), update=(), delete=())


def test_of_two_pods_on_a_node_the_one_that_is_available_stays() -> None:
    wish = daemonset("log:2", min_ready=10)
    old, new = daemon_for(daemonset("log:1"), "n1"), daemon_for(wish, "n1")
    pods = [STATES["good"](with_meta(old, uid="old")), STATES["fresh"](with_meta(new, uid="new"))]
    nodes = [node("n1"), node("n2", state="Unreachable")]
    plan = plan_daemons(wish, nodes, [*pods, STATES["unready"](daemon_for(wish, "n2"))], NOW)
    assert "new" in {pod.metadata.uid for pod in plan.delete}
