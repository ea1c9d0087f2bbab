"""Quantities: Kubernetes' grammar, exact values, round trips."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import InvalidError
from korch.resources.quantity import (
    cpu_millis,
    format_bytes,
    format_cpu,
    human_bytes,
    memory_bytes,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("250m", Fraction(1, 4)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("0.1", Fraction(1, 10)),
        ("1k", Fraction(1000)),
        ("1Ki", Fraction(1024)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("2M", Fraction(2_000_000)),
        ("1E", Fraction(10**18)),
        ("1Ei", Fraction(2**60)),
        ("1e3", Fraction(1000)),
        ("1E3", Fraction(1000)),
        ("12e-1", Fraction(6, 5)),
        ("100n", Fraction(1, 10**7)),
        ("3u", Fraction(3, 10**6)),
        ("+2", Fraction(2)),
        ("-2", Fraction(-2)),
        (3, Fraction(3)),
        (0.1, Fraction(1, 10)),
        (1e21, Fraction(10**21)),
    ],
)
def test_parses(text: str | int | float, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1 ",
        "Mi",
        "m",
        ".",
        "1..2",
        "1mi",
        "1KI",
        "1ki",
        "1K",
        "1 Mi",
        "1e",
        "1e3Mi",
        "1e999",
        "--1",
        "1,5",
        "٣",
        "0x10",
        "nan",
        "inf",
        "1\n",
        "9" * 65,
        float("nan"),
        float("inf"),
        True,
    ],
)
def test_refuses_malformed_and_names_it(text: str | float) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_quantity(text)
    assert str(text)[:64] in str(caught.value)
    assert "250m" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "millis"), [("250m", 250), ("0.1", 100), (2, 2000), (0.5, 500), ("1u", 1), ("1.0001", 1001), ("0", 0)]
)
def test_cpu_rounds_up(text: str | int | float, millis: int) -> None:
    assert cpu_millis(text) == millis


@pytest.mark.parametrize(("text", "count"), [("64Mi", 64 * 2**20), ("1500m", 2), (128, 128), ("1M", 10**6)])
def test_memory_in_bytes(text: str | int, count: int) -> None:
    assert memory_bytes(text) == count


@pytest.mark.parametrize("text", ["-1", "-1m", "1e30", "9Ei", "8Ei"])
def test_amounts_are_positive_and_possible(text: str) -> None:
    with pytest.raises(InvalidError, match=text):
        memory_bytes(text)
    with pytest.raises(InvalidError, match=text):
        cpu_millis(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (512 * 2**20, "512Mi"), (1536, "1536"), (3 * 2**19, "1536Ki"), (1000, "1000")]
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (812, "812B"), (3 * 2**29, "1.5Gi"), (512 * 2**20, "512Mi"), (2**30 - 1, "1Gi"), (2**70, "1024Ei")],
)
def test_human_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(("millis", "text"), [(250, "250m"), (2000, "2"), (1500, "1500m"), (0, "0")])
def test_format_cpu(millis: int, text: str) -> None:
    assert format_cpu(millis) == text


@given(st.integers(0, 2**62))
def test_formats_read_back(count: int) -> None:
    assert memory_bytes(format_bytes(count)) == count
    assert cpu_millis(format_cpu(count)) == count


@given(st.integers(-(10**9), 10**9), st.sampled_from(["m", "", "k", "Mi", "Gi"]))
def test_order_is_that_of_the_values(number: int, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") < parse_quantity(f"{number + 1}{suffix}")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_mean_what_is_written(value: float) -> None:
    assert parse_quantity(value) == Fraction(repr(value))
