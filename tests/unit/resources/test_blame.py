from korch.resources.annotations import LOSSES
from korch.resources.blame import FAILURES, LATELY_S, LOST_LATELY_S, blame, distrust, note_loss, recent_failures
from korch.resources.codec import with_meta
from korch.resources.meta import ObjectMeta
from korch.resources.node import Node
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


def test_losses_of_a_node_count_for_an_hour_and_for_every_workload() -> None:
    node = Node(metadata=ObjectMeta(name="n1"))
    for when in (100.0, 2000.0):
        node = note_loss(node, when)
    assert distrust([node], [blame(SET, "n1", 2000.0)], 2001.0) == {
        ("n1", ""): 2,
        ("n1", "default/ReplicaSet/web-1"): 1,
    }
    assert distrust([node], [], 101.0 + LOST_LATELY_S) == {("n1", ""): 1}
    assert distrust([node], [], 2001.0 + LOST_LATELY_S) == {}
    for when in range(100):
        node = note_loss(node, 3000.0 + when)
    assert distrust([node], [], 3200.0) == {("n1", ""): 5}, "it stays small"
    assert distrust([with_meta(node, annotations={LOSSES: "x"})], [], 3200.0) == {}
