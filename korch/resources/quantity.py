"""Amounts of CPU and memory as Kubernetes writes them: `250m`, `1.5`, `64Mi`, `1e3`; read exactly, shown briefly.

The grammar is that of k8s.io/apimachinery's resource.Quantity: a decimal number with one suffix of `n u m k M G T P E`
(powers of 1000), `Ki Mi Gi Ti Pi Ei` (powers of 1024), or a decimal exponent.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache

from korch.errors import InvalidError

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE](?P<exponent>[+-]?[0-9]{1,2})|(?P<suffix>[A-Za-z]{0,2}))",
    re.ASCII,
)
_LONGEST = 64  # characters; a longer text is a mistake, and exact arithmetic on it would cost memory
_HINT = "Write a number with at most one suffix, such as 250m, 1.5, 64Mi, 2Gi or 1e3."
_LARGEST = 2**63 - 1  # what Kubernetes and every engine can hold


def parse_quantity(value: str | int | float) -> Fraction:
    """The exact value of a quantity; `InvalidError` names the text that is not one."""
    if isinstance(value, bool):
        raise InvalidError(f'"{value}" is not a quantity', hint=_HINT)
    if isinstance(value, int):
        return Fraction(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidError(f'"{value}" is not a quantity', hint=_HINT)
        return Fraction(repr(value))  # what was written, not the nearest binary fraction
    return _parse_text(value)


@lru_cache(maxsize=4096)
def _parse_text(text: str) -> Fraction:
    found = _NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    suffix = found["suffix"] or "" if found else ""
    if found is None or not (suffix in _DECIMAL or suffix in _BINARY):
        raise InvalidError(f'"{text[:_LONGEST]}" is not a quantity', hint=_HINT)
    number = Fraction("0" + found["number"].rstrip(".")) * (-1 if found["sign"] == "-" else 1)
    if found["exponent"]:
        return number * _power(10, int(found["exponent"]))
    if suffix in _BINARY:
        return number * _power(1024, _BINARY[suffix])
    return number * _power(1000, _DECIMAL[suffix])


def _power(base: int, exponent: int) -> Fraction:
    return Fraction(base**exponent) if exponent >= 0 else Fraction(1, base**-exponent)


def cpu_millis(value: str | int | float) -> int:
    """Thousandths of a CPU, rounded up, so that a request is never taken for less than it says."""
    return _amount(value, 1000, "CPU")


def memory_bytes(value: str | int | float) -> int:
    """Bytes, rounded up."""
    return _amount(value, 1, "memory")


def _amount(value: str | int | float, scale: int, what: str) -> int:
    exact = parse_quantity(value) * scale
    if exact < 0:
        raise InvalidError(f'{what} "{value}" is negative', hint=_HINT)
    if exact > _LARGEST:
        raise InvalidError(f'{what} "{value}" is larger than any machine', hint=_HINT)
    return math.ceil(exact)


def format_bytes(count: int) -> str:
    """The shortest exact text with a binary suffix: `512Mi`, `1536Ki`, `1000`. `memory_bytes` reads it back."""
    for suffix, power in reversed(_BINARY.items()):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{suffix}"
    return str(count)


def human_bytes(count: float) -> str:
    """About that much, for people: `512Mi`, `1.5Gi`, `812B`. Rounded to three digits or fewer decimals."""
    size = float(count)
    for suffix in ("B", "Ki", "Mi", "Gi", "Ti", "Pi"):
        if abs(size) < 1023.5:
            text = f"{size:.1f}" if abs(size) < 99.95 else f"{size:.0f}"
            return text.removesuffix(".0") + suffix
        size /= 1024
    return f"{size:.0f}Ei"


def format_cpu(millis: int) -> str:
    """The shortest exact text: `250m`, `2`, `1500m`. `cpu_millis` reads it back."""
    return f"{millis}m" if millis % 1000 else str(millis // 1000)
