"""The running machines of a Vagrantfile, as `vagrant ssh-config` describes them."""

import hashlib
import ipaddress
import os
import re
from pathlib import Path

import msgspec

from korch.errors import InvalidError, SetupError
from korch.inventory.marked import Marked, Place
from korch.inventory.programs import Ran, Runner
from korch.inventory.scope import SSH_OPTIONS
from korch.inventory.tree import Tree

_VARIABLES = {"VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}  # no question to the net about new versions
_INSTALL = "Install Vagrant (Debian: apt-get install vagrant), or write an Ansible inventory of the machines."
_OWN_VARIABLES = {"hostname": "ansible_host", "port": "ansible_port", "user": "ansible_user"}


class Machine(msgspec.Struct, frozen=True):
    """One `Host` block: options in order, values as written (quotes and all)."""

    name: str
    options: tuple[tuple[str, str], ...]


def parse_ssh_config(text: str) -> list[Machine]:
    """The `Host` blocks that `vagrant ssh-config` prints; lines before the first and comments are passed over."""
    machines: list[Machine] = []
    for raw in text.splitlines():
        line = raw.strip()
        match = re.fullmatch(r"(\w+)(?:\s*=\s*|\s+)(.+)", line)
        if not match or line.startswith("#"):
            continue
        key, value = match[1], match[2].strip()
        if key.lower() == "host":
            machines.append(Machine(unquoted(value), ()))
        elif machines:
            machines[-1] = Machine(machines[-1].name, (*machines[-1].options, (key, value)))
    return machines


def unquoted(value: str) -> str:
    """ssh_config's reading of one argument: quotes around it go, and the backslash before `"` and `\\`."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", value[1:-1])
    return value


def parse_status(text: str) -> dict[str, str]:
    """Machine → state, from `vagrant status --machine-readable` (timestamp,target,type,data)."""
    rows = (line.split(",") for line in text.splitlines())
    return {row[1]: row[3] for row in rows if len(row) >= 4 and row[1] and row[2] == "state"}


def read_vagrant(folder: Path, tree: Tree, runner: Runner) -> list[str]:
    """Add the running machines to the tree, as group "vagrant". Returns a sentence per machine that does not run."""
    if not folder.is_dir():
        raise InvalidError(f"vagrant: {folder} is no folder", hint="Write vagrant:DIR with the Vagrantfile's folder.")
    config = _vagrant(runner, folder, "ssh-config")
    states: dict[str, str] = {}
    if config.status:  # it stops at the first machine that is not running: ask which ones are
        states = parse_status(_checked(_vagrant(runner, folder, "status", "--machine-readable"), folder).stdout)
        running = [name for name, state in states.items() if state == "running"]
        if not states:
            raise _failure(config, folder)
        if not running:
            told = ", ".join(f"{name} is {state}" for name, state in states.items())
            raise InvalidError(f"vagrant: no machine of {folder} runs ({told})", hint=f"Run: cd {folder} && vagrant up")
        config = _checked(_vagrant(runner, folder, "ssh-config", *running), folder)
    machines = parse_ssh_config(config.stdout)
    if not machines:
        raise InvalidError(f"vagrant: {folder} has no machine that can be reached", hint="Run: vagrant up")
    place = Place(f"vagrant ssh-config in {folder}")
    tree.define_group("vagrant", place)
    for machine in machines:
        _add(tree, machine, place, machine_id(folder, machine.name))
    return [f"vagrant machine {name} is {state}: left out" for name, state in states.items() if state != "running"]


def machine_id(folder: Path, name: str) -> str:
    """What the provider calls this very machine; "" where Vagrant keeps no such record. Made anew, it has another."""
    dotfile = os.environ.get("VAGRANT_DOTFILE_PATH") or ".vagrant"
    for root in (folder.absolute(), *folder.absolute().parents):  # as Vagrant finds its Vagrantfile
        kept = root / dotfile / "machines" / name
        if kept.is_dir():
            try:
                ids = {path.parent.name: path.read_text("utf-8", "replace").strip() for path in kept.glob("*/id")}
            except OSError:
                return ""
            return " ".join(f"{provider} {told}" for provider, told in sorted(ids.items()) if told)
    return ""


def key_alias(machine: Machine, own_id: str) -> str:
    """The name under which the machine's host key is remembered; "" for its address, as with any other host.

    Machines that are made anew at the same address have another key, and Vagrant says that it should be taken. So it
    is bound to the machine: a new one is a host never seen, and a key that changes on one that stays is still refused.
    """
    options = {key.lower(): unquoted(value) for key, value in reversed(machine.options)}
    careless = options.get("stricthostkeychecking", "").lower() in {"no", "off"}
    forgets = options.get("userknownhostsfile") == "/dev/null"
    if not (own_id and careless and forgets and _is_near(options.get("hostname", ""))) or "hostkeyalias" in options:
        return ""
    return f"vagrant-{machine.name}-{hashlib.sha256(own_id.encode()).hexdigest()[:16]}".lower()


def _is_near(address: str) -> bool:
    """On this machine or in a private network: elsewhere, whose key it is matters too much."""
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return address == "localhost"


def _add(tree: Tree, machine: Machine, place: Place, own_id: str) -> None:
    tree.add_host(machine.name, "vagrant", place)
    identity, words = "", []
    for key, value in machine.options:
        own = _OWN_VARIABLES.get(key.lower())
        if own:
            tree.set_host_var(machine.name, own, Marked(unquoted(value), place, kind="unsafe"))
        elif key.lower() == "identityfile" and not identity:
            identity = unquoted(value)
            tree.set_host_var(machine.name, "ansible_ssh_private_key_file", Marked(identity, place, kind="unsafe"))
        elif key.lower() != "loglevel":
            words.append(Marked(f"{key}={value}", place, kind="unsafe"))
    if alias := key_alias(machine, own_id):
        words.append(Marked(f"HostKeyAlias={alias}", place, kind="unsafe"))
    tree.set_host_var(machine.name, SSH_OPTIONS, Marked(words, place))


def _vagrant(runner: Runner, folder: Path, *words: str) -> Ran:
    try:
        return runner(("vagrant", *words), folder, _VARIABLES)
    except FileNotFoundError as error:
        raise SetupError(
            f"vagrant is not installed, so the machines of {folder} are not known", hint=_INSTALL
        ) from error


def _checked(ran: Ran, folder: Path) -> Ran:
    if ran.status:
        raise _failure(ran, folder)
    return ran


def _failure(ran: Ran, folder: Path) -> InvalidError:
    told = " ".join((ran.stderr or ran.stdout).split())[:600] or f"exit status {ran.status}"
    return InvalidError(f"vagrant in {folder}: {told}", hint=f"Run: cd {folder} && vagrant status")
