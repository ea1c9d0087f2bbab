"""Moving pods on purpose: successors first, budgets kept, and a mark survives everybody who reads it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.disruption import (
    World,
    budgets_now,
    marked,
    plan_evictions,
    status_of,
    stops_first,
    unmarked,
)
from korch.controllers.replicaset import plan_replicas
from korch.resources.annotations import COMPLETED, EVICT, MOVED_FROM, REPLACES
from korch.resources.codec import with_meta
from korch.resources.disruption import PodDisruptionBudget, PodDisruptionBudgetSpec
from korch.resources.leaving import is_leaving, replicas_of, successors
from korch.resources.meta import Condition, LabelSelector, ObjectMeta
from korch.resources.pod import Pod
from korch.resources.podstate import is_counted, is_ready, with_condition
from korch.resources.times import rfc3339
from korch.resources.workload import DeploymentStrategy
from tests.unit.controllers.cluster import Toy, deployment

WEB = LabelSelector(match_labels={"app": "web"})


def budget(name: str = "web", selector: LabelSelector | None = WEB, **spec: object) -> PodDisruptionBudget:
    made = PodDisruptionBudgetSpec(selector=selector, **spec)  # type: ignore[arg-type]
    return PodDisruptionBudget(metadata=ObjectMeta(name=name, namespace="default"), spec=made)


class Site(Toy):
    """A toy whose marked pods are let go."""

    budgets: tuple[PodDisruptionBudget, ...] = ()

    def world(self) -> World:
        return World(tuple(self.pods.values()), tuple(self.sets.values()), (self.deployment,), self.budgets)

    def mark(self, *names: str, **more: bool) -> None:
        for name in names:
            self.pods[name] = marked(self.pods[name], "drain", **more) or self.pods[name]

    def evictions(self) -> bool:
        gone = [verdict.pod.metadata.name for verdict in plan_evictions(self.world(), self.now) if verdict.go]
        for name in gone:
            del self.pods[name]
        return bool(gone)

    def ready(self) -> int:
        return sum(map(is_ready, self.pods.values()))

    def set_ready(self, name: str, status: str) -> None:
        pod = self.pods[name]
        ready = with_condition(pod.status.conditions, Condition(type="Ready", status=status), rfc3339(self.now))
        self.pods[name] = replace(pod, status=replace(pod.status, conditions=ready))

    def only_set(self):
        (found,) = (one for one in self.sets.values() if one.spec.replicas)
        return found

    def why(self) -> list[str]:
        return [verdict.why for verdict in plan_evictions(self.world(), self.now) if not verdict.go]


def site(replicas: int = 3, *budgets: PodDisruptionBudget, **more: object) -> Site:
    made = Site(deployment(replicas=replicas, **more))  # type: ignore[arg-type]
    made.settle()
    made.budgets = budgets
    return made


# --- the successor ---


def test_one_successor_at_a_time_and_the_old_pod_goes_when_it_is_available() -> None:
    one = site(3)
    old = sorted(one.pods)
    one.mark(*old)
    assert one.step()
    (new,) = set(one.pods) - set(old)
    notes = one.pods[new].metadata.annotations
    assert notes[REPLACES] == one.pods[old[0]].metadata.uid
    assert notes[MOVED_FROM] == "n1"
    assert not one.step(), "one pair at a time"
    assert not one.evictions()
    assert "is being placed" in one.why()[0]
    one.make_ready(new)
    assert one.evictions()
    assert old[0] not in one.pods
    assert set(old[1:]) <= set(one.pods)


def test_a_successor_that_fits_nowhere_holds_its_forerunner() -> None:
    one = site(1)
    (old,) = one.pods
    one.mark(old)
    one.step()
    (new,) = set(one.pods) - {old}
    pod = one.pods[new]
    stuck = Condition(type="PodScheduled", status="False", reason="Unschedulable", message="0/1 nodes: 1 cordoned")
    one.pods[new] = replace(pod, status=replace(pod.status, conditions=(stuck,)))
    (verdict,) = plan_evictions(one.world(), one.now)
    assert not verdict.go
    assert verdict.stuck
    assert "fits nowhere: 0/1 nodes: 1 cordoned" in verdict.why


def test_min_ready_seconds_count_for_the_successor() -> None:
    one = site(2, min_ready=10)
    old = sorted(one.pods)
    one.now += 60
    one.mark(old[0])
    one.step()
    (new,) = set(one.pods) - set(old)
    one.make_ready(new)
    assert not one.evictions()
    one.now += 11
    assert one.evictions()


def test_a_mark_that_is_taken_back_leaves_the_old_pod_and_removes_the_new_one() -> None:
    one = site(3)
    old = sorted(one.pods)
    one.mark(old[1])
    one.step()
    assert len(one.pods) == 4
    pod = unmarked(one.pods[old[1]], ("drain",))
    assert pod is not None
    assert unmarked(one.pods[old[1]], ("rebalance",)) is None, "another one wanted it"
    one.pods[old[1]] = pod
    one.settle()
    assert sorted(one.pods) == old


def test_a_broken_pod_hands_nothing_over() -> None:
    one = site(2)
    old = sorted(one.pods)
    one.crash(old[0])
    one.mark(old[0])
    assert one.evictions()


def test_a_pair_is_one_replica_for_the_rollout_and_no_reason_to_go_back() -> None:
    one = site(3)
    old = sorted(one.pods)
    one.mark(old[0])
    one.step()
    (new,) = set(one.pods) - set(old)
    one.crash(new)
    plan = one.plan()
    assert (plan.go_back_to, plan.give_up, plan.scale) == ("", "", ())
    assert plan.status.replicas == 3
    assert plan.status.available_replicas == 3
    assert one.only_set().metadata.annotations[COMPLETED] == "true"


def test_scaling_down_takes_the_marked_ones_first_and_their_successors_with_them() -> None:
    one = site(3)
    old = sorted(one.pods)
    one.mark(old[2])
    one.step()
    one.wish(replicas=2)
    one.settle()
    assert sorted(one.pods) == old[:2]


def test_a_new_template_rolls_on_while_pods_are_marked() -> None:
    one = site(3)
    one.mark(*one.pods)
    one.step()
    one.wish(image="web:2")
    one.settle()
    assert {pod.spec.containers[0].image for pod in one.pods.values()} == {"web:2"}
    assert len(one.pods) == 3
    assert not any(is_leaving(pod) for pod in one.pods.values())


# --- budgets ---


@pytest.mark.parametrize(
    ("spec", "desired", "allowed"),
    [
        ({"min_available": 2}, 2, 2),
        ({"min_available": "50%"}, 2, 2),
        ({"min_available": "51%"}, 3, 1),
        ({"min_available": 9}, 9, 0),
        ({"max_unavailable": 1}, 3, 1),
        ({"max_unavailable": "30%"}, 2, 2),
        ({"max_unavailable": 0}, 4, 0),
        ({"max_unavailable": 9}, 0, 4),
    ],
    ids=str,
)
def test_budgets_count_as_kubernetes_does(spec: dict[str, int | str], desired: int, allowed: int) -> None:
    one = site(4, budget(**spec))
    (found,) = budgets_now(one.world())
    assert (found.desired, found.allowed, found.healthy, found.expected) == (desired, allowed, 4, 4)
    status = status_of(one.budgets[0], found, one.now)
    assert status.disruptions_allowed == allowed
    assert status.conditions[0].status == ("True" if allowed else "False")


def test_a_budget_of_all_is_kept_by_starting_first() -> None:
    one = site(2, budget(min_available="100%"))
    old = sorted(one.pods)
    one.mark(old[0])
    assert not one.evictions()
    one.step()
    (new,) = set(one.pods) - set(old)
    one.make_ready(new)
    assert one.evictions()


def test_without_a_successor_the_budget_decides() -> None:
    one = site(3, budget(min_available=2))
    one.mark(*one.pods, stop_first=True)
    assert one.evictions()
    assert one.ready() == 2
    assert not one.evictions()
    assert "budget web wants 2 ready pods, and 2 of" in one.why()[0]


def test_a_pod_that_is_not_ready_goes_only_from_a_whole_app_unless_told() -> None:
    one = site(3, budget(min_available=3))
    sick = sorted(one.pods)[0]
    one.set_ready(sick, "False")
    one.mark(sick, stop_first=True)
    assert not one.evictions()
    one.budgets = (budget(min_available=3, unhealthy_pod_eviction_policy="AlwaysAllow"),)
    assert one.evictions()


def test_budgets_mean_the_pods_of_their_selector_and_namespace() -> None:
    one = site(1, budget(selector=LabelSelector(match_labels={"app": "db"}), min_available=1))
    elsewhere = budget(min_available=1)
    one.budgets = (*one.budgets, with_meta(elsewhere, namespace="other"), budget(selector=None, min_available=1))
    one.mark(*one.pods, stop_first=True)
    assert one.evictions()


def test_who_is_stopped_first() -> None:
    one = site(1)
    (pod,) = one.pods.values()
    assert not stops_first(pod, one.world())
    one.deployment = replace(
        one.deployment, spec=replace(one.deployment.spec, strategy=DeploymentStrategy(type="Recreate"))
    )
    assert stops_first(pod, one.world()), "it never runs twice"
    assert stops_first(with_meta(pod, owner_references=()), one.world())


def test_marking_twice_writes_nothing() -> None:
    pod = next(iter(site(1).pods.values()))
    once = marked(pod, "drain")
    assert once is not None
    assert once.metadata.annotations[EVICT] == "start-first"
    assert marked(once, "drain") is None
    assert marked(with_meta(pod, deletion_timestamp=rfc3339(0)), "drain") is None


# --- properties ---

specs = st.one_of(
    st.builds(lambda n: {"min_available": n}, st.integers(0, 6)),
    st.builds(lambda n: {"min_available": f"{n}%"}, st.integers(0, 100)),
    st.builds(lambda n: {"max_unavailable": n}, st.integers(0, 6)),
    st.builds(lambda n: {"max_unavailable": f"{n}%"}, st.integers(0, 100)),
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.lists(specs, max_size=3), st.randoms(use_true_random=False))
def test_no_budget_falls_below_its_floor(
    replicas: int, limits: list[dict[str, int | str]], dice: random.Random
) -> None:
    one = site(replicas, *(budget(f"b{n}", **spec) for n, spec in enumerate(limits)))
    for name in list(one.pods):
        if dice.random() < 0.3:
            one.set_ready(name, "False")
        if dice.random() < 0.7:
            one.mark(name, stop_first=dice.random() < 0.5)
    for _ in range(6):
        before = budgets_now(one.world())
        plan = plan_evictions(one.world(), one.now)
        pods = list(one.pods.values())
        dice.shuffle(pods)
        assert plan_evictions(World(tuple(pods), *[one.world().sets, (one.deployment,), one.budgets]), one.now) == plan
        one.evictions()
        for old in before:
            assert one.ready() >= min(old.healthy, old.desired)
        one.step()
        for name in sorted(one.pods):
            if not is_ready(one.pods[name]) and dice.random() < 0.5:
                one.make_ready(name)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_drain_ends_and_never_serves_with_fewer(replicas: int, dice: random.Random) -> None:
    one = site(replicas, budget(max_unavailable=0))
    for name in sorted(one.pods):
        if dice.random() < 0.6:
            one.mark(name)
    for _ in range(12 * replicas):
        acts = [one.evictions, one.step]
        dice.shuffle(acts)
        did = [act() for act in acts]
        assert one.ready() >= replicas
        assert len([pod for pod in one.pods.values() if is_counted(pod)]) <= replicas + 1
        waiting = [name for name, pod in sorted(one.pods.items()) if not is_ready(pod)]
        if waiting:
            one.make_ready(dice.choice(waiting))
        elif not any(did):
            break
    assert not any(is_leaving(pod) for pod in one.pods.values())
    assert len(one.pods) == replicas
    for found in one.sets.values():
        plan = plan_replicas(found, one.by_set()[found.metadata.name], one.now)
        assert (plan.create, plan.delete, plan.succeed) == ((), (), None), "apply and plan again gives nothing"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_plan_of_a_set_does_not_depend_on_the_order(replicas: int, wanted: int, dice: random.Random) -> None:
    one = site(replicas)
    for name in list(one.pods):
        if dice.random() < 0.5:
            one.mark(name)
    if dice.random() < 0.5:
        one.step()
    found = one.only_set()
    found = replace(found, spec=replace(found.spec, replicas=wanted))
    pods: list[Pod] = list(one.pods.values())
    plan = plan_replicas(found, pods, one.now)
    dice.shuffle(pods)
    assert plan_replicas(found, pods, one.now) == plan
    left = [pod for pod in pods if pod not in plan.delete]
    assert len(replicas_of(left)) + len(plan.create) == wanted
    assert set(successors(left)) <= {pod.metadata.uid for pod in left}
