"""Rollouts and sets from any state: no plan depends on the order of input, acts come to an end, floors are kept."""

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.deployment import set_from
from korch.controllers.replicaset import plan_replicas, pod_from, pod_name
from korch.controllers.rollout import RolloutPlan, plan_rollout
from korch.resources.annotations import COMPLETED, FAILED_REVISION
from korch.resources.codec import with_meta
from korch.resources.leaving import START_FIRST, STOP_FIRST
from korch.resources.pod import Pod
from korch.resources.podstate import is_available, is_counted, is_ready
from korch.resources.templates import rolling_bounds, template_hash
from korch.resources.workload import ReplicaSet
from tests.unit.controllers.cluster import Toy, deployment
from tests.unit.planners import DICE, NOW, STATES, going, mixed, mixed_keys, steady, to_leave, unplaced

IMAGES = ("web:1", "web:2", "web:3")
USUAL = st.lists(st.sampled_from([*STATES, "good", "good", "good"]), max_size=4)
STUCK = st.lists(st.sampled_from(["good", "unplaced", "unplaced", "crashed", "crashed"]), min_size=2, max_size=4)


class Slow(Toy):
    """Pods that run take their time to end; those of no node are gone at once."""

    def _replicas(self, replicaset: ReplicaSet) -> bool:
        plan = plan_replicas(replicaset, self.by_set()[replicaset.metadata.name], self.now)
        for pod in plan.delete:
            if pod.spec.node_name:
                self.pods[pod.metadata.name] = going(pod)
            else:
                del self.pods[pod.metadata.name]
        for name in plan.create:
            self._make(pod_from(replicaset, name))
        if plan.succeed is not None:
            self._make(pod_from(replicaset, plan.succeed[1], instead_of=plan.succeed[0]))
        return bool(plan.delete or plan.create or plan.succeed)

    def _make(self, pod):  # type: ignore[no-untyped-def]
        assert pod.metadata.name not in self.pods, "a pod is made twice"
        self.serial += 1
        self.pods[pod.metadata.name] = with_meta(pod, uid=f"p{self.serial}")

    def staying(self) -> int:
        """Available replicas that no set was told to end before."""
        wait = self.deployment.spec.min_ready_seconds
        good = {name: sum(is_available(pod, wait, self.now) for pod in pods) for name, pods in self.by_set().items()}
        return sum(min(good[name], found.spec.replicas or 0) for name, found in self.sets.items())

    def __repr__(self) -> str:
        sets = [f"{name}={found.spec.replicas}" for name, found in self.sets.items()]
        pods = [f"{name}:{_state_of(pod, self)}" for name, pod in self.pods.items()]
        return f"{self.deployment.spec.strategy} {self.deployment.spec.replicas} {sets} {pods}"


def _state_of(pod: Pod, toy: Toy) -> str:
    good = is_available(pod, toy.deployment.spec.min_ready_seconds, toy.now)
    return "available" if good else "ready" if is_ready(pod) else "counted" if is_counted(pod) else "over"


@st.composite
def rollouts(draw: st.DrawFn, *, marks: bool = True, stuck: bool = False) -> Slow:
    """A deployment that was left anywhere on its way, with sets of up to three revisions."""
    wish = deployment(
        draw(st.sampled_from(IMAGES)),
        draw(st.integers(0, 5)),
        surge=draw(st.integers(0, 2)),
        gap=draw(st.integers(0, 2)),
        min_ready=draw(st.sampled_from([0, 10])),
        auto=stuck or draw(st.booleans()),
    )
    history, paused = draw(st.integers(0, 2)), draw(st.integers(0, 5)) == 0
    toy = Slow(replace(wish, spec=replace(wish.spec, revision_history_limit=history, paused=paused)), now=NOW)
    for revision, image in enumerate(draw(st.permutations(IMAGES)), start=1):
        states = draw(STUCK if stuck else USUAL)
        size = draw(st.sampled_from([*range(5), *[len(states)] * 5, None]))
        if size is None:
            continue
        theirs = set_from(deployment(image, min_ready=wish.spec.min_ready_seconds), revision)
        notes = theirs.metadata.annotations | ({COMPLETED: "true"} if draw(st.booleans()) else {})
        theirs = with_meta(theirs, uid=f"s{revision}", annotations=notes)
        toy.sets[theirs.metadata.name] = replace(theirs, spec=replace(theirs.spec, replicas=size))
        for number, state in enumerate(states):
            name = pod_name(theirs, number)
            pod = STATES[state](with_meta(pod_from(theirs, name), uid=f"u{revision}{number}"))
            if marks and draw(st.integers(0, 5)) == 0:
                pod = to_leave(pod, draw(st.sampled_from([START_FIRST, STOP_FIRST])))
            toy.pods[name] = pod
    alive = sorted(toy.pods)
    for name in alive:
        if draw(st.integers(0, 9)) == 0 and not toy.pods[name].spec.node_name:
            toy.pods[name] = unplaced(toy.pods[name], f"{name} has no place", draw(st.sampled_from(alive)))
    return toy


def acts(plan: RolloutPlan) -> tuple[object, ...]:
    return (plan.create_revision, plan.scale, plan.remove, plan.victim, plan.completed, plan.go_back_to, plan.give_up)


def same_in_any_order(toy: Slow, dice: random.Random) -> None:
    for later_s in (0, 100):  # then it is overdue
        toy.now += later_s
        pods = {name: mixed(members, dice) for name, members in mixed_keys(toy.by_set(), dice).items()}
        plan = toy.plan()
        assert plan_rollout(toy.deployment, mixed(toy.sets.values(), dice), pods, toy.now) == plan
        toy.deployment = replace(toy.deployment, status=plan.status)


@steady(150)
@given(rollouts(marks=False, stuck=True), DICE)
def test_why_a_rollout_goes_back_does_not_depend_on_the_order(toy: Slow, dice: random.Random) -> None:
    same_in_any_order(toy, dice)


@steady(100)
@given(rollouts(), DICE)
def test_no_plan_depends_on_the_order_of_sets_and_pods(toy: Slow, dice: random.Random) -> None:
    same_in_any_order(toy, dice)
    for found in toy.sets.values():
        members = toy.by_set()[found.metadata.name]
        assert plan_replicas(found, mixed(members, dice), toy.now) == plan_replicas(found, members, toy.now)


def floor_of(toy: Toy, plan: RolloutPlan) -> int:
    """The replicas that have to be available while this plan is carried out."""
    spec = toy.deployment.spec
    wanted = spec.replicas or 0
    _, gap = rolling_bounds(spec.strategy, wanted)
    given_up = toy.deployment.metadata.annotations.get(FAILED_REVISION) == template_hash(spec.template)
    return 0 if given_up or spec.strategy.type == "Recreate" else wanted - max(gap, bool(plan.victim))


@steady(250)
@given(rollouts(marks=False), DICE)
def test_acts_come_to_an_end_and_none_goes_under_the_floor(toy: Slow, dice: random.Random) -> None:
    total = sum(found.spec.replicas or 0 for found in toy.sets.values())
    surge, _ = rolling_bounds(toy.deployment.spec.strategy, toy.deployment.spec.replicas or 0)
    most = max(total, (toy.deployment.spec.replicas or 0) + surge)
    idle = rounds = 0
    while idle < 3:
        before, plan = toy.staying(), toy.plan()
        did = toy._rollout(plan)
        assert toy.staying() >= min(before, floor_of(toy, plan))
        assert sum(found.spec.replicas or 0 for found in toy.sets.values()) <= most
        for name in mixed(toy.sets, dice):
            if dice.random() < 0.5 or not did:
                before = toy.staying()
                did = toy._replicas(toy.sets[name]) or did
                assert toy.staying() >= before
        idle = 0 if did else idle + 1
        rounds += 1
        assert rounds < 60, "it does not end"
    assert acts(toy.plan()) == acts(RolloutPlan())
    assert toy.plan().status == toy.deployment.status
