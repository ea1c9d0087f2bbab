import copy

from hypothesis import given
from hypothesis import strategies as st

from korch.resources.patch import three_way_merge

KEYS = st.sampled_from("abc")
PLAIN = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
MAPS = st.dictionaries(KEYS, PLAIN, max_size=3)


def test_the_manifest_wins_drops_and_leaves():
    before = {"mine": 1, "dropped": 2, "deep": {"x": 1, "y": 2}}
    wanted = {"mine": 5, "deep": {"x": 1}, "new": 3}
    current = {"mine": 9, "dropped": 2, "others": 7, "deep": {"x": 8, "y": 2, "z": 6}}
    assert three_way_merge(before, wanted, current) == {"mine": 5, "others": 7, "deep": {"x": 1, "z": 6}, "new": 3}


def test_lists_of_named_things_merge_and_others_are_replaced():
    before = {"containers": [{"name": "a", "args": ["1"]}, {"name": "gone"}]}
    wanted = {"containers": [{"name": "b"}, {"name": "a", "args": ["2"]}]}
    current = {"containers": [{"name": "a", "args": ["1"], "policy": "x"}, {"name": "gone"}, {"name": "sidecar"}]}
    assert three_way_merge(before, wanted, current) == {
        "containers": [{"name": "b"}, {"name": "a", "args": ["2"], "policy": "x"}, {"name": "sidecar"}]
    }


def test_a_name_given_twice_is_left_for_validation():
    wanted = {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}
    assert three_way_merge({}, wanted, {"env": [{"name": "B"}]}) == wanted


@given(wanted=MAPS, current=MAPS)
def test_applying_again_changes_nothing(wanted, current):
    once = three_way_merge({}, wanted, current)
    assert three_way_merge(wanted, wanted, once) == once


@given(before=MAPS, wanted=MAPS, current=MAPS)
def test_what_the_manifest_says_is_so_afterwards(before, wanted, current):
    inputs = copy.deepcopy((before, wanted, current))
    assert _holds(wanted, three_way_merge(before, wanted, current))
    assert (before, wanted, current) == inputs


@given(before=MAPS, current=MAPS)
def test_what_only_others_set_stays(before, current):
    kept = three_way_merge(before, {}, current)
    assert kept == {key: value for key, value in current.items() if key not in before}


def _holds(wanted, found) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and _holds(value, found[key]) for key, value in wanted.items()
        )
    return wanted == found
