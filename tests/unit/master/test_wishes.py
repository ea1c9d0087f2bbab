"""Wishes are sent to the nodes that lack them, and to no other."""

from msgspec.structs import replace

from korch.master.wishes import digest_of, stale_nodes
from korch.nodes.records import record_of
from korch.resources.codec import with_meta
from tests.unit.controllers.cluster import deployment


def test_only_nodes_that_run_it_and_hold_another_are_written() -> None:
    running, reached = frozenset({"n1", "n2", "n3"}), frozenset({"n1", "n2", "n4"})
    held = {"n1": "new", "n2": "old", "n3": "old"}
    assert stale_nodes("new", running, held, reached) == {"n2"}
    assert stale_nodes("new", running, {}, reached) == {"n1", "n2"}


def test_a_wish_is_the_same_at_any_revision_and_differs_by_what_is_wished() -> None:
    one = deployment()
    digest = digest_of(record_of(with_meta(one, resource_version="5")).content)
    assert digest == digest_of(record_of(with_meta(one, resource_version="99")).content)
    assert digest != digest_of(record_of(replace(one, spec=replace(one.spec, replicas=9))).content)
    assert digest == digest_of(record_of(replace(one, status=replace(one.status, replicas=3))).content)
