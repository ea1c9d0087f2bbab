"""Inventories that only Ansible can read (INI, scripts, plugins), through `ansible-inventory --list`."""

import json
from collections.abc import Sequence
from pathlib import Path

from korch.errors import InvalidError, SetupError
from korch.inventory.marked import Place, from_plain
from korch.inventory.programs import Ran, Runner, find_program
from korch.inventory.tree import Tree

# A source that cannot be parsed is an error there too, not a warning beside an empty answer.
_VARIABLES = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}


def read_with_ansible(sources: Sequence[Path], why: str, tree: Tree, runner: Runner) -> None:
    """Add what `ansible-inventory --list` says of all `sources` together to the tree. Variables come merged."""
    program = find_program("ansible-inventory")
    if program is None:
        raise SetupError(
            f"{why}: only Ansible can read it, and ansible-inventory is not installed",
            hint="Run: pip install ansible-core (or write the inventory in Ansible's YAML).",
        )
    argv = [program, *(word for source in sources for word in ("-i", str(source))), "--list"]
    ran = runner(argv, None, _VARIABLES)
    shown = ", ".join(str(source) for source in sources)
    if ran.status:
        raise InvalidError(f"{shown}: ansible-inventory refuses it: {_reason(ran)}", hint=f"Try: {' '.join(argv)}")
    try:
        _fill(tree, json.loads(ran.stdout), Place(shown), sources[0].absolute())
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InvalidError(
            f"{shown}: ansible-inventory answered something else than its JSON", hint=str(error)
        ) from error


def _fill(tree: Tree, answer: dict[str, dict[str, object]], place: Place, source: Path) -> None:
    hostvars = answer.pop("_meta", {}).get("hostvars", {})
    for name, body in answer.items():
        tree.define_group(name, place)
        for child in _words(body.get("children")):
            tree.define_group(child, place)
            tree.add_child(name, child, place)
    for name, body in answer.items():
        for host in _words(body.get("hosts")):
            tree.add_host(host, name, place, source)
    if not isinstance(hostvars, dict):
        raise TypeError("_meta.hostvars is not a map")
    for host, values in hostvars.items():
        if host not in tree.hosts:
            tree.add_host(host, "all", place, source)
        for key, value in values.items():
            tree.set_host_var(host, key, from_plain(value, place))


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []


def _reason(ran: Ran) -> str:
    lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
    told = [line for line in lines if "ERROR" in line or "rror" in line] or lines
    return " ".join(told)[:600] or f"exit status {ran.status}"
