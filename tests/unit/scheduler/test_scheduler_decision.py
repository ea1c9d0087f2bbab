"""Decisions: sentences, tables, and the annotation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.errors import InvalidError
from korch.scheduler.decision import (
    BYTES_KEPT,
    NAMES_KEPT,
    VERDICTS_KEPT,
    Decision,
    Part,
    Refusal,
    Refused,
    Verdict,
    explain,
    from_json,
    refusal_sentence,
    tally,
    to_json,
)
from korch.scheduler.select import FULL_RECORD, schedule
from tests.unit.scheduler.world import NOW, World, decide, load, node, pod, pods, random_world, shot

NODES = [node("a"), node("b", memory="256Mi"), node("c", cordoned=True), node("d")]


def test_a_placement_says_where_and_what_stood_against_the_others() -> None:
    decision = decide(NODES, pod(memory="512Mi"), loads={"d": load(0.9)})
    assert decision.node == "a"
    assert decision.message == "placed on a (score 87): 2/4 nodes fit, 1 cordoned, 1 lacks memory (512Mi asked)"
    assert decision.decided_at == NOW
    assert decision.nodes_total == 4
    assert (decision.namespace, decision.name, decision.uid) == ("default", "web-1", "uid-web-1")


def test_rows_for_korch_why() -> None:
    rows = explain(decide(NODES, pod(memory="512Mi"), loads={"d": load(0.9)}))
    assert [(r.node, r.chosen) for r in rows] == [("a", True), ("d", False), ("b", False), ("c", False)]
    assert [r.refusal for r in rows] == [
        "",
        "",
        "lacks memory: 512Mi asked, 256Mi not yet promised to other pods",
        "cordoned (korch node uncordon c opens it)",
    ]
    assert rows[0].score is not None
    assert rows[2].score is None
    assert {p.name for p in rows[0].parts} >= {"load", "spread", "requested"}


def test_rows_from_the_annotation_name_the_same_nodes() -> None:
    decision = decide(NODES, pod(memory="512Mi"))
    kept = from_json(to_json(decision))
    assert [(r.node, r.chosen, r.score) for r in explain(kept)] == [
        (r.node, r.chosen, r.score) for r in explain(decision)
    ]
    assert [r.refusal for r in explain(kept)][2:] == ["lacks memory (512Mi asked)", "cordoned"]


def refused(count: int, words: str = "full") -> list[Verdict]:
    return [Verdict(f"n{n:04d}", Refusal(words, f"is {words}", f"are {words}", "detail")) for n in range(count)]


def test_refusals_are_counted_and_named_up_to_a_bound() -> None:
    counted = tally([*refused(50), *refused(1, "down")])
    assert [(r.count, r.phrase, len(r.nodes)) for r in counted] == [(50, "are full", NAMES_KEPT), (1, "is down", 1)]
    decision = Decision("default", "x", "u", None, "", refused=counted)
    assert explain(decision)[-1].node == f"({50 - NAMES_KEPT} more)"


def test_a_sentence_tells_the_most_frequent_reasons() -> None:
    counted = [Refused("x", f"reason {n}", 20 - n, ()) for n in range(9)]
    sentence = refusal_sentence(500, counted)
    assert sentence.startswith("0/500 nodes: 20 reason 0, 19 reason 1")
    assert sentence.endswith("15 reason 5, 39 for other reasons")


def test_counts_add_up_to_all_nodes() -> None:
    for seed in range(60):
        for decision in schedule(random_world(seed, 7, 8, 3).snapshot(), random_world(seed, 7, 8, 3).wanted):
            scored = sum(v.refusal is None for v in decision.verdicts)
            assert scored + sum(r.count for r in decision.refused) == decision.nodes_total


def test_the_winner_is_the_first_verdict() -> None:
    decisions = schedule(shot([node(f"n{n}") for n in range(20)]), pods(5))
    for decision in decisions:
        assert decision.verdicts[0].node == decision.node
        assert decision.verdicts[0].score == decision.score
        scores = [v.score for v in decision.verdicts]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == FULL_RECORD


def test_how_much_is_recorded() -> None:
    snap = shot([node(f"n{n}") for n in range(20)])
    assert [len(d.verdicts) for d in schedule(snap, pods(2), record=0)] == [0, 0]
    assert [len(d.verdicts) for d in schedule(snap, pods(2), record=1)] == [1, 1]
    assert [len(d.verdicts) for d in schedule(snap, pods(2), record=3)] == [3, 3]
    many = schedule(snap, pods(5001))
    assert {len(d.verdicts) for d in many if d.node} == {1}
    assert all(d.refused for d in many if d.node is None)


WORLDS = st.builds(random_world, st.integers(0, 10**9), st.integers(0, 6), st.integers(0, 8), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(WORLDS)
def test_the_annotation_reads_back(world: World) -> None:
    for decision in schedule(world.snapshot(), world.wanted):
        scored = tuple(v for v in decision.verdicts if v.refusal is None)
        assert from_json(to_json(decision)) == replace(decision, verdicts=scored[:VERDICTS_KEPT])


def test_the_annotation_is_bounded() -> None:
    name, detail = "n" * 250, "d" * 900
    verdicts = tuple(Verdict(f"{name}{n}", None, 50.0, (Part("load", 1.0, detail),) * 8) for n in range(30))
    many = tuple(Refused("c", "p" * 300, 99, (name,) * NAMES_KEPT) for _ in range(30))
    for huge in (
        Decision("default", "x", "u", name, "m" * 1000, 50.0, NOW, 60, verdicts, many[:1]),
        Decision("default", "x", "u", None, "m" * 100_000, 0.0, NOW, 60, verdicts, many),
    ):
        text = to_json(huge)
        assert len(text.encode()) <= BYTES_KEPT
        assert from_json(text).node == huge.node
    assert len(to_json(decide(NODES, pod())).encode()) < 6000


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"node":1}', "x"])
def test_a_damaged_annotation_is_named(text: str) -> None:
    with pytest.raises(InvalidError, match=r"korch\.dev/decision"):
        from_json(text)
