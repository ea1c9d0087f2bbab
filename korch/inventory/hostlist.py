"""Hosts named on the command line: `user@host1,host2:2222,[::1]:22`."""

import re
from collections import Counter

from korch.errors import InvalidError
from korch.inventory.hostnames import is_ipv6, split_port
from korch.inventory.marked import Marked, Place
from korch.inventory.tree import Tree

_HINT = "Write [user@]host[:port], separated by commas; IPv6 addresses with a port in brackets."


def read_host_list(source: str, tree: Tree) -> None:
    """Add the hosts to the tree. One host with several ports (NAT) is several machines: the port joins their names."""
    parsed = [_parse(entry.strip(), source) for entry in source.split(",") if entry.strip()]
    if not parsed:
        raise InvalidError(f'inventory "{source}" names no host', hint=_HINT)
    ports_of = Counter(host for host, _port in {(host, port) for _user, host, port in parsed})
    place = Place(f'host list "{source}"')
    seen: set[str] = set()
    for user, host, port in parsed:
        several = ports_of[host] > 1
        name = f"{host}-{port or 22}" if several else host
        if name in seen:
            raise InvalidError(f'inventory "{source}": host {host} stands there twice', hint="Remove one of them.")
        seen.add(name)
        tree.add_host(name, "ungrouped", place)
        values = {"ansible_host": host if several else None, "ansible_port": port, "ansible_user": user}
        for key, value in values.items():
            if value is not None:
                tree.set_host_var(name, key, Marked(value, place, kind="unsafe"))


def _parse(entry: str, source: str) -> tuple[str | None, str, int | None]:
    user, at, rest = entry.rpartition("@")
    try:
        host, port = split_port(rest)
    except InvalidError as error:
        raise InvalidError(f'inventory "{source}": {entry}: {error}', hint=_HINT) from error
    if (at and not user) or not (is_ipv6(host) or re.fullmatch(r"[\w.][\w.-]*", host)):
        raise InvalidError(f'inventory "{source}": "{entry}" is not a host', hint=_HINT)
    return user or None, host, port
