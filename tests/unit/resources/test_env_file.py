import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import InvalidError
from korch.resources.env_file import parse_env_file


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("A=b", {"A": "b"}, id="plain"),
        pytest.param("A=b\nC=d\n", {"A": "b", "C": "d"}, id="two"),
        pytest.param("export A=b", {"A": "b"}, id="export"),
        pytest.param("# note\n\n  A=b", {"A": "b"}, id="comments and blanks"),
        pytest.param("A=b # note", {"A": "b"}, id="comment behind"),
        pytest.param("A=b#c", {"A": "b#c"}, id="hash in a value"),
        pytest.param("A=#c", {"A": ""}, id="only a comment"),
        pytest.param("A=", {"A": ""}, id="empty value"),
        pytest.param("A = b c ", {"A": "b c"}, id="spaces"),
        pytest.param("A=x=y", {"A": "x=y"}, id="equals sign"),
        pytest.param("A=$HOME ${X} `x`", {"A": "$HOME ${X} `x`"}, id="nothing is substituted"),
        pytest.param("A='b # c'", {"A": "b # c"}, id="single quotes"),
        pytest.param("A='a\\nb'", {"A": "a\\nb"}, id="no escapes in single quotes"),
        pytest.param('A="a\\nb\\"\\\\\\$"', {"A": 'a\nb"\\$'}, id="escapes in double quotes"),
        pytest.param('A="a\\qb"', {"A": "a\\qb"}, id="unknown escapes stay"),
        pytest.param("A='1\n2\n'\nB=c", {"A": "1\n2\n", "B": "c"}, id="several lines"),
        pytest.param('A="-----BEGIN\nx\n-----END" # key\nB=c', {"A": "-----BEGIN\nx\n-----END", "B": "c"}, id="key"),
        pytest.param("A=1\nA=2", {"A": "2"}, id="the last counts"),
        pytest.param("\ufeffA=b\r\nC=d\r\n", {"A": "b", "C": "d"}, id="Windows"),
        pytest.param("A=ü€", {"A": "ü€"}, id="Unicode"),
        pytest.param("A=it's", {"A": "it's"}, id="a quote inside"),
    ],
)
def test_values(text, values):
    assert parse_env_file(text, "f.env") == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("A=b\nnonsense secret", "f.env:2: NAME=VALUE is needed", id="no equals sign"),
        pytest.param("1A=secret", 'f.env:1: "1A" is not a name', id="name"),
        pytest.param("A-B=secret", 'f.env:1: "A-B" is not a name', id="dash"),
        pytest.param("=secret", "f.env:1: NAME=VALUE is needed", id="no name"),
        pytest.param("X=1\nA='secret\nB=c", "f.env:2: A: the closing quote ' is missing", id="open quote"),
        pytest.param("A='secret'x", "f.env:1: A: there is text behind the closing quote", id="text behind"),
        pytest.param("A=secret\0", "f.env:1: A: a NUL character", id="NUL"),
    ],
)
def test_mistakes_name_the_line_and_never_the_value(text, message):
    with pytest.raises(InvalidError) as caught:
        parse_env_file(text, "f.env")
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)
    assert "secret" not in caught.value.hint


TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=20)


@given(values=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True), TEXT, max_size=4))
def test_every_text_can_be_written_in_double_quotes(values):
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    written = "".join(f"{name}={quoted(text)}\n" for name, text in values.items())
    assert parse_env_file(written, "f") == values
