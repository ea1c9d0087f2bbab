import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import InvalidError
from korch.resources.yamltree import line_of, load_trees, plain


def read(text: str):
    (tree,) = load_trees(text, "f.yml")
    return plain(tree)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("a: yes", "yes", id="yes is text"),
        pytest.param("a: off", "off", id="off is text"),
        pytest.param("a: true", True, id="true"),
        pytest.param("a: 'true'", "true", id="quoted true"),
        pytest.param("a: 22:22", "22:22", id="no sexagesimal numbers"),
        pytest.param("a: 0755", "0755", id="no octal numbers"),
        pytest.param("a: 0x10", "0x10", id="no hexadecimal numbers"),
        pytest.param("a: 1_000", "1_000", id="no underscores in numbers"),
        pytest.param("a: 2024-01-01", "2024-01-01", id="no dates"),
        pytest.param("a: 12", 12, id="integer"),
        pytest.param("a: -3", -3, id="negative"),
        pytest.param("a: 1.50", 1.5, id="float"),
        pytest.param("a: 1e3", 1000.0, id="exponent"),
        pytest.param("a: .inf", ".inf", id="no infinity"),
        pytest.param("a: !!str 12", "12", id="explicit text"),
        pytest.param("a:", None, id="nothing"),
        pytest.param("a: ~", None, id="tilde"),
        pytest.param('a: ""', "", id="empty text"),
        pytest.param("a: |\n  x\n  y\n", "x\ny\n", id="block"),
        pytest.param("a: [1, {b: c}]", [1, {"b": "c"}], id="flow"),
        pytest.param("a: &x {b: 1}\n", {"b": 1}, id="anchor"),
    ],
)
def test_values(text, value):
    assert read(text) == {"a": value}
    assert type(read(text)["a"]) is type(value)


def test_keys_are_text_as_written():
    assert read("on: 1\n80: 2\nyes: 3") == {"on": 1, "80": 2, "yes": 3}


def test_aliases_and_merged_keys():
    assert read("x: &b {p: 1, q: 2}\ny: *b\nz: {<<: *b, q: 3}") == {
        "x": {"p": 1, "q": 2},
        "y": {"p": 1, "q": 2},
        "z": {"p": 1, "q": 3},
    }


def test_several_documents_without_the_empty_ones():
    assert [plain(t) for t in load_trees("---\na: 1\n---\n# nothing\n---\nb: 2\n", "f")] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: 1\nb: 2\na: 3", r'f.yml:3: "a" stands here a second time \(first: line 1\)', id="twice"),
        pytest.param("a: [1\nb: 2", r"f.yml:2: ", id="syntax"),
        pytest.param("a:\n\tb: 1", r"f.yml:2: ", id="tab"),
        pytest.param("a: *nothing", r"f.yml:1: the alias \*nothing has no anchor", id="alias"),
        pytest.param("a: &a [*a]", r"f.yml:1: the alias \*a has no anchor", id="recursive alias"),
        pytest.param("a: !!python/object:os.system x", "f.yml:1: the tag .* is not known", id="tag"),
        pytest.param("? [a, b]\n: 1", "f.yml:1: a key must be a single word", id="complex key"),
        pytest.param("a: {<<: 5}", "f.yml:1: << takes a mapping", id="merge"),
        pytest.param("a: \x01", "f.yml: ", id="control character"),
        pytest.param('{"a": "\\ud800"}', "f.yml:1: .*Unicode", id="lone surrogate"),
        pytest.param("[" * 100_000, "too large or too deep", id="deep"),
        pytest.param("- " * 100_000 + "x", "too large or too deep", id="deep list"),
        pytest.param(
            "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10 if n else ['x'] * 10)}]\n" for n in range(12)),
            "too large or too deep",
            id="billion laughs",
        ),
        pytest.param(
            "".join(f"l{n}: &l{n} [{f'*l{n - 1}' if n else 'x'}]\n" for n in range(3000)),
            "too large or too deep",
            id="a chain of aliases",
        ),
    ],
)
def test_refused(text, message):
    with pytest.raises(InvalidError, match=message):
        load_trees(text, "f.yml")


def test_lines_are_found_by_path():
    (tree,) = load_trees("a:\n  b:\n  - c: 1\n  - c: 2\n    d: 3\n", "f")
    assert line_of(tree, "a.b[1].d") == 5
    assert line_of(tree, "a.b[1].missing") == 4
    assert line_of(tree, "a.b") == 2
    assert line_of(tree, "nothing") == 1
    assert line_of(tree, "") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    value=st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=3), indent=st.sampled_from([None, 1, "\t"])
)
def test_every_json_document_is_read_as_it_is(value, indent):
    text = json.dumps(value, indent=indent)
    assert read(text) == value
