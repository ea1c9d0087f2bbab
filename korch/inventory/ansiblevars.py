"""What korch takes of Ansible's variables: how a host is reached, and as whom. Passwords it does not use."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from korch.inventory.marked import Marked, fault
from korch.inventory.scope import SSH_OPTIONS, Scope, flag, whole_number, word
from korch.inventory.tree import Entry

# Where Ansible accepts several names for one setting, the later one wins there too.
_ADDRESS = ("ansible_host", "ansible_ssh_host")
_PORT = ("ansible_port", "ansible_ssh_port")
_USER = ("ansible_user", "ansible_ssh_user")
_IDENTITY = ("ansible_private_key_file", "ansible_ssh_private_key_file")
_ARGS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_SSH_CONNECTIONS = ("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh")
_LOCAL_CONNECTIONS = ("local", "ansible.builtin.local")
_PASSWORDS = ("ansible_password", "ansible_ssh_pass", "ansible_become_password", "ansible_become_pass")


def password_warning(entry: Entry, variables: Mapping[str, Marked]) -> str:
    """A sentence when the inventory holds a password, which korch does not use; else ""."""
    found = next((name for name in _PASSWORDS if name in variables), None)
    if found is None:
        return ""
    return (
        f"{variables[found].place}: {found} of host {entry.name} is not used: korch logs in with keys and uses sudo -n"
    )


def user(scope: Scope) -> str | None:
    """The login; None: as ssh's configuration says."""
    return word(scope, *_USER)


def address(scope: Scope) -> str:
    """Where the host is: what ssh is given."""
    given = word(scope, *_ADDRESS)
    text = given if given is not None else scope.entry.name
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if text.startswith("-") or any(char.isspace() or char in "@/\\{}'\"$`;&|<>()" for char in text):
        if given is None:
            raise fault(scope.entry.place, f'host name "{text}" is not a name that ssh can be given')
        name, _value = scope.value(*_ADDRESS)
        raise scope.fault(name, f"is {text!r}, which is no host name or address")
    return text


def port(scope: Scope) -> int | None:
    """sshd's port; None: as ssh's configuration says."""
    name, value = scope.value(*_PORT)
    return None if value is None else whole_number(scope, name, value, 1, 65535)


def identity_file(scope: Scope) -> str | None:
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


def ssh_args(scope: Scope) -> tuple[str, ...]:
    """Words for ssh."""
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


def connection(scope: Scope) -> Literal["ssh", "local"]:
    """How the host is reached."""
    name, value = scope.value("ansible_connection")
    if value is None or value in _SSH_CONNECTIONS:
        return "ssh"
    if value in _LOCAL_CONNECTIONS:
        return "local"
    raise scope.fault(
        name, f"is {value!r}; korch reaches hosts by ssh or local only", hint="Keep such hosts in an inventory apart."
    )


def become(scope: Scope) -> bool | None:
    """Whether korch becomes root there by sudo; None: where it is needed."""
    become = flag(scope, "ansible_become")
    if become:
        _refuse_other(scope, "ansible_become_method", ("sudo", "ansible.builtin.sudo"), "korch becomes root by sudo -n")
        _refuse_other(scope, "ansible_become_user", ("root",), "korch needs root there to reach the engine")
    return become


def _refuse_other(scope: Scope, name: str, allowed: tuple[str, ...], why: str) -> None:
    _name, value = scope.value(name)
    if value is not None and value not in allowed:
        raise scope.fault(name, f"is {value!r}: {why}", hint=f"Use {allowed[0]}, or set ansible_become: false.")
