"""Jobs: how many pods run, what is counted, when it ends. A toy cluster carries plans out, and stops half-way."""

import asyncio
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.job import JobController, JobPlan, NewPod, is_finished, plan_job, pod_from
from korch.controllers.jobcount import TRACKED, indexes_of, indexes_text, is_active, is_tracked
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.batch import Job, JobSpec
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.meta import ObjectMeta
from korch.resources.pod import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodSpec,
)
from korch.resources.podstate import condition
from korch.resources.times import rfc3339
from korch.resources.validation import problems_of
from korch.resources.workload import PodTemplateSpec
from tests.unit.objects.memory_store import MemoryStore

SERIAL = itertools.count()


def job(*, policy: str = "Never", **spec: object) -> Job:
    template = PodTemplateSpec(spec=PodSpec(restart_policy=policy, containers=(Container(name="a", image="a:1"),)))
    meta = ObjectMeta(name="work", namespace="default", uid="j1")
    return with_defaults(Job(metadata=meta, spec=JobSpec(template=template, **spec)))


@dataclass
class Toy:
    """`won` and `lost`: pods whose ends the cluster has seen."""

    job: Job
    now: float = 1_000_000.0
    pods: dict[str, Pod] = field(default_factory=dict)
    won: int = 0
    lost: int = 0

    def plan(self) -> JobPlan:
        return plan_job(self.job, tuple(self.pods.values()), self.now)

    def carry_out(self, plan: JobPlan, steps: int = 10_000) -> None:
        """At most so many writes: then the controller is killed."""
        writes = [lambda: self._status(plan)] if plan.status != self.job.status else []
        writes += [lambda p=p: self.release(p.metadata.name) for p in plan.release]
        for pod in plan.delete:
            writes += [lambda p=pod: self.release(p.metadata.name), lambda p=pod: self.delete(p.metadata.name)]
        writes += [lambda n=new: self._create(n) for new in plan.create]
        for write in writes[:steps]:
            write()

    def settle(self) -> None:
        for _ in range(50):
            plan = self.plan()
            if plan == JobPlan(self.job.status, again_s=plan.again_s):
                return
            self.carry_out(plan)
        raise AssertionError(f"it never rests: {plan}")

    def _status(self, plan: JobPlan) -> None:
        self.job = replace(self.job, status=plan.status)

    def _create(self, new: NewPod) -> None:
        assert new.name not in self.pods
        made = with_defaults(pod_from(self.job, new))
        assert problems_of(made) == []
        made = with_meta(made, uid=f"u{next(SERIAL)}")
        self.pods[new.name] = replace(made, spec=replace(made.spec, node_name="n1"))

    def release(self, name: str) -> None:
        if name not in self.pods:
            return
        self.pods[name] = pod = with_meta(self.pods[name], finalizers=())
        if pod.metadata.deletion_timestamp and pod.metadata.deletion_grace_period_seconds == 0:
            del self.pods[name]

    def delete(self, name: str, *, by_user: bool = False) -> None:
        """The keeper ends it at once."""
        pod = self.pods[name]
        if is_active(pod) and by_user:
            self.lost += 1
        if is_tracked(pod):
            stamp = rfc3339(self.now)
            self.pods[name] = with_meta(pod, deletion_timestamp=stamp, deletion_grace_period_seconds=0)
        else:
            del self.pods[name]

    def end(self, name: str, *, well: bool) -> None:
        pod = self.pods[name]
        ended = ContainerStateTerminated(exit_code=0 if well else 1, finished_at=rfc3339(self.now))
        status = ContainerStatus(name="a", state=ContainerState(terminated=ended))
        phase = "Succeeded" if well else "Failed"
        self.pods[name] = replace(pod, status=replace(pod.status, phase=phase, container_statuses=(status,)))
        self.won, self.lost = self.won + well, self.lost + (not well)

    def active(self) -> list[str]:
        return sorted(name for name, pod in self.pods.items() if is_active(pod))

    def verdict(self) -> str:
        return next(
            (
                found.type
                for found in self.job.status.conditions
                if found.status == "True" and found.type in ("Complete", "Failed")
            ),
            "",
        )


def test_a_job_runs_to_its_end():
    toy = Toy(job(completions=3, parallelism=2))
    toy.settle()
    assert len(toy.active()) == 2
    assert toy.job.status.active == 2 or toy.plan().status.active == 2
    for name in toy.active():
        toy.end(name, well=True)
    toy.settle()
    assert len(toy.active()) == 1
    toy.end(toy.active()[0], well=True)
    toy.settle()
    assert toy.verdict() == "Complete"
    assert (toy.job.status.succeeded, toy.job.status.failed, toy.job.status.active) == (3, 0, 0)
    assert toy.job.status.completion_time
    assert not any(is_tracked(pod) for pod in toy.pods.values())


def test_failures_are_waited_for_longer_and_longer():
    toy = Toy(job(backoff_limit=6))
    waits = []
    for _ in range(4):
        toy.settle()
        toy.end(toy.active()[0], well=False)
        toy.settle()
        waits.append(toy.plan().again_s)
        toy.now += toy.plan().again_s or 0
    assert waits == [10.0, 20.0, 40.0, 80.0]


def test_too_many_failures_end_it():
    toy = Toy(job(backoff_limit=1, parallelism=2, completions=4))
    for _ in range(2):
        toy.settle()
        toy.end(toy.active()[0], well=False)
        toy.now += 400
    toy.settle()
    assert toy.verdict() == "Failed"
    assert condition(toy.job.status.conditions, "Failed").reason == "BackoffLimitExceeded"
    assert toy.active() == []
    assert toy.job.status.failed == 3  # the one that was cut off has failed too


def test_restarts_count_when_the_pods_restart():
    toy = Toy(job(policy="OnFailure", backoff_limit=2))
    toy.settle()
    name = toy.active()[0]
    again = ContainerStatus(name="a", restart_count=2)
    toy.pods[name] = replace(toy.pods[name], status=replace(toy.pods[name].status, container_statuses=(again,)))
    toy.settle()
    assert toy.verdict() == "Failed"


def test_what_was_lost_with_its_node_is_counted_replaced_and_ended_on_its_return():
    toy = Toy(job())
    toy.settle()
    name = toy.active()[0]
    lost = toy.pods[name]
    toy.pods[name] = replace(lost, status=replace(lost.status, phase="Failed", reason="NodeLost"))
    plan = toy.plan()
    assert (plan.release, plan.delete) == ((toy.pods[name],), ())
    toy.settle()
    assert name not in toy.pods
    assert (toy.job.status.failed, len(toy.active())) == (1, 1)


def test_a_deadline():
    toy = Toy(job(active_deadline_seconds=60))
    toy.settle()
    assert toy.plan().again_s == 60
    toy.now += 60
    toy.settle()
    assert condition(toy.job.status.conditions, "Failed").reason == "DeadlineExceeded"
    assert toy.active() == []


def test_a_job_goes_when_its_time_is_over():
    toy = Toy(job(ttl_seconds_after_finished=30))
    toy.settle()
    toy.end(toy.active()[0], well=True)
    toy.settle()
    assert (toy.plan().remove, toy.plan().again_s) == (False, 30.0)
    toy.now += 30
    assert toy.plan().remove


def test_suspended_it_runs_nothing_and_its_time_stands():
    toy = Toy(job(active_deadline_seconds=60, parallelism=2, completions=2))
    toy.settle()
    toy.job = replace(toy.job, spec=replace(toy.job.spec, suspend=True))
    toy.now += 1000
    toy.settle()
    assert toy.active() == []
    assert condition(toy.job.status.conditions, "Suspended").status == "True"
    assert toy.job.status.failed == 0
    toy.job = replace(toy.job, spec=replace(toy.job.spec, suspend=False))
    toy.settle()
    assert len(toy.active()) == 2
    assert not is_finished(toy.job)
    assert condition(toy.job.status.conditions, "Suspended").status == "False"


def test_without_completions_the_first_success_is_the_last_start():
    toy = Toy(job(parallelism=3))
    toy.settle()
    assert len(toy.active()) == 3
    toy.end(toy.active()[0], well=True)
    toy.settle()
    assert len(toy.active()) == 2
    assert not is_finished(toy.job)
    for name in toy.active():
        toy.end(name, well=True)
    toy.settle()
    assert (toy.verdict(), toy.job.status.succeeded) == ("Complete", 3)


def test_fewer_at_a_time():
    toy = Toy(job(parallelism=3, completions=9))
    toy.settle()
    toy.job = replace(toy.job, spec=replace(toy.job.spec, parallelism=1))
    toy.settle()
    assert len(toy.active()) == 1
    assert toy.job.status.failed == 0


def test_indexes():
    toy = Toy(job(completions=3, parallelism=3, completion_mode="Indexed"))
    toy.settle()
    pods = [toy.pods[name] for name in toy.active()]
    assert sorted(pod.metadata.labels["batch.kubernetes.io/job-completion-index"] for pod in pods) == ["0", "1", "2"]
    assert pods[0].spec.hostname == "work-0"
    env = pods[0].spec.containers[0].env[0]
    assert env.name == "JOB_COMPLETION_INDEX"
    toy.end(toy.active()[1], well=False)
    toy.end(toy.active()[0], well=True)
    toy.settle()
    assert toy.job.status.completed_indexes == "0"
    toy.now += 11
    toy.settle()
    assert [toy.pods[name].spec.hostname for name in toy.active()] == ["work-1", "work-2"]
    for name in toy.active():
        toy.end(name, well=True)
    toy.settle()
    assert (toy.verdict(), toy.job.status.completed_indexes) == ("Complete", "0-2")


@given(st.sets(st.integers(0, 40)))
def test_indexes_as_text(indexes):
    assert indexes_of(indexes_text(indexes)) == indexes


def test_a_job_that_is_deleted_lets_go_of_its_pods():
    toy = Toy(job(parallelism=2, completions=2))
    toy.settle()
    toy.job = with_meta(toy.job, deletion_timestamp=rfc3339(toy.now))
    plan = toy.plan()
    assert len(plan.release) == 2
    assert plan.create == ()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    completions=st.one_of(st.none(), st.integers(0, 4)),
    parallelism=st.integers(1, 3),
    indexed=st.booleans(),
    limit=st.integers(0, 4),
)
def test_every_pod_is_counted_once_whatever_is_killed(seed, completions, parallelism, indexed, limit):
    dice = random.Random(seed)
    mode = "Indexed" if indexed and completions is not None else "NonIndexed"
    toy = Toy(job(completions=completions, parallelism=parallelism, backoff_limit=limit, completion_mode=mode))
    for _ in range(40):
        if is_finished(toy.job):
            break
        assert len(toy.active()) <= parallelism
        toy.carry_out(toy.plan(), dice.choice([0, 1, 2, 10_000]))
        active = toy.active()
        if active and not is_finished(toy.job):
            name, what = dice.choice(active), dice.random()
            if what < 0.5:
                toy.end(name, well=dice.random() < 0.7)
            elif what < 0.6:
                toy.delete(name, by_user=True)
        toy.now += dice.choice([0, 1, 400])
    toy.now += 400
    for _ in range(60):
        toy.settle()
        toy.now += 400
        if is_finished(toy.job):
            break
        for name in toy.active():
            toy.end(name, well=True)
    assert is_finished(toy.job)
    assert toy.active() == []
    assert not any(is_tracked(pod) and not is_active(pod) for pod in toy.pods.values())
    status = toy.job.status
    if mode == "NonIndexed":
        assert status.succeeded == toy.won
    if toy.verdict() == "Complete":
        assert status.failed == toy.lost
        assert status.succeeded >= (completions or 0)
    else:
        assert status.failed > limit


@pytest.mark.parametrize("times", [1, 2])
def test_the_controller_on_a_store(times):
    async def body() -> None:
        objects = Objects(MemoryStore())  # type: ignore[arg-type]
        view = View(objects, (Job, Pod))
        made = await view.create(Job(metadata=ObjectMeta(name="work"), spec=job(completions=2, parallelism=2).spec))
        controller = JobController(view, objects._clock)
        for _ in range(times):
            await controller.reconcile(("default", "work"))
        pods = tuple(view.all(Pod))
        assert len(pods) == 2
        assert all(pod.metadata.finalizers == (TRACKED,) for pod in pods)
        assert made.spec.selector is not None
        for pod in pods:
            await view.update_status(replace(pod, status=replace(pod.status, phase="Succeeded")))
        for _ in range(3):
            await controller.reconcile(("default", "work"))
        done = await objects.get(Job, "work")
        assert (is_finished(done), done.status.succeeded, done.status.uncounted_terminated_pods) == (True, 2, None)
        for pod in tuple(view.all(Pod)):
            await view.delete(pod)
        assert list(view.all(Pod)) == []

    asyncio.run(body())


def test_pods_of_a_job_that_is_gone_are_let_go_of():
    async def body() -> None:
        objects = Objects(MemoryStore())  # type: ignore[arg-type]
        view = View(objects, (Job, Pod))
        await view.create(Job(metadata=ObjectMeta(name="work"), spec=job().spec))
        controller = JobController(view, objects._clock)
        await controller.reconcile(("default", "work"))
        await view.delete(next(view.all(Job)))
        await view.delete(next(view.all(Pod)))
        assert len(list(view.all(Pod))) == 1
        await controller.reconcile(("default", "work"))
        assert list(view.all(Pod)) == []

    asyncio.run(body())
