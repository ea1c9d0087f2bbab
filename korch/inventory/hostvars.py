"""From a host's variables to a `Host`: what korch takes of Ansible's, and korch's own, checked."""

import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from korch.errors import InvalidError
from korch.inventory.marked import Marked, Place, fault
from korch.inventory.model import Host
from korch.inventory.templates import resolve
from korch.inventory.tree import Entry, did_you_mean

KORCH_VARIABLES = (
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
SSH_OPTIONS = "korch ssh options"  # set by vagrant.py only; no inventory can write a name with spaces
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
# Where Ansible accepts several names for one setting, the later one wins there too.
_ADDRESS = ("ansible_host", "ansible_ssh_host")
_PORT = ("ansible_port", "ansible_ssh_port")
_USER = ("ansible_user", "ansible_ssh_user")
_IDENTITY = ("ansible_private_key_file", "ansible_ssh_private_key_file")
_ARGS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_SSH_CONNECTIONS = ("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh")
_LOCAL_CONNECTIONS = ("local", "ansible.builtin.local")
_PASSWORDS = ("ansible_password", "ansible_ssh_pass", "ansible_become_password", "ansible_become_pass")

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DNS_PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_OWN_LABELS = ("kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os")
_QUANTITIES = {
    "cpu": (re.compile(r"\d+m|\d+(\.\d{1,3})?"), "cores as 500m, 1 or 0.5"),
    "memory": (re.compile(r"\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?"), "bytes as 256Mi or 1Gi"),
}


class Scope(msgspec.Struct, frozen=True):
    """The variables of one host and what `{{ … }}` may name besides."""

    entry: Entry
    variables: Mapping[str, Marked]

    def place(self, name: str) -> Place:
        """Where the variable was given."""
        return self.variables[name].place

    def value(self, *names: str) -> tuple[str, object]:
        """(name, value) of the last of `names` that is set; ("", None) when none is. null means not set."""
        for name in reversed(names):
            if name in self.variables:
                value = resolve(name, self.variables, self._builtins())
                if value is not None:
                    return name, value
        return "", None

    def fault(self, name: str, message: str, *, hint: str = "") -> InvalidError:
        """An error that names file, line, variable and host."""
        return fault(self.place(name), f'{name} of host "{self.entry.name}" {message}', hint=hint)

    def _builtins(self) -> dict[str, str]:
        own = {"inventory_hostname": self.entry.name, "inventory_hostname_short": self.entry.name.split(".")[0]}
        if self.entry.source is not None:
            own |= {"inventory_dir": str(self.entry.source.parent), "inventory_file": str(self.entry.source)}
        return own


def check_names(variables: Mapping[str, Marked]) -> None:
    """Refuse korch_* names that korch does not know, wherever they are written."""
    for name, marked in variables.items():
        if name.startswith("korch_") and name not in KORCH_VARIABLES:
            raise fault(
                marked.place,
                f'unknown variable "{name}"{did_you_mean(name, KORCH_VARIABLES)}',
                hint=f"korch knows {', '.join(KORCH_VARIABLES)}.",
            )


def password_warning(entry: Entry, variables: Mapping[str, Marked]) -> str:
    """A sentence when the inventory holds a password, which korch does not use; else ""."""
    found = next((name for name in _PASSWORDS if name in variables), None)
    if found is None:
        return ""
    return (
        f"{variables[found].place}: {found} of host {entry.name} is not used: korch logs in with keys and uses sudo -n"
    )


def host_from(entry: Entry, variables: Mapping[str, Marked], groups: tuple[str, ...]) -> Host:
    """The checked host. Raises `InvalidError` with file, line and variable."""
    scope = Scope(entry, variables)
    return Host(
        name=entry.name,
        address=_address(scope),
        port=_port(scope),
        user=_word(scope, *_USER),
        identity_file=_identity_file(scope),
        ssh_args=_ssh_args(scope),
        connection=_connection(scope),
        become=_become(scope),
        groups=tuple(sorted(groups)),
        labels=_labels(scope),
        taints=_taints(scope),
        engine=_engine(scope),
        node_address=_node_address(scope),
        zone=_zone(scope),
        max_pods=_max_pods(scope),
        reserved=_reserved(scope),
        shared=_flag(scope, "korch_shared") or False,
        transport=_transport(scope),
        origin=str(entry.place),
    )


def _word(scope: Scope, *names: str) -> str | None:
    """A name for ssh: one word that ssh cannot take for an option."""
    name, value = scope.value(*names)
    if value is None:
        return None
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if not text or text.startswith("-") or any(char.isspace() or not char.isprintable() for char in text):
        raise scope.fault(
            name, f"is {value!r}, which is not one word", hint="It must not begin with - nor hold spaces."
        )
    return text


def _address(scope: Scope) -> str:
    given = _word(scope, *_ADDRESS)
    text = given if given is not None else scope.entry.name
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if text.startswith("-") or any(char.isspace() or char in "@/\\{}'\"$`;&|<>()" for char in text):
        if given is None:
            raise fault(scope.entry.place, f'host name "{text}" is not a name that ssh can be given')
        name, _value = scope.value(*_ADDRESS)
        raise scope.fault(name, f"is {text!r}, which is no host name or address")
    return text


def _whole_number(scope: Scope, name: str, value: object, low: int, high: int) -> int:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value.strip()) else value
    if type(number) is not int or not low <= number <= high:
        raise scope.fault(name, f"is {value!r}, not a whole number from {low} to {high}")
    return number


def _port(scope: Scope) -> int | None:
    name, value = scope.value(*_PORT)
    return None if value is None else _whole_number(scope, name, value, 1, 65535)


def _identity_file(scope: Scope) -> str | None:
    """An absolute path. A relative one is looked for where korch runs, as Ansible does, then beside the inventory."""
    name, value = scope.value(*_IDENTITY)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise scope.fault(name, f"is {value!r}, which is no path")
    path = Path(value).expanduser()
    if path.is_absolute():
        return str(path)
    beside = scope.entry.source.parent / path if scope.entry.source else None
    chosen = beside if beside is not None and beside.exists() and not path.exists() else path
    return os.path.normpath(chosen.absolute())


def _ssh_args(scope: Scope) -> tuple[str, ...]:
    words: list[str] = []
    for name in _ARGS:
        _name, value = scope.value(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise scope.fault(name, f"is {value!r}, not text", hint='Write it as "-o ProxyJump=bastion".')
        try:
            words += shlex.split(value)
        except ValueError as error:
            raise scope.fault(name, f"cannot be split into words: {error}", hint="Look at its quotes.") from error
    _name, options = scope.value(SSH_OPTIONS)
    for option in options if isinstance(options, list) else []:
        words += ["-o", str(option)]
    return tuple(words)


def _connection(scope: Scope) -> Literal["ssh", "local"]:
    name, value = scope.value("ansible_connection")
    if value is None or value in _SSH_CONNECTIONS:
        return "ssh"
    if value in _LOCAL_CONNECTIONS:
        return "local"
    raise scope.fault(
        name, f"is {value!r}; korch reaches hosts by ssh or local only", hint="Keep such hosts in an inventory apart."
    )


def _flag(scope: Scope, name: str) -> bool | None:
    _name, value = scope.value(name)
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in {"true", "yes", "on", "1", "y", "t"}:
        return True
    if word in {"false", "no", "off", "0", "n", "f"}:
        return False
    raise scope.fault(name, f"is {value!r}, neither true nor false")


def _become(scope: Scope) -> bool | None:
    become = _flag(scope, "ansible_become")
    if become:
        _refuse_other(scope, "ansible_become_method", ("sudo", "ansible.builtin.sudo"), "korch becomes root by sudo -n")
        _refuse_other(scope, "ansible_become_user", ("root",), "korch needs root there to reach the engine")
    return become


def _refuse_other(scope: Scope, name: str, allowed: tuple[str, ...], why: str) -> None:
    _name, value = scope.value(name)
    if value is not None and value not in allowed:
        raise scope.fault(name, f"is {value!r}: {why}", hint=f"Use {allowed[0]}, or set ansible_become: false.")


def _labels(scope: Scope) -> dict[str, str]:
    def check(key: str, value: str) -> str:
        prefix, slash, name = key.rpartition("/")
        if not _LABEL_NAME.fullmatch(name) or (slash and not _DNS_PREFIX.fullmatch(prefix)):
            return "is not a label name: [DNS.prefix/]name of at most 63 letters, digits, -, _ and ."
        if key in _OWN_LABELS:
            return "is set by korch itself"
        if not _LABEL_VALUE.fullmatch(value):
            return f"has the value {value!r}; a label value has at most 63 letters, digits, -, _ and ."
        return ""

    return _text_map(scope, "korch_labels", check)


def _text_map(scope: Scope, variable: str, check: Callable[[str, str], str]) -> dict[str, str]:
    """A map of names to text. `check` says what is wrong with one entry; whole numbers may stand without quotes."""
    _name, value = scope.value(variable)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise scope.fault(variable, f"is {value!r}, not a map", hint=f"Write it as {variable}: {{name: value}}.")
    marked = scope.variables[variable].mapping() or {}
    checked: dict[str, str] = {}
    for key, item in value.items():
        entry = marked.get(key)
        place = entry.place if entry else scope.place(variable)
        written = entry.raw if entry and entry.raw else str(item)
        where = f'{variable} of host "{scope.entry.name}": key "{key}"'
        if not isinstance(key, str) or not (isinstance(item, str) or (type(item) is int and written == str(item))):
            raise fault(place, f"{where}: {key!r}: {item!r} must be text", hint="Put it into quotes.")
        wrong = check(key, str(item))
        if wrong:
            raise fault(place, f"{where} {wrong}")
        checked[key] = str(item)
    return checked


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
    if effect not in EFFECTS:
        raise fault(
            place, f'{where}: unknown effect "{effect}"{did_you_mean(effect, EFFECTS)}', hint=", ".join(EFFECTS)
        )
    prefix, slash, name = key.rpartition("/")
    if (
        not _LABEL_NAME.fullmatch(name)
        or (slash and not _DNS_PREFIX.fullmatch(prefix))
        or not _LABEL_VALUE.fullmatch(value)
    ):
        raise fault(place, f"{where}: {item!r}: key and value follow the rules of labels")
    return key, value, effect


def _engine(scope: Scope) -> Literal["docker", "podman"] | None:
    _name, value = scope.value("korch_engine")
    if value is None:
        return None
    if value == "docker":
        return "docker"
    if value == "podman":
        return "podman"
    guess = did_you_mean(str(value), ("docker", "podman"))
    raise scope.fault("korch_engine", f"is {value!r}{guess}", hint="Use docker or podman, or leave it out.")


def _transport(scope: Scope) -> Literal["fabric", "openssh"]:
    _name, value = scope.value("korch_transport")
    if value is None or value == "fabric":
        return "fabric"
    if value == "openssh":
        return "openssh"
    guess = did_you_mean(str(value), ("fabric", "openssh"))
    raise scope.fault("korch_transport", f"is {value!r}{guess}", hint="Use fabric or openssh, or leave it out.")


def _node_address(scope: Scope) -> str | None:
    _name, value = scope.value("korch_address")
    if value is None:
        return None
    try:
        address = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise scope.fault(
            "korch_address", f"is {value!r}, not an IP address", hint="Published ports bind to it: no names, no port."
        ) from None
    if address.is_unspecified or address.is_multicast:
        raise scope.fault("korch_address", f"is {value!r}, which other nodes cannot connect to")
    return str(address)


def _zone(scope: Scope) -> str | None:
    _name, value = scope.value("korch_zone")
    if value is None:
        return None
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if not text or not _LABEL_VALUE.fullmatch(text):
        raise scope.fault(
            "korch_zone", f"is {value!r}, not a label value", hint="At most 63 letters, digits, -, _ and ."
        )
    return text


def _max_pods(scope: Scope) -> int | None:
    name, value = scope.value("korch_max_pods")
    return None if value is None else _whole_number(scope, name, value, 1, 100_000)


def _reserved(scope: Scope) -> dict[str, str]:
    def check(key: str, value: str) -> str:
        if key not in _QUANTITIES:
            return f"is not known{did_you_mean(key, _QUANTITIES)}; use cpu and memory"
        shape, words = _QUANTITIES[key]
        return "" if shape.fullmatch(value) else f"is {value!r}; write {words}"

    return _text_map(scope, "korch_reserved", check)
