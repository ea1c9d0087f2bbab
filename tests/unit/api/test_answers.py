"""What answers hold beside their bodies."""

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from korch.api.answers import warning_header


@given(st.text(max_size=2000))
@example('unknown field "\0"')
@example("\x7f\r\nX-Other: 1")
def test_any_warning_is_one_header(text: str) -> None:
    value = warning_header(text)
    h11.Response(status_code=200, headers=[("Warning", value)])  # as the server does it: refuses what is no value
    assert value.startswith('299 - "')
    assert value.endswith('"')


def test_a_warning_says_what_it_is_about() -> None:
    assert warning_header('unknown  field\n"spec.x\\"') == '299 - "unknown field \\"spec.x\\\\\\""'
