"""Inventories from all their sources.

How a source is told apart, first match wins:

1. `lab`, `lab:NAME`, `vagrant`, `vagrant:DIR`: the words themselves (a file of that name is written `./lab`).
2. Anything that exists as a path: an Ansible inventory, file or folder.
3. Anything with `/`, or that ends as inventory files do: a path that is missing, an error.
4. Anything with `,` or `@`: a plain list of hosts. One lone host is written `web1,`, as for Ansible.
5. The rest is an error.
"""

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from korch.errors import InvalidError
from korch.inventory.ansible_cli import read_with_ansible
from korch.inventory.ansible_yaml import VarFolders, inventory_files, read_inventory_file, why_not_native
from korch.inventory.ansiblevars import password_warning
from korch.inventory.hostlist import read_host_list
from korch.inventory.hostnames import node_name
from korch.inventory.hostvars import check_names, host_from
from korch.inventory.marked import Place
from korch.inventory.model import Host, Inventory
from korch.inventory.programs import Runner, run_program
from korch.inventory.tree import Tree, relocated
from korch.inventory.vagrant import read_vagrant

_FILE_ENDINGS = (".yml", ".yaml", ".json", ".ini", ".toml", ".cfg", ".py", ".sh")


class Source(msgspec.Struct, frozen=True):
    """One `-i`, told apart. `path` is set for Ansible files, the lab's too, and is Vagrant's folder."""

    kind: Literal["ansible", "vagrant", "list"]
    text: str
    path: Path = Path()


def parse_source(text: str, home: Path) -> Source:
    """What a source is. Raises `InvalidError` with what to write instead."""
    word, colon, rest = text.partition(":")
    if word == "lab" and (not colon or rest):
        return _lab(text, rest or "lab", home)
    if word == "vagrant" and (not colon or rest):
        return Source("vagrant", text, Path(rest or ".").expanduser())
    if (path := _existing(text)) is not None:
        return Source("ansible", text, path)
    if "/" in text or text.endswith(_FILE_ENDINGS):
        raise InvalidError(f'inventory "{text}" does not exist', hint="Give the path of an Ansible inventory.")
    if "," in text or "@" in text:
        return Source("list", text)
    raise InvalidError(
        f'inventory "{text}" is neither a file nor a list of hosts',
        hint=f'For one host write "{text or "host"}," or user@{text or "host"}; else give a file, lab or vagrant.',
    )


def _existing(text: str) -> Path | None:
    """The path, when it is one of something that exists."""
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError):  # a name too long for the system; `~somebody` whom it does not know
        return None


def _lab(text: str, name: str, home: Path) -> Source:
    path = home / "labs" / name / "inventory.yml"
    if not path.is_file():
        raise InvalidError(f'inventory "{text}": there is no lab "{name}" on this machine', hint="Run: korch lab up")
    return Source("ansible", text, path)


def load_inventory(sources: Sequence[str], *, limit: str = "", home: Path, runner: Runner = run_program) -> Inventory:
    """All hosts of all sources, checked; later sources win. `home` is KORCH_HOME, where labs live.

    Raises `InvalidError` (file, line and key where there are any) and `SetupError` when a program is missing.
    """
    if not sources:
        raise InvalidError(
            "no inventory is given",
            hint="Use -i hosts.yml, -i user@host1,host2, -i vagrant or -i lab, or KORCH_INVENTORY.",
        )
    parsed = [parse_source(text, home) for text in sources]
    tree = Tree()
    warnings, folders = _read_sources(parsed, tree, runner)
    tree.finish()
    hosts = _hosts(tree, folders, warnings)
    if not hosts:
        raise InvalidError(f"inventory {', '.join(sources)} has no hosts", hint="Hosts are written below `hosts:`.")
    _refuse_doubles(hosts)
    inventory = Inventory(
        hosts=hosts,
        groups={name: tuple(tree.hosts_of(name)) for name in tree.groups},
        limit=limit,
        warnings=tuple(dict.fromkeys(warnings)),
    )
    if not inventory.placeable:
        raise InvalidError(f'--limit "{limit}" leaves no host', hint="See the hosts with: korch nodes")
    return inventory


def _read_sources(sources: Sequence[Source], tree: Tree, runner: Runner) -> tuple[list[str], list[VarFolders]]:
    """Fill the tree. When Ansible must read one file it reads all of them: only it knows how they mix."""
    ansible = [source.path for source in sources if source.kind == "ansible"]
    files = [file for path in ansible for file in inventory_files(path)]
    why = next((reason for file in files if (reason := why_not_native(file))), "")
    warnings: list[str] = []
    asked = False
    for source in sources:
        if source.kind == "vagrant":
            warnings += read_vagrant(source.path, tree, runner)
        elif source.kind == "list":
            read_host_list(source.text, tree)
        elif not why:
            for file in inventory_files(source.path):
                read_inventory_file(file, tree)
        elif not asked:
            asked = True
            read_with_ansible(ansible, why, tree, runner)
    return warnings, [] if why else [VarFolders(path) for path in dict.fromkeys(ansible)]


def _hosts(tree: Tree, folders: Sequence[VarFolders], warnings: list[str]) -> tuple[Host, ...]:
    for group in tree.groups.values():
        check_names(group.vars)
        for folder in folders:
            check_names(folder.group(group.name))
    hosts: list[Host] = []
    for name, entry in tree.hosts.items():
        variables = tree.vars_of(name, folders)
        check_names(variables)
        hosts.append(host_from(entry, variables, tuple(tree.groups_of(name))))
        warnings.append(password_warning(entry, variables))
    warnings += [f"{file} is encrypted and was not read" for folder in folders for file in folder.encrypted]
    warnings[:] = [warning for warning in warnings if warning]
    return tuple(hosts)


def _refuse_doubles(hosts: Sequence[Host]) -> None:
    """Two names for one machine, as far as names can tell, and two hosts that would be one node."""
    nodes: dict[str, Host] = {}
    machines: dict[tuple[str, int, tuple[str, ...]], Host] = {}
    for host in hosts:
        try:
            node = node_name(host.name)
        except InvalidError as error:
            raise relocated(error, Place(host.origin)) from error
        other = nodes.setdefault(node, host)
        if other is not host:
            raise InvalidError(
                f'{host.origin}: hosts "{other.name}" ({other.origin}) and "{host.name}" would both be node "{node}"',
                hint="Rename one of them: case is folded and _ becomes -.",
            )
        twin = machines.setdefault(_machine(host), host)
        if twin is not host:
            raise InvalidError(
                f'{host.origin}: host "{host.name}" has the same address and port as "{twin.name}" ({twin.origin})',
                hint="One machine may stand in an inventory once only: remove one of the names.",
            )


def _machine(host: Host) -> tuple[str, int, tuple[str, ...]]:
    """What tells machines apart before they are reached. Behind another jump host the same address is another one."""
    if host.connection == "local":
        return ("this machine", 0, ())
    try:
        address = str(ipaddress.ip_address(host.address))
    except ValueError:
        address = host.address.lower().rstrip(".")
    return (address, host.port or 22, host.ssh_args)
