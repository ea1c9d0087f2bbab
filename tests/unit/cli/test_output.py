import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from korch.cli.output import clean, dump, hanging_table, headline, render_objects, table, to_yaml
from korch.cli.sheet import Block, Part, render
from korch.resources.times import format_age

from .world import a_deployment, a_pod


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (45.9, "45s"),
        (119, "119s"),
        (120, "2m"),
        (312, "5m12s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600 + 120, "9h"),
        (48 * 3600, "2d"),
        (3 * 86400 + 2 * 3600, "3d2h"),
        (8 * 86400 + 3600, "8d"),
        (800 * 86400, "2y70d"),
        (730 * 86400, "2y"),
        (10 * 365 * 86400, "10y"),
    ],
)
def test_age(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


@given(st.integers(0, 10**10))
def test_an_age_is_short_and_has_no_zero_part(seconds: int) -> None:
    text = format_age(seconds)
    assert len(text) <= 8
    assert text == "0s" or not text.startswith("0")


def test_table_aligns_and_leaves_no_blanks_at_the_end() -> None:
    assert table([("a", ""), ("long-name", "x")], ("NAME", "B")) == "NAME        B\na\nlong-name   x"


def test_further_lines_of_the_last_cell_hang_below_it() -> None:
    text = hanging_table([("Warning", "it failed\n  why\x1b"), ("Normal", "")], ("TYPE", "MESSAGE"))
    assert text.splitlines() == ["TYPE      MESSAGE", "Warning   it failed", "            why\\x1b", "Normal"]


def test_a_headline_says_that_there_is_more() -> None:
    assert headline("it failed\nlast log lines:\n...") == "it failed ..."
    assert headline(" one line \n") == "one line"
    assert headline("") == ""


def test_an_empty_table_is_nothing() -> None:
    assert table([], ("NAME",)) == ""


def test_a_growing_table_stays_aligned() -> None:
    widths: list[int] = []
    first = table([("aaaa", "1")], ("N", "V"), widths=widths)
    assert first == "N      V\naaaa   1"
    assert table([("b", "2")], ("N", "V"), widths=widths) == "b      2"


@pytest.mark.parametrize("nasty", ["\x1b[2J", "a\nb", "a\rb", "\x00", "\x9b31m", "\u202ereversed"], ids=repr)
def test_a_cell_cannot_move_the_cursor(nasty: str) -> None:
    text = table([(nasty, "end")], ("A", "B"))
    assert len(text.splitlines()) == 2
    assert all(ord(char) >= 32 for char in text.replace("\n", ""))
    assert "\x9b" not in text
    assert "\u202e" not in text


def test_clean_keeps_lines_when_asked() -> None:
    assert clean("a\nb\x1b", keep_newlines=True) == "a\nb\\x1b"


@pytest.mark.parametrize("text", ["1e3", "0x10", "yes", "y", "null", "1_000", "0o17", "12:30", "~", "", " a", "007"])
def test_a_string_stays_a_string_in_yaml(text: str) -> None:
    written = to_yaml({"k": text})
    assert yaml.safe_load(written) == {"k": text}
    if text in {"1e3", "y", "0o17"}:  # other readers take these for something else when they are bare
        assert f"'{text}'" in written


def test_several_lines_become_a_literal_block() -> None:
    assert to_yaml({"script": "one\ntwo\n"}) == "script: |\n  one\n  two\n"


def test_yaml_has_no_aliases_and_keeps_the_order() -> None:
    shared = {"z": 1, "a": 2}
    assert to_yaml({"x": shared, "b": shared}) == "x:\n  z: 1\n  a: 2\nb:\n  z: 1\n  a: 2\n"


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(_plain)
@example({"\x85": "a\u2028b\nc", "\ufeff": "a\rb"})
def test_yaml_reads_back(data: object) -> None:
    assert yaml.safe_load(to_yaml(data)) == data


def test_one_object_by_name_stands_alone_and_several_are_a_list() -> None:
    pod, deployment = a_pod("web-1"), a_deployment("web")
    alone = json.loads(render_objects([pod], "json", single=True))
    assert (alone["kind"], alone["metadata"]["name"]) == ("Pod", "web-1")
    listed = json.loads(render_objects([pod, deployment], "json", single=False))
    assert listed["kind"] == "List"
    assert [item["kind"] for item in listed["items"]] == ["Pod", "Deployment"]
    assert render_objects([pod, deployment], "name", single=False) == "pod/web-1\ndeployment.apps/web"


def test_dump_ends_without_newline() -> None:
    assert dump({"a": 1}, "yaml") == "a: 1"
    assert dump({"ä": 1}, "json") == '{\n    "ä": 1\n}'


def test_a_sheet_aligns_its_values_and_indents_its_parts() -> None:
    fields = [
        ("Name", "web"),
        ("Labels", ["a=1", "b=2"]),
        ("None", []),
        ("Message", "one\ntwo"),
        ("Inner", Part([("Key", 1)])),
        ("Table", Block("X\ny")),
    ]
    assert render(fields).splitlines() == [
        "Name:     web",
        "Labels:   a=1",
        "          b=2",
        "None:     <none>",
        "Message:  one",
        "          two",
        "Inner:",
        "  Key:  1",
        "Table:",
        "  X",
        "  y",
    ]


def test_json_holds_no_control_character_and_reads_back() -> None:
    data = {"k": "\x1b[2J\x9b31m\u202e\x7fä"}
    text = dump(data, "json")
    assert json.loads(text) == data
    assert "ä" in text
    assert not any(char in text for char in "\x1b\x9b\u202e\x7f")
