from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.outcome import standing
from korch.controllers.rollout import plan_rollout
from korch.resources.annotations import STOP_FIRST
from korch.resources.codec import with_meta
from korch.resources.meta import Condition
from korch.resources.podstate import condition, with_condition
from korch.resources.templates import rolling_bounds
from korch.resources.workload import DeploymentStrategy
from tests.unit.controllers.cluster import Toy, deployment


def images(toy: Toy) -> list[str]:
    return sorted(pod.spec.containers[0].image for pod in toy.pods.values())


def test_first_deploy_starts_all_replicas_at_once() -> None:
    toy = Toy(deployment())
    toy.step()
    toy.step()
    assert len(toy.pods) == 3


@given(
    before=st.integers(0, 7),
    after=st.integers(1, 7),
    surge=st.integers(0, 3),
    gap=st.integers(0, 3),
    wait=st.integers(0, 2),
    rollouts=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_rolling_never_goes_under_its_floor_and_ends_true(
    before: int, after: int, surge: int, gap: int, wait: int, rollouts: int
) -> None:
    toy = Toy(deployment(replicas=before, surge=surge, gap=gap, min_ready=wait))
    toy.settle()
    toy.wish(image="web:2", replicas=after)
    surge, gap = rolling_bounds(toy.deployment.spec.strategy, after)
    idle = 0
    while idle < wait + 3:
        start = toy.available()
        idle = 0 if toy.step(rollouts) else idle + 1
        assert toy.available() >= min(start, after - gap)
        assert len(toy.pods) <= max(before, after + surge)
        unready = [name for name, pod in sorted(toy.pods.items()) if not pod.status.conditions]
        if unready:
            toy.make_ready(unready[0])
            idle = 0
        toy.now += 1
        assert toy.now < 1_001_000, "it does not end"
    assert images(toy) == ["web:2"] * after
    assert condition(toy.deployment.status.conditions, "Progressing").reason == "NewReplicaSetAvailable"


@given(replicas=st.integers(0, 6), order=st.randoms())
@settings(max_examples=30, deadline=None)
def test_settled_plans_nothing_in_any_order_of_input(replicas: int, order) -> None:
    toy = Toy(deployment(replicas=replicas))
    toy.settle()
    toy.wish(image="web:2")
    toy.settle()
    sets, pods = list(toy.sets.values()), toy.by_set()
    order.shuffle(sets)
    for members in pods.values():
        order.shuffle(members)
    plan = plan_rollout(toy.deployment, sets, pods, toy.now)
    assert plan == toy.plan()
    assert (plan.create_revision, plan.scale, plan.remove, plan.completed, plan.go_back_to) == (0, (), (), "", "")
    assert plan.status == toy.deployment.status


def test_failed_revision_goes_back_as_a_whole() -> None:
    toy = Toy(deployment(replicas=4))
    toy.settle()
    toy.wish(image="web:bad", replicas=6)
    toy.settle(bad_image="web:bad")
    assert images(toy) == ["web:1"] * 6
    assert "exited with status 3" in toy.events[0]
    rolled = condition(toy.deployment.status.conditions, "RolledBack")
    assert rolled is not None
    assert "Rolled back to revision 1" in rolled.message


def test_first_revision_that_fails_is_stopped_and_not_tried_again() -> None:
    toy = Toy(deployment("web:bad"))
    toy.settle(bad_image="web:bad")
    assert toy.pods == {}
    assert toy.deployment.spec.replicas == 3
    assert condition(toy.deployment.status.conditions, "RolledBack").reason == "RolloutFailed"
    toy.step()
    assert toy.pods == {}


def test_another_try_of_a_first_revision_that_failed_is_judged_by_itself() -> None:
    toy = Toy(deployment("web:bad"))
    toy.settle(bad_image="web:bad")
    toy.deployment = with_meta(toy.deployment, annotations={"korch.dev/auto-rollback": "true"})  # as a new wish does
    toy.settle()
    assert images(toy) == ["web:bad"] * 3
    assert condition(toy.deployment.status.conditions, "RolledBack") is None
    assert standing(toy.deployment, tuple(toy.pods.values()), toy.now, dead_nodes=frozenset(), since=1).state == "done"


def test_replicas_that_serve_are_kept_even_when_their_revision_was_never_marked() -> None:
    toy = Toy(deployment(replicas=2))
    toy.settle()
    for name, found in toy.sets.items():  # korch was killed between the last replica's start and the mark
        toy.sets[name] = with_meta(found, annotations={"deployment.kubernetes.io/revision": "1"})
    toy.wish(image="web:bad")
    toy.settle(bad_image="web:bad")
    assert images(toy) == ["web:1"] * 2
    assert "Rolled back to revision 1" in condition(toy.deployment.status.conditions, "RolledBack").message


def test_kubernetes_objects_are_not_rolled_back() -> None:
    toy = Toy(deployment(auto=False))
    toy.settle()
    toy.wish(image="web:bad")
    for _ in range(5):
        toy.step()
    new = next(name for name, pod in toy.pods.items() if pod.spec.containers[0].image == "web:bad")
    toy.crash(new)
    toy.now += 200
    for _ in range(3):
        toy.step()
    assert images(toy).count("web:1") == 3
    progressing = condition(toy.deployment.status.conditions, "Progressing")
    assert progressing.reason == "ProgressDeadlineExceeded"
    limit_s = toy.deployment.spec.progress_deadline_seconds
    assert progressing.message.startswith(f"no progress for {limit_s} s: {new} on ")


def test_time_in_which_nobody_worked_does_not_count() -> None:
    toy = Toy(deployment())
    toy.step()
    toy.step()
    toy.now += 3600  # the process was killed, and another takes over
    late = plan_rollout(toy.deployment, tuple(toy.sets.values()), toy.by_set(), toy.now)
    assert late.give_up
    again = plan_rollout(toy.deployment, tuple(toy.sets.values()), toy.by_set(), toy.now, watched_since=toy.now - 30)
    assert (again.give_up, again.events) == ("", ())


def test_surge_pod_that_fits_nowhere_makes_the_batch_stop_first() -> None:
    toy = Toy(deployment(replicas=2))
    toy.settle()
    toy.wish(image="web:2")
    toy.step()
    toy.step()
    (pending,) = [name for name, pod in toy.pods.items() if not pod.status.conditions]
    victim = sorted(name for name in toy.pods if name != pending)[1]
    pod = with_meta(toy.pods[pending], annotations={STOP_FIRST: victim})
    waiting = Condition(type="PodScheduled", status="False", reason="Unschedulable", message="0/1 nodes")
    conditions = with_condition((), waiting, "2026-01-01T00:00:00Z")
    from msgspec.structs import replace

    toy.pods[pending] = replace(pod, status=replace(pod.status, conditions=conditions))
    toy.step()
    assert victim not in toy.pods
    assert toy.available() == 1


def test_history_is_kept_to_its_limit() -> None:
    from msgspec.structs import replace

    toy = Toy(deployment(replicas=1))
    toy.deployment = replace(toy.deployment, spec=replace(toy.deployment.spec, revision_history_limit=2))
    for number in range(6):
        toy.wish(image=f"web:{number}")
        toy.settle()
    assert len(toy.sets) == 3


def test_no_replicas_is_a_wish_that_comes_true_at_once() -> None:
    toy = Toy(deployment(replicas=0))
    toy.settle()
    assert condition(toy.deployment.status.conditions, "Progressing").reason == "NewReplicaSetAvailable"
    assert toy.pods == {}
    toy.wish(replicas=2)
    toy.settle()
    assert images(toy) == ["web:1"] * 2


def test_no_replicas_of_a_new_template_ends_those_of_the_old() -> None:
    toy = Toy(deployment(replicas=2))
    toy.settle()
    toy.wish(image="web:2", replicas=0)
    toy.step()
    assert condition(toy.deployment.status.conditions, "Progressing").reason != "NewReplicaSetAvailable"
    toy.settle()
    assert toy.pods == {}
    assert condition(toy.deployment.status.conditions, "Progressing").reason == "NewReplicaSetAvailable"


def paused(toy: Toy, value: bool = True) -> None:
    toy.deployment = replace(toy.deployment, spec=replace(toy.deployment.spec, paused=value))


def test_a_paused_deployment_scales_what_runs_and_rolls_nothing() -> None:
    toy = Toy(deployment(replicas=2))
    toy.settle()
    toy.wish(image="web:2")
    toy.settle()  # now there is a revision that is history
    paused(toy)
    toy.wish(replicas=4)
    toy.settle()
    assert images(toy) == ["web:2"] * 4
    toy.wish(image="web:3", replicas=3)
    for _ in range(5):
        toy.step()
    assert images(toy) == ["web:2"] * 3, "scaled, but of the template that ran"
    toy.wish(replicas=0)
    toy.step()
    toy.wish(replicas=1)
    toy.settle()
    assert images(toy) == ["web:2"]
    paused(toy, False)
    toy.wish(replicas=2)
    toy.settle()
    assert images(toy) == ["web:3"] * 2


def test_nothing_starts_while_a_new_deployment_is_paused() -> None:
    toy = Toy(deployment())
    paused(toy)
    assert not toy.step()
    assert toy.sets == {}


def test_a_rollout_that_is_paused_half_way_stays_where_it_is() -> None:
    toy = Toy(deployment(replicas=3))
    toy.settle()
    toy.wish(image="web:2")
    toy.step(2)
    halfway = images(toy)
    assert set(halfway) == {"web:1", "web:2"}
    paused(toy)
    for _ in range(5):
        toy.step()
    assert images(toy) == halfway


@given(flips=st.lists(st.sampled_from(["web:1", "web:2", "web:3"]), min_size=1, max_size=6), steps=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_template_that_flips_quickly_ends_as_it_was_last_wished(flips: list[str], steps: int) -> None:
    toy = Toy(deployment(replicas=3))
    toy.settle()
    for image in flips:
        toy.wish(image=image)
        for _ in range(steps):
            toy.step()
    toy.settle()
    assert images(toy) == [flips[-1]] * 3
    assert condition(toy.deployment.status.conditions, "Progressing").reason == "NewReplicaSetAvailable"
    assert condition(toy.deployment.status.conditions, "RolledBack") is None


def test_recreate_stops_all_before_it_starts_any() -> None:
    toy = Toy(deployment(replicas=3))
    toy.deployment = replace(
        toy.deployment, spec=replace(toy.deployment.spec, strategy=DeploymentStrategy(type="Recreate"))
    )
    toy.settle()
    toy.wish(image="web:2")
    for _ in range(60):
        toy.step()
        assert len(set(images(toy))) <= 1
        for name, pod in toy.pods.items():
            if not pod.status.conditions:
                toy.make_ready(name)
    assert images(toy) == ["web:2"] * 3


def test_a_wish_during_the_way_back_is_followed() -> None:
    toy = Toy(deployment(replicas=2))
    toy.settle()
    toy.wish(image="web:bad")
    toy.step()
    toy.step()
    for name, pod in list(toy.pods.items()):
        if pod.spec.containers[0].image == "web:bad":
            toy.crash(name)
    toy.step()
    assert "RolledBack" in {found.type for found in toy.deployment.status.conditions}
    toy.wish(image="web:3")
    toy.settle()
    assert images(toy) == ["web:3"] * 2
    assert condition(toy.deployment.status.conditions, "RolledBack") is None


def test_a_pause_in_the_middle_stops_rolling_and_keeps_healing() -> None:
    toy = Toy(deployment(replicas=4))
    toy.settle()
    toy.wish(image="web:2")
    toy.step()
    toy.step()
    paused(toy)
    sizes = {name: found.spec.replicas for name, found in toy.sets.items()}
    toy.now += 10_000
    dead = min(toy.pods)
    del toy.pods[dead]
    for _ in range(20):
        toy.step()
        for name in sorted(toy.pods):
            toy.make_ready(name)
    assert {name: found.spec.replicas for name, found in toy.sets.items()} == sizes
    assert len(toy.pods) == sum(size or 0 for size in sizes.values())
    (progressing,) = [found for found in toy.deployment.status.conditions if found.type == "Progressing"]
    assert (progressing.status, progressing.reason) == ("Unknown", "DeploymentPaused"), "time does not count"
    assert toy.events == []
    paused(toy, False)
    toy.settle()
    assert {pod.spec.containers[0].image for pod in toy.pods.values()} == {"web:2"}
