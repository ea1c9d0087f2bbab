"""What a keeper plans: the order of what it saw is irrelevant, acts come to an end, and only proven strays go."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields

from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.nodes.plan import Act, Strays, plan_pod, plan_strays
from korch.resources.codec import with_meta
from korch.resources.meta import ObjectMeta
from korch.resources.pod import Container, Pod, PodSpec
from tests.unit.nodes.test_plan_group import containers, found
from tests.unit.nodes.test_plan_group import pod as group
from tests.unit.planners import DICE, mixed, mixed_keys, steady

HERE, ELSEWHERE = "n1", "n2"
STATES = ("created", "running", "restarting", "paused", "exited", "removing", "dead")
POLICIES = st.sampled_from(["Always", "OnFailure", "Never", ""])
PHASES = st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])
SOME = st.frozensets(st.sampled_from(["first", "web", "log"]))


@steady(200)
@given(POLICIES, PHASES, st.booleans(), st.booleans(), containers, SOME, DICE)
def test_the_order_of_containers_is_irrelevant(
    policy: str,
    phase: str,
    deleted: bool,
    anew: bool,
    seen: dict[str, ObservedContainer],
    sick: frozenset[str],
    dice: random.Random,
) -> None:
    if anew:  # all of them are of a sandbox that is gone
        seen = {name: replace(one, state="exited", exit_code=1, joined="s0") for name, one in seen.items()}
        seen |= found(SANDBOX)
    wanted = group(policy, phase, deleted=deleted)
    assert plan_pod(wanted, mixed_keys(seen, dice), sick=sick) == plan_pod(wanted, seen, sick=sick)


# --- one container: no sandbox, and its engine restarts it ---


def single(policy: str, phase: str) -> Pod:
    spec = PodSpec(containers=(Container(name="web"),), restart_policy=policy, node_name=HERE)
    made = with_meta(Pod(spec=spec), name="one", uid="one")
    return with_fields(made, status=with_fields(made.status, phase=phase))


def web(state: str, code: int) -> ObservedContainer:
    ended = code if state in {"exited", "dead"} else None
    return ObservedContainer(id="i", name="web", image="i", image_id="", state=state, exit_code=ended)  # type: ignore[arg-type]


def carried_out(act: Act, seen: dict[str, ObservedContainer], code: int) -> dict[str, ObservedContainer]:
    """What is there once a node has done it."""
    if act.do in {"start", "again"}:
        return {**seen, act.container: web("running", 0)}
    if act.do in {"end", "calm", "rest", "halt"}:
        return {name: replace(one, state="exited", exit_code=code) for name, one in seen.items()}
    return {} if act.do == "remove" else {name: one for name, one in seen.items() if name != act.container}


@steady(200)
@given(
    POLICIES,
    PHASES,
    st.booleans(),
    st.one_of(st.none(), st.builds(web, st.sampled_from(STATES), st.sampled_from([0, 1]))),
    st.sampled_from([0, 137]),
    st.booleans(),
    st.booleans(),
)
def test_a_pod_of_one_container_comes_to_rest(
    policy: str, phase: str, deleted: bool, there: ObservedContainer | None, code: int, sick: bool, looping: bool
) -> None:
    wanted = single(policy, phase)
    if deleted:
        meta = {
            "deletion_timestamp": "2026-01-01T00:00:00Z",
            "finalizers": ("held",),
            "deletion_grace_period_seconds": 0,
        }
        wanted = with_meta(wanted, **meta)
    seen = {} if there is None else {"web": there}
    acts = plan_pod(wanted, seen, sick=("web",) if sick else (), looping=("web",) if looping else ())
    assert len(acts) <= 1
    over = deleted or phase in {"Succeeded", "Failed"}
    assert not over or not {act.do for act in acts} & {"start", "again"}, "what is over starts nothing"
    for _ in range(4):
        for act in acts:
            seen = seen if act.do == "watch" else carried_out(act, seen, code)
        acts = plan_pod(wanted, seen)
    assert acts in {(), (Act("watch", "web"),)}
    if deleted:
        assert (acts, seen) == ((), {})
    elif not over and acts:
        assert seen["web"].state == "running"


# --- strays ---


def seen_of(uid: str, names: tuple[str, ...], cluster: str, owner: str) -> list[ObservedContainer]:
    return [
        ObservedContainer(
            identity=Identity(cluster, "default", f"{owner}-{uid}", uid, name, owner, 1, "h"),
            id=f"{uid}-{name}",
            name=f"korch_{name}_{owner}_{uid}",
            image="i",
            image_id="",
            state="running",
        )
        for name in names
    ]


@st.composite
def nodes(draw: st.DrawFn) -> tuple[list[ObservedContainer], dict[str, Pod], frozenset[str]]:
    """What a node holds, the pods of the store, and the tombstones: pods here, elsewhere, unbound, ended, unknown."""
    seen, pods, stones = [], {}, set()
    for number in range(draw(st.integers(0, 24))):
        uid = f"u{number:02}"
        names = draw(st.sampled_from([("web",), (SANDBOX, "web", "log")]))
        cluster = draw(st.sampled_from(["c1", "c1", "c1", "c2"]))
        seen += seen_of(uid, names, cluster, draw(st.sampled_from(["web", "db"])))
        where = draw(st.sampled_from([HERE, ELSEWHERE, ELSEWHERE, "", None]))
        if where is not None:
            spec = PodSpec(containers=(Container(name="web"),), node_name=where)
            pods[uid] = Pod(metadata=ObjectMeta(name=f"web-{uid}", uid=uid), spec=spec)
        if where is None and draw(st.booleans()):
            stones.add(uid)
    return seen, pods, frozenset(stones)


def uids(found: tuple[ObservedContainer, ...]) -> set[str]:
    return {one.identity.uid for one in found if one.identity is not None}


@steady(100)
@given(nodes(), st.booleans(), DICE)
def test_strays_go_as_a_whole_few_at_a_time_and_only_when_they_are_proven(
    node: tuple[list[ObservedContainer], dict[str, Pod], frozenset[str]], picky: bool, dice: random.Random
) -> None:
    seen, pods, stones = node

    def mine(identity: Identity) -> bool:
        return not picky or identity.owner == "web"

    kept = [one for one in seen if not _proven(one, pods, stones) or not mine(one.identity)]  # type: ignore[arg-type]
    last = None
    for _ in range(len(seen) + 1):
        strays = plan_strays(seen, "c1", HERE, pods, stones, mine)
        assert plan_strays(mixed(seen, dice), "c1", HERE, mixed_keys(pods, dice), stones, mine) == strays
        ours = {one.identity.uid for one in seen if one.identity is not None and one.identity.cluster == "c1"}
        going = uids(strays.surplus)
        assert len(going) <= max(3, len(ours) // 5)
        assert not strays.held_back or len(going) == max(3, len(ours) // 5), "the limit is used"
        assert not going & uids(strays.orphans)
        seen = [one for one in seen if one not in strays.surplus]
        assert not going & uids(tuple(seen)), "nothing of a pod is left behind"
        last = strays
        if not strays.surplus:
            break
    assert last == Strays(orphans=last.orphans), "carried out, there is nothing left to do"  # type: ignore[union-attr]
    assert seen == kept


def _proven(one: ObservedContainer, pods: dict[str, Pod], stones: frozenset[str]) -> bool:
    """Whether the store says that it belongs nowhere, or to another node."""
    assert one.identity is not None
    pod = pods.get(one.identity.uid)
    elsewhere = pod is not None and pod.spec.node_name == ELSEWHERE
    return one.identity.cluster == "c1" and (elsewhere or one.identity.uid in stones)
