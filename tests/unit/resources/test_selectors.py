"""Label selectors: both forms, matching, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import InvalidError
from korch.resources.meta import LabelSelector, LabelSelectorRequirement
from korch.resources.selectors import (
    Requirement,
    Selector,
    matches,
    parse_selector,
    selector_of,
    selector_text,
    validate_selector,
)

LABELS = {"app": "web", "tier": "front", "size": "12", "korch.dev/zone": "a", "empty": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("missing=x", False),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app in(web)", True),
        ("app notin (db,cache)", True),
        ("missing notin (x)", True),
        ("app notin (web)", False),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("! missing", True),
        ("!app", False),
        ("korch.dev/zone=a", True),
        ("empty=", True),
        ("app=", False),
        ("size>11", True),
        ("size>12", False),
        ("size<13", True),
        ("app>1", False),
        ("app=web,tier!=back,korch.dev/zone in (a,b),!gone", True),
        ("app=web,tier=back", False),
        (" app = web , tier = front ", True),
    ],
)
def test_text_form(text: str, expected: bool) -> None:
    assert matches(parse_selector(text), LABELS) is expected


@pytest.mark.parametrize(
    "text",
    [
        "=web",
        "app in ()x",
        "app in web",
        "app in (a,b",
        "app,",
        ",app",
        "a b",
        "app=we b",
        "app=-",
        "!",
        "app>x",
        "in (a)",
        "-app=x",
        "app=" + "x" * 64,
        "UPPER.Prefix/x=1",
        "a/b/c=1",
        "app=a=b",
        "app=$(id)",
        "app=;",
        "app=-7",
    ],
)
def test_refuses_and_names_the_text(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_selector(text)
    assert text in str(caught.value)
    assert caught.value.hint


def test_no_selector_and_empty_selectors_match_everything() -> None:
    assert matches(None, {})
    assert matches(LabelSelector(), {})
    assert matches(Selector(), {})


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ("web",), True),
        ("In", ("db",), False),
        ("NotIn", ("db",), True),
        ("NotIn", ("web",), False),
        ("Exists", (), True),
        ("DoesNotExist", (), False),
    ],
)
def test_object_form(operator: str, values: tuple[str, ...], expected: bool) -> None:
    requirement = LabelSelectorRequirement(key="app", operator=operator, values=values)
    selector = LabelSelector(match_labels={"tier": "front"}, match_expressions=(requirement,))
    validate_selector(selector, "spec.selector")
    assert matches(selector, LABELS) is expected
    assert matches(selector_of(selector), LABELS) is expected
    assert matches(selector, {**LABELS, "tier": "back"}) is False


@pytest.mark.parametrize(
    ("selector", "word"),
    [
        (LabelSelector(match_labels={"a b": "c"}), "matchLabels"),
        (LabelSelector(match_labels={"a": "b c"}), "matchLabels"),
        (LabelSelector(match_expressions=(LabelSelectorRequirement(key="a", operator="Gt", values=("1",)),)), "Gt"),
        (LabelSelector(match_expressions=(LabelSelectorRequirement(key="a", operator="Equals"),)), "Equals"),
        (LabelSelector(match_expressions=(LabelSelectorRequirement(key="a", operator="In"),)), "at least one"),
        (LabelSelector(match_expressions=(LabelSelectorRequirement(key="a", operator="Exists", values=("x",)),)), "no"),
    ],
)
def test_validation_names_the_field(selector: LabelSelector, word: str) -> None:
    with pytest.raises(InvalidError, match=word) as caught:
        validate_selector(selector, "spec.selector")
    assert str(caught.value).startswith("spec.selector.")


def test_unknown_operator_is_never_a_silent_no() -> None:
    odd = LabelSelector(match_expressions=(LabelSelectorRequirement(key="a", operator="Like", values=("x",)),))
    with pytest.raises(InvalidError, match="Like"):
        matches(odd, {"a": "x"})


KEYS = st.sampled_from(["app", "tier", "korch.dev/zone", "n"])
VALUES = st.sampled_from(["", "a", "b-1", "c_2", "7"])
REQUIREMENTS = st.one_of(
    st.builds(Requirement, KEYS, st.sampled_from(["In", "NotIn"]), st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
    st.builds(Requirement, KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(Requirement, KEYS, st.sampled_from(["Gt", "Lt"]), st.sampled_from([("1",), ("-3",)])),
)


@given(st.lists(REQUIREMENTS, max_size=4), st.dictionaries(KEYS, VALUES))
def test_text_reads_back_and_means_the_same(requirements: list[Requirement], labels: dict[str, str]) -> None:
    selector = Selector(tuple(requirements))
    again = parse_selector(selector_text(selector))
    assert again == selector
    assert matches(again, labels) == matches(selector, labels)


@given(KEYS, st.lists(VALUES, min_size=1, max_size=3), st.dictionaries(KEYS, VALUES))
def test_negated_operators_are_the_opposite(key: str, values: list[str], labels: dict[str, str]) -> None:
    for yes, no in (("In", "NotIn"), ("Exists", "DoesNotExist")):
        chosen = tuple(values) if yes == "In" else ()
        positive = LabelSelector(match_expressions=(LabelSelectorRequirement(key=key, operator=yes, values=chosen),))
        negative = LabelSelector(match_expressions=(LabelSelectorRequirement(key=key, operator=no, values=chosen),))
        assert matches(positive, labels) is not matches(negative, labels)
