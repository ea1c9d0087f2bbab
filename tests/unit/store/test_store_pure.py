"""The pure parts of the store: key ranges, compaction floors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.store.base import Put
from korch.store.ops import check_ops, prefix_end
from korch.store.sql import Head
from korch.store.upkeep import Limits, compaction_floor

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
edges = st.text(st.sampled_from("/a\x01\ud7ff\ue000\uffff\U0010ffff"), max_size=4)


@given(prefix=texts | edges, key=texts | edges)
def test_a_key_is_in_the_range_of_a_prefix_exactly_when_it_starts_with_it(prefix: str, key: str) -> None:
    end = prefix_end(prefix)
    assert (prefix <= key and (end is None or key < end)) == key.startswith(prefix)


@given(prefix=texts | edges)
def test_the_end_of_a_range_is_a_text_that_sqlite_takes(prefix: str) -> None:
    (prefix_end(prefix) or "").encode()


def test_checked_operations_come_back_as_they_were() -> None:
    ops = [Put("/b", b"1"), Put("/a", b"2", 3)]
    assert check_ops(ops) == tuple(ops)


LIMITS = Limits(revisions=100, least_revisions=10, file_bytes=1000)


@pytest.mark.parametrize(
    ("revision", "compacted", "aged", "used", "floor"),
    [
        pytest.param(50, 0, 0, 0, 0, id="short history stays"),
        pytest.param(150, 0, 0, 0, 50, id="only the newest"),
        pytest.param(150, 70, 0, 0, 70, id="never back"),
        pytest.param(150, 0, 120, 0, 120, id="old ones go"),
        pytest.param(150, 0, 149, 0, 140, id="but not the last few"),
        pytest.param(150, 0, 0, 2000, 140, id="a big file keeps the last few"),
        pytest.param(5, 0, 5, 2000, 0, id="fewer than the last few"),
    ],
)
def test_how_much_history_goes(revision: int, compacted: int, aged: int, used: int, floor: int) -> None:
    assert compaction_floor(Head(revision, compacted), LIMITS, aged=aged, used_bytes=used) == floor
