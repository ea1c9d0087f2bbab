"""Env files: `KEY=VALUE` lines as docker and compose write them, values kept whole.

`export` before a name is allowed, comments begin with `#`. Unquoted values end at the line's end or before ` #`. Values
in single quotes are taken as they are; in double quotes a backslash before n, r, t, ", $ or itself is an escape. Quoted
values may span lines. Nothing is substituted: `$HOME` stays `$HOME`.
"""

import re

from korch.errors import InvalidError
from korch.resources.names import env_name_problem, text_problem

_START = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[^=\s#]+)[ \t]*=[ \t]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_HINT = "Write lines like NAME=value or NAME='any text'."


def parse_env_file(text: str, source: str) -> dict[str, str]:
    """The variables in the file's order; of a name given twice the last counts. `InvalidError` says FILE:LINE.

    Values never stand in messages: they may be secret.
    """
    found: dict[str, str] = {}
    position = 0
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        end = _line_end(text, position)
        content = text[position:end].strip()
        if not content or content.startswith("#"):
            position = end + 1
            continue
        start = _START.match(text, position, end)
        if start is None:
            raise InvalidError(f"{source}:{line}: NAME=VALUE is needed", hint=_HINT)
        name = start["name"]
        if problem := env_name_problem(name):
            raise InvalidError(f"{source}:{line}: {problem}", hint=_HINT)
        value, position = _value(text, start.end(), f"{source}:{line}: {name}")
        if problem := text_problem(value):
            raise InvalidError(f"{source}:{line}: {name}: {problem}")
        found[name] = value
    return found


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _value(text: str, position: int, where: str) -> tuple[str, int]:
    """The value that begins here, and where the next line begins."""
    quote = text[position : position + 1]
    if quote not in ("'", '"'):
        end = _line_end(text, position)
        return re.split(r"(?:^|[ \t])#", text[position:end], maxsplit=1)[0].strip(), end + 1
    value, after = _quoted(text, position + 1, quote, where)
    end = _line_end(text, after)
    rest = text[after:end].strip()
    if rest and not rest.startswith("#"):
        raise InvalidError(f"{where}: there is text behind the closing quote", hint=_HINT)
    return value, end + 1


def _quoted(text: str, position: int, quote: str, where: str) -> tuple[str, int]:
    parts: list[str] = []
    while position < len(text):
        char = text[position]
        if char == quote:
            return "".join(parts), position + 1
        if char == "\\" and quote == '"' and text[position + 1 : position + 2] in _ESCAPES:
            parts.append(_ESCAPES[text[position + 1]])
            position += 2
        else:
            parts.append(char)
            position += 1
    raise InvalidError(f"{where}: the closing quote {quote} is missing", hint=_HINT)
