"""From a host's variables to a `Host`: what korch takes of Ansible's, and korch's own, checked."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, Literal

from korch.inventory.ansiblevars import address, become, connection, identity_file, port, ssh_args, user
from korch.inventory.marked import Marked, Place, fault
from korch.inventory.model import Host
from korch.inventory.scope import Scope, choice, flag, text_map, whole_number
from korch.inventory.tree import Entry, did_you_mean
from korch.resources.selectors import label_key_problem, label_value_problem

_KORCH_VARIABLES = (
    "korch_labels",
    "korch_taints",
    "korch_engine",
    "korch_address",
    "korch_zone",
    "korch_max_pods",
    "korch_reserved",
    "korch_shared",
    "korch_transport",
)
_ENGINES: Final[tuple[Literal["docker", "podman"], ...]] = ("docker", "podman")
_TRANSPORTS: Final[tuple[Literal["fabric", "openssh"], ...]] = ("fabric", "openssh")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OWN_LABELS = ("kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os")
_QUANTITIES = {
    "cpu": (re.compile(r"\d+m|\d+(\.\d{1,3})?"), "cores as 500m, 1 or 0.5"),
    "memory": (re.compile(r"\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?"), "bytes as 256Mi or 1Gi"),
}


def check_names(variables: Mapping[str, Marked]) -> None:
    """Refuse korch_* names that korch does not know, wherever they are written."""
    for name, marked in variables.items():
        if name.startswith("korch_") and name not in _KORCH_VARIABLES:
            raise fault(
                marked.place,
                f'unknown variable "{name}"{did_you_mean(name, _KORCH_VARIABLES)}',
                hint=f"korch knows {', '.join(_KORCH_VARIABLES)}.",
            )


def host_from(entry: Entry, variables: Mapping[str, Marked], groups: tuple[str, ...]) -> Host:
    """The checked host. Raises `InvalidError` with file, line and variable."""
    scope = Scope(entry, variables)
    return Host(
        name=entry.name,
        address=address(scope),
        port=port(scope),
        user=user(scope),
        identity_file=identity_file(scope),
        ssh_args=ssh_args(scope),
        connection=connection(scope),
        become=become(scope),
        groups=tuple(sorted(groups)),
        labels=_labels(scope),
        taints=_taints(scope),
        engine=choice(scope, "korch_engine", _ENGINES),
        node_address=_node_address(scope),
        zone=_zone(scope),
        max_pods=_max_pods(scope),
        reserved=_reserved(scope),
        shared=flag(scope, "korch_shared") or False,
        transport=choice(scope, "korch_transport", _TRANSPORTS) or "fabric",
        origin=str(entry.place),
    )


def _labels(scope: Scope) -> dict[str, str]:
    def check(key: str, value: str) -> str:
        if label_key_problem(key):
            return "is not a label name: [DNS.prefix/]name of at most 63 letters, digits, -, _ and ."
        if key in _OWN_LABELS:
            return "is set by korch itself"
        if label_value_problem(value):
            return f"has the value {value!r}; a label value has at most 63 letters, digits, -, _ and ."
        return ""

    return text_map(scope, "korch_labels", check)


def _taints(scope: Scope) -> tuple[str, ...]:
    _name, value = scope.value("korch_taints")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise scope.fault("korch_taints", f"is {value!r}, not a list", hint='Write it as ["key=value:NoSchedule"].')
    marked = scope.variables["korch_taints"].items() or []
    taints: dict[tuple[str, str], str] = {}
    for index, item in enumerate(value):
        place = marked[index].place if index < len(marked) else scope.place("korch_taints")
        key, text, effect = _taint(scope, item, place)
        if (key, effect) in taints:
            raise fault(place, f'korch_taints of host "{scope.entry.name}": {key} with {effect} stands there twice')
        taints[key, effect] = f"{key}={text}:{effect}" if text else f"{key}:{effect}"
    return tuple(taints.values())


def _taint(scope: Scope, item: object, place: Place) -> tuple[str, str, str]:
    where = f'korch_taints of host "{scope.entry.name}"'
    match = re.fullmatch(r"([^=:]+)(?:=([^=:]*))?:(\w+)", item) if isinstance(item, str) else None
    if not match:
        raise fault(place, f"{where}: {item!r} is not a taint", hint="Write key=value:NoSchedule, in quotes.")
    key, value, effect = match[1], match[2] or "", match[3]
    if effect not in _EFFECTS:
        raise fault(
            place, f'{where}: unknown effect "{effect}"{did_you_mean(effect, _EFFECTS)}', hint=", ".join(_EFFECTS)
        )
    if label_key_problem(key) or label_value_problem(value):
        raise fault(place, f"{where}: {item!r}: key and value follow the rules of labels")
    return key, value, effect


def _node_address(scope: Scope) -> str | None:
    _name, value = scope.value("korch_address")
    if value is None:
        return None
    try:
        found = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise scope.fault(
            "korch_address", f"is {value!r}, not an IP address", hint="Published ports bind to it: no names, no port."
        ) from None
    if found.is_unspecified or found.is_multicast:
        raise scope.fault("korch_address", f"is {value!r}, which other nodes cannot connect to")
    return str(found)


def _zone(scope: Scope) -> str | None:
    _name, value = scope.value("korch_zone")
    if value is None:
        return None
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if not text or label_value_problem(text):
        raise scope.fault(
            "korch_zone", f"is {value!r}, not a label value", hint="At most 63 letters, digits, -, _ and ."
        )
    return text


def _max_pods(scope: Scope) -> int | None:
    name, value = scope.value("korch_max_pods")
    return None if value is None else whole_number(scope, name, value, 1, 100_000)


def _reserved(scope: Scope) -> dict[str, str]:
    def check(key: str, value: str) -> str:
        if key not in _QUANTITIES:
            return f"is not known{did_you_mean(key, _QUANTITIES)}; use cpu and memory"
        shape, words = _QUANTITIES[key]
        return "" if shape.fullmatch(value) else f"is {value!r}; write {words}"

    return text_map(scope, "korch_reserved", check)
