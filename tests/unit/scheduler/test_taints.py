"""How long a pod may stay on a tainted node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.resources.node import Taint
from korch.resources.pod import Pod, PodSpec, Toleration
from korch.scheduler.taints import NOT_READY, UNREACHABLE, eviction_due_s, tolerates

LOST = Taint(key=UNREACHABLE, effect="NoExecute")
ILL = Taint(key=NOT_READY, effect="NoExecute")


def pod(*tolerations: Toleration) -> Pod:
    return Pod(spec=PodSpec(tolerations=tolerations))


def stays(key: str = UNREACHABLE, seconds: int | None = None) -> Toleration:
    return Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=seconds)


@pytest.mark.parametrize(
    ("tolerations", "taints", "due"),
    [
        pytest.param((), (LOST,), 0.0, id="nothing is tolerated: at once"),
        pytest.param((), (), None, id="no taint"),
        pytest.param((), (Taint(key="a", effect="NoSchedule"),), None, id="a taint for newcomers only"),
        pytest.param((stays(),), (LOST,), None, id="for ever"),
        pytest.param((stays(seconds=300),), (LOST,), 290.0, id="for a time, of which ten seconds are over"),
        pytest.param((stays(seconds=5),), (LOST,), 0.0, id="for a time that is over"),
        pytest.param((stays(seconds=-1),), (LOST,), 0.0, id="less than no time"),
        pytest.param((stays(seconds=300), stays(seconds=60)), (LOST,), 50.0, id="the shorter of two"),
        pytest.param((stays(), stays(seconds=60)), (LOST,), 50.0, id="a limit beside none"),
        pytest.param((stays(seconds=300),), (LOST, ILL), 0.0, id="one of two taints is not tolerated"),
        pytest.param((stays(seconds=300), stays(NOT_READY, 30)), (LOST, ILL), 20.0, id="two taints"),
        pytest.param((Toleration(operator="Exists"),), (LOST, ILL), None, id="everything is tolerated"),
        pytest.param((Toleration(key=UNREACHABLE, operator="Equal", value="x"),), (LOST,), 0.0, id="another value"),
    ],
)
def test_eviction(tolerations: tuple[Toleration, ...], taints: tuple[Taint, ...], due: float | None) -> None:
    assert eviction_due_s(pod(*tolerations), taints, since=100.0, now=110.0) == due


TAINTS = st.builds(
    Taint,
    key=st.sampled_from("ab"),
    effect=st.sampled_from(["NoExecute", "NoSchedule"]),
    value=st.sampled_from(["", "x"]),
)
TOLERATIONS = st.builds(
    Toleration,
    key=st.sampled_from(["", "a", "b"]),
    operator=st.sampled_from(["Equal", "Exists"]),
    value=st.sampled_from(["", "x"]),
    effect=st.sampled_from(["", "NoExecute"]),
    toleration_seconds=st.none() | st.integers(-5, 500),
)


@given(st.lists(TOLERATIONS, max_size=4), st.lists(TAINTS, max_size=3), st.floats(0.0, 1000.0))
def test_time_only_brings_it_nearer_and_order_is_irrelevant(
    tolerations: list[Toleration], taints: list[Taint], later: float
) -> None:
    due = eviction_due_s(pod(*tolerations), taints, since=0.0, now=0.0)
    assert eviction_due_s(pod(*reversed(tolerations)), taints[::-1], since=0.0, now=0.0) == due
    after = eviction_due_s(pod(*tolerations), taints, since=0.0, now=later)
    assert after == (None if due is None else max(0.0, due - later))
    harmless = all(taint.effect != "NoExecute" or tolerates(tolerations, taint) for taint in taints)
    assert harmless or due == 0.0
