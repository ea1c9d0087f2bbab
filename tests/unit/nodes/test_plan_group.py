"""What comes next for a pod with several containers: the sandbox, the init containers in turn, then all others."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields

from korch.engines.names import SANDBOX
from korch.engines.observed import ObservedContainer
from korch.nodes.plan import Act, plan_pod
from korch.resources.codec import with_meta
from korch.resources.pod import Container, ContainerStatus, ExecAction, Pod, PodSpec, Probe

INIT, MAIN = ("first", "second"), ("web", "log")
ALL = (SANDBOX, *INIT, *MAIN)
Seen = dict[str, ObservedContainer]


def pod(policy: str = "Always", phase: str = "Running", *, deleted: bool = False) -> Pod:
    spec = PodSpec(
        containers=tuple(Container(name=name) for name in MAIN),
        init_containers=tuple(Container(name=name) for name in INIT),
        restart_policy=policy,
        node_name="n1",
    )
    made = with_meta(Pod(spec=spec), name="duo", deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None)
    return with_fields(made, status=with_fields(made.status, phase=phase))


def found(name: str, state: str = "running", *, at: float = 10.0, code: int | None = None, joined: str = "s1") -> Seen:
    """A container; a sandbox starts at 10 unless told otherwise."""
    one = ObservedContainer(
        id="s1" if name == SANDBOX else f"id-{name}",
        name=name,
        image="i",
        image_id="",
        state=state,  # type: ignore[arg-type]
        exit_code=code,
        started_at=at,
        joined="" if name == SANDBOX else joined,
    )
    return {name: one}


BEGUN = found(SANDBOX) | found("first", "exited", at=11, code=0) | found("second", "exited", at=12, code=0)
RUNS = BEGUN | found("web", at=13) | found("log", at=14)
WATCHED = (Act("watch", "web"), Act("watch", "log"))
CASES: Mapping[str, tuple[Pod, Seen, tuple[Act, ...]]] = {
    "nothing is there": (pod(), {}, (Act("start", SANDBOX),)),
    "the sandbox was made and did not start": (pod(), found(SANDBOX, "created"), (Act("start", SANDBOX),)),
    "only the sandbox": (pod(), found(SANDBOX), (Act("start", "first"),)),
    "the first one works": (pod(), found(SANDBOX) | found("first", at=11), (Act("watch", "first"),)),
    "the first one failed": (
        pod(),
        found(SANDBOX) | found("first", "exited", at=11, code=1),
        (Act("again", "first"),),
    ),
    "it failed, and is not to run again": (
        pod("Never"),
        found(SANDBOX) | found("first", "exited", at=11, code=1),
        (),
    ),
    "the first one is through": (
        pod(),
        found(SANDBOX) | found("first", "exited", at=11, code=0),
        (Act("start", "second"),),
    ),
    "all are through": (pod(), BEGUN, (Act("start", "web"), Act("start", "log"))),
    "killed between two": (pod(), BEGUN | found("web", at=13), (Act("watch", "web"), Act("start", "log"))),
    "all is well": (pod(), RUNS, WATCHED),
    "init containers were tidied away": (pod(), found(SANDBOX) | found("web", at=13) | found("log", at=14), WATCHED),
    "one died": (pod(), RUNS | found("log", "exited", at=14, code=1), (Act("watch", "web"), Act("again", "log"))),
    "one is done": (pod("OnFailure"), RUNS | found("log", "exited", at=14, code=0), (Act("watch", "web"),)),
    "the sandbox died": (pod(), RUNS | found(SANDBOX, "exited", code=137), (Act("halt"),)),
    "the sandbox is gone": (pod(), {name: one for name, one in RUNS.items() if name != SANDBOX}, (Act("halt"),)),
    "the sandbox was started anew": (pod(), RUNS | found(SANDBOX, at=20), (Act("halt"),)),
    "all of them ended, as in a boot": (
        pod(),
        {name: replace(one, state="exited", exit_code=255) for name, one in RUNS.items()},
        (Act("start", SANDBOX),),
    ),
    "after a boot init containers work again": (
        pod(),
        found(SANDBOX, at=20)
        | found("first", "exited", at=11, code=0)
        | found("web", "exited", at=13, code=255)
        | found("log", "exited", at=14, code=255),
        (Act("again", "first"),),
    ),
    "another sandbox has taken its place": (
        pod(),
        found(SANDBOX) | found("web", "exited", at=1, code=1, joined="s0"),
        (Act("clear", "web"),),
    ),
    "nothing is to run any more after a boot": (
        pod("Never"),
        {name: replace(one, state="exited", exit_code=255) for name, one in RUNS.items()},
        (),
    ),
    "it has ended": (pod("Never", "Succeeded"), RUNS | found("web", "exited") | found("log", "exited"), (Act("rest"),)),
    "it has ended and rests": (
        pod("Never", "Succeeded"),
        {name: replace(one, state="exited", exit_code=0) for name, one in RUNS.items()},
        (),
    ),
    "it is to go": (pod(deleted=True), RUNS, (Act("remove"),)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_comes_next(case: tuple[Pod, Seen, tuple[Act, ...]]) -> None:
    wanted, seen, acts = case
    assert plan_pod(wanted, seen) == acts


def test_only_the_sick_one_is_ended() -> None:
    assert plan_pod(pod(), RUNS, sick=("log",)) == (Act("watch", "web"), Act("end", "log"))


def with_sidecar(policy: str = "Always", *, startup: bool = False, started: bool = False) -> Pod:
    """`first` goes on beside the others."""
    made = pod(policy)
    probe = Probe(exec=ExecAction(command=("true",))) if startup else None
    first = Container(name="first", restart_policy="Always", startup_probe=probe)
    spec = with_fields(made.spec, init_containers=(first, made.spec.init_containers[1]))
    status = with_fields(made.status, init_container_statuses=(ContainerStatus(name="first", started=started),))
    return with_fields(made, spec=spec, status=status)


BESIDE = found(SANDBOX) | found("first", at=11)
ONLY_INIT = (Act("watch", "first"), Act("start", "second"))
GOES_ON: Mapping[str, tuple[Pod, Seen, tuple[Act, ...]]] = {
    "it runs": (with_sidecar(), BESIDE, ONLY_INIT),
    "its startup probe has not passed": (with_sidecar(startup=True), BESIDE, (Act("watch", "first"),)),
    "its startup probe has passed": (with_sidecar(startup=True, started=True), BESIDE, ONLY_INIT),
    "all run": (with_sidecar(), RUNS | BESIDE, (Act("watch", "first"), *WATCHED)),
    "it ended well": (
        with_sidecar("OnFailure"),
        RUNS | found("first", "exited", at=11, code=0),
        (Act("again", "first"), *WATCHED),
    ),
    "it ended while others begin": (
        with_sidecar("Never"),
        found(SANDBOX) | found("first", "exited", at=11, code=1),
        (Act("again", "first"),),
    ),
    "somebody removed it": (
        with_sidecar(),
        {name: one for name, one in RUNS.items() if name != "first"},
        (Act("start", "first"), *WATCHED),
    ),
}


@pytest.mark.parametrize("case", GOES_ON.values(), ids=GOES_ON)
def test_what_comes_next_with_one_that_goes_on(case: tuple[Pod, Seen, tuple[Act, ...]]) -> None:
    wanted, seen, acts = case
    assert plan_pod(wanted, seen) == acts


class Engine:
    """Carries acts out as a node would, with a clock that goes on."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.clock, self.serial = dict(seen), 1000.0, 0

    def carry_out(self, act: Act) -> None:
        self.clock += 1
        if act.do in {"start", "again"}:
            self._start(act.container)
        elif act.do == "clear":
            del self.seen[act.container]
        elif act.do in {"halt", "rest"}:
            for name, one in self.seen.items():
                if one.state == "running":
                    self.seen[name] = replace(one, state="exited", exit_code=137)

    def end_of_init(self) -> None:
        """What works is through with it."""
        for name in INIT:
            if name in self.seen and self.seen[name].state == "running":
                self.seen[name] = replace(self.seen[name], state="exited", exit_code=0)

    def _start(self, name: str) -> None:
        sandbox = self.seen.get(SANDBOX)
        if name == SANDBOX:
            running = [one for one in self.seen.values() if one.state == "running"]
            assert not running, "a sandbox never starts under members that hold on to a dead network"
            self.serial += sandbox is None
            new = sandbox or replace(found(SANDBOX)[SANDBOX], id=f"new{self.serial}")
        else:
            assert sandbox is not None
            assert sandbox.state == "running"
            new = self.seen.get(name) or replace(found(name)[name], joined=sandbox.id)
            assert new.joined == sandbox.id, "it would join a network that is gone"
            if name in MAIN:
                done = [self.seen.get(one) for one in INIT]
                assert all(one is None or one.exit_code == 0 for one in done), "init containers come first"
        ends = name in INIT  # at once, and well
        state, code = ("exited", 0) if ends else ("running", None)
        self.seen[name] = replace(new, state=state, exit_code=code, started_at=self.clock)  # type: ignore[arg-type]


containers = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(
            lambda state, at, code, joined, name=name: found(
                name, state, at=at, code=None if state == "running" else code, joined=joined
            )[name],
            st.sampled_from(["running", "exited", "created"]),
            st.integers(1, 5).map(float),
            st.sampled_from([0, 1, 137]),
            st.sampled_from(["s1", "s1", "s0"]),
        )
        for name in ALL
    },
)


@settings(max_examples=200, deadline=None)
@given(seen=containers)
def test_whatever_was_left_there_the_pod_runs_in_the_end_and_then_nothing_happens(seen: Seen) -> None:
    begun = any(name in seen and seen[name].state != "created" for name in MAIN)
    for name in INIT:
        if name in seen and begun:  # it was through before they began
            seen[name] = replace(seen[name], state="exited", exit_code=0)
    engine = Engine(seen)
    for _ in range(20):
        engine.end_of_init()
        acts = [act for act in plan_pod(pod(), engine.seen) if act.do != "watch"]
        if not acts:
            break
        for act in acts:
            engine.carry_out(act)
    assert plan_pod(pod(), engine.seen) == WATCHED
    sandbox = engine.seen[SANDBOX]
    for name in MAIN:
        one = engine.seen[name]
        assert (one.state, one.joined) == ("running", sandbox.id)
        assert (one.started_at or 0) >= (sandbox.started_at or 0)
