"""Names of hosts: patterns with ranges as Ansible writes them, `host:port`, and the Kubernetes node name."""

import ipaddress
import re
import string
from collections.abc import Iterator, Sequence
from itertools import product

from korch.errors import InvalidError

MAX_RANGE_HOSTS = 10_000  # a typing error such as [1:99999999] must not eat the memory

_BRACKETED = re.compile(r"\[(?P<host>[^\[\]]+)\](?::(?P<port>\d+))?")
_HOST_PORT = re.compile(r"(?P<host>(?:[^:\[\]]|\[[^\]]*\])+):(?P<port>\d+)")
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def is_ipv6(text: str) -> bool:
    """True for an IPv6 address without brackets."""
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def split_port(text: str) -> tuple[str, int | None]:
    """(host, port or None) of `host`, `host:22`, `[::1]`, `[::1]:22`; ranges in the host stay as they are."""
    if is_ipv6(text):
        return text, None
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed and (is_ipv6(bracketed["host"]) or bracketed["port"]):
        return bracketed["host"], _port(bracketed["port"])
    plain = _HOST_PORT.fullmatch(text)
    if plain:
        return plain["host"], _port(plain["port"])
    return text, None


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    port = int(text)
    if not 1 <= port <= 65535:
        raise InvalidError(f"port {text} is not between 1 and 65535")
    return port


def expand_host_pattern(pattern: str) -> tuple[list[str], int | None]:
    """The host names that `web[01:12:2].lab:2222` stands for, in order, and the port.

    Ranges as in Ansible's "Adding ranges of hosts": begin and end are both included, leading zeros fix the width,
    letters run a-zA-Z, a third part is the step.
    """
    head, port = split_port(pattern)
    if is_ipv6(head):
        return [head], port
    parts = re.split(r"\[([^\[\]]*)\]", head)
    if any(char in text for text in parts[::2] for char in "[]"):
        raise InvalidError(f'"{pattern}": a bracket is not closed', hint="A range is written node[1:3].")
    choices: list[Sequence[str]] = [_range(text, pattern) for text in parts[1::2]]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_RANGE_HOSTS:
        raise InvalidError(f'"{pattern}" stands for {count} hosts; at most {MAX_RANGE_HOSTS} are taken from one range')
    return list(_joined(parts[::2], choices)), port


def _joined(texts: Sequence[str], choices: Sequence[Sequence[str]]) -> Iterator[str]:
    for picked in product(*choices):
        yield texts[0] + "".join(value + text for value, text in zip(picked, texts[1:], strict=True))


def _range(text: str, pattern: str) -> Sequence[str]:
    bounds = text.split(":")
    if len(bounds) not in (2, 3) or not bounds[1]:
        raise InvalidError(
            f'"{pattern}": [{text}] is not a range', hint="Write [begin:end] or [begin:end:step], as node[01:12]."
        )
    begin, end, step_text = bounds[0] or "0", bounds[1], bounds[2] if len(bounds) == 3 else "1"
    if not step_text.isdecimal() or int(step_text) < 1:
        raise InvalidError(f'"{pattern}": the step of [{text}] is not a number from 1 on')
    step, letters = int(step_text), string.ascii_letters
    if len(begin) == len(end) == 1 and begin in letters and end in letters:
        low, high = letters.index(begin), letters.index(end)
        values: Sequence[str] = letters[low : high + 1 : step]
    elif begin.isdecimal() and end.isdecimal():
        values = _numbers(begin, end, step, text, pattern)
    else:
        raise InvalidError(
            f'"{pattern}": [{text}] mixes letters and numbers', hint="Use [1:9], [01:12] or single letters as [a:f]."
        )
    if not values:
        raise InvalidError(f'"{pattern}": the range [{text}] is empty', hint="Its begin comes after its end.")
    return values


def _numbers(begin: str, end: str, step: int, text: str, pattern: str) -> Sequence[str]:
    width = len(begin) if begin.startswith("0") and len(begin) > 1 else 0
    if width and width != len(end):
        raise InvalidError(
            f'"{pattern}": begin and end of [{text}] differ in width', hint="Write [01:12], not [01:120]."
        )
    numbers = range(int(begin), int(end) + 1, step)
    if len(numbers) > MAX_RANGE_HOSTS:
        raise InvalidError(
            f'"{pattern}": [{text}] stands for {len(numbers)} hosts; at most {MAX_RANGE_HOSTS} are taken'
        )
    return [str(number).zfill(width) for number in numbers]


def node_name(host_name: str) -> str:
    """The Kubernetes node name of a host: a DNS-1123 subdomain in lower case, `_` as `-`.

    IPv6 addresses get `-` for `:`, and a 0 where that would begin or end with `-` (`::1` is `0--1`). Raises
    `InvalidError` for names that cannot be one.
    """
    name = host_name.lower().replace("_", "-")
    if is_ipv6(name):
        name = str(ipaddress.ip_address(name)).replace(":", "-")
        name = ("0" if name.startswith("-") else "") + name + ("0" if name.endswith("-") else "")
    if len(name) > 253 or not _NODE_NAME.fullmatch(name):
        raise InvalidError(
            f'host name "{host_name}" cannot be a node name',
            hint="Use letters, digits, - and . (a label at most 63, all 253); put the address into ansible_host.",
        )
    return name
