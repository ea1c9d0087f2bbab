"""The part of Jinja that inventories use for connections: `{{ name }}`, `{{ name.key }}`, `{{ name['key'] }}`.

Filters, lookups and statements are refused: braces must never reach ssh as if they were a host name.
"""

import re
from collections.abc import Mapping

from korch.inventory.marked import Marked, fault

_TOKEN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_NAME = re.compile(r"\{\{\s*([A-Za-z_]\w*)((?:\.\w+|\[\s*(?:'[^']*'|\"[^\"]*\")\s*\])*)\s*\}\}")
_KEY = re.compile(r"\.(\w+)|\[\s*['\"]([^'\"]*)['\"]\s*\]")
_HINT = "korch fills in plain {{ variable }}; write the value out, or put the expression into a variable's plain value."


def resolve(name: str, scope: Mapping[str, Marked], builtins: Mapping[str, str]) -> object:
    """The plain value of a variable with its references filled in. Raises naming file and line when it cannot be."""
    return _resolve(scope[name], name, scope, builtins, (name,))


def _resolve(
    marked: Marked, key: str, scope: Mapping[str, Marked], builtins: Mapping[str, str], trail: tuple[str, ...]
) -> object:
    if marked.kind == "vault":
        raise fault(
            marked.place,
            f"{key} is encrypted with Ansible Vault, and korch needs it",
            hint="korch does not open vaults: write this value in the clear, or leave it to ~/.ssh/config.",
        )
    value = marked.value
    if isinstance(value, dict):
        return {name: _resolve(item, f"{key}.{name}", scope, builtins, trail) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, key, scope, builtins, trail) for item in value]
    if not isinstance(value, str) or marked.kind == "unsafe" or "{" not in value:
        return value
    tokens = list(_TOKEN.finditer(value))
    if not tokens:
        if "{{" in value or "{%" in value:
            raise fault(marked.place, f"{key}: braces are not closed in {value!r}")
        return value
    parts: list[object] = []
    end = 0
    for token in tokens:
        parts += [value[end : token.start()], _lookup(token[0], marked, key, scope, builtins, trail)]
        end = token.end()
    parts.append(value[end:])
    filled = [part for part in parts if part != ""]
    return filled[0] if len(filled) == 1 else "".join(str(part) for part in filled)


def _lookup(
    token: str,
    marked: Marked,
    key: str,
    scope: Mapping[str, Marked],
    builtins: Mapping[str, str],
    trail: tuple[str, ...],
) -> object:
    match = _NAME.fullmatch(token)
    if not match:
        raise fault(marked.place, f"{key}: the expression {token} is more than korch understands", hint=_HINT)
    name, keys = match[1], [first or second for first, second in _KEY.findall(match[2])]
    if name in builtins and not keys:
        return builtins[name]
    if name in trail:
        raise fault(marked.place, f"{key}: variables refer to each other in a circle: {' > '.join((*trail, name))}")
    found = scope.get(name)
    for part in keys:
        inner = found.mapping() if found is not None else None
        found = inner.get(part) if inner is not None else None
    if found is None:
        raise fault(marked.place, f"{key}: {token} is not defined for this host", hint=_HINT)
    return _resolve(found, name, scope, builtins, (*trail, name))
