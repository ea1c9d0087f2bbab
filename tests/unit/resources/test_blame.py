from korch.resources.blame import FAILURES, LATELY_S, blame, recent_failures
from korch.resources.codec import with_meta
from korch.resources.meta import ObjectMeta
from korch.resources.workload import ReplicaSet

SET = ReplicaSet(metadata=ObjectMeta(name="web-1", namespace="default"))


def test_failures_are_counted_per_node_and_forgotten() -> None:
    found = blame(blame(blame(SET, "n1", 100.0), "n1", 110.0), "n2", 120.0)
    key = "default/ReplicaSet/web-1"
    assert recent_failures([found], 130.0) == {("n1", key): 2, ("n2", key): 1}
    assert recent_failures([found], 115.0 + LATELY_S) == {("n2", key): 1}
    later = blame(found, "n3", 200.0 + LATELY_S)
    assert recent_failures([later], 200.0 + LATELY_S) == {("n3", key): 1}
    assert "n1" not in later.metadata.annotations[FAILURES]


def test_a_damaged_record_counts_for_nothing() -> None:
    for text in ("", "x", "[]", '{"n1": 3}', '{"n1": ["a", 1]}'):
        assert recent_failures([with_meta(SET, annotations={FAILURES: text})], 1.0) == {}
        assert blame(with_meta(SET, annotations={FAILURES: text}), "n1", 5.0).metadata.annotations[FAILURES]


def test_the_record_stays_small() -> None:
    found = SET
    for number in range(200):
        found = blame(found, f"node-{number}", 100.0 + number)
    assert len(recent_failures([found], 300.0)) == 50
    assert ("node-199", "default/ReplicaSet/web-1") in recent_failures([found], 300.0)
