"""Patterns mean what they do in `re` (but for `$`), and no text takes for ever."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.wire.patterns import matcher

ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\W", "[^\\d]", "é", "^", r"\Z", "()"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?"])).map(
            lambda p: f"({p[0]}){p[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, st.lists(st.text(alphabet="ab1é\n-", max_size=6), min_size=1, max_size=4))
def test_a_pattern_finds_what_re_finds(pattern: str, texts: list[str]) -> None:
    found = matcher(pattern)
    assert found is not None
    for text in texts:
        assert found.matches(text) is (re.search(pattern, text, re.ASCII) is not None), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^[a-z]+$", "a" * 100_000, "abc\n"),
        ("^(a+)+$", "a" * 5000, "a" * 5000 + "b"),
        ("^" + "a?" * 40 + "a" * 40 + "$", "a" * 60, "a" * 39),
        (r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$", "1h2.5m", "1h2.5"),
        (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "a-b.c" * 100, "a-.b"),
        (r"^\d{1,3}$", "12", "١٢"),
    ],
)
def test_no_pattern_takes_longer_than_its_text(pattern: str, good: str, bad: str) -> None:
    found = matcher(pattern)
    assert found is not None
    assert found.matches(good) is True
    assert found.matches(bad) is False


def test_what_would_take_too_long_is_not_said_to_match() -> None:
    found = matcher("(a|b)*a(a|b){400}c")
    assert found is not None
    text = "".join(random.Random(7).choices("ab", k=100_000))
    assert found.matches(text) is None
    assert found.matches("a" * 401 + "c") is True


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)b", "[[:alpha:]]", "(?i)a", "((a{60}){60}){60}", r"\bx"])
def test_what_no_automaton_does_is_not_understood(pattern: str) -> None:
    assert matcher(pattern) is None
